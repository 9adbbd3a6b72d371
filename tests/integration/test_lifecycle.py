"""A container's life: how it starts, is limited, sampled, changed, interrupted, and how it ends."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nscontainer import api, spec
from nscontainer.engine import spawner_client
from nscontainer.engine.container import Container
from nscontainer.errors import CommandError, NotFoundError, NsContainerError, StateError
from nscontainer.measure.result import RunResult
from nscontainer.schema import COLUMNS, INDEX, NA, ROW_BYTES, ROW_FIELDS, ROW_PREFIX
from tests.integration.inside import (
    PRELUDE,
    PYTHON,
    SLEEP,
    Owner,
    ask,
    ending,
    eventually,
    holdings,
)

pytestmark = [pytest.mark.root, pytest.mark.userns, pytest.mark.usefixtures("engine")]

MIB = 1 << 20
BUSY = ["sh", "-c", "while :; do :; done"]
STUBBORN = ["sh", "-c", "trap '' INT TERM; while :; do sleep 0.05; done"]


@pytest.fixture
def start() -> Iterator[Callable[..., Container]]:
    """Make and start a container; what still lives is killed at the end."""
    with ending() as made:

        def begin(command: list[str], **options: Any) -> Container:
            made.append(Container.create(spec.build(command, **options), start=True))
            return made[-1]

        yield begin


def total(result: RunResult, name: str) -> float:
    """A figure that this host must be able to give."""
    value = result.totals[name]
    assert value is not None, f"this host can't give {name}"
    return value


# --- how it ends -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "exit 255"], 255),
        (["sh", "-c", "sh -c 'kill -TERM $$'; exit $?"], 128 + signal.SIGTERM),
    ],
)
def test_the_exit_code_is_the_commands(command: list[str], code: int) -> None:
    """What the command returns comes back, and is no signal."""
    result = api.run(command)
    assert (result.exit_code, result.signal, result.killed_by) == (code, None, None)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["nsc-no-such-command"], 127),
        (["/nsc/no/such"], 127),
        (["/etc/passwd"], 126),
        (["/usr"], 126),
    ],
)
def test_what_cannot_be_executed_gives_dockers_codes(command: list[str], code: int) -> None:
    """127 where there is no such command, 126 where it can't be executed; the record says why."""
    result = api.run(command)
    assert result.exit_code == code
    assert command[0] in result.record["exec_error"]


def test_a_missing_interpreter_is_told_from_a_missing_command(tmp_path: Path) -> None:
    """A script whose interpreter isn't there is 126, and not "not found"."""
    script = tmp_path / "script"
    script.write_text("#!/nsc/no/such/interpreter\n")
    script.chmod(0o755)
    result = api.run([str(script)], workdir=str(tmp_path))
    assert result.exit_code == 126
    assert "interpreter" in result.record["exec_error"]


def test_a_crash_is_reported_by_its_signal() -> None:
    """The first process dies of SIGSEGV: 139, signal 11."""
    result = api.run([*PYTHON, "import ctypes; ctypes.string_at(0)"])
    assert (result.exit_code, result.signal) == (139, signal.SIGSEGV)


@pytest.mark.parametrize("name", ["KILL", "TERM", "INT", "HUP"])
def test_a_signal_ends_it_as_it_would_outside(start: Callable[..., Container], name: str) -> None:
    """A first process without a handler dies of a fatal signal, though Linux would drop it."""
    container = start(SLEEP)
    container.signal(name)
    record = container.wait(20)
    number = signal.Signals[f"SIG{name}"]
    assert (record["exit_code"], record["signal"]) == (128 + number, number)


def test_a_handled_signal_is_the_commands_own_affair() -> None:
    """A handler for TERM decides how it ends: its exit code, and nobody killed it."""
    said: list[bytes] = []
    container = Container.create(
        spec.build(["sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done"])
    )

    def tick(_: Container) -> None:
        if said and not container.__dict__.setdefault("told", []):
            container.__dict__["told"].append(1)
            container.signal("TERM")

    container.start()
    record = container.drive(on_stdout=said.append, on_tick=tick, tick_s=0.02)
    assert (record["exit_code"], record["signal"], record["killed_by"]) == (5, None, None)


