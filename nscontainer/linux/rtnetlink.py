"""rtnetlink: links, addresses, routes and counters of a network namespace (rtnetlink(7)).

Synchronous and small: a request, its acknowledgement. A socket belongs for good to the network
namespace that its maker was in: make one in another by :func:`nscontainer.linux.net.within`. Names are those of
linux/rtnetlink.h and linux/if_link.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from nscontainer.linux.syscalls import kernel_error

SOL_NETLINK: Final = 270
NETLINK_CAP_ACK: Final = 10
NETLINK_EXT_ACK: Final = 11
NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_DUMP: Final = 0x300
NLM_F_CREATE: Final = 0x400
NLM_F_ACK_TLVS: Final = 0x200
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLMSGERR_ATTR_MSG: Final = 1
NLA_F_NESTED: Final = 0x8000
NLA_TYPE_MASK: Final = 0x3FFF

RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_NEWADDR: Final = 20
RTM_NEWROUTE: Final = 24
RTM_GETSTATS: Final = 94

IFLA_ADDRESS: Final = 1
IFLA_IFNAME: Final = 3
IFLA_MTU: Final = 4
IFLA_MASTER: Final = 10
IFLA_LINKINFO: Final = 18
IFLA_NET_NS_FD: Final = 28
IFLA_INFO_KIND: Final = 1
IFLA_INFO_DATA: Final = 2
IFLA_BR_MCAST_SNOOPING: Final = 23
VETH_INFO_PEER: Final = 1
IFLA_STATS_LINK_64: Final = 1
IFA_ADDRESS: Final = 1
IFA_LOCAL: Final = 2
IFA_BROADCAST: Final = 4
RTA_OIF: Final = 4
RTA_GATEWAY: Final = 5
RT_TABLE_MAIN: Final = 254
RT_SCOPE_UNIVERSE: Final = 0
RTPROT_BOOT: Final = 3
RTN_UNICAST: Final = 1
IFF_UP: Final = 1

_HEADER: Final = struct.Struct("=IHHII")
_ATTR: Final = struct.Struct("=HH")
_IFINFO: Final = struct.Struct("=BxHiII")
_IFADDR: Final = struct.Struct("=BBBBI")
_RTMSG: Final = struct.Struct("=BBBBBBBBI")
_STATSMSG: Final = struct.Struct("=BxHII")
# struct rtnl_link_stats64: rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors,
# rx_dropped, tx_dropped, …
_STATS64: Final = struct.Struct("=8Q")
_STATS_AT: Final = _HEADER.size + _STATSMSG.size + _ATTR.size
_ROOM: Final = 65536


def attr(kind: int, value: bytes | int | str) -> bytes:
    """Make an attribute: of bytes, of an unsigned 32-bit number, or of a text with its NUL."""
    if isinstance(value, int):
        value = struct.pack("=I", value)
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    return _ATTR.pack(_ATTR.size + len(value), kind) + value + bytes(-len(value) % 4)


def nest(kind: int, *attributes: bytes) -> bytes:
    """Make an attribute that holds others."""
    return attr(kind | NLA_F_NESTED, b"".join(attributes))


def attributes(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Take attributes apart, from an offset on: kind and value of each."""
    while offset + _ATTR.size <= len(data):
        length, kind = _ATTR.unpack_from(data, offset)
        if length < _ATTR.size:
            return
        yield kind & NLA_TYPE_MASK, data[offset + _ATTR.size : offset + length]
        offset += length + -length % 4


@dataclass(frozen=True, slots=True)
class Link:
    """One interface."""

    index: int
    name: str
    kind: str
    """As ``bridge`` or ``veth``; empty for a real device."""
    master: int
    """The index of the bridge it is a port of; 0: none."""
    up: bool


class LinkStats(NamedTuple):
    """An interface's counters, as its own namespace sees them."""

    rx_bytes: int
    tx_bytes: int
    rx_dropped: int
    tx_dropped: int


