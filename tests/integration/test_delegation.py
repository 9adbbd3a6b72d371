"""An ordinary user's cgroups: what an administrator or systemd gave them holds, the rest is refused.

On v1 with a subtree in each hierarchy, as ``nscontainer setup`` makes it; on v2 with the scope that the
user's own systemd delegates, without it, and with what ``nscontainer setup`` adds.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nscontainer.cli import setup_steps
from nscontainer.linux import cgroup1, cgroup_find
from tests import host, ordinary
from tests.delegated import MIB, PERIODS, QUOTA_US

pytestmark = pytest.mark.root

UID = 12346
QUARTER_NS = 250_000_000


def check_limits(found: dict[str, Any]) -> None:
    """Quota, memory limit, number of processes and accounting are as they are for root."""
    status, counted_ns = found["burnt"]
    assert status == 0
    assert QUARTER_NS <= counted_ns < 2 * QUARTER_NS
    assert [found[name] for name in ("cpu", "memory", "pids")] == [None] * 3
    # A spinner may overrun a tick each period, and pays it back (docs/accounting.md).
    assert 0.10 < found["cpus"] < 0.22
    assert found["throttled"] >= PERIODS // 2
    assert found["too_much"] == signal.SIGKILL
    assert found["oom_kills"] == 1
    assert 40 * MIB < found["memory_peak"] <= 48 * MIB
    assert found["forks_refused"]
    back = found["read_back"]
    assert (back["cpu_quota_us"], back["memory_bytes"], back["pids"]) == (QUOTA_US, 48 * MIB, 8)
    assert found["left"] == []


def check_refusals(found: dict[str, Any], *names: str) -> None:
    """Each is refused in words that name what is missing and the command that gives it."""
    for name in names:
        assert "can't be set" in found[name], name
        assert "sudo nscontainer setup" in found[name], name


# --- v1 --------------------------------------------------------------------------------------


def hierarchies() -> dict[str, str]:
    """Controllers and where they are mounted."""
    return {
        name: mount.target
        for mount in cgroup_find.cgroup_mounts()
        for name in mount.options
        if mount.fstype == "cgroup" and name in cgroup1.V1_NAMES
    }


@contextlib.contextmanager
def user_with(*controllers: str) -> Iterator[ordinary.Person]:
    """An ordinary user who was given a directory in those hierarchies; it is removed, so it is empty."""
    targets = {hierarchies()[name] for name in controllers}
    with ordinary.person(UID) as one:
        for target in targets:
            setup_steps.give_subtree(target, one.uid, one.uid)
        try:
            yield one
        finally:
            settle(lambda: not one.processes())
            for target in targets:
                setup_steps.take_subtree(target, one.uid)


def settle(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert done()


def tried(one: ordinary.Person) -> dict[str, Any]:
    """What tests/delegated.py finds as that user."""
    done = one.run([sys.executable, "-m", "tests.delegated"])
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.cgroup1
def test_limits_hold_in_a_users_subtree_of_v1() -> None:
    """All hierarchies given: every limit holds, in processes that the user started themselves."""
    with user_with(*hierarchies()) as one:
        found = tried(one)
        assert set(found["controllers"].values()) == {
            f"{target}/nscontainer-{UID}" for target in hierarchies().values()
        }
        assert found["cpuset"] is None
        assert found["io"] is None
        check_limits(found)


@pytest.mark.cgroup1
def test_a_hierarchy_that_was_not_given() -> None:
    """The others are used; a limit that needs it is refused by name."""
    with user_with("memory") as one:
        found = tried(one)
        assert set(found["controllers"]) == {"memory"}
        check_refusals(found, "cpu", "pids", "cpuset", "io")
        assert "/pids " in found["pids"]
        assert found["too_much"] == signal.SIGKILL


@pytest.mark.cgroup1
def test_a_users_container_on_v1() -> None:
    """From the command line: accounted, held to its quota, killed at its memory limit, nothing left."""
    spin = "import time; t = time.monotonic()\nwhile time.monotonic() - t < 2: pass"
    with user_with(*hierarchies()) as one:
        code = f"""
