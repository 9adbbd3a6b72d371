"""Rows read from the files of real cgroups: v1 of Linux 6.18, v2 of Linux 6.1, both as captured."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from nscontainer import schema
from nscontainer.linux import cgroup1, cgroup2, cgroup_figures
from nscontainer.schema import NA

# A process with 20 MiB that had written and read a file, at a quota of 20 %, hybrid host.
V1 = {
    "cpuacct.usage": "697582841\n",
    "cpuacct.usage_user": "695956255\n",
    "cpuacct.usage_sys": "88000000\n",
    "cpu.stat": """\
nr_periods 39
nr_throttled 34
throttled_time 2695302983
nr_bursts 0
burst_time 0
""",
    "cpu.cfs_period_us": "100000\n",
    "cpu.cfs_quota_us": "20000\n",
    "memory.usage_in_bytes": "23306240\n",
    "memory.max_usage_in_bytes": "42991616\n",
    "memory.stat": """\
cache 2088960
rss 21114880
rss_huge 0
shmem 4096
mapped_file 0
dirty 0
writeback 0
workingset_refault_anon 0
workingset_refault_file 0
swap 0
swapcached 0
pgpgin 5934
pgpgout 269
pgfault 5494
pgmajfault 0
inactive_anon 21114880
active_anon 0
inactive_file 2088960
active_file 0
unevictable 0
hierarchical_memory_limit 67108864
hierarchical_memsw_limit 134217728
total_cache 2088960
total_rss 21114880
total_rss_huge 0
total_shmem 4096
total_mapped_file 0
total_dirty 0
total_writeback 0
total_workingset_refault_anon 0
total_workingset_refault_file 0
total_swap 0
total_swapcached 0
total_pgpgin 5934
total_pgpgout 269
total_pgfault 5494
total_pgmajfault 0
total_inactive_anon 21114880
total_active_anon 0
total_inactive_file 2088960
total_active_file 0
total_unevictable 0
""",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "memory.failcnt": "36\n",
    "memory.memsw.failcnt": "4\n",
    "pids.current": "1\n",
    "pids.peak": "3\n",
    "blkio.throttle.io_service_bytes": """\
254:0 Read 2097152
254:0 Write 24576
254:0 Sync 2121728
254:0 Async 0
254:0 Discard 0
254:0 Total 2121728
8:16 Read 512
8:16 Write 1024
8:16 Sync 0
8:16 Async 1536
8:16 Discard 0
8:16 Total 1536
Total 2123264
""",
    "blkio.throttle.io_serviced": """\
254:0 Read 1
254:0 Write 7
254:0 Sync 8
254:0 Async 0
254:0 Discard 0
254:0 Total 8
8:16 Read 1
8:16 Write 2
8:16 Sync 0
8:16 Async 3
8:16 Discard 0
8:16 Total 3
Total 11
""",
}
PRESSURE = {
    "cpu.pressure": """\
some avg10=19.22 avg60=3.70 avg300=0.78 total=2279265
full avg10=19.20 avg60=3.70 avg300=0.78 total=2279260
""",
    "memory.pressure": """\
some avg10=0.00 avg60=0.00 avg300=0.00 total=17
full avg10=0.00 avg60=0.00 avg300=0.00 total=0
""",
    "io.pressure": """\
some avg10=0.00 avg60=0.00 avg300=0.00 total=2455
full avg10=0.00 avg60=0.00 avg300=0.00 total=2455
""",
    "cgroup.events": "populated 1\nfrozen 0\n",
}
V1_ROW = {
    "cpuacct.usage": 697582841,
    "cpuacct.usage_user": 695956255,
    "cpuacct.usage_sys": 88000000,
    "cpu.nr_periods": 39,
    "cpu.nr_throttled": 34,
    "cpu.throttled_time": 2695302983,
    "cpu.quota": 200_000,
    "memory.usage": 23306240,
    "memory.peak": 42991616,
    "memory.anon": 21114880,
    "memory.file": 2088960,
    "memory.shmem": 4096,
    "memory.working_set": 23306240 - 2088960,
    "memory.oom_kill": 2,
    "memory.failcnt": 36,
    "pids.current": 1,
    "pids.peak": 3,
    "blkio.read_bytes": 2097152 + 512,
    "blkio.write_bytes": 24576 + 1024,
    "blkio.reads": 2,
    "blkio.writes": 9,
    "psi.cpu": 2279265,
    "psi.memory": 17,
    "psi.io": 2455,
}

# The same on a pure v2 host; the second disk of io.stat has no figures, the third a single digit.
V2 = {
    "cpu.stat": """\
