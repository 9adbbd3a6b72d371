"""The network of one container, as its monitor makes, keeps and removes it.

What is asked for is looked up before anything is made; an address is had before the first process is
cloned, for its ``/etc/hosts`` says it; the interface is made after, straight in its namespace.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from nscontainer.engine import state
from nscontainer.engine.neighbours import Neighbours
from nscontainer.errors import HostError, SpecError, StateError
from nscontainer.limits import Limits
from nscontainer.linux import mount, net, procfs, userns
from nscontainer.linux.rtnetlink import LinkStats, RtNetlink
from nscontainer.netspec import OTHERS, USER_MODE, check_fit, has_own_interface
from nscontainer.network import attach, bridge, dns, names, nat, publish, records, shaping, usermode
from nscontainer.network.attach import Attachment
from nscontainer.network.names import Place
from nscontainer.network.records import Network
from nscontainer.spec import ContainerSpec

LIVING: Final = ("created", "running", "paused")


def _nobody(_: str) -> None:
    """Know no name: there are no neighbours in user mode."""


def alive(top: str) -> Callable[[str], bool]:
    """Tell by its id whether a container still has its monitor, or stands by with one."""

    def is_alive(container_id: str) -> bool:
        # The first again: it may have been taken up between the two looks.
        places = (state.CONTAINERS, state.STANDBY, state.CONTAINERS)
        return any(state.is_owned(f"{top}/{place}/{container_id}") for place in places)

    return is_alive


def release_unused(top: str) -> list[str]:
    """Remove what no living container uses of the networks; a line for each thing."""
    return bridge.release_unused(top, alive(top))


def collect(top: str) -> list[str]:
    """Remove what killed monitors left of rules as well: what `gc` does."""
    if not os.path.isdir(f"{top}/networks"):
        return []
    done = release_unused(top)
    tables = [*publish.collect(top, alive(top)), *nat.collect()] if userns.privileged() else []
    return done + [f"removed the rules {table}" for table in tables]


class Networking:
    """One container's network.

    Parameters
    ----------
    top
        The state directory.
    spec
        Its ``network`` and ``ip`` are looked up, and its ports taken, at once.
    bridges
        Whether this process may make interfaces on the host: not in an ordinary user's namespace.

    Raises
    ------
    HostError
        A bridge without ``bridges``.
    NotFoundError, StateError, SpecError
        There is no such network, or no such container to share one with; or a port is taken.
    """

    def __init__(self, top: str, spec: ContainerSpec, *, bridges: bool = True) -> None:
        self._top = top
        self.mode = spec.network
        """As asked for: what the record says."""
        self.network: Network | None = None
        self.attachment: Attachment | None = None
        self.shared_fd: int | None = None
        """The namespace of the container whose network is shared."""
        self.user_mode: usermode.UserMode | None = None
        self.resolver: dns.Resolver | None = None
        self._spec = spec
        self._shared_place: Place | None = None
        """On a network that isn't of :attr:`attachment`: another's, or in user mode."""
        self._published = False
        if spec.network.startswith(OTHERS):
            self.shared_fd, facts = _namespace_of(top, spec.network.removeprefix(OTHERS))
            if place := facts.get("network") or facts.get("shares"):
                self._shared_place = Place(place["ip"], place["gateway"])
        elif spec.network == USER_MODE:
            usermode.check_host()
            self._shared_place = usermode.PLACE
        elif has_own_interface(spec.network):
            if not bridges:
                message = f"network {spec.network}: a bridge on the host takes root"
                raise HostError(message, hint=f"--network {USER_MODE}, or none")
            self.network = records.get(top, spec.network)
            publish.check(self.network, spec.publish)
        self.check(spec.limits)
        reaches = "net" in spec.host_namespaces or self.network or self._shared_place
        names.check(spec.add_hosts, reaches_host=bool(reaches))
        self.ports = publish.reserve(spec.publish)

    @property
    def place(self) -> Place | None:
        """Where it is on its network, or on the one that it shares."""
        if self.attachment is not None:
            return Place(self.attachment.ip, self.attachment.network.gateway)
        return self._shared_place

    def facts(self) -> dict[str, Any]:
        """Give what the state file says of it."""
        if self.attachment is not None:
            ports = [asdict(port) for port in self.ports.ports]
            return {"network": self.attachment.to_dict() | {"ports": ports}}
        if self._shared_place is not None:
            place = self._shared_place
            return {"shares": {"ip": place.address, "gateway": place.gateway}}
        return {}

    def reserve(self, container_id: str) -> None:
        """Have the bridge up, and an address."""
        if self.network is not None:
            self.attachment = attach.reserve(
                self._top, container_id, self.network, ip=self._spec.ip, alive=alive(self._top)
            )

    def plug(self, pid: int, *, mapped: bool) -> None:
        """Make the interface in the namespace of the first process, and what it is reached by."""
        if self.mode == USER_MODE:
            self.user_mode = usermode.UserMode(pid, mapped=mapped)
            self._resolve(self.user_mode.netns_fd, lookup=_nobody, reverse=_nobody, forward=True)
        if self.attachment is None:
            return
        network, there = self.attachment.network, self.attachment
        there.plug(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        others = Neighbours(self._top, network)
        self._resolve(
            there.netns_fd,
            lookup=others.address,
            reverse=others.name,
            forward=not network.internal,
        )
        if self.ports.ports:
            self._published = True
            publish.set_up(network, there.container_id, there.ip, self.ports.ports)

    def _resolve(
        self,
        netns_fd: int,
        *,
        lookup: Callable[[str], str | None],
        reverse: Callable[[str], str | None],
        forward: bool,
    ) -> None:
        """Answer the container's questions for names."""
        udp, tcp = net.sockets_within(netns_fd, dns.sockets)
        self.resolver = dns.Resolver(
            udp, tcp, lookup=lookup, reverse=reverse, servers=self._spec.dns, forward=forward
        )

    def unplug(self) -> None:
        """Begin to remove the interface: nothing is to be read of it any more."""
        self._end_user_mode()
        if self.attachment is not None:
            self._withdraw(self.attachment)
            self.attachment.unplug()

    def _end_user_mode(self) -> None:
        program, self.user_mode = self.user_mode, None
        if program is not None:
            self._end_resolver()
            program.close()

    def _end_resolver(self) -> None:
        resolver, self.resolver = self.resolver, None
        if resolver is not None:
            resolver.close()

    def _withdraw(self, attachment: Attachment) -> None:
        """Answer and pass on nothing any more; once is enough."""
        self._end_resolver()
        if self._published:
            self._published = False
            with contextlib.suppress(HostError):  # what is left goes with the network's own
                publish.tear_down(attachment.network, attachment.container_id)
        self.ports.close()

    def leave(self, *, alone: Callable[[], bool]) -> None:
        """Remove the interface, and give the address back; once is enough."""
        self._end_user_mode()
        attachment, self.attachment = self.attachment, None
        if attachment is not None:
            self._withdraw(attachment)
            attachment.unplug()
            attachment.give_back(alone=alone)

    def check(self, limits: Limits) -> None:
        """Refuse limits of the network that can't be kept, before anything is made or changed.

        Raises
        ------
        SpecError
            It has no interface of its own.
        HostError
            This Linux has no queue of that kind.
        """
        if limits.shapes_network:
            check_fit(self.mode, ["a limit of its speed"])
            with RtNetlink() as route:
                shaping.check_host(route, limits)

    def shape(self, limits: Limits) -> None:
        """Hold its traffic to limits from now on."""
        attachment = self.attachment
        if attachment is not None and (limits.shapes_network or attachment.shaping is not None):
            attachment.shape(limits)

    def limits(self) -> dict[str, Any]:
        """Give the limits of its network as Linux has them; empty where none was ever set."""
        held = None if self.attachment is None else self.attachment.shaping
        return {} if held is None else held.read_back()

    def shaping_counts(self) -> Mapping[str, Mapping[str, int]] | None:
        """Give what the limits' queues lost and held back; None where there are none."""
        held = None if self.attachment is None else self.attachment.shaping
        return None if held is None else held.counts()

    def stats(self) -> Callable[[], LinkStats] | None:
        """Give what reads the interface's counters; None where it has none of its own."""
        if self.user_mode is not None:
            return self.user_mode.stats
        return None if self.attachment is None else self.attachment.stats

    @contextlib.contextmanager
    def joined(self) -> Iterator[int | None]:
        """Be in the shared namespace for a block, so that what is cloned there is born into it.

        Gives a mount of its sysfs: only who owns a network namespace may make one
        (fs/sysfs/mount.c), and the container won't.
        """
        if self.shared_fd is None:
            yield None
            return
        attrs = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC
        with net.within(self.shared_fd):
            yield mount.new_filesystem(
                "sysfs", attrs=attrs | mount.MOUNT_ATTR_RDONLY, source="sysfs"
            )


def _namespace_of(top: str, ref: str) -> tuple[int, dict[str, Any]]:
    """Open the network namespace of a running container, and give its state."""
    container_id = state.find(top, ref)
    directory = f"{top}/{state.CONTAINERS}/{container_id}"
    facts = state.read(directory) or {}
    status = str(facts.get("status", "being made"))
    if status not in LIVING or not state.is_owned(directory):
        ended = status if status not in LIVING else "without its monitor"
        message = f"container {ref!r} is {ended}: it has no network to share"
        raise StateError(message, hint="start it anew, and share its network while it runs")
    if "net" in facts["spec"]["host_namespaces"]:
        message = f"container {ref!r} is on the host's network"
        raise SpecError(message, hint="--network host, if that is what you want")
    try:
        fd = os.open(f"/proc/{facts['init_pid']}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        fd = -1
    # After the open: so it is this process's namespace and not a later one's of the same pid.
    if fd < 0 or procfs.start_time(int(facts["init_pid"])) != facts["init_start"]:
        if fd >= 0:
            os.close(fd)
        message = f"container {ref!r} has just ended: it has no network to share"
        raise StateError(message, hint="start it anew, and share its network while it runs")
    return fd, facts