def test_oom_is_reported_with_the_peak() -> None:
    """A command that wants too much memory: 137, oom_killed, the peak at the limit."""
    result = api.run([*PYTHON, "x = b'x' * (256 << 20)"], memory="32M")
    assert result.exit_code == 137
    assert result.oom_killed
    assert result.killed_by is None
    assert 24 * MIB <= total(result, "memory.peak") <= 33 * MIB
    assert total(result, "memory.oom_kill") >= 1


def test_an_oom_kill_of_a_child_is_not_the_containers_end() -> None:
    """A child dies for want of memory, the command goes on: counted, but not how it ended."""
    source = f"{PYTHON[0]} -I -S -c 'x = b\"x\" * (256 << 20)'; exit 4"
    result = api.run(["sh", "-c", source], memory="32M")
    assert result.exit_code == 4
    assert not result.oom_killed
    assert total(result, "memory.oom_kill") == 1


def test_a_timeout_ends_it() -> None:
    """``timeout``: killed after that much wall time, children too, and the record says by what."""
    begin = time.monotonic()
    result = api.run(["sh", "-c", "trap '' TERM INT; sleep 1000 & sleep 1000"], timeout="0.3")
    assert (result.exit_code, result.timed_out, result.killed_by) == (137, "wall", "timeout")
    assert 0.3 <= result.wall_s < 3
    assert time.monotonic() - begin < 10


def test_a_cpu_time_limit_ends_it() -> None:
    """``cpu_time``: killed when its processes together have used that much CPU."""
    result = api.run(["sh", "-c", "while :; do :; done & while :; do :; done"], cpu_time="0.3")
    assert (result.exit_code, result.timed_out, result.killed_by) == (137, "cpu", "cpu-time")
    assert result.cpu_s is not None
    assert 0.3 <= result.cpu_s < 0.6


def test_check_raises_with_the_result() -> None:
    """``check=True`` raises where the command failed, and the error holds the result."""
    with pytest.raises(CommandError) as caught:
        api.run(["sh", "-c", "echo said; exit 3"], check=True)
    assert caught.value.exit_code == 3
    assert caught.value.result.stdout == "said\n"  # type: ignore[attr-defined]


# --- limits ------------------------------------------------------------------------------------


def test_the_quota_holds_from_the_first_instruction() -> None:
    """40 ms of CPU at 10 % take 400 ms, however short the command: no period goes unlimited."""
    source = "import time\nt = time.process_time()\nwhile time.process_time() - t < 0.04: pass"
    result = api.run([*PYTHON, source], cpu="10%", cpu_period=100_000)
    assert result.wall_s > 0.29
    assert total(result, "cpu.nr_throttled") >= 3


@pytest.mark.parametrize("options", [{"cpu": "1%"}, {"pids_limit": 1}, {"memory": "4M"}])
def test_the_set_up_is_held_to_no_limit_and_in_no_account(options: dict[str, Any]) -> None:
    """The container is made outside its limits, and the baseline takes out what that cost."""
    result = api.run(["true"], **options)
    assert result.exit_code == 0
    baseline = result.record["baseline"]
    assert baseline[INDEX["cpu.nr_throttled"]] in (0, NA)
    assert total(result, "cpuacct.usage") < result.record["final"][INDEX["cpuacct.usage"]]
    assert result.record["setup_ns"] < 5e9


def test_limits_are_read_back_from_the_cgroup() -> None:
    """What was asked for is what the cgroup held at the end."""
    result = api.run(["true"], cpu="50%", memory="64M", pids_limit=20)
    read = result.record["limits_read_back"]
    assert (read["cpu_quota_us"], read["cpu_period_us"]) == (50_000, 100_000)
    assert (read["memory_bytes"], read["pids"]) == (64 * MIB, 20)


def test_a_fork_bomb_is_held() -> None:
    """``pids_limit`` holds, the host goes on, and the whole of it dies with the container."""
    result = api.run(
        ["sh", "-c", "(b() { b | b & }; b) & exec sleep 1000"], pids_limit=32, timeout="1"
    )
    assert result.timed_out == "wall"
    assert total(result, "pids.peak") <= 32


def test_thousands_of_processes_are_all_accounted_for() -> None:
    """Short-lived processes that no sample sees are in the exact totals."""
    source = """
import resource
for _ in range(1500):
    if os.fork() == 0:
        os._exit(0)
    os.wait()
t = os.times()
tell(t.user + t.system + t.children_user + t.children_system)
"""
    result = api.run([*PYTHON, PRELUDE + source], sample="0.1")
    assert result.exit_code == 0, result.stderr
    used = json.loads(result.stdout)
    assert result.cpu_s is not None
    assert result.cpu_s > 0.5 * used


