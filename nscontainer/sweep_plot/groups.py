"""What the pictures of a sweep are drawn from: the runs of each level, its look, its figures."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex

from nscontainer.curves import Array
from nscontainer.errors import SpecError
from nscontainer.experiment import levels, statistics
from nscontainer.palette import SERIES

if TYPE_CHECKING:
    from nscontainer.experiment.plan import Factor, Plan
    from nscontainer.experiment.sweep import Run, Sweep

MOST_NAMED: Final = 12
"""With more levels than this a sample of them is named, and their colours are a scale."""
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*", "h")


@dataclass(frozen=True, kw_only=True, eq=False)
class Level:
    """The runs of one level, and how it is drawn.

    Attributes
    ----------
    label
        For a reader: ``20 %``.
    number
        In the factor's base unit (:func:`nscontainer.experiment.levels.number`); None is no limit.
    runs
        All of them, the failed ones too.
    colour, marker
        Its own: a marker as well, since black and white has no colours.
    """

    label: str
    number: float | int | str | None
    runs: tuple[Run, ...]
    colour: str
    marker: str

    @property
    def counted(self) -> tuple[Run, ...]:
        """The runs that its figures come from: those that went well, or all where none did."""
        return tuple(run for run in self.runs if run.result.ok) or self.runs

    @property
    def failure(self) -> str | None:
        """How its runs failed, mostly, where all of them did; None else."""
        if not self.runs or any(run.result.ok for run in self.runs):
            return None
        (most, _), *_ = Counter(failure(run) for run in self.runs).most_common(1)
        return most


def failure(run: Run) -> str:
    """Say in two or three words why a run failed."""
    result = run.result
    if result.oom_killed or result.totals["memory.oom_kill"]:
        return "out of memory"
    if result.timed_out is not None:
        return "timeout"
    return "killed" if result.killed_by is not None else f"exit {result.exit_code}"


def factor(sweep: Sweep, by: str | None, *wanted: str) -> Factor | None:
    """Give the factor that a picture is by: as asked, else a wanted one, else the first.

    None is a sweep that varies nothing.

    Raises
    ------
    SpecError
        There is no such factor.
    """
    named = {f.name: f for f in sweep.plan.factors}
    if by is not None and by not in named:
        message = f"this sweep does not vary {by!r}"
        raise SpecError(message, hint=", ".join(named) or "it varies nothing: leave 'by' out")
    chosen = by or next((name for name in wanted if name in named), next(iter(named), None))
    return None if chosen is None else named[chosen]


def of(sweep: Sweep, by: Factor | None) -> list[Level]:
    """Give the levels of a factor with their runs, in the plan's order; all runs where it is None."""
    points = sweep.plan.points()
    if by is None:
        return [_level(0, 1, "all runs", None, sweep.runs)]
    found = []
    for i, value in enumerate(by.levels):
        at = {point.index for point in points if point.levels[by.name] == value}
        runs = tuple(run for run in sweep.runs if run.turn.point in at)
        label = levels.label(by.name, value)
        if sweep.plan.mode == "zip":  # the other factors' levels go with it
            others = [f for f in sweep.plan.factors if f is not by]
            label = ", ".join([label, *(level_text(f, f.levels[i]) for f in others)])
        found.append(_level(i, len(by.levels), label, levels.number(by.name, value), runs))
    return found


def level_text(of_factor: Factor, value: Any) -> str:
    """Write a level where it stands beside others: a free parameter with its name."""
    label = levels.label(of_factor.name, value)
    return f"{of_factor.name} = {label}" if of_factor.free else label


def _level(i: int, count: int, label: str, number: Any, runs: Sequence[Run]) -> Level:
    if count <= MOST_NAMED:
        colour = SERIES[i % len(SERIES)]
    else:  # cividis: told apart by the colour-blind, and ever lighter in black and white
        colour = to_hex(mpl.colormaps["cividis"](0.9 * i / (count - 1)))
    marker = MARKERS[i] if count <= MOST_NAMED else ""
    return Level(label=label, number=number, runs=tuple(runs), colour=colour, marker=marker)


def sample(found: Sequence[Any]) -> list[int]:
    """Give the places of those that are named: all, or some evenly from the first to the last."""
    if len(found) <= MOST_NAMED:
        return list(range(len(found)))
    return sorted({round(x) for x in np.linspace(0, len(found) - 1, 8)})


