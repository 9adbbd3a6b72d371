"""The cgroup layer against this machine's own hierarchies, whichever version they are."""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nscontainer import schema
from nscontainer.errors import HostError, NotFoundError, SpecError, StateError
from nscontainer.linux import cgroup, clone
from nscontainer.schema import NA
from nscontainer.spec import Limits

pytestmark = pytest.mark.root

MIB = 1 << 20
LIMITED = {"cpu", "memory", "pids"}


def layouts() -> list[cgroup.Layout]:
    """Give this machine's hierarchies, and on a hybrid one the v1 half alone, as old hosts have it."""
    try:
        found = cgroup.detect()
    except (HostError, OSError):
        return []  # the marker says why these tests aren't run
    if found.version != "hybrid":
        return [found]
    return [found, dataclasses.replace(found, version="v1", unified=None)]


@pytest.fixture(params=layouts(), ids=lambda layout: layout.version)
def layout(request: pytest.FixtureRequest) -> cgroup.Layout:
    found = request.param
    assert isinstance(found, cgroup.Layout)
    assert set(found.controllers) >= LIMITED, "this machine can't limit what the tests limit"
    return found


@pytest.fixture
def parent() -> str:
    return f"nscontainer-test-{os.getpid()}"


@pytest.fixture
def group(layout: cgroup.Layout, parent: str) -> Iterator[cgroup.Cgroup]:
    """A container's cgroup with everything wanted; nothing of it may be left in the end."""
    made = cgroup.create(layout, "one", parent=parent, want=cgroup.default_want(layout))
    try:
        yield made
    finally:
        made.disarm_cpu()
        made.kill()
        made.thaw()
        made.remove()
    assert cgroup.names(layout, parent) == []
    bases = {*layout.controllers.values(), *([layout.unified] if layout.unified else [])}
    assert not [base for base in bases if os.path.exists(f"{base}/{parent}")]


@contextlib.contextmanager
def child(
    group: cgroup.Cgroup, work: Callable[[], object] = lambda: time.sleep(60)
) -> Iterator[int]:
    """A process in the cgroup that does ``work`` once the body of the ``with`` begins."""
    wait, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.close(go)
            os.read(wait, 1)
            work()
        os._exit(0)
    os.close(wait)
    try:
        group.add(pid)
        os.close(go)
        yield pid
    finally:
        group.thaw()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def touch(size: int) -> mmap.mmap:
    """Take anonymous memory and use every page of it."""
    block = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, size, 4096):
        block[at] = 1
    return block


