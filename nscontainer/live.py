"""A run that isn't over yet: what it has used so far, as a line and as a small picture.

Standard library only, and cheap: while it is drawn the run goes on, perhaps on the same CPU. The HTML
is as a card's: no script, no style sheet, every string escaped.
"""

from __future__ import annotations

import html as html_
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nscontainer import live_flows, units
from nscontainer.live_flows import Flows
from nscontainer.measure.text import percent, plural, size
from nscontainer.palette import BLUE, GREEN, OFF_SCALE, ORANGE, VERMILLION
from nscontainer.schema import INDEX, NA, ROW_FIELDS, ROW_PREFIX
from nscontainer.spec import PERIOD_US

if TYPE_CHECKING:
    import array

_CPU, _THROTTLED, _QUOTA, _MEMORY, _PIDS = (
    INDEX[name] + ROW_PREFIX
    for name in ("cpuacct.usage", "cpu.throttled_time", "cpu.quota", "memory.usage", "pids.current")
)
_STEP_NS: Final = 200_000_000
_MOST_STEPS: Final = 240
_NOW_NS: Final = 1_000_000_000
"""Over how long "now" is: several quota periods, or a throttled run would seem to jump."""
_WIDTH, _HEIGHT = 330, 84


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where the counters stood at the end of a step, and the most memory in it; None: no figure."""

    at_ns: int
    cpu_ns: float | None
    throttled_ns: float | None
    memory: int | None
    quota: float | None


class Progress:
    """Takes a run's sample rows as they come, and keeps what a picture needs, however long it runs.

    Parameters
    ----------
    period_us
        The CPU quota's period; None where it is Linux's 100 ms. Rates are over whole periods.
    memory_limit
        In bytes; None without one. It may be set anew.
    """

    def __init__(self, *, period_us: int | None = None, memory_limit: int | None = None) -> None:
        period_ns = (period_us or PERIOD_US) * 1000
        self._step_ns = period_ns * -(-_STEP_NS // period_ns)
        self.memory_limit = memory_limit
        self.elapsed_s = 0.0
        self.quota: float | None = None
        """In CPUs, as the newest sample has it; None where unlimited."""
        self.memory: int | None = None
        self.pids: int | None = None
        self.flows = Flows()
        """Disk and network; shown where a limit of theirs was asked."""
        self._marks: list[_Mark] = []
        self._last: array.array[int] | None = None
        self._most: int | None = None

    def add(self, rows: array.array[int]) -> None:
        """Take rows, :data:`nscontainer.schema.ROW_FIELDS` integers each, in order."""
        for at in range(0, len(rows), ROW_FIELDS):
            self._take(rows[at : at + ROW_FIELDS])

    def _take(self, row: array.array[int]) -> None:
        self.flows.take(row)
        last = self._last
        if last is None or not self._marks:
            self._marks.append(
                _Mark(row[0], *_counters(row, row, row[0]), _known(row[_MEMORY]), None)
            )
        self._most = _most(self._most, _known(row[_MEMORY]))
        quota = _known(row[_QUOTA])
        self.quota = None if quota is None else quota / 1e6
        while last is not None and row[0] >= self._marks[-1].at_ns + self._step_ns:
            edge = self._marks[-1].at_ns + self._step_ns
            counters = _counters(last, row, edge)
            self._marks.append(_Mark(edge, *counters, self._most, self.quota))
            self._most = None
        if len(self._marks) > _MOST_STEPS:
            self._thin()
        self.elapsed_s = row[0] / 1e9
        self.memory, self.pids = _known(row[_MEMORY]), _known(row[_PIDS])
        self._last = row

    def _thin(self) -> None:
        """Make each two steps one."""
        first, *rest = self._marks
        pairs = zip(rest[::2], rest[1::2], strict=False)
        both = [
            _Mark(b.at_ns, b.cpu_ns, b.throttled_ns, _most(a.memory, b.memory), b.quota)
            for a, b in pairs
        ]
        self._marks = [first, *both]
        self._step_ns *= 2

    # --- figures -------------------------------------------------------------------------------

    @property
    def cpu(self) -> float | None:
        """CPU use now, in CPUs."""
        return self._rate("cpu_ns")

    @property
    def throttled(self) -> float | None:
        """How much of the time its CPUs stand still for the quota, in CPUs."""
        return self._rate("throttled_ns")

    def _rate(self, name: str) -> float | None:
        if len(self._marks) < 2:
            return None
        newest = self._marks[-1]
        steps = max(1, _NOW_NS // self._step_ns)
        before = self._marks[max(0, len(self._marks) - 1 - steps)]
        begin, end = getattr(before, name), getattr(newest, name)
        if begin is None or end is None:
            return None
        return float(end - begin) / (newest.at_ns - before.at_ns)

    def steps(self, name: str) -> list[tuple[float, float, float | None]]:
        """Give a counter's growth in CPUs over each step: from and to in s, and the figure."""
        found = []
        for before, after in itertools.pairwise(self._marks):
            begin, end = getattr(before, name), getattr(after, name)
            rate = None if None in (begin, end) else (end - begin) / (after.at_ns - before.at_ns)
            found.append((before.at_ns / 1e9, after.at_ns / 1e9, rate))
        return found

    def gauge(self, name: str) -> list[tuple[float, float, float | None]]:
        """Give a gauge of each step likewise."""
        return [
            (before.at_ns / 1e9, after.at_ns / 1e9, getattr(after, name))
            for before, after in itertools.pairwise(self._marks)
        ]


