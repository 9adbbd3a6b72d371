"""What a picture of a sweep says: its title, its levels named at the right end, its ticks."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from nscontainer import drawing
from nscontainer.experiment import levels, words
from nscontainer.measure.text import plural, text_of
from nscontainer.sweep_plot import groups

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nscontainer.experiment.sweep import Sweep
    from nscontainer.sweep_plot.groups import Level

LINE_PT = 10.5
"""How far apart two small lines of text must be."""


def title(axis: Axes, sweep: Sweep, what: str, drawn: Sequence[str]) -> None:
    """Write above a picture what ran, what is shown, on which machine, and what to know of it.

    Parameters
    ----------
    what
        What is shown.
    drawn
        The factors that are seen in it; the others are taken together.
    """
    lines = [words.what(sweep.plan.work)]
    over = groups.pooled(sweep.plan, *drawn)
    lines.append(" ".join(part for part in (what, over) if part))
    lines.append(" · ".join([counted(sweep), *_conditions(sweep), f"seed {sweep.plan.seed}"]))
    if sweep.recorded is not None:
        lines.append(text_of(sweep.recorded, 120))
    planned = len(sweep.plan.points()) * sweep.plan.repeat
    if sweep.status != "complete":
        lines.append(f"not complete: {len(sweep.runs)} of {max(planned, len(sweep.runs))} runs")
    width = max(30, int(_size_pt(axis)[0] / 4.4))
    wrapped = [part for line in lines for part in textwrap.wrap(line, width)[:2]]
    axis.set_title("\n".join(wrapped), loc="left", fontsize=drawing.SMALL, parse_math=False)


def counted(sweep: Sweep) -> str:
    """Say how often each point ran: ``n = 5``, ``n = 3 to 5``."""
    each = [0] * len(sweep.plan.points())
    for run in sweep.runs:
        each[run.turn.point] += 1
    low, high = min(each, default=0), max(each, default=0)
    points = f" at each of {len(each)} points" if len(sweep.plan.factors) > 1 else " a level"
    return (f"n = {low}" if low == high else f"n = {low} to {high}") + (
        points if len(each) > 1 else ""
    )


def _conditions(sweep: Sweep) -> list[str]:
    """Name what was the same for all runs: limits that aren't varied, and the machine."""
    said = [
        f"{groups.name(name)} {levels.label(name, value)}"
        for name, value in sweep.plan.options.items()
        if levels.is_limit(name) and isinstance(value, (str, int, float))
    ]
    hosts = sorted({run.host for run in sweep.runs if run.host})
    if len(hosts) > 1:
        return [*said, f"on {len(hosts)} hosts"]
    host = sweep.facts.get("host") or "".join(hosts)
    cpus = sweep.facts.get("cpus")
    details = [str(sweep.facts.get("cpu_model") or "")]
    details += [plural(cpus, "CPU")] if isinstance(cpus, int) else []
    machine = ", ".join(
        text_of(part, 48) for part in [f"on {host}" if host else "", *details] if part
    )
    return [*said, *([machine] if machine else [])]


def _size_pt(axis: Axes) -> tuple[float, float]:
    figure = axis.get_figure(root=True)
    width, height = (float(x) for x in figure.get_size_inches()) if figure else (8.0, 4.0)
    box = axis.get_position()
    return max(72.0, box.width * width * 72), max(72.0, box.height * height * 72)