import json, nscontainer
r = nscontainer.run(["python3", "-c", {spin!r}], cpu="20%")
print(json.dumps([r.cpu_s / r.wall_s, r.limits.read_back.cpus, r.totals["memory.peak"]]))
"""
        done = one.python(code)
        assert done.returncode == 0, done.stderr
        share, quota, peak = json.loads(done.stdout)
        assert share < 0.25
        assert quota == 0.2
        assert peak > MIB
        done = one.nscontainer(
            "run", "--memory", "32M", "--", "python3", "-c", "x = bytearray(256 << 20)"
        )
        assert done.returncode == 128 + signal.SIGKILL, done.stderr
        done = one.nscontainer("run", "--detach", "--name", "long", "--", "sleep", "600")
        assert done.returncode == 0, done.stderr
        state = json.loads(one.nscontainer("inspect", "long").stdout)[0]
        memory = Path(state["cgroup"]["paths"]["memory"])
        assert memory.parent == Path(hierarchies()["memory"], f"nscontainer-{UID}", "nscontainer")
        for pid in one.processes():  # a crash: the monitor too, of which nobody is left to clean up
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        settle(lambda: not one.processes())
        assert memory.exists()
        assert one.nscontainer("gc").returncode == 0
        assert not memory.exists()


@pytest.mark.once
def test_a_user_without_any_cgroup() -> None:
    """A container without limits runs; a limit is an error at once that names cause and mend."""
    with ordinary.person(UID) as one:
        assert one.nscontainer("run", "--", "echo", "runs").stdout == "runs\n"
        done = one.nscontainer("run", "--memory", "64M", "--", "echo", "runs")
        assert (done.returncode, done.stdout) == (125, "")
        assert "memory 67108864 can't be set" in done.stderr
        assert f"sudo nscontainer setup {one.name}" in done.stderr


# --- v2, by systemd --------------------------------------------------------------------------


class Ann:
    """The cgroup v2 machine's ordinary user, with a systemd of her own."""

    def __init__(self) -> None:
        facts = pwd.getpwuid(host.ANN)
        self.name, self.home = facts.pw_name, facts.pw_dir
        self.runtime = f"/run/user/{host.ANN}"

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        given = {"HOME": self.home, "USER": self.name, "XDG_RUNTIME_DIR": self.runtime}
        given |= {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ["PYTHONPATH"]} | env
        return subprocess.run(
            ["setpriv", f"--reuid={host.ANN}", f"--regid={host.ANN}", "--init-groups", *words],
            env=given, text=True, capture_output=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def tried(self, **env: str) -> dict[str, Any]:
        done = self.run(sys.executable, "-m", "tests.delegated", **env)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def manager(self, verb: str) -> None:
        """Start or restart her systemd, and wait until it answers."""
        subprocess.run(["systemctl", verb, f"user@{host.ANN}.service"], check=True)


@pytest.fixture(scope="module")
def ann() -> Iterator[Ann]:
    """Her systemd runs as if she had logged in."""
    unit = f"user@{host.ANN}.service"
    ran = subprocess.run(["systemctl", "is-active", "--quiet", unit], check=False).returncode == 0
    one = Ann()
    one.manager("start")
    yield one
    if not ran:
        one.manager("stop")


@pytest.mark.cgroup2
@pytest.mark.systemd
@pytest.mark.timeout(900)
def test_limits_hold_in_the_scope_that_systemd_delegates(ann: Ann) -> None:
    """Each limit of a controller that systemd delegates holds; io and cpuset are refused by name.

    The scope is gone with its last process.
    """
    found = ann.tried()
    (base,) = set(found["controllers"].values())
    assert f"/user@{host.ANN}.service/" in base
    assert set(found["controllers"]) == {"cpu", "memory", "pids"}
    assert found["own"].rstrip().endswith(f".scope/{cgroup_find.ENGINE}")
    check_limits(found)
    check_refusals(found, "cpuset", "io")
    assert "controller cpuset is not delegated" in found["cpuset"]
    assert "controller io is not delegated" in found["io"]
    settle(lambda: not os.path.exists(base))


@pytest.mark.cgroup2
@pytest.mark.systemd
@pytest.mark.timeout(900)
def test_a_users_container_in_a_scope(ann: Ann) -> None:
    """Held by its own cgroup; a detached one outlives its owner, another process finds it; a crash leaves nothing."""
    command = [sys.executable, "-m", "nscontainer"]
    look = "cat /proc/self/cgroup /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max"
    done = ann.run(*command, "run", "--memory", "64M", "--cpu", "20%", "--", "sh", "-c", look)
    assert done.stdout.split() == ["0::/", str(64 * MIB), "20000", "100000"], done.stderr
    done = ann.run(
        *command, "run", "--detach", "--name", "long", "--memory", "64M", "--", "sleep", "600"
    )
    assert done.returncode == 0, done.stderr
    one = json.loads(ann.run(*command, "inspect", "long").stdout)[0]
    assert one["status"] == "running"
    base, _, _ = one["cgroup"]["paths"]["memory"].partition(".scope/")
    done = ann.run(*command, "stats", "--no-stream", "long")
    assert "64.0MiB" in done.stdout, (done.stdout, done.stderr)
    for line in Path(f"{base}.scope/{cgroup_find.ENGINE}/cgroup.procs").read_text().split():
        os.kill(int(line), signal.SIGKILL)  # the monitor, and with it the container
    settle(lambda: not os.path.exists(f"{base}.scope"))
    assert ann.run(*command, "rm", "--force", "long").returncode == 0


@pytest.mark.cgroup2
@pytest.mark.systemd
@pytest.mark.timeout(900)
def test_without_a_systemd_of_the_users(ann: Ann) -> None:
    """Who has none (cron, su, a service) gets no cgroup, and each limit is refused with the mend."""
    found = ann.tried(XDG_RUNTIME_DIR="/nowhere")
    assert found["version"] == "none"
    check_refusals(found, "cpu", "memory", "pids", "cpuset", "io")


@pytest.mark.cgroup2
@pytest.mark.systemd
@pytest.mark.timeout(900)
def test_setup_delegates_what_is_missing(ann: Ann) -> None:
    """After ``nscontainer setup`` and a new session io and cpuset hold as well; undone, all is as before."""
    setup = [sys.executable, "-m", "nscontainer", "setup", ann.name, "--yes"]
    before = Path("/etc/subuid").read_text()
    try:
        subprocess.run(setup, check=True)
        ann.manager("restart")
        found = ann.tried()
        assert {"cpu", "cpuset", "io", "memory", "pids"} <= set(found["controllers"])
        assert (found["cpuset"], found["io"]) == (None, None)
        assert found["read_back"]["cpuset_cpus"] == "0"
    finally:
        subprocess.run([*setup, "--undo"], check=True)
        ann.manager("restart")
    assert not Path("/etc", setup_steps.DROP_IN).exists()
    assert Path("/etc/subuid").read_text() == before
