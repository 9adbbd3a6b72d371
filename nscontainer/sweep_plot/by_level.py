"""A sweep by level: the speed against the ideal, the throttled share, the distribution of a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from nscontainer import drawing
from nscontainer.curves import Array
from nscontainer.sweep_plot import groups, labels
from nscontainer.sweep_plot.over_time import NO_RUN

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nscontainer.experiment.sweep import Sweep
    from nscontainer.sweep_plot.groups import Level, Metric

_BUSY: Final = 0.9
"""Work that uses this share of its quota is held by it, so that the quota sets its speed."""


def speed(
    axis: Axes, sweep: Sweep, found: Sequence[Level], name: str | None, metric: Metric
) -> str:
    """Draw each run, each level's median with its interval, and the ideal line; say what is seen."""
    figures = [groups.figures(sweep, level.counted, metric) for level in found]
    failed = [level.failure is not None for level in found]
    good = [np.empty(0) if bad else values for bad, values in zip(failed, figures, strict=True)]
    at, scale = labels.places(found, name)
    axis.set_ylabel(metric.axis_label)
    labels.level_axis(axis, found, at, scale, "" if name is None else groups.name(name))
    if not any(len(values) for values in figures):
        drawing.say(axis, NO_RUN)
        return _said(metric, name, ideal=False)
    ideal = _ideal(sweep, found, good, metric) if name == "cpu" else None
    drawn = np.concatenate([*good, *([] if ideal is None else [ideal])])
    drawn = drawn[np.isfinite(drawn)]
    log = scale == "log" and ideal is not None and bool(len(drawn)) and bool((drawn > 0).all())
    top, bottom = _y_scale(axis, drawn, log=log)
    if ideal is not None:
        order = np.argsort(at)
        axis.plot(
            np.array(at)[order],
            ideal[order],
            color="0.45",
            linestyle="--",
            linewidth=1.4,
            label="ideal",
        )
    medians = []
    for level, x, values in zip(found, at, good, strict=True):
        medians.append(
            _draw_level(
                axis, level, x, values, seed=sweep.plan.seed, scale=scale, room=_room(at, scale)
            )
        )
    _connect(axis, at, medians)
    _name_medians(axis, found, at, medians)
    for level, x in zip(found, at, strict=True):
        _absent(axis, level, x, bottom if log else bottom + 0.02 * (top - bottom))
    if ideal is not None:
        what = "∝ 1 / quota" if metric.kind == "time" else "∝ quota"
        axis.plot([], [], " ", label=f"({metric.name} {what})")
    _key(axis)
    return _said(metric, name, ideal=ideal is not None)


def _said(metric: Metric, name: str | None, *, ideal: bool) -> str:
    what = metric.name
    by = "" if name is None else f" by {groups.name(name)}"
    how = "each run, median with 95 % interval" + (", ideal dashed" if ideal else "")
    return f"{what[:1].upper()}{what[1:]}{by} ({how})"


def _ideal(
    sweep: Sweep, found: Sequence[Level], figures: Sequence[Array], metric: Metric
) -> Array | None:
    """Give what each level would have were the quota all that counts; None where nothing says.

    It goes through the best known level: of those that used up their quota the one with the narrowest
    interval, and the greatest quota of equals.
    """
    if metric.kind == "other":
        return None
    known = []
    for level, values in zip(found, figures, strict=True):
        if not isinstance(level.number, (int, float)) or not len(values):
            continue
        median, low, high = groups.spread(values, sweep.plan.seed)
        width = (high - low) / median if median and not math.isnan(high - low) else math.inf
        shares = [run.result.totals["cpu_share"] or 0.0 for run in level.counted]
        held = float(np.median(shares)) >= _BUSY * level.number
        known.append((not held, width, -level.number, median))
    if len(known) < 2:
        return None
    _, _, negative, median = min(known)
    numbers = [float(x.number) if isinstance(x.number, (int, float)) else math.nan for x in found]
    relative = np.array(numbers) / -negative
    ideal: Array = median / relative if metric.kind == "time" else median * relative
    return ideal


def _room(at: Sequence[float], scale: str) -> float:
    """Give how far points may be moved aside: part of the least distance; in decades on a log scale."""
    ordered = np.sort(np.log10(at) if scale == "log" else np.array(at))
    return 0.12 * float(np.min(np.diff(ordered))) if len(ordered) > 1 else 0.08


def _draw_level(
    axis: Axes, level: Level, x: float, values: Array, *, seed: int, scale: str, room: float
) -> float:
    """Draw a level's runs side by side, and its median with the interval; the median."""
    median, low, high = groups.spread(values, seed)
    if not len(values):
        return median
    aside = np.linspace(-room, room, len(values)) if len(values) > 1 else np.zeros(1)
    points = x * 10**aside if scale == "log" else x + aside
    axis.plot(
        points,
        values,
        linestyle="",
        marker=".",
        markersize=5,
        color=level.colour,
        alpha=0.55,
        label="_runs",
    )
    known = not math.isnan(low)
    axis.errorbar(
        [x],
        [median],
        yerr=[[max(0.0, median - low)], [max(0.0, high - median)]] if known else None,
        color=level.colour,
        marker=level.marker or "o",
        markersize=8,
        markeredgecolor="black",
        markeredgewidth=0.8,
        capsize=5,
        elinewidth=1.8,
        linestyle="",
        label="_median",
    )
    return median


def _connect(axis: Axes, at: Sequence[float], medians: Sequence[float]) -> None:
    order = np.argsort(at)
    axis.plot(
        np.array(at)[order],
        np.array(medians)[order],
        color="0.6",
        linewidth=1,
        zorder=1,
        label="_connection",
    )


