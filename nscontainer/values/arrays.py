"""NumPy's arrays out of a container's buffers.

Bits that NumPy's own code takes for granted are looked at: a bool of another value than 0 and 1 has it
write beyond its memory (it adds a mask's bytes to learn how many items to make room for).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final, cast

import numpy as np

from nscontainer.values.decode import BadNodeError, Reader, checked

_MOST_FIELDS: Final = 10_000
_MOST_NESTED: Final = 20
# bool, integers, floats, complex, times (with a unit), byte strings, texts, raw bytes: no pointers.
_DTYPE: Final = re.compile(
    r"[<>|=](b1|[iu][1248]|f(2|4|8|12|16)|c(8|16|24|32)|[SUV]\d{1,10}|"
    r"[mM]8(\[([1-9]\d{0,8})?(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?)"
)
_LAST_CHARACTER: Final = 0x10FFFF


def dtype(node: Any, depth: int = 0) -> np.dtype[Any]:
    """Make the type of an array's items.

    Raises
    ------
    BadNodeError
        It is none without pointers and of some width.
    """
    if depth > _MOST_NESTED:
        raise BadNodeError(f"a type is nested deeper than {_MOST_NESTED}")
    if isinstance(node, str):
        if not _DTYPE.fullmatch(node):
            raise BadNodeError(f"{node!r:.50} is no type of array items that comes out")
        made = np.dtype(node)
    elif "base" in checked(node, dict):
        made = np.dtype((dtype(node["base"], depth + 1), shape(node["shape"])))
    else:
        made = _structure(node, depth)
    if made.hasobject or made.itemsize == 0:
        raise BadNodeError(f"{node!r:.50} is no type of array items that comes out")
    return made


def _structure(node: dict[str, Any], depth: int) -> np.dtype[Any]:
    names, formats, offsets = (checked(node[key], list) for key in ("names", "formats", "offsets"))
    if not 0 < len(names) == len(formats) == len(offsets) <= _MOST_FIELDS:
        raise BadNodeError("a structure of no fields, or of too many")
    fields = [dtype(one, depth + 1) for one in formats]
    itemsize, end = checked(node["itemsize"], int), 0
    for offset, field in zip(offsets, fields, strict=True):
        if (
            checked(offset, int) < end
        ):  # fields that overlap have no bits of their own to be looked at
            raise BadNodeError("fields of a structure that overlap")
        end = offset + field.itemsize
    if end > itemsize:
        raise BadNodeError("a field beyond its structure")
    described = {"names": names, "formats": fields, "offsets": offsets, "itemsize": itemsize}
    made: np.dtype[Any] = np.dtype(cast("Any", described))
    return made


def shape(node: Any) -> tuple[int, ...]:
    """Check an array's shape."""
    lengths = tuple(checked(length, int) for length in checked(node, list))
    if any(length < 0 for length in lengths):
        raise BadNodeError("a length below 0")
    return lengths


def array(reader: Reader, node: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Make an array on the next buffer; nothing is copied."""
    kind, lengths = dtype(node["dtype"]), shape(node["shape"])
    if node["order"] not in ("C", "F"):
        raise BadNodeError("an order of items that there isn't")
    data = reader.take(math.prod(lengths) * kind.itemsize)
    if not data:
        return np.empty(lengths, kind)
    made: np.ndarray[Any, Any] = np.ndarray(lengths, kind, buffer=data, order=node["order"])
    _check_bits(made)
    return made


def _check_bits(values: np.ndarray[Any, Any]) -> None:
    kind = values.dtype
    if kind.names is not None:
        for name in kind.names:
            _check_bits(values[name])
    elif kind.kind == "b" and values.view(np.uint8).max() > 1:
        raise BadNodeError("a bool that is neither 0 nor 1")
    elif kind.kind == "U":
        # Of a field the items are apart, and a text can't be viewed as numbers: in pieces, then.
        flat = np.ascontiguousarray(values).reshape(-1)
        if flat.view(np.dtype(np.uint32).newbyteorder(kind.byteorder)).max() > _LAST_CHARACTER:
            raise BadNodeError("a text with a character that there isn't")


def _objects(reader: Reader, node: dict[str, Any]) -> np.ndarray[Any, Any]:
    lengths, items = shape(node["shape"]), reader.values(node["v"])
    if math.prod(lengths) != len(items):
        raise BadNodeError("objects of another number than their shape's")
    made = np.empty(len(items), object)
    for at, item in enumerate(items):  # an assignment at once would take lists apart
        made[at] = item
    return made.reshape(lengths)


MAKERS: Final[dict[Any, Callable[[Reader, dict[str, Any]], Any]]] = {
    "array": array,
    "objects": _objects,
    "scalar": lambda reader, node: array(reader, node["v"])[()],
}
