"""Control groups, whichever version the host has: one protocol, v1 and v2 as siblings behind it.

:func:`detect` finds the hierarchies, :func:`create` makes a container's cgroup in them. A
container's cgroup stands at ``<hierarchy>/nscontainer/<id>``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from nscontainer.errors import NotFoundError
from nscontainer.linux import blockdev, cgroup1, cgroup2
from nscontainer.linux import cgroup_files as files
from nscontainer.linux.cgroup_find import ENGINE, Layout, detect
from nscontainer.linux.cgroup_none import NoCgroup
from nscontainer.spec import Limits, check_id

__all__ = [
    "ENGINE",
    "PARENT",
    "Cgroup",
    "Layout",
    "Reader",
    "create",
    "default_want",
    "detect",
    "make_room",
    "names",
    "remove_parents",
    "reopen",
    "reopen_at",
]

PARENT: Final = "nscontainer"
"""The directory, in each hierarchy, that holds the containers' cgroups."""


class Reader(Protocol):
    """Reads a container's figures again and again from files kept open."""

    def read(self, *, whole: bool = True) -> list[int]:
        """Read a value for each of :data:`nscontainer.schema.COLUMNS`, NA where there is none.

        Without ``whole`` only what moves fast is read anew, the rest is as it was at the last call.
        The net.* columns are always NA here. After the cgroup's removal every one is.
        """

    def fileno_populated(self) -> int | None:
        """Give an fd of cgroup.events, or None; ours to close.

        poll(2) reports POLLPRI (and POLLERR) once its ``populated`` or ``frozen`` changes; a pread
        of it at offset 0 re-arms.
        """

    def close(self) -> None:
        """Close the files."""


class Cgroup(Protocol):
    """A container's cgroup: one directory on v2, one a hierarchy on v1."""

    version: str
    """``v1``, ``v2`` or ``hybrid``: what it really has; ``none``: there is none (:class:`.NoCgroup`)."""
    paths: dict[str, str]
    """Controller to directory; ``unified`` is that in the cgroup2 mount."""

    def fd(self) -> int | None:
        """Give the cgroup2 directory's fd for clone3(CLONE_INTO_CGROUP); None where there is none.

        The cgroup keeps it and closes it.
        """

    def entry_fds(self) -> list[int]:
        """Open what a thread writes ``0`` to, to move into each v1 hierarchy; the caller's to close."""

    def add(self, pid: int) -> None:
        """Move a process into it, in every hierarchy.

        Raises
        ------
        KernelError
            With the path; ESRCH: there is no such process.
        """

    def place(self, limits: Limits) -> None:
        """Set what a process must find when it joins: ``cpuset_cpus`` and ``cpuset_mems``.

        Raises
        ------
        HostError, SpecError
            As :meth:`arm`.
        """

    def arm(self, limits: Limits) -> None:
        """Set all other limits: None leaves one as it is, -1 lifts it.

        Memory without memory+swap means no swap. Lowering memory below what is in use and can't be
        reclaimed is refused on v1 and ends in the OOM killer on v2.

        Raises
        ------
        HostError
            This host can't: the text names the controller, the hint the mend.
        SpecError
            The value can't be used.
        StateError
            The cgroup is gone.
        """

    def hold_disks(self, rules: Mapping[str, blockdev.Rule]) -> None:
        """Set what it may read and write a second, by disk (``MAJOR:MINOR``).

        On v1 what Linux writes back later for it (buffered writes) is not held.

        Raises
        ------
        HostError, SpecError, StateError
            As :meth:`arm`.
        """

    def weigh_disks(self, weight: int, disks: tuple[str, ...]) -> None:
        """Set its share (Docker's 10 … 1000) of disks that several want.

        Raises
        ------
        HostError
            Nothing on this host would heed it.
        """

    def disarm_cpu(self) -> None:
        """Lift the CPU quota, so that a throttled process can die at once."""

    def read_back(self, *, disks: bool = True) -> dict[str, Any]:
        """Say what the files hold now; without ``disks``, of all but the rules of disks.

        Returns
        -------
        dict
            ``cpu_quota_us`` (-1: none), ``cpu_period_us``, ``cpu_burst_us``, ``cpu_shares`` (v1),
            ``cpu_weight`` (v2), ``cpuset_cpus``, ``memory_bytes`` (-1: none), ``memory_swap_bytes``
            (memory+swap, -1: none), ``pids`` (-1: none); None where the host has no such file.
            Memory limits are in whole pages: Linux rounds down. ``disk_read_bps``,
            ``disk_write_bps``, ``disk_read_iops``, ``disk_write_iops``: by ``MAJOR:MINOR``.
        """

    def parents_quota(self) -> float | None:
        """Give the tightest CPU quota of the cgroups above, in CPUs, None where there is none."""

    def reset_peak(self) -> None:
        """Begin the memory peak anew: v1, and v2 from Linux 6.12 on; elsewhere nothing happens."""

    def reader(self, own_device: str | None = None) -> Reader:
        """Open the accounting files for a sampler.

        Parameters
        ----------
        own_device
            A loop device (``7:3``) that is the container's alone. On v1 its own count is taken:
            what Linux writes back later is in nobody's cgroup. On v2 it is in the container's.
        """

    def pids(self) -> list[int]:
        """List its processes, as this process's pid namespace numbers them."""

    def populated(self) -> bool:
        """Tell whether a process that isn't dead is in it."""

    def kill(self) -> None:
        """Kill all of it, also what it forks meanwhile."""

    def freeze(self) -> None:
        """Stop its processes and wait until they stand; StateError after 2 s."""

    def thaw(self) -> None:
        """Let them go on."""

    def remove(self, timeout_s: float = 2.0, *, parents: bool = True) -> None:
        """Remove its directories, waiting for its last processes to go; then the parents.

        Parameters
        ----------
        timeout_s
            How long to wait for its processes.
        parents
            Whether to remove the directories above as well, where no other container is in them.

        Raises
        ------
        StateError
            Processes are still in it.
        """

    def close(self) -> None:
        """Close what is open. The cgroup stays."""


