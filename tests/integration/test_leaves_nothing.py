"""Whatever is killed, and whenever: no process, cgroup, mount, interface, file or name stays."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nscontainer import api, spec
from nscontainer.engine import garbage, spawner_client, state
from nscontainer.engine.container import Container
from nscontainer.engine.stages import STAGES
from nscontainer.errors import EngineError, NsContainerError, SetupError, SpecError
from tests import leaks
from tests.integration.inside import SLEEP, Owner, eventually, holdings

pytestmark = [pytest.mark.root, pytest.mark.userns]

WAYS = {
    "command": "api.run(['sleep', '1000'])",
    "cell": "api.run_cell('import time; time.sleep(1000)')",
    "bridged": "api.run(['sleep', '1000'], network='bridge', publish=['80', '0.0.0.0::90/udp'])",
}


class Traces:
    """What there was on the machine before, and what is new and an owner's."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.before = leaks.look()

    def left(
        self, owner: Owner | None = None, ids: Iterator[str] | tuple[str, ...] = ()
    ) -> list[str]:
        """Everything that has stayed, a line each."""
        found = [f"file {it}" for it in holdings(self.top, standby=True)]
        now = leaks.look()
        for kind in now.keys() - {"file", "cgroup", "loop device"}:  # of those, ours alone
            found += [f"{kind} {it}" for it in now[kind] if it not in self.before[kind]]
        found += [f"loop device {it}" for it in leaks.loops() if str(self.top) in it]
        found += [f"cgroup {it}" for it in leaks.cgroups() if any(one in it for one in ids)]
        if owner is not None:
            found += [f"process {pid} {name}" for pid, name in owner.offspring().items()]
        return found

    def none(self, owner: Owner | None = None, ids: tuple[str, ...] = ()) -> None:
        """Nothing may have stayed after a while."""
        eventually(lambda: not self.left(owner, ids))
        assert self.left(owner, ids) == []


@pytest.fixture
def top(own_engine: Path) -> Path:
    return own_engine


@pytest.fixture
def traces(top: Path) -> Traces:
    return Traces(top)


def containers(top: Path) -> tuple[str, ...]:
    return tuple(os.listdir(top / "containers")) if (top / "containers").is_dir() else ()


def running(top: Path) -> bool:
    """Whether the one container's state says that its code runs."""
    ids = containers(top)
    facts = state.read(f"{top}/containers/{ids[0]}") if ids else None
    return facts is not None and facts["status"] == "running"


def group_of(container_id: str) -> list[str]:
    return [path for path in leaks.cgroups() if container_id in path]


# --- the owner is killed -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "way", ["command", *(pytest.param(way, marks=pytest.mark.once) for way in ("cell", "bridged"))]
)
@pytest.mark.parametrize("stage", STAGES)
def test_the_owner_is_killed_during_the_set_up(
    top: Path, traces: Traces, stage: str, way: str
) -> None:
    """SIGKILL at every stage of the set-up: the half-made container goes."""
    owner = Owner(top, WAYS[way], NSCONTAINER_HALT_AT=stage)
    halted = top / "halted"
    assert eventually(lambda: halted.exists() and halted.read_text() == stage), owner.wait(0.1)
    ids = containers(top)
    assert ids or stage == "state"
    owner.kill()
    traces.none(owner, ids)


@pytest.mark.parametrize("way", WAYS)
def test_the_owner_is_killed_during_the_run(top: Path, traces: Traces, way: str) -> None:
    """SIGKILL while the code runs: the container is killed and removed."""
    owner = Owner(top, WAYS[way])
    assert eventually(lambda: running(top))
    ids = containers(top)
    owner.kill()
    traces.none(owner, ids)


def test_the_owner_is_killed_at_any_moment(top: Path, traces: Traces) -> None:
    """SIGKILL at arbitrary moments of one start after another, with no stage to stop at."""
    for delay_ms in range(0, 60, 6):
        owner = Owner(
            top, "api.run(['true']); print('warm', flush=True)\nwhile True: api.run(['true'])"
        )
        assert owner.line() == "warm"
        time.sleep(delay_ms / 1000)
        ids = containers(top)
        owner.kill()
        traces.none(owner, ids)


