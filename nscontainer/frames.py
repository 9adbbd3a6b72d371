"""Samples as pandas DataFrames, and frames as files. With :mod:`.plot` the only user of pandas."""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from nscontainer import schema
from nscontainer.errors import SpecError
from nscontainer.measure import records
from nscontainer.measure.isolation import Isolation
from nscontainer.measure.result_file import replacing

Figures = npt.NDArray[Any]

INDEX_NAME: Final = "elapsed_s"
TOOK: Final = "sample.took"
UNITS: Final[dict[str, str]] = {
    INDEX_NAME: "s",
    **{column.name: column.unit for column in schema.COLUMNS},
    TOOK: "ns",
}
"""Unit of the index and of each column."""


def usage(record: Mapping[str, Any], samples: bytes) -> pd.DataFrame:
    """Make the usage frame of a run.

    Returns
    -------
    pandas.DataFrame
        One row a reading: the baseline (``elapsed_s`` 0), the samples, the exact final reading.
        Columns are :data:`nscontainer.schema.NAMES` in order, then ``sample.took``, how long the
        reading took. Counters are relative to the
        baseline. ``attrs["units"]`` has the units, ``attrs["isolation"]`` how isolated it was, and
        ``attrs["not_held"]``, where a limit was not, why, by the limit's name.

        A column in which every figure is known is int64 (``cpu.quota`` is always float64); one with
        a figure that the host can't give is float64 with NaN there. numpy's own types, because
        matplotlib draws no pandas.NA, and 2**53 ns of CPU time are 104 days.
    """
    low, high = records.span(record, samples)
    rows = np.frombuffer(samples, dtype=np.int64).reshape(-1, schema.ROW_FIELDS)
    ends = np.full((2, schema.ROW_FIELDS), schema.NA, dtype=np.int64)
    ends[:, 0] = 0, records.end_ns(record, samples)
    if low:
        ends[0, 1] = rows[low - 1, 1]
    if high < len(rows):
        ends[1, 1] = rows[-1, 1]
    ends[0, schema.ROW_PREFIX :] = record["baseline"]
    ends[1, schema.ROW_PREFIX :] = record["final"]
    # One column after the other in memory, as they are used.
    fields = np.ascontiguousarray(np.concatenate([ends[:1], rows[low:high], ends[1:]]).T)
    data = {
        column.name: _column(column, fields[schema.ROW_PREFIX + i])
        for i, column in enumerate(schema.COLUMNS)
    }
    if data["pids.peak"].dtype.kind == "f":
        # Linux < 6.1 keeps none (schema.py): the highest that the samples saw.
        highest = np.fmax.accumulate(data["pids.current"].astype(float))
        data["pids.peak"] = np.where(np.isnan(data["pids.peak"]), highest, data["pids.peak"])
    data[TOOK] = _with_nan(fields[1])
    index = pd.Index(fields[0] / records.NS_PER_S, name=INDEX_NAME, dtype="float64")
    frame = pd.DataFrame(data, index=index, columns=[*schema.NAMES, TOOK])
    frame.attrs["units"] = dict(UNITS)
    frame.attrs["isolation"] = Isolation.from_dict(record["isolation"]).word
    if record.get("unheld"):
        frame.attrs["not_held"] = dict(record["unheld"])
    return frame


def together(runs: Mapping[str, tuple[float, pd.DataFrame]]) -> pd.DataFrame:
    """Put usage frames under one another, each later by its offset in s, named in ``container``."""
    frames = []
    for name, (offset_s, frame) in runs.items():
        moved = frame.set_axis(frame.index + offset_s)
        moved.insert(0, "container", name)
        moved.attrs = {}  # pandas compares them, slowly, before it drops them
        frames.append(moved)
    whole = pd.concat(frames).rename_axis(INDEX_NAME)
    whole.attrs["units"] = dict(UNITS)
    return whole


def _column(column: schema.Column, stored: Figures) -> Figures:
    if column.kind == "counter":
        if stored[0] == schema.NA:
            return np.full(len(stored), np.nan)
        # NA is the least int64: kept out of the subtraction, which would wrap round.
        relative = np.where(stored == schema.NA, schema.NA, stored - stored[0])
        return _with_nan(relative)
    if column.scale != 1.0:
        known = np.where(stored == schema.NA, np.nan, stored.astype(float))
        return known / round(1 / column.scale)
    return _with_nan(stored)


def _with_nan(stored: Figures) -> Figures:
    missing = stored == schema.NA
    return np.where(missing, np.nan, stored.astype(float)) if missing.any() else stored.copy()


def usage_to_file(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a usage frame as its file name says: ``.csv``, ``.json`` or ``.parquet``.

    ``elapsed_s`` is the first column. JSON is a list of objects; a figure that the host can't give is
    empty in CSV and null in the others. Parquet keeps the units too. The file is written whole or not
    at all.

    Raises
    ------
    SpecError
        The suffix is another, or Parquet needs a package that is not installed.
    """
    suffix = PurePath(path).suffix.lower()
    if suffix not in (".csv", ".json", ".parquet"):
        message = f"{os.fspath(path)!r} says no format for the usage"
        raise SpecError(message, hint="end it in .csv, .json or .parquet")
    if suffix == ".parquet" and not any(map(importlib.util.find_spec, ("pyarrow", "fastparquet"))):
        message = f"{os.fspath(path)!r} needs pyarrow, which is not installed"
        raise SpecError(message, hint="pip install pyarrow, or write .csv")
    buffer = io.BytesIO()
    if suffix == ".csv":
        frame.to_csv(buffer)
    elif suffix == ".json":
        # Nine decimals: elapsed_s is whole ns, and nothing else has more.
        frame.reset_index().to_json(buffer, orient="records", double_precision=9)
    else:
        frame.to_parquet(buffer)
    with replacing(path) as file:
        file.write(buffer.getbuffer())