usage_usec 1691703
user_usec 688837
system_usec 1002866
nr_periods 87
nr_throttled 82
throttled_usec 6520052
nr_bursts 0
burst_usec 0
""",
    "cpu.max": "20000 100000\n",
    "memory.current": "24424448\n",
    "memory.peak": "29908992\n",
    "memory.stat": """\
anon 22220800
file 2142208
kernel 61440
kernel_stack 0
pagetables 53248
sec_pagetables 0
percpu 0
sock 0
vmalloc 0
shmem 8192
file_mapped 45056
file_dirty 0
file_writeback 0
swapcached 0
anon_thp 18874368
file_thp 0
shmem_thp 0
inactive_anon 22220800
active_anon 0
inactive_file 2134016
active_file 0
unevictable 0
slab_reclaimable 6728
slab_unreclaimable 952
slab 7680
workingset_refault_anon 0
workingset_refault_file 0
pgfault 1474
pgmajfault 1
thp_fault_alloc 10
thp_collapse_alloc 0
""",
    "memory.events": "low 0\nhigh 0\nmax 21\noom 3\noom_kill 1\noom_group_kill 0\n",
    "pids.current": "1\n",
    "pids.peak": "4\n",
    "io.stat": """\
254:0 rbytes=2142208 wbytes=4194304 rios=3 wios=4 dbytes=0 dios=0
7:0
8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6
""",
}
V2_ROW = {
    "cpuacct.usage": 1_691_703_000,
    "cpuacct.usage_user": 688_837_000,
    "cpuacct.usage_sys": 1_002_866_000,
    "cpu.nr_periods": 87,
    "cpu.nr_throttled": 82,
    "cpu.throttled_time": 6_520_052_000,
    "cpu.quota": 200_000,
    "memory.usage": 24424448,
    "memory.peak": 29908992,
    "memory.anon": 22220800,
    "memory.file": 2142208,
    "memory.shmem": 8192,
    "memory.working_set": 24424448 - 2134016,
    "memory.oom_kill": 1,
    "memory.failcnt": 21,
    "pids.current": 1,
    "pids.peak": 4,
    "blkio.read_bytes": 2142209,
    "blkio.write_bytes": 4194306,
    "blkio.reads": 6,
    "blkio.writes": 8,
    "psi.cpu": 2279265,
    "psi.memory": 17,
    "psi.io": 2455,
}
CONTROLLERS = ("cpu", "cpuacct", "memory", "pids", "blkio")

Rows = Callable[[Mapping[str, str | None]], dict[str, int]]


def written(directory: Path, contents: Mapping[str, str | None]) -> str:
    directory.mkdir()
    for name, text in contents.items():
        if text is not None:
            (directory / name).write_text(text)
    return str(directory)


def figures(row: list[int]) -> dict[str, int]:
    """The figures that are there."""
    assert len(row) == len(schema.COLUMNS)
    return {n: v for n, v in zip(schema.NAMES, row, strict=True) if v != NA}


@pytest.fixture
def v1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rows:
    """The row of a hybrid host's cgroup: the captured files with changes, None for absent ones."""
    monkeypatch.setattr(cgroup_figures, "memsw_counts", lambda _: False)

    def row(changes: Mapping[str, str | None]) -> dict[str, int]:
        directory = written(tmp_path / "c", {**V1, **PRESSURE, **changes})
        group = cgroup1.Cgroup1(dict.fromkeys((*CONTROLLERS, "unified"), directory), ["c"])
        reader = group.reader()
        result = figures(reader.read())
        reader.close()
        return result

    return row


@pytest.fixture
def v2(tmp_path: Path) -> Rows:
    """The row of a v2 host's cgroup, likewise."""

    def row(changes: Mapping[str, str | None]) -> dict[str, int]:
        directory = written(tmp_path / "c", {**V2, **PRESSURE, **changes})
        group = cgroup2.Cgroup2(str(tmp_path), directory, ["c"])
        reader = group.reader()
        result = figures(reader.read())
        reader.close()
        group.close()
        return result

    return row


@pytest.fixture(autouse=True)
def no_fd_left() -> object:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


def less(row: dict[str, int], *prefixes: str) -> dict[str, int]:
    return {name: value for name, value in row.items() if not name.startswith(prefixes)}


def test_v1_row(v1: Rows) -> None:
    assert v1({}) == V1_ROW


def test_v2_row(v2: Rows) -> None:
    assert v2({}) == V2_ROW


def test_v1_unlimited(v1: Rows) -> None:
    """No quota is NA; the throttling of what is never throttled is 0."""
    never = "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n"
    row = v1({"cpu.cfs_quota_us": "-1\n", "cpu.stat": never})
    assert "cpu.quota" not in row
    assert row["cpu.nr_throttled"] == 0


