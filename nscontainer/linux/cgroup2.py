"""A container's cgroup on cgroup v2 (Documentation/admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

import contextlib
import errno
import math
import os
from collections.abc import Mapping
from typing import Any, Final

from nscontainer.errors import HostError, NotFoundError
from nscontainer.linux import blockdev, cgroup2_io
from nscontainer.linux import cgroup_figures as figures
from nscontainer.linux import cgroup_files as files
from nscontainer.linux.cgroup_core import Unified, kill_each
from nscontainer.linux.cgroup_find import setup_hint
from nscontainer.linux.cgroup_reader import FileReader
from nscontainer.linux.syscalls import KernelError
from nscontainer.spec import PERIOD_US, Limits

V2_NAMES: Final = {
    "cpu": "cpu",
    "cpuset": "cpuset",
    "memory": "memory",
    "pids": "pids",
    "blkio": "io",
    "io": "io",
}
"""A controller as a caller may name it, and its v2 name. cpuacct and freezer need none there."""


def shares_to_weight(shares: int) -> int:
    """Turn v1's cpu.shares (2 … 262144) into v2's cpu.weight (1 … 10000), 1024 into 100.

    The formula of runc and crun since 2025 (opencontainers/cgroups #20, kubernetes #131216), made
    so that the default stays the default: ceil(10^((l² + 125 l)/612 - 7/34)), l = log2(shares).
    """
    if shares <= 2:
        return 1
    if shares >= 262_144:
        return 10_000
    exponent = math.log2(shares)
    # 7/34 is 126/612: in one fraction the powers of two with whole results stay exact.
    return math.ceil(10 ** ((exponent * exponent + 125 * exponent - 126) / 612))


def create(
    base: str, parts: list[str], controllers: Mapping[str, str], want: frozenset[str]
) -> Cgroup2:
    """Make ``base/parts…`` and enable what of ``want`` the host has on the way down."""
    wanted = {V2_NAMES[name] for name in want if name in V2_NAMES} & controllers.keys()

    def enable(path: str) -> None:
        off = wanted - _words(f"{path}/cgroup.subtree_control")
        if off and _is_occupied(path):
            # It would be refused, save for cpu and pids, which would make the cgroup a threaded
            # domain: then no process could join one below ("Threads" in cgroup-v2.rst).
            return
        for name in sorted(off and off & _words(f"{path}/cgroup.controllers")):
            # One at a time: a write of several is refused whole for the sake of one. What could
            # not be enabled is missed, and explained, only by a limit that needs it.
            with contextlib.suppress(KernelError):
                files.write(f"{path}/cgroup.subtree_control", f"+{name}")

    return Cgroup2(base, files.make_path(base, parts, before_child=enable), parts)


def make_room(base: str, leaf: str) -> None:
    """Move the processes of a delegated cgroup down into ``base/leaf``.

    v2 has no processes in inner nodes, and whoever is delegated a cgroup starts in it. The root is
    exempt: there nothing is done.
    """
    if not _is_occupied(base):
        return
    with contextlib.suppress(KernelError):  # it is there
        files.mkdir(f"{base}/{leaf}")
    for _ in range(100):  # until none was forked meanwhile
        pids = _words(f"{base}/cgroup.procs")
        if not pids:
            return
        for pid in pids:
            try:
                files.write(f"{base}/{leaf}/cgroup.procs", pid)
            except KernelError as error:
                if error.errno != errno.ESRCH:
                    raise


def reopen(base: str, parts: list[str]) -> Cgroup2:
    """Find the directory ``base/parts…``."""
    path = "/".join((base, *parts))
    if not os.path.isdir(path):
        message = f"cgroup {path} is not there"
        raise NotFoundError(message)
    return Cgroup2(base, path, parts)


class Cgroup2:
    """A container's cgroup on a pure v2 host; see :class:`nscontainer.linux.cgroup.Cgroup`.

    Parameters
    ----------
    base
        The directory under which ours begin: the mount point, or a delegated cgroup.
    path
        The container's own directory.
    parts
        ``path`` below ``base``.
    """

    version = "v2"

    def __init__(self, base: str, path: str, parts: list[str]) -> None:
        self._base = base
        self._parts = parts
        self._dir = Unified(path)
        on = (files.read_or_none(f"{path}/cgroup.controllers") or "").split()
        self.paths: dict[str, str] = {**dict.fromkeys(on, path), "unified": path}
        self._peak_fd: int | None = None

    def fd(self) -> int | None:
        """Give the directory's fd for ``clone3(CLONE_INTO_CGROUP)``; ours to close."""
        return self._dir.fd()

    def entry_fds(self) -> list[int]:
        """Give none: clone3 has put the process where it belongs."""
        return []

    def add(self, pid: int) -> None:
        """Move a process in."""
        self._dir.add(pid)

    # --- limits ---------------------------------------------------------------------------------

    def place(self, limits: Limits) -> None:
        """Set the CPUs and memory nodes.

        v2 takes a CPU that isn't there without a word and then uses the parent's, so what is in
        effect is compared with what was asked.
        """
        for name, asked in (("cpus", limits.cpuset_cpus), ("mems", limits.cpuset_mems)):
            if asked is None:
                continue
            self._set(f"cpuset.{name}", asked, f"cpuset-{name} {asked}")
            effective = files.read_or_none(self._dir.file(f"cpuset.{name}.effective")) or ""
            if files.id_set(effective) != files.id_set(asked):
                message = f"cpuset-{name} {asked} can't be had: only {effective or 'none'} of them"
                above = files.read_or_none(f"{self._parent}/cpuset.{name}.effective")
                raise HostError(message, hint=f"there are {above}" if above else None)

    def arm(self, limits: Limits) -> None:
        """Set every other limit that is not None; -1 lifts one."""
        if limits.memory_bytes is not None or limits.memory_swap_bytes is not None:
            self._arm_memory(limits.memory_bytes, limits.memory_swap_bytes)
        if limits.pids is not None:
            self._set("pids.max", _text(limits.pids), f"pids-limit {limits.pids}")
        if limits.cpu_shares is not None:
            weight = shares_to_weight(limits.cpu_shares)
            self._set("cpu.weight", str(weight), f"cpu-shares {limits.cpu_shares}")
        self._arm_cpu(limits.cpu_quota_us, limits.cpu_period_us, limits.cpu_burst_us)

    def hold_disks(self, rules: Mapping[str, blockdev.Rule]) -> None:
        """Set the limits of disks."""
        cgroup2_io.hold(self._dir.path, rules, lambda what, at: self._missing(what, "io", at))

    def weigh_disks(self, weight: int, disks: tuple[str, ...]) -> None:
        """Set its share of the disks."""
        if "io" not in self.paths:
            raise self._missing(f"blkio-weight {weight}", "io", "io.weight")
        cgroup2_io.weigh(self._base, self._dir.path, weight, disks)

    def _arm_memory(self, memory: int | None, swap: int | None) -> None:
        """Set memory.max, and memory.swap.max, which counts swap alone."""
        if memory is None:
            now = self._integer("memory.max")
            own_swap = -1 if swap is None or swap < 0 or now is None or now < 0 else swap - now
        elif swap is None:
            own_swap = -1 if memory < 0 else 0  # memory alone: no swap, as the Limits say
        else:
            own_swap = -1 if swap < 0 or memory < 0 else swap - memory
        by_name = swap is not None and own_swap >= 0
        # Where this Linux accounts no swap, only a limit asked for by name is missed. Swap goes
        # first: a lower memory.max would push pages out that may not be.
        if by_name or os.path.exists(self._dir.file("memory.swap.max")):
            self._set("memory.swap.max", _text(own_swap), f"memory-swap {swap}")
        if memory is not None:
            self._set("memory.max", _text(memory), f"memory {memory}")

    def _arm_cpu(self, quota: int | None, period: int | None, burst: int | None) -> None:
        """Set cpu.max and cpu.max.burst, in the order that keeps burst <= quota throughout."""
        if quota is None and period is None and burst is None:
            return
        now_burst = files.integer(files.read_or_none(self._dir.file("cpu.max.burst")))
        files.check_burst(quota, burst, now_burst)
        if burst is not None and burst <= (now_burst or 0):
            self._set_burst(burst)
        if quota is not None or period is not None:
            now_quota, now_period = self._cpu_max() or (-1, PERIOD_US)
            new_quota = now_quota if quota is None else quota
            new_period = now_period if period is None else period
            what = f"cpu quota {new_quota} µs of {new_period} µs"
            self._set("cpu.max", f"{_text(new_quota)} {new_period}", what)
        if burst is not None and burst > (now_burst or 0):
            self._set_burst(burst)

    def _set_burst(self, burst: int) -> None:
        self._set("cpu.max.burst", str(burst), f"cpu-burst {burst}")

    def disarm_cpu(self) -> None:
        """Lift the quota, so that a throttled process can die at once."""
        with contextlib.suppress(KernelError):
            files.write(self._dir.file("cpu.max"), "max")

    def _set(self, name: str, text: str, what: str) -> None:
        def missing(path: str) -> HostError:
            return self._missing(what, name.partition(".")[0], path)

        files.set_value(self._dir.file(name), text, what, missing)

    def read_back(self, *, disks: bool = True) -> dict[str, Any]:
        """Say what the limits' files hold now."""
        memory = self._integer("memory.max")
        swap = self._integer("memory.swap.max")
        quota, period = self._cpu_max() or (None, None)
        return {
            "cpu_quota_us": quota,
            "cpu_period_us": period,
            "cpu_burst_us": self._integer("cpu.max.burst"),
            "cpu_shares": None,
            "cpu_weight": self._integer("cpu.weight"),
            "cpuset_cpus": files.read_or_none(self._dir.file("cpuset.cpus.effective")) or None,
            "memory_bytes": memory,
            "memory_swap_bytes": None
            if memory is None or swap is None
            else (-1 if memory < 0 or swap < 0 else memory + swap),
            "pids": self._integer("pids.max"),
            **(cgroup2_io.read_back(self._dir.path) if disks else {}),
        }

    def _integer(self, name: str) -> int | None:
        return files.integer(files.read_or_none(self._dir.file(name)))

    def _cpu_max(self) -> tuple[int, int] | None:
        return _cpu_max(files.read_or_none(self._dir.file("cpu.max")))

    def parents_quota(self) -> float | None:
        """Give the tightest CPU quota above, in CPUs; None where there is none."""
        quotas = []
        path = self._parent
        while os.path.exists(f"{path}/cgroup.controllers"):
            limit = _cpu_max(files.read_or_none(f"{path}/cpu.max"))
            if limit is not None and limit[0] >= 0:
                quotas.append(limit[0] / limit[1])
            path = os.path.dirname(path)
        return min(quotas, default=None)

    @property
    def _parent(self) -> str:
        return os.path.dirname(self._dir.path)

    def _missing(self, what: str, controller: str, path: str) -> HostError:
        """Find out why a controller's file isn't there: which link of the chain lacks it."""
        if controller not in _words(f"{self._base}/cgroup.controllers"):
            return self._not_delegated(what, controller)
        for depth in range(len(self._parts)):
            inner = "/".join((self._base, *self._parts[:depth]))
            if controller not in _words(f"{inner}/cgroup.subtree_control"):
                return HostError(
                    f"{what} can't be set: controller {controller} is not enabled in "
                    f"{inner}/cgroup.subtree_control",
                    hint=_how_to_enable(inner, controller),
                )
        name = os.path.basename(path)
        return HostError(f"{what} can't be set: this Linux has no {name}", hint=_SINCE.get(name))

    def _not_delegated(self, what: str, controller: str) -> HostError:
        above = self._base
        while os.path.exists(f"{(above := os.path.dirname(above))}/cgroup.controllers"):
            if controller in _words(f"{above}/cgroup.controllers"):
                return HostError(
                    f"{what} can't be set: controller {controller} is not delegated to "
                    f"{self._base}",
                    hint=setup_hint(v2=True),
                )
        return HostError(
            f"{what} can't be set: {self._base} has no cgroup v2 controller {controller}",
            hint=f"boot Linux with it: no cgroup_disable={controller}, and not mounted as v1",
        )

    # --- figures --------------------------------------------------------------------------------

    def reset_peak(self) -> None:
        """Begin memory.peak anew where that is possible (>= 6.12), for our own readers."""
        fd = self._peak()
        if fd is not None:
            with contextlib.suppress(OSError):  # EBADF: read-only before 6.12
                os.pwrite(fd, b"0", 0)

    def _peak(self) -> int | None:
        """Open memory.peak once: a reset holds for reads through the same open file only."""
        if self._peak_fd is None:
            for mode in (os.O_RDWR, os.O_RDONLY):
                with contextlib.suppress(OSError):
                    self._peak_fd = os.open(self._dir.file("memory.peak"), mode | os.O_CLOEXEC)
                    break
        return self._peak_fd

    def reader(self, own_device: str | None = None) -> FileReader:  # noqa: ARG002 - v1's need
        """Open the accounting files."""
        peak = self._peak()
        held = None if peak is None else os.dup(peak)
        numbers, texts = figures.v2(self._dir.path, held)
        texts += figures.pressure(self._dir.path)
        return FileReader(numbers, texts, self._dir.file("cgroup.events"))

    # --- processes ------------------------------------------------------------------------------

    def pids(self) -> list[int]:
        """List its processes."""
        return self._dir.pids()

    def populated(self) -> bool:
        """Tell whether a process is left in it."""
        return self._dir.populated()

    def kill(self) -> None:
        """Kill all of it."""
        if not self._dir.kill():
            kill_each(self._dir.pids, self._dir.freeze, self._dir.thaw)

    def freeze(self) -> None:
        """Stop its processes and wait until they stand."""
        self._dir.freeze()

    def thaw(self) -> None:
        """Let them go on."""
        self._dir.thaw()

    def remove(self, timeout_s: float = 2.0, *, parents: bool = True) -> None:
        """Remove its directory, then the parents where empty."""
        self.close()
        files.remove_all([self._dir.path], timeout_s)
        if parents:
            files.remove_empty(self._base, self._parts[:-1])

    def close(self) -> None:
        """Close what is open."""
        self._dir.close()
        if self._peak_fd is not None:
            os.close(self._peak_fd)
            self._peak_fd = None


# --- texts -----------------------------------------------------------------------------------

_SINCE: Final = {
    "cpu.max.burst": "it needs Linux 5.14",
    "cpu.max": "it needs a Linux with CONFIG_CFS_BANDWIDTH",
    "memory.swap.max": "boot with swapaccount=1, or leave --memory-swap out",
}


def _text(value: int) -> str:
    return "max" if value < 0 else str(value)


def _words(path: str) -> set[str]:
    return set((files.read_or_none(path) or "").split())


def _is_occupied(path: str) -> bool:
    """Tell whether processes in a cgroup keep it from having controllers for those below.

    The root is exempt from "no internal processes", and has no cgroup.type.
    """
    return os.path.exists(f"{path}/cgroup.type") and bool(_words(f"{path}/cgroup.procs"))


def _how_to_enable(path: str, controller: str) -> str:
    if _is_occupied(path):
        return f"processes sit in {path} itself: move them to a cgroup below it first"
    return f"as root: echo +{controller} > {path}/cgroup.subtree_control"


def _cpu_max(text: str | None) -> tuple[int, int] | None:
    """Read ``QUOTA PERIOD`` of cpu.max; the quota is -1 for ``max``."""
    if not text:
        return None
    quota, _, period = text.partition(" ")
    return (-1 if quota == "max" else int(quota)), int(period or PERIOD_US)
