"""Traffic control: the queue that an interface sends from (tc(8), tc-tbf(8), tc-netem(8)).

Two kinds: ``tbf``, a rate by a bucket of tokens, and ``netem``, delay and loss. And, since a queue is only
for what an interface *sends*, the way by which what one receives becomes what another sends: an ``ifb``.
Names are those of linux/rtnetlink.h and linux/pkt_sched.h.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nscontainer.linux import rtnetlink
from nscontainer.linux.rtnetlink import attr, attributes, nest

if TYPE_CHECKING:
    from nscontainer.linux.rtnetlink import RtNetlink

RTM_NEWQDISC: Final = 36
RTM_DELQDISC: Final = 37
RTM_GETQDISC: Final = 38
RTM_NEWTFILTER: Final = 44
TC_H_ROOT: Final = 0xFFFFFFFF
TC_H_INGRESS: Final = 0xFFFFFFF1
INGRESS_HANDLE: Final = 0xFFFF0000
TCA_KIND: Final = 1
TCA_OPTIONS: Final = 2
TCA_STATS2: Final = 7
TCA_STATS_BASIC: Final = 1
TCA_STATS_QUEUE: Final = 3
TCA_TBF_PARMS: Final = 1
TCA_TBF_RATE64: Final = 4
TCA_TBF_BURST: Final = 6
TC_LINKLAYER_ETHERNET: Final = 1
TCA_NETEM_LATENCY64: Final = 10
TCA_U32_CLASSID: Final = 1
TCA_U32_SEL: Final = 5
TCA_U32_ACT: Final = 7
TC_U32_TERMINAL: Final = 1
TCA_ACT_KIND: Final = 1
TCA_ACT_OPTIONS: Final = 2
TCA_MIRRED_PARMS: Final = 2
TCA_EGRESS_REDIR: Final = 1
TC_ACT_STOLEN: Final = 4
ETH_P_ALL: Final = 3
_PRIORITY: Final = 1 << 16
_TICK_NS: Final = 64
"""PSCHED_SHIFT in net/pkt_sched.h: the unit of netem's delay."""
_ALL: Final = 0xFFFFFFFF

_TCMSG: Final = struct.Struct("=BxxxiIII")
# struct tc_ratespec (twice: rate and peak rate), then limit, buffer, mtu of struct tc_tbf_qopt
_RATESPEC: Final = struct.Struct("=BBHhHI")
_TBF_REST: Final = struct.Struct("=III")
# struct tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter
_NETEM: Final = struct.Struct("=6I")
# struct tc_u32_sel without keys, with its padding; struct tc_mirred
_U32_SEL: Final = struct.Struct("=BBBxHHhhI")
_MIRRED: Final = struct.Struct("=IIiiiiI")
# struct gnet_stats_queue: qlen, backlog, drops, requeues, overlimits
_QUEUE: Final = struct.Struct("=5I")


@dataclass(frozen=True, slots=True)
class Tbf:
    """A bucket of tokens: ``rate`` on the average, ``burst`` at once, ``limit`` waiting.

    A packet larger than the burst is cut up where it is one of Linux's own making (GSO), else it is
    dropped (tbf_segment() in net/sched/sch_tbf.c).
    """

    rate_bytes: int
    """A second; as Linux counts it, with the Ethernet header."""
    burst_bytes: int
    limit_bytes: int


@dataclass(frozen=True, slots=True)
class Netem:
    """A delay of each packet, the loss of some (0 to 1), and how many may be under way."""

    delay_s: float
    loss: float
    limit_packets: int


@dataclass(frozen=True, slots=True)
class Qdisc:
    """A queue as Linux has it. ``settings`` is None for a kind that is none of ours."""

    kind: str
    handle: int
    parent: int
    settings: Tbf | Netem | None
    dropped: int
    overlimits: int
    backlog_bytes: int


