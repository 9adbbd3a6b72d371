"""What a run has moved to and from disks and the network, in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nscontainer import units
from nscontainer.measure import rates
from nscontainer.measure.text import byte_rate, decimal_size, size

if TYPE_CHECKING:
    from nscontainer.measure.rates import Stretch
    from nscontainer.measure.result import RunResult

_WORTH_BYTES: Final = 1_000_000
"""Where no limit was asked, less is not worth a word: a program's own file, a name looked up."""


@dataclass(frozen=True, slots=True)
class Direction:
    """One way of bytes."""

    what: str
    column: str
    verb: str
    row: str
    """The name of its limit among :meth:`RunLimits.rows`."""
    limit: Callable[[RunResult], list[Stretch]]
    amount: Callable[[float], str]
    rate: Callable[[float], str]
    """Of bytes a second."""
    scale: float = 1.0
    """From bytes to the limit's unit."""


def _disk(of: str) -> Callable[[RunResult], list[Stretch]]:
    return lambda run: rates.disk_limit(run.record, run.samples, run.limits, of)


def _net(of: str) -> Callable[[RunResult], list[Stretch]]:
    return lambda run: rates.net_limit(run.record, run.samples, run.limits, of)


DIRECTIONS: Final = (
    Direction(
        "disk", "blkio.read_bytes", "read", "disk_read_bps", _disk("read_bps"), size, byte_rate
    ),
    Direction(
        "disk", "blkio.write_bytes", "written", "disk_write_bps", _disk("write_bps"), size, byte_rate
    ),
    Direction(
        "network", "net.rx_bytes", "in", "net_rx_bps", _net("rx_bps"),
        decimal_size, units.format_bit_rate, 8.0,
    ),
    Direction(
        "network", "net.tx_bytes", "out", "net_tx_bps", _net("tx_bps"),
        decimal_size, units.format_bit_rate, 8.0,
    ),
)  # fmt: skip


def parts(run: RunResult) -> list[str]:
    """Say ``disk 50 MiB written, 5.0 MiB/s of 5 MiB/s`` and the like, where there is something to say."""
    said: dict[str, list[str]] = {}
    for direction in DIRECTIONS:
        limits = {value for _, _, value in direction.limit(run)}
        total = run.totals[direction.column]
        if total is not None and (limits != {None} or total >= _WORTH_BYTES):
            said.setdefault(direction.what, []).append(_moved(run, direction, total, limits))
    return [f"{what} {', '.join(texts)}" for what, texts in said.items()]


def had(run: RunResult, row: str) -> str | None:
    """Say what a limit of disk or network was used for, for the card's table."""
    for direction in DIRECTIONS:
        total = run.totals[direction.column]
        if direction.row == row and total is not None:
            return _moved(run, direction, total, set()).replace(f" {direction.verb}", "")
    return None


def _moved(run: RunResult, direction: Direction, total: float, limits: set[float | None]) -> str:
    text = f"{direction.amount(total)} {direction.verb}"
    if not total or not run.wall_s:
        return text
    text += f" at {direction.rate(float(f'{total * direction.scale / run.wall_s:.3g}'))}"
    (limit,) = limits if len(limits) == 1 else (None,)
    return text if limit is None else f"{text} of {direction.rate(limit)}"