def test_no_cgroup_can_be_nested() -> None:
    """A container can't make cgroups below its own, by any path."""
    source = """
found = []
for top, folders, names in os.walk("/sys/fs/cgroup"):
    found.append(answer(os.makedirs, f"{top}/a/b/c"))
tell(sorted(set(found)))
"""
    assert set(ask(source)) <= {"EROFS", "EACCES", "EPERM"}
    assert set(ask(source, cap_add=["SYS_ADMIN"])) <= {"EROFS", "EACCES", "EPERM"}


def test_limits_change_while_it_runs(start: Callable[..., Container]) -> None:
    """``update``: up, down and lifted, read back each time, and in the record with their times."""
    container = start(BUSY, cpu="30%", pids_limit=10)
    assert container.stats()["cpu.quota"] == 300_000
    assert container.update(cpu="20%")["cpu_quota_us"] == 20_000
    assert container.stats()["cpu.quota"] == 200_000
    read = container.update(cpu="80%", memory="64M", pids_limit=50)
    assert (read["cpu_quota_us"], read["memory_bytes"], read["pids"]) == (80_000, 64 * MIB, 50)
    assert container.update(memory="32M")["memory_bytes"] == 32 * MIB
    assert container.update(cpu="max", memory=-1)["cpu_quota_us"] == -1
    container.kill()
    changes = container.wait(20)["limit_changes"]
    times = [change["elapsed_ns"] for change in changes]
    assert len(changes) == 4
    assert times == sorted(times)
    assert changes[0]["asked"] == {"cpu_quota_us": 20_000}


def test_memory_below_what_is_in_use_is_refused_or_killed_for(
    start: Callable[..., Container],
) -> None:
    """v1 refuses such a limit, and the old one stays; v2's kill is reported as OOM."""
    said = ["python3", "-c", "x = b'x' * (48 << 20); import time; time.sleep(1000)"]
    container = start(said, memory="128M")
    assert eventually(lambda: (container.stats()["memory.anon"] or 0) > 40 * MIB)
    try:
        container.update(memory="4M")
    except NsContainerError as error:
        assert "4" in str(error)  # noqa: PT017 - either is right
        assert container.update(pids_limit=50)["memory_bytes"] == 128 * MIB
    else:
        record = container.wait(20)
        assert (record["exit_code"], record["oom_killed"]) == (137, True)


def test_a_lower_quota_takes_hold_at_once(start: Callable[..., Container]) -> None:
    """The classic: an endless loop runs free, the quota is set to 20 %, and it has 20 %."""
    container = start(BUSY, sample="0.01")
    time.sleep(0.4)
    free = container.stats()
    container.update(cpu_quota=20_000, cpu_period=100_000)
    before = container.stats()
    time.sleep(1.2)
    after = container.stats()

    def share(one: dict[str, Any], other: dict[str, Any]) -> float:
        used = other["cpuacct.usage"] - one["cpuacct.usage"]
        return float(used / (other["elapsed_ns"] - one["elapsed_ns"]))

    assert share({"cpuacct.usage": 0, "elapsed_ns": 0}, free) > 0.25
    assert share(before, after) < 0.27


def test_timeouts_can_be_set_while_it_runs(start: Callable[..., Container]) -> None:
    """``update(timeout=…)`` counts from the start, and ends a container that had none."""
    container = start(SLEEP)
    container.update(timeout="0.2")
    assert container.wait(20)["timed_out"] == "wall"


def test_pause_and_resume(start: Callable[..., Container]) -> None:
    """A paused container uses no CPU and takes no command; resumed, it goes on."""
    container = start(BUSY)
    container.pause()
    assert container.status == "paused"
    first = container.stats()["cpuacct.usage"]
    with pytest.raises(StateError, match="paused"):
        container.exec(["true"])
    with pytest.raises(StateError, match="paused"):
        container.pause()
    time.sleep(0.2)
    assert container.stats()["cpuacct.usage"] == first
    container.resume()
    assert container.status == "running"
    assert eventually(lambda: container.stats()["cpuacct.usage"] != first)


def test_a_paused_container_can_be_killed(start: Callable[..., Container]) -> None:
    """Killing needs no resume."""
    container = start(BUSY)
    container.pause()
    container.kill()
    assert container.wait(20)["exit_code"] == 137


