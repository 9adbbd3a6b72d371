"""Makes values of what a container has written. It is hostile: whatever it says, no code of it runs.

The nodes are those of :mod:`nscontainer.runner.encode`. Buffers follow each other in the order of the
nodes, so none can overlap another.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import json
import pathlib
import pickle
import re
import zoneinfo
from collections.abc import Callable
from typing import Any, Final

from nscontainer.values import memory

MOST_NESTED: Final = 120  # the other side keeps to 100; the nodes of a table come on top
_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]{1,40}(/[A-Za-z0-9_+-]{1,40}){0,3}")


class BadNodeError(ValueError):
    """A node is none that our encoder makes."""


class Reader:
    """Reads nodes, and their buffers in order.

    Parameters
    ----------
    buffers
        All buffers, as one.
    trust
        Whether pickles may be loaded: then the container can run code here.
    """

    def __init__(self, buffers: memoryview, *, trust: bool = False) -> None:
        self._buffers = buffers
        self._at = 0
        self._depth = 0
        self.trust = trust

    def value(self, node: Any) -> Any:
        """Make the value of a node.

        Raises
        ------
        BadNodeError
            It is none that our encoder makes. Other errors are those of whoever makes the value.
        """
        self._depth += 1
        try:
            if self._depth > MOST_NESTED:
                raise BadNodeError(f"it is nested deeper than {MOST_NESTED}")
            if isinstance(node, list):
                return [self.value(item) for item in node]
            if not isinstance(node, dict):
                return node
            return self._made(node)
        finally:
            self._depth -= 1

    def values(self, nodes: Any) -> list[Any]:
        """Make the values of a list of nodes."""
        return list(self.value(checked(nodes, list)))

    def take(self, size: Any) -> memoryview:
        """Give the next buffer."""
        at = self._at + -self._at % memory.ALIGN
        if checked(size, int) < 0 or at + size > len(self._buffers):
            raise BadNodeError(f"a buffer of {size} bytes reaches beyond the file")
        self._at = at + size
        return self._buffers[at : self._at]

    def _made(self, node: dict[str, Any]) -> Any:
        kind = node.get("t")
        make = _PLAIN.get(kind) if isinstance(kind, str) else None
        if make is None:
            make = _of_libraries(kind)
        return make(self, node)


def _of_libraries(kind: Any) -> Callable[[Reader, dict[str, Any]], Any]:
    """Find what makes a node of NumPy's or pandas'; either is loaded only now."""
    from nscontainer.values import arrays

    if kind in arrays.MAKERS:
        return arrays.MAKERS[kind]
    from nscontainer.values import tables

    if kind in tables.MAKERS:
        return tables.MAKERS[kind]
    raise BadNodeError(f"there is no kind {kind!r:.50}")


def checked(value: Any, kind: type) -> Any:
    """Give a value that must be exactly of a type; a bool is no int."""
    if type(value) is not kind:
        raise BadNodeError(f"{kind.__name__} expected, and not {value!r:.50}")
    return value


def results(
    content: dict[str, Any],
    tree: memoryview,
    buffers: memoryview,
    *,
    trust: bool,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Make all values of a container's tree.

    Parameters
    ----------
    content
        The expressions that were asked for, by name: what else is in the tree isn't looked at, and what
        isn't in it is refused.

    Returns
    -------
    tuple[dict, dict]
        By name, the values; and why there is none.
    """
    values: dict[str, Any] = {}
    refused: dict[str, str] = {}
    parsed: Any = {}
    with contextlib.suppress(ValueError, RecursionError):
        parsed = json.loads(bytes(tree))
    nodes = _dict(parsed, "values")
    reasons = _dict(parsed, "refused")
    reader = Reader(buffers, trust=trust)
    broken = None
    # In the tree's order, which the buffers keep; after a node that fails theirs are lost.
    for name in [name for name in nodes if name in content]:
        try:
            values[name] = _loaded(reader, nodes[name]) if broken is None else None
        except Exception as error:  # noqa: BLE001  # it may provoke anything
            refused[name] = _reason(error)
            broken = None if isinstance(error, _PickleError) else name
        else:
            if broken is not None:
                del values[name]
                refused[name] = f"what comes before it, {broken!r}, can't be read"
    for name in content:
        if name not in values and name not in refused:
            refused[name] = _line(reasons.get(name, "the cell has sent nothing for it"))
    return values, refused


