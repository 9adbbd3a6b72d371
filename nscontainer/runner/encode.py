"""Values as a tree of JSON and a row of buffers: plain data, NumPy's arrays, pandas' tables.

A node of the tree is what it says (null, true, a number, a text, a list of nodes) or an object with
its kind in ``"t"``. Buffers have no place in the tree: they follow each other in its order. Nothing
in it is code, and whoever reads it needn't trust it (:mod:`nscontainer.values.decode`).
"""

from __future__ import annotations

import datetime as dt
import decimal
import math
import pathlib
import pickle
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_NESTED = 100
"""So deep may lists and their like stand in each other."""
_KINDS = "biufcmMSUV"  # of NumPy's types: all whose items are no pointers
_WORD = 1 << 63


class Refused(Exception):  # noqa: N818  # it reads as what happened
    """A value has no safe form; the text says what it is and what to do."""


class Buffer(NamedTuple):
    """Bytes to be written."""

    size: int
    get: Callable[[], memoryview]
    """Called when it is written: what has to be copied for it is so for that time only."""


class Encoder:
    """Makes nodes; their buffers gather meanwhile.

    Parameters
    ----------
    trust
        Pickle everything.
    """

    def __init__(self, *, trust: bool = False) -> None:
        self.buffers: list[Buffer] = []
        self._trust = trust

    def encode(self, value: Any) -> Any:
        """Give the node of a value that was asked for.

        Raises
        ------
        Refused
            It is, or has in it, something that doesn't go out.
        """
        return self._pickled(value) if self._trust else self.node(value, 0)

    def node(self, value: Any, depth: int) -> Any:
        """Give the node of a value within another; ``depth`` is how many it stands in."""
        if depth > MOST_NESTED:
            message = f"it is nested deeper than {MOST_NESTED}, or contains itself"
            raise Refused(message)
        encode = _PLAIN.get(type(value))
        if encode is not None:
            return encode(self, value, depth)
        numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
        if numpy is not None:
            if type(value) in (numpy.ndarray, numpy.memmap):
                return self.array(value, depth)
            if isinstance(value, numpy.generic):
                return {"t": "scalar", "v": self.array(numpy.asarray(value), depth)}
        if pandas is not None:
            from . import encode_tables

            found = encode_tables.node(self, value, depth, pandas)
            if found is not None:
                return found
        raise Refused(_not_plain(value))

    def nodes(self, values: Any, depth: int) -> list[Any]:
        """Give the nodes of a container's items; ``depth`` is the container's own."""
        values = list(values)  # of a view of a dict, say
        if set(map(type, values)) <= _AS_THEY_ARE:  # a column of texts, say: at C's speed
            return list(values)
        return [self.node(value, depth + 1) for value in values]

    def add(self, size: int, get: Callable[[], memoryview]) -> None:
        """Have bytes written behind those before."""
        self.buffers.append(Buffer(size, get))

    # --- arrays --------------------------------------------------------------------------------

    def array(self, value: Any, depth: int = 0) -> dict[str, Any]:
        """Give the node of an array; one of objects is as a list of them."""
        if value.dtype.kind == "O":
            items = self.nodes(value.ravel().tolist(), depth)
            return {"t": "objects", "shape": list(value.shape), "v": items}
        dtype = dtype_node(value.dtype)
        turned = value.flags.f_contiguous and not value.flags.c_contiguous
        self.add(value.nbytes, lambda: _bytes_of(value.T if turned else value))
        order = "F" if turned else "C"
        return {"t": "array", "dtype": dtype, "shape": list(value.shape), "order": order}

    # --- what the owner trusts -----------------------------------------------------------------

    def _pickled(self, value: Any) -> dict[str, Any]:
        views: list[memoryview] = []
        data = pickle.dumps(value, protocol=5, buffer_callback=apart(views))
        for view in (memoryview(data), *views):
            self.add(view.nbytes, lambda view=view: view)  # type: ignore[misc]
        return {"t": "pickle", "size": len(data), "sizes": [view.nbytes for view in views]}


def apart(views: list[memoryview]) -> Callable[[pickle.PickleBuffer], bool]:
    """Make a ``buffer_callback`` that puts buffers into a list, apart from the pickle.

    One that isn't in one piece is pickled with the rest.
    """

    def keep(buffer: pickle.PickleBuffer) -> bool:
        try:
            views.append(buffer.raw())
        except BufferError:
            return True
        return False

    return keep


def _bytes_of(array: Any) -> memoryview:
    numpy = sys.modules["numpy"]
    return memoryview(numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8))