def test_v2_unlimited(v2: Rows) -> None:
    assert v2({"cpu.max": "max 100000\n"}) == less(V2_ROW, "cpu.quota")


def test_v2_without_the_cpu_controller(v2: Rows) -> None:
    """cpu.stat has the times even then, and nothing about throttling."""
    row = v2({"cpu.stat": "usage_usec 5\nuser_usec 3\nsystem_usec 2\n", "cpu.max": None})
    assert row == {
        **less(V2_ROW, "cpu."),
        "cpuacct.usage": 5000,
        "cpuacct.usage_user": 3000,
        "cpuacct.usage_sys": 2000,
    }


def test_v1_of_an_old_linux(v1: Rows) -> None:
    """pids.peak is of 6.1, the count of OOM kills of 4.13, pressure of 4.20."""
    row = v1(
        {
            "pids.peak": None,
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n",
            **dict.fromkeys(PRESSURE),
        }
    )
    assert row == less(V1_ROW, "pids.peak", "memory.oom_kill", "psi.")


def test_v2_of_an_old_linux(v2: Rows) -> None:
    """memory.peak is of 5.19, pids.peak of 6.1."""
    row = v2({"memory.peak": None, "pids.peak": None, "io.pressure": None})
    assert row == less(V2_ROW, "memory.peak", "pids.peak", "psi.io")


def test_v1_disks(v1: Rows) -> None:
    """A line of zeros is nothing read; no line at all is nothing known (Linux >= 6.10)."""
    zeros = "254:0 Read 0\n254:0 Write 0\n254:0 Total 0\nTotal 0\n"
    row = v1(
        dict.fromkeys(("blkio.throttle.io_service_bytes", "blkio.throttle.io_serviced"), zeros)
    )
    assert {row[name] for name in row if name.startswith("blkio.")} == {0}


def test_v1_disks_not_accounted(v1: Rows) -> None:
    none = "Total 0\n"
    row = v1(dict.fromkeys(("blkio.throttle.io_service_bytes", "blkio.throttle.io_serviced"), none))
    assert row == less(V1_ROW, "blkio.")


def test_v1_stacked_devices_are_not_counted_again(v1: Rows) -> None:
    """What goes through a loop device is counted at the disk below it, and there only."""
    loop = "7:0 Read 9\n7:0 Write 9\n7:0 Sync 9\n254:0 Read 1\n254:0 Write 2\n254:0 Total 3\n"
    row = v1(dict.fromkeys(("blkio.throttle.io_service_bytes", "blkio.throttle.io_serviced"), loop))
    assert (row["blkio.read_bytes"], row["blkio.write_bytes"]) == (1, 2)
    assert (row["blkio.reads"], row["blkio.writes"]) == (1, 2)


def test_v2_stacked_devices_are_not_counted_again(v2: Rows) -> None:
    line = "{} rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"
    row = v2({"io.stat": line.format("7:0") + line.format("254:0")})
    assert (row["blkio.read_bytes"], row["blkio.writes"]) == (1, 4)


def test_v2_disks_not_used(v2: Rows) -> None:
    """v2 counts every disk: an empty io.stat is nothing read."""
    row = v2({"io.stat": ""})
    assert {row[name] for name in row if name.startswith("blkio.")} == {0}


@pytest.mark.parametrize(
    ("release", "counts"),
    [("5.4.0-150-generic", True), ("6.14.11", True), ("6.15.0", False), ("6.18.44-fc", False)],
)
def test_who_counts_the_hits_of_memory_plus_swap(release: str, counts: bool) -> None:  # noqa: FBT001
    assert cgroup_figures.memsw_counts(release) is counts


