"""v2: what is enabled and written, in which order, and which link is named where one is missing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nscontainer.errors import HostError, SpecError, StateError
from nscontainer.linux import cgroup, userns
from nscontainer.linux.cgroup2 import shares_to_weight
from nscontainer.spec import Limits

MIB = 1 << 20
ALL = frozenset({"cpu", "cpuacct", "cpuset", "memory", "pids", "freezer", "blkio"})


@pytest.fixture
def made(v2: cgroup.Layout, kernel: Any) -> cgroup.Cgroup:
    """A container's cgroup on a v2 host; ``kernel.writes`` begins after it is made."""
    group = cgroup.create(v2, "one", want=ALL)
    kernel.writes.clear()
    return group


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(0, 1), (2, 1), (3, 2), (10, 4), (512, 59), (1024, 100), (2048, 174), (262_144, 10_000)],
)
def test_shares_become_weight(shares: int, weight: int) -> None:
    """Linux's defaults 1024 and 100 meet, and so do both ends (opencontainers/cgroups #20)."""
    assert shares_to_weight(shares) == weight


def test_controllers_are_enabled_down_the_path(v2: cgroup.Layout, kernel: Any) -> None:
    """In the root's and the parent's subtree_control, one by one, once; v1 names are understood."""
    group = cgroup.create(v2, "one", want=ALL)
    names = ["+cpu", "+cpuset", "+io", "+memory", "+pids"]
    assert kernel.writes == [("cgroup.subtree_control", name) for name in names * 2]
    assert set(group.paths) == {"cpu", "cpuset", "io", "memory", "pids", "unified"}
    assert set(group.paths.values()) == {f"{kernel.root}/v2/nscontainer/one"}
    kernel.writes.clear()
    cgroup.create(v2, "two", want=ALL)
    assert kernel.writes == []


def test_only_what_is_wanted_is_enabled(v2: cgroup.Layout, kernel: Any) -> None:
    group = cgroup.create(v2, "one", want=frozenset({"memory", "freezer", "cpuacct"}))
    assert set(group.paths) == {"memory", "unified"}


def test_the_fd_is_of_the_directory(made: cgroup.Cgroup) -> None:
    """clone3 takes an O_PATH fd; it is one and the same until close."""
    fd = made.fd()
    assert fd is not None
    assert fd == made.fd()
    assert os.readlink(f"/proc/self/fd/{fd}") == made.paths["unified"]
    assert not os.get_inheritable(fd)
    made.close()
    made.close()


# --- what is missing -------------------------------------------------------------------------


def test_a_controller_this_linux_lacks(v2: cgroup.Layout, kernel: Any) -> None:
    (kernel.root / "v2/cgroup.controllers").write_text("cpu pids\n")
    layout = cgroup.Layout("v2", dict.fromkeys(("cpu", "pids"), str(v2.unified)), v2.unified)
    group = cgroup.create(layout, "one", want=ALL)
    group.arm(Limits(pids=3, cpu_quota_us=20_000))
    for limits in (Limits(memory_bytes=MIB), Limits(memory_bytes=MIB, memory_swap_bytes=2 * MIB)):
        with pytest.raises(HostError, match="no cgroup v2 controller memory") as caught:
            group.arm(limits)
        assert "cgroup_disable=memory" in (caught.value.hint or "")
    back = group.read_back()
    assert back["memory_bytes"] is None
    assert back["memory_swap_bytes"] is None


