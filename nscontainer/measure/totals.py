"""What a run used in all, to the last nanosecond: its two exact readings, one minus the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nscontainer import schema, units
from nscontainer.measure.records import NS_PER_S, series

Figure = int | float | None


class Totals(Mapping[str, Figure]):
    """What a run used: a read-only mapping from a column's name to its exact figure.

    Counters are the final reading minus the baseline; gauges and peaks are the final reading's.
    Units are the schema's (:attr:`units`). None is a figure that the host could not give.
    """

    __slots__ = ("_values", "units")

    def __init__(self, values: Mapping[str, Figure], units_: Mapping[str, str]) -> None:
        self._values = dict(values)
        self.units = dict(units_)

    def __getitem__(self, name: str) -> Figure:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        wide = max(map(len, self._values))
        lines = [f"{name:<{wide}}  {self.text(name)}" for name in self._values]
        return "\n".join(lines)

    def text(self, name: str) -> str:
        """Write one figure as a person reads it, with its unit."""
        value, unit = self._values[name], self.units[name]
        if value is None:
            return "NA"
        match unit:
            case "ns":
                return units.format_seconds(value / 1e9)
            case "µs":
                return units.format_seconds(value / 1e6)
            case "s":
                return units.format_seconds(value)
            case "bytes":
                return units.format_size(value)
            case "share":
                return f"{value * 100:.1f} %"
            case "CPUs":
                return units.format_cpu(value)
        return str(value)


def scaled(column: schema.Column, stored: int) -> int | float:
    """Turn a stored integer into the column's unit."""
    # Dividing by the whole 1/scale gives 0.2 where multiplying gives 0.19999999999999998.
    return stored if column.scale == 1.0 else stored / round(1 / column.scale)


def totals(record: Mapping[str, Any], samples: bytes) -> Totals:
    """Sum a run up from its two exact readings."""
    values: dict[str, Figure] = {}
    for column, base, final in zip(
        schema.COLUMNS, record["baseline"], record["final"], strict=True
    ):
        if final == schema.NA or (column.kind == "counter" and base == schema.NA):
            values[column.name] = None
        else:
            stored = final - base if column.kind == "counter" else final
            values[column.name] = scaled(column, stored)
    if values["pids.peak"] is None:  # Linux < 6.1 keeps none: schema.py
        seen = [v for v in series(record, samples, "pids.current") if v is not None]
        values["pids.peak"] = max(seen, default=None)
    cpu_ns, wall_ns = values["cpuacct.usage"], record["wall_ns"]
    values["cpu_share"] = None if cpu_ns is None or not wall_ns else cpu_ns / wall_ns
    values["throttled_share"] = share(values["cpu.nr_throttled"], values["cpu.nr_periods"])
    steal_ns = record["steal_ns"]
    values["steal_s"] = None if steal_ns is None else steal_ns / NS_PER_S
    unit_of = {column.name: str(column.unit) for column in schema.COLUMNS}
    unit_of |= {"cpu_share": "share", "throttled_share": "share", "steal_s": "s"}
    return Totals(values, unit_of)


def share(part: Figure, whole: Figure) -> float | None:
    """Divide, or None where there is nothing to divide."""
    return part / whole if part is not None and whole else None