def dtype_node(dtype: Any) -> Any:
    """Describe a type of array items.

    Raises
    ------
    Refused
        They are, or have, pointers, or have no width.
    """
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": dtype_node(base), "shape": list(shape)}
    if dtype.kind not in _KINDS or dtype.itemsize == 0:
        message = (
            f"its items are of type {dtype}, which doesn't come out; convert it, or use --trust"
        )
        raise Refused(message)
    if dtype.names is None:
        return dtype.str
    fields = [dtype.fields[name] for name in dtype.names]
    return {
        "names": list(dtype.names),
        "formats": [dtype_node(field[0]) for field in fields],
        "offsets": [field[1] for field in fields],
        "itemsize": dtype.itemsize,
    }


# --- plain data ----------------------------------------------------------------------------------

_AS_THEY_ARE = {str, bool, type(None)}


def _same(_encoder: Encoder, value: Any, _depth: int) -> Any:
    return value


def _int(_encoder: Encoder, value: int, _depth: int) -> Any:
    return value if -_WORD <= value < _WORD else {"t": "int", "v": hex(value)}


def _float(_encoder: Encoder, value: float, _depth: int) -> Any:
    return value if math.isfinite(value) else {"t": "float", "v": repr(value)}


def _complex(encoder: Encoder, value: complex, depth: int) -> Any:
    return {"t": "complex", "v": encoder.nodes((value.real, value.imag), depth)}


def _bytes(encoder: Encoder, value: Any, _depth: int) -> Any:
    encoder.add(len(value), lambda: memoryview(value))
    return {"t": type(value).__name__, "size": len(value)}


def _list(encoder: Encoder, value: Any, depth: int) -> Any:
    return encoder.nodes(value, depth)


def _items(encoder: Encoder, value: Any, depth: int) -> Any:
    return {"t": type(value).__name__, "v": encoder.nodes(value, depth)}


def _dict(encoder: Encoder, value: dict[Any, Any], depth: int) -> Any:
    return {
        "t": "dict",
        "k": encoder.nodes(value, depth),
        "v": encoder.nodes(value.values(), depth),
    }


def _range(_encoder: Encoder, value: range, depth: int) -> Any:
    return {"t": "range", "v": _encoder.nodes((value.start, value.stop, value.step), depth)}


def _text(_encoder: Encoder, value: Any, _depth: int) -> Any:
    return {"t": type(value).__name__, "v": str(value)}


def _path(_encoder: Encoder, value: Any, _depth: int) -> Any:
    return {"t": "Path", "v": str(value)}


def _date(_encoder: Encoder, value: dt.date, _depth: int) -> Any:
    return {"t": "date", "v": value.isoformat()}


def _moment(_encoder: Encoder, value: Any, _depth: int) -> Any:
    naive = value.replace(tzinfo=None).isoformat()
    zone = zone_node(value.tzinfo)
    return {"t": type(value).__name__, "v": naive, "zone": zone, "fold": value.fold}


def _delta(_encoder: Encoder, value: dt.timedelta, _depth: int) -> Any:
    return {"t": "timedelta", "v": [value.days, value.seconds, value.microseconds]}


_PLAIN: dict[type, Callable[[Encoder, Any, int], Any]] = {
    type(None): _same,
    bool: _same,
    str: _same,
    int: _int,
    float: _float,
    complex: _complex,
    bytes: _bytes,
    bytearray: _bytes,
    list: _list,
    tuple: _items,
    set: _items,
    frozenset: _items,
    dict: _dict,
    range: _range,
    decimal.Decimal: _text,
    pathlib.PosixPath: _path,
    dt.date: _date,
    dt.time: _moment,
    dt.datetime: _moment,
    dt.timedelta: _delta,
}
"""By exact type: of a class derived from one of these, the rest would be lost without a word."""


def zone_node(zone: Any) -> Any:
    """Describe a time zone: seconds from UTC, or a name.

    Raises
    ------
    Refused
        It is of a kind that has neither.
    """
    if zone is None:
        return None
    if isinstance(zone, dt.timezone):
        return zone.utcoffset(None).total_seconds()
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)  # zoneinfo's, pytz's
    if not isinstance(name, str):
        message = f"its time zone {zone!r} doesn't come out; convert it to UTC, or use --trust"
        raise Refused(message)
    return name


_CONVERSIONS = ((dict, "dict(…)"), (str, "str(…)"), (int, "int(…)"), (float, "float(…)"))
_SEQUENCES = ((list, "list(…)"), (tuple, "tuple(…)"), (set, "set(…)"))


def _not_plain(value: Any) -> str:
    kind = type(value)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    for base, way in (*_CONVERSIONS, *_SEQUENCES):
        if issubclass(kind, base):
            return f"what is of type {name} doesn't come out: convert it with {way}, or use --trust"
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        return f"what is of type {name} doesn't come out: convert it with numpy.asarray(…), or use --trust"
    return (
        f"what is of type {name} doesn't come out, only plain data, NumPy arrays and pandas tables do: "
        "make one of it, or use --trust"
    )
