"""A sweep over time: CPU use against each level's quota, memory against each limit, one run's throttling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from nscontainer import curves, drawing, units
from nscontainer.curves import Array
from nscontainer.measure import rates
from nscontainer.measure.text import size
from nscontainer.palette import BLUE, VERMILLION
from nscontainer.sweep_plot import groups, labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nscontainer.experiment.sweep import Run
    from nscontainer.measure.result import RunResult
    from nscontainer.sweep_plot.groups import Level

_POINTS: Final = 600
_OFF_SCALE: Final = 4
"""A limit this many times what is used is named, not drawn: the curves would lie on the floor."""
_PERIODS_SHOWN: Final = 12
NO_RUN: Final = "no run has ended yet"
Curve = tuple[Array, Array]
"""Times (s), figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """The curves of a level's runs as one: at each time the median of those that still ran, and their range."""

    at: Array
    median: Array
    low: Array
    high: Array


def band(found: Sequence[Curve]) -> Band | None:
    """Lay the runs of a level over each other; the curve ends where less than half of them still ran."""
    found = [curve for curve in found if len(curve[0])]
    if not found:
        return None
    begin = min(float(at[0]) for at, _ in found)
    end = max(float(at[-1]) for at, _ in found)
    at = np.linspace(begin, end, _POINTS) if len(found) > 1 else found[0][0]
    each = np.array([np.interp(at, x, y, left=np.nan, right=np.nan) for x, y in found])
    enough = 2 * np.count_nonzero(~np.isnan(each), axis=0) >= len(found)
    at, each = at[enough], each[:, enough]
    return Band(
        at=at,
        median=np.nanmedian(each, axis=0),
        low=np.nanmin(each, axis=0),
        high=np.nanmax(each, axis=0),
    )


def quota(axis: Axes, found: Sequence[Level], name: str | None) -> str:
    """Draw CPU use over time, a line a level, against each level's quota; say what is seen."""
    axis.set_ylabel("CPU use (% of one CPU)")
    _over_time(
        axis,
        found,
        _cpu,
        _quota_of,
        lambda cpus: f"quota {units.format_cpu(cpus / 100)}",
        own=name == "cpu",
    )
    return _said("CPU use over time", found, name, "quota dashed")


def memory(axis: Axes, found: Sequence[Level], name: str | None) -> str:
    """Draw memory use over time, a line a level, against each level's limit; say what is seen."""
    peaks = [run.result.totals["memory.peak"] or 0 for level in found for run in level.runs]
    unit, divisor = drawing.binary_unit(float(max(peaks, default=0)))
    axis.set_ylabel(f"memory in use ({unit})")

    def limit(run: RunResult) -> float | None:
        (_, _, most), *_ = rates.memory_limit(run.record, run.samples, run.limits)
        return None if most is None else most / divisor

    def curve(run: RunResult) -> Curve:
        at, used = _memory(run)
        return at, used / divisor

    _over_time(
        axis,
        found,
        curve,
        limit,
        lambda most: f"limit {size(most * divisor)}",
        own=name == "memory",
    )
    return _said("Memory over time", found, name, "limit dashed")


def _said(what: str, found: Sequence[Level], name: str | None, dashed: str) -> str:
    by = "" if name is None else f" by {groups.name(name)}"
    many = max((len(level.counted) for level in found), default=0) > 1
    how = f"median of the runs, band from least to greatest, {dashed}" if many else dashed
    return f"{what}{by} ({how})"