def spin(seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def eventually(holds: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)


def figures(reader: cgroup.Reader) -> dict[str, int]:
    return dict(zip(schema.NAMES, reader.read(), strict=True))


def test_what_is_asked_is_read_back(group: cgroup.Cgroup, layout: cgroup.Layout) -> None:
    """Limits set on a process's cgroup are what Linux says they are."""
    group.place(Limits(cpuset_cpus="0"))
    with child(group) as pid:
        assert group.pids() == [pid]
        assert group.populated()
        group.arm(
            Limits(
                cpu_quota_us=20_000,
                cpu_period_us=50_000,
                cpu_shares=512,
                memory_bytes=64 * MIB,
                pids=20,
            )
        )
        back = group.read_back()
        assert os.sched_getaffinity(pid) == {0}
    v2 = layout.version == "v2"
    assert back["cpu_quota_us"] == 20_000
    assert back["cpu_period_us"] == 50_000
    assert back["cpu_shares"] == (None if v2 else 512)
    assert back["cpu_weight"] == (59 if v2 else None)
    assert back["cpuset_cpus"] == "0"
    assert back["memory_bytes"] == 64 * MIB
    assert back["memory_swap_bytes"] in (64 * MIB, None)  # None: swap isn't accounted
    assert back["pids"] == 20


def test_limits_up_down_and_lifted(group: cgroup.Cgroup) -> None:
    """Whatever way limits go, Linux takes each in the order they are written in."""
    swap = group.read_back()["memory_swap_bytes"] is not None
    steps = [
        Limits(memory_bytes=64 * MIB, memory_swap_bytes=96 * MIB if swap else None),
        Limits(memory_bytes=128 * MIB, memory_swap_bytes=256 * MIB if swap else None),
        Limits(memory_bytes=32 * MIB),
        Limits(memory_bytes=-1),
        Limits(memory_bytes=48 * MIB, memory_swap_bytes=-1),
    ]
    for limits in steps:
        group.arm(limits)
        back = group.read_back()
        assert limits.memory_bytes is not None
        asked = limits.memory_swap_bytes or limits.memory_bytes
        assert back["memory_bytes"] == limits.memory_bytes
        assert back["memory_swap_bytes"] == (asked if swap else None)
    burst = group.read_back()["cpu_burst_us"] is not None
    for quota, period in ((80_000, 100_000), (5_000, 10_000), (900_000, 1_000_000), (-1, 100_000)):
        limits = Limits(
            cpu_quota_us=quota,
            cpu_period_us=period,
            cpu_burst_us=max(quota // 2, 0) if burst else None,
        )
        group.arm(limits)
        back = group.read_back()
        assert (back["cpu_quota_us"], back["cpu_period_us"]) == (quota, period)
        assert back["cpu_burst_us"] == limits.cpu_burst_us
    group.arm(Limits(pids=5))
    group.arm(Limits(pids=-1))
    assert group.read_back()["pids"] == -1


def test_figures_of_an_empty_cgroup(group: cgroup.Cgroup, layout: cgroup.Layout) -> None:
    """Every figure this host can give is there from the beginning, and net never."""
    reader = group.reader()
    row = figures(reader)
    reader.close()
    for name in ("cpuacct.usage", "cpu.nr_throttled", "cpu.throttled_time", "pids.current"):
        assert row[name] == 0, name
    for name in ("memory.usage", "memory.anon", "memory.working_set", "memory.oom_kill"):
        assert 0 <= row[name] < MIB, name
    assert row["cpu.quota"] == NA
    assert {row[name] for name in schema.NAMES if name.startswith("net.")} == {NA}
    if os.path.exists("/proc/pressure/cpu") and layout.unified is not None:
        assert row["psi.cpu"] == 0


def test_figures_change_under_load(group: cgroup.Cgroup) -> None:
    """A spinning process with 16 MiB, held to 20 %: usage, throttling, memory and pressure grow."""

    def work() -> None:
        block = touch(16 * MIB)
        spin()
        block.close()

    group.arm(Limits(cpu_quota_us=20_000, memory_bytes=256 * MIB))
    reader = group.reader()
    before = figures(reader)
    with child(group, work):
        eventually(lambda: figures(reader)["memory.anon"] > 15 * MIB)
        eventually(lambda: figures(reader)["cpu.nr_throttled"] >= 5)
        eventually(lambda: figures(reader)["cpuacct.usage_user"] > 0)  # by ticks, on some
        row = figures(reader)
    reader.close()
    assert row["cpu.quota"] == 200_000  # in units of 1e-6 CPUs
    assert row["cpuacct.usage"] - before["cpuacct.usage"] > 50_000_000
    assert row["cpuacct.usage_user"] > 0
    assert row["cpu.nr_periods"] >= row["cpu.nr_throttled"]
    assert row["cpu.throttled_time"] > 50_000_000
    assert row["memory.usage"] >= row["memory.working_set"] > 15 * MIB
    assert row["memory.peak"] == NA or row["memory.peak"] >= row["memory.usage"]
    assert row["pids.current"] == 1
    assert row["psi.cpu"] == NA or row["psi.cpu"] > 0


def test_disk_figures(group: cgroup.Cgroup, layout: cgroup.Layout, tmp_path: Path) -> None:
    """Direct reads and writes are counted where there is a disk to count them on."""
    device = os.stat(tmp_path).st_dev
    disk = f"{os.major(device)}:{os.minor(device)}"
    reader = group.reader()
    before = figures(reader)
    if not os.path.exists(f"/sys/dev/block/{disk}/queue"):
        reader.close()
        pytest.skip(f"{tmp_path} is not on a whole disk")
    file = tmp_path / "file"
    file.write_bytes(b"x" * MIB)

    def work() -> None:
        fd = os.open(file, os.O_RDWR | os.O_DIRECT)
        block = mmap.mmap(-1, MIB)
        os.preadv(fd, [block], 0)
        os.pwritev(fd, [block], 0)
        os.fsync(fd)

    with child(group, work) as pid:
        os.waitpid(pid, 0)
        row = figures(reader)
    reader.close()
    assert row["blkio.read_bytes"] - before["blkio.read_bytes"] >= MIB
    assert row["blkio.write_bytes"] - before["blkio.write_bytes"] >= MIB
    assert row["blkio.reads"] > before["blkio.reads"] >= 0
    assert row["blkio.writes"] > before["blkio.writes"] >= 0


def test_too_much_memory_is_killed_and_counted(group: cgroup.Cgroup) -> None:
    """The OOM kill of the hard limit shows in the figures, and the peak stays under the limit."""
    reader = group.reader()
    with child(group, lambda: touch(256 * MIB)) as pid:
        group.arm(Limits(memory_bytes=24 * MIB))
        _, status = os.waitpid(pid, 0)
    row = figures(reader)
    reader.close()
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    assert row["memory.oom_kill"] in (1, NA)
    assert row["memory.failcnt"] > 0 or row["memory.failcnt"] == NA
    assert row["memory.peak"] == NA or 20 * MIB < row["memory.peak"] <= 24 * MIB


def test_the_number_of_processes_is_held(group: cgroup.Cgroup) -> None:
    tell, hear = os.pipe()

    def work() -> None:
        for made in range(10):
            try:
                if os.fork() == 0:
                    time.sleep(60)
                    os._exit(0)
            except OSError:
                os.write(hear, bytes([made]))
                return

    group.arm(Limits(pids=4))
    with child(group, work):
        assert os.read(tell, 1) == bytes([3])
        os.close(tell)
        os.close(hear)
        group.kill()


def test_the_peak_begins_anew(group: cgroup.Cgroup) -> None:
    """What was charged before the reset is not in the peak, where Linux can reset it."""

    def work() -> None:
        touch(32 * MIB).close()
        time.sleep(60)

    reader = group.reader()
    with child(group, work):
        eventually(lambda: figures(reader)["memory.peak"] > 32 * MIB or NA in reader.read()[8:9])
        eventually(lambda: figures(reader)["memory.usage"] < 24 * MIB)
        before = figures(reader)["memory.peak"]
        group.reset_peak()
        after = figures(reader)["memory.peak"]
    reader.close()
    resettable = (
        group.version != "v2" or os.stat(f"{group.paths['memory']}/memory.peak").st_mode & 0o222
    )
    if before == NA:
        assert after == NA
    else:
        assert (after < before - 8 * MIB) == bool(resettable)


def test_kill_takes_all_and_tells(group: cgroup.Cgroup) -> None:
    """Forks included, throttled or not; the watched fd reports that it has become empty."""

    def work() -> None:
        for _ in range(5):
            if os.fork() == 0:
                spin()
        spin()

    reader = group.reader()
    with child(group, work) as pid:
        group.arm(Limits(cpu_quota_us=10_000))
        eventually(lambda: len(group.pids()) == 6)
        fd = reader.fileno_populated()
        if fd is not None:
            os.pread(fd, 4096, 0)
        group.disarm_cpu()
        group.kill()
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        if fd is not None:
            poll = select.poll()
            poll.register(fd, select.POLLPRI)
            assert poll.poll(20_000)
        eventually(lambda: not group.populated())
        assert group.pids() == []
    reader.close()


def test_frozen_it_stands_still_and_can_be_killed(group: cgroup.Cgroup) -> None:
    """A frozen process uses no CPU, a thawed one goes on, and a frozen one can be killed."""
    reader = group.reader()
    with child(group, spin) as pid:
        eventually(lambda: figures(reader)["cpuacct.usage"] > 0)
        group.freeze()
        used = figures(reader)["cpuacct.usage"]
        time.sleep(0.2)
        assert figures(reader)["cpuacct.usage"] == used
        group.thaw()
        eventually(lambda: figures(reader)["cpuacct.usage"] > used)
        group.freeze()
        group.kill()
        os.waitpid(pid, 0)
    reader.close()


def test_removal_refuses_while_a_process_is_in_it(
    group: cgroup.Cgroup, layout: cgroup.Layout, parent: str
) -> None:
    """A live process is never lost sight of; after its death the removal works."""
    with child(group), pytest.raises(StateError, match="can't be removed"):
        group.remove(timeout_s=0.05)
    group.remove()
    assert cgroup.names(layout, parent) == []
    with pytest.raises(NotFoundError):
        cgroup.reopen(layout, "one", parent)


def test_another_process_can_take_over(
    group: cgroup.Cgroup, layout: cgroup.Layout, parent: str
) -> None:
    """What is reopened by name reads, kills and removes as the maker does."""
    again = cgroup.reopen(layout, "one", parent)
    group.arm(Limits(pids=11))
    assert again.read_back() == group.read_back()
    with child(group) as pid:
        again.kill()
        os.waitpid(pid, 0)
        again.remove()
    assert cgroup.names(layout, parent) == []


def test_two_side_by_side(group: cgroup.Cgroup, layout: cgroup.Layout, parent: str) -> None:
    """The removal of one leaves the other, and the parent, alone."""
    other = cgroup.create(layout, "two", parent=parent, want=cgroup.default_want(layout))
    other.remove()
    assert cgroup.names(layout, parent) == ["one"]
    group.arm(Limits(pids=3))
    with pytest.raises(StateError, match="exists already"):
        cgroup.create(layout, "one", parent=parent, want=cgroup.default_want(layout))


def test_a_reader_outlives_the_cgroup(group: cgroup.Cgroup) -> None:
    """After the removal there are no figures, and no stale ones."""
    reader = group.reader()
    group.remove()
    assert set(reader.read()) == {NA}
    reader.close()


def test_a_limit_without_its_controller_is_an_error(layout: cgroup.Layout, parent: str) -> None:
    bare = cgroup.create(layout, "bare", parent=f"{parent}-bare", want=frozenset({"pids"}))
    try:
        bare.arm(Limits(pids=3))
        with pytest.raises(HostError, match="controller memory"):
            bare.arm(Limits(memory_bytes=64 * MIB))
        reader = bare.reader()
        row = figures(reader)
        reader.close()
        assert row["memory.usage"] == NA
        assert row["pids.current"] == 0
    finally:
        bare.remove()


def test_a_cpu_that_is_not_there_is_an_error(group: cgroup.Cgroup) -> None:
    """Neither version may take it silently: v2 would use all CPUs."""
    for cpus in (f"0,{os.cpu_count()}", "4000"):
        with pytest.raises((HostError, SpecError), match=f"cpuset-cpus {cpus}"):
            group.place(Limits(cpuset_cpus=cpus))


def test_a_parents_quota_is_seen(group: cgroup.Cgroup, layout: cgroup.Layout, parent: str) -> None:
    """It is told, and v1, which allows no more than that, says so instead of EINVAL."""
    assert group.parents_quota() is None
    path = os.path.dirname(group.paths["cpu"])
    name, text = (
        ("cpu.max", "60000 100000") if layout.version == "v2" else ("cpu.cfs_quota_us", "60000")
    )
    Path(path, name).write_text(text)
    assert group.parents_quota() == pytest.approx(0.6)
    group.arm(Limits(cpu_quota_us=50_000))
    group.arm(Limits(cpu_quota_us=5_000, cpu_period_us=10_000))  # EINVAL and again, on v1
    group.arm(Limits(cpu_quota_us=500_000, cpu_period_us=1_000_000))
    assert group.read_back()["cpu_period_us"] == 1_000_000
    if layout.version == "v2":
        group.arm(Limits(cpu_quota_us=900_000))
    else:
        with pytest.raises(HostError, match=r"a cgroup above has 0\.6 CPUs"):
            group.arm(Limits(cpu_quota_us=900_000))


def test_a_process_born_into_it(group: cgroup.Cgroup) -> None:
    """On v2 clone3 starts a process right there, with no move."""
    fd = group.fd()
    if fd is None:
        assert group.version != "v2"
        return
    pid, pidfd = clone.clone3(0, exit_signal=signal.SIGCHLD, cgroup_fd=fd)
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    assert group.pids() == [pid]
    group.kill()
    os.waitpid(pid, 0)
    os.close(pidfd)