def monitors_cpu_s(container: Container) -> float:
    pid = container.inspect()["monitor_pid"]
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("state", ["paused", "created"])
def test_a_signal_to_what_does_not_run_costs_nothing(state: str) -> None:
    """SIGTERM to a paused (or not yet started) container ends it, and the monitor doesn't spin."""
    container = Container.create(spec.build(SLEEP, timeout="100s"))
    if state == "paused":
        container.start()
        container.pause()
    before = monitors_cpu_s(container)
    container.signal("TERM")
    ended = eventually(lambda: container.status == "removed", 1.5)
    if not ended:
        spent = monitors_cpu_s(container) - before
        container.kill()
        assert spent < 0.5
    assert ended
    if state == "paused":
        assert container.wait(20)["exit_code"] == 143


# --- exec --------------------------------------------------------------------------------------


def test_exec_joins_every_namespace_and_the_cgroup(start: Callable[..., Container]) -> None:
    """An executed process has the container's namespaces, root, cgroups and confinement."""
    source = """
tell([{n: os.stat(f"/proc/{p}/ns/{n}").st_ino for n in os.listdir("/proc/self/ns")
       if not n.endswith("for_children")} for p in ("self", "1")]
     + [dict(l.split(":\\t", 1) for l in open(f"/proc/{p}/status") if l.startswith(
         ("Cap", "NoNewPrivs", "Seccomp:", "Uid", "Gid", "Groups", "Cpus_allowed:"))) for p in ("self", "1")]
     + [open(f"/proc/{p}/cgroup").read() for p in ("self", "1")]
     + [os.path.samestat(os.stat("/"), os.stat("/proc/1/root/"))])
"""
    container = start([*PYTHON, "import time; time.sleep(1000)"], cpuset_cpus="0")
    done = container.exec([*PYTHON, PRELUDE + source])
    assert done.exit_code == 0, done.stderr
    mine, its, status, its_status, cgroups, its_cgroups, same_root = json.loads(done.stdout)
    assert mine == its
    assert status == its_status
    assert cgroups == its_cgroups
    assert same_root


def test_exec_is_held_to_the_containers_limits(start: Callable[..., Container]) -> None:
    """Memory, processes and ulimits of the container are the executed command's as well."""
    container = start(SLEEP, memory="32M", pids_limit=5, ulimits=["nofile=99:100"])
    assert container.exec([*PYTHON, "x = b'x' * (256 << 20)"]).exit_code == 137
    forks = container.exec(["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; echo all"])
    assert b"all" not in forks.stdout
    assert container.exec(["sh", "-c", "ulimit -Sn; ulimit -Hn"]).stdout.split() == [b"99", b"100"]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["sh", "-c", "exit 9"], 9),
        (["nsc-no-such"], 127),
        (["/etc/passwd"], 126),
        (["sh", "-c", "kill -KILL $$"], 137),
    ],
)
def test_exec_gives_the_exit_code(
    start: Callable[..., Container], command: list[str], code: int
) -> None:
    """Exit codes of executed commands follow the same rules as the container's own."""
    assert start(SLEEP).exec(command).exit_code == code


def test_exec_takes_options_and_streams(start: Callable[..., Container]) -> None:
    """Environment, directory, user, standard input and both outputs of an executed command."""
    container = start(SLEEP, env={"A": "1"})
    reader, writer = os.pipe()
    os.write(writer, b"from outside")
    os.close(writer)
    done = container.exec(
        ["sh", "-c", 'echo "$A$B $(pwd) $(id -u) $(cat)"; echo err >&2'],
        env={"B": "2"}, workdir="/tmp", user="nobody", stdin=reader,
    )  # fmt: skip
    os.close(reader)
    assert (done.stdout, done.stderr) == (b"12 /tmp 65534 from outside\n", b"err\n")


def test_exec_carries_much_output(start: Callable[..., Container]) -> None:
    """20 MB of an executed command's output come whole."""
    done = start(SLEEP).exec(["head", "-c", str(20 * MIB), "/dev/zero"])
    assert len(done.stdout) == 20 * MIB


def test_exec_ends_with_the_container(start: Callable[..., Container]) -> None:
    """An executed command ends with the container's first process, and exec returns."""
    container = start(SLEEP)
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.append(container.exec(SLEEP)), daemon=True)
    thread.start()
    assert eventually(lambda: len(container.pids()) == 2)
    container.kill()
    thread.join(20)
    assert done[0].exit_code == 137