def _dict(parsed: Any, key: str) -> dict[str, Any]:
    found = parsed.get(key) if isinstance(parsed, dict) else None
    return found if isinstance(found, dict) else {}


def _line(text: Any) -> str:
    return " ".join(str(text).split())[:500]


def _reason(error: Exception) -> str:
    if isinstance(error, _PickleError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return f"it needs {error.name}, which is not installed here"
    return f"what the container has sent can't be read: {type(error).__name__}: {_line(error)}"


def _loaded(reader: Reader, node: Any) -> Any:
    """Make a value; a pickle is one only where it was asked for, and never within another node."""
    if not (isinstance(node, dict) and node.get("t") == "pickle"):
        return reader.value(node)
    if not reader.trust:
        raise BadNodeError("a pickle, which only --trust allows")
    data = reader.take(node["size"])
    buffers = [reader.take(size) for size in checked(node["sizes"], list)]
    try:
        return pickle.loads(data, buffers=buffers)  # noqa: S301  # the user trusts it: --trust
    except Exception as error:  # noqa: BLE001  # code of its own runs
        text = f"its pickle can't be loaded here: {type(error).__name__}: {_line(error)}"
        raise _PickleError(text) from None


class _PickleError(Exception):
    """A pickle doesn't load; all buffers of it have been taken."""


# --- plain data ----------------------------------------------------------------------------------


def zone(node: Any) -> dt.tzinfo | None:
    """Make a time zone: of seconds from UTC, or of a name as in the time zone database."""
    if node is None:
        return None
    if isinstance(node, str):
        if not _ZONE.fullmatch(node):
            raise BadNodeError(f"{node!r:.50} is no time zone")
        return zoneinfo.ZoneInfo(node)
    seconds = dt.timedelta(seconds=checked(node, float))
    return dt.timezone(seconds) if seconds else dt.UTC


def _int(_reader: Reader, node: dict[str, Any]) -> int:
    return int(checked(node["v"], str), 16)


def _float(_reader: Reader, node: dict[str, Any]) -> float:
    if node["v"] not in ("nan", "inf", "-inf"):
        raise BadNodeError("no float")
    return float(node["v"])


def _complex(reader: Reader, node: dict[str, Any]) -> complex:
    real, imaginary = (checked(part, float) for part in reader.values(node["v"]))
    return complex(real, imaginary)


def _dictionary(reader: Reader, node: dict[str, Any]) -> dict[Any, Any]:
    keys = reader.values(node["k"])
    return dict(zip(keys, reader.values(node["v"]), strict=True))


def _moment(kind: Any) -> Callable[[Reader, dict[str, Any]], Any]:
    def make(_reader: Reader, node: dict[str, Any]) -> Any:
        naive = kind.fromisoformat(checked(node["v"], str))
        return naive.replace(tzinfo=zone(node["zone"]), fold=checked(node["fold"], int))

    return make


_PLAIN: Final[dict[str, Callable[[Reader, dict[str, Any]], Any]]] = {
    "int": _int,
    "float": _float,
    "complex": _complex,
    "bytes": lambda reader, node: bytes(reader.take(node["size"])),
    "bytearray": lambda reader, node: bytearray(reader.take(node["size"])),
    "tuple": lambda reader, node: tuple(reader.values(node["v"])),
    "set": lambda reader, node: set(reader.values(node["v"])),
    "frozenset": lambda reader, node: frozenset(reader.values(node["v"])),
    "dict": _dictionary,
    "range": lambda _, node: range(*(checked(part, int) for part in node["v"])),
    "Decimal": lambda _, node: decimal.Decimal(checked(node["v"], str)),
    "Path": lambda _, node: pathlib.Path(checked(node["v"], str)),
    "date": lambda _, node: dt.date.fromisoformat(checked(node["v"], str)),
    "time": _moment(dt.time),
    "datetime": _moment(dt.datetime),
    "timedelta": lambda _, node: dt.timedelta(*(checked(part, int) for part in node["v"])),
}
