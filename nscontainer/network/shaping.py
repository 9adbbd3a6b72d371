"""A container's network speed: rate, delay and loss of each direction.

Both directions are held in the host's network namespace, where nothing the container does can reach:

- what it receives is what the host's end of its pair of interfaces sends;
- what it sends goes from there through an ``ifb``, and only then on. A queue on the container's own
  ``eth0`` would be simpler, but a packet socket may go around it (PACKET_QDISC_BYPASS in packet(7)
  needs no more than CAP_NET_RAW, which a container has by default, as in Docker).

The figures are ADR 0023's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nscontainer.errors import HostError
from nscontainer.linux import tc
from nscontainer.linux.rtnetlink import RtNetlink
from nscontainer.linux.tc import Netem, Qdisc, Tbf
from nscontainer.network import bridge

if TYPE_CHECKING:
    from nscontainer.limits import Limits

BURST_S: Final = 0.010
"""What may go at once after a pause: longer than a timer is late on a busy machine."""
QUEUE_S: Final = 0.100
"""How long a packet waits at most before the queue is full and the next one is lost."""
LEAST_BURST: Final = 3200
"""Two Ethernet frames with their headers: a packet larger than the burst could never be sent."""
LEAST_QUEUE: Final = 16_000
"""Ten frames, TCP's first window: at a low rate that is longer than :data:`QUEUE_S`."""
FRAME: Final = 1514
UNDER_WAY: Final = 10_000
"""Packets in a delay that no rate bounds."""
_MOST: Final = (1 << 32) - 1
_TBF_HANDLE: Final = 0x1_0000
_NETEM_HANDLE: Final = 0x2_0000
_NETEM_CLASS: Final = 0x2_0001

LIMITS: Final = ("net_rx_bps", "net_tx_bps", "net_delay_s", "net_loss")


@dataclass(frozen=True, slots=True)
class Pipe:
    """One direction: what holds it, None for what does not."""

    tbf: Tbf | None = None
    netem: Netem | None = None

    @property
    def shape(self) -> tuple[bool, bool]:
        """Which queues it has: one inside the other where there are two."""
        return self.tbf is not None, self.netem is not None


