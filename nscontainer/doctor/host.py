"""The doctor's look at cgroups, CPUs and disks. Runs in a process of its own, see `probe`."""

from __future__ import annotations

import glob
import os
import secrets
from collections.abc import Iterator
from typing import Final

from nscontainer import units
from nscontainer.doctor.kernel import is_root, read, storage_directory
from nscontainer.doctor.seen import Seen
from nscontainer.errors import NsContainerError, one_line
from nscontainer.linux import cgroup, delegation, procfs
from nscontainer.schema import INDEX, NA
from nscontainer.spec import Limits

_CONTROLLERS: Final = {
    "cpu": "--cpu and --cpu-shares",
    "cpuset": "--cpuset-cpus",
    "memory": "--memory and every memory figure",
    "pids": "--pids-limit",
    "io": "the blkio figures",
}
_V1: Final = {"io": "blkio"}
_NO_CGROUP: Final = (
    "no limit can be had, and figures come from /proc: a limit asked for is an error"
)
_TRIAL: Final = Limits(cpu_quota_us=20_000, cpu_period_us=100_000, pids=100, memory_bytes=64 << 20)


def cgroups() -> Iterator[Seen]:
    """Make a cgroup, set limits, read them back, read the figures, remove it."""
    layout = delegation.prepare()  # as the spawner does: this process goes into a scope of its own
    if layout.version == "none":
        detail = layout.cause or "there is none"
        yield Seen("cgroup", "missing", detail, _NO_CGROUP, "delegation", mend=layout.hint or "")
        return
    version = {"v1": "version 1", "v2": "version 2", "hybrid": "version 1, with version 2 beside"}
    detail = version[layout.version]
    try:
        made = cgroup.create(
            layout,
            f"doctor-{secrets.token_hex(4)}",
            want=cgroup.default_want(layout) | {"freezer", "io"},
        )
    except (NsContainerError, OSError) as error:
        detail += f"; none can be made: {getattr(error, 'message', error)}"
        root = is_root()
        cause = "cgroup-write" if root else "delegation"
        yield Seen("cgroup", "missing", detail, _NO_CGROUP, cause, needed=root)
        return
    try:
        yield Seen("cgroup", "works", f"{detail}; one was made and removed")
        yield from _controllers(made, layout)
        yield from _limits(made)
        yield from _figures(made)
        yield from _control(made)
    finally:
        made.remove()
        made.close()


def _controllers(made: cgroup.Cgroup, layout: cgroup.Layout) -> Iterator[Seen]:
    for name, lost in _CONTROLLERS.items():
        key = name if made.version == "v2" else _V1.get(name, name)
        label = f"controller {name}"
        if key in made.paths:
            yield Seen(label, "works", made.paths[key].rsplit("/nscontainer/", 1)[0])
        else:
            why = f"without it no {lost}"
            cause, hint = f"controller:{key}", layout.hint or ""
            where = layout.barred.get(key)
            detail = (
                f"there is one in {where}, not for us" if where else f"{key} isn't there for us"
            )
            yield Seen(label, "missing", detail, why, cause, mend=hint if where else "")


def _limits(made: cgroup.Cgroup) -> Iterator[Seen]:
    wants = {
        "CPU quota": (Limits(cpu_quota_us=20_000, cpu_period_us=100_000), "cpu_quota_us", 20_000),
        "memory limit": (Limits(memory_bytes=64 << 20), "memory_bytes", 64 << 20),
        "pids limit": (Limits(pids=100), "pids", 100),
    }
    for name, (asked, key, value) in wants.items():
        try:
            made.arm(asked)
            got = made.read_back()[key]
        except (NsContainerError, OSError) as error:
            yield Seen(name, "missing", one_line(error), "a limit asked for is an error here")
            continue
        same = got == value
        yield Seen(name, "works" if same else "limited", f"{value} written, {got} read back")
    swap = made.read_back()["memory_swap_bytes"]
    if swap is None:
        why = "--memory-swap can't be set, and memory over the limit may go to swap"
        yield Seen("swap limit", "missing", "no swap accounting", why, "swap")
    else:
        yield Seen("swap limit", "works", "swap is accounted and limited")
    above = made.parents_quota()
    if above is not None:
        why = "every container here is throttled to it as well, whatever --cpu says"
        detail = f"{units.format_cpu(above)} of a CPU, set on a cgroup above ours"
        yield Seen("quota above", "limited", detail, why, "quota-above")


