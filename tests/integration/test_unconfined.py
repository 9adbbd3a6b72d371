"""Runs without a container: what is accounted, held, said and left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import nscontainer
from nscontainer.errors import SpecError, StateError

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
SPIN = """
import resource, time
while time.process_time() < 0.6:
    pass
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime)
"""
AS_NOBODY = """
import json, sys
sys.path.insert(0, sys.argv[1])
import nscontainer
r = nscontainer.run_cell(sys.argv[2], unconfined=True, pids_limit=12)
print(json.dumps([r.stdout, r.cpu_s, r.start_mode, r.isolation.word, str(r.limits), r.exit_code]))
"""


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_cpu_time_is_the_processes_own() -> None:
    """A spinner's CPU time is within 3 % of what it says itself."""
    r = nscontainer.run([sys.executable, "-S", "-c", SPIN], unconfined=True)
    assert r.cpu_s == pytest.approx(float(r.stdout), rel=0.03)
    assert r.start_mode == "unconfined"
    assert r.usage["cpuacct.usage"].iloc[-1] == r.totals["cpuacct.usage"]
    assert r.usage["cpuacct.usage"].is_monotonic_increasing


def test_children_are_counted_also_orphaned_ones() -> None:
    """What a child of a child used is in the total, though its parent ended and it made a session."""
    code = (
        f"setsid {sys.executable} -S -c 'import time\nwhile time.process_time() < 0.3: pass' & wait"
    )
    orphan = f"sh -c '{sys.executable} -S -c \"import time\nwhile time.process_time() < 0.3: pass\" & exit'; sleep 2"
    for script in (code, orphan):
        r = nscontainer.run(["sh", "-c", script], unconfined=True)
        assert r.ok
        assert r.cpu_s is not None
        assert r.cpu_s > 0.3


def test_memory_peak() -> None:
    """100 MB that were held are in the peak, and little more."""
    code = (
        "import time; x = bytearray(10**8); time.sleep(0.3)"  # long enough to be seen: getrusage(2)
    )
    r = nscontainer.run([sys.executable, "-S", "-c", code], unconfined=True)
    peak = r.totals["memory.peak"]
    assert peak is not None
    assert 10**8 < peak < 1.3 * 10**8


def test_a_cell_is_a_cell() -> None:
    """Output, results, values in and out, an error with the cell's own lines."""
    r = nscontainer.run_cell(
        "import subprocess\nprint('text', flush=True)\nsubprocess.run(['echo', 'raw'])\nx + 1",
        unconfined=True, inputs={"x": 41}, out={"y": "x * 2"},
    )  # fmt: skip
    assert r.values == {"y": 82}
    assert r.stdout == "text\nraw\n"
    assert any(o.get("data", {}).get("text/plain") == "42" for o in r.outputs)
    failed = nscontainer.run_cell("a = 1\n1 / 0", unconfined=True)
    assert failed.outputs[-1]["ename"] == "ZeroDivisionError"
    assert failed.exit_code == 1


def test_marked_everywhere() -> None:
    """The frame, the card, its line in a terminal, the picture and the warnings say what it was."""
    r = nscontainer.run(["sleep", "0.1"], unconfined=True, best_effort=True, cpu="20%")
    assert r.isolation.word == "not isolated"
    assert not r.isolation.confined
    assert r.usage.attrs["isolation"] == "not isolated"
    assert "cgroup" in r.usage.attrs["not_held"]["cpu_quota_us"]
    assert str(r).startswith("NOT ISOLATED")
    assert "NOT ISOLATED" in r._repr_html_()
    assert "CPU    20 %   not held: " in str(r.limits)
    assert r.limits.in_force.cpus is None
    assert not r.limits.differs
    title = r.plot("cpu").get_title(loc="left")
    assert "NOT ISOLATED" in title
    assert "not held: CPU 20 %" in title
    assert {w.code for w in r.warnings} >= {"not-isolated", "best-effort"}
    assert "short-run" not in {w.code for w in r.warnings}


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"cpu": "20%"}, "--cpu can't be held"),
        ({"net_rate": "1mbit"}, "--net-rx can't be held"),
        ({"storage": "1G"}, "--storage can't be held"),
        ({"volumes": ["/tmp:/x"]}, "--volume needs a container"),
        ({"image": "python:3"}, "--image needs a container"),
        ({"network": "bridge"}, "--network needs a container"),
        ({"read_only": True}, "--read-only needs a container"),
        ({"user": "1000"}, "--user needs a container"),
        ({"name": "x"}, "--name needs a container"),
        ({"detach": True}, "--detach needs a container"),
    ],
)
def test_what_it_cannot_do_is_one_line(options: dict[str, Any], word: str) -> None:
    """Nothing is ignored: each such option is an error before anything runs."""
    with pytest.raises(SpecError, match=word) as caught:
        nscontainer.run(["touch", "/nonexistent"], unconfined=True, **options)
    assert caught.value.hint


def test_limits_that_hold() -> None:
    """Memory by RLIMIT_DATA, CPUs by affinity, ulimits; and read back."""
    r = nscontainer.run_cell("x = bytearray(2 * 10**9)", unconfined=True, memory="1G")
    assert r.outputs[-1]["ename"] == "MemoryError"
    assert r.limits.read_back.memory_bytes == 1 << 30
    one = str(min(os.sched_getaffinity(0)))
    r = nscontainer.run(
        ["sh", "-c", "ulimit -n; grep Cpus_allowed_list /proc/self/status"],
        unconfined=True, cpuset_cpus=one, ulimits=["nofile=99"],
    )  # fmt: skip
    assert r.stdout.split() == ["99", "Cpus_allowed_list:", one]
    assert not r.limits.differs
    assert [w.code for w in r.warnings if w.code == "rlimit"]