def _over_time(
    axis: Axes,
    found: Sequence[Level],
    curve: Callable[[RunResult], Curve],
    limit_of: Callable[[RunResult], float | None],
    limit_text: Callable[[float], str],
    *,
    own: bool,
) -> None:
    """Draw each level's curves as one, its limit, its name; ``own``: the levels are the limits themselves."""
    axis.set_xlabel("time since the code was let go (s)")
    drawn = [
        (level, it)
        for level in found
        if (it := band([curve(run.result) for run in level.counted])) is not None and len(it.at)
    ]
    if not drawn:
        drawing.say(
            axis, NO_RUN if not any(level.runs for level in found) else "this host gave no figures"
        )
        return
    each = [limit_of(level.counted[0].result) for level, _ in drawn]
    most = max(float(np.nanmax(it.high)) for _, it in drawn)
    near = [x for x in each if x is not None and x <= _OFF_SCALE * most]
    end = max(float(it.at[-1]) for _, it in drawn)
    axis.set_xlim(0, max(end * 1.02, 1e-3))
    axis.set_ylim(0, 1.1 * max([most, *near, 1e-9]))
    for i, (level, it) in enumerate(drawn):
        _draw_band(axis, level, it, i, len(drawn))
        _mark_failure(axis, level, it)
    _draw_limits(axis, drawn, each, near, limit_text, own=own)


def _draw_limits(
    axis: Axes,
    drawn: Sequence[tuple[Level, Band]],
    each: Sequence[float | None],
    near: Sequence[float],
    limit_text: Callable[[float], str],
    *,
    own: bool,
) -> None:
    """Draw the limits, dashed, and name limits and levels at the right end.

    A level of its own limit stands at that, others where their curves end; a limit that several have
    has a line of its own.
    """
    shared = sorted({x for x in near if near.count(x) > 1})
    named = [(x, limit_text(x), "0.35") for x in shared]
    for x in shared:
        axis.axhline(x, color="0.35", linestyle="--", linewidth=1.2)
    shown = groups.sample(drawn)
    for i, ((level, it), limit) in enumerate(zip(drawn, each, strict=True)):
        alone = limit is not None and limit in near and limit not in shared
        if limit is not None and alone:
            axis.axhline(limit, color=level.colour, linestyle="--", linewidth=1.2)
        if i in shown:
            far = own and limit is not None and limit not in near
            text = labels.short(level.label) + (": off the scale" if far else "")
            place = limit if limit is not None and alone else float(it.median[-1])
            named.append((place, text, level.colour))
    labels.at_right(axis, named)
    beyond = {x for x in each if x is not None and x not in near}
    if len(beyond) == 1 and not own:
        text = f"{limit_text(beyond.pop())}: off the scale"
        axis.text(0.99, 0.03, text, transform=axis.transAxes, ha="right", fontsize=drawing.SMALL)


def _draw_band(axis: Axes, level: Level, it: Band, i: int, count: int) -> None:
    if len(level.counted) > 1:
        axis.fill_between(it.at, it.low, it.high, color=level.colour, alpha=0.22, linewidth=0)
    # The markers of the levels are not all at the same times: equal curves show that they are several.
    every = None if not level.marker else ((i + 0.5) / count * 0.12 + 0.02, 0.12)
    axis.plot(
        it.at,
        it.median,
        color=level.colour,
        linewidth=2,
        marker=level.marker or None,
        markevery=every,
        markersize=5.5,
        label=level.label,
    )


def _mark_failure(axis: Axes, level: Level, it: Band) -> None:
    """Mark where the runs of a level ended that all failed."""
    if level.failure is None:
        return
    at, value = float(it.at[-1]), float(it.median[-1])
    labels.failed(axis, at, value, level.colour)
    right = at < 0.7 * axis.get_xlim()[1]
    axis.annotate(
        f"{labels.short(level.label)}: {level.failure}",
        (at, value),
        (8 if right else -8, -3),
        textcoords="offset points",
        ha="left" if right else "right",
        va="top",
        fontsize=drawing.SMALL,
        bbox={"facecolor": axis.get_facecolor(), "alpha": 0.75, "linewidth": 0, "pad": 1},
        parse_math=False,
    )


def _cpu(run: RunResult) -> Curve:
    at, used = curves.known(run.usage.index, run.usage["cpuacct.usage"])
    if len(at) < 2 or at[-1] <= 0:
        return np.empty(0), np.empty(0)
    middle, rate, _ = curves.smooth_rate(at, used / 1e9 * 100, run.limits.longest_period_s)
    return middle, rate