# --- making and finding a container's --------------------------------------------------------


def default_want(layout: Layout) -> frozenset[str]:
    """Name the controllers that limits and accounting use; v1 names, good for both versions."""
    want = {"cpu", "cpuacct", "cpuset", "memory", "pids", "blkio"}
    return frozenset(want | ({"freezer"} if layout.unified is None else set()))


def make_room(layout: Layout) -> None:
    """Move out of a v2 cgroup that is delegated to us: one with processes can't hold containers.

    All processes of it go to :data:`ENGINE` in it: this one, and whatever else was started there.
    Elsewhere (v1, the root of v2) nothing happens.

    Raises
    ------
    KernelError
        Linux refused.
    """
    if layout.version == "v2" and layout.unified is not None:
        cgroup2.make_room(layout.unified, ENGINE)


def _parts(parent: str, name: str) -> list[str]:
    return [check_id(part, "cgroup") for part in (*parent.split("/"), name)]


def create(layout: Layout, name: str, *, parent: str = PARENT, want: frozenset[str]) -> Cgroup:
    """Make a container's cgroup, and its parent where missing; undone if any of it fails.

    Parameters
    ----------
    name
        The container's id: one path component.
    parent
        Below each hierarchy's directory of the layout; may have several components.
    want
        Controllers to be in, by their name in either version. One the host lacks is left out: its
        figures are NA, and a limit that needs it is an error of :meth:`Cgroup.arm`.

    Raises
    ------
    SpecError
        A name can't be a path component.
    HostError
        This user may not.
    StateError
        It exists already.
    """
    parts = _parts(parent, name)
    if layout.version == "v2" and layout.unified is not None:
        return cgroup2.create(layout.unified, parts, layout.controllers, want)
    if layout.version == "none":
        return NoCgroup(layout.cause or "there is no cgroup", layout.hint)
    made = cgroup1.create(layout.controllers, layout.unified, parts, want)
    made.barred, made.hint = layout.barred, layout.hint
    made.account_disks(layout.disks)
    return made


def reopen(layout: Layout, name: str, parent: str = PARENT) -> Cgroup:
    """Find a container's cgroup made by another process, even if only part of it is left.

    Raises
    ------
    NotFoundError
        None of it is there.
    """
    parts = _parts(parent, name)
    if layout.version == "v2" and layout.unified is not None:
        return cgroup2.reopen(layout.unified, parts)
    return cgroup1.reopen(layout.controllers, layout.unified, parts)


def reopen_at(paths: Mapping[str, str], name: str, parent: str = PARENT) -> Cgroup:
    """Find a container's cgroup where it was made: each user's process may have its own place.

    Parameters
    ----------
    paths
        As :attr:`Cgroup.paths` said.

    Raises
    ------
    NotFoundError
        None of it is there.
    """
    parts = _parts(parent, name)
    tail = "/" + "/".join(parts)
    good = {key: path for key, path in paths.items() if path.endswith(tail)}
    bases = {key: path.removesuffix(tail) for key, path in good.items()}
    unified = bases.pop("unified", None)
    if unified is not None and all(base == unified for base in bases.values()):
        return cgroup2.reopen(unified, parts)
    if not good:
        message = f"container {name} has no cgroup"
        raise NotFoundError(message)
    return cgroup1.reopen(bases, unified, parts)


def names(layout: Layout, parent: str = PARENT) -> list[str]:
    """List the containers' cgroups there are, those half made or half removed included."""
    bases = {*layout.controllers.values(), *([layout.unified] if layout.unified else [])}
    return sorted({name for base in bases for name in files.subdirectories(f"{base}/{parent}")})


def remove_parents(layout: Layout, parent: str = PARENT) -> None:
    """Remove the parent directories where no container is in them."""
    for base in {*layout.controllers.values(), *([layout.unified] if layout.unified else [])}:
        files.remove_empty(base, parent.split("/"))
