"""What processes have used that have no cgroup: the living ones by /proc, the ended ones by wait4(2).

Nothing but /proc needs Linux, so that an unconfined run is accounted on other systems too.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import sys
from typing import TYPE_CHECKING, Final

from nscontainer.schema import COLUMNS, INDEX, NA

if TYPE_CHECKING:
    from nscontainer.linux.proctree import Usage

LINUX: Final = sys.platform == "linux"
_BLOCK: Final = 512  # of ru_inblock and ru_oublock: getrusage(2)
_MAXRSS: Final = 1024 if LINUX else 1  # macOS says bytes
_COUNTERS: Final = ("cpuacct.usage", "cpuacct.usage_user", "cpuacct.usage_sys",
                    "blkio.read_bytes", "blkio.write_bytes")  # fmt: skip


@dataclasses.dataclass(slots=True)
class Ended:
    """What processes used that have been waited for; what those had waited for is in it."""

    cpu_ns: int = 0
    user_ns: int = 0
    system_ns: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    peak: int = 0

    def add(self, used: resource.struct_rusage, sign: int = 1) -> None:
        """Count one; with ``sign`` -1 take it off: what was used before the code was let go."""
        user, system = round(used.ru_utime * 1e9), round(used.ru_stime * 1e9)
        self.user_ns += sign * user
        self.system_ns += sign * system
        self.cpu_ns = self.user_ns + self.system_ns
        if LINUX:
            self.read_bytes += sign * used.ru_inblock * _BLOCK
            self.write_bytes += sign * used.ru_oublock * _BLOCK
        if sign > 0:
            self.peak = max(self.peak, used.ru_maxrss * _MAXRSS)


class Accounts:
    """Reads rows, as a :class:`nscontainer.linux.cgroup.Reader`.

    Where there is no /proc, only what has ended counts: while it runs, every figure is NA.

    Parameters
    ----------
    first
        A process that counts with all below it; without one, all below this process count.
    """

    def __init__(self, first: int | None = None) -> None:
        self._first = first
        self.ended = Ended()
        self.executed = False
        """The process is the user's program: before, its memory is a copy of this one's."""
        self.over = False
        """All has ended and been waited for: the figures are exact."""
        self.own_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS
        self._row = [NA] * len(COLUMNS)
        self._highest = 0
        self._tasks = 0
        self.sees_living = LINUX and os.path.exists("/proc/self/stat")
        """Whether it can tell what a process uses while that runs."""

    def begin(self) -> None:
        """Count from here on: what the descendants have used so far is not the user's code's."""
        self._row = [NA] * len(COLUMNS)
        self._highest = self._tasks = 0
        for name in _COUNTERS if LINUX else _COUNTERS[:3]:
            self._row[INDEX[name]] = 0

    def read(self, *, whole: bool = True) -> list[int]:
        """Read a row; without ``whole``, CPU time, memory in use and tasks are new."""
        if self.sees_living and not self.over:
            self._read_living(whole=whole)
        elif self.over:
            self._set_ended()
        return list(self._row)

    def fileno_populated(self) -> int | None:
        """Give None: there is no file that tells."""
        return None

    def close(self) -> None:
        """Close nothing: no file is kept open."""

    def _read_living(self, *, whole: bool) -> None:
        from nscontainer.linux import proctree

        live = proctree.Usage()
        top = os.getpid() if self._first is None else self._first
        for pid in (*(() if self._first is None else (top,)), *proctree.descendants(top)):
            one = proctree.usage(pid, whole=whole)
            if one is not None:
                live.add(one)
        self._set("cpuacct.usage", self.ended.cpu_ns + live.cpu_ns)
        self._set("cpuacct.usage_user", self.ended.user_ns + live.user_ns)
        self._set("cpuacct.usage_sys", self.ended.system_ns + live.system_ns)
        self._tasks = max(self._tasks, live.tasks)
        if self.executed:
            self._highest = max(self._highest, live.rss, live.peak)
            self._row[INDEX["memory.usage"]] = live.rss
            self._row[INDEX["memory.peak"]] = self._highest
        self._row[INDEX["pids.current"]] = live.tasks
        self._row[INDEX["pids.peak"]] = self._tasks
        if whole:
            self._set_whole(live)

    def _set_whole(self, live: Usage) -> None:
        if self.executed:
            self._row[INDEX["memory.anon"]] = live.anon
            self._row[INDEX["memory.shmem"]] = live.shmem
        for column, field in (
            ("blkio.read_bytes", "read_bytes"),
            ("blkio.write_bytes", "write_bytes"),
        ):
            here = getattr(live, field)
            if here == -1:
                self._row[INDEX[column]] = NA
            else:
                self._set(column, getattr(self.ended, field) + here)

    def _set_ended(self) -> None:
        for column, value in zip(_COUNTERS, (
            self.ended.cpu_ns, self.ended.user_ns, self.ended.system_ns,
            self.ended.read_bytes, self.ended.write_bytes,
        ), strict=True):  # fmt: skip
            if LINUX or column.startswith("cpuacct"):
                self._set(column, value)
        # A process that was forked of this one has this one's peak for its own: getrusage(2).
        if self.ended.peak > self.own_peak or not self.sees_living:
            self._highest = max(self._highest, self.ended.peak)
        self._row[INDEX["memory.peak"]] = self._highest or NA
        if self.sees_living:
            for column in ("memory.usage", "memory.anon", "memory.shmem", "pids.current"):
                self._row[INDEX[column]] = 0

    def _set(self, column: str, value: int) -> None:
        """Let a counter grow only: what Linux tells of those waited for is in whole ticks."""
        at = INDEX[column]
        self._row[at] = max(self._row[at], value)