def known(netlink: RtNetlink, kind: str) -> bool:
    """Tell whether this Linux has a kind of queue (it may load a module for it); makes nothing.

    Linux looks the kind up (ENOENT) before it reads the settings (none: EINVAL), in qdisc_create().
    With all three flags it goes there even if the loopback has a queue of this kind already.
    """
    body = _message(_LOOPBACK, TC_H_ROOT, 0, kind)
    flags = rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_REPLACE | rtnetlink.NLM_F_EXCL
    try:
        netlink.request("RTM_NEWQDISC", RTM_NEWQDISC, body, flags, kind)
    except OSError as error:
        return error.errno != errno.ENOENT
    message = f"{kind} without settings was taken"  # none of tbf and netem
    raise AssertionError(message)


_LOOPBACK: Final = 1


def put_tbf(netlink: RtNetlink, index: int, tbf: Tbf, *, parent: int, handle: int) -> None:
    """Send by a rate, from now on; one that is there already is changed, and its queue stays."""
    # The 32 bits that older programs read; rate64 counts wherever they are too few.
    short = min(tbf.rate_bytes, _ALL)
    options = [
        attr(
            TCA_TBF_PARMS,
            _RATESPEC.pack(0, TC_LINKLAYER_ETHERNET, 0, 0, 0, short)
            + bytes(_RATESPEC.size)
            + _TBF_REST.pack(tbf.limit_bytes, 0, 0),
        ),
        attr(TCA_TBF_BURST, tbf.burst_bytes),
    ]
    if tbf.rate_bytes > _ALL:
        options.append(attr(TCA_TBF_RATE64, struct.pack("=Q", tbf.rate_bytes)))
    _put(netlink, index, "tbf", parent, handle, b"".join(options))


def put_netem(netlink: RtNetlink, index: int, netem: Netem, *, parent: int, handle: int) -> None:
    """Delay and lose packets, from now on."""
    delay_ns = round(netem.delay_s * 1e9)
    loss = round(netem.loss * _ALL)
    settings = _NETEM.pack(
        min(delay_ns // _TICK_NS, _ALL), netem.limit_packets, loss, 0, 0, 0
    ) + attr(TCA_NETEM_LATENCY64, struct.pack("=q", delay_ns))
    _put(netlink, index, "netem", parent, handle, settings)


def _put(
    netlink: RtNetlink, index: int, kind: str, parent: int, handle: int, settings: bytes
) -> None:
    body = _message(index, parent, handle, kind) + attr(TCA_OPTIONS, settings)
    flags = rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_REPLACE
    netlink.request("RTM_NEWQDISC", RTM_NEWQDISC, body, flags, kind)


def remove(netlink: RtNetlink, index: int, *, parent: int = TC_H_ROOT) -> bool:
    """Take a queue away, with what waits in it; False where Linux's own is there."""
    try:
        netlink.request("RTM_DELQDISC", RTM_DELQDISC, _message(index, parent, 0), about="queue")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL):
            return False
        raise
    return True


def queues(netlink: RtNetlink, index: int) -> list[Qdisc]:
    """List an interface's queues, the outer one first; those that Linux itself gave it left out."""
    found = []
    # A dump is of every interface's: Linux knows no other way to the inner ones.
    for body in netlink.dump("RTM_GETQDISC", RTM_GETQDISC, _message(index, 0, 0)):
        _, of, handle, parent, _ = _TCMSG.unpack_from(body)
        if of == index and handle:
            found.append(_queue(handle, parent, dict(attributes(body, _TCMSG.size))))
    return sorted(found, key=lambda queue: queue.parent != TC_H_ROOT)


def _queue(handle: int, parent: int, given: dict[int, bytes]) -> Qdisc:
    kind = given.get(TCA_KIND, b"").rstrip(b"\0").decode(errors="replace")
    counts = dict(attributes(given.get(TCA_STATS2, b""))).get(TCA_STATS_QUEUE, bytes(_QUEUE.size))
    _, backlog, dropped, _, overlimits = _QUEUE.unpack_from(counts)
    options = given.get(TCA_OPTIONS, b"")
    settings: Tbf | Netem | None = None
    if kind == "tbf":
        settings = _tbf(dict(attributes(options)))
    elif kind == "netem":
        settings = _netem(options)
    return Qdisc(kind, handle, parent, settings, dropped, overlimits, backlog)


