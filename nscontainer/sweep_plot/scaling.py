"""How work speeds up with more CPUs, threads or processes: against the ideal, and how well each is used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nscontainer import drawing
from nscontainer.errors import SpecError
from nscontainer.experiment import statistics
from nscontainer.palette import BLUE, GREEN, VERMILLION
from nscontainer.sweep_plot import groups, labels
from nscontainer.sweep_plot.over_time import NO_RUN

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nscontainer.curves import Array
    from nscontainer.experiment.sweep import Sweep
    from nscontainer.sweep_plot.groups import Level, Metric

WANTED = ("threads", "workers", "jobs", "processes", "procs", "cpuset_cpus", "cpu", "n")


def amount(level: Level, name: str) -> float | None:
    """Give how many CPUs or threads a level is; None where it is no such number."""
    if name == "cpuset_cpus":
        return float(sum(_cpus(part) for part in str(level.number).split(",")))
    if isinstance(level.number, bool) or not isinstance(level.number, (int, float)):
        return None
    return float(level.number) if level.number > 0 else None


def _cpus(part: str) -> int:
    first, _, last = part.partition("-")
    return int(last or first) - int(first) + 1


def check(sweep: Sweep, found: Sequence[Level], name: str | None, metric: str | None) -> None:
    """Refuse what has no scaling.

    Raises
    ------
    SpecError
        The levels are no numbers, or the metric is neither a time nor a rate.
    """
    if name is None or sum(amount(level, name) is not None for level in found) < 2:
        numeric = [f.name for f in sweep.plan.factors if f.name != name]
        message = f"scaling needs two levels that are numbers, and {name or 'nothing'} has fewer"
        raise SpecError(
            message, hint=f"by= one of {', '.join(numeric)}" if numeric else "vary cpu, or threads"
        )
    if len(sweep) and (of_metric := groups.metric(sweep, metric)).kind == "other":
        message = (
            f"scaling needs a time or a rate, and {of_metric.column!r} does not say that it is one"
        )
        raise SpecError(message, hint="wall_s, or a reported name that ends with _s or _per_s")


def draw(axis: Axes, sweep: Sweep, found: Sequence[Level], name: str | None, metric: Metric) -> str:
    """Draw speed-up with its interval and efficiency by level, against the ideal; say what is seen."""
    name = name or ""  # :func:`check` has refused it
    known = sorted(
        ((n, level) for level in found if (n := amount(level, name)) is not None),
        key=lambda x: x[0],
    )
    good = [
        (n, level, groups.figures(sweep, () if level.failure else level.counted, metric))
        for n, level in known
    ]
    good = [(n, level, values) for n, level, values in good if len(values)]
    said = f"Speed-up by {groups.name(name)} (by {metric.name}, with 95 % interval; ideal dashed)"
    axis.set_ylabel("speed-up (times)")
    if not good:
        drawing.say(axis, NO_RUN if not sweep.runs else "all runs failed")
        return said
    at, scale = labels.places([level for _, level in known], name, log=False)
    if name == "cpuset_cpus":
        at, scale = [n for n, _ in known], "linear"
    labels.level_axis(axis, [level for _, level in known], at, scale, groups.name(name))
    place = {id(level): x for (_, level), x in zip(known, at, strict=True)}
    base, _, first = good[0]
    axis.set_ylabel(f"speed-up over {good[0][1].label} (times)")
    ratios = [_speed_up(values, first, metric, sweep.plan.seed) for _, _, values in good]
    xs = [place[id(level)] for _, level, _ in good]
    ideal = [n / base for n, _ in known]
    efficiency = [ratio[0] / (n / base) * 100 for ratio, (n, *_) in zip(ratios, good, strict=True)]
    _draw_speed_up(axis, at, ideal, xs, ratios)
    most = _ceiling(sweep, name, base)
    if most is not None and most < max(ideal):
        axis.axhline(
            most,
            color=VERMILLION,
            linestyle=":",
            linewidth=1.6,
            label=f"most there can be ({most:.3g})",
        )
    _draw_efficiency(axis, xs, efficiency)
    for _, level in known:
        if level.failure is not None or not level.runs:
            axis.annotate(
                level.failure or "no run yet", (place[id(level)], 0), (0, 6), textcoords="offset points",
                ha="center", fontsize="x-small",
            )  # fmt: skip
    return said


def _speed_up(values: Array, first: Array, metric: Metric, seed: int) -> tuple[float, float, float]:
    a, b = (first, values) if metric.kind == "time" else (values, first)
    low, high = statistics.ratio_interval([float(x) for x in a], [float(x) for x in b], seed)
    below = float(np.median(b))
    return (float(np.median(a)) / below if below else math.nan), low, high


def _draw_speed_up(
    axis: Axes,
    at: Sequence[float],
    ideal: Sequence[float],
    xs: Sequence[float],
    ratios: Sequence[tuple[float, float, float]],
) -> None:
    axis.plot(at, ideal, color="0.45", linestyle="--", linewidth=1.4, label="ideal")
    ys = np.array([r for r, _, _ in ratios])
    bars = np.nan_to_num(
        np.array([[max(0.0, r - low), max(0.0, high - r)] for r, low, high in ratios])
    ).T
    axis.errorbar(
        xs,
        ys,
        yerr=bars,
        color=BLUE,
        marker="o",
        markersize=7,
        capsize=5,
        linewidth=2,
        label="speed-up",
    )
    most = max([float(np.nanmax(ys)), *ideal])
    axis.set_ylim(0, 1.18 * most)
    if len(xs) <= groups.MOST_NAMED:
        for x, y in zip(xs, ys, strict=True):
            axis.annotate(
                groups.written(float(y)), (x, y), (0, -8), textcoords="offset points", ha="center", va="top",
                fontsize=drawing.SMALL, color=BLUE,
            )  # fmt: skip


def _draw_efficiency(axis: Axes, xs: Sequence[float], efficiency: Sequence[float]) -> None:
    right: Any = axis.twinx()
    right.plot(
        xs,
        efficiency,
        color=GREEN,
        marker="s",
        markersize=5,
        linestyle="-.",
        linewidth=1.4,
        label="efficiency",
    )
    right.set_ylim(0, max(118.0, 1.1 * float(np.nanmax(efficiency))))
    right.set_ylabel("efficiency (% of the ideal)", color=GREEN)
    right.spines["top"].set_visible(False)
    handles, names = axis.get_legend_handles_labels()
    more, its = right.get_legend_handles_labels()
    axis.legend(
        handles + more,
        names + its,
        loc="upper left",
        ncols=2,
        fontsize=drawing.SMALL,
        frameon=False,
    )


def _ceiling(sweep: Sweep, name: str, base: float) -> float | None:
    """Give the greatest speed-up that the quota and the machine leave, where something other is varied."""
    if name == "cpu":
        return None
    quotas = {run.result.limits.asked.cpus for run in sweep.runs}
    quota = quotas.pop() if len(quotas) == 1 else None
    host = sweep.facts.get("cpus")
    tops = [float(x) for x in (quota, host) if isinstance(x, (int, float))]
    return min(tops) / min([*tops, base]) if tops else None