def _known(value: int) -> int | None:
    return None if value == NA else value


def _most(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else max(a, b)


def _counters(
    before: array.array[int], after: array.array[int], at_ns: int
) -> tuple[float | None, float | None]:
    """Give the CPU time and the throttled time between two rows, straight from one to the other."""
    width = after[0] - before[0]
    part = (at_ns - before[0]) / width if width > 0 else 1.0
    found: list[float | None] = []
    for field in (_CPU, _THROTTLED):
        a, b = before[field], after[field]
        found.append(None if NA in (a, b) else a + (b - a) * part)
    return found[0], found[1]


# --- the line --------------------------------------------------------------------------------


def parts(now: Progress) -> list[str]:
    """Say how it is getting on, in parts, as ``CPU 20.0 % of 20 %``."""
    said = [
        f"{now.elapsed_s:.1f} s" if now.elapsed_s < 120 else units.format_seconds(now.elapsed_s)
    ]
    if now.cpu is not None:
        of = "" if now.quota is None else f" of {units.format_cpu(now.quota)}"
        said.append(f"CPU {percent(now.cpu)}{of}")
    if now.throttled is not None and now.quota is not None:
        said.append(f"throttled {percent(now.throttled)}")
    if now.memory is not None:
        of = "" if now.memory_limit is None else f" of {size(now.memory_limit)}"
        said.append(f"memory {units.format_size(now.memory)}{of}")
    if now.pids is not None and now.pids > 1:
        said.append(plural(now.pids, "task"))
    return said + now.flows.parts()


def text(now: Progress) -> str:
    """Say how it is getting on in one line."""
    return " · ".join(parts(now))


# --- the picture -----------------------------------------------------------------------------


def html(now: Progress, state: str = "runs") -> str:
    """Draw CPU use against its quota, with the throttling, and memory against its limit.

    Parameters
    ----------
    state
        What it does, before how long: ``runs``, ``paused`` …
    """
    first, *rest = (html_.escape(part) for part in parts(now))
    line = f"<strong>{html_.escape(state)} {first}</strong> · " + " · ".join(rest)
    return (
        '<div style="font-family:system-ui,sans-serif;font-size:13px;line-height:1.45">'
        f'<div style="font-variant-numeric:tabular-nums;margin:2px 0 6px 0">{line}</div>'
        '<div style="display:flex;flex-wrap:wrap;gap:6px 28px">'
        f"{_cpu_panel(now)}{_memory_panel(now)}"
        f"{''.join(_flow_panel(now, names) for names in live_flows.PANELS)}</div></div>"
    )


def _cpu_panel(now: Progress) -> str:
    used = now.steps("cpu_ns")
    quota = now.gauge("quota")
    stood = now.steps("throttled_ns") if any(q is not None for _, _, q in quota) else []
    top = max([0.01, *(v for _, _, v in (*used, *quota) if v is not None)]) * 1.1
    # Throttling has its own scale, the whole panel: 100 % of the time.
    scaled = [(a, b, None if v is None else min(1.0, v) * top) for a, b, v in stood]
    curves = [
        _area(scaled, now, top, ORANGE),
        _stair(used, now, top, BLUE, 'stroke-width="1.8"'),
        _stair(quota, now, top, VERMILLION, 'stroke-width="1.5" stroke-dasharray="5 3"'),
    ]
    named = [("CPU", BLUE)]
    if stood:
        named += [("quota", VERMILLION), ("throttled (share of the time)", ORANGE)]
    return _panel(curves, percent(top / 1.1), now, named)


def _memory_panel(now: Progress) -> str:
    used = now.gauge("memory")
    most = max((v for _, _, v in used if v is not None), default=0.0)
    if not most:
        return ""
    limit = now.memory_limit
    drawn = limit is not None and limit <= OFF_SCALE * most
    top = max(most, float(limit or 0) if drawn else 0.0) * 1.1
    curves = [_stair(used, now, top, BLUE, 'stroke-width="1.8"')]
    named = [("memory", BLUE)]
    if drawn:
        line: list[tuple[float, float, float | None]] = [(0.0, now.elapsed_s, limit)]
        dashes = 'stroke-width="1.5" stroke-dasharray="5 3"'
        curves.append(_stair(line, now, top, VERMILLION, dashes))
        named.append(("limit", VERMILLION))
    return _panel(curves, units.format_size(top / 1.1), now, named)


def _flow_panel(now: Progress, names: tuple[str, ...]) -> str:
    """Draw both directions of disk or network, where one of them is limited."""
    flows = now.flows
    if not any(map(flows.limited, names)):
        return ""
    rates, limits = ([get(name) for name in names] for get in (flows.steps, flows.limits))
    figures = [v for steps in (*rates, *limits) for _, _, v in steps if v is not None]
    top = max([*figures, 1.0]) * 1.1
    looks = ((BLUE, 'stroke-width="1.8"'), (GREEN, 'stroke-width="1.8" stroke-dasharray="7 2 2 2"'))
    curves = [_stair(r, now, top, *look) for r, look in zip(rates, looks, strict=True)]
    dashes = 'stroke-width="1.5" stroke-dasharray="5 3"'
    curves += [_stair(steps, now, top, VERMILLION, dashes) for steps in limits]
    _, text, scale = live_flows.SHOWN[names[0]]
    named = [(live_flows.SHOWN[n][0], look[0]) for n, look in zip(names, looks, strict=True)]
    scale_text = text(float(f"{top / 1.1 * scale:.3g}"))
    return _panel(curves, scale_text, now, [*named, ("limit", VERMILLION)])


def _panel(curves: list[str], top: str, now: Progress, named: list[tuple[str, str]]) -> str:
    """Put curves into a frame with its scale, the time and a legend."""
    legend = " ".join(
        f'<span style="color:{colour}">■</span> {html_.escape(name)}&ensp;'
        for name, colour in named
    )
    label = ", ".join(name for name, _ in named)
    return (
        f'<div><small style="opacity:.75">0 to {html_.escape(top)} &ensp;{legend}</small>'
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{html_.escape(label)}" style="display:block">'
        f'<rect x="0.5" y="0.5" width="{_WIDTH - 1}" height="{_HEIGHT - 1}" fill="none" '
        'stroke="currentColor" stroke-opacity="0.3"/>'
        f"{''.join(curves)}</svg>"
        '<div style="display:flex;justify-content:space-between;opacity:.75">'
        f"<small>0</small><small>{now.elapsed_s:.{1 if now.elapsed_s < 10 else 0}f} s</small>"
        "</div></div>"
    )


def _points(
    stretch: list[tuple[float, float, float]], now: Progress, top: float
) -> list[tuple[float, float]]:
    across = _WIDTH / max(now.elapsed_s, 1e-9)
    return [
        (at * across, _HEIGHT - value / top * (_HEIGHT - 2))
        for begin, end, value in stretch
        for at in (begin, end)
    ]


def _unbroken(
    steps: list[tuple[float, float, float | None]],
) -> list[list[tuple[float, float, float]]]:
    """Split at the gaps."""
    pieces: list[list[tuple[float, float, float]]] = [[]]
    for begin, end, value in steps:
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append((begin, end, value))
    return [piece for piece in pieces if piece]


def _stair(
    steps: list[tuple[float, float, float | None]], now: Progress, top: float, colour: str, how: str
) -> str:
    return "".join(
        f'<polyline points="{_text(_points(piece, now, top))}" fill="none" stroke="{colour}" {how}/>'
        for piece in _unbroken(steps)
    )


def _area(
    steps: list[tuple[float, float, float | None]], now: Progress, top: float, colour: str
) -> str:
    drawn = []
    for piece in _unbroken(steps):
        points = _points(piece, now, top)
        corners = [(points[0][0], _HEIGHT), *points, (points[-1][0], _HEIGHT)]
        drawn.append(f'<polygon points="{_text(corners)}" fill="{colour}" fill-opacity="0.3"/>')
    return "".join(drawn)


def _text(points: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