@pytest.mark.parametrize("hostile", ["trap '' TERM INT HUP; sleep 1000", "sleep 1000 & sleep 1000 & wait",
                                     "setsid sleep 1000 & nohup sleep 1000 & wait"])  # fmt: skip
def test_the_containers_processes_all_go(top: Path, traces: Traces, hostile: str) -> None:
    """What ignores signals, forks or makes sessions of its own dies with its owner."""
    owner = Owner(top, f"api.run(['sh', '-c', {hostile!r}])")
    assert eventually(lambda: running(top))
    assert eventually(lambda: "sleep" in owner.offspring().values())
    ids = containers(top)
    owner.kill()
    traces.none(owner, ids)


def test_a_paused_container_goes_with_its_owner(top: Path, traces: Traces) -> None:
    """Frozen processes can't be in the way of the removal."""
    owner = Owner(top, WAYS["command"])
    assert eventually(lambda: running(top))
    ids = containers(top)
    Container.get(ids[0]).pause()
    owner.kill()
    traces.none(owner, ids)


def test_the_owner_is_killed_during_exec(top: Path, traces: Traces) -> None:
    """SIGKILL while it drives a container and has executed a command in it."""
    source = """
from nscontainer import spec
from nscontainer.engine.container import Container
c = Container.create(spec.build(["sleep", "1000"]), start=True)
print("started", flush=True)
c.exec(["sleep", "999"])
"""
    owner = Owner(top, source)
    assert owner.line() == "started"
    assert eventually(lambda: list(owner.offspring().values()).count("sleep") == 2)
    ids = containers(top)
    owner.kill()
    traces.none(owner, ids)


def test_the_owner_is_killed_between_create_and_start(top: Path, traces: Traces) -> None:
    """A container at its gate doesn't wait for ever."""
    source = """
import time
from nscontainer import spec
from nscontainer.engine.container import Container
c = Container.create(spec.build(["sleep", "1000"]))
print("created", flush=True)
time.sleep(1000)
"""
    owner = Owner(top, source)
    assert owner.line() == "created"
    ids = containers(top)
    owner.kill()
    traces.none(owner, ids)


def test_forked_children_of_the_owner_hold_nothing(top: Path, traces: Traces) -> None:
    """multiprocessing's children hold copies of the owner's sockets: the container goes."""
    source = """
import multiprocessing, threading, time
multiprocessing.set_start_method("fork")
def hang():
    time.sleep(1000)
def later():
    time.sleep(0.5)
    multiprocessing.Process(target=hang).start()
    print("forked", flush=True)
threading.Thread(target=later).start()
multiprocessing.Process(target=hang).start()
api.run(["sleep", "1000"])
"""
    owner = Owner(top, source)
    assert owner.line() == "forked"
    assert eventually(lambda: running(top))
    ids = containers(top)
    children = [pid for pid, name in owner.offspring().items() if name.startswith("python")]
    assert len(children) >= 2
    owner.kill()
    eventually(lambda: set(owner.offspring()) <= set(children))
    left = owner.offspring()
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert set(left) <= set(children), left
    traces.none(owner, ids)


def test_an_owner_that_ends_leaves_nothing(top: Path, traces: Traces) -> None:
    """sys.exit with a container at work, an unhandled error, os._exit: three ways to end."""
    for end in ("raise SystemExit(3)", "raise ValueError", "os._exit(3)"):
        source = f"""
import os
from nscontainer import spec
from nscontainer.engine.container import Container
kept = [Container.create(spec.build(["sleep", "1000"]), start=True) for _ in range(3)]
{end}
"""
        owner = Owner(top, source)
        assert owner.wait()[0] != 0
        traces.none(owner)


# --- the engine's own processes are killed -----------------------------------------------------


def monitor_of(container: Container) -> int:
    return int(container.inspect()["monitor_pid"])


def collected(top: Path) -> list[str]:
    return garbage.collect(str(top))


