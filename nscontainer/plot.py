"""Pictures of a run: CPU use against its quota, throttling, memory; by :mod:`.rate_plot`, disk and network.

A picture must speak for itself: what ran, under which limits, how it ended, in colours that
colour-blind people tell apart (Okabe and Ito's) and in line styles that survive a black and white
printer.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.figure import Figure

from nscontainer import curves, drawing, rate_plot, units
from nscontainer.errors import SpecError
from nscontainer.measure import headline, rates
from nscontainer.measure.rates import Stretch
from nscontainer.measure.text import size, text_of
from nscontainer.palette import BLUE, GREEN, OFF_SCALE, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nscontainer.measure.result import RunResult

_USUAL: Final = ("cpu", "throttling", "memory")
_RATIOS: Final = {
    "cpu": 3.0, "throttling": 1.3, "memory": 2.0, "io": 2.0, "iops": 1.6, "net": 2.0, "psi": 2.0,
}  # fmt: skip


def plot(run: RunResult, kind: str = "overview", ax: Any = None) -> Any:
    """Draw a run; see :meth:`nscontainer.measure.result.RunResult.plot`.

    Raises
    ------
    SpecError
        ``kind`` is unknown, or ``ax`` has another number of Axes than it needs.
    """
    kinds = _kinds(run, kind)
    if ax is None:
        axes = drawing.new_axes([_RATIOS[k] for k in kinds])
    else:
        axes = drawing.given_axes(ax, len(kinds))
    _draw(axes, kinds, run)
    for axis in axes[:-1]:
        axis.tick_params(labelbottom=ax is not None)
    axes[-1].set_xlabel("time since the code was let go (s)")
    _title(axes[0], run)
    _end(axes, kinds, run)
    return axes[0] if len(kinds) == 1 else np.array(axes, dtype=object)


def _kinds(run: RunResult, kind: str) -> list[str]:
    """Give the panels that a kind of plot has for this run, from above."""
    if kind == "overview":
        return [*_USUAL, *rate_plot.limited(run)]
    if kind == "io":
        return ["io", *(k for k in rate_plot.limited(run) if k == "iops")]
    if kind not in _panels():
        message = f"plot kind {kind!r} is not known"
        raise SpecError(message, hint=f"overview, {', '.join(_panels())}")
    return [kind]


def strip(run: RunResult) -> bytes:
    """Draw a run's panels side by side, as a PNG: what is left of its live view."""
    kinds = _kinds(run, "overview")
    if not run.totals["cpu.nr_periods"]:
        kinds.remove("throttling")
    width, margin = 4.2 * len(kinds), 0.8
    figure = Figure(figsize=(width, 2.7))
    # By hand: a layout engine draws it all twice, and somebody waits for it.
    sides = {"left": margin / width, "right": 1 - 0.1 / width}
    figure.subplots_adjust(**sides, bottom=0.19, top=0.8, wspace=0.32)
    axes = list(figure.subplots(1, len(kinds), squeeze=False)[0])
    _draw(axes, kinds, run)
    below = " · ".join(filter(None, [headline.isolation(run), run.recorded]))
    if below:
        figure.text(0.01, 0.01, text_of(below, 120), fontsize="x-small", fontstyle="italic")
    for axis in axes:
        axis.set_xlabel("time (s)")
        if axis.get_legend() is not None:
            axis.legend(loc="lower left", bbox_to_anchor=(0, 1), **(drawing.LEGEND | {"ncols": 2}))
    _end(axes, kinds, run)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=80)
    return picture.getvalue()


def _panels() -> dict[str, Callable[[Axes, RunResult], None]]:
    return {"cpu": _cpu, "throttling": _throttling, "memory": _memory} | rate_plot.PANELS


def _draw(axes: list[Axes], kinds: list[str], run: RunResult) -> None:
    panels = _panels()
    for name, axis in zip(kinds, axes, strict=True):
        # What was drawn there before stays in sight.
        right, top = (axis.get_xlim()[1], axis.get_ylim()[1]) if axis.has_data() else (0.0, 0.0)
        panels[name](axis, run)
        axis.set_xlim(0, max(run.wall_s * 1.02, right, 1e-3))
        axis.set_ylim(0, max(axis.get_ylim()[1], top))
        axis.spines[["top", "right"]].set_visible(False)
        _changes(axis, run, labelled=axis is axes[0])


# --- the panels -----------------------------------------------------------------------------


def _cpu(axis: Axes, run: RunResult) -> None:
    axis.set_ylabel("CPU use\n(% of one CPU)")
    at, used = curves.known(run.usage.index, run.usage["cpuacct.usage"])
    if len(at) < 2 or at[-1] <= 0:
        drawing.say(axis, "this host gave no figure for CPU time")
        return
    used = used / 1e9 * 100
    edges, each = curves.sample_rate(at, used)
    if len(each) > 2 * curves.MOST_POINTS:
        edges, low, each = curves.envelope(edges, each)
        label = "range of the samples"
        axis.stairs(each, edges, baseline=low, fill=True, color="0.6", alpha=0.35, label=label)
    elif len(each) > 1:
        label = f"each sample ({units.format_seconds(_typical_step(at))})"
        axis.stairs(each, edges, baseline=None, color="0.65", linewidth=0.6, label=label)
    middle, rate, window = curves.smooth_rate(at, used, run.limits.longest_period_s)
    axis.plot(middle, rate, color=BLUE, linewidth=2.2, label=f"over {units.format_seconds(window)}")
    stretches = _quota(run)
    drawing.draw_limit(
        axis, [(a, b, None if q is None else q * 100) for a, b, q in stretches], "quota"
    )
    drawing.label_steps(
        axis,
        [(a, q * 100, f"quota {units.format_cpu(q)}") for a, _, q in stretches if q is not None],
    )
    quotas = [q * 100 for _, _, q in stretches if q is not None]
    # A sample read late makes the next too tall: the scale is for what was really had.
    usual = float(np.percentile(each, 98)) if len(each) > 50 else float(np.max(each, initial=0))
    axis.set_ylim(0, 1.12 * max([float(np.max(rate)), usual, *quotas, 1.0]))
    drawing.legend(axis)