def test_a_controller_that_is_not_delegated(
    v2: cgroup.Layout, kernel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd delegates cpu, memory and pids; cpuset and io need a drop-in: the hint makes it."""
    monkeypatch.setattr(userns, "privileged", lambda: False)
    base = kernel.root / "v2/user.slice"
    (kernel.root / "v2/cgroup.subtree_control").write_text("memory pids\n")
    kernel.mkdir(str(base))
    layout = cgroup.Layout("v2", dict.fromkeys(("memory", "pids"), str(base)), str(base))
    group = cgroup.create(layout, "one", want=ALL)
    group.arm(Limits(memory_bytes=MIB))
    with pytest.raises(HostError, match=f"cpuset is not delegated to {base}") as caught:
        group.place(Limits(cpuset_cpus="0"))
    assert "sudo nscontainer setup " in (caught.value.hint or "")
    with pytest.raises(HostError, match="cpu is not delegated"):
        group.arm(Limits(cpu_quota_us=20_000))


def test_a_controller_that_could_not_be_enabled(v2: cgroup.Layout, kernel: Any) -> None:
    """The text names the file that lacks it, and the hint the command."""
    kernel.rules.append(
        lambda file, text: errno.EACCES if text == "+cpuset" else None,
    )
    group = cgroup.create(v2, "one", want=ALL)
    with pytest.raises(
        HostError, match=r"cpuset is not enabled in .*/v2/cgroup.subtree_"
    ) as caught:
        group.place(Limits(cpuset_cpus="0"))
    assert "echo +cpuset > " in (caught.value.hint or "")


@pytest.fixture
def delegated(v2: cgroup.Layout, kernel: Any) -> cgroup.Layout:
    """A cgroup that systemd delegated to a user, with the user's process in it."""
    base = kernel.root / "v2/user.slice/app.scope"
    for path in (base.parent.parent, base.parent):
        (path / "cgroup.subtree_control").write_text("cpu memory pids\n")
        kernel.mkdir(str(path / "user.slice" if path.name == "v2" else base))
    (base / "cgroup.procs").write_text("4242\n")
    return cgroup.Layout("v2", dict.fromkeys(("cpu", "memory", "pids"), str(base)), str(base))


def test_processes_in_the_delegated_cgroup_itself(delegated: cgroup.Layout, kernel: Any) -> None:
    """v2 has no processes in inner nodes: the cure is to move them, not to be root.

    Nothing is enabled then: cpu and pids could be, and would make it a threaded domain for good.
    """
    group = cgroup.create(delegated, "one", want=ALL)
    assert kernel.writes == []
    for limits in (Limits(memory_bytes=MIB), Limits(pids=3), Limits(cpu_quota_us=5_000)):
        with pytest.raises(HostError, match=r"is not enabled in .*app\.scope/cgroup") as caught:
            group.arm(limits)
        assert "processes sit in" in (caught.value.hint or "")
    with pytest.raises(HostError, match="cpuset is not delegated"):
        group.place(Limits(cpuset_cpus="0"))


def test_room_is_made_in_the_delegated_cgroup(delegated: cgroup.Layout, kernel: Any) -> None:
    """The processes there go one down; then containers have controllers."""
    take = kernel._take

    def move(file: Path, text: str) -> None:
        take(file, text)
        if file.name == "cgroup.procs":
            Path(delegated.unified or "", "cgroup.procs").write_text("")

    kernel._take = move
    cgroup.make_room(delegated)
    cgroup.make_room(delegated)
    assert kernel.writes == [("cgroup.procs", "4242")]
    group = cgroup.create(delegated, "one", want=ALL)
    group.arm(Limits(memory_bytes=MIB, pids=3, cpu_quota_us=5_000))
    assert cgroup.names(delegated) == ["one"]


def test_no_room_is_made_where_it_needs_none(
    v1: cgroup.Layout, v2: cgroup.Layout, kernel: Any
) -> None:
    """The root of v2 may have processes, and v1 any."""
    cgroup.make_room(v1)
    cgroup.make_room(v2)
    assert kernel.writes == []


def test_a_file_an_old_linux_lacks(v2: cgroup.Layout, kernel: Any) -> None:
    kernel.without.add("cpu.max.burst")
    group = cgroup.create(v2, "one", want=ALL)
    with pytest.raises(HostError, match=r"no cpu\.max\.burst") as caught:
        group.arm(Limits(cpu_quota_us=20_000, cpu_burst_us=1_000))
    assert "5.14" in (caught.value.hint or "")


def test_a_controller_enabled_meanwhile_is_used(v2: cgroup.Layout, kernel: Any) -> None:
    """Its files appear in the cgroups there are already, as soon as another container wants it."""
    group = cgroup.create(v2, "one", want=frozenset({"cpu"}))
    with pytest.raises(HostError, match="pids is not enabled in"):
        group.arm(Limits(pids=3))
    cgroup.create(v2, "two", want=ALL)
    group.arm(Limits(pids=3))
    assert group.read_back()["pids"] == 3


# --- limits ----------------------------------------------------------------------------------


def test_limits_are_written_and_read_back(made: cgroup.Cgroup, kernel: Any) -> None:
    made.arm(
        Limits(
            cpu_quota_us=20_000,
            cpu_period_us=50_000,
            cpu_burst_us=10_000,
            cpu_shares=2048,
            memory_bytes=64 * MIB,
            memory_swap_bytes=96 * MIB,
            pids=9,
        )
    )
    assert ("cpu.max", "20000 50000") in kernel.writes
    assert ("memory.swap.max", str(32 * MIB)) in kernel.writes
    assert made.read_back() == {
        "cpu_quota_us": 20_000,
        "cpu_period_us": 50_000,
        "cpu_burst_us": 10_000,
        "cpu_shares": None,
        "cpu_weight": 174,
        "cpuset_cpus": "0-1",
        "memory_bytes": 64 * MIB,
        "memory_swap_bytes": 96 * MIB,
        "pids": 9,
    }


def test_nothing_asked_is_nothing_written(made: cgroup.Cgroup, kernel: Any) -> None:
    made.arm(Limits())
    made.place(Limits())
    assert kernel.writes == []
    back = made.read_back()
    assert (back["cpu_quota_us"], back["memory_bytes"], back["pids"]) == (-1, -1, -1)
    assert back["memory_swap_bytes"] == -1


def test_quota_keeps_the_period_and_period_the_quota(made: cgroup.Cgroup, kernel: Any) -> None:
    made.arm(Limits(cpu_quota_us=20_000, cpu_period_us=50_000))
    made.arm(Limits(cpu_quota_us=30_000))
    assert kernel.writes[-1] == ("cpu.max", "30000 50000")
    made.arm(Limits(cpu_period_us=60_000))
    assert kernel.writes[-1] == ("cpu.max", "30000 60000")
    made.arm(Limits(cpu_quota_us=-1))
    assert kernel.writes[-1] == ("cpu.max", "max 60000")
    assert made.read_back()["cpu_quota_us"] == -1


def test_disarm_lifts_the_quota(made: cgroup.Cgroup) -> None:
    made.arm(Limits(cpu_quota_us=1_000))
    made.disarm_cpu()
    assert made.read_back()["cpu_quota_us"] == -1
    made.remove()
    made.disarm_cpu()


def test_burst_is_written_when_it_fits_the_quota(made: cgroup.Cgroup, kernel: Any) -> None:
    made.arm(Limits(cpu_quota_us=80_000, cpu_burst_us=80_000))
    kernel.writes.clear()
    made.arm(Limits(cpu_quota_us=10_000, cpu_burst_us=5_000))
    assert [name for name, _ in kernel.writes] == ["cpu.max.burst", "cpu.max"]
    with pytest.raises(SpecError, match="burst of 5000"):
        made.arm(Limits(cpu_quota_us=2_000))


def test_memory_alone_means_no_swap(made: cgroup.Cgroup, kernel: Any) -> None:
    """Swap is closed before memory is: nothing is pushed out in between."""
    made.arm(Limits(memory_bytes=64 * MIB))
    assert kernel.writes == [("memory.swap.max", "0"), ("memory.max", str(64 * MIB))]
    assert made.read_back()["memory_swap_bytes"] == 64 * MIB


@pytest.mark.parametrize(
    ("change", "memory", "both"),
    [
        (Limits(memory_bytes=128 * MIB, memory_swap_bytes=128 * MIB), 128 * MIB, 128 * MIB),
        (Limits(memory_bytes=32 * MIB), 32 * MIB, 32 * MIB),
        (Limits(memory_bytes=64 * MIB, memory_swap_bytes=-1), 64 * MIB, -1),
        (Limits(memory_swap_bytes=-1), 64 * MIB, -1),
        (Limits(memory_swap_bytes=80 * MIB), 64 * MIB, 80 * MIB),
        (Limits(memory_bytes=-1), -1, -1),
        (Limits(memory_bytes=-1, memory_swap_bytes=-1), -1, -1),
    ],
)
def test_memory_up_down_and_lifted(
    made: cgroup.Cgroup, change: Limits, memory: int, both: int
) -> None:
    """swap.max is memory_swap less memory, whatever way the limits go."""
    made.arm(Limits(memory_bytes=64 * MIB, memory_swap_bytes=96 * MIB))
    made.arm(change)
    back = made.read_back()
    assert (back["memory_bytes"], back["memory_swap_bytes"]) == (memory, both)


def test_where_swap_is_not_accounted(v2: cgroup.Layout, kernel: Any) -> None:
    kernel.without.add("memory.swap.max")
    group = cgroup.create(v2, "one", want=ALL)
    group.arm(Limits(memory_bytes=64 * MIB))
    group.arm(Limits(memory_bytes=64 * MIB, memory_swap_bytes=-1))
    back = group.read_back()
    assert (back["memory_bytes"], back["memory_swap_bytes"]) == (64 * MIB, None)
    with pytest.raises(HostError, match=r"no memory\.swap\.max") as caught:
        group.arm(Limits(memory_bytes=64 * MIB, memory_swap_bytes=128 * MIB))
    assert "swapaccount=1" in (caught.value.hint or "")


def test_cpuset_is_placed_and_checked(made: cgroup.Cgroup, kernel: Any) -> None:
    """v2 takes a CPU that isn't there and uses the parent's: never report that as applied."""
    made.place(Limits(cpuset_cpus="1", cpuset_mems="0"))
    assert kernel.writes == [("cpuset.cpus", "1"), ("cpuset.mems", "0")]
    assert made.read_back()["cpuset_cpus"] == "1"
    with pytest.raises(HostError, match="cpuset-cpus 0-3 can't be had"):
        made.place(Limits(cpuset_cpus="0-3"))
    with pytest.raises(HostError, match="cpuset-cpus 7 can't be had"):
        made.place(Limits(cpuset_cpus="7"))


def test_a_value_linux_refuses_is_the_users_mistake(made: cgroup.Cgroup, kernel: Any) -> None:
    kernel.rules.append(lambda file, text: errno.ERANGE if file.name == "cpuset.cpus" else None)
    with pytest.raises(SpecError, match="cpuset-cpus 9999 was refused"):
        made.place(Limits(cpuset_cpus="9999"))


def test_the_tightest_quota_above_is_found(made: cgroup.Cgroup, kernel: Any) -> None:
    assert made.parents_quota() is None
    (kernel.root / "v2/nscontainer/cpu.max").write_text("50000 100000\n")
    assert made.parents_quota() == pytest.approx(0.5)


# --- processes -------------------------------------------------------------------------------


def test_processes(made: cgroup.Cgroup, kernel: Any) -> None:
    made.add(42)
    assert made.pids() == [42]
    made.freeze()
    assert made.populated()
    made.thaw()
    made.kill()
    assert made.pids() == []
    assert [name for name, _ in kernel.writes] == [
        "cgroup.procs",
        "cgroup.freeze",
        "cgroup.freeze",
        "cgroup.kill",
    ]


def test_one_that_does_not_freeze(
    made: cgroup.Cgroup, kernel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nscontainer.linux.cgroup_core.FREEZE_S", 0.02)
    take: Callable[[Path, str], None] = kernel._take
    monkeypatch.setattr(
        kernel, "_take", lambda f, t: None if f.name == "cgroup.freeze" else take(f, t)
    )
    with pytest.raises(StateError, match="did not all stop"):
        made.freeze()


def test_removal(made: cgroup.Cgroup, v2: cgroup.Layout, kernel: Any) -> None:
    other = cgroup.create(v2, "two", want=ALL)
    made.remove()
    assert cgroup.names(v2) == ["two"]
    other.remove()
    assert not (kernel.root / "v2/nscontainer").exists()
    other.remove()
    with pytest.raises(StateError, match="gone"):
        other.arm(Limits(pids=3))


def test_kill_of_what_is_gone_is_no_error(made: cgroup.Cgroup) -> None:
    made.remove()
    made.kill()
    assert made.pids() == []
    assert not made.populated()


def test_reopened_it_is_the_same(made: cgroup.Cgroup, v2: cgroup.Layout) -> None:
    made.arm(Limits(pids=7))
    again = cgroup.reopen(v2, "one")
    assert again.paths == made.paths
    assert again.read_back()["pids"] == 7