def _quota_of(run: RunResult) -> float | None:
    (_, _, cpus), *_ = rates.cpu_quota(run.record, run.samples, run.limits)
    return None if cpus is None else cpus * 100


def _memory(run: RunResult) -> Curve:
    frame = (
        run.usage if len(run.usage) < 3 else run.usage.iloc[:-1]
    )  # as in plot: the last is of nothing
    at, used = curves.thinned(*curves.known(frame.index, frame["memory.usage"]))
    peak = run.totals["memory.peak"]
    if len(at) and peak is not None and run.oom_killed:
        # Samples after the kill are of what is left; the last of its growth came between two of them.
        until = int(np.argmax(used)) + 1
        at = np.append(at[:until], max(run.wall_s, at[until - 1]))
        used = np.append(used[:until], float(peak))
    return at, used


# --- one run's throttling -----------------------------------------------------------------------


def saw_tooth(axis: Axes, runs: Sequence[Run]) -> str:
    """Draw the CPU time that the middle one of some runs used in each of a dozen quota periods; say so."""
    run = sorted(runs, key=lambda r: r.result.wall_s)[(len(runs) - 1) // 2].result
    period = run.limits.longest_period_s or 0.1
    at, used, quota_s = teeth(run, period)
    axis.set_xlabel("time since the code was let go (s)")
    axis.set_ylabel("CPU time used in the period (ms)")
    said = f"Throttling, run {run.name or run.id}: CPU time in each quota period of {units.format_seconds(period)}"
    if quota_s is None:
        drawing.say(axis, "no CPU quota, so nothing to be throttled by")
        return said
    step = float(np.median(np.diff(run.usage.index))) if len(run.usage) > 2 else math.inf
    if step > period / 2.5 or not len(at):
        each = units.format_seconds(step) if math.isfinite(step) else "run"
        drawing.say(
            axis,
            f"a sample each {each} can't show periods of {units.format_seconds(period)}: --sample 10ms",
        )
        return said
    axis.plot(at, used * 1e3, color=BLUE, linewidth=1.6, marker=".", label="used")
    axis.axhline(quota_s * 1e3, color=VERMILLION, linestyle="--", linewidth=1.6)
    axis.set_xlim(float(at[0]), float(at[-1]) + 1e-9)
    axis.set_ylim(0, 1.25 * max(quota_s * 1e3, float(np.nanmax(used)) * 1e3))
    labels.at_right(axis, [(quota_s * 1e3, f"quota\n{units.format_seconds(quota_s)}", VERMILLION)])
    share = run.totals["throttled_share"]
    return said if share is None else f"{said}, throttled in {share:.0%} of all"


def teeth(run: RunResult, period_s: float) -> tuple[Array, Array, float | None]:
    """Give times (s), CPU time since the quota period began (s; NaN between periods), and the quota (s).

    A period begins where ``cpu.nr_periods`` has grown: what was used until the sample before is the
    last one's, as a throttled container stands still then.
    """
    (_, _, cpus), *_ = rates.cpu_quota(run.record, run.samples, run.limits)
    frame = run.usage.iloc[1:-1]
    at, used = curves.known(frame.index, frame["cpuacct.usage"])
    if cpus is None or len(at) < 3 or len(at) != len(frame):
        return np.empty(0), np.empty(0), None if cpus is None else cpus * period_s
    begin = max(0.0, float(at[-1]) / 2 - period_s * _PERIODS_SHOWN / 2)
    there = (at >= begin) & (at <= begin + period_s * _PERIODS_SHOWN)
    at, used = at[there], used[there] / 1e9
    periods = np.nan_to_num(frame["cpu.nr_periods"].to_numpy(float))[there]
    news = np.flatnonzero(np.diff(periods) > 0) + 1
    base = np.full(len(at), np.nan)
    for first, last in zip(news, [*news[1:], len(at)], strict=True):
        base[first:last] = used[first - 1]
    since = used - base
    # A tooth falls back to 0 where its period begins.
    at = np.insert(at, news, at[news] - 1e-9)
    return at, np.insert(since, news, np.nan), cpus * period_s
