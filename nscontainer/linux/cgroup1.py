"""A container's cgroups on cgroup v1: one directory a controller, and one of cgroup2 beside them.

Documentation/admin-guide/cgroup-v1/ is the reference; where a figure or an order isn't from there,
the comment says from where.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any, Final

from nscontainer.errors import HostError, NotFoundError, NsContainerError
from nscontainer.linux import blockdev, cgroup1_io
from nscontainer.linux import cgroup_figures as figures
from nscontainer.linux import cgroup_files as files
from nscontainer.linux.cgroup_core import Unified, kill_each, wait_frozen
from nscontainer.linux.cgroup_files import IN_USE, UNFIT
from nscontainer.linux.cgroup_reader import FileReader
from nscontainer.linux.syscalls import KernelError
from nscontainer.spec import Limits

V1_NAMES: Final = {
    "cpu": "cpu",
    "cpuacct": "cpuacct",
    "cpuset": "cpuset",
    "memory": "memory",
    "pids": "pids",
    "freezer": "freezer",
    "blkio": "blkio",
    "io": "blkio",
}
"""A controller as a caller may name it, and its v1 name. devices is none of ours, ever: joining it
would need its rules, and /dev holds only what we put there."""

_UNLIMITED: Final = 1 << 62
"""v1 writes "no memory limit" as LONG_MAX rounded down to a page, whatever the page's size."""


def create(
    bases: Mapping[str, str], unified: str | None, parts: list[str], want: frozenset[str]
) -> Cgroup1:
    """Make ``base/parts…`` for each controller of ``want`` the host has, and in the cgroup2 mount."""
    wanted = {V1_NAMES[name] for name in want if name in V1_NAMES} & bases.keys()
    ours = {name: bases[name] for name in sorted(wanted)}
    paths: dict[str, str] = {}
    made: dict[str, str] = {}  # base to directory: co-mounted controllers share one
    try:
        for name, base in ours.items():
            if base not in made:
                prepare = fill_cpuset if base == ours.get("cpuset") else files.nothing
                made[base] = files.make_path(base, parts, after_mkdir=prepare)
            paths[name] = made[base]
        if unified is not None:
            # It only adds to what v1 can do, so that it may be missing.
            with contextlib.suppress(HostError):
                made[unified] = files.make_path(unified, parts)
                paths["unified"] = made[unified]
    except BaseException:
        for base, path in made.items():
            with contextlib.suppress(OSError):
                files.rmdir(path)
            files.remove_empty(base, parts[:-1])
        raise
    return Cgroup1(paths, parts)


def reopen(bases: Mapping[str, str], unified: str | None, parts: list[str]) -> Cgroup1:
    """Find the directories ``base/parts…`` that exist."""
    every = {name: base for name, base in bases.items() if name in V1_NAMES}
    if unified is not None:
        every["unified"] = unified
    paths = {name: "/".join((base, *parts)) for name, base in every.items()}
    paths = {name: path for name, path in paths.items() if os.path.isdir(path)}
    if not paths:
        message = f"cgroup {'/'.join(parts)} is in no hierarchy"
        raise NotFoundError(message)
    return Cgroup1(paths, parts)


def disks(sys_block: str) -> tuple[str, ...]:
    """List the ``MAJOR:MINOR`` of the machine's disks: none in memory, in a file, or of others."""
    found = []
    for name in sorted(os.listdir(sys_block)) if os.path.isdir(sys_block) else ():
        size = files.read_or_none(f"{sys_block}/{name}/size")
        device = files.read_or_none(f"{sys_block}/{name}/dev")
        if device and size and int(size) and not blockdev.is_stacked(name, sys_block):
            found.append(device)
    return tuple(found)


def fill_cpuset(path: str) -> None:
    """Give a new cpuset its parent's CPUs and nodes: without them nothing can join (ENOSPC).

    ``cgroup.clone_children`` has Linux do the same for the cpusets below.
    """
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not files.read(f"{path}/{name}").strip():
            files.write(f"{path}/{name}", files.read(f"{os.path.dirname(path)}/{name}").strip())
            with contextlib.suppress(KernelError):
                files.write(f"{path}/cgroup.clone_children", "1")