def pooled(plan: Plan, *drawn: str) -> str:
    """Say over which factors a picture takes runs together: ``over 2 × memory``; empty for none."""
    if plan.mode == "zip":
        return ""
    others = [f for f in plan.factors if f.name not in drawn and len(f.levels) > 1]
    return (
        "over " + ", ".join(f"{len(f.levels)} × {name(f.name)}" for f in others) if others else ""
    )


def name(factor_name: str) -> str:
    """Write a factor for a reader."""
    known = {
        "cpu": "CPU",
        "cpu_period": "CPU period",
        "pids_limit": "processes",
        "cpuset_cpus": "CPUs",
    }
    return known.get(factor_name, factor_name.replace("_", " "))


# --- figures ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A column of the summary as it is drawn.

    Attributes
    ----------
    column, name, unit
        The column; what a reader sees.
    scale
        What its figures are multiplied by.
    kind
        ``time``: less is better; ``rate``: more is; ``other``: who knows.
    """

    column: str
    name: str
    unit: str
    scale: float
    kind: str

    @property
    def axis_label(self) -> str:
        """What stands at an axis."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


_NAMES: Final = {
    "wall_s": "wall time",
    "cpu_s": "CPU time",
    "cpu_share": "CPU use",
    "throttled_share": "throttled",
    "peak_memory": "peak memory",
}
_RATE: Final = re.compile(
    r"(_per_|per_s(ec(ond)?)?$|rate$|throughput|_ps$|/s|[qio]ps$)", re.IGNORECASE
)
_TIME: Final = re.compile(r"(_(s|sec|seconds|ms|us|ns)$|time|latency|duration)", re.IGNORECASE)


def metric(sweep: Sweep, column: str | None) -> Metric:
    """Tell how a column of the summary is drawn; None is the plan's metric.

    Raises
    ------
    SpecError
        There is no such column, or it has no numbers.
    """
    column = column or sweep.plan.metric
    frame = sweep.summary
    numeric = [n for n in frame.columns if frame[n].dtype.kind in "fiu"]
    if column not in numeric and len(sweep):
        fault = "has no numbers" if column in frame.columns else "is no column of the summary"
        message = f"metric {column!r} {fault}"
        raise SpecError(message, hint=", ".join(numeric) or "no run has ended yet")
    unit = str(frame.attrs.get("units", {}).get(column, ""))
    if not unit and (found := re.search(r"_(s|ms|us|ns)$", column)) and not _RATE.search(column):
        unit = found[1]
    scale = 1.0
    if unit == "share" or column.endswith("_share"):
        unit, scale = ("% of one CPU" if column == "cpu_share" else "%"), 100.0
    elif unit == "bytes" and column in numeric:
        most = float(np.nanmax(frame[column].to_numpy(float), initial=0))
        unit, size = _binary(most)
        scale = 1 / size
    called = _NAMES.get(column, re.sub(r"_(s|ms|us|ns)$", "", column).replace("_", " "))
    if per := re.fullmatch(r"(.+)_per_(s|sec|second)", column):
        called, unit = "throughput", unit or f"{per[1].replace('_', ' ')}/s"
    kind = "rate" if _RATE.search(column) else "time" if _TIME.search(column) else "other"
    return Metric(
        column=column,
        name=called,
        unit=unit,
        scale=scale,
        kind=kind,
    )


def _binary(most: float) -> tuple[str, float]:
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if most >= 1 << shift:
            return unit, float(1 << shift)
    return "bytes", 1.0


def figures(sweep: Sweep, runs: Sequence[Run], of_metric: Metric) -> Array:
    """Give a metric's figures of some runs, as they are drawn; those unknown are left out."""
    if not runs:
        return np.empty(0)
    ids = [f"{sweep.id}/{run.turn.number}" for run in runs]
    values = sweep.summary[of_metric.column].reindex(ids).to_numpy(dtype=float, na_value=np.nan)
    known: Array = values[~np.isnan(values)] * of_metric.scale
    return known


def spread(values: Array, seed: int) -> tuple[float, float, float]:
    """Give the median and its 95 % interval; NaN for what too few values can't say."""
    if not len(values):
        return math.nan, math.nan, math.nan
    low, high = statistics.interval([float(v) for v in values], seed)
    return float(np.median(values)), float(low), float(high)


def written(value: float) -> str:
    """Write a figure short: ``1.02``, ``0.0123``, ``1,230,000``."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "–"
    if 1e-4 <= abs(value) < 1000:
        return f"{value:.3g}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"
