"""Ports of a container that the host passes on: reserved by a socket, passed on by nftables.

No process stands in between (docs/adr/0022). The socket is bound and never listens: it keeps others
from the port, and tells early that somebody has it. Each container's rules are one table,
``nscontainer_<network>_<container>``, so that they go as a whole.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from nscontainer.errors import SpecError, StateError
from nscontainer.linux import nftables
from nscontainer.netspec import Publish
from nscontainer.network import nat
from nscontainer.network.records import Network

ANY: Final = "0.0.0.0"  # noqa: S104 - an address to compare with, asked for by the user
_KINDS: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


@dataclass(slots=True)
class Reserved:
    """Ports of the host that are a container's as long as these sockets are open."""

    ports: tuple[Publish, ...] = ()
    """As asked for, a port of 0 replaced by the one that was free."""
    sockets: list[socket.socket] = field(default_factory=list)

    def close(self) -> None:
        """Give the ports back."""
        while self.sockets:
            self.sockets.pop().close()


def reserve(asked: Iterable[Publish]) -> Reserved:
    """Take ports of the host, or none of them.

    Raises
    ------
    StateError
        One is taken.
    SpecError
        One's address is not this host's.
    """
    reserved = Reserved()
    try:
        reserved.ports = tuple(_reserve(entry, reserved.sockets) for entry in asked)
    except BaseException:
        reserved.close()
        raise
    return reserved


def _reserve(entry: Publish, sockets: list[socket.socket]) -> Publish:
    text = f"{entry.host_ip}:{entry.host_port}/{entry.protocol}"
    sock = socket.socket(socket.AF_INET, _KINDS[entry.protocol] | socket.SOCK_CLOEXEC)
    sockets.append(sock)
    try:
        try:
            sock.bind((entry.host_ip, entry.host_port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or entry.protocol != "tcp":
                raise
            _bind_beside_old_connections(sock, entry, sockets)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"port {text} of the host is taken"
            hint = "choose another, or leave the host's out for a free one"
            raise StateError(message, hint=hint) from None
        if error.errno == errno.EADDRNOTAVAIL:
            message = f"publish: {entry.host_ip} is not an address of this host"
            raise SpecError(
                message, hint=f"127.0.0.1, {ANY} for all, or one of `ip addr`"
            ) from None
        message = f"port {text} of the host can't be had: {error.strerror}"
        raise StateError(message, hint="a port from 1024 on, or run as root") from None
    return replace(entry, host_port=sock.getsockname()[1])


def _bind_beside_old_connections(
    sock: socket.socket, entry: Publish, sockets: list[socket.socket]
) -> None:
    """Take a port whose last server's connections are in TIME_WAIT for a minute yet.

    With SO_REUSEADDR two that don't listen can have one port, so an abstract name keeps out
    a second container of ours.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((entry.host_ip, entry.host_port))
    own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    sockets.append(own)
    own.bind(f"\0nscontainer/{entry.host_ip}:{entry.host_port}")


def check(network: Network, asked: Iterable[Publish]) -> None:
    """Refuse what an internal network can't have: ports that others than the host reach.

    Raises
    ------
    SpecError
        With the port.
    """
    for entry in asked:
        if network.internal and not entry.host_ip.startswith("127."):
            message = f"publish {entry.host_ip}:{entry.port}: network {network.name!r} is internal"
            raise SpecError(message, hint="only the host itself reaches it: publish on 127.0.0.1")


def set_up(network: Network, container_id: str, address: str, ports: Iterable[Publish]) -> None:
    """Pass the ports on to a container.

    Parameters
    ----------
    address
        The container's, on the network.

    Raises
    ------
    HostError
        nftables refused.
    """
    if ports := tuple(ports):
        nftables.run(rules(network, container_id, address, ports))


def tear_down(network: Network, container_id: str) -> None:
    """Pass nothing on any more."""
    nftables.delete_tables([_table(network, container_id)])


def collect(top: str, lives: Callable[[str], bool]) -> list[str]:
    """Remove the rules of containers that are gone; give the tables' names.

    Parameters
    ----------
    lives
        Tells by a container's id whether its monitor lives.
    """
    from nscontainer.network import records

    ours = {network.id for network in records.listed(top)}
    stale = []
    for table in nftables.tables():
        network_id, _, container_id = table.removeprefix(nat.PREFIX).partition("_")
        if container_id and network_id in ours and not lives(container_id):
            stale.append(table)
    nftables.delete_tables(stale)
    return stale


def rules(network: Network, container_id: str, address: str, ports: Iterable[Publish]) -> str:
    """Write a container's table in nft's language.

    What comes from elsewhere passes `prerouting`, what comes from the host itself `output`.
    """
    outside, own = [], []
    for port in ports:
        to = f"{port.protocol} dport {port.host_port} dnat to {address}:{port.port}"
        here = "fib daddr type local" if port.host_ip == ANY else f"ip daddr {port.host_ip}"
        own.append(f"{here} {to}")
        if not port.host_ip.startswith("127."):
            # `raw` of nat.py would drop it anyway: nobody else may reach a loopback address.
            outside.append(f"{here} ip daddr != 127.0.0.0/8 {to}")
    prerouting, output = "\n        ".join(outside), "\n        ".join(own)
    chains = f"""
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        {prerouting}
    }}
    chain output {{
        type nat hook output priority -100; policy accept;
        {output}
    }}
"""
    return nftables.anew(_table(network, container_id), chains)


def text(port: Publish) -> str:
    """Write it as Docker does: ``127.0.0.1:8080->80/tcp``."""
    return f"{port.host_ip}:{port.host_port}->{port.port}/{port.protocol}"


def _table(network: Network, container_id: str) -> str:
    return f"{nat.PREFIX}{network.id}_{container_id}"