def test_the_monitor_is_killed(top: Path, traces: Traces) -> None:
    """SIGKILL of the monitor: the container dies with it, the owner is told, gc mends the rest."""
    container = Container.create(spec.build(["sh", "-c", "sleep 1000 & sleep 1000"]), start=True)
    pids = eventually(lambda: len(container.pids()) == 3 and container.pids())
    os.kill(monitor_of(container), signal.SIGKILL)
    with pytest.raises(EngineError, match="went away"):
        container.drive()
    assert eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
    assert container.status == "exited"
    lines = collected(top)
    assert any(container.id in line for line in lines)
    assert group_of(container.id) == []
    assert containers(top) == ()
    assert collected(top) == []


def test_the_monitor_is_killed_without_a_pid_namespace(top: Path) -> None:
    """Even where the container's processes are the host's: gc kills what is in its cgroup."""
    command = ["sh", "-c", "setsid sleep 1000 & sleep 1000"]
    container = Container.create(spec.build(command, share=["pid"]), start=True)
    pids = eventually(lambda: len(container.pids()) == 3 and container.pids())
    os.kill(monitor_of(container), signal.SIGKILL)
    with pytest.raises(EngineError):
        container.drive()
    collected(top)
    assert eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
    assert group_of(container.id) == []


def test_a_container_without_a_pid_namespace_ends_whole(top: Path) -> None:
    """In the host's pid namespace children outlive the first process: they are killed."""
    said: list[bytes] = []
    command = ["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!"]
    result = api.run(command, share=["pid"], on_stdout=said.append)
    assert result.exit_code == 0
    pid = int(b"".join(said))
    assert eventually(lambda: not os.path.exists(f"/proc/{pid}"))


def test_the_monitor_is_killed_during_exec(top: Path) -> None:
    """What exec had started dies too, and its caller gets an answer."""
    container = Container.create(spec.build(SLEEP), start=True)
    codes: list[Any] = []

    def execute() -> None:
        try:
            codes.append(container.exec(["sleep", "999"]).exit_code)
        except NsContainerError as error:
            codes.append(error)

    thread = threading.Thread(target=execute, daemon=True)
    thread.start()
    pids = eventually(lambda: len(container.pids()) == 2 and container.pids())
    os.kill(monitor_of(container), signal.SIGKILL)
    thread.join(10)
    assert codes
    assert eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
    collected(top)
    assert group_of(container.id) == []


def spawner_pid(*, cells: bool = False) -> int:
    return spawner_client.get(cells=cells).process.pid


def test_the_spawner_is_killed(top: Path) -> None:
    """SIGKILL of the spawner: containers that live go on, and the next one gets another spawner."""
    container = Container.create(spec.build(["sh", "-c", "sleep 0.5; echo lived"]), start=True)
    os.kill(spawner_pid(), signal.SIGKILL)
    assert api.run(["echo", "next"]).stdout == "next\n"
    said: list[bytes] = []
    record = container.drive(on_stdout=said.append)
    assert (record["exit_code"], b"".join(said)) == (0, b"lived\n")


def test_the_spare_monitor_is_killed(top: Path) -> None:
    """The monitor that waits for the next container is killed: the next container gets another."""
    source = """
import os, signal, sys
print(api.run(["echo", "first"]).stdout, end="", flush=True)
os.kill(int(input()), signal.SIGKILL)
print(api.run(["echo", "second"]).stdout, end="", flush=True)
print(api.run(["echo", "third"]).stdout, end="", flush=True)
"""
    owner = Owner(top, source)
    assert owner.line() == "first"

    def monitors() -> list[int]:
        return [pid for pid, name in owner.offspring().items() if name == "nsc-monitor"]

    assert eventually(lambda: len(monitors()) == 1)  # the first container's has gone
    spares = monitors()
    owner.say(str(spares[0]))
    assert owner.wait()[1] == "second\nthird\n"


