"""The process that does a container's writes on cgroup v1, in the container's own name.

Linux writes back what a program has written when it sees fit, and on v1 in nobody's cgroup: no limit
holds it and no account has it. So the read-write layer is a filesystem of its own (:mod:`.storage`),
whose loop device reads and writes a file that this process serves (:mod:`nscontainer.linux.fusefile`):
whoever asks, the I/O is done here, past the page cache, in the container's blkio cgroup. How much may
lie in the page cache meanwhile is bounded too, so that who writes is held to the pace of the disk
(docs/adr/0024).
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from typing import Final

from nscontainer.engine import diskrate, storage
from nscontainer.engine.diskrate import Plan
from nscontainer.errors import HostError, NsContainerError
from nscontainer.limits import Limits
from nscontainer.linux import clone, fusefile, prctl
from nscontainer.linux.blockdev import Rule
from nscontainer.linux.cgroup1 import Cgroup1
from nscontainer.linux.syscalls import check, close_range, libc

BDI: Final = "/sys/class/bdi"
DIRTY_S: Final = 0.25
"""How many seconds' worth of writes may wait in the page cache."""
LEAST_DIRTY: Final = 256 << 10


def can_serve(limits: Limits) -> bool:
    """Tell whether there is something to hold, and what it takes: FUSE, loop devices, mkfs.ext4."""
    if not diskrate.writes_held(limits) or not os.path.exists(fusefile.DEVICE):
        return False
    try:
        storage.check_host()
    except HostError:
        return False
    return True


@dataclass(slots=True)
class DiskServer:
    """The process, as its monitor has it."""

    group: Cgroup1
    pid: int = 0
    device: str | None = None
    """The loop device, ``7:3``."""
    _ended: bool = False

    def through(self, file: int) -> int:
        """Start it; give the file that leads through it to one of ours."""
        server, mount_fd = fusefile.make()
        try:
            self.pid = os.fork()
            if self.pid == 0:
                _be_server(self.group, server, file)
            os.close(server)
            server = -1  # or its death would not be noticed
            return fusefile.open_root(mount_fd)
        finally:
            os.close(mount_fd)
            if server >= 0:
                os.close(server)

    def died(self) -> bool:
        """Tell whether somebody has killed it: then all further I/O has failed."""
        if self.pid and not self._ended:
            self._ended = os.waitpid(self.pid, os.WNOHANG)[0] != 0
        return self._ended

    def bound(self, plan: Plan) -> None:
        """Bound what may wait in the page cache, by the slowest rule that holds writes.

        max_bytes is of Linux 6.2; before, a hundredth of what all may have is the least.
        """
        held = [(rule.write_bps or 0, rule.write_iops or 0) for rule in plan.rules.values()]
        rates = [bps for bps, _ in held if bps > 0] + [4096 * iops for _, iops in held if iops > 0]
        if self.device is None:
            return
        place = f"{BDI}/{self.device}"
        if not rates:
            unbound(place)
            return
        bytes_ = max(LEAST_DIRTY, round(min(rates) * DIRTY_S))
        _write(f"{place}/strict_limit", "1")
        _write(f"{place}/max_ratio", "1")
        _write(f"{place}/max_bytes", str(bytes_))

    def sync(self, top: int) -> None:
        """Write what waits: syncfs(2)."""
        with contextlib.suppress(OSError):
            check(libc.syncfs(top), "syncfs")

    def settle(self, plan: Plan, top: int) -> None:
        """Write what waits, at once: for the account, not for the limit, which has been read back.

        Parameters
        ----------
        top
            An open directory of the filesystem.
        """
        lifted = {
            disk: Rule(**dict.fromkeys((name for name, _ in rule.items()), -1))
            for disk, rule in plan.rules.items()
        }
        with contextlib.suppress(OSError, NsContainerError):
            self.group.hold_disks(lifted)
            self.sync(top)

    def release(self) -> None:
        """Let it end by itself, once the filesystem's last mount has gone; without limits."""
        if self.pid and not self.died():
            self.group.release_server(self.pid)
        if self.device is not None:
            unbound(f"{BDI}/{self.device}")


def unbound(place: str) -> None:
    """Give a device back the bound that all have."""
    _write(f"{place}/max_ratio", "100")
    _write(f"{place}/strict_limit", "0")


def sweep(bdi: str = BDI, sys_block: str = "/sys/block") -> list[str]:
    """Give loop devices that nobody has any more their bound back: their monitor was killed."""
    done = []
    for name in os.listdir(bdi) if os.path.isdir(bdi) else ():
        major, _, minor = name.partition(":")
        if major != "7" or os.path.exists(f"{sys_block}/loop{minor}/loop"):
            continue
        with contextlib.suppress(OSError), open(f"{bdi}/{name}/strict_limit", "rb") as file:
            if file.read(1) == b"1":
                unbound(f"{bdi}/{name}")
                done.append(f"loop{minor}: its bound in the page cache lifted")
    return done


def _write(path: str, text: str) -> None:
    with contextlib.suppress(OSError), open(path, "w", encoding="ascii") as file:
        file.write(text)


def _be_server(group: Cgroup1, server: int, file: int) -> None:
    """Serve until the filesystem is gone; never returns.

    It outlives its monitor: the last of what was written reaches the disk when the mounts go, and
    they go with the monitor. So it may hold none of them: its mount namespace is its own.
    """
    try:
        prctl.set_name("nsc-disk")
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(sig, signal.SIG_IGN)
        clone.unshare(clone.FLAGS["mnt"])
        with contextlib.suppress(OSError):  # it takes CAP_SYS_RESOURCE
            prctl.prctl(prctl.PR_SET_IO_FLUSHER, 1)
        direct = os.open(f"/proc/self/fd/{file}", os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
        null = os.open(os.devnull, os.O_RDWR)
        high = [os.dup(fd) for fd in (server, direct)]
        for number, fd in enumerate((null, null, null, *high)):
            os.dup2(fd, number)
        close_range(5)
        group.serve_disks()
        fusefile.serve(3, 4)
        os._exit(0)
    finally:
        os._exit(1)