def _throttling(axis: Axes, run: RunResult) -> None:
    axis.set_ylabel("throttled\n(% of one CPU)")
    at, stood = curves.known(run.usage.index, run.usage["cpu.throttled_time"])
    if len(at) < 2 or at[-1] <= 0:
        drawing.say(axis, "this host gave no figure for throttling")
        return
    if not run.totals["cpu.nr_periods"] and all(q is None for _, _, q in _quota(run)):
        drawing.say(axis, "no CPU quota, so nothing to be throttled by")
        axis.set_ylim(0, 100)
        return
    # Over five periods and ten samples: whether a stop falls before or after a sample must not show.
    least_s = max(5 * (run.limits.longest_period_s or 0.1), 10 * _typical_step(at))
    at, stood = curves.unlumped(at, stood / 1e9)
    edges, share = curves.stair_rate(at, stood * 100, least_s, [a for a, _, _ in _quota(run)])
    label = headline.throttled(run) or "throttled"
    axis.stairs(
        share, edges, fill=True, facecolor=ORANGE + "59", edgecolor=ORANGE, hatch="///", linewidth=0
    )
    axis.stairs(share, edges, color=ORANGE, linewidth=1.6, label=label)
    axis.set_ylim(0, max(100.0, 1.1 * float(np.max(share))))
    drawing.legend(axis)


def _memory(axis: Axes, run: RunResult) -> None:
    frame = run.usage
    if len(frame) > 2:
        frame = frame.iloc[:-1]  # the last reading is of a container with no process left in it
    at, used = curves.known(frame.index, frame["memory.usage"])
    if not len(at):
        axis.set_ylabel("memory")
        drawing.say(axis, "this host gave no figure for memory")
        return
    peak = run.totals["memory.peak"]
    most = max(float(np.max(used)), float(peak or 0))
    limits = rates.memory_limit(run.record, run.samples, run.limits)
    drawn = [limit for _, _, limit in limits if limit is not None and limit <= OFF_SCALE * most]
    unit, divisor = drawing.binary_unit(max([most, *drawn]))
    axis.set_ylabel(f"memory\n({unit})")
    x, y = curves.thinned(at, used)
    axis.plot(x, y / divisor, color=BLUE, linewidth=2, label="usage")
    x, y = curves.thinned(*curves.known(frame.index, frame["memory.anon"]))
    if len(x):
        axis.plot(x, y / divisor, color=GREEN, linewidth=1.4, linestyle="-.", label="anonymous")
    if peak is not None:
        label = f"peak {units.format_size(peak)}"
        axis.axhline(peak / divisor, color="0.5", linewidth=1, linestyle=":", label=label)
    known = {limit for _, _, limit in limits if limit is not None}
    names = ", then ".join("none" if v is None else size(v) for _, _, v in limits[:3])
    scaled = [(a, b, v / divisor if v in drawn and v is not None else None) for a, b, v in limits]
    if known:
        off = "" if drawn else ": off the scale"
        drawing.draw_limit(axis, scaled, f"limit {names}{off}")
    axis.set_ylim(0, 1.12 * max([most, *drawn, 1.0]) / divisor)
    drawing.legend(axis)


# --- what they share ------------------------------------------------------------------------


def _typical_step(at: curves.Array) -> float:
    return float(f"{np.median(np.diff(at)):.2g}")


def _quota(run: RunResult) -> list[Stretch]:
    return rates.cpu_quota(run.record, run.samples, run.limits)


def _title(axis: Axes, run: RunResult) -> None:
    apart = headline.isolation(run)
    had = " · ".join([*filter(None, [apart]), headline.limits(run), headline.exit_text(run)])
    if run.recorded is not None:
        had += f"\n{text_of(run.recorded, 90)}"
    # What ran is anyone's text: a dollar sign in it begins no formula.
    axis.set_title(
        f"{headline.what(run, 70)}\n{had}", loc="left", pad=20, fontsize="medium", parse_math=False
    )


def _changes(axis: Axes, run: RunResult, *, labelled: bool) -> None:
    for change in run.limits.changes:
        axis.axvline(change.elapsed_s, color="0.4", linewidth=1, linestyle=":")
        if labelled and len(run.limits.changes) <= 4:
            drawing.beside(axis, change.elapsed_s, change.text, right=True)


def _end(axes: list[Axes], kinds: list[str], run: RunResult) -> None:
    """Mark where something killed it, or a process of it."""
    if run.oom_killed or run.totals["memory.oom_kill"]:
        kills = run.usage["memory.oom_kill"]
        killed = kills[kills > 0].index
        at = float(killed[0]) if len(killed) else run.wall_s
        where = kinds.index("memory") if "memory" in kinds else 0
        text = "out of memory"
    elif run.killed_by is not None or run.timed_out is not None:
        at, where = run.wall_s, 0
        text = {"wall": "timeout", "cpu": "CPU time used up"}.get(run.timed_out or "", "killed")
    else:
        return
    for axis in axes:
        # The text's own colour, so that it is seen under a dark style too.
        axis.axvline(at, color=axis.yaxis.label.get_color(), linewidth=1.4, linestyle="-")
    drawing.beside(axes[where], at, text, right=False, low=kinds[where] == "memory")