def test_spawner_and_monitor_are_killed_while_they_make_a_container(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are killed in a set-up: another spawner makes it, gc mends what was half done."""
    api.run(["true"])
    monkeypatch.setenv("NSCONTAINER_HALT_AT", "masks")
    made: list[Any] = []
    thread = threading.Thread(
        target=lambda: made.append(Container.create(spec.build(["true"]))), daemon=True
    )
    thread.start()
    assert eventually(lambda: (top / "halted").exists() and (top / "halted").read_text())
    monkeypatch.delenv("NSCONTAINER_HALT_AT")
    (half_made,) = containers(top)
    os.kill(spawner_pid(), signal.SIGKILL)
    time.sleep(0.1)
    assert containers(top) == (half_made,)  # the monitor needs no spawner any more
    os.kill(monitor_at(top / "containers" / half_made), signal.SIGKILL)
    thread.join(20)
    made[0].start()
    assert made[0].wait(20)["exit_code"] == 0
    collected(top)
    (top / "halted").unlink(missing_ok=True)
    assert containers(top) == ()
    assert group_of(half_made) == []


def monitor_at(directory: Path) -> int:
    """Find the monitor that holds a container's directory which has no state yet."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8") == "nsc-monitor\n":
                fds = os.listdir(f"/proc/{pid}/fd")
                if any(
                    os.readlink(f"/proc/{pid}/fd/{fd}").startswith(str(directory)) for fd in fds
                ):
                    return int(pid)
    message = f"no monitor holds {directory}"
    raise AssertionError(message)


def test_after_a_power_cut_gc_mends_everything(top: Path, traces: Traces) -> None:
    """All processes are killed at one stroke: gc removes what was foreground, marks the rest."""
    source = """
from nscontainer import spec
from nscontainer.engine.container import Container
kept = [Container.create(spec.build(["sleep", "1000"]), name=f"n{n}", start=True) for n in range(3)]
kept.append(api.run(["sleep", "1000"], name="detached", detach=True))
kept.append(Container.create(spec.build(["sleep", "1000"]), name="waiting"))
print("ready", flush=True)
import time; time.sleep(1000)
"""
    owner = Owner(top, source)
    assert owner.line() == "ready"
    ids = containers(top)
    assert len(ids) == 5
    victims = [owner.process.pid, *owner.offspring()]
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)  # so that none can tidy up after another
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    owner.kill()
    assert eventually(lambda: not owner.offspring())
    assert any(group_of(one) for one in ids), "nothing was left to mend: the test proves nothing"
    # Linux lets go of a dying process's memory, which is how it is found, before its locks.
    assert eventually(lambda: {c.status for c in Container.list(all=True)} == {"exited"})
    assert len(Container.list(all=True)) == 5
    lines = collected(top)
    assert len(lines) >= 5
    assert [path for one in ids for path in group_of(one)] == []
    (kept,) = Container.list(all=True)
    assert (kept.name, kept.status, kept.wait().get("exit_code")) == ("detached", "exited", None)
    assert kept.inspect()["lost"] is True
    assert os.listdir(top / "names") == ["detached"]
    assert collected(top) == []
    kept.remove()
    traces.none(owner, ids)


def test_gc_touches_nothing_that_lives(top: Path) -> None:
    """gc runs while containers are made, run and end: none is disturbed."""
    stop = threading.Event()
    lines: list[str] = []

    def sweep() -> None:
        while not stop.is_set():
            lines.extend(collected(top))

    thread = threading.Thread(target=sweep, daemon=True)
    thread.start()
    try:
        kept = Container.create(spec.build(SLEEP), start=True)
        results = [api.run(["echo", str(n)]).stdout for n in range(15)]
    finally:
        stop.set()
        thread.join()
    assert results == [f"{n}\n" for n in range(15)]
    assert kept.status == "running"
    assert lines == []
    kept.kill()
    kept.wait()


def test_gc_removes_what_a_half_done_removal_left(top: Path) -> None:
    """A directory without state, a name without container: gone after gc."""
    state.prepare(str(top))
    (top / "containers" / "deadbeef0000" / "rw" / "0").mkdir(parents=True)
    (top / "names" / "ghost").symlink_to("deadbeef1111")
    assert len(collected(top)) == 2
    assert holdings(top) == []


# --- set-ups that fail -------------------------------------------------------------------------

