"""pandas' tables out of a container's nodes, from arrays that :mod:`.arrays` has checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, cast

import numpy as np
import pandas as pd

from nscontainer.values.arrays import array
from nscontainer.values.decode import BadNodeError, Reader, checked, zone

_FREQUENCY: Final = re.compile(r"-?\d{0,9}[A-Za-z]{1,5}(-[A-Za-z]{1,5})?")
_MASKED: Final[dict[str, Any]] = {
    "b": pd.arrays.BooleanArray,
    "i": pd.arrays.IntegerArray,
    "u": pd.arrays.IntegerArray,
    "f": pd.arrays.FloatingArray,
}


def _kind(node: Any, kind: str) -> dict[str, Any]:
    if checked(node, dict).get("t") != kind:
        raise BadNodeError(f"a node of kind {kind} expected, and not {node.get('t')!r:.50}")
    return cast("dict[str, Any]", node)


def _array(reader: Reader, node: Any) -> np.ndarray[Any, Any]:
    return array(reader, _kind(node, "array"))


def _scalar(reader: Reader, node: Any) -> Any:
    return _array(reader, node)[()]


def _column(reader: Reader, node: Any) -> Any:
    """Make the values of a Series or an Index."""
    kind = checked(node, dict).get("t")
    if kind not in _COLUMNS:
        raise BadNodeError(f"a column of kind {kind!r:.50}")
    return _COLUMNS[kind](reader, node)


def _objects(reader: Reader, node: dict[str, Any]) -> Any:
    return reader.value(_kind(node, "objects"))


def _zoned(reader: Reader, node: dict[str, Any]) -> Any:
    moments = pd.DatetimeIndex(_array(reader, node["v"]))
    return moments.tz_localize("UTC").tz_convert(zone(node["zone"])).array


def _category(reader: Reader, node: dict[str, Any]) -> Any:
    categories = _index(reader, node["categories"])
    codes = _array(reader, node["v"])
    return pd.Categorical.from_codes(codes, categories, ordered=checked(node["ordered"], bool))


def _string(reader: Reader, node: dict[str, Any]) -> Any:
    texts = reader.values(node["v"])
    if not set(map(type, texts)) <= {str, type(None)}:
        raise BadNodeError("texts that are none")
    storage = "pyarrow" if node["storage"] == "pyarrow" else "python"
    missing: dict[str, Any] = {"na_value": np.nan} if node["missing"] == "nan" else {}
    try:
        kind: Any = cast("Any", pd.StringDtype)(storage, **missing)
    except (ImportError, TypeError):  # no pyarrow; pandas < 2.3 knows of no na_value
        kind = pd.StringDtype("python")
    return pd.array(texts, dtype=kind)


def _masked(reader: Reader, node: dict[str, Any]) -> Any:
    mask, values = _array(reader, node["mask"]), _array(reader, node["v"])
    return _MASKED[values.dtype.kind](values, mask)


_COLUMNS: Final[dict[Any, Callable[[Reader, dict[str, Any]], Any]]] = {
    "array": _array,
    "objects": _objects,
    "zoned": _zoned,
    "category": _category,
    "string": _string,
    "masked": _masked,
}


def _index(reader: Reader, node: Any) -> Any:
    kind = checked(node, dict).get("t")
    names = reader.values(node["names"])
    if kind == "RangeIndex":
        return pd.RangeIndex(*(checked(part, int) for part in node["v"])).set_names(names)
    if kind == "MultiIndex":
        levels = [_index(reader, level) for level in checked(node["levels"], list)]
        codes = [_array(reader, one) for one in checked(node["codes"], list)]
        return pd.MultiIndex(levels, cast("Any", codes), names=names)
    values = _column(reader, _kind(node, "Index")["v"])
    made = pd.Index(values, dtype=values.dtype, copy=False).set_names(names)
    if node["freq"] is not None:
        if not _FREQUENCY.fullmatch(checked(node["freq"], str)):
            raise BadNodeError(f"{node['freq']!r:.50} is no frequency")
        cast("Any", made).freq = node["freq"]
    return made


def _series(reader: Reader, node: dict[str, Any]) -> Any:
    values = _column(reader, node["v"])
    index = _index(reader, node["index"])
    name = reader.value(node["name"])
    made = pd.Series(values, index=index, name=name, dtype=values.dtype, copy=False)
    made.attrs = checked(reader.value(node["attrs"]), dict)
    return made


def _frame(reader: Reader, node: dict[str, Any]) -> Any:
    block = _array(reader, node["block"]) if "block" in node else None
    columns = (
        [] if block is not None else [_column(reader, one) for one in checked(node["v"], list)]
    )
    names, index = _index(reader, node["columns"]), _index(reader, node["index"])
    if block is not None:
        made = pd.DataFrame(block, index=index, columns=names, copy=False)
    else:
        # By number first: names may be there twice.
        series = {
            i: pd.Series(values, index=index, dtype=values.dtype, copy=False)
            for i, values in enumerate(columns)
        }
        made = pd.DataFrame(series, index=index, columns=range(len(columns)), copy=False)
        made.columns = names
    made.attrs = checked(reader.value(node["attrs"]), dict)
    return made


def _stamp(reader: Reader, node: dict[str, Any]) -> Any:
    moment = pd.Timestamp(_scalar(reader, node["v"]))
    where = zone(node["zone"])
    return moment if where is None else moment.tz_localize("UTC").tz_convert(where)


MAKERS: Final[dict[Any, Callable[[Reader, dict[str, Any]], Any]]] = {
    "Series": _series,
    "DataFrame": _frame,
    "Timestamp": _stamp,
    "Timedelta": lambda reader, node: pd.Timedelta(_scalar(reader, node["v"])),
    "NA": lambda _reader, _node: pd.NA,
    "NaT": lambda _reader, _node: pd.NaT,
    "category": _category,
    **dict.fromkeys(("Index", "RangeIndex", "MultiIndex"), _index),
}
