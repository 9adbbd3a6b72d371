"""pandas' tables as nodes (see :mod:`.encode`): an array a column, by what kind of array it is."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from .encode import Refused, zone_node

if TYPE_CHECKING:
    from .encode import Encoder

_MASKED = re.compile(r"U?Int(8|16|32|64)|Float(32|64)|boolean")


def node(encoder: Encoder, value: Any, depth: int, pandas: Any) -> Any:
    """Give the node of something of pandas'; None where it is none that goes out.

    Raises
    ------
    Refused
        A column, the index or a time zone of it doesn't.
    """
    if value is pandas.NA or value is pandas.NaT:
        return {"t": "NA" if value is pandas.NA else "NaT"}
    kind = type(value)
    if kind is pandas.Timestamp or kind is pandas.Timedelta:
        count = encoder.array(sys.modules["numpy"].asarray(value.asm8))
        zone = zone_node(getattr(value, "tzinfo", None))
        return {"t": kind.__name__, "v": count, "zone": zone}
    if kind is pandas.Series:
        return _series(encoder, value, depth, pandas)
    if kind is pandas.DataFrame:
        return _frame(encoder, value, depth, pandas)
    if isinstance(value, pandas.Index):
        return _index(encoder, value, depth, pandas)
    if kind is pandas.Categorical:
        return _column(encoder, pandas.Series(value), depth, pandas)
    return None


def _series(encoder: Encoder, value: Any, depth: int, pandas: Any) -> Any:
    return {
        "t": "Series",
        "v": _column(encoder, value, depth, pandas),
        "index": _index(encoder, value.index, depth, pandas),
        "name": encoder.node(value.name, depth + 1),
        "attrs": encoder.node(value.attrs, depth + 1),
    }


def _frame(encoder: Encoder, value: Any, depth: int, pandas: Any) -> Any:
    made: dict[str, Any] = {"t": "DataFrame"}
    types = set(value.dtypes)
    if (
        len(types) == 1
        and getattr(next(iter(types)), "kind", "O") in "biufcmM"
        and _is_numpy(types)
    ):
        made["block"] = encoder.array(value.to_numpy())
    else:
        made["v"] = [_named_column(encoder, value, i, depth, pandas) for i in range(value.shape[1])]
    made["columns"] = _index(encoder, value.columns, depth, pandas)
    made["index"] = _index(encoder, value.index, depth, pandas)
    made["attrs"] = encoder.node(value.attrs, depth + 1)
    return made


def _is_numpy(types: Any) -> bool:
    numpy = sys.modules["numpy"]
    return all(isinstance(one, numpy.dtype) for one in types)


def _named_column(encoder: Encoder, frame: Any, at: int, depth: int, pandas: Any) -> Any:
    try:
        return _column(encoder, frame.iloc[:, at], depth, pandas)
    except Refused as error:
        message = f"column {frame.columns[at]!r}: {error}"
        raise Refused(message) from None


def _column(encoder: Encoder, values: Any, depth: int, pandas: Any) -> Any:
    """Give the node of the values of a Series or an Index."""
    dtype = values.dtype
    if _is_numpy([dtype]):
        return encoder.array(values.to_numpy(), depth)
    if isinstance(dtype, pandas.DatetimeTZDtype):
        moments = values.to_numpy(dtype=f"M8[{dtype.unit}]")  # in UTC
        return {"t": "zoned", "v": encoder.array(moments), "zone": zone_node(dtype.tz)}
    if isinstance(dtype, pandas.CategoricalDtype):
        categories = _index(encoder, dtype.categories, depth + 1, pandas)
        codes = encoder.array(values.array.codes)
        return {"t": "category", "categories": categories, "v": codes, "ordered": dtype.ordered}
    if isinstance(dtype, pandas.StringDtype):
        texts = encoder.nodes(values.array.to_numpy(dtype=object, na_value=None).tolist(), depth)
        missing = "nan" if getattr(dtype, "na_value", pandas.NA) is not pandas.NA else "NA"
        return {"t": "string", "v": texts, "missing": missing, "storage": dtype.storage}
    if _MASKED.fullmatch(dtype.name):
        plain = dtype.numpy_dtype
        data = values.array.to_numpy(dtype=plain, na_value=plain.type(0))
        mask = encoder.array(values.array.isna())
        return {"t": "masked", "mask": mask, "v": encoder.array(data)}
    message = f"its type {dtype} doesn't come out; convert it with astype, or use --trust"
    raise Refused(message)


def _index(encoder: Encoder, value: Any, depth: int, pandas: Any) -> Any:
    kind = type(value)
    names = encoder.nodes(value.names, depth)
    if kind is pandas.RangeIndex:
        return {"t": "RangeIndex", "v": [value.start, value.stop, value.step], "names": names}
    if kind is pandas.MultiIndex:
        levels = [_index(encoder, level, depth + 1, pandas) for level in value.levels]
        codes = [encoder.array(sys.modules["numpy"].asarray(codes)) for codes in value.codes]
        return {"t": "MultiIndex", "levels": levels, "codes": codes, "names": names}
    plain = (pandas.Index, pandas.DatetimeIndex, pandas.TimedeltaIndex, pandas.CategoricalIndex)
    if kind not in plain:
        message = f"a {kind.__name__} doesn't come out; convert it with astype, or use --trust"
        raise Refused(message)
    try:
        values = _column(encoder, value, depth, pandas)
    except Refused as error:
        message = f"an index: {error}"
        raise Refused(message) from None
    freq = getattr(value, "freqstr", None)
    return {"t": "Index", "v": values, "names": names, "freq": freq}