FAILURES: list[tuple[dict[str, Any], type[NsContainerError], str]] = [
    ({"workdir": "/etc/passwd"}, SetupError, "/etc/passwd"),
    ({"volumes": ["/nsc/no/such:/x"]}, NsContainerError, "/nsc/no/such"),
    ({"volumes": ["/etc:/etc/passwd"]}, NsContainerError, "/etc/passwd"),
    ({"volumes": ["/etc/passwd:/usr"]}, NsContainerError, "/usr"),
    ({"volumes": ["/usr:/proc/1/x"]}, NsContainerError, "/proc/1/x"),
    ({"user": "nsc-nobody"}, SpecError, "nsc-nobody"),
    ({"user": "0:nsc-nogroup"}, SpecError, "nsc-nogroup"),
    ({"user": "70000"}, NsContainerError, "70000"),
    ({"cpuset_cpus": "4095"}, NsContainerError, "4095"),
    ({"cpuset_mems": "255"}, NsContainerError, "255"),
    ({"memory": "1K"}, SpecError, "1K"),
    ({"ulimits": ["nofile=1073741817"]}, NsContainerError, "nofile|NOFILE"),
    ({"cpu": "0.0000001"}, SpecError, "0.0000001"),
    ({"tmpfs": ["/x:size=oops"]}, SpecError, "oops"),
    ({"cap_add": ["NO_SUCH"]}, SpecError, "NO_SUCH"),
    ({"hostname": "-x-"}, SpecError, "-x-"),
]
OF_CGROUPS = {"cpuset_cpus", "cpuset_mems", "memory", "cpu"}
"""Of the options above, those that another cgroup version refuses elsewhere."""


@pytest.mark.parametrize(
    ("options", "kind", "names"),
    [
        pytest.param(
            *it, id=str(it[0]), marks=() if it[0].keys() & OF_CGROUPS else pytest.mark.once
        )
        for it in FAILURES
    ],
)
def test_a_failed_set_up_says_why_and_leaves_nothing(
    top: Path, traces: Traces, options: dict[str, Any], kind: type[NsContainerError], names: str
) -> None:
    """An option that can't be honoured: one line that names its value, and nothing left."""
    with pytest.raises(kind, match=names) as caught:
        api.run(["true"], **options)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 200
    assert "Traceback" not in caught.value.message
    assert eventually(lambda: containers(top) == ())
    assert api.run(["true"]).exit_code == 0  # the next one isn't hurt by it
    spawner_client.shutdown()
    traces.none()


@pytest.mark.once
def test_deep_and_odd_files_are_removed(top: Path) -> None:
    """Directories nested deeper than any path can be, and names of every byte, don't outlive it."""
    source = """
import os
os.mkdir("/deep"); os.chdir("/deep")
for _ in range(3000):
    os.mkdir("d" * 20); os.chdir("d" * 20)
os.chdir("/usr")
for b in range(1, 256):
    if b not in b"/":
        os.mkdir(b"odd" + bytes([b]), 0o000)
os.symlink("/etc", "/usr/link"); os.mkfifo("/usr/fifo")
"""
    result = api.run(["python3", "-c", source])
    assert result.exit_code == 0, result.stderr
    assert eventually(lambda: containers(top) == ())


# --- hostile clients and stopped processes -----------------------------------------------------

GARBAGE = [
    b"",
    b"\xff" * 100,
    struct.pack("!IB", 1 << 31, 0),
    struct.pack("!IB", 4, 0) + b"oops",
    struct.pack("!IB", 4, 0) + b"null",
    struct.pack("!IB", 2, 0) + b"{}",
    struct.pack("!IB", 100_000, 0) + b"[" * 100_000,
    struct.pack("!IB", 2, 200) + b"{}",
    struct.pack("!IB", 50, 0) + b"{",
]
REQUESTS = [
    '{"op":"signal"}', '{"op":"signal","signal":"x"}', '{"op":"signal","signal":4096}',
    '{"op":"update"}', '{"op":"update","limits":[1]}', '{"op":"update","limits":{"cpu":[]}}',
    '{"op":"update","limits":{"no":1}}', '{"op":"rename"}', '{"op":"exec"}', '{"op":"__init__"}',
    '{"op":"exec","command":"x"}', '{"op":"exec","command":[1],"env":3}', '{"op":null}', '{"op":[]}',
    '{"op":"start"}', '{"op":"resume"}',
]  # fmt: skip