def _figures(made: cgroup.Cgroup) -> Iterator[Seen]:
    reader = made.reader()
    try:
        row = reader.read()
    finally:
        reader.close()
    have = [name for name, i in INDEX.items() if row[i] != NA]
    basis = {"cpuacct.usage": "CPU time", "memory.usage": "memory", "memory.peak": "memory peak"}
    lacking = [text for name, text in basis.items() if name not in have]
    kept = len(have)
    source = "nanoseconds" if made.version != "v2" else "microseconds"
    detail = f"{kept} figures a sample, CPU time in {source}"
    if lacking:
        why = f"NA in every result: {', '.join(lacking)}"
        yield Seen("sampling", "limited", detail, why, "figures")
    else:
        yield Seen("sampling", "works", detail)
    pressure = [name for name in ("psi.cpu", "psi.memory", "psi.io") if name in have]
    if pressure:
        yield Seen("pressure (PSI)", "works", ", ".join(pressure))
    else:
        detail = "on for the host, not for a cgroup" if os.path.exists("/proc/pressure") else "off"
        why = "the psi.* figures are NA: how long the code waited for CPU, memory, disk"
        cause = "psi-cgroup2" if os.path.exists("/proc/pressure") else "psi"
        yield Seen("pressure (PSI)", "missing", detail, why, cause)


def _control(made: cgroup.Cgroup) -> Iterator[Seen]:
    unified = made.paths.get("unified")
    if unified and os.path.exists(f"{unified}/cgroup.kill"):
        yield Seen("cgroup.kill", "works", "a container is killed at one stroke")
    else:
        detail = "killed process by process instead"
        cause = "linux-old" if unified else "unified"
        yield Seen("cgroup.kill", "limited", detail, "slower, and racing with forks", cause)
    try:
        made.freeze()
        made.thaw()
    except (NsContainerError, OSError) as error:
        yield Seen("freezer", "missing", one_line(error), "without it no pause", "unified")
    else:
        yield Seen("freezer", "works", "pause and resume")


def cpus() -> Iterator[Seen]:
    """Look at what makes CPU measurements uncertain."""
    count = len(os.sched_getaffinity(0))
    yield Seen("CPUs", "works", f"{count} of {os.cpu_count()} usable")
    with open("/proc/stat", encoding="ascii") as file:
        fields = [int(word) for word in file.readline().split()[1:]]
    steal = procfs.steal_ns() / 1e9
    busy = sum(fields[:8]) - fields[3] - fields[4]  # less idle and iowait
    share = fields[7] / busy if len(fields) > 7 and busy else 0.0
    detail = f"{share:.1%} of this machine's busy CPU time since boot ({steal:.0f} s)"
    if share > 0.02:
        why = "the hypervisor gives the CPU to others at times: each result says how much"
        yield Seen("steal", "limited", detail, why, "steal")
    else:
        yield Seen("steal", "works", detail)
    yield from _governor()


def _governor() -> Iterator[Seen]:
    paths = glob.glob("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
    found = sorted({read(path) for path in paths} - {""})
    why = "the clock follows the load, so the same work takes a varying CPU time"
    if not found:
        detail = "not shown to this machine, as usual in a VM"
        yield Seen("CPU governor", "works", detail)
    elif found == ["performance"]:
        yield Seen("CPU governor", "works", "performance")
    else:
        yield Seen("CPU governor", "limited", ", ".join(found), why, "governor")


def disk() -> Iterator[Seen]:
    """Look at the space where containers' writes go."""
    where = storage_directory()
    facts = os.statvfs(where)
    free = facts.f_bavail * facts.f_frsize
    detail = f"{units.format_size(free)} at {where}"
    if free < 1 << 26:
        why = "a container's writes have no room"
        yield Seen("free disk", "missing", detail, why, "disk", needed=True)
    elif free < 1 << 30:
        yield Seen("free disk", "limited", detail, "little for containers' writes", "disk")
    else:
        yield Seen("free disk", "works", detail)
