"""A container's interface: ``eth0`` in its network namespace, the other end on the network's bridge."""

from __future__ import annotations

import _thread
import contextlib
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from nscontainer.limits import Limits
from nscontainer.linux import net
from nscontainer.linux.rtnetlink import LinkStats, RtNetlink
from nscontainer.network import bridge, leases, records
from nscontainer.network.records import Network
from nscontainer.network.shaping import Shaping

ETH0: Final = "eth0"
_GONE_S: Final = 5.0


@dataclass(slots=True)
class Attachment:
    """What is held of a container's place on a network: an address at first, then an interface.

    Attributes
    ----------
    interface, index
        The host's end.
    inner_index
        That of ``eth0``, in the container's namespace.
    route
        A socket in the container's namespace; it keeps the namespace, and so the counters, alive.
    """

    top: str
    container_id: str
    network: Network
    ip: str
    master: int
    """The bridge's index."""
    interface: str
    netns_fd: int = -1
    index: int = 0
    inner_index: int = 0
    route: RtNetlink | None = None
    shaping: Shaping | None = None
    """What holds its speed, once that has been limited."""
    _unplugged: bool = False

    @property
    def mac(self) -> str:
        """The MAC of ``eth0``, as text."""
        return bridge.mac(self.ip).hex(":")

    def plug(self, netns_fd: int) -> None:
        """Make the pair of interfaces, addressed and up. The attachment keeps the fd.

        Raises
        ------
        KernelError
            Linux refused.
        """
        self.netns_fd = netns_fd
        with net.within(netns_fd):
            bridge.no_ipv6("default")  # for the interface to come
            self.route = RtNetlink()
        with RtNetlink() as route:
            mac = bridge.mac(self.ip)
            route.add_veth(self.interface, ETH0, netns_fd, mac, master=self.master)
            self.index = socket.if_nametoindex(self.interface)
            bridge.no_ipv6(self.interface)
            route.set_up(self.index)
        eth0 = self.route.link(ETH0)
        assert eth0 is not None
        self.inner_index = eth0.index
        self.route.set_up(self.inner_index)
        self.route.add_address(self.inner_index, self.ip, self.network.prefix)
        self.route.add_default_route(self.inner_index, self.network.gateway)

    def stats(self) -> LinkStats:
        """Read the counters of ``eth0``, as the container sees them."""
        assert self.route is not None
        return self.route.stats(self.inner_index)

    def shape(self, limits: Limits) -> None:
        """Hold its traffic to limits from now on.

        Raises
        ------
        HostError
            This Linux can't.
        """
        if self.shaping is None:
            self.shaping = Shaping(self.index, bridge.ifb(self.container_id))
        self.shaping.arm(limits)

    def to_dict(self) -> dict[str, Any]:
        """Give the facts for the state file and the record."""
        return {
            "network": self.network.name,
            "network_id": self.network.id,
            "ip": self.ip,
            "prefix": self.network.prefix,
            "gateway": self.network.gateway,
            "mac": self.mac,
            "interface": self.interface,
        }

    def unplug(self) -> None:
        """Begin to remove the interface.

        And the ifb of its speed limit, if there is one. It is gone for everybody after 0.8 ms, but the call returns only after 25: netdev_run_todo()
        waits in rcu_barrier() to free the memory (net/core/dev.c). So a thread makes the call, and is
        left to wait. Nothing may clone, fork or setns in this process afterwards.
        """
        if not self._unplugged:
            self._unplugged = True
            for interface in self._there():
                _thread.start_new_thread(_delete_link, (interface,))

    def _there(self) -> list[str]:
        """Give the interfaces there are: the veth's end, and what a limit has put beside it."""
        names = (self.interface, bridge.ifb(self.container_id))
        return [name for name in names if os.path.exists(f"/sys/class/net/{name}")]

    def give_back(self, *, alone: Callable[[], bool]) -> None:
        """Wait until the interface is gone, and give the address back.

        Parameters
        ----------
        alone
            Whether nobody comes after this container: then an unused bridge goes as well. Asked
            under the lock, after the address is given back: so either this one or the spawner, at
            its end, sees that nobody is left.
        """
        deadline = time.monotonic() + _GONE_S
        while self._there() and time.monotonic() < deadline:
            time.sleep(0.0001)
        if self.route is not None:
            self.route.close()
        if self.shaping is not None:
            self.shaping.close()
        if self.netns_fd >= 0:
            os.close(self.netns_fd)
        with records.lock(self.top):
            left = leases.give_back(self.top, self.network, self.container_id)
            if not left and alone():
                with RtNetlink() as route:
                    bridge.remove(route, self.network)


def reserve(
    top: str, container_id: str, network: Network, *, ip: str | None = None, alive: leases.Alive
) -> Attachment:
    """Have a network's bridge up, and an address on it for a container.

    Parameters
    ----------
    ip
        The address asked for; None for a free one.

    Raises
    ------
    SpecError, StateError
        The address can't be had.
    NotFoundError
        The network has gone meanwhile.
    HostError, KernelError
        This machine can't.
    """
    with records.lock(top), RtNetlink() as route:
        address = leases.take(top, network, container_id, ip, alive)
        try:
            master = bridge.ensure(top, route, network)
        except BaseException:
            leases.give_back(top, network, container_id)
            raise
    return Attachment(top, container_id, network, address, master, bridge.veth(container_id))


def _delete_link(interface: str) -> None:
    with contextlib.suppress(OSError), RtNetlink() as route:
        route.delete_link(interface)