def spread_out(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move ascending places as little as can be so that they are ``gap`` apart, within low and high.

    Where there is no room for that they are as far apart as there is.
    """
    count = len(wanted)
    if count > 1:
        gap = min(gap, (high - low) / (count - 1))
    # Without the gaps it is isotonic regression: neighbours out of order are pooled at their mean.
    blocks: list[tuple[float, int]] = []
    for i, place in enumerate(wanted):
        blocks.append((place - i * gap, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, m), (b, n) = blocks[-2:]
            blocks[-2:] = [((a * m + b * n) / (m + n), m + n)]
    flat = [mean for mean, size in blocks for _ in range(size)]
    top = high - (count - 1) * gap
    return [min(max(mean, low), top) + i * gap for i, mean in enumerate(flat)]


def at_right(axis: Axes, named: Sequence[tuple[float, str, str]]) -> None:
    """Name lines at the right end of the Axes: where (y), what, in which colour; none over another."""
    bottom, top = axis.get_ylim()
    ordered = sorted(named, key=lambda entry: entry[0])
    wanted = [min(max(y, bottom), top) for y, _, _ in ordered]
    gap = LINE_PT * (top - bottom) / _size_pt(axis)[1]
    places = spread_out(wanted, gap, bottom, top)
    for (_, text, colour), y, place in zip(ordered, wanted, places, strict=True):
        axis.annotate(
            text,
            (1, y),
            (1.025, place),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            va="center",
            ha="left",
            fontsize=drawing.SMALL,
            # In the text's own colour, which is read on any ground; the line to it has the level's.
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 1.6,
                "shrinkA": 0,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
            annotation_clip=False,
            parse_math=False,
        )


def places(
    found: Sequence[Level], factor_name: str | None, *, log: bool = True
) -> tuple[list[float], str]:
    """Give each level its place on an axis, and the axis' scale: ``linear``, ``log`` or ``places``.

    By its number where that keeps the levels apart (``log``: on either scale), else evenly; "no limit" stands beyond the greatest.
    """
    evenly = [float(i) for i in range(len(found))]
    numbers = [level.number for level in found]
    plain = [float(x) for x in numbers if isinstance(x, (int, float)) and not isinstance(x, bool)]
    if (
        factor_name is None
        or len(plain) < 2
        or len(plain) < len([x for x in numbers if x is not None])
    ):
        return evenly, "places"
    ordered = np.array(sorted(plain))
    scales: list[tuple[float, str]] = [(_least_gap(ordered), "linear")]
    if log and ordered[0] > 0:
        scales.append((_least_gap(np.log(ordered)) - 1e-9, "log"))
    gap, scale = max(scales)
    if gap < 0.06:
        return evenly, "places"
    beyond = (
        ordered[-1] * (ordered[-1] / ordered[0]) ** 0.25
        if scale == "log"
        else (ordered[-1] + 0.25 * (ordered[-1] - ordered[0]))
    )
    return [float(beyond) if x is None else float(x) for x in numbers], scale


def _least_gap(ordered: Any) -> float:
    return float(np.min(np.diff(ordered)) / (ordered[-1] - ordered[0]))


def level_axis(
    axis: Axes, found: Sequence[Level], at: Sequence[float], scale: str, name: str
) -> None:
    """Make the x axis one of levels: a tick at each, with its label; a sample of many."""
    if scale == "log":
        axis.set_xscale("log")
    shown = groups.sample(found)
    texts = [found[i].label for i in shown]
    long = sum(len(t) + 2 for t in texts) * 5 > _size_pt(axis)[0]
    axis.xaxis.set_major_locator(FixedLocator([at[i] for i in shown]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    turned: dict[str, Any] = {"rotation": 30, "ha": "right"} if long else {}
    axis.set_xticks(
        [at[i] for i in shown], [text_of(t, 28) for t in texts], parse_math=False, **turned
    )
    axis.set_xlabel(name)
    low, high = min(at), max(at)
    if scale == "log":
        room = (high / low) ** 0.08
        axis.set_xlim(low / room, high * room)
    else:
        room = 0.08 * (high - low) or 0.5
        axis.set_xlim(low - room, high + room)


def plain_log(axis: Any) -> None:
    """Label a logarithmic axis 1, 2, 5, 10 … in plain figures."""
    low, high = axis.get_view_interval()
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    steps = (1, 2, 5) if len(decades) <= 4 else (1,)
    axis.set_major_locator(FixedLocator([s * 10.0**d for d in decades for s in steps]))
    axis.set_major_formatter(FuncFormatter(lambda x, _: groups.written(x)))
    axis.set_minor_formatter(NullFormatter())


def failed(axis: Axes, x: float, y: float, colour: str, *, clip_on: bool = True) -> None:
    """Mark the place of a level whose runs all failed."""
    axis.plot(
        [x],
        [y],
        marker="X",
        markersize=10,
        color=colour,
        markeredgecolor="black",
        linestyle="",
        clip_on=clip_on,
    )


def short(text: str) -> str:
    """Cut a level's label so that it fits beside a picture."""
    return text_of(text, 22)
