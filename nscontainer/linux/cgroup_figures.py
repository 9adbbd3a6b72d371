"""Which file of which version gives which column of :mod:`nscontainer.schema`.

The order is the order of reading: CPU time first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from nscontainer import schema
from nscontainer.linux import blockdev
from nscontainer.linux.cgroup_reader import (
    INACTIVE_FILE,
    LARGE,
    MEMORY_LIMIT,
    MEMSW_FAILCNT,
    MEMSW_LIMIT,
    OWN_DEVICE,
    PERIOD,
    QUOTA,
    SMALL,
    Number,
    Row,
    Take,
    Text,
    keys,
    number,
)

_BLKIO: Final = slice(schema.INDEX["blkio.read_bytes"], schema.INDEX["blkio.writes"] + 1)


# --- v1 --------------------------------------------------------------------------------------

_V1_NUMBERS: Final = {
    "cpuacct.usage": schema.INDEX["cpuacct.usage"],
    "cpuacct.usage_user": schema.INDEX["cpuacct.usage_user"],
    "cpuacct.usage_sys": schema.INDEX["cpuacct.usage_sys"],
    "cpu.cfs_quota_us": QUOTA,
    "cpu.cfs_period_us": PERIOD,
    "memory.usage_in_bytes": schema.INDEX["memory.usage"],
    "memory.max_usage_in_bytes": schema.INDEX["memory.peak"],
    "memory.failcnt": schema.INDEX["memory.failcnt"],
    "memory.memsw.failcnt": MEMSW_FAILCNT,
    "pids.current": schema.INDEX["pids.current"],
    "pids.peak": schema.INDEX["pids.peak"],  # since Linux 6.1
}


def v1(
    paths: Mapping[str, str], *, memsw_counts: bool, own_device: str | None = None
) -> tuple[list[Number], list[Text]]:
    """List a v1 cgroup's files; a controller that is not in ``paths`` gives none.

    ``memory.failcnt`` becomes the hits of the memory limit and of the memory+swap limit together:
    where both are equal all count as the latter's, since try_charge() in mm/memcontrol.c charges
    memory+swap first (and a failed charge counts once). A Linux that doesn't count those leaves it
    NA then.

    Parameters
    ----------
    paths
        Controller to directory.
    memsw_counts
        Whether Linux counts the hits of the memory+swap limit (:func:`memsw_counts`).
    own_device
        A loop device that is the container's alone: all its I/O is the container's. What its cgroup
        has of that is taken off: the same is in the cgroup's count of the disk below.
    """
    own = (own_device or "").encode()
    numbers = dict(_V1_NUMBERS)
    texts: dict[str, tuple[int, Take]] = {
        "cpu.stat": (SMALL, _V1_CPU_STAT),
        "memory.stat": (LARGE, _V1_MEMORY_STAT),
        "memory.oom_control": (SMALL, _V1_OOM_CONTROL),
        "blkio.throttle.io_service_bytes": (
            SMALL,
            _read_write("blkio.read_bytes", "blkio.write_bytes", own),
        ),
        "blkio.throttle.io_serviced": (SMALL, _read_write("blkio.reads", "blkio.writes", own)),
    }
    if not memsw_counts:
        del numbers["memory.memsw.failcnt"]
        texts["memory.stat"] = (LARGE, _V1_MEMORY_STAT_AND_LIMITS)
    found: list[Text] = [
        (f"{paths[c]}/{n}", *t) for n, t in texts.items() if (c := n.partition(".")[0]) in paths
    ]
    if own_device is not None:
        found.append((f"{blockdev.SYS}/{own_device}/stat", SMALL, _take_own_device))
    return (
        [(f"{paths[c]}/{n}", p) for n, p in numbers.items() if (c := n.partition(".")[0]) in paths],
        found,
    )


def memsw_counts(release: str) -> bool:
    """Tell whether ``memory.memsw.failcnt`` counts, by ``os.uname().release``.

    Since Linux 6.15 only memory.failcnt does ("page_counter: track failcnt only for legacy
    cgroups"): on 6.18 it stays 0 through an OOM kill.
    """
    return tuple(map(int, re.findall(r"\d+", release)[:2])) < (6, 15)


_V1_CPU_STAT: Final = keys(
    {
        b"nr_periods ": "cpu.nr_periods",
        b"nr_throttled ": "cpu.nr_throttled",
        b"throttled_time ": "cpu.throttled_time",
    }
)
_V1_MEMORY: Final[dict[bytes, str | int]] = {
    b"total_rss ": "memory.anon",
    b"total_cache ": "memory.file",
    b"total_shmem ": "memory.shmem",
    b"total_inactive_file ": INACTIVE_FILE,
}
_V1_LIMITS: Final[dict[bytes, str | int]] = {
    b"hierarchical_memory_limit ": MEMORY_LIMIT,
    b"hierarchical_memsw_limit ": MEMSW_LIMIT,
}
_V1_MEMORY_STAT: Final = keys(_V1_MEMORY)
_V1_MEMORY_STAT_AND_LIMITS: Final = keys(_V1_MEMORY | _V1_LIMITS)
_V1_OOM_CONTROL: Final = keys({b"\noom_kill ": "memory.oom_kill"})  # since Linux 4.13

_READ_WRITE: Final = re.compile(rb"^(\d+:\d+) Read (\d+)\n\S+ Write (\d+)", re.MULTILINE)


def _read_write(read_column: str, write_column: str, own: bytes) -> Take:
    """Take the ``MAJOR:MINOR Read|Write N`` lines of a blkio file, the disks together.

    A file without a disk is no zero: see :meth:`.cgroup1.Cgroup1.account_disks`. What is stacked on
    others (LVM, loop) is left out: the same bytes are counted for the disk below.
    """
    columns = (schema.INDEX[read_column], schema.INDEX[write_column])

    def take(data: bytes, row: Row) -> None:
        stacked = blockdev.stacked()
        found = _READ_WRITE.findall(data)
        lines = [line for line in found if line[0] not in stacked]
        if lines:
            mine = [line for line in found if line[0] == own]
            for at, column in enumerate(columns, start=1):
                row[column] = sum(int(line[at]) for line in lines)
                row[column] -= sum(int(line[at]) for line in mine)

    return take


def _take_own_device(data: bytes, row: Row) -> None:
    """Take the count of the container's own device (Documentation/block/stat.rst), in sectors."""
    fields = data.split()
    for column, field, factor in _OWN_DEVICE:
        row[OWN_DEVICE[column]] = int(fields[field]) * factor


_OWN_DEVICE: Final = (
    ("blkio.read_bytes", 2, 512),
    ("blkio.write_bytes", 6, 512),
    ("blkio.reads", 0, 1),
    ("blkio.writes", 4, 1),
)


# --- v2 --------------------------------------------------------------------------------------


def v2(path: str, peak_fd: int | None) -> tuple[list[Number], list[Text]]:
    """List a v2 cgroup's files, without pressure.

    Parameters
    ----------
    path
        Its directory.
    peak_fd
        memory.peak, open already (the reader closes it), or None.
    """
    numbers = [
        number(f"{path}/memory.current", "memory.usage"),
        number(f"{path}/pids.current", "pids.current"),
        number(f"{path}/pids.peak", "pids.peak"),  # since Linux 6.1
    ]
    if peak_fd is not None:
        numbers.append(number(peak_fd, "memory.peak"))
    texts: list[Text] = [
        (f"{path}/cpu.stat", SMALL, _V2_CPU_STAT),  # without the controller: the times alone
        (f"{path}/cpu.max", SMALL, _take_cpu_max),
        (f"{path}/memory.stat", LARGE, _V2_MEMORY_STAT),
        (f"{path}/memory.events", SMALL, _V2_MEMORY_EVENTS),
        (f"{path}/io.stat", SMALL, _take_io_stat),
    ]
    return numbers, texts


_V2_CPU_STAT: Final = keys(
    {
        b"usage_usec ": "cpuacct.usage",
        b"user_usec ": "cpuacct.usage_user",
        b"system_usec ": "cpuacct.usage_sys",
        b"nr_periods ": "cpu.nr_periods",
        b"nr_throttled ": "cpu.nr_throttled",
        b"throttled_usec ": "cpu.throttled_time",
    },
    factors={
        "cpuacct.usage": 1000,
        "cpuacct.usage_user": 1000,
        "cpuacct.usage_sys": 1000,
        "cpu.throttled_time": 1000,
    },
)
_V2_MEMORY_STAT: Final = keys(
    {
        b"anon ": "memory.anon",  # the first line, so that inactive_anon's isn't found
        b"\nfile ": "memory.file",
        b"\nshmem ": "memory.shmem",
        b"\ninactive_file ": INACTIVE_FILE,
    }
)
_V2_MEMORY_EVENTS: Final = keys({b"\nmax ": "memory.failcnt", b"\noom_kill ": "memory.oom_kill"})


def _take_cpu_max(data: bytes, row: Row) -> None:
    quota, period = data.split()
    row[QUOTA] = -1 if quota == b"max" else int(quota)
    row[PERIOD] = int(period)


_IO: Final = re.compile(rb"(\d+:\d+) rbytes=(\d+) wbytes=(\d+) rios=(\d+) wios=(\d+)")


def _take_io_stat(data: bytes, row: Row) -> None:
    """Take the lines of all disks together; one may have a line without figures.

    What is stacked on others is left out, as on v1.
    """
    stacked = blockdev.stacked()
    lines = [line[1:] for line in _IO.findall(data) if line[0] not in stacked]
    row[_BLKIO] = [sum(map(int, column)) for column in zip(*lines, strict=True)] or [0, 0, 0, 0]


# --- both ------------------------------------------------------------------------------------


def pressure(path: str) -> list[Text]:
    """List a cgroup2 directory's pressure files (Documentation/accounting/psi.rst)."""
    return [
        (f"{path}/{kind}.pressure", SMALL, _some_total(f"psi.{kind}"))
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
