"""The accounting schema: one set of columns, whichever cgroup version the machine has.

A sample is a row of signed 64-bit integers: two of its own (when it was taken and how long the
reading took), then one per :data:`COLUMNS`. A figure the host can't give is :data:`NA`.
The names are cgroup's own, so a reader of the Linux documentation knows them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

NA: Final = -(1 << 63)
"""What stands in a row for a figure the host can't give (never zero)."""


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of the accounting."""

    name: str
    unit: Literal["ns", "µs", "bytes", "count", "CPUs"]
    kind: Literal["counter", "gauge", "peak"]
    """A counter only grows (totals are final minus baseline); a peak is a high-water mark."""
    meaning: str
    v1: str
    v2: str
    scale: float = 1.0
    """What a stored integer is multiplied by to be in ``unit``."""


def _counter(
    name: str, unit: Literal["ns", "µs", "bytes", "count"], meaning: str, v1: str, v2: str
) -> Column:
    return Column(name, unit, "counter", meaning, v1, v2)


def _gauge(name: str, unit: Literal["bytes", "count"], meaning: str, v1: str, v2: str) -> Column:
    return Column(name, unit, "gauge", meaning, v1, v2)


COLUMNS: Final[tuple[Column, ...]] = (
    _counter("cpuacct.usage", "ns", "CPU time used", "cpuacct.usage", "cpu.stat usage_usec"),
    _counter(
        "cpuacct.usage_user",
        "ns",
        "CPU time in user mode",
        "cpuacct.usage_user",
        "cpu.stat user_usec",
    ),
    _counter(
        "cpuacct.usage_sys",
        "ns",
        "CPU time in kernel mode",
        "cpuacct.usage_sys",
        "cpu.stat system_usec",
    ),
    _counter(
        "cpu.nr_periods",
        "count",
        "quota periods in which it could run",
        "cpu.stat nr_periods",
        "cpu.stat nr_periods",
    ),
    _counter(
        "cpu.nr_throttled",
        "count",
        "quota periods in which it was throttled",
        "cpu.stat nr_throttled",
        "cpu.stat nr_throttled",
    ),
    _counter(
        "cpu.throttled_time",
        "ns",
        "time its CPUs stood still for the quota",
        "cpu.stat throttled_time",
        "cpu.stat throttled_usec",
    ),
    Column(
        "cpu.quota",
        "CPUs",
        "gauge",
        "the CPU quota in force, NA where unlimited",
        "cpu.cfs_quota_us / cpu.cfs_period_us",
        "cpu.max",
        1e-6,
    ),
    _gauge(
        "memory.usage",
        "bytes",
        "memory charged, page cache included",
        "memory.usage_in_bytes",
        "memory.current",
    ),
    Column(
        "memory.peak",
        "bytes",
        "peak",
        "highest memory.usage",
        "memory.max_usage_in_bytes",
        "memory.peak",
    ),
    _gauge("memory.anon", "bytes", "anonymous memory", "memory.stat total_rss", "memory.stat anon"),
    _gauge("memory.file", "bytes", "page cache", "memory.stat total_cache", "memory.stat file"),
    _gauge(
        "memory.shmem",
        "bytes",
        "shared memory and tmpfs",
        "memory.stat total_shmem",
        "memory.stat shmem",
    ),
    _gauge(
        "memory.working_set",
        "bytes",
        "memory.usage less the inactive page cache",
        "memory.usage_in_bytes - total_inactive_file",
        "memory.current - inactive_file",
    ),
    _counter(
        "memory.oom_kill",
        "count",
        "processes killed for want of memory",
        "memory.oom_control oom_kill",
        "memory.events oom_kill",
    ),
    _counter(
        "memory.failcnt",
        "count",
        "times the memory limit was hit",
        "memory.failcnt + memory.memsw.failcnt",
        "memory.events max",
    ),
    _gauge(
        "pids.current", "count", "tasks (processes and threads)", "pids.current", "pids.current"
    ),
    Column(
        "pids.peak",
        "count",
        "peak",
        "highest pids.current (from the samples on Linux < 6.1)",
        "pids.peak",
        "pids.peak",
    ),
    _counter(
        "blkio.read_bytes",
        "bytes",
        "bytes read from block devices",
        "blkio.throttle.io_service_bytes Read",
        "io.stat rbytes",
    ),
    _counter(
        "blkio.write_bytes",
        "bytes",
        "bytes written to block devices",
        "blkio.throttle.io_service_bytes Write",
        "io.stat wbytes",
    ),
    _counter(
        "blkio.reads", "count", "read operations", "blkio.throttle.io_serviced Read", "io.stat rios"
    ),
    _counter(
        "blkio.writes",
        "count",
        "write operations",
        "blkio.throttle.io_serviced Write",
        "io.stat wios",
    ),
    _counter("net.rx_bytes", "bytes", "bytes received", "eth0: IFLA_STATS_LINK_64", "the same"),
    _counter("net.tx_bytes", "bytes", "bytes sent", "eth0: IFLA_STATS_LINK_64", "the same"),
    _counter(
        "net.rx_dropped",
        "count",
        "packets dropped on receipt",
        "eth0: IFLA_STATS_LINK_64",
        "the same",
    ),
    _counter(
        "net.tx_dropped",
        "count",
        "packets dropped on sending",
        "eth0: IFLA_STATS_LINK_64",
        "the same",
    ),
    _counter(
        "psi.cpu",
        "µs",
        "time some task waited for a CPU",
        "a parallel cgroup2's cpu.pressure",
        "cpu.pressure some total",
    ),
    _counter(
        "psi.memory",
        "µs",
        "time some task waited for memory",
        "a parallel cgroup2's memory.pressure",
        "memory.pressure some total",
    ),
    _counter(
        "psi.io",
        "µs",
        "time some task waited for I/O",
        "a parallel cgroup2's io.pressure",
        "io.pressure some total",
    ),
)

NAMES: Final[tuple[str, ...]] = tuple(column.name for column in COLUMNS)
INDEX: Final[dict[str, int]] = {name: i for i, name in enumerate(NAMES)}
"""Where a column stands among :data:`COLUMNS` (a row has two fields before them)."""

ROW_PREFIX: Final = 2
"""Fields of a row before the columns: elapsed ns since release, and ns the reading took."""
ROW_FIELDS: Final = ROW_PREFIX + len(COLUMNS)
ROW_BYTES: Final = 8 * ROW_FIELDS

WHOLE_NS: Final = 100_000_000
"""How often all figures are read; in the rows between only CPU time, throttling, memory's usage and
the number of processes are new. It halves what sampling costs."""
MOST_ROWS: Final = 1 << 19
"""After each so many (125 MB; three hours at 20 ms) the interval doubles: a week is 0.7 GB."""