def _tbf(given: dict[int, bytes]) -> Tbf:
    parms = given[TCA_TBF_PARMS]
    rate = _RATESPEC.unpack_from(parms)[5]
    if TCA_TBF_RATE64 in given:
        rate = struct.unpack("=Q", given[TCA_TBF_RATE64])[0]
    limit, ticks, _ = _TBF_REST.unpack_from(parms, 2 * _RATESPEC.size)
    return Tbf(rate, round(ticks * _TICK_NS * rate / 1e9), limit)


def _netem(options: bytes) -> Netem:
    ticks, limit, loss, *_ = _NETEM.unpack_from(options)
    delay_ns = ticks * _TICK_NS
    exact = dict(attributes(options, _NETEM.size)).get(TCA_NETEM_LATENCY64)
    if exact is not None:
        delay_ns = struct.unpack("=q", exact)[0]
    return Netem(delay_ns / 1e9, loss / _ALL, limit)


# --- what is received ------------------------------------------------------------------------


def add_ifb(netlink: RtNetlink, name: str) -> int:
    """Make an interface that gives back what it is sent, down; its index.

    Raises
    ------
    KernelError
        EOPNOTSUPP: this Linux has none.
    """
    info = nest(rtnetlink.IFLA_LINKINFO, attr(rtnetlink.IFLA_INFO_KIND, "ifb"))
    body = _IFINFO.pack(0, 0, 0, 0, 0) + attr(rtnetlink.IFLA_IFNAME, name) + info
    flags = rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_EXCL
    netlink.request("RTM_NEWLINK", rtnetlink.RTM_NEWLINK, body, flags, name)
    link = netlink.link(name)
    assert link is not None
    return link.index


_IFINFO: Final = struct.Struct("=BxHiII")


def redirect_received(netlink: RtNetlink, index: int, to: int) -> None:
    """Send all that an interface receives through another's queue, and only then up the stack.

    By a u32 filter without keys, which takes every packet: matchall is newer and not everywhere.
    """
    _put_ingress(netlink, index)
    mirred = nest(
        1,
        attr(TCA_ACT_KIND, "mirred"),
        nest(
            TCA_ACT_OPTIONS,
            attr(
                TCA_MIRRED_PARMS,
                _MIRRED.pack(0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, to),
            ),
        ),
    )
    options = nest(
        TCA_OPTIONS,
        attr(TCA_U32_CLASSID, 0x10001),
        attr(TCA_U32_SEL, _U32_SEL.pack(TC_U32_TERMINAL, 0, 0, 0, 0, 0, 0, 0)),
        nest(TCA_U32_ACT, mirred),
    )
    info = _PRIORITY | struct.unpack("=H", struct.pack("!H", ETH_P_ALL))[0]
    body = _TCMSG.pack(0, index, 0, INGRESS_HANDLE, info) + attr(TCA_KIND, "u32") + options
    flags = rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_EXCL
    netlink.request("RTM_NEWTFILTER", RTM_NEWTFILTER, body, flags, "u32")


def _put_ingress(netlink: RtNetlink, index: int) -> None:
    body = _message(index, TC_H_INGRESS, INGRESS_HANDLE, "ingress")
    flags = rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_EXCL
    netlink.request("RTM_NEWQDISC", RTM_NEWQDISC, body, flags, "ingress")


def redirect_no_more(netlink: RtNetlink, index: int) -> bool:
    """Let what an interface receives up the stack at once again; False where it did so already."""
    return remove(netlink, index, parent=TC_H_INGRESS)


def _message(index: int, parent: int, handle: int, kind: str = "") -> bytes:
    message = _TCMSG.pack(0, index, handle, parent, 0)
    return message + attr(TCA_KIND, kind) if kind else message