def knock(container: Container, data: bytes) -> bytes:
    """Send bytes to the monitor's socket; what comes back before it closes or falls silent."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(f"{container.directory}/monitor.sock")
        sock.settimeout(0.2)
        with contextlib.suppress(OSError):
            sock.sendall(data)
            return sock.recv(4096)
    return b""


@pytest.mark.once
def test_garbage_on_the_control_socket_harms_nobody(top: Path) -> None:
    """Half messages, huge ones, no JSON, unknown requests, wrong types: the monitor goes on."""
    container = Container.create(spec.build(SLEEP), start=True)
    for data in GARBAGE:
        knock(container, data)
        assert container.status == "running", data
    for request in REQUESTS:
        said = knock(container, struct.pack("!IB", len(request), 0) + request.encode())
        assert container.status == "running", request
        assert said, request
    assert container.exec(["echo", "well"]).stdout == b"well\n"
    assert container.stats()["pids.current"] == 1
    container.kill()
    assert container.wait(10)["exit_code"] == 137


@pytest.mark.once
def test_a_client_that_never_reads_holds_nobody_up(top: Path) -> None:
    """Somebody asks a hundred thousand times and takes no answer: samples and time limits go on."""
    container = Container.create(spec.build(SLEEP, timeout="3"), start=True)
    request = b'{"op":"status"}'
    message = struct.pack("!IB", len(request), 0) + request
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(f"{container.directory}/monitor.sock")
        sock.setblocking(False)  # noqa: FBT003
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            try:
                sock.send(message * 100)
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:
                break
        record = container.wait(20)
    assert record["timed_out"] == "wall"
    assert record["wall_ns"] < 6e9


@pytest.mark.once
def test_many_clients_at_once(top: Path) -> None:
    """Fifty threads execute, ask and update at the same time: every one gets its own answer."""
    container = Container.create(spec.build(SLEEP), start=True)
    answers: list[Any] = []

    def go(number: int) -> None:
        calls: list[Callable[[], Any]] = [
            lambda: container.exec(["echo", str(number)]).stdout == f"{number}\n".encode(),
            lambda: container.stats()["elapsed_ns"] is not None,
            lambda: container.update(pids_limit=100 + number)["pids"] >= 100,
        ]
        answers.append(calls[number % 3]())

    threads = [threading.Thread(target=go, args=(n,), daemon=True) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    container.kill()
    container.wait(10)
    assert answers == [True] * 50


@pytest.mark.parametrize("who", ["owner", "spawner"])
def test_a_stopped_owner_or_spawner_stops_no_clock(top: Path, who: str) -> None:
    """SIGSTOP of the notebook or its spawner: the container's time limit is kept all the same."""
    owner = Owner(top, "r = api.run(['sh', '-c', 'echo go; exec sleep 1000'], timeout='0.5',"
                       " on_stdout=lambda d: print('go', flush=True))\n"
                       "print(r.timed_out, r.wall_s < 3, flush=True)")  # fmt: skip
    assert owner.line() == "go"
    spawners = [pid for pid, name in owner.offspring().items() if name == "nsc-spawner"]
    victims = [owner.process.pid] if who == "owner" else spawners
    assert victims
    for pid in victims:
        os.kill(pid, signal.SIGSTOP)
    gone = eventually(lambda: containers(top) == (), 5)
    for pid in victims:
        os.kill(pid, signal.SIGCONT)
    assert gone
    assert owner.wait()[1] == "wall True\n"


def test_an_owner_that_reads_nothing_can_be_killed(top: Path, traces: Traces) -> None:
    """The pipes are full and nobody reads: the container still goes with its owner."""
    source = """
import os, signal
from nscontainer import spec
from nscontainer.engine.container import Container
c = Container.create(spec.build(["yes"]), start=True)
print("ready", flush=True)
signal.pause()
"""
    owner = Owner(top, source)
    assert owner.line() == "ready"
    time.sleep(0.2)
    ids = containers(top)
    owner.kill()
    traces.none(owner, ids)
