"""Panels of what flows: disk and network against their limits, and where it was waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from nscontainer import curves, drawing, units
from nscontainer.measure import rates
from nscontainer.measure.rates import Stretch
from nscontainer.measure.text import byte_rate, decimal_size
from nscontainer.palette import BLUE, GREEN, OFF_SCALE, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nscontainer.limits import Limits
    from nscontainer.measure.result import RunResult

WINDOW_S: Final = 1.0
"""A throttled disk stands still between pieces, of 0.2 s' worth where they are 1 MiB at 5 MiB a second."""


_FEW: Final = 6
"""Readings; of a shorter run each counts."""


@dataclass(frozen=True, slots=True)
class Flow:
    """One direction of what is drawn."""

    column: str
    name: str
    limit: str
    """Of :func:`rates.disk_limit` or :func:`rates.net_limit`."""
    colour: str
    line: str


@dataclass(frozen=True, slots=True)
class Panel:
    """What a panel is about: its directions, and how its figures are said."""

    what: str
    flows: tuple[Flow, ...]
    limits: Callable[..., list[Stretch]]
    scale: float
    """From the counter's unit to the limit's."""
    unit: Callable[[float], tuple[str, float]]
    text: Callable[[float], str]
    total: Callable[[float], str]


Drawn = tuple[Flow, tuple[curves.Array, curves.Array]]