def test_exec_whose_caller_has_gone_is_ended(start: Callable[..., Container], engine: Path) -> None:
    """The process that called exec is killed: what it had executed goes, the container stays."""
    container = start(SLEEP)
    owner = Owner(engine, "from nscontainer.engine.container import Container\n"
                          f"Container.get({container.id!r}).exec({SLEEP!r})")  # fmt: skip
    assert eventually(lambda: len(container.pids()) == 2)
    owner.kill()
    assert eventually(lambda: len(container.pids()) == 1)
    assert container.status == "running"


def test_nothing_can_be_executed_in_an_ended_container(start: Callable[..., Container]) -> None:
    """exec, pause, update and stats of one that has ended are errors that say so."""
    container = start(["true"])
    container.wait(20)
    for call in (
        lambda: container.exec(["true"]),
        container.pause,
        container.stats,
        container.kill,
    ):
        with pytest.raises(StateError, match=r"removed|ended"):
            call()


# --- samples -----------------------------------------------------------------------------------


def rows(samples: bytes) -> list[tuple[int, ...]]:
    assert len(samples) % ROW_BYTES == 0
    return list(struct.iter_unpack(f"={ROW_FIELDS}q", samples))


def test_samples_are_rows_on_the_beat() -> None:
    """First the baseline at 0, then a row a beat, last the final one; counters only grow."""
    result = api.run(
        ["sh", "-c", "i=0; while [ $i -lt 30 ]; do i=$((i+1)); sleep 0.02; done"], sample="0.02"
    )
    found = rows(result.samples)
    times = [row[0] for row in found]
    assert times[0] == 0
    assert list(found[0][ROW_PREFIX:]) == result.record["baseline"]
    final = result.record["final"]
    peak = INDEX["pids.peak"]  # of the samples where Linux keeps none
    assert [v for i, v in enumerate(found[-1][ROW_PREFIX:]) if i != peak] == [
        v for i, v in enumerate(final) if i != peak
    ]
    assert times[-1] == result.record["wall_ns"]
    assert times == sorted(times)
    assert all(0 < row[1] < 1e9 for row in found)
    beats = result.record["wall_ns"] / 20e6
    assert beats * 0.5 - 2 <= len(found) + result.record["missed_samples"] <= beats + 3
    for i, column in enumerate(COLUMNS):
        if column.kind == "counter":
            values = [row[ROW_PREFIX + i] for row in found]
            assert values == sorted(values) or set(values) == {NA}, column.name


@pytest.mark.parametrize("sample", ["0.005", "0.2"])
def test_totals_do_not_depend_on_the_beat(sample: str) -> None:
    """Exact totals: CPU time is the same whether there were a hundred samples or two."""
    # Its own clock has the set-up in it, which our accounts leave out, but not the interpreter's end.
    source = (
        "from time import process_time as t\nbegin = t()\nwhile t() - begin < 0.3: pass\n"
        "print(t(), flush=True)"
    )
    result = api.run([*PYTHON, source], sample=sample)
    assert result.cpu_s is not None
    assert 0.29 < result.cpu_s < float(result.stdout) + 0.15


def test_rows_can_be_read_while_it_runs(start: Callable[..., Container]) -> None:
    """``samples()`` and ``stats()`` of a running container, also by another that found it."""
    container = start(BUSY)
    assert eventually(lambda: len(rows(container.samples())) > 3)
    other = Container.get(container.id)
    assert len(rows(other.samples())) > 3
    stats = other.stats()
    assert stats["elapsed_ns"]
    assert stats["cpuacct.usage"]
    assert stats["pids.current"] == 1


# --- streams -----------------------------------------------------------------------------------


def test_much_output_is_neither_lost_nor_stuck() -> None:
    """100 MB through standard output, and some beside it through standard error, come whole."""
    digest, count, err = hashlib.sha256(), 0, 0

    def take(data: bytes) -> None:
        nonlocal count
        digest.update(data)
        count += len(data)

    def take_err(data: bytes) -> None:
        nonlocal err
        err += len(data)

    source = f"head -c {MIB} /dev/zero >&2; head -c {100 * MIB} /dev/zero"
    result = api.run(["sh", "-c", source], on_stdout=take, on_stderr=take_err)
    assert (result.exit_code, count, err) == (0, 100 * MIB, MIB)
    assert digest.hexdigest() == hashlib.sha256(bytes(100 * MIB)).hexdigest()


