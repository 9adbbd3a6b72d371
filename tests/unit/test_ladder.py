"""The ladder: what is refused, what is marked, and what works where there is no Linux at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nscontainer import ladder, spec
from nscontainer.engine.besteffort import BestEffort
from nscontainer.errors import HostError, SpecError
from nscontainer.limits import Limits
from nscontainer.measure.isolation import Isolation
from nscontainer.spec import limits
from tests.unit import factories

ROOT = Path(__file__).resolve().parents[2]
ALL = limits(
    cpu="20%", cpu_shares=512, memory="64M", memory_swap="128M", pids_limit=9, cpuset_cpus="0",
    disk_read="5M", storage="64M", net_rate="1mbit", timeout="1s", cpu_time="1s", ulimits=["nofile=9"],
)  # fmt: skip


def test_what_a_process_cannot_be_held_to() -> None:
    """Everything but memory, pids, CPUs, ulimits and time; less for root, and on another system."""
    anybody = dict(ladder._unheld(ALL, linux=True, root=False))
    assert set(anybody) == {
        "cpu_quota_us", "cpu_shares", "memory_swap_bytes", "disk_read_bps", "storage_bytes",
        "net_rx_bps", "net_tx_bps",
    }  # fmt: skip
    assert set(ladder._unheld(ALL, linux=True, root=True)) - set(anybody.items()) == {
        ("pids", "RLIMIT_NPROC doesn't hold root: getrlimit(2)")
    }
    elsewhere = dict(ladder._unheld(ALL, linux=False, root=False))
    assert set(elsewhere) - set(anybody) == {"memory_bytes", "pids", "cpuset_cpus"}


def test_a_limit_that_cannot_be_held_is_an_error_or_marked() -> None:
    """The error names both ways out; --best-effort keeps what was asked in the spec."""
    with pytest.raises(SpecError, match="--cpu can't be held by --unconfined") as caught:
        spec.build(["true"], unconfined=True, cpu="20%")
    assert caught.value.hint == "drop --cpu, or add --best-effort, which marks the result"
    made = spec.build(["true"], unconfined=True, best_effort=True, cpu="20%", net_rate="1mbit")
    assert made.limits.cpus == 0.2
    assert spec.ContainerSpec.from_dict(made.to_dict()) == made


def test_each_limit_by_itself() -> None:
    """With --best-effort one refused limit takes no other along; without it, it is the error."""
    held: list[Limits] = []

    def hold(asked: Limits) -> None:
        if asked.pids is not None:
            message = "no pids here"
            raise HostError(message, hint="mount them")
        held.append(asked)

    asked = limits(cpu="20%", memory="64M", pids_limit=9)
    effort = BestEffort(allowed=True)
    effort.each(asked, hold)
    assert effort.unheld == {"pids": "no pids here"}
    assert [(one.cpus, one.memory_bytes) for one in held] == [(0.2, None), (None, 64 << 20)]
    assert effort.held(asked) == limits(cpu="20%", memory="64M")
    with pytest.raises(HostError, match="no pids here"):
        BestEffort(allowed=False).each(asked, hold)


def test_what_was_not_asked_for_is_no_best_effort() -> None:
    """A refusal of something of the engine's own stays an error; so does one that is no refusal."""
    effort = BestEffort(allowed=True)
    with pytest.raises(OSError, match="gone"), effort.without():
        raise OSError(2, "gone")
    with pytest.raises(SpecError), effort.without("pids"):
        raise SpecError("not a number")
    assert not effort.unheld


def test_marked_in_a_result() -> None:
    """What was not held is neither as asked nor different: it says so, and why, and draws no line."""
    run = factories.run(unheld={"cpu_quota_us": "no cgroup"})
    rows = {row.label: row for row in run.limits.rows()}
    assert rows["CPU"].read_back == "not held: no cgroup"
    assert rows["CPU"].unheld == "no cgroup"
    assert rows["memory"].unheld is None
    assert run.limits.in_force.cpus is None
    assert run.limits.asked.cpus == 0.2
    assert "read back as asked" not in str(run)
    assert "CPU 20 % (NOT HELD)" in str(run)
    assert "(limit 20 % not held)" in str(run)
    codes = [w.code for w in run.warnings]
    assert "best-effort" in codes
    assert not {"limit-differs", "limit-unread", "short-run", "quota-overrun"} & set(codes)


