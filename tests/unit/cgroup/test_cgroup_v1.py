"""v1 and hybrid: what is written where, in which order, and what is said when it can't be."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nscontainer.errors import HostError, SpecError, StateError
from nscontainer.linux import cgroup, cgroup_core
from nscontainer.spec import Limits

MIB = 1 << 20
ALL = frozenset({"cpu", "cpuacct", "cpuset", "memory", "pids", "freezer", "blkio", "devices"})


@pytest.fixture
def made(v1: cgroup.Layout, kernel: Any) -> cgroup.Cgroup:
    """A container's cgroups on a v1 host; ``kernel.writes`` begins after they are made."""
    group = cgroup.create(v1, "one", want=ALL)
    kernel.writes.clear()
    return group


def limit_writes(kernel: Any, prefix: str) -> list[tuple[str, str]]:
    return [(name, text) for name, text in kernel.writes if name.startswith(prefix)]


# --- making ----------------------------------------------------------------------------------


def test_only_wanted_controllers_get_a_directory(v1: cgroup.Layout, kernel: Any) -> None:
    """What isn't wanted isn't joined, and devices never."""
    group = cgroup.create(v1, "one", want=frozenset({"memory", "devices", "io"}))
    assert group.version == "v1"
    assert group.paths == {
        "memory": f"{kernel.root}/memory/nscontainer/one",
        "blkio": f"{kernel.root}/blkio/nscontainer/one",  # wanted by its v2 name
    }
    assert not (kernel.root / "devices/nscontainer").exists()
    assert group.fd() is None


def test_a_controller_the_host_lacks_is_missed_only_by_its_limit(
    v1: cgroup.Layout, kernel: Any
) -> None:
    layout = cgroup.Layout("v1", {"cpu": v1.controllers["cpu"]}, None)
    group = cgroup.create(layout, "one", want=ALL)
    group.arm(Limits(cpu_shares=512))
    for limits, controller in (
        (Limits(memory_bytes=MIB), "memory"),
        (Limits(memory_swap_bytes=MIB), "memory"),
        (Limits(pids=5), "pids"),
    ):
        with pytest.raises(HostError, match=f"controller {controller}") as caught:
            group.arm(limits)
        assert f"cgroup_enable={controller}" in (caught.value.hint or "")
    with pytest.raises(HostError, match="controller cpuset"):
        group.place(Limits(cpuset_cpus="0"))
    assert group.read_back()["memory_bytes"] is None
    assert group.read_back()["pids"] is None


def test_no_cpu_controller_is_said_for_quota_period_and_burst(v1: cgroup.Layout) -> None:
    group = cgroup.create(v1, "one", want=frozenset({"pids"}))
    for limits in (
        Limits(cpu_quota_us=20_000),
        Limits(cpu_period_us=50_000),
        Limits(cpu_quota_us=20_000, cpu_burst_us=5_000),
        Limits(cpu_shares=2),
    ):
        with pytest.raises(HostError, match="controller cpu "):
            group.arm(limits)
    group.disarm_cpu()  # nothing to lift is no error
    assert group.parents_quota() is None


def test_cpuset_is_inherited_through_the_new_parent(v1: cgroup.Layout, kernel: Any) -> None:
    """An empty cpuset takes no process: parent and child get the hierarchy's CPUs and nodes."""
    cgroup.create(v1, "one", want=ALL)
    for where in ("nscontainer", "nscontainer/one"):
        assert (kernel.root / "cpuset" / where / "cpuset.cpus").read_text() == "0-1\n"
        assert (kernel.root / "cpuset" / where / "cpuset.mems").read_text() == "0\n"
    assert (kernel.root / "cpuset/nscontainer/cgroup.clone_children").read_text() == "1\n"