def test_much_input_is_read_whole() -> None:
    """20 MB of standard input reach the command; without any it is at its end at once."""
    data = os.urandom(MIB) * 20
    result = api.run(["sha256sum"], input=data)
    assert result.stdout.split()[0] == hashlib.sha256(data).hexdigest()
    assert api.run(["cat"]).stdout == ""


def test_what_is_left_in_the_background_holds_nothing_up() -> None:
    """A child that keeps the pipes open keeps nobody waiting: it dies with the container."""
    result = api.run(["sh", "-c", "sleep 1000 & echo done"], timeout="30")
    assert (result.exit_code, result.stdout, result.timed_out) == (0, "done\n", None)


def test_waiting_without_driving_gets_stuck_on_no_pipe(start: Callable[..., Container]) -> None:
    """``wait()`` on a container that prints more than a pipe holds: it ends all the same."""
    container = start(["head", "-c", str(4 * MIB), "/dev/zero"], timeout="60")
    record = container.wait(20)
    assert (record["exit_code"], record["timed_out"]) == (0, None)


def test_an_error_in_a_callback_ends_the_container(engine: Path) -> None:
    """``on_stdout`` raises: the error comes out, and the container isn't left running meanwhile."""

    def broken(_: bytes) -> None:
        message = "my own"
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match="my own") as caught:
        api.run(["sh", "-c", "echo x; exec sleep 1000"], on_stdout=broken)
    assert eventually(lambda: not os.listdir(engine / "containers"))
    del caught


# --- detached, and from other processes --------------------------------------------------------

FROM_ANOTHER = """
from nscontainer.engine import spawner_client
from nscontainer.engine.container import Container
"""


def elsewhere(engine: Path, source: str) -> str:
    """Do something with the engine in another process; what it prints."""
    code, out, err = Owner(engine, FROM_ANOTHER + source).wait()
    assert code == 0, err
    return out.strip()


@pytest.fixture
def detached(engine: Path) -> Iterator[Container]:
    """A detached container whose maker has ended."""
    elsewhere(engine, "api.run(['sh', '-c', 'echo hello; trap \"exit 3\" TERM; while :; do sleep 0.02; done'],"
                      " name='det', detach=True)")  # fmt: skip
    container = Container.get("det")
    yield container
    if container.status != "removed":
        container.remove(force=True)


def test_a_detached_container_outlives_its_maker(detached: Container, engine: Path) -> None:
    """It is found by name, id and the beginning of its id, listed, looked into and logged."""
    assert detached.status == "running"
    assert Container.get(detached.id).name == Container.get(detached.id[:6]).name == "det"
    assert [c.id for c in Container.list()] == [detached.id]
    assert eventually(lambda: detached.logs() == b"hello\n")
    facts = detached.inspect()
    assert (facts["name"], facts["status"], facts["detach"]) == ("det", "running", True)
    assert detached.exec(["echo", "hi"]).stdout == b"hi\n"
    # One that is just ending has no command line any more.
    assert eventually(lambda: {p["command"].split()[0] for p in detached.top()} <= {"sh", "sleep"})


def test_a_detached_container_is_stopped_waited_for_and_removed(
    detached: Container, engine: Path
) -> None:
    """Another process's wait gets the record; the ended one stays until ``remove``."""
    records: list[Any] = []
    waiter = threading.Thread(
        target=lambda: records.append(Container.get("det").wait(20)), daemon=True
    )
    waiter.start()
    assert eventually(lambda: detached.logs() == b"hello\n")
    with pytest.raises(StateError, match="det"):
        detached.remove()
    detached.stop()
    waiter.join(20)
    assert records[0]["exit_code"] == records[0]["StatusCode"] == 3
    assert detached.status == "exited"
    assert detached.wait()["exit_code"] == 3
    assert len(rows(detached.samples())) > 2
    assert detached.logs() == b"hello\n"
    assert Container.list() == []
    assert [c.name for c in Container.list(all=True)] == ["det"]
    detached.remove()
    assert detached.status == "removed"
    with pytest.raises(NotFoundError):
        Container.get("det")
    assert not os.listdir(engine / "containers") + os.listdir(engine / "names")


