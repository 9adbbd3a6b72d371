"""What a run's warnings say of its network's limits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nscontainer import units
from nscontainer.measure import records
from nscontainer.measure.rates import Stretch, net_limit

if TYPE_CHECKING:
    from nscontainer.measure.result import RunResult

AT_LIMIT: Final = 0.9
"""Of its rate: over so short a time a packet more or less shows."""
WINDOW_NS: Final = 500_000_000
"""Over how long a rate is taken: some readings of the counters, which are 100 ms apart."""
LIMITED_SHARE: Final = 0.1
"""At its rate for less than this part of the run, a limit did not set the pace."""


@dataclass(frozen=True, slots=True)
class Held:
    """How a rate held one direction."""

    direction: str
    """``rx`` or ``tx``."""
    at_limit_s: float
    bps: int
    dropped: int | None
    """Packets that the full queue lost; None where nobody counted."""

    @property
    def message(self) -> str:
        """One line, with what was lost on the way."""
        verb = "received" if self.direction == "rx" else "sent"
        text = (
            f"{verb} at its network limit of {units.format_bit_rate(self.bps)} for "
            f"{units.format_seconds(self.at_limit_s)}: that set its pace"
        )
        lost = f"; its full queue lost {self.dropped} packets, as a slow line's would"
        return text + (lost if self.dropped else "")


def held(run: RunResult) -> Iterator[Held]:
    """Give the directions whose rate set the pace for a good part of the run."""
    counts: Mapping[str, Any] = run.record["network_shaping"] or {}
    for direction in ("rx", "tx"):
        found = net_limit(run.record, run.samples, run.limits, f"{direction}_bps")
        at_limit = list(_at_limit(run, direction, found))
        at_limit_s = sum(ns for ns, _ in at_limit) / records.NS_PER_S
        if at_limit_s >= max(LIMITED_SHARE * run.wall_s, WINDOW_NS / records.NS_PER_S):
            count = counts.get(direction)
            dropped = count.get("dropped") if isinstance(count, dict) else None
            dropped = dropped if isinstance(dropped, int) else None
            yield Held(direction, at_limit_s, at_limit[-1][1], dropped)


def _at_limit(run: RunResult, direction: str, limits: list[Stretch]) -> Iterator[tuple[int, int]]:
    """Give the windows in which it was at its limit: how long each in ns, and the limit."""
    if all(bps is None for _, _, bps in limits):
        return
    for (begin, low), (end, high) in itertools.pairwise(_marks(run, f"net.{direction}_bytes")):
        middle = (begin + end) / 2 / records.NS_PER_S
        bps = next((bps for since, until, bps in limits if since <= middle <= until), None)
        if bps and (high - low) * 8e9 / (end - begin) >= AT_LIMIT * bps:
            yield end - begin, int(bps)


def _marks(run: RunResult, column: str) -> Iterator[tuple[int, int]]:
    """Give points at which the counter was read: the rows between two readings repeat the first."""
    at = records.times(run.record, run.samples)
    values = records.series(run.record, run.samples, column)
    last_ns, last = -WINDOW_NS, -1
    for ns, value in zip(at, values, strict=True):
        if value is not None and value != last:
            last = value
            if ns - last_ns >= WINDOW_NS:
                last_ns = ns
                yield ns, value