def bucket(rate_bps: int) -> Tbf:
    """Give the bucket for a rate in bits a second."""
    rate = max(1, rate_bps // 8)
    burst = min(max(LEAST_BURST, round(rate * BURST_S)), _MOST // 64)
    return Tbf(rate, burst, min(max(LEAST_QUEUE, burst + round(rate * QUEUE_S)), _MOST))


def pipe(rate_bps: int | None, delay_s: float | None, loss: float | None) -> Pipe:
    """Give what holds a direction; a rate of None or -1, and a delay or loss of 0, is no limit."""
    tbf = None if rate_bps is None or rate_bps < 0 else bucket(rate_bps)
    if not delay_s and not loss:
        return Pipe(tbf)
    under_way = UNDER_WAY
    if tbf is not None:
        # Packets come into the delay before the rate holds them: twice what the rate lets through.
        under_way = 1000 + math.ceil(2 * tbf.rate_bytes * (delay_s or 0.0) / FRAME)
    return Pipe(tbf, Netem(delay_s or 0.0, loss or 0.0, min(under_way, 1_000_000)))


def check_host(netlink: RtNetlink, limits: Limits) -> None:
    """Refuse what this Linux has no queue for, before anything is made.

    Raises
    ------
    HostError
        There is no netem, or no tbf.
    """
    for kind, options in (
        ("tbf", {"net-rate": (limits.net_rx_bps or 0) > 0 or (limits.net_tx_bps or 0) > 0}),
        ("netem", {"net-delay": bool(limits.net_delay_s), "net-loss": bool(limits.net_loss)}),
    ):
        asked = [name for name, is_asked in options.items() if is_asked]
        if asked and not tc.known(netlink, kind):
            message = f"{' and '.join(asked)} can't be done: this Linux has no {kind}"
            raise HostError(
                message,
                hint=f"modprobe sch_{kind}, or a Linux with CONFIG_NET_SCH_{kind.upper()}",
            )


class Shaping:
    """What holds the traffic of one container. Make it in the host's network namespace.

    Parameters
    ----------
    index
        The host's end of the container's pair of interfaces.
    ifb
        A name for the interface that what it sends goes through: made when needed, and removed by who
        removes the pair.
    """

    def __init__(self, index: int, ifb: str) -> None:
        self._netlink = RtNetlink()
        self._index = index
        self._ifb = ifb
        self._ifb_index = 0
        self._rx = self._tx = Pipe()

    def arm(self, limits: Limits) -> None:
        """Hold the traffic to limits from now on, whatever held it before.

        Raises
        ------
        HostError
            This Linux has no queue for one of them.
        """
        rx = pipe(limits.net_rx_bps, limits.net_delay_s, limits.net_loss)
        tx = pipe(limits.net_tx_bps, limits.net_delay_s, limits.net_loss)
        if rx != self._rx or tx != self._tx:
            check_host(self._netlink, limits)
        if rx != self._rx:
            self._put(self._index, self._rx, rx)
            self._rx = rx
        if tx != self._tx:
            self._hold_sent(tx)
            self._tx = tx

    def _hold_sent(self, tx: Pipe) -> None:
        if tx == Pipe():
            tc.redirect_no_more(self._netlink, self._index)
            self._put(self._ifb_index, self._tx, tx)
            return
        if not self._ifb_index:
            self._ifb_index = self._make_ifb()
        first = self._tx == Pipe()
        self._put(self._ifb_index, self._tx, tx)
        if first:
            self._netlink.set_up(self._ifb_index)  # a queue is put on faster before
            tc.redirect_received(self._netlink, self._index, self._ifb_index)

    def _make_ifb(self) -> int:
        try:
            index = tc.add_ifb(self._netlink, self._ifb)
        except OSError as error:
            message = f"what it sends can't be limited: {error}"
            raise HostError(message, hint="modprobe ifb, or a Linux with CONFIG_IFB") from None
        bridge.no_ipv6(self._ifb)
        return index

    def _put(self, index: int, now: Pipe, wanted: Pipe) -> None:
        """Change a queue where it stays of its kind, so that what waits in it is not lost."""
        if now != Pipe() and now.shape != wanted.shape:
            tc.remove(self._netlink, index)
        parent = tc.TC_H_ROOT
        if wanted.netem is not None:
            tc.put_netem(self._netlink, index, wanted.netem, parent=parent, handle=_NETEM_HANDLE)
            parent = _NETEM_CLASS
        if wanted.tbf is not None:
            tc.put_tbf(self._netlink, index, wanted.tbf, parent=parent, handle=_TBF_HANDLE)

    def _directions(self) -> Iterator[tuple[str, list[Qdisc]]]:
        yield "rx", tc.queues(self._netlink, self._index)
        yield "tx", tc.queues(self._netlink, self._ifb_index) if self._ifb_index else []

    def read_back(self) -> dict[str, Any]:
        """Give the limits as Linux has them, named as those asked; -1 and 0 are none.

        A delay or a loss is the lesser of the two directions': both were asked for.
        """
        rates: dict[str, int] = {}
        delays, losses = [], []
        for direction, queues in self._directions():
            settings = [queue.settings for queue in queues]
            rates[direction] = next((s.rate_bytes * 8 for s in settings if isinstance(s, Tbf)), -1)
            netem = next((s for s in settings if isinstance(s, Netem)), None)
            delays.append(0.0 if netem is None else netem.delay_s)
            losses.append(0.0 if netem is None else netem.loss)
        return {
            "net_rx_bps": rates["rx"],
            "net_tx_bps": rates["tx"],
            "net_delay_s": min(delays),
            "net_loss": round(min(losses), 9),
        }

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Give, of each direction, how many packets the queues lost, and how often one had to wait."""
        return {
            direction: {
                "dropped": sum(queue.dropped for queue in queues[:1]),
                "waited": sum(queue.overlimits for queue in queues),
            }
            for direction, queues in self._directions()
        }

    def close(self) -> None:
        """Let go of the socket; the queues go with the interfaces."""
        self._netlink.close()
