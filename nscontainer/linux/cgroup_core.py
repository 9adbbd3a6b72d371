"""One directory of a cgroup2 mount: what it can do without any controller.

A hybrid host's cgroup2 mount has no (useful) controller, but a directory there that runs beside the
v1 ones still gives ``cgroup.kill``, ``cgroup.freeze``, ``cgroup.events`` and pressure figures
(Documentation/admin-guide/cgroup-v2.rst, "Core Interface Files").
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Final

from nscontainer.errors import StateError
from nscontainer.linux import cgroup_files as files
from nscontainer.linux.cgroup_files import GONE
from nscontainer.linux.syscalls import KernelError

FREEZE_S: Final = 2.0
KILL_S: Final = 2.0
_POLL_S: Final = 0.001


class Unified:
    """A cgroup's directory in a cgroup2 mount.

    Parameters
    ----------
    path
        The directory.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd: int | None = None

    def file(self, name: str) -> str:
        """Give the path of one of its files."""
        return f"{self.path}/{name}"

    def fd(self) -> int:
        """Open the directory, for clone3 to start a process in it (CLONE_INTO_CGROUP)."""
        if self._fd is None:
            self._fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._fd

    def close(self) -> None:
        """Close what :meth:`fd` opened."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def add(self, pid: int) -> None:
        """Move a process in."""
        files.write(self.file("cgroup.procs"), str(pid))

    def pids(self) -> list[int]:
        """List its processes and those of the cgroups below."""
        return files.tree_pids(self.path)

    def populated(self) -> bool:
        """Tell whether it or a cgroup below has a process that isn't dead."""
        return self._event("populated")

    def _event(self, key: str) -> bool:
        return files.keyed(files.read_or_none(self.file("cgroup.events"))).get(key) == "1"

    def can_freeze(self) -> bool:
        """Tell whether it has ``cgroup.freeze`` (Linux 5.2)."""
        return os.path.exists(self.file("cgroup.freeze"))

    def freeze(self) -> None:
        """Stop its processes and wait until they stand.

        Raises
        ------
        StateError
            Some still ran after :data:`FREEZE_S`.
        """
        files.write(self.file("cgroup.freeze"), "1")
        wait_frozen(lambda: self._event("frozen"))

    def thaw(self) -> None:
        """Let its processes go on; what is gone stands still no longer."""
        with files.gone_is_done():
            files.write(self.file("cgroup.freeze"), "0")

    def kill(self) -> bool:
        """Kill whatever is in it, forks included; False where Linux has no such file (< 5.14)."""
        try:
            files.write(self.file("cgroup.kill"), "1")
        except KernelError as error:
            if error.errno in GONE:
                return not os.path.isdir(self.path)
            raise
        return True


def wait_frozen(frozen: Callable[[], bool]) -> None:
    """Wait until processes stand still.

    Raises
    ------
    StateError
        Some still ran after :data:`FREEZE_S`.
    """
    deadline = time.monotonic() + FREEZE_S
    while not frozen():
        if time.monotonic() >= deadline:
            message = f"the container's processes did not all stop within {FREEZE_S:g} s"
            raise StateError(message, hint="one waits in the kernel, for a disk perhaps: try again")
        time.sleep(_POLL_S)


def kill_each(
    pids: Callable[[], list[int]], freeze: Callable[[], None], thaw: Callable[[], None]
) -> None:
    """Kill a cgroup's processes one by one until none is left: the way before ``cgroup.kill``.

    Frozen they can't fork meanwhile; a process frozen by v1 dies only once it is thawed.
    """
    deadline = time.monotonic() + KILL_S
    while True:
        with contextlib.suppress(StateError, OSError):
            freeze()
        for pid in pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            thaw()
        if not pids() or time.monotonic() >= deadline:
            return
        time.sleep(_POLL_S)