def test_stop_kills_what_does_not_listen(start: Callable[..., Container]) -> None:
    """``stop(timeout_s)``: the stop signal, then the end of patience."""
    container = start(STUBBORN)
    time.sleep(0.2)
    begin = time.monotonic()
    container.stop(timeout_s=0.3)
    assert 0.25 < time.monotonic() - begin < 10
    assert container.wait(20)["exit_code"] == 137


def test_names_are_unique_and_can_be_changed(engine: Path, detached: Container) -> None:
    """A taken name is refused; renamed, the old one is free and the new one finds it."""
    with pytest.raises(StateError, match="'det' is taken"):
        api.run(["true"], name="det")
    elsewhere(engine, "Container.get('det').rename('other')")
    assert Container.get("other").id == detached.id
    with pytest.raises(NotFoundError):
        Container.get("det")
    assert api.run(["true"], name="det").name == "det"
    with pytest.raises(StateError, match="'other' is taken"):
        api.run(["true"], name="other")


def test_a_name_is_had_by_one_of_many_who_want_it(engine: Path) -> None:
    """Ten threads start a container of the same name: one gets it, nine are told so."""
    answers: list[str] = []

    def attempt() -> None:
        try:
            api.run(["sleep", "1000"], name="wanted")
            answers.append("had")
        except StateError:
            answers.append("taken")

    threads = [threading.Thread(target=attempt, daemon=True) for _ in range(10)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(answers) >= 9, 60)  # who has it keeps it until all others are told
    while any(thread.is_alive() for thread in threads):  # twice, if there should be two
        with contextlib.suppress(NotFoundError, StateError):
            Container.get("wanted").kill()
        time.sleep(0.05)
    assert answers == ["taken"] * 9 + ["had"]


# --- interrupts --------------------------------------------------------------------------------

RUN = """
try:
    api.run({command!r}, on_stdout=lambda data: print(data.decode(), end="", flush=True))
except KeyboardInterrupt as interrupt:
    r = interrupt.result
    print(r.interrupted, r.exit_code, r.killed_by, flush=True)
"""


def test_the_first_interrupt_reaches_the_command(engine: Path) -> None:
    """■ once: SIGINT inside; a command without a handler ends by it: 130."""
    owner = Owner(engine, RUN.format(command=["sh", "-c", "echo ready; exec sleep 1000"]))
    assert owner.line() == "ready"
    time.sleep(0.1)
    owner.interrupt()
    assert owner.wait()[:2] == (0, "1 130 None\n")


def test_an_interrupt_can_be_handled(engine: Path) -> None:
    """■ once: the command's own handler has the say, and the last word of output is heard."""
    command = ["sh", "-c", "trap 'echo bye; exit 5' INT; echo ready; while :; do sleep 0.02; done"]
    owner = Owner(engine, RUN.format(command=command))
    assert owner.line() == "ready"
    owner.interrupt()
    assert owner.wait()[:2] == (0, "bye\n1 5 None\n")


def test_the_second_interrupt_kills(engine: Path) -> None:
    """■ twice: a command that ignores the first is killed by the second."""
    owner = Owner(
        engine,
        RUN.format(command=["sh", "-c", "trap '' INT; echo ready; while :; do sleep 1; done"]),
    )
    assert owner.line() == "ready"
    owner.interrupt()
    time.sleep(0.3)
    owner.interrupt()
    assert owner.wait()[:2] == (0, "2 137 interrupt\n")


def test_two_interrupts_at_once(engine: Path) -> None:
    """Two SIGINTs in the same moment never hang the owner, nor leave the container."""
    owner = Owner(
        engine,
        RUN.format(command=["sh", "-c", "trap '' INT; echo ready; while :; do sleep 1; done"]),
    )
    assert owner.line() == "ready"
    owner.interrupt()
    owner.interrupt()
    time.sleep(0.2)
    if owner.process.poll() is None:  # the two became one on their way
        owner.interrupt()
    assert owner.wait()[:2] == (0, "2 137 interrupt\n")


