"""Which file of which version gives which column of :mod:`nscontainer.schema`.

The order is the order of reading: CPU time first, what only changes slowly last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from nscontainer import schema
from nscontainer.linux.cgroup_reader import (
    LONG,
    TEXT,
    WORD,
    Row,
    Source,
    Take,
    keys,
    memory_stat,
    number,
)
from nscontainer.schema import NA

_QUOTA: Final = schema.INDEX["cpu.quota"]
_FAILCNT: Final = schema.INDEX["memory.failcnt"]
_BLKIO: Final = slice(schema.INDEX["blkio.read_bytes"], schema.INDEX["blkio.writes"] + 1)


# --- v1 --------------------------------------------------------------------------------------


def v1(paths: Mapping[str, str], *, memsw_counts: bool) -> list[Source]:
    """List a v1 cgroup's files; a controller that is not in ``paths`` gives none.

    Parameters
    ----------
    paths
        Controller to directory.
    memsw_counts
        Whether Linux counts the hits of the memory+swap limit (:func:`memsw_counts`).
    """
    take_period, take_quota = _period_and_quota()
    io_bytes = _read_write("blkio.read_bytes", "blkio.write_bytes")
    io_count = _read_write("blkio.reads", "blkio.writes")
    table: list[tuple[str, str, int, Take]] = [
        ("cpuacct", "cpuacct.usage", WORD, number("cpuacct.usage")),
        ("cpuacct", "cpuacct.usage_user", WORD, number("cpuacct.usage_user")),
        ("cpuacct", "cpuacct.usage_sys", WORD, number("cpuacct.usage_sys")),
        ("cpu", "cpu.stat", TEXT, _V1_CPU_STAT),
        ("cpu", "cpu.cfs_period_us", WORD, take_period),
        ("cpu", "cpu.cfs_quota_us", WORD, take_quota),
        ("memory", "memory.usage_in_bytes", WORD, number("memory.usage")),
        ("memory", "memory.max_usage_in_bytes", WORD, number("memory.peak")),
        ("memory", "memory.oom_control", TEXT, _V1_OOM_CONTROL),
        ("memory", "memory.failcnt", WORD, number("memory.failcnt")),
        ("memory", "memory.memsw.failcnt", WORD, _add_failcnt),
        ("memory", "memory.stat", TEXT, _V1_MEMORY_STAT if memsw_counts else _failcnt_unknown),
        ("pids", "pids.current", WORD, number("pids.current")),
        ("pids", "pids.peak", WORD, number("pids.peak")),  # since Linux 6.1
        ("blkio", "blkio.throttle.io_service_bytes", LONG, io_bytes),
        ("blkio", "blkio.throttle.io_serviced", LONG, io_count),
    ]
    return [
        (f"{paths[controller]}/{name}", size, take)
        for controller, name, size, take in table
        if controller in paths
    ]


_V1_CPU_STAT: Final = keys(
    {
        "nr_periods": "cpu.nr_periods",
        "nr_throttled": "cpu.nr_throttled",
        "throttled_time": "cpu.throttled_time",
    }
)
_V1_MEMORY_STAT: Final = memory_stat(
    {
        "total_rss": "memory.anon",
        "total_cache": "memory.file",
        "total_shmem": "memory.shmem",
    },
    "total_inactive_file",
)
_V1_OOM_CONTROL: Final = keys({"oom_kill": "memory.oom_kill"})  # since Linux 4.13


def memsw_counts(release: str) -> bool:
    """Tell whether ``memory.memsw.failcnt`` counts, by ``os.uname().release``.

    Since Linux 6.15 only memory.failcnt does ("page_counter: track failcnt only for legacy
    cgroups"): on 6.18 it stays 0 through an OOM kill.
    """
    return tuple(map(int, re.findall(r"\d+", release)[:2])) < (6, 15)


def _add_failcnt(data: bytes, row: Row) -> None:
    """Add the hits of the memory+swap limit: where both limits are equal, all count there.

    try_charge() in mm/memcontrol.c charges memory+swap first, and a failed charge counts once.
    """
    if row[_FAILCNT] != NA:
        row[_FAILCNT] += int(data)


_SAME_LIMIT: Final = re.compile(rb"\nhierarchical_memory_limit (\d{1,18})\nhierarchical_memsw_limit \1\n")
"""Memory and memory+swap limited to the same; 19 digits are no limit."""


def _failcnt_unknown(data: bytes, row: Row) -> None:
    """Take memory.stat where hits of an equal memory+swap limit are not counted."""
    _V1_MEMORY_STAT(data, row)
    if _SAME_LIMIT.search(data):
        row[_FAILCNT] = NA


def _period_and_quota() -> tuple[Take, Take]:
    """Take period and quota, two files, as one column; the period goes first."""
    period = 0

    def take_period(data: bytes, _row: Row) -> None:
        nonlocal period
        period = int(data)

    def take_quota(data: bytes, row: Row) -> None:
        quota = int(data)
        if quota >= 0 and period:
            row[_QUOTA] = quota * 1_000_000 // period  # the column's scale is 1e-6

    return take_period, take_quota


_READ: Final = re.compile(rb" Read (\d+)")
_WRITE: Final = re.compile(rb" Write (\d+)")


def _read_write(read_column: str, write_column: str) -> Take:
    """Take the ``MAJOR:MINOR Read|Write N`` lines of a blkio file, the devices together.

    A file without a device is no zero: see :meth:`.cgroup1.Cgroup1.account_disks`.
    """
    read, write = schema.INDEX[read_column], schema.INDEX[write_column]

    def take(data: bytes, row: Row) -> None:
        reads = _READ.findall(data)
        if reads:
            row[read] = sum(map(int, reads))
            row[write] = sum(map(int, _WRITE.findall(data)))

    return take


# --- v2 --------------------------------------------------------------------------------------


def v2(path: str, peak_fd: int | None) -> list[Source]:
    """List a v2 cgroup's files, without pressure.

    Parameters
    ----------
    path
        Its directory.
    peak_fd
        memory.peak, open already (the reader closes it), or None.
    """
    sources: list[Source] = [
        (f"{path}/{name}", size, take)
        for name, size, take in (
            ("cpu.stat", TEXT, _V2_CPU_STAT),  # without the controller: usage, user, system
            ("cpu.max", WORD, _take_cpu_max),
            ("memory.current", WORD, number("memory.usage")),
            ("memory.stat", TEXT, _V2_MEMORY_STAT),
            ("memory.events", TEXT, _V2_MEMORY_EVENTS),
            ("pids.current", WORD, number("pids.current")),
            ("pids.peak", WORD, number("pids.peak")),  # since Linux 6.1
            ("io.stat", LONG, _take_io_stat),
        )
    ]
    if peak_fd is not None:
        sources.append((peak_fd, WORD, number("memory.peak")))
    return sources


_V2_CPU_STAT: Final = keys(
    {
        "usage_usec": "cpuacct.usage",
        "user_usec": "cpuacct.usage_user",
        "system_usec": "cpuacct.usage_sys",
        "nr_periods": "cpu.nr_periods",
        "nr_throttled": "cpu.nr_throttled",
        "throttled_usec": "cpu.throttled_time",
    },
    scale={
        "cpuacct.usage": 1000,
        "cpuacct.usage_user": 1000,
        "cpuacct.usage_sys": 1000,
        "cpu.throttled_time": 1000,
    },
)
_V2_MEMORY_STAT: Final = memory_stat(
    {"anon": "memory.anon", "file": "memory.file", "shmem": "memory.shmem"}, "inactive_file"
)
_V2_MEMORY_EVENTS: Final = keys({"max": "memory.failcnt", "oom_kill": "memory.oom_kill"})


def _take_cpu_max(data: bytes, row: Row) -> None:
    if not data.startswith(b"max"):
        quota, period = data.split()
        row[_QUOTA] = int(quota) * 1_000_000 // int(period)  # the column's scale is 1e-6


_IO: Final = re.compile(rb"rbytes=(\d+) wbytes=(\d+) rios=(\d+) wios=(\d+)")


def _take_io_stat(data: bytes, row: Row) -> None:
    """Take the lines of all devices together; a device may have a line without figures."""
    lines = _IO.findall(data)
    row[_BLKIO] = [sum(map(int, column)) for column in zip(*lines, strict=True)] or [0, 0, 0, 0]


# --- both ------------------------------------------------------------------------------------


def pressure(path: str) -> list[Source]:
    """List a cgroup2 directory's pressure files (Documentation/accounting/psi.rst)."""
    return [
        (f"{path}/{kind}.pressure", TEXT, _some_total(f"psi.{kind}"))
        for kind in ("cpu", "memory", "io")
    ]


def _some_total(column: str) -> Take:
    """Take ``some … total=N``, in µs."""
    index = schema.INDEX[column]

    def take(data: bytes, row: Row) -> None:
        # The first line is "some"; "full", where there is one, is the second.
        at = data.index(b"total=") + 6
        row[index] = int(data[at : data.index(b"\n", at)])

    return take