def test_v1_hits_of_the_limit_with_and_without_swap(
    v1: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Linux that counts the hits of memory+swap has them added."""
    monkeypatch.setattr(cgroup_figures, "memsw_counts", lambda _: True)
    assert v1({})["memory.failcnt"] == 40


def same_limits(limit: str) -> dict[str, str | None]:
    return {
        "memory.failcnt": "0\n",
        "memory.stat": V1["memory.stat"]
        .replace("memory_limit 67108864", f"memory_limit {limit}")
        .replace("memsw_limit 134217728", f"memsw_limit {limit}"),
    }


def test_v1_hits_of_equal_limits_are_not_known(v1: Rows) -> None:
    """They all hit memory+swap, which Linux >= 6.15 doesn't count: 0 would be a lie."""
    assert "memory.failcnt" not in v1(same_limits("67108864"))


def test_v1_no_hits_of_no_limits(v1: Rows) -> None:
    assert v1(same_limits("9223372036854771712"))["memory.failcnt"] == 0


def test_working_set_is_never_below_nothing(v1: Rows) -> None:
    """The two files are read one after the other."""
    assert v1({"memory.usage_in_bytes": "4096\n"})["memory.working_set"] == 0


def test_working_set_needs_both(v2: Rows) -> None:
    assert "memory.working_set" not in v2({"memory.current": None})


def test_an_unreadable_file_is_left_out(v2: Rows) -> None:
    """psi=0 leaves files that can't be read; anything unparsable is no figure either."""
    assert v2({"cpu.pressure": ""}) == less(V2_ROW, "psi.cpu")


def test_what_fails_later_is_na_and_the_rest_is_read(tmp_path: Path) -> None:
    """cgroup.pressure can be switched off meanwhile (ENODEV): only those figures are lost."""
    directory = written(tmp_path / "c", {**V2, **PRESSURE})
    group = cgroup2.Cgroup2(str(tmp_path), directory, ["c"])
    reader = group.reader()
    (tmp_path / "c/cpu.pressure").write_text("")
    assert figures(reader.read()) == less(V2_ROW, "psi.cpu")
    (tmp_path / "c/cpu.pressure").write_text(PRESSURE["cpu.pressure"])
    assert figures(reader.read()) == V2_ROW
    reader.close()
    reader.close()
    group.close()


def test_a_text_that_grows_is_read_whole(tmp_path: Path) -> None:
    """More disks than the buffer was made for come to be used meanwhile."""
    directory = written(tmp_path / "c", {**V2, **PRESSURE})
    group = cgroup2.Cgroup2(str(tmp_path), directory, ["c"])
    reader = group.reader()
    line = "8:{} rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"
    for disks in (1, 9, 400, 2):
        (tmp_path / "c/io.stat").write_text("".join(map(line.format, range(disks))))
        for _ in range(2):
            assert figures(reader.read())["blkio.writes"] == 4 * disks
    reader.close()
    group.close()


def test_what_is_lifted_does_not_stay(tmp_path: Path) -> None:
    """A quota lifted while it runs is NA again, and hits of limits are known again."""
    directory = written(tmp_path / "c", {**V2, **PRESSURE})
    group = cgroup2.Cgroup2(str(tmp_path), directory, ["c"])
    reader = group.reader()
    for text, quota in (("max 100000\n", NA), ("5000 10000\n", 500_000), ("max 10000\n", NA)):
        (tmp_path / "c/cpu.max").write_text(text)
        for _ in range(2):
            assert reader.read()[schema.INDEX["cpu.quota"]] == quota
    reader.close()
    group.close()


def test_rows_are_read_anew(tmp_path: Path) -> None:
    """Each row is a fresh list of the files as they are now."""
    directory = written(tmp_path / "c", {**V2, **PRESSURE})
    group = cgroup2.Cgroup2(str(tmp_path), directory, ["c"])
    reader = group.reader()
    first = reader.read()
    (tmp_path / "c/pids.current").write_text("7\n")
    second = reader.read()
    assert figures(first)["pids.current"] == 1
    assert figures(second)["pids.current"] == 7
    fd = reader.fileno_populated()
    assert fd is not None
    assert os.pread(fd, 100, 0).startswith(b"populated 1")
    reader.close()
    group.close()


def test_peak_is_read_through_the_fd_that_resets_it(tmp_path: Path) -> None:
    """Linux >= 6.12 resets memory.peak for reads through the same open file only."""
    directory = written(tmp_path / "c", {**V2, **PRESSURE})
    group = cgroup2.Cgroup2(str(tmp_path), directory, ["c"])
    reader = group.reader()
    group.reset_peak()
    assert group._peak_fd is not None
    peak = next(fd for fd, _ in reader._numbers if _is(fd, "memory.peak"))
    os.lseek(group._peak_fd, 5, os.SEEK_SET)  # an open file has one offset, whoever holds it
    assert os.lseek(peak, 0, os.SEEK_CUR) == 5
    reader.close()
    group.close()


def _is(fd: int, name: str) -> bool:
    return os.path.basename(os.readlink(f"/proc/self/fd/{fd}")) == name


def test_without_controllers_nothing_is_known(tmp_path: Path) -> None:
    group = cgroup1.Cgroup1({"freezer": str(tmp_path)}, ["c"])
    reader = group.reader()
    assert set(reader.read()) == {NA}
    assert reader.read() is not reader.read()
    assert reader.fileno_populated() is None
    reader.close()