class Cgroup1:
    """A container's cgroups on a v1 or hybrid host; see :class:`nscontainer.linux.cgroup.Cgroup`.

    Parameters
    ----------
    paths
        Controller to directory; ``unified`` is the one in the cgroup2 mount.
    parts
        Each directory below its mount.
    """

    def __init__(self, paths: dict[str, str], parts: list[str]) -> None:
        self.paths = paths
        self._parts = parts
        self._beside = Unified(paths["unified"]) if "unified" in paths else None
        self.version = "v1" if self._beside is None else "hybrid"
        self.barred: Mapping[str, str] = {}
        """Controllers that are there but not this user's, and where they are mounted."""
        self.hint: str | None = None
        """How to have those."""

    def fd(self) -> int | None:
        """Open the cgroup2 directory beside, for clone3; None where there is none."""
        return None if self._beside is None else self._beside.fd()

    def entry_fds(self) -> list[int]:
        """Open each hierarchy's ``tasks``: a thread that writes 0 there moves in by itself.

        Moving another process takes a lock over all forks and exits of the machine and waits out an
        RCU grace period, in every hierarchy anew: 0.8 ms for six, and up to 15 on a busy machine.
        The calling thread alone needs no lock (Linux 5.6, "cgroup: Optimize single thread
        migration"): 0.09 ms.
        """
        beside = None if self._beside is None else self._beside.path
        flags = os.O_WRONLY | os.O_CLOEXEC
        return [
            os.open(f"{path}/tasks", flags)
            for path in dict.fromkeys(self.paths.values())
            if path != beside
        ]

    def add(self, pid: int) -> None:
        """Move a process into every hierarchy, cgroup2 first: what is in any can be killed by it."""
        if self._beside is not None:
            self._beside.add(pid)
        for path in dict.fromkeys(self.paths.values()):
            if self._beside is None or path != self._beside.path:
                files.write(f"{path}/cgroup.procs", str(pid))

    def account_disks(self, devices: tuple[str, ...]) -> None:
        """Have the use of disks counted: Linux counts a disk's only from its first rule on.

        So it is since 6.10 ("blk-throttle: delay initialization until configuration"); lxd #7627
        saw the same before. A rule of 0 is no limit. It also gives a line of zeros to a disk that
        isn't used yet, by which none is told from unknown.
        """
        for device in devices if "blkio" in self.paths else ():
            with contextlib.suppress(KernelError):
                rule = self._file("blkio", "blkio.throttle.read_bps_device")
                files.write(rule, f"{device} 0")

    # --- limits ---------------------------------------------------------------------------------

    def place(self, limits: Limits) -> None:
        """Set the CPUs and memory nodes; refuse a limit of CPU time that nothing here would count."""
        if limits.cpu_time_s is not None and "cpuacct" not in self.paths:
            raise self._missing(f"cpu-time {limits.cpu_time_s:g} s", "cpuacct", "cpuacct.usage")
        if limits.cpuset_cpus is not None:
            what = f"cpuset-cpus {limits.cpuset_cpus}"
            self._set("cpuset", "cpuset.cpus", limits.cpuset_cpus, what)
        if limits.cpuset_mems is not None:
            what = f"cpuset-mems {limits.cpuset_mems}"
            self._set("cpuset", "cpuset.mems", limits.cpuset_mems, what)

    def arm(self, limits: Limits) -> None:
        """Set every other limit that is not None; -1 lifts one."""
        if limits.memory_bytes is not None or limits.memory_swap_bytes is not None:
            self._arm_memory(limits.memory_bytes, limits.memory_swap_bytes)
        if limits.pids is not None:
            text = "max" if limits.pids < 0 else str(limits.pids)
            self._set("pids", "pids.max", text, f"pids-limit {limits.pids}")
        if limits.cpu_shares is not None:
            what = f"cpu-shares {limits.cpu_shares}"
            self._set("cpu", "cpu.shares", str(limits.cpu_shares), what)
        self._arm_cpu(limits.cpu_quota_us, limits.cpu_period_us, limits.cpu_burst_us)

    def hold_disks(self, rules: Mapping[str, blockdev.Rule]) -> None:
        """Set the limits of disks."""
        if rules and "blkio" not in self.paths:
            raise self._missing("a disk's limit", "blkio", "blkio.throttle.write_bps_device")
        if rules:
            cgroup1_io.hold(
                self.paths["blkio"], rules, lambda what, at: self._missing(what, "blkio", at)
            )

    def weigh_disks(self, weight: int, disks: tuple[str, ...]) -> None:
        """Set its share of the disks."""
        if "blkio" not in self.paths:
            raise self._missing(f"blkio-weight {weight}", "blkio", "blkio.bfq.weight")
        cgroup1_io.weigh(self.paths["blkio"], weight, disks)

    def serve_disks(self) -> None:
        """Move the calling process into blkio alone: what it reads and writes is the container's."""
        files.write(self._file("blkio", "cgroup.procs"), "0")

    def release_server(self, pid: int) -> None:
        """Move such a process back out: it goes on without limits until it has nothing to do."""
        base = self.paths["blkio"].removesuffix("/" + "/".join(self._parts))
        with contextlib.suppress(KernelError):  # it has ended
            files.write(f"{base}/cgroup.procs", str(pid))

    def _arm_memory(self, memory: int | None, swap: int | None) -> None:
        """Set limit_in_bytes and memsw.limit_in_bytes, keeping memory <= memory+swap throughout."""
        now = self._memory_limit("memory.memsw.limit_in_bytes")
        both = memory if swap is None else swap
        steps = []
        if memory is not None:
            steps.append(("memory.limit_in_bytes", memory, f"memory {memory}"))
        # Where this Linux accounts no swap, only a limit asked for by name is missed.
        if both is not None and (now is not None or (swap is not None and swap >= 0)):
            step = ("memory.memsw.limit_in_bytes", both, f"memory-swap {both}")
            raising = both < 0 or (now is not None and 0 <= now < both)
            steps.insert(0 if raising else len(steps), step)
        for name, value, what in steps:
            self._set("memory", name, str(value), what)

    def _arm_cpu(self, quota: int | None, period: int | None, burst: int | None) -> None:
        """Set quota, period and burst, keeping burst <= quota throughout."""
        if quota is None and period is None and burst is None:
            return
        now_burst = files.integer(self._read("cpu", "cpu.cfs_burst_us"))
        files.check_burst(quota, burst, now_burst)
        if burst is not None and burst <= (now_burst or 0):
            self._set_burst(burst)
        self._set_quota(quota, period)
        if burst is not None and burst > (now_burst or 0):
            self._set_burst(burst)

    def _set_quota(self, quota: int | None, period: int | None) -> None:
        """Write period and quota; one that is refused is written again after the other.

        They can't be written together, and between the two the ratio may be more than a parent
        has, which is EINVAL (runc #3084).
        """
        asked = {"cpu.cfs_period_us": period, "cpu.cfs_quota_us": quota}
        steps = [(name, value) for name, value in asked.items() if value is not None]
        if steps and "cpu" not in self.paths:
            raise self._missing(_quota_text(quota, period), "cpu", steps[0][0])
        again = []
        try:
            for name, value in steps:
                try:
                    files.write(self._file("cpu", name), str(value))
                except KernelError as error:
                    if error.errno not in UNFIT or len(steps) == 1:
                        raise
                    again.append((name, value))
            for name, value in again:
                files.write(self._file("cpu", name), str(value))
        except KernelError as error:
            raise self._no_quota(error, _quota_text(quota, period)) from None

    def _no_quota(self, error: KernelError, what: str) -> NsContainerError:
        above = self.parents_quota()
        if error.errno in UNFIT and above is not None:
            return HostError(
                f"{what} was refused: a cgroup above has {above:g} CPUs and v1 allows no more",
                hint=f"ask for at most {above * 100:g}%",
            )
        return files.refusal(error, what, lambda path: self._missing(what, "cpu", path))

    def _set_burst(self, burst: int) -> None:
        self._set("cpu", "cpu.cfs_burst_us", str(burst), f"cpu-burst {burst}")

    def disarm_cpu(self) -> None:
        """Lift the quota, so that a throttled process can die at once."""
        if "cpu" in self.paths:
            with contextlib.suppress(KernelError):
                files.write(self._file("cpu", "cpu.cfs_quota_us"), "-1")

    def _file(self, controller: str, name: str) -> str:
        return f"{self.paths[controller]}/{name}"

    def _read(self, controller: str, name: str) -> str | None:
        if controller not in self.paths:
            return None
        return files.read_or_none(self._file(controller, name))

    def _set(self, controller: str, name: str, text: str, what: str) -> None:
        if controller not in self.paths:
            raise self._missing(what, controller, name)
        path = self._file(controller, name)
        try:
            files.write(path, text)
        except KernelError as error:
            if controller == "memory" and error.errno in IN_USE:
                raise self._too_much_in_use(what) from None
            raise files.refusal(
                error, what, lambda path: self._missing(what, controller, path)
            ) from None

    def _too_much_in_use(self, what: str) -> HostError:
        """Explain EBUSY: v1 refuses a limit that reclaim can't get the usage below."""
        used = self._read("memory", "memory.usage_in_bytes")
        return HostError(
            f"{what} can't be set: {used} bytes are in use and can't be given back",
            hint="choose a larger limit",
        )

    def _missing(self, what: str, controller: str, path: str) -> HostError:
        name = os.path.basename(path)
        if controller in self.paths:
            return HostError(
                f"{what} can't be set: this Linux has no {name}", hint=_SINCE.get(name)
            )
        if controller in self.barred:
            return HostError(
                f"{what} can't be set: this user has no cgroup of their own in "
                f"{self.barred[controller]} (cgroup v1)",
                hint=self.hint,
            )
        return HostError(
            f"{what} can't be set: this host has no cgroup v1 controller {controller} mounted, "
            "or the container was made without it",
            hint=f"mount -t cgroup -o {controller} cgroup /sys/fs/cgroup/{controller}; if "
            f"/proc/cgroups has it disabled, boot with cgroup_enable={controller}",
        )

    def read_back(self, *, disks: bool = True) -> dict[str, Any]:
        """Say what the limits' files hold now."""
        return {
            "cpu_quota_us": files.integer(self._read("cpu", "cpu.cfs_quota_us")),
            "cpu_period_us": files.integer(self._read("cpu", "cpu.cfs_period_us")),
            "cpu_burst_us": files.integer(self._read("cpu", "cpu.cfs_burst_us")),
            "cpu_shares": files.integer(self._read("cpu", "cpu.shares")),
            "cpu_weight": None,
            "cpuset_cpus": self._read("cpuset", "cpuset.cpus") or None,
            "memory_bytes": self._memory_limit("memory.limit_in_bytes"),
            "memory_swap_bytes": self._memory_limit("memory.memsw.limit_in_bytes"),
            "pids": files.integer(self._read("pids", "pids.max")),
            **(cgroup1_io.read_back(self.paths.get("blkio")) if disks else {}),
        }

    def _memory_limit(self, name: str) -> int | None:
        limit = files.integer(self._read("memory", name))
        return -1 if limit is not None and limit >= _UNLIMITED else limit

    def parents_quota(self) -> float | None:
        """Give the tightest CPU quota above, in CPUs; None where there is none."""
        quotas = []
        path = os.path.dirname(self.paths.get("cpu", "/"))
        while os.path.exists(f"{path}/cgroup.procs"):
            quota = files.integer(files.read_or_none(f"{path}/cpu.cfs_quota_us"))
            period = files.integer(files.read_or_none(f"{path}/cpu.cfs_period_us"))
            if quota is not None and quota >= 0 and period:
                quotas.append(quota / period)
            path = os.path.dirname(path)
        return min(quotas, default=None)

    # --- figures --------------------------------------------------------------------------------

    def reset_peak(self) -> None:
        """Begin memory.max_usage_in_bytes anew."""
        if "memory" in self.paths:
            with contextlib.suppress(KernelError):
                files.write(self._file("memory", "memory.max_usage_in_bytes"), "0")

    def reader(self, own_device: str | None = None) -> FileReader:
        """Open the accounting files; see :meth:`.cgroup.Cgroup.reader`."""
        counts = figures.memsw_counts(os.uname().release)
        if own_device is not None:
            self.account_disks((own_device,))
        numbers, texts = figures.v1(self.paths, memsw_counts=counts, own_device=own_device)
        beside = self._beside
        if beside is None:
            return FileReader(numbers, texts, None)
        texts += figures.pressure(beside.path)
        return FileReader(numbers, texts, beside.file("cgroup.events"))

    # --- processes ------------------------------------------------------------------------------

    def pids(self) -> list[int]:
        """List its processes (those of any hierarchy: one that is half moved in counts).

        Only who serves its disk (:meth:`serve_disks`) is in blkio and nowhere else.
        """
        found: set[int] = set()
        others = {path for name, path in self.paths.items() if name != "blkio"}
        for path in others or self.paths.values():
            found.update(files.tree_pids(path))
        return sorted(found)

    def populated(self) -> bool:
        """Tell whether a process is left in it."""
        return self._beside.populated() if self._beside is not None else bool(self.pids())

    def kill(self) -> None:
        """Kill all of it."""
        if self._beside is None or not self._beside.kill():
            kill_each(self.pids, self._freeze, self.thaw)
        elif "freezer" in self.paths:
            self.thaw()  # v1's freezer holds even a process that is to die

    def freeze(self) -> None:
        """Stop its processes and wait until they stand.

        Raises
        ------
        HostError
            Neither the freezer controller nor cgroup2 (>= 5.2) is there.
        """
        if not self._can_freeze():
            message = "the container can't be paused: no cgroup2 mount, no freezer controller"
            raise HostError(message, hint="mount -t cgroup2 none /sys/fs/cgroup/unified")
        self._freeze()

    def _can_freeze(self) -> bool:
        return "freezer" in self.paths or (self._beside is not None and self._beside.can_freeze())

    def _freeze(self) -> None:
        if self._beside is not None and self._beside.can_freeze():
            self._beside.freeze()
        elif "freezer" in self.paths:
            wait_frozen(self._freezer_froze)

    def _freezer_froze(self) -> bool:
        # Written again each time: FREEZING can stay on while the container forks (runc #1609).
        files.write(self._file("freezer", "freezer.state"), "FROZEN")
        return self._read("freezer", "freezer.state") == "FROZEN"

    def thaw(self) -> None:
        """Let them go on."""
        if self._beside is not None and self._beside.can_freeze():
            self._beside.thaw()
        if "freezer" in self.paths:
            with files.gone_is_done():
                files.write(self._file("freezer", "freezer.state"), "THAWED")

    def remove(self, timeout_s: float = 2.0, *, parents: bool = True) -> None:
        """Remove its directories, then the parents where empty."""
        files.remove_all(self.paths.values(), timeout_s)
        if parents:
            for path in dict.fromkeys(self.paths.values()):
                files.remove_empty(path.removesuffix("/" + "/".join(self._parts)), self._parts[:-1])

    def close(self) -> None:
        """Close what is open."""
        if self._beside is not None:
            self._beside.close()


# --- texts -----------------------------------------------------------------------------------

_SINCE: Final = {
    "cpu.cfs_burst_us": "it needs Linux 5.14",
    "cpu.cfs_quota_us": "it needs a Linux with CONFIG_CFS_BANDWIDTH",
    "cpu.cfs_period_us": "it needs a Linux with CONFIG_CFS_BANDWIDTH",
    "memory.memsw.limit_in_bytes": "boot with swapaccount=1, or leave --memory-swap out",
}


def _quota_text(quota: int | None, period: int | None) -> str:
    if quota is None:
        return f"a cpu period of {period} µs"
    return f"a cpu quota of {quota} µs" + ("" if period is None else f" each {period} µs")
