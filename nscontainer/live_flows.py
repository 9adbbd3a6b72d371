"""Disk and network of a run that isn't over yet: rates between whole readings. Standard library only."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nscontainer import units
from nscontainer.measure.text import byte_rate
from nscontainer.schema import INDEX, NA, ROW_PREFIX

if TYPE_CHECKING:
    import array

    from nscontainer.limits import Limits

_COLUMNS: Final = ("blkio.read_bytes", "blkio.write_bytes", "net.rx_bytes", "net.tx_bytes")
_FIELDS: Final = tuple(INDEX[name] + ROW_PREFIX for name in _COLUMNS)
_LEAST_NS: Final = 190_000_000
"""Between two marks: whole readings come each 100 ms, a little late or early."""
_IDLE_NS: Final = 400_000_000
"""After so long without news nothing was moved: the rows between whole readings say no more."""
_NOW_NS: Final = 1_000_000_000
_MOST: Final = 240

Step = tuple[float, float, float | None]
"""From and to in s, and a figure."""


@dataclass(frozen=True, slots=True)
class _Mark:
    at_ns: int
    counters: tuple[int, ...]
    limits: tuple[int | None, ...]


class Flows:
    """Keeps where the counters of disk and network stood, at most :data:`_MOST` times.

    A rate is from one whole reading to another. Readings in which nothing is new are told from rows
    between readings by waiting.
    """

    def __init__(self) -> None:
        self._marks: list[_Mark] = []
        self._last: tuple[int, ...] = ()
        self._limits: tuple[int | None, ...] = (None,) * 4
        self._least_ns = _LEAST_NS

    def limit(self, limits: Limits) -> None:
        """Note the limits from now on; of several disks the tightest."""
        found: list[int | None] = []
        for way in ("read", "write"):
            devices = [device.rate for device in getattr(limits, f"device_{way}_bps")]
            asked = [getattr(limits, f"disk_{way}_bps"), *devices]
            found.append(min((r for r in asked if r is not None and r >= 0), default=None))
        network = (limits.net_rx_bps, limits.net_tx_bps)
        found += [None if rate is None or rate < 0 else rate // 8 for rate in network]
        self._limits = tuple(found)

    def take(self, row: array.array[int]) -> None:
        """Take a row."""
        counters = tuple(row[field] for field in _FIELDS)
        news, self._last = counters != self._last, counters
        if self._marks:
            since = row[0] - self._marks[-1].at_ns
            if since < (self._least_ns if news else max(_IDLE_NS, self._least_ns)):
                return
        self._marks.append(_Mark(row[0], counters, self._limits))
        if len(self._marks) > _MOST:
            self._marks = self._marks[::2]
            self._least_ns *= 2

    def limited(self, name: str) -> bool:
        """Whether a direction has or had a limit."""
        at = _COLUMNS.index(name)
        return self._limits[at] is not None or any(m.limits[at] is not None for m in self._marks)

    def steps(self, name: str) -> list[Step]:
        """Give a direction's rate, in bytes a second, from mark to mark."""
        at = _COLUMNS.index(name)
        return [
            (a.at_ns / 1e9, b.at_ns / 1e9, _rate(a, b, at))
            for a, b in itertools.pairwise(self._marks)
        ]

    def limits(self, name: str) -> list[Step]:
        """Give its limit likewise."""
        at = _COLUMNS.index(name)
        return [
            (a.at_ns / 1e9, b.at_ns / 1e9, b.limits[at]) for a, b in itertools.pairwise(self._marks)
        ]

    def now(self, name: str) -> float | None:
        """Give a direction's rate over the last second."""
        if len(self._marks) < 2:
            return None
        newest = self._marks[-1]
        before = next(
            (m for m in reversed(self._marks) if newest.at_ns - m.at_ns >= _NOW_NS), self._marks[0]
        )
        return _rate(before, newest, _COLUMNS.index(name))

    def parts(self) -> list[str]:
        """Say how what is limited gets on, as ``written 4.9 MiB/s of 5 MiB/s``."""
        said = []
        for name, (title, text, scale) in SHOWN.items():
            rate, limit = self.now(name), self._limits[_COLUMNS.index(name)]
            if rate is not None and limit is not None:
                now = text(float(f"{rate * scale:.3g}"))
                said.append(f"{title} {now} of {text(limit * scale)}")
        return said


def _rate(a: _Mark, b: _Mark, at: int) -> float | None:
    if NA in (a.counters[at], b.counters[at]) or b.at_ns <= a.at_ns:
        return None
    return (b.counters[at] - a.counters[at]) / (b.at_ns - a.at_ns) * 1e9


SHOWN: Final = {
    "blkio.read_bytes": ("disk read", byte_rate, 1.0),
    "blkio.write_bytes": ("disk written", byte_rate, 1.0),
    "net.rx_bytes": ("network in", units.format_bit_rate, 8.0),
    "net.tx_bytes": ("network out", units.format_bit_rate, 8.0),
}
"""How each direction is called, and how a rate of it is said."""
PANELS: Final = (("blkio.read_bytes", "blkio.write_bytes"), ("net.rx_bytes", "net.tx_bytes"))