def test_a_refused_limit_and_directory_are_errors() -> None:
    """What Linux refuses is said before the code runs."""
    with pytest.raises(SpecError, match="/not/there"):
        nscontainer.run(["true"], unconfined=True, workdir="/not/there")
    r = nscontainer.run(["/etc/hostname"], unconfined=True)
    assert r.exit_code == 126
    assert nscontainer.run(["no-such-command"], unconfined=True).exit_code == 127


def test_time_limits_kill_all_of_it() -> None:
    """Wall and CPU time end every process of it, of all together."""
    r = nscontainer.run(["sh", "-c", "setsid sleep 60 & sleep 60"], unconfined=True, timeout="0.3s")
    assert r.describe_exit() == "killed: timeout of 300 ms"
    two = "import os\nos.fork()\nwhile True: pass"
    r = nscontainer.run([sys.executable, "-S", "-c", two], unconfined=True, cpu_time="0.4s")
    assert r.timed_out == "cpu"
    assert r.cpu_s is not None
    assert 0.4 <= r.cpu_s < 0.8


def test_nothing_is_left() -> None:
    """Whatever the first process leaves is killed: daemons, double forks, sessions, what ignores signals."""
    script = "trap '' INT TERM HUP; (setsid sh -c 'sleep 98 & echo $!; wait' &) ; sleep 99 & echo $!; sleep 0.3"
    r = nscontainer.run(["sh", "-c", script], unconfined=True)
    pids = [int(word) for word in r.stdout.split()]
    assert len(pids) == 2
    assert not any(map(alive, pids))


def test_the_owners_end_is_its_end() -> None:
    """Killed while it waits, the process that ran it leaves nothing."""
    code = (
        "import nscontainer\n"
        "nscontainer.run(['sh', '-c', 'echo $$; setsid sleep 97 & echo $!; sleep 97'],"
        " unconfined=True, on_stdout=lambda data: print(data.decode(), end='', flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pids = [int(owner.stdout.readline()) for _ in range(2)]
        owner.kill()
    until = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(map(alive, pids))


def test_the_first_interrupt_asks_the_second_kills() -> None:
    """A cell gets its KeyboardInterrupt; one that won't hear it is killed by the second."""
    main = threading.main_thread().ident
    assert main is not None

    def press(text: bytes) -> None:
        if text:
            signal.pthread_kill(main, signal.SIGINT)

    script = "trap 'echo again' INT; echo begun; while :; do sleep 0.05; done"
    r = nscontainer.run(
        ["sh", "-c", script], unconfined=True, on_stdout=press, on_interrupt="return"
    )
    assert r.interrupted == 2
    assert r.killed_by == "interrupt"
    r = nscontainer.run_cell(
        "import os, time\nos.write(1, b'begun')\ntime.sleep(60)",
        unconfined=True, on_stdout=press, on_interrupt="return",
    )  # fmt: skip
    assert r.interrupted == 1
    assert r.outputs[-1]["ename"] == "KeyboardInterrupt"
    assert r.exit_code == 130


def test_as_anybody() -> None:
    """An ordinary user, with Debian's own Python, gets the same; pids are held for him."""
    spin = "import os, time\nwhile time.process_time() < 0.5: pass\n"
    fork = (
        "made = []\ntry:\n    for _ in range(40):\n        pid = os.fork()\n"
        "        if not pid: time.sleep(60)\n        made.append(pid)\n"
        "except BlockingIOError:\n    print('refused', len(made) < 13)\n"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-c", AS_NOBODY, str(ROOT), spin + fork],
        user=NOBODY, group=NOBODY, extra_groups=(), cwd="/", env={"PATH": os.environ["PATH"], "HOME": "/"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stdout, cpu_s, mode, word, limits, code = json.loads(done.stdout)
    assert (stdout, mode, word, code) == ("refused True\n", "unconfined", "not isolated", 0)
    assert cpu_s >= 0.5
    assert "pids" in limits


def test_a_sweep_is_marked() -> None:
    """Each run of a sweep says so in its row, and the sweep once."""
    s = nscontainer.sweep("x = n", unconfined=True, params={"n": [1, 2]}, resume=False)
    assert len(s) == 2
    assert all("not-isolated" in row for row in s.summary["warnings"])
    assert "not-isolated" in {w.code for w in s.warnings}


def test_only_what_is_waited_for() -> None:
    """A container is never made where none was asked for."""
    with pytest.raises(SpecError, match="--unconfined"):
        nscontainer.Container.create(nscontainer.spec.build(["true"], unconfined=True))
    with pytest.raises(SpecError, match="--session"):
        nscontainer.spec.build(None, unconfined=True, session=True)


def test_it_cannot_be_paused() -> None:
    """What takes a cgroup is refused in one line while it runs."""
    seen: list[str] = []

    def started(process: nscontainer.Container) -> None:
        with pytest.raises(StateError, match="paused"):
            process.pause()
        with pytest.raises(StateError, match="other limits"):
            process.update(cpu="20%")
        seen.append(process.status)
        process.kill()

    r = nscontainer.run(["sleep", "60"], unconfined=True, on_start=started)
    assert seen == ["running"]
    assert r.killed_by == "user"


def test_a_shells_log_is_told() -> None:
    """Where standard error is a file there is no summary, but that it was no container is said; -q is quiet."""
    command = [sys.executable, "-m", "nscontainer", "run", "--unconfined"]
    done = subprocess.run([*command, "--", "true"], capture_output=True, text=True, check=True)
    assert done.stderr.startswith("warning: not isolated: a plain process")
    assert done.stderr.count("\n") == 1
    done = subprocess.run(
        [*command, "-q", "--", "true"], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