def _bits(most: float) -> tuple[str, float]:
    for name, divisor in (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if most >= divisor:
            return name, divisor
    return "bit/s", 1.0


def _bytes(most: float) -> tuple[str, float]:
    name, divisor = drawing.binary_unit(most)
    return f"{name}/s", divisor


def _operations(rate: float) -> str:
    return f"{rate:.4g}/s"


KINDS: Final = {
    "io": Panel(
        "disk",
        (
            Flow("blkio.read_bytes", "read", "read_bps", BLUE, "-"),
            Flow("blkio.write_bytes", "write", "write_bps", GREEN, "-."),
        ),
        rates.disk_limit, 1.0, _bytes, byte_rate, units.format_size,
    ),
    "iops": Panel(
        "disk",
        (
            Flow("blkio.reads", "reads", "read_iops", BLUE, "-"),
            Flow("blkio.writes", "writes", "write_iops", GREEN, "-."),
        ),
        rates.disk_limit, 1.0, lambda _most: ("operations/s", 1.0), _operations, "{:.0f}".format,
    ),
    "net": Panel(
        "network",
        (
            Flow("net.rx_bytes", "in", "rx_bps", BLUE, "-"),
            Flow("net.tx_bytes", "out", "tx_bps", GREEN, "-."),
        ),
        rates.net_limit, 8.0, _bits, units.format_bit_rate, decimal_size,
    ),
}  # fmt: skip


def limited(run: RunResult) -> list[str]:
    """Name the panels for whose figures this run had a limit, at the start or by an update."""
    asked = [run.limits.asked, *(change.asked for change in run.limits.changes)]
    return [kind for kind in KINDS if any(_asks(kind, limits) for limits in asked)]


def _asks(kind: str, limits: Limits) -> bool:
    if kind == "net":
        return limits.net_rx_bps is not None or limits.net_tx_bps is not None
    return any(
        getattr(limits, f"{which}_{flow.limit}") not in (None, ())
        for flow in KINDS[kind].flows
        for which in ("disk", "device")
    )


def rate(run: RunResult, panel: Panel, flow: Flow) -> tuple[curves.Array, curves.Array] | None:
    """Give a direction's rate over time, in the limit's unit; None where the host gives no figure."""
    frame = run.usage
    there = curves.fresh(frame, run.record["sample_s"] or 0.02)
    at, counter = curves.known(frame.index[there], frame[flow.column][there])
    if len(at) < 2 or at[-1] <= 0:
        return None
    if panel.what == "disk" and len(at) > _FEW:
        # What waits in memory at the end is written then, at once and past the limit (ADR 0024).
        at, counter = at[:-1], counter[:-1]
    changed = [change.elapsed_s for change in run.limits.changes]
    return curves.slow_rate(at, counter * panel.scale, WINDOW_S, changed)


def limit_of(run: RunResult, panel: Panel, flow: Flow) -> list[Stretch]:
    """Give a direction's limit over time."""
    return panel.limits(run.record, run.samples, run.limits, flow.limit)


def missing(run: RunResult, panel: Panel) -> str:
    """Say why there is nothing to draw."""
    network = (run.record["isolation"] or {}).get("network")
    if panel.what == "network" and network in ("none", "host"):
        why = "has no network" if network == "none" else "shares the host's network"
        return f"no figure for the network: the container {why}"
    return f"this host gave no figure for the {panel.what}"


def _draw(kind: str) -> Callable[[Axes, RunResult], None]:
    def draw(axis: Axes, run: RunResult) -> None:
        _panel(axis, run, kind)

    return draw


def _panel(axis: Axes, run: RunResult, kind: str) -> None:
    panel = KINDS[kind]
    drawn = [(flow, found) for flow in panel.flows if (found := rate(run, panel, flow)) is not None]
    if not drawn:
        axis.set_ylabel(panel.what)
        drawing.say(axis, missing(run, panel))
        return
    drawn = _worth_drawing(run, panel, drawn)
    limits = [limit_of(run, panel, flow) for flow, _ in drawn]
    most = max(float(np.max(values)) for _, (_, values) in drawn)
    each = [v for steps in limits for _, _, v in steps if v is not None]
    near = [v for v in each if not most or v <= OFF_SCALE * most]
    unit, divisor = panel.unit(max([most, *near]))
    axis.set_ylabel(f"{panel.what}\n({unit})")
    for flow, (at, values) in drawn:
        total = run.totals[flow.column] or 0
        text = panel.total(float(total))
        axis.plot(
            at, values / divisor, color=flow.colour, linestyle=flow.line, linewidth=2,
            label=f"{flow.name}: {text}",
        )  # fmt: skip
    _draw_limits(axis, panel, [flow.name for flow, _ in drawn], limits, near, divisor)
    room = 1.35 if run.limits.changes else 1.15  # for what is written at them
    axis.set_ylim(0, room * max([most, *near, 1e-9]) / divisor)
    drawing.legend(axis)


def _worth_drawing(run: RunResult, panel: Panel, drawn: list[Drawn]) -> list[Drawn]:
    """Leave out a direction in which nothing moved and no limit held, where the other has something."""
    has = [
        bool(run.totals[flow.column])
        or any(v is not None for _, _, v in limit_of(run, panel, flow))
        for flow, _ in drawn
    ]
    return [one for one, some in zip(drawn, has, strict=True) if some] or drawn


def _draw_limits(
    axis: Axes,
    panel: Panel,
    names: Sequence[str],
    limits: Sequence[list[Stretch]],
    near: Sequence[float],
    divisor: float,
) -> None:
    """Draw the directions' limits: one line where both have the same."""
    same = len(limits) == 2 and limits[0] == limits[1]
    labels = []
    for name, steps in zip(["", *names[1:]] if same else names, limits, strict=True):
        known = [v for _, _, v in steps if v is not None]
        if not known or (same and name):
            continue
        scaled = [(a, b, v / divisor if v is not None and v in near else None) for a, b, v in steps]
        title = f"{name} limit".strip()
        off = "" if set(known) & set(near) else f" {panel.text(known[0])}: off the scale"
        drawing.draw_limit(axis, scaled, title + off)
        labels += [
            (a, v / divisor, f"{title} {panel.text(v)}")
            for a, _, v in steps
            if v is not None and v in near
        ]
    drawing.label_steps(axis, labels)


def _psi(axis: Axes, run: RunResult) -> None:
    """Draw for which part of the time some task stood still, waiting for a CPU, memory or the disk."""
    axis.set_ylabel("some task waits\n(% of the time)")
    frame = run.usage
    there = curves.fresh(frame, run.record["sample_s"] or 0.02)
    most = 0.0
    looks = (("cpu", BLUE, "-"), ("memory", GREEN, "-."), ("io", ORANGE, ":"))
    for name, colour, line in looks:
        at, counter = curves.known(frame.index[there], frame[f"psi.{name}"][there])
        if len(at) > 1 and at[-1] > 0:
            x, y = curves.slow_rate(at, counter / 1e6 * 100, WINDOW_S)
            label = f"for {'a CPU' if name == 'cpu' else 'the disk' if name == 'io' else name}"
            axis.plot(x, y, color=colour, linestyle=line, linewidth=2, label=label)
            most = max(most, float(np.max(y)))
    if not axis.lines:
        drawing.say(axis, "this host gave no figure for pressure (PSI)")
        return
    axis.set_ylim(0, max(10.0, min(105.0, 1.15 * most)))
    drawing.legend(axis)


PANELS: Final[dict[str, Callable[[Any, RunResult], None]]] = {
    **{kind: _draw(kind) for kind in KINDS},
    "psi": _psi,
}
