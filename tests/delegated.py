"""Tries, as whoever runs it, what a cgroup of the user's own does; prints the findings as JSON.

``python -m tests.delegated [CPUSET]``: it goes where containers' cgroups can be made, as the engine's spawner
does, makes one, puts limits on it, and sees what becomes of processes in it. It needs no container.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from nscontainer import schema
from nscontainer.errors import NsContainerError
from nscontainer.linux import blockdev, cgroup, clone, delegation, userns
from nscontainer.spec import Limits

MIB = 1 << 20
QUOTA_US, PERIOD_US, PERIODS = 20_000, 100_000, 30


def child(group: cgroup.Cgroup, work: Callable[[], object]) -> int:
    """Start a process in the cgroup, as the engine does; give its wait status.

    A signal's number, or 256 times what ``work`` gives.
    """
    entries = group.entry_fds()
    pid, pidfd = clone.clone3(0, exit_signal=signal.SIGCHLD, cgroup_fd=group.fd())
    if pid == 0:
        code = 99
        with contextlib.suppress(BaseException):
            for fd in entries:
                os.write(fd, b"0")
            code = int(bool(work()))
        os._exit(code)
    for fd in (*entries, pidfd):
        os.close(fd)
    return os.waitpid(pid, 0)[1]


def spin() -> None:
    """Burn CPU until a number of periods is over."""
    end = time.monotonic() + PERIODS * PERIOD_US / 1e6
    while time.monotonic() < end:
        pass


def burn() -> None:
    """Use a quarter of a second of CPU time."""
    while time.process_time() < 0.25:
        pass


def take() -> None:
    """Use more memory than there is."""
    block = bytearray(256 * MIB)
    block[:: resource.getpagesize()] = b"x" * len(block[:: resource.getpagesize()])


def forks() -> bool:
    """Try to have twenty processes; tell whether they were refused."""
    made = []
    try:
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                signal.pause()
            made.append(pid)
    except BlockingIOError:
        return True
    finally:
        for pid in made:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return False


def figures(reader: cgroup.Reader) -> dict[str, int]:
    """Read the accounts."""
    return dict(zip(schema.NAMES, reader.read(), strict=True))


def refusal(work: Callable[[], object]) -> str | None:
    """Give the error of what is tried, with its hint; None where it works."""
    try:
        work()
    except NsContainerError as error:
        return f"{error.message}; {error.hint}"
    return None


def limits_hold(group: cgroup.Cgroup) -> dict[str, Any]:
    """Put each limit on a cgroup and see what it does."""
    found: dict[str, Any] = {}
    reader = group.reader()
    before = figures(reader)
    burnt = child(group, burn)
    found["burnt"] = [burnt, figures(reader)["cpuacct.usage"] - before["cpuacct.usage"]]
    found["pids"] = refusal(lambda: group.arm(Limits(pids=8)))
    if found["pids"] is None:
        found["forks_refused"] = child(group, forks) == 256
    found["memory"] = refusal(lambda: group.arm(Limits(memory_bytes=48 * MIB)))
    if found["memory"] is None:
        found["too_much"] = child(group, take)
        found["oom_kills"] = figures(reader)["memory.oom_kill"]
        found["memory_peak"] = figures(reader)["memory.peak"]
    found["cpu"] = refusal(
        lambda: group.arm(Limits(cpu_quota_us=QUOTA_US, cpu_period_us=PERIOD_US))
    )
    if found["cpu"] is None:
        before = figures(reader)
        began = time.monotonic()
        child(group, spin)
        after = figures(reader)
        wall = time.monotonic() - began
        found["cpus"] = (after["cpuacct.usage"] - before["cpuacct.usage"]) / 1e9 / wall
        found["throttled"] = after["cpu.nr_throttled"] - before["cpu.nr_throttled"]
    found["read_back"] = group.read_back()
    reader.close()
    return found


def whole() -> dict[str, Any]:
    """Go where cgroups can be made, try all of it, and remove it."""
    layout = delegation.prepare()
    userns.enter()
    found: dict[str, Any] = {
        "version": layout.version,
        "controllers": dict(layout.controllers),
        "cause": layout.cause,
        "own": cgroup_paths(),
    }
    group = cgroup.create(layout, f"tried-{os.getpid()}", want=cgroup.default_want(layout))
    try:
        found["cpuset"] = refusal(lambda: group.place(Limits(cpuset_cpus="0")))
        found["io"] = refusal(lambda: group.hold_disks({disk(): blockdev.Rule(read_bps=MIB)}))
        found |= limits_hold(group)
    finally:
        group.kill()
        group.remove()
        group.close()
    found["left"] = [path for path in group.paths.values() if os.path.exists(path)]
    return found


def disk() -> str:
    """Give any disk of the machine."""
    names = sorted(name for name in os.listdir("/sys/block") if name[:2] in ("vd", "sd", "nv"))
    with open(f"/sys/block/{names[0]}/dev", encoding="ascii") as file:
        return file.read().strip()


def cgroup_paths() -> str:
    """Say where this process is."""
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        return file.read()


if __name__ == "__main__":
    json.dump(whole(), sys.stdout)