def _name_medians(
    axis: Axes, found: Sequence[Level], at: Sequence[float], medians: Sequence[float]
) -> None:
    """Write each median beside it, where there is room."""
    if len(found) > groups.MOST_NAMED:
        return
    for x, median in zip(at, medians, strict=True):
        if math.isnan(median):
            continue
        axis.annotate(
            groups.written(median),
            (x, median),
            (0, 11),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=drawing.SMALL,
            bbox={"facecolor": axis.get_facecolor(), "alpha": 0.75, "linewidth": 0, "pad": 0.5},
        )


def _absent(axis: Axes, level: Level, x: float, y: float) -> None:
    """Say at a level's place why it has no median, or that some of its runs don't count."""
    bad = len(level.runs) - len(level.counted)
    if level.failure is not None:
        labels.failed(axis, x, y, level.colour, clip_on=False)
        text = (
            f"all {len(level.runs)} failed:\n{level.failure}"
            if len(level.runs) > 1
            else f"failed:\n{level.failure}"
        )
    elif not level.runs:
        text = "no run yet"
    elif bad:
        text = f"{bad} of {len(level.runs)}\nfailed"
    else:
        return
    axis.annotate(
        text,
        (x, y),
        (0, 9),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize="x-small",
        parse_math=False,
    )


def _y_scale(axis: Axes, drawn: Array, *, log: bool) -> tuple[float, float]:
    """Set the y axis' scale and limits: (top, bottom)."""
    if not len(drawn):
        axis.set_ylim(0, 1)
        axis.set_yticks([])
        return 1.0, 0.0
    low, high = float(drawn.min()), float(drawn.max())
    if log and high > 3 * low:
        axis.set_yscale("log")
        axis.set_ylim(low / 1.5, high * 1.7)
        labels.plain_log(axis.yaxis)
        return high * 1.7, low / 1.5
    axis.set_ylim(min(0.0, 1.15 * low), max(1.18 * high, 1e-12))
    return axis.get_ylim()[1], axis.get_ylim()[0]


def _key(axis: Axes) -> None:
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="best", fontsize=drawing.SMALL, frameon=False)


def throttling(axis: Axes, sweep: Sweep, found: Sequence[Level], name: str | None) -> str:
    """Draw the share of quota periods in which each level's runs were stopped; say what is seen."""
    said = "Throttled quota periods" + ("" if name is None else f" by {groups.name(name)}")
    said += " (each run, median with 95 % interval)"
    axis.set_ylabel("throttled (% of quota periods)")
    shares = [
        np.array(
            [
                s * 100
                for run in level.runs
                if (s := run.result.totals["throttled_share"]) is not None
            ]
        )
        for level in found
    ]
    at, scale = labels.places(found, name)
    labels.level_axis(axis, found, at, scale, "" if name is None else groups.name(name))
    if not any(map(len, shares)):
        ran = any(level.runs for level in found)
        drawing.say(axis, "no CPU quota, so nothing to be throttled by" if ran else NO_RUN)
        return said
    axis.set_ylim(-4, 115)
    axis.set_yticks(range(0, 101, 20))
    room = _room(at, scale)
    medians = []
    for level, x, values in zip(found, at, shares, strict=True):
        medians.append(
            _draw_level(axis, level, x, values, seed=sweep.plan.seed, scale=scale, room=room)
        )
        if level.runs and not len(values):
            axis.annotate(
                "no quota",
                (x, 0),
                (0, 9),
                textcoords="offset points",
                ha="center",
                fontsize="x-small",
            )
    _connect(axis, at, medians)
    _name_medians(axis, found, at, medians)
    return said


def ecdf(axis: Axes, sweep: Sweep, found: Sequence[Level], name: str | None, metric: Metric) -> str:
    """Draw which share of a level's runs had at most a figure; say what is seen."""
    axis.set_xlabel(metric.axis_label)
    axis.set_ylabel("runs with at most this (%)")
    axis.set_ylim(0, 104)
    figures = [groups.figures(sweep, level.counted, metric) for level in found]
    every = np.concatenate(figures) if figures else np.empty(0)
    said = f"Distribution of {metric.name}" + ("" if name is None else f" by {groups.name(name)}")
    if not len(every):
        drawing.say(axis, NO_RUN)
        return said
    low, high = float(every.min()), float(every.max())
    if low > 0 and high > 10 * low:
        axis.set_xscale("log")
        axis.set_xlim(low / 1.15, high * 1.15)
        labels.plain_log(axis.xaxis)
    else:
        room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        axis.set_xlim(low - room, high + room)
    shown = groups.sample(found)
    for i, (level, values) in enumerate(zip(found, figures, strict=True)):
        _draw_ecdf(axis, level, values, named=i in shown)
    axis.legend(
        loc="upper left",
        bbox_to_anchor=(1.0, 1.02),
        fontsize=drawing.SMALL,
        frameon=False,
        title=None if name is None else groups.name(name),
        title_fontsize=drawing.SMALL,
    )
    return said


def _draw_ecdf(axis: Axes, level: Level, values: Array, *, named: bool) -> None:
    note = "no run yet" if not len(values) else f"n = {len(values)}"
    if level.failure is not None:
        note = f"all failed: {level.failure}"
    x = np.concatenate([np.sort(values)[:1], np.sort(values)])
    y = np.arange(len(x)) / max(1, len(values)) * 100
    axis.plot(
        x,
        y,
        drawstyle="steps-post",
        color=level.colour,
        linestyle="-" if level.failure is None else ":",
        linewidth=1.8,
        marker=level.marker or None,
        markersize=5,
        label=f"{labels.short(level.label)} ({note})" if named else f"_{level.label}",
    )