@pytest.mark.parametrize("delay_ms", [0, 2, 5, 10, 15, 20, 30, 50])
def test_an_interrupt_at_any_moment_of_a_start(engine: Path, delay_ms: int) -> None:
    """■ while a container is being made is KeyboardInterrupt, and nothing stays."""
    source = f"""
import os, signal, threading, time
api.run(["true"])
try:
    threading.Timer({delay_ms / 1000}, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    while True:
        api.run(["sleep", "0.001"])
except KeyboardInterrupt:
    print("interrupted", flush=True)
deadline = time.monotonic() + 60
while os.listdir({str(engine)!r} + "/containers") and time.monotonic() < deadline:
    time.sleep(0.02)
print(os.listdir({str(engine)!r} + "/containers"), flush=True)
api.run(["true"])
"""
    code, out, err = Owner(engine, source).wait()
    assert (code, out) == (0, "interrupted\n[]\n"), err


def test_an_interrupt_between_create_and_start_leaves_nothing(engine: Path) -> None:
    """A container made and never started goes when its owner lets go of it."""
    container = Container.create(spec.build(SLEEP))
    assert container.status == "created"
    assert os.listdir(engine / "containers") == [container.id]
    del container
    assert eventually(lambda: not os.listdir(engine / "containers"))


def test_the_third_interrupt_gets_out_of_a_stuck_engine(engine: Path) -> None:
    """■ three times with the monitor itself stopped: the owner is free, and later nothing is left."""
    source = """
import os, signal
from nscontainer import spec
from nscontainer.engine import spawner_client
from nscontainer.engine.container import Container
c = Container.create(spec.build(["sleep", "1000"]), start=True)
monitor = c.inspect()["monitor_pid"]
os.kill(monitor, signal.SIGSTOP)
print("ready", flush=True)
try:
    c.drive(on_tick=lambda _: print("tick", flush=True), tick_s=0.05)
except KeyboardInterrupt:
    print("free", flush=True)
os.kill(monitor, signal.SIGCONT)
"""
    owner = Owner(engine, source)
    assert owner.line() == "ready"
    for _ in range(3):
        assert owner.line() == "tick"
        owner.interrupt()
        time.sleep(0.1)
    code, out, err = owner.wait()
    assert (code, out.split()[-1]) == (0, "free"), err
    assert eventually(lambda: not os.listdir(engine / "containers"))


def test_a_cell_is_interrupted_as_a_notebooks(engine: Path) -> None:
    """■ in a cell is KeyboardInterrupt there: ``finally`` runs, the exit code is 130."""
    source = """
import sys
def show(message):
    if message["msg_type"] == "stream":
        print(message["content"]["text"], end="", flush=True)
code = '''
import time
print("ready", flush=True)
try:
    time.sleep(1000)
finally:
    print("tidied", flush=True)
'''
try:
    api.run_cell(code, on_message=show)
except KeyboardInterrupt as interrupt:
    print(interrupt.result.interrupted, interrupt.result.exit_code, flush=True)
"""
    owner = Owner(engine, source)
    assert owner.line() == "ready"
    owner.interrupt()
    assert owner.wait()[:2] == (0, "tidied\n1 130\n")


def test_an_interrupted_owners_next_run_works(engine: Path) -> None:
    """After an interrupt the engine goes on as before: the spawner heard nothing of it."""
    source = (
        RUN.format(command=["sh", "-c", "echo ready; exec sleep 1000"])
        + """
print(api.run(["echo", "again"]).stdout, end="", flush=True)
"""
    )
    owner = Owner(engine, source)
    assert owner.line() == "ready"
    time.sleep(0.1)  # dash catches SIGINT until it has executed the sleep, and forgets it then
    os.killpg(owner.process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    assert owner.wait()[1].splitlines()[-1] == "again"


def test_concurrent_runs_from_threads(engine: Path) -> None:
    """50 containers at once from threads: every one gives its own output, and nothing stays."""
    answers: list[str | None] = [None] * 50

    def go(number: int) -> None:
        answers[number] = api.run(["echo", str(number)]).stdout.strip()

    threads = [threading.Thread(target=go, args=(n,), daemon=True) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [str(n) for n in range(50)]
    assert eventually(lambda: [h for h in holdings(engine) if not h.startswith("mnt")] == [])


@pytest.mark.once
def test_a_deep_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container is reached though its socket's path is longer than an address may be (unix(7)): a deep home."""
    deep = tmp_path / ("deep" * 30)
    deep.mkdir()
    monkeypatch.setenv("NSCONTAINER_STATE_DIR", str(deep))
    container = api.run(["sleep", "60"], detach=True)
    assert container.pids()
    assert container.update(pids_limit=20)["pids"] == 20
    container.remove(force=True)
    spawner_client.shutdown()
