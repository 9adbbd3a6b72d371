"""What a process's descendants use, from /proc (proc(5)): for where there is no cgroup to account it.

CPU time is to the nanosecond as long as a process lives (its CPU-time clock, clock_getcpuclockid(3)); of
its children that it has waited for, Linux tells ticks of 10 ms. A descendant whose parent ignores SIGCHLD
is in nobody's account once it has ended (wait(2)).
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from nscontainer.linux.procfs import USER_HZ, status

_NS_A_TICK: Final = 1_000_000_000 // USER_HZ
_CPUCLOCK_SCHED: Final = 2  # include/linux/posix-timers_types.h
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Usage:
    """What some processes use, in all: ns, bytes, tasks. -1 is what Linux doesn't tell."""

    cpu_ns: int = 0
    user_ns: int = 0
    system_ns: int = 0
    rss: int = 0
    tasks: int = 0
    anon: int = 0
    shmem: int = 0
    peak: int = 0
    """The highest resident set that one of them had by itself."""
    read_bytes: int = 0
    write_bytes: int = 0

    def add(self, other: Usage) -> None:
        """Count another's as well; its peak where that is higher."""
        for name in self.__slots__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if name == "peak":
                setattr(self, name, max(mine, theirs))
            else:
                setattr(self, name, -1 if -1 in (mine, theirs) else mine + theirs)


def descendants(root: int) -> Iterator[int]:
    """List the processes below one, itself left out; each parent before its children."""
    children = _children if _are_named() else _all_children().get
    todo = list(children(root) or ())
    while todo:
        pid = todo.pop()
        yield pid
        todo += children(pid) or ()


def _children(pid: int) -> list[int]:
    """List a process's children, of every thread."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with (
                contextlib.suppress(FileNotFoundError, ProcessLookupError),
                open(f"/proc/{pid}/task/{task}/children", "rb") as file,
            ):
                found += map(int, file.read().split())
    return found


@functools.cache
def _are_named() -> bool:
    """Tell whether this Linux names a process's children: CONFIG_PROC_CHILDREN, which is usual."""
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def _all_children() -> dict[int, list[int]]:
    """Find every process's children by asking each for its parent."""
    found: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        fields = _stat(int(name)) if name.isdigit() else None
        if fields is not None:
            found.setdefault(int(fields[1]), []).append(int(name))
    return found


def _stat(pid: int) -> list[bytes] | None:
    """Read /proc/PID/stat from the state on; None where the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def usage(pid: int, *, whole: bool) -> Usage | None:
    """Read what one process uses, and what those used that it has waited for; None where it is gone.

    Parameters
    ----------
    whole
        Read what is slow as well: anonymous and shared memory, the peak, the bytes of disks.
    """
    fields = _stat(pid)
    if fields is None:
        return None
    user, system, waited_user, waited_system = (int(f) * _NS_A_TICK for f in fields[11:15])
    cpu = cpu_ns(pid)
    found = Usage(
        cpu_ns=(user + system if cpu is None else cpu) + waited_user + waited_system,
        user_ns=user + waited_user,
        system_ns=system + waited_system,
        rss=int(fields[21]) * _PAGE,
        tasks=int(fields[17]),
    )
    if fields[0] == b"Z":
        found.rss = found.tasks = 0
    if whole:
        _add_whole(pid, found)
    return found


def cpu_ns(pid: int) -> int | None:
    """Read the CPU time of all threads of a process; None where it has ended."""
    try:
        return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:
        return None


def _add_whole(pid: int, found: Usage) -> None:
    memory = _numbers(f"/proc/{pid}/status", ("RssAnon", "RssShmem", "VmHWM"))
    found.anon, found.shmem, found.peak = (
        memory.get(name, 0) << 10 for name in ("RssAnon", "RssShmem", "VmHWM")
    )
    try:
        disk = _numbers(f"/proc/{pid}/io", ("read_bytes", "write_bytes"))
    except PermissionError:  # of one that isn't dumpable, or another user's
        found.read_bytes = found.write_bytes = -1
    else:
        found.read_bytes = disk.get("read_bytes", 0)
        found.write_bytes = disk.get("write_bytes", 0)


def _numbers(path: str, names: tuple[str, ...]) -> dict[str, int]:
    found = {}
    with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(path, "rb") as file:
        for line in file.read().decode(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name in names:
                found[name] = int(value.split()[0])
    return found


def tasks_of_user(uid: int) -> int:
    """Count the threads that RLIMIT_NPROC counts for a user, as far as /proc shows them."""
    every = (status(int(name)) for name in os.listdir("/proc") if name.isdigit())
    mine = (facts for facts in every if facts.get("Uid", "-1").split()[0] == str(uid))
    return sum(int(facts.get("Threads", "0")) for facts in mine)
