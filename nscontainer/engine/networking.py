"""The network of one container, as its monitor makes, keeps and removes it.

What is asked for is looked up before anything is made; an address is had before the first process is
cloned, for its ``/etc/hosts`` says it; the interface is made after, straight in its namespace.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from nscontainer.engine import state
from nscontainer.errors import SpecError, StateError
from nscontainer.limits import Limits
from nscontainer.linux import mount, net, procfs
from nscontainer.linux.rtnetlink import LinkStats, RtNetlink
from nscontainer.netspec import OTHERS, check_fit, has_own_interface
from nscontainer.network import attach, bridge, records, shaping
from nscontainer.network.attach import Attachment
from nscontainer.network.records import Network
from nscontainer.spec import ContainerSpec

LIVING: Final = ("created", "running", "paused")


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


class Networking:
    """One container's network.

    Parameters
    ----------
    top
        The state directory.
    spec
        Its ``network`` and ``ip`` are looked up at once.

    Raises
    ------
    NotFoundError, StateError, SpecError
        There is no such network, or no such container to share one with.
    """

    def __init__(self, top: str, spec: ContainerSpec) -> None:
        self._top = top
        self.mode = spec.network
        """As asked for: what the record says."""
        self.network: Network | None = None
        self.attachment: Attachment | None = None
        self.shared_fd: int | None = None
        """The namespace of the container whose network is shared."""
        self._asked_ip = spec.ip
        if spec.network.startswith(OTHERS):
            self.shared_fd = _namespace_of(top, spec.network.removeprefix(OTHERS))
        elif has_own_interface(spec.network):
            self.network = records.get(top, spec.network)
        self.check(spec.limits)

    def reserve(self, container_id: str) -> None:
        """Have the bridge up, and an address."""
        if self.network is not None:
            self.attachment = attach.reserve(
                self._top, container_id, self.network, ip=self._asked_ip, alive=alive(self._top)
            )

    def plug(self, pid: int) -> None:
        """Make the interface in the namespace of the first process."""
        if self.attachment is not None:
            flags = os.O_RDONLY | os.O_CLOEXEC
            self.attachment.plug(os.open(f"/proc/{pid}/ns/net", flags))

    def unplug(self) -> None:
        """Begin to remove the interface: nothing is to be read of it any more."""
        if self.attachment is not None:
            self.attachment.unplug()

    def leave(self, *, alone: Callable[[], bool]) -> None:
        """Remove the interface, and give the address back; once is enough."""
        attachment, self.attachment = self.attachment, None
        if attachment is not None:
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
            check_fit(self.mode, ip=None, published=False, named=False, shaped=True)
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


def _namespace_of(top: str, ref: str) -> int:
    """Open the network namespace of a running container."""
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
    return fd
