"""The raw figures of a run as its monitor left them: the exit record and the rows of samples.

Everything here is standard library only and does no I/O; frames and plots build on it.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Mapping
from typing import Any, Final

from nscontainer import schema

NS_PER_S: Final = 1_000_000_000

_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "id": (str,),
    "exit_code": (int,),
    "name": (str,),
    "image": (str,),
    "image_id": (str,),
    "diff_ids": (list,),
    "on_host": (bool,),
    "spec": (dict,),
    "start_mode": (str,),
    "pooled": (bool,),
    "created_unix": (int, float),
    "released_unix": (int, float),
    "released_ns": (int,),
    "boot_id": (str,),
    "signal": (int,),
    "exec_error": (str,),
    "oom_killed": (bool,),
    "timed_out": (str,),
    "killed_by": (str,),
    "interrupted": (int,),
    "wall_ns": (int,),
    "baseline": (list,),
    "final": (list,),
    "limits_asked": (dict,),
    "limits_read_back": (dict,),
    "limit_changes": (list,),
    "unheld": (dict,),
    "network_shaping": (dict,),
    "isolation": (dict,),
    "cgroup": (dict,),
    "escaped_writes": (str,),
    "parents_quota": (int, float),
    "storage": (dict,),
    "steal_ns": (int,),
    "host_cpus": (int,),
    "stages": (list,),
    "setup_ns": (int,),
    "missed_samples": (int,),
    "sample_s": (int, float),
}
"""What an exit record holds; any but the first two may be missing or None."""


def plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """Copy an exit record into plain JSON types, with every key there.

    Raises
    ------
    ValueError
        It is no exit record: a figure is missing, of another type, or a reading has another
        length than :data:`nscontainer.schema.COLUMNS`.
    """
    try:
        values: dict[str, Any] = json.loads(json.dumps(record))
    except TypeError as error:
        message = f"exit record is not plain JSON: {error}"
        raise ValueError(message) from None
    for name in ("id", "exit_code"):
        if values.get(name) is None:
            message = f"exit record lacks {name!r}"
            raise ValueError(message)
    for name, kinds in _KINDS.items():
        value = values.setdefault(name, None)
        wrong_bool = isinstance(value, bool) and bool not in kinds
        if value is not None and (wrong_bool or not isinstance(value, kinds)):
            message = f"exit record's {name!r} is {value!r}"
            raise ValueError(message)
    for name in ("baseline", "final"):
        reading = values[name]
        if reading is None:
            values[name] = [schema.NA] * len(schema.COLUMNS)
        elif len(reading) != len(schema.COLUMNS) or not all(map(_is_int64, reading)):
            message = f"exit record's {name!r} is no reading of {len(schema.COLUMNS)} figures"
            raise ValueError(message)
    if (values["wall_ns"] or 0) < 0:
        message = f"exit record's 'wall_ns' is {values['wall_ns']}"
        raise ValueError(message)
    return values


def _is_int64(value: object) -> bool:
    return type(value) is int and schema.NA <= value < -schema.NA


def check_samples(samples: bytes) -> None:
    """Refuse bytes that are no whole rows, or rows that go back in time.

    Raises
    ------
    ValueError
        They are not.
    """
    if len(samples) % schema.ROW_BYTES:
        message = f"{len(samples)} bytes are no whole sample rows of {schema.ROW_BYTES} bytes"
        raise ValueError(message)
    elapsed = fields(samples, 0)
    if any(later < earlier for earlier, later in itertools.pairwise(elapsed)):
        message = "sample rows are not in the order of time"
        raise ValueError(message)


def fields(samples: bytes, position: int) -> list[int]:
    """Give one field of every sample row."""
    return memoryview(samples).cast("q")[position :: schema.ROW_FIELDS].tolist()


def series(record: Mapping[str, Any], samples: bytes, name: str) -> list[int | None]:
    """Give a column over the whole run: baseline, samples, final; None where NA.

    Counters are relative to the baseline. The times are :func:`times`'.
    """
    index = schema.INDEX[name]
    low, high = span(record, samples)
    middle = fields(samples[low * schema.ROW_BYTES : high * schema.ROW_BYTES], 2 + index)
    values = [record["baseline"][index], *middle, record["final"][index]]
    if schema.COLUMNS[index].kind != "counter":
        return [None if v == schema.NA else v for v in values]
    base = values[0]
    if base == schema.NA:
        return [None] * len(values)
    return [None if v == schema.NA else v - base for v in values]


def times(record: Mapping[str, Any], samples: bytes) -> list[int]:
    """Give the elapsed ns of each point of :func:`series`."""
    low, high = span(record, samples)
    middle = fields(samples[low * schema.ROW_BYTES : high * schema.ROW_BYTES], 0)
    return [0, *middle, end_ns(record, samples)]


def end_ns(record: Mapping[str, Any], samples: bytes) -> int:
    """Give when the final reading stands: at the end, and never before a sample."""
    last = int.from_bytes(samples[-schema.ROW_BYTES :][:8], sys.byteorder, signed=True)
    return max(record["wall_ns"] or 0, last)


def span(record: Mapping[str, Any], samples: bytes) -> tuple[int, int]:
    """Give the sample rows strictly between the baseline (0) and the final reading, as a slice.

    A sample at the very instant of one of those two would double it; theirs are the exact ones.
    """
    elapsed = fields(samples, 0)
    low, high, end = 0, len(elapsed), end_ns(record, samples)
    while low < high and elapsed[low] <= 0:
        low += 1
    while high > low and elapsed[high - 1] >= end:
        high -= 1
    return low, high