def test_isolation_in_a_word() -> None:
    """What was not made is named; a plain process isn't isolated at all."""
    spaces = {"mnt": "private", "net": "unavailable", "time": "unavailable"}
    assert Isolation.from_dict({"namespaces": spaces}).word == "isolated, but for: net, time"
    assert Isolation.from_dict({"namespaces": {"mnt": "private"}}).word == "isolated"
    none = Isolation.from_dict({"unconfined": True})
    assert none.word == "not isolated"
    assert none.rows()[0] == ("isolation", "none: a plain process (--unconfined)")


NO_LINUX = """
import os, select, signal, socket, resource, ctypes, sys, sysconfig, zoneinfo
sysconfig.get_config_vars()
sys.platform = "darwin"
for module, names in (
    (os, "memfd_create MFD_CLOEXEC pidfd_open sched_getaffinity sched_setaffinity setns unshare "
         "eventfd O_TMPFILE O_PATH getxattr setxattr listxattr removexattr pipe2 splice"),
    (signal, "pidfd_send_signal sigtimedwait sigwaitinfo"),
    (socket, "MSG_CMSG_CLOEXEC SOCK_CLOEXEC SOCK_NONBLOCK"),
    (select, "epoll"),
    (resource, "prlimit RLIMIT_MSGQUEUE RLIMIT_NICE RLIMIT_RTPRIO RLIMIT_RTTIME RLIMIT_SIGPENDING"),
):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
found = ctypes.CDLL.__getattr__
def without(self, name):
    if name in ("prctl", "umount2", "setns", "unshare"):
        raise AttributeError(name)
    return found(self, name)
ctypes.CDLL.__getattr__ = without
import builtins
opened, there = builtins.open, os.path.exists
def no_proc(path, *args, **more):
    if isinstance(path, str) and path.startswith(("/proc/", "/sys/")):
        raise FileNotFoundError(2, "no such thing", path)
    return opened(path, *args, **more)
builtins.open = no_proc
os.path.exists = lambda path: not str(path).startswith(("/proc", "/sys")) and there(path)
sys.path.insert(0, sys.argv[1])
"""
SUPERVISE = "from nscontainer.unconfined.supervisor import main; main(int(sys.argv[2]))"
CELL = """
import nscontainer
from nscontainer.unconfined import process
start = "import sys; sys.argv = ['', {root!r}, '{fd}']; exec(open({path!r}).read())"
process._START = start.replace("{path!r}", repr(sys.argv[2]))
r = nscontainer.run_cell("print(1); import sys; print(2, file=sys.stderr)", unconfined=True,
                         inputs={"x": 41}, out={"y": "x + 1"}, timeout="60s")
print(r.values, r.stdout.split(), r.stderr.split(), r.exit_code, r.isolation.word)
print(r.cpu_s > 0.01, r.totals["memory.peak"] > 0, r.totals["pids.peak"], str(r)[:12])
r = nscontainer.run(["sh", "-c", "cat; exit 3"], unconfined=True, input=b"in")
print(r.stdout, r.exit_code)
try:
    nscontainer.run(["true"])
except nscontainer.errors.HostError as error:
    print("--unconfined" in error.hint)
"""


def test_on_a_system_that_is_no_linux(tmp_path: Path) -> None:
    """A cell and a command run, are accounted at their end and marked, with nothing that is Linux's."""
    (tmp_path / "supervise.py").write_text(NO_LINUX + SUPERVISE)
    done = subprocess.run(
        [sys.executable, "-c", NO_LINUX + CELL, str(ROOT), str(tmp_path / "supervise.py")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "{'y': 42} ['1'] ['2'] 0 not isolated",
        "True True None NOT ISOLATED",
        "in 3",
        "True",
    ]
