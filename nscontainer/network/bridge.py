"""A network's bridge: made when the first container comes, gone when nobody is left.

IPv4 alone: the interfaces made here have IPv6 switched off. A link-local address would otherwise
send router solicitations and group reports through them, which nobody asked for and everybody's
counters would show.
"""

from __future__ import annotations

import contextlib
import os
import socket

from nscontainer.errors import HostError, NotFoundError
from nscontainer.linux.rtnetlink import IFF_UP, RtNetlink
from nscontainer.linux.syscalls import KernelError
from nscontainer.network import leases, nat, records
from nscontainer.network.records import Network


def mac(address: str) -> bytes:
    """Derive an interface's MAC from its address, as Docker does.

    So that an address given out again has not moved to another MAC in the neighbours' tables.
    """
    return b"\x02\x42" + socket.inet_aton(address)


def veth(container_id: str) -> str:
    """Name the host's end of a container's interface: its id is all that there is room for."""
    return f"nsv{container_id}"


def ifb(container_id: str) -> str:
    """Name the interface that a container's sent packets go through where a limit holds them."""
    return f"nsi{container_id}"


def ensure(top: str, route: RtNetlink, network: Network) -> int:
    """Give the bridge's index, after making it where it isn't up. Call it under the lock.

    Raises
    ------
    NotFoundError
        The network has been removed, or made anew, a moment ago.
    KernelError, HostError
        Linux refused, or the rules can't be made.
    """
    if _is_up(network.bridge):
        nat.refresh(network)
        return socket.if_nametoindex(network.bridge)
    if network not in records.listed(top):
        message = f"network {network.name!r} has changed meanwhile"
        raise NotFoundError(message, hint="try again; nscontainer network ls lists them")
    route.delete_link(network.bridge)  # half made by one that was killed
    try:
        return _make(route, network)
    except BaseException:
        remove(route, network)
        raise


def _make(route: RtNetlink, network: Network) -> int:
    try:
        route.add_bridge(network.bridge, mac(network.gateway))
    except KernelError as error:
        message = f"no bridge can be made: {error}"
        raise HostError(message, hint="modprobe bridge veth") from None
    no_ipv6(network.bridge)
    index = socket.if_nametoindex(network.bridge)
    route.add_address(index, network.gateway, network.prefix)
    nat.set_up(network)
    route.set_up(index)  # last: one that is up is whole
    return index


def remove(route: RtNetlink, network: Network) -> bool:
    """Remove a network's bridge and its rules; False where there was no bridge."""
    nat.tear_down(network)
    return route.delete_link(network.bridge)


def release_unused(top: str, alive: leases.Alive) -> list[str]:
    """Remove every bridge that no living container is on, and what the dead left of interfaces.

    Returns
    -------
    list[str]
        One line for each thing that was removed.
    """
    if not os.path.isdir(f"{top}/networks"):
        return []
    done = []
    with records.lock(top), RtNetlink() as route:
        for network in records.listed(top):
            dead, left = leases.sweep(top, network, alive)
            for container_id in dead:
                for interface in (veth(container_id), ifb(container_id)):
                    route.delete_link(interface)
                done.append(f"network {network.name}: took container {container_id}'s address back")
            if not left and os.path.exists(f"/sys/class/net/{network.bridge}"):
                remove(route, network)
                done.append(f"network {network.name}: removed its bridge")
    return done


def no_ipv6(interface: str) -> None:
    """Switch IPv6 off for an interface of this namespace, or with ``default`` for those to come."""
    with contextlib.suppress(FileNotFoundError):  # Linux without IPv6
        path = f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"1")
        finally:
            os.close(fd)


def _is_up(name: str) -> bool:
    try:
        with open(f"/sys/class/net/{name}/flags", encoding="ascii") as file:
            return bool(int(file.read(), 16) & IFF_UP)
    except OSError:
        return False
