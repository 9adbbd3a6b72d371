"""Several runs in one picture, on their common clock: each its colour, its limits dashed in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from nscontainer import curves, drawing, rate_plot, units
from nscontainer.errors import SpecError
from nscontainer.measure import headline, rates
from nscontainer.measure.rates import Stretch
from nscontainer.measure.text import size, text_of
from nscontainer.palette import OFF_SCALE, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nscontainer.measure.result import RunResult

_HEIGHT: Final = 3.4
KINDS: Final = ("cpu", "memory", "io", "net")
Curve = tuple[str, str, curves.Array, curves.Array, list[Stretch]]
"""What of a run is drawn as one line: its name, the line's style, times (s), figures, its limit."""


def plot(
    runs: Mapping[str, RunResult], offsets_s: Mapping[str, float], kind: str, ax: Any = None
) -> Axes:
    """Draw runs, each later by its offset; see :meth:`nscontainer.several.Together.plot`.

    Raises
    ------
    SpecError
        ``kind`` is unknown, or ``ax`` is no single Axes.
    """
    if kind not in KINDS:
        message = f"plot kind {kind!r} is not known for several containers"
        raise SpecError(message, hint=", ".join(KINDS))
    axis = (drawing.new_axes([_HEIGHT]) if ax is None else drawing.given_axes(ax, 1))[0]
    found = {name: _curves(run, kind) for name, run in runs.items()}
    every = [curve for lines in found.values() for curve in lines]
    if not every:
        axis.set_ylabel(kind)
        drawing.say(axis, _missing(runs, kind))
    else:
        _draw(axis, found, offsets_s, kind)
    wall = max(offsets_s[name] + run.wall_s for name, run in runs.items())
    axis.set_xlim(0, max(wall * 1.02, 1e-3))
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xlabel("time since the first was let go (s)")
    _title(axis, runs)
    return axis


def _missing(runs: Mapping[str, RunResult], kind: str) -> str:
    if kind in rate_plot.KINDS:
        return rate_plot.missing(next(iter(runs.values())), rate_plot.KINDS[kind])
    return f"this host gave no figure for {'CPU time' if kind == 'cpu' else kind}"


def _draw(
    axis: Axes, found: Mapping[str, list[Curve]], offsets_s: Mapping[str, float], kind: str
) -> None:
    every = [curve for lines in found.values() for curve in lines]
    most = max(float(np.max(values, initial=0)) for _, _, _, values, _ in every)
    limits = [v for *_, steps in every for _, _, v in steps if v is not None]
    near = [v for v in limits if not most or v <= OFF_SCALE * most]
    unit, divisor = _unit(kind, max([most, *near]))
    axis.set_ylabel(
        f"{ {'cpu': 'CPU use', 'io': 'disk', 'net': 'network'}.get(kind, kind) }\n({unit})"
    )
    for i, (name, lines) in enumerate(found.items()):
        colour, shown = SERIES[i % len(SERIES)], text_of(name, 24)
        drawn: list[list[Stretch]] = []
        for what, line, at, values, steps in lines:
            label = f"{shown} {what}".strip()
            x = at + offsets_s[name]
            axis.plot(x, values / divisor, color=colour, linestyle=line, linewidth=2, label=label)
            if steps in drawn:  # both directions have the same
                continue
            drawn.append(steps)
            moved = [
                (a + offsets_s[name], b + offsets_s[name], v / divisor if v in near and v else None)
                for a, b, v in steps
            ]
            known = [v for _, _, v in steps if v is not None]
            if known:
                off = "" if set(known) & set(near) else ": off the scale"
                text = f"{shown}'s limit {_text(kind, known[0])}{off}"
                drawing.draw_limit(axis, moved, text, colour)
    axis.set_ylim(0, 1.12 * max([most, *near, 1e-9]) / divisor)
    drawing.legend(axis)


def _unit(kind: str, most: float) -> tuple[str, float]:
    if kind == "cpu":
        return "% of one CPU", 0.01
    return drawing.binary_unit(most) if kind == "memory" else rate_plot.KINDS[kind].unit(most)


def _text(kind: str, limit: float) -> str:
    if kind == "cpu":
        return units.format_cpu(limit)
    return size(limit) if kind == "memory" else rate_plot.KINDS[kind].text(limit)


def _curves(run: RunResult, kind: str) -> list[Curve]:
    if kind == "cpu":
        return _cpu(run)
    if kind == "memory":
        return _memory(run)
    panel = rate_plot.KINDS[kind]
    found: list[Curve] = []
    for flow in panel.flows:
        drawn = rate_plot.rate(run, panel, flow)
        if (
            drawn is not None and run.totals[flow.column]
        ):  # what moved nothing is no line on the floor
            limit = rate_plot.limit_of(run, panel, flow)
            found.append((flow.name, flow.line, *drawn, limit))
    return found


def _cpu(run: RunResult) -> list[Curve]:
    at, used = curves.known(run.usage.index, run.usage["cpuacct.usage"])
    if len(at) < 2 or at[-1] <= 0:
        return []
    middle, rate, _ = curves.smooth_rate(at, used / 1e9, run.limits.longest_period_s)
    return [("", "-", middle, rate, rates.cpu_quota(run.record, run.samples, run.limits))]


def _memory(run: RunResult) -> list[Curve]:
    frame = run.usage if len(run.usage) < 3 else run.usage.iloc[:-1]  # as in plot
    at, used = curves.thinned(*curves.known(frame.index, frame["memory.usage"]))
    limit = rates.memory_limit(run.record, run.samples, run.limits)
    return [("", "-", at, used, limit)] if len(at) else []


def _title(axis: Axes, runs: Mapping[str, RunResult]) -> None:
    lines = [
        f"{text_of(name, 24)}: {headline.what(run, 40)} · {headline.limits(run)}"
        for name, run in list(runs.items())[:4]
    ]
    if len(runs) > 4:
        lines.append(f"… and {len(runs) - 4} more")
    axis.set_title("\n".join(lines), loc="left", pad=34, fontsize="medium", parse_math=False)