def test_what_is_inherited_by_clone_children_is_not_written_again(
    v1: cgroup.Layout, kernel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cgroup.create(v1, "one", want=frozenset({"cpuset"}))
    template = {"cpuset.cpus": "0-1", "cpuset.mems": "0", "cgroup.clone_children": "1"}
    monkeypatch.setitem(kernel.populate.__func__.__globals__["V1_FILES"], "cpuset", template)
    kernel.writes.clear()
    cgroup.create(v1, "two", want=frozenset({"cpuset"}))
    assert kernel.writes == []


def test_comounted_controllers_share_the_directory(v1: cgroup.Layout, kernel: Any) -> None:
    """One directory is made, joined and removed once."""
    shared = kernel.root / "cpu,cpuacct"
    shared.mkdir()
    kernel.populate(shared)
    layout = cgroup.Layout("v1", {"cpu": str(shared), "cpuacct": str(shared)}, None)
    group = cgroup.create(layout, "one", want=ALL)
    assert group.paths["cpu"] == group.paths["cpuacct"] == f"{shared}/nscontainer/one"
    kernel.writes.clear()
    group.add(123)
    assert kernel.writes == [("cgroup.procs", "123")]
    (shared / "nscontainer/one/cgroup.procs").write_text("")
    group.remove()
    assert not (shared / "nscontainer").exists()


def test_cpuset_comounted_with_others_is_filled(v1: cgroup.Layout, kernel: Any) -> None:
    shared = kernel.root / "cpu,cpuset"
    shared.mkdir()
    kernel.populate(shared)
    (shared / "cpuset.cpus").write_text("0-3\n")
    (shared / "cpuset.mems").write_text("0\n")
    layout = cgroup.Layout("v1", {"cpu": str(shared), "cpuset": str(shared)}, None)
    cgroup.create(layout, "one", want=ALL)
    assert (shared / "nscontainer/one/cpuset.cpus").read_text() == "0-3\n"


def test_a_failure_half_way_leaves_nothing(v1: cgroup.Layout, kernel: Any) -> None:
    """If one hierarchy refuses, the directories made in the others go again."""
    kernel.without.add("cpuset.mems")  # so that filling the cpuset fails
    with pytest.raises(OSError, match=r"cpuset\.mems"):
        cgroup.create(v1, "one", want=ALL)
    assert cgroup.names(v1) == []
    assert not list(kernel.root.glob("*/nscontainer"))


def test_add_joins_every_hierarchy(made: cgroup.Cgroup, kernel: Any) -> None:
    made.add(77)
    assert kernel.writes == [("cgroup.procs", "77")] * 7
    assert made.pids() == [77]
    assert made.populated()


def test_the_first_rule_has_the_disk_accounted(hybrid: cgroup.Layout, kernel: Any) -> None:
    """Linux >= 6.10 counts a disk only from its first rule on; 0 is a rule without a limit."""
    cgroup.create(hybrid, "one", want=ALL)
    assert limit_writes(kernel, "blkio") == [("blkio.throttle.read_bps_device", "254:0 0")]
    kernel.writes.clear()
    cgroup.create(hybrid, "two", want=ALL - {"blkio"})
    assert limit_writes(kernel, "blkio") == []


# --- CPU -------------------------------------------------------------------------------------


def test_cpu_limits_are_written_and_read_back(made: cgroup.Cgroup, kernel: Any) -> None:
    made.arm(Limits(cpu_quota_us=20_000, cpu_period_us=50_000, cpu_burst_us=10_000, cpu_shares=512))
    back = made.read_back()
    assert back["cpu_quota_us"] == 20_000
    assert back["cpu_period_us"] == 50_000
    assert back["cpu_burst_us"] == 10_000
    assert back["cpu_shares"] == 512
    assert back["cpu_weight"] is None


def test_none_leaves_a_limit_and_minus_one_lifts_it(made: cgroup.Cgroup, kernel: Any) -> None:
    made.arm(Limits(cpu_quota_us=20_000, memory_bytes=64 * MIB, pids=9))
    kernel.writes.clear()
    made.arm(Limits())
    assert kernel.writes == []
    made.arm(Limits(cpu_quota_us=-1, memory_bytes=-1, pids=-1))
    back = made.read_back()
    assert (back["cpu_quota_us"], back["memory_bytes"], back["pids"]) == (-1, -1, -1)
    assert back["memory_swap_bytes"] == -1


def above_has(kernel: Any, quota: int, period: int = 100_000) -> None:
    parent = kernel.root / "cpu/nscontainer"
    (parent / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (parent / "cpu.cfs_period_us").write_text(f"{period}\n")


def test_a_period_refused_for_the_old_quota_is_written_again(
    made: cgroup.Cgroup, kernel: Any
) -> None:
    """Lowering the period first would exceed the parent's share for a moment: EINVAL (runc #3084)."""
    above_has(kernel, 60_000)
    made.arm(Limits(cpu_quota_us=50_000))
    kernel.writes.clear()
    made.arm(Limits(cpu_quota_us=3_000, cpu_period_us=10_000))
    assert kernel.writes == [
        ("cpu.cfs_period_us", "10000"),
        ("cpu.cfs_quota_us", "3000"),
        ("cpu.cfs_period_us", "10000"),
    ]
    assert made.read_back()["cpu_period_us"] == 10_000


def test_a_longer_period_lets_a_larger_quota_in(made: cgroup.Cgroup, kernel: Any) -> None:
    above_has(kernel, 60_000)
    made.arm(Limits(cpu_quota_us=50_000))
    kernel.writes.clear()
    made.arm(Limits(cpu_quota_us=500_000, cpu_period_us=1_000_000))
    assert [name for name, _ in kernel.writes] == ["cpu.cfs_period_us", "cpu.cfs_quota_us"]


def test_more_than_a_parent_has_is_said_so(made: cgroup.Cgroup, kernel: Any) -> None:
    above_has(kernel, 60_000)
    for limits in (
        Limits(cpu_quota_us=150_000),
        Limits(cpu_quota_us=150_000, cpu_period_us=100_000),
    ):
        with pytest.raises(HostError, match=r"a cgroup above has 0\.6 CPUs") as caught:
            made.arm(limits)
        assert "60%" in (caught.value.hint or "")


def test_the_tightest_quota_above_is_found(made: cgroup.Cgroup, kernel: Any) -> None:
    """A parent's quota throttles too: the user is to be told."""
    assert made.parents_quota() is None
    (kernel.root / "cpu/cpu.cfs_quota_us").write_text("30000\n")
    above_has(kernel, 200_000, 400_000)
    assert made.parents_quota() == pytest.approx(0.3)
    made.arm(Limits(cpu_quota_us=10_000))
    assert made.parents_quota() == pytest.approx(0.3)  # its own isn't above


def test_burst_is_written_when_it_fits_the_quota(made: cgroup.Cgroup, kernel: Any) -> None:
    """Raised after the quota, lowered before it: burst <= quota at every moment."""
    made.arm(Limits(cpu_quota_us=20_000, cpu_burst_us=20_000))
    made.arm(Limits(cpu_quota_us=80_000, cpu_burst_us=80_000))
    kernel.writes.clear()
    made.arm(Limits(cpu_quota_us=10_000, cpu_burst_us=5_000))
    assert kernel.writes == [("cpu.cfs_burst_us", "5000"), ("cpu.cfs_quota_us", "10000")]


def test_a_quota_below_the_burst_in_force_says_what_to_give(made: cgroup.Cgroup) -> None:
    made.arm(Limits(cpu_quota_us=20_000, cpu_burst_us=20_000))
    with pytest.raises(SpecError, match="burst of 20000") as caught:
        made.arm(Limits(cpu_quota_us=10_000))
    assert "--cpu-burst" in (caught.value.hint or "")
    assert made.read_back()["cpu_quota_us"] == 20_000


def test_no_burst_file_is_an_old_linux(v1: cgroup.Layout, kernel: Any) -> None:
    kernel.without.add("cpu.cfs_burst_us")
    group = cgroup.create(v1, "one", want=ALL)
    group.arm(Limits(cpu_quota_us=20_000))
    assert group.read_back()["cpu_burst_us"] is None
    with pytest.raises(HostError, match=r"no cpu\.cfs_burst_us") as caught:
        group.arm(Limits(cpu_quota_us=20_000, cpu_burst_us=1_000))
    assert "5.14" in (caught.value.hint or "")


def test_disarm_lifts_the_quota(made: cgroup.Cgroup) -> None:
    made.arm(Limits(cpu_quota_us=1_000))
    made.disarm_cpu()
    assert made.read_back()["cpu_quota_us"] == -1


# --- memory ----------------------------------------------------------------------------------

MEMORY, MEMSW = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"


def test_memory_alone_means_no_swap(made: cgroup.Cgroup, kernel: Any) -> None:
    """memory+swap gets the memory's value, after it: it was unlimited."""
    made.arm(Limits(memory_bytes=64 * MIB))
    assert kernel.writes == [(MEMORY, str(64 * MIB)), (MEMSW, str(64 * MIB))]
    assert made.read_back()["memory_bytes"] == 64 * MIB
    assert made.read_back()["memory_swap_bytes"] == 64 * MIB


def test_raising_writes_memory_plus_swap_first(made: cgroup.Cgroup, kernel: Any) -> None:
    made.arm(Limits(memory_bytes=64 * MIB))
    kernel.writes.clear()
    made.arm(Limits(memory_bytes=128 * MIB, memory_swap_bytes=256 * MIB))
    assert [name for name, _ in kernel.writes] == [MEMSW, MEMORY]
    assert made.read_back()["memory_swap_bytes"] == 256 * MIB


def test_lowering_writes_memory_first(made: cgroup.Cgroup, kernel: Any) -> None:
    made.arm(Limits(memory_bytes=128 * MIB, memory_swap_bytes=256 * MIB))
    kernel.writes.clear()
    made.arm(Limits(memory_bytes=32 * MIB))
    assert kernel.writes == [(MEMORY, str(32 * MIB)), (MEMSW, str(32 * MIB))]


def test_memory_up_and_swap_down_keeps_the_order(made: cgroup.Cgroup) -> None:
    made.arm(Limits(memory_bytes=32 * MIB, memory_swap_bytes=256 * MIB))
    made.arm(Limits(memory_bytes=64 * MIB, memory_swap_bytes=128 * MIB))
    back = made.read_back()
    assert (back["memory_bytes"], back["memory_swap_bytes"]) == (64 * MIB, 128 * MIB)


def test_lifting_writes_memory_plus_swap_first(made: cgroup.Cgroup, kernel: Any) -> None:
    made.arm(Limits(memory_bytes=64 * MIB))
    kernel.writes.clear()
    made.arm(Limits(memory_bytes=-1))
    assert kernel.writes == [(MEMSW, "-1"), (MEMORY, "-1")]


def test_unlimited_swap(made: cgroup.Cgroup) -> None:
    made.arm(Limits(memory_bytes=64 * MIB, memory_swap_bytes=-1))
    back = made.read_back()
    assert (back["memory_bytes"], back["memory_swap_bytes"]) == (64 * MIB, -1)


def test_where_swap_is_not_accounted(v1: cgroup.Layout, kernel: Any) -> None:
    """Without memsw: memory alone is silent, and read_back is None; swap by name is an error."""
    kernel.without.add(MEMSW)
    group = cgroup.create(v1, "one", want=ALL)
    group.arm(Limits(memory_bytes=64 * MIB))
    group.arm(Limits(memory_bytes=64 * MIB, memory_swap_bytes=-1))
    back = group.read_back()
    assert (back["memory_bytes"], back["memory_swap_bytes"]) == (64 * MIB, None)
    with pytest.raises(HostError, match="memory-swap") as caught:
        group.arm(Limits(memory_bytes=64 * MIB, memory_swap_bytes=128 * MIB))
    assert "swapaccount=1" in (caught.value.hint or "")


def refuse(name: str, code: int) -> Callable[[Path, str], int | None]:
    return lambda file, text: code if file.name == name else None


def test_less_memory_than_is_in_use(made: cgroup.Cgroup, kernel: Any) -> None:
    """v1 answers EBUSY where it can't reclaim enough."""
    kernel.rules.append(refuse(MEMORY, errno.EBUSY))
    with pytest.raises(HostError, match="4096 bytes are in use"):
        made.arm(Limits(memory_bytes=MIB))


def test_reset_peak(made: cgroup.Cgroup, kernel: Any) -> None:
    made.reset_peak()
    assert kernel.writes == [("memory.max_usage_in_bytes", "0")]


# --- the rest --------------------------------------------------------------------------------


def test_cpuset_is_placed_not_armed(made: cgroup.Cgroup, kernel: Any) -> None:
    limits = Limits(cpuset_cpus="1", cpuset_mems="0", pids=3)
    made.place(limits)
    assert kernel.writes == [("cpuset.cpus", "1"), ("cpuset.mems", "0")]
    kernel.writes.clear()
    made.arm(limits)
    assert kernel.writes == [("pids.max", "3")]
    assert made.read_back()["cpuset_cpus"] == "1"
    assert made.read_back()["pids"] == 3


def test_a_cpu_that_is_not_there_is_the_users_mistake(made: cgroup.Cgroup, kernel: Any) -> None:
    kernel.rules.append(refuse("cpuset.cpus", errno.EINVAL))
    with pytest.raises(SpecError, match="cpuset-cpus 99 was refused"):
        made.place(Limits(cpuset_cpus="99"))


def test_denied_and_gone(made: cgroup.Cgroup, kernel: Any) -> None:
    kernel.rules.append(refuse("pids.max", errno.EACCES))
    with pytest.raises(HostError, match="Permission denied") as caught:
        made.arm(Limits(pids=3))
    assert "root" in (caught.value.hint or "")
    made.remove()
    with pytest.raises(StateError, match="gone"):
        made.arm(Limits(cpu_shares=5))


def test_removal_is_complete_and_repeatable(made: cgroup.Cgroup, kernel: Any) -> None:
    made.remove()
    made.remove()
    made.close()
    assert not list(kernel.root.glob("*/nscontainer"))
    assert made.pids() == []
    assert not made.populated()


def test_removal_leaves_other_containers_alone(made: cgroup.Cgroup, v1: cgroup.Layout) -> None:
    other = cgroup.create(v1, "two", want=ALL)
    made.remove()
    assert cgroup.names(v1) == ["two"]
    other.arm(Limits(pids=3))


def test_removal_takes_cgroups_below_along(made: cgroup.Cgroup, kernel: Any) -> None:
    kernel.mkdir(made.paths["pids"] + "/inner")
    made.remove()
    assert not list(kernel.root.glob("*/nscontainer"))


def test_removal_waits_and_then_says_who_is_in_the_way(made: cgroup.Cgroup, kernel: Any) -> None:
    """What can be removed is, all the same."""
    (Path(made.paths["memory"]) / "cgroup.procs").write_text("1\n")
    with pytest.raises(StateError, match=r"memory/nscontainer/one can't be removed"):
        made.remove(timeout_s=0.02)
    assert not os.path.exists(made.paths["pids"])


def test_processes_of_other_pid_namespaces_are_not_ours(made: cgroup.Cgroup) -> None:
    """They read as 0, which kill(2) would take for our own process group."""
    (Path(made.paths["memory"]) / "cgroup.procs").write_text("0\n0\n9\n")
    assert made.pids() == [9]


def test_pause_by_the_freezer(made: cgroup.Cgroup, kernel: Any) -> None:
    made.freeze()
    assert (Path(made.paths["freezer"]) / "freezer.state").read_text() == "FROZEN\n"
    made.thaw()
    assert (Path(made.paths["freezer"]) / "freezer.state").read_text() == "THAWED\n"


def test_pause_without_freezer_or_cgroup2_is_an_error(v1: cgroup.Layout) -> None:
    group = cgroup.create(v1, "one", want=ALL - {"freezer"})
    with pytest.raises(HostError, match="can't be paused"):
        group.freeze()
    group.thaw()


def test_kill_without_cgroup2_freezes_kills_and_thaws(
    made: cgroup.Cgroup, kernel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one, frozen so that none forks meanwhile; again until none is left."""
    procs = Path(made.paths["memory"]) / "cgroup.procs"
    procs.write_text("101\n102\n")
    killed = []

    def kill(pid: int, number: int) -> None:
        killed.append((pid, number, (Path(made.paths["freezer"]) / "freezer.state").read_text()))
        procs.write_text("" if pid == 103 else "103\n")

    monkeypatch.setattr(cgroup_core.os, "kill", kill)  # type: ignore[attr-defined]
    made.kill()
    assert killed == [(pid, signal.SIGKILL, "FROZEN\n") for pid in (101, 102, 103)]
    assert (Path(made.paths["freezer"]) / "freezer.state").read_text() == "THAWED\n"


# --- hybrid: the directory beside ------------------------------------------------------------


@pytest.fixture
def beside(hybrid: cgroup.Layout, kernel: Any) -> cgroup.Cgroup:
    """A container's cgroups on a hybrid host."""
    group = cgroup.create(hybrid, "one", want=cgroup.default_want(hybrid))
    kernel.writes.clear()
    return group


def test_hybrid_has_a_cgroup2_directory_beside(beside: cgroup.Cgroup, kernel: Any) -> None:
    """A process joins it first: what is in any hierarchy can then be killed by it."""
    assert beside.version == "hybrid"
    assert beside.paths["unified"] == f"{kernel.root}/unified/nscontainer/one"
    joined: list[str] = []
    kernel.rules.append(lambda file, text: joined.append(str(file.parent)))
    beside.add(5)
    assert joined[0] == beside.paths["unified"]
    assert sorted(joined) == sorted(beside.paths.values())


def test_hybrid_kills_pauses_and_watches_by_cgroup2(beside: cgroup.Cgroup, kernel: Any) -> None:
    beside.freeze()
    assert beside.populated()
    beside.thaw()
    beside.kill()
    assert kernel.writes == [("cgroup.freeze", "1"), ("cgroup.freeze", "0"), ("cgroup.kill", "1")]
    beside.remove()
    assert not list(kernel.root.glob("*/nscontainer"))


def test_hybrid_kill_thaws_the_v1_freezer(hybrid: cgroup.Layout, kernel: Any) -> None:
    """A process that v1 has frozen doesn't die until it is thawed."""
    group = cgroup.create(hybrid, "one", want=ALL)
    (Path(group.paths["freezer"]) / "freezer.state").write_text("FROZEN\n")
    group.kill()
    assert (Path(group.paths["freezer"]) / "freezer.state").read_text() == "THAWED\n"


def test_hybrid_of_an_old_linux_kills_one_by_one(
    hybrid: cgroup.Layout, kernel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cgroup.kill came with 5.14, cgroup.freeze with 5.2."""
    kernel.without.add("cgroup.kill")
    group = cgroup.create(hybrid, "one", want=cgroup.default_want(hybrid))
    (Path(group.paths["unified"]) / "cgroup.procs").write_text("101\n")
    kernel.writes.clear()
    monkeypatch.setattr(
        cgroup_core.os,  # type: ignore[attr-defined]
        "kill",
        lambda pid, number: (Path(group.paths["unified"]) / "cgroup.procs").write_text(""),
    )
    group.kill()
    assert kernel.writes == [("cgroup.kill", "1"), ("cgroup.freeze", "1"), ("cgroup.freeze", "0")]


def test_a_cgroup2_that_may_not_be_written_is_done_without(
    hybrid: cgroup.Layout, kernel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It only adds to v1: a container is made without it, and says that it is v1."""
    from nscontainer.linux import cgroup_files
    from nscontainer.linux.syscalls import KernelError

    def mkdir(path: str) -> None:
        if "/unified/" in path:
            raise KernelError(errno.EROFS, "mkdir", path)
        kernel.mkdir(path)

    monkeypatch.setattr(cgroup_files, "mkdir", mkdir)
    group = cgroup.create(hybrid, "one", want=ALL)
    assert group.version == "v1"
    assert "unified" not in group.paths


def test_reopened_it_is_the_same(beside: cgroup.Cgroup, hybrid: cgroup.Layout) -> None:
    beside.arm(Limits(pids=7))
    again = cgroup.reopen(hybrid, "one")
    assert again.version == "hybrid"
    assert again.paths.items() >= beside.paths.items()
    assert again.read_back()["pids"] == 7
    again.remove()
    assert cgroup.names(hybrid) == []


def test_cpu_time_is_no_limit_where_nothing_counts_it(v1: cgroup.Layout) -> None:
    """The monitor enforces it by cpuacct's count: without that it would be waited for in vain."""
    counted = cgroup.create(v1, "one", want=ALL)
    counted.place(Limits(cpu_time_s=2))
    layout = cgroup.Layout("v1", {"memory": v1.controllers["memory"]}, None)
    group = cgroup.create(layout, "two", want=ALL)
    with pytest.raises(HostError, match=r"cpu-time 2 s can't be set: .*cpuacct"):
        group.place(Limits(cpu_time_s=2))