class RtNetlink:
    """A socket to the routing part of one network namespace: the one its maker is in.

    Parameters
    ----------
    made
        Such a socket, of :meth:`new`, that was made in another namespace.
    """

    def __init__(self, made: socket.socket | None = None) -> None:
        self._socket = self.new() if made is None else made
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._seq = 0

    @staticmethod
    def new() -> socket.socket:
        """Make the socket alone."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        return socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it: with the last one, and the last process, its namespace ends."""
        self._socket.close()

    def fileno(self) -> int:
        """Give the socket's fd."""
        return self._socket.fileno()

    # --- transport ---------------------------------------------------------------------------

    def request(self, op: str, kind: int, body: bytes, flags: int = 0, about: str = "") -> None:
        """Have something done, and wait until it is.

        Parameters
        ----------
        op, about
            For the error: the message's name, and what it is about.

        Raises
        ------
        KernelError
            Linux refused; with its own words where it has any.
        """
        for _ in self._ask(op, kind, body, flags | NLM_F_ACK, about):
            pass

    def dump(self, op: str, kind: int, body: bytes) -> Iterator[bytes]:
        """List all there are: the body of each answer, from behind the netlink header."""
        return self._ask(op, kind, body, NLM_F_DUMP, "")

    def _ask(self, op: str, kind: int, body: bytes, flags: int, about: str) -> Iterator[bytes]:
        self._seq += 1
        size = _HEADER.size + len(body)
        try:
            self._socket.send(_HEADER.pack(size, kind, NLM_F_REQUEST | flags, self._seq, 0) + body)
            yield from self._answers(op, about)
        except OSError as error:
            if hasattr(error, "op"):
                raise
            raise kernel_error(error.errno or 0, op, about or None) from None

    def _answers(self, op: str, about: str) -> Iterator[bytes]:
        while True:
            data, offset = self._socket.recv(_ROOM), 0
            while offset + _HEADER.size <= len(data):
                length, kind, flags, seq, _ = _HEADER.unpack_from(data, offset)
                body = data[offset + _HEADER.size : offset + length]
                offset += length + -length % 4
                if seq != self._seq:
                    continue  # what is left of a dump that nobody read to its end
                if kind == NLMSG_ERROR:
                    _raise_if_error(op, about, body, flags)
                    return
                if kind == NLMSG_DONE:
                    return
                yield body

    # --- links -------------------------------------------------------------------------------

    def add_bridge(self, name: str, mac: bytes) -> None:
        """Make a bridge, down. Its MAC is set, so that it doesn't change with its ports."""
        info = nest(
            IFLA_LINKINFO,
            attr(IFLA_INFO_KIND, "bridge"),
            # Nothing on it speaks IGMP to a querier: without, Linux has less to do for a packet.
            nest(IFLA_INFO_DATA, attr(IFLA_BR_MCAST_SNOOPING, b"\0")),
        )
        body = _IFINFO.pack(0, 0, 0, 0, 0) + attr(IFLA_IFNAME, name) + attr(IFLA_ADDRESS, mac)
        self.request("RTM_NEWLINK", RTM_NEWLINK, body + info, NLM_F_CREATE | NLM_F_EXCL, name)

    def add_veth(
        self, name: str, peer: str, peer_netns: int, peer_mac: bytes, *, master: int = 0
    ) -> None:
        """Make a pair of interfaces, down: one here, its peer in another namespace.

        Neither can be up from the beginning: veth_open() needs the pair whole (drivers/net/veth.c).

        Parameters
        ----------
        peer_netns
            The fd of the network namespace that ``peer`` is made in.
        master
            The bridge, by its index, that ``name`` becomes a port of.
        """
        there = (
            _IFINFO.pack(0, 0, 0, 0, 0)
            + attr(IFLA_IFNAME, peer)
            + attr(IFLA_ADDRESS, peer_mac)
            + attr(IFLA_NET_NS_FD, peer_netns)
        )
        info = nest(
            IFLA_LINKINFO,
            attr(IFLA_INFO_KIND, "veth"),
            nest(IFLA_INFO_DATA, attr(VETH_INFO_PEER, there)),
        )
        body = _IFINFO.pack(0, 0, 0, 0, 0) + attr(IFLA_IFNAME, name) + info
        if master:
            body += attr(IFLA_MASTER, master)
        self.request("RTM_NEWLINK", RTM_NEWLINK, body, NLM_F_CREATE | NLM_F_EXCL, name)

    def set_up(self, index: int) -> None:
        """Bring an interface up."""
        body = _IFINFO.pack(0, 0, index, IFF_UP, IFF_UP)
        self.request("RTM_NEWLINK", RTM_NEWLINK, body, about=f"interface {index}")

    def delete_link(self, name: str) -> bool:
        """Remove an interface; a veth's peer goes with it. False where there is none."""
        body = _IFINFO.pack(0, 0, 0, 0, 0) + attr(IFLA_IFNAME, name)
        try:
            self.request("RTM_DELLINK", RTM_DELLINK, body, about=name)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return False
            raise
        return True

    def link(self, name: str) -> Link | None:
        """Find an interface by its name."""
        body = _IFINFO.pack(0, 0, 0, 0, 0) + attr(IFLA_IFNAME, name)
        try:
            found = [
                _link(one) for one in self._ask("RTM_GETLINK", RTM_GETLINK, body, NLM_F_ACK, name)
            ]
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        return found[0] if found else None

    def links(self) -> list[Link]:
        """List the interfaces."""
        body = _IFINFO.pack(0, 0, 0, 0, 0)
        return [_link(one) for one in self.dump("RTM_GETLINK", RTM_GETLINK, body)]

    def stats(self, index: int) -> LinkStats:
        """Read an interface's counters: one request, one answer, the way of every sample."""
        self._seq += 1
        body = _STATSMSG.pack(0, 0, index, 1 << (IFLA_STATS_LINK_64 - 1))
        size = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(size, RTM_GETSTATS, NLM_F_REQUEST, self._seq, 0) + body)
        data = self._socket.recv(_ROOM)
        kind = _HEADER.unpack_from(data)[1]
        if kind == NLMSG_ERROR or len(data) < _STATS_AT + _STATS64.size:
            _raise_if_error("RTM_GETSTATS", f"interface {index}", data[_HEADER.size :], 0)
            raise kernel_error(errno.EBADMSG, "RTM_GETSTATS", f"interface {index}")
        _, _, rx_bytes, tx_bytes, _, _, rx_dropped, tx_dropped = _STATS64.unpack_from(
            data, _STATS_AT
        )
        return LinkStats(rx_bytes, tx_bytes, rx_dropped, tx_dropped)

    # --- addresses and routes ----------------------------------------------------------------

    def add_address(self, index: int, address: str, prefix: int) -> None:
        """Give an interface its IPv4 address, and with it the route to its network."""
        packed = socket.inet_aton(address)
        broadcast = int.from_bytes(packed) | (1 << 32 - prefix) - 1
        body = (
            _IFADDR.pack(socket.AF_INET, prefix, 0, RT_SCOPE_UNIVERSE, index)
            + attr(IFA_LOCAL, packed)
            + attr(IFA_ADDRESS, packed)
            + attr(IFA_BROADCAST, broadcast.to_bytes(4))
        )
        flags = NLM_F_CREATE | NLM_F_EXCL
        self.request("RTM_NEWADDR", RTM_NEWADDR, body, flags, f"{address}/{prefix}")

    def add_default_route(self, index: int, gateway: str) -> None:
        """Send what is for elsewhere to a gateway."""
        body = (
            _RTMSG.pack(
                socket.AF_INET,
                0,
                0,
                0,
                RT_TABLE_MAIN,
                RTPROT_BOOT,
                RT_SCOPE_UNIVERSE,
                RTN_UNICAST,
                0,
            )
            + attr(RTA_GATEWAY, socket.inet_aton(gateway))
            + attr(RTA_OIF, index)
        )
        flags = NLM_F_CREATE | NLM_F_EXCL
        self.request("RTM_NEWROUTE", RTM_NEWROUTE, body, flags, f"default via {gateway}")


def _raise_if_error(op: str, about: str, body: bytes, flags: int) -> None:
    code = -struct.unpack_from("=i", body)[0]
    if code == 0:
        return
    detail = b""
    if flags & NLM_F_ACK_TLVS:
        # struct nlmsgerr: the errno and the request's header (NETLINK_CAP_ACK: without its body).
        detail = dict(attributes(body, 4 + _HEADER.size)).get(NLMSGERR_ATTR_MSG, b"")
    raise kernel_error(code, op, about or None, detail.rstrip(b"\0").decode(errors="replace"))


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    found = dict(attributes(body, _IFINFO.size))
    info = dict(attributes(found.get(IFLA_LINKINFO, b"")))
    return Link(
        index=index,
        name=found.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        kind=info.get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace"),
        master=struct.unpack("=I", found[IFLA_MASTER])[0] if IFLA_MASTER in found else 0,
        up=bool(flags & IFF_UP),
    )
