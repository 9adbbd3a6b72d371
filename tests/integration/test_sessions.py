"""Sessions in real containers: what lasts, what each cell is told of, who may attach, how they end."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import nscontainer
from nscontainer import Container, Session, spec
from nscontainer.engine.attached import Attached
from nscontainer.errors import NotFoundError, SpecError, StateError, TransferError
from tests.integration.inside import Owner, eventually

pytestmark = [pytest.mark.root, pytest.mark.userns, pytest.mark.usefixtures("engine")]

BURN = "import time\nt = time.process_time()\nwhile time.process_time() - t < {}:\n    pass"


@pytest.fixture
def lab() -> Iterator[Session]:
    """A session of this test's own."""
    with nscontainer.session("lab") as made:
        yield made


def _interrupt_after(seconds: float) -> threading.Thread:
    """Send this process a SIGINT, as Jupyter's ■ does."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.daemon = True
    timer.start()
    return timer


def _remove(name: str) -> None:
    with contextlib.suppress(NotFoundError):
        Container.get(name).remove(force=True)


# --- what lasts, what is each cell's own -------------------------------------------------------


def test_variables_files_and_processes_last(lab: Session) -> None:
    """What one cell makes the next one finds; the results are each cell's own."""
    first = lab.run_cell(
        "import subprocess\nx = 41\nopen('/tmp/kept', 'w').write('kept')\n"
        "p = subprocess.Popen(['sleep', '100'])\nprint('one')"
    )
    second = lab.run_cell("print(x + 1, open('/tmp/kept').read(), p.poll())")
    assert (first.stdout, second.stdout) == ("one\n", "42 kept None\n")
    assert any("sleep" in str(process["command"]) for process in lab.container.top())
    assert first.start_mode == second.start_mode == "session"


def test_each_cell_has_its_own_totals_and_the_container_the_sum(lab: Session) -> None:
    """CPU time, wall time and samples begin at 0 with each cell; stats() has all of it."""
    busy, idle = lab.run_cell(BURN.format(0.3)), lab.run_cell("import time\ntime.sleep(0.3)")
    assert busy.cpu_s is not None
    assert idle.cpu_s is not None
    assert 0.29 < busy.cpu_s < 0.45
    assert idle.cpu_s < 0.05
    assert 0.29 < idle.wall_s < 0.6
    assert idle.usage.index[0] == 0
    assert idle.usage.index[-1] == pytest.approx(idle.wall_s)
    assert 8 <= idle.sample_count <= 20
    assert idle.usage["cpuacct.usage"].iloc[0] == 0
    total = lab.container.stats()["cpuacct.usage"]
    assert total is not None
    assert total >= round((busy.cpu_s + idle.cpu_s) * 1e9)


def test_each_cell_has_its_own_peak(lab: Session) -> None:
    """A cell that takes 100 MB raises its own peak and the container's, not the next cell's."""
    large = lab.run_cell("b = bytearray(100_000_000)\ndel b")
    small = lab.run_cell("pass")
    assert (large.totals["memory.peak"] or 0) > 100_000_000
    assert (small.totals["memory.peak"] or 0) < 100_000_000
    assert (lab.container.stats()["memory.peak"] or 0) > 100_000_000


@pytest.mark.once
def test_a_cells_output_is_all_there_at_its_end_and_none_of_anothers(lab: Session) -> None:
    """What a cell and its subprocesses print comes with it; what is printed between cells is logged."""
    result = lab.run_cell(
        "import os, subprocess, threading, time\n"
        "def later():\n    time.sleep(2); print('thread')\n"
        "threading.Thread(target=later).start()\n"
        "p = subprocess.Popen('echo early; : > /tmp/early; sleep 2; echo late', shell=True)\n"
        "while not os.path.exists('/tmp/early'): time.sleep(0.01)\nprint('x' * 300_000)"
    )
    assert result.stdout.startswith("x" * 300_000)
    assert result.stdout.endswith("early\n")
    assert eventually(lambda: lab.container.logs().count(b"\n") == 2)
    assert sorted(lab.container.logs().split()) == [b"late", b"thread"]
    assert lab.run_cell("print('next')").stdout == "next\n"


def test_the_log_is_bounded(lab: Session) -> None:
    """What is printed between cells is kept to the newest megabytes, and nothing waits for a reader."""
    lab.run_cell(
        "import subprocess\n"
        "p = subprocess.Popen(['sh', '-c', 'sleep 0.1; yes | head -c 5000000; echo end'])"
    )
    assert eventually(lambda: lab.container.logs().endswith(b"end\n"))
    assert len(lab.container.logs()) <= 2 << 20


def test_a_flood_between_cells_costs_the_monitor_little(lab: Session) -> None:
    """What never stops printing waits when it has printed some megabytes, and the session goes on."""
    lab.run_cell("import subprocess\np = subprocess.Popen(['yes'])")
    monitor = lab.container.inspect()["monitor_pid"]
    assert eventually(lambda: _rests(monitor))
    assert lab.run_cell("p.kill()\np.wait()\nx = 1").ok
    assert lab.run_cell("print(x)").stdout.endswith("1\n")
    lab.run_cell("import os, threading, time")
    lab.run_cell(
        "def flood():\n    while True: os.write(3, b'.' * 4096)\n"
        "threading.Thread(target=flood, daemon=True).start()\ntime.sleep(1)"
    )
    assert eventually(lambda: _rests(monitor))


def _rests(pid: int) -> bool:
    """Whether a process takes hardly any CPU for a second."""
    before = _cpu_s(pid)
    time.sleep(1)
    return _cpu_s(pid) - before < 0.2


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.once
def test_what_is_printed_last_is_in_the_log(own_engine: Path) -> None:
    """A detached session that dies between cells: what it printed before is kept."""
    lab = nscontainer.session("lab", detach=True)
    try:
        lab.run_cell(
            "import os, threading\n"
            "threading.Timer(0.2, lambda: (os.write(2, b'last words\\n'), os._exit(3))).start()"
        )
        assert eventually(lambda: lab.container.status == "exited")
        assert lab.container.logs() == b"last words\n"
    finally:
        lab.detach()
        _remove("lab")


def test_limits_are_the_sessions_and_change_between_cells_and_within() -> None:
    """update holds for the next cell and shows in a cell's result where it came during it."""
    with nscontainer.session(cpu="50%") as lab:
        lab.container.update(cpu="25%")
        result = lab.run_cell(BURN.format(0.3))
        assert result.limits.asked.cpus == 0.25
        assert result.limits.changes == ()
        assert result.wall_s > 0.8
        timer = threading.Timer(0.3, lambda: lab.container.update(cpu="100%"))
        timer.start()
        changed = lab.run_cell("import time\ntime.sleep(0.6)")
        (change,) = changed.limits.changes
        assert 0.2 < change.elapsed_s < 0.5


@pytest.mark.once
def test_input_is_asked_for(lab: Session) -> None:
    """A cell's input() reaches whoever runs it, and the answer the cell."""

    def answer(message: dict[str, object]) -> None:
        if message["msg_type"] == "input_request":
            lab.send({"msg_type": "input_reply", "content": {"value": "Ada"}})

    result = lab.run_cell("print('hello', input('name? '))", on_message=answer)
    assert result.stdout == "hello Ada\n"


# --- interrupts, and how it ends ---------------------------------------------------------------


def test_an_interrupt_ends_the_cell_and_keeps_the_session(lab: Session) -> None:
    """One ■ is a KeyboardInterrupt in the cell; the session goes on as it was."""
    lab.run_cell("x = 1")
    _interrupt_after(0.3)
    result = lab.run_cell("import time\ntime.sleep(20)", on_interrupt="return")
    assert result.interrupted == 1
    assert result.exit_code == 130
    assert result.wall_s < 5
    assert result.outputs[-1]["ename"] == "KeyboardInterrupt"
    assert lab.run_cell("print(x)").stdout == "1\n"


@pytest.mark.once
def test_an_interrupt_before_a_cell_has_begun_is_the_cells(
    lab: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that comes while the cell is on its way would be let pass there: it is held back here."""
    lab.run_cell("x = 1")
    send = Attached.send

    def interrupt_and_send(
        self: Attached, message: dict[str, object], fds: Sequence[int] = ()
    ) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        send(self, message, fds)

    monkeypatch.setattr(Attached, "send", interrupt_and_send)
    result = lab.run_cell("import time\ntime.sleep(20)", on_interrupt="return")
    assert (result.exit_code, result.interrupted) == (130, 1)
    monkeypatch.undo()
    assert lab.run_cell("print(x)").stdout == "1\n"


@pytest.mark.once
def test_an_interrupt_between_cells_is_let_pass(lab: Session) -> None:
    """SIGINT while no cell runs does nothing, to the session or to the next cell."""
    lab.run_cell("x = 1")
    lab.container.interrupt()
    time.sleep(0.1)
    result = lab.run_cell("import time\ntime.sleep(0.1)\nprint(x)")
    assert (result.stdout, result.exit_code) == ("1\n", 0)


def test_a_second_interrupt_kills_the_session(lab: Session) -> None:
    """A cell that takes no notice is killed with its container, and that is said."""
    _interrupt_after(0.3)
    _interrupt_after(0.6)
    code = (
        "import time\nwhile True:\n    try:\n        time.sleep(9)\n    except BaseException: pass"
    )
    result = lab.run_cell(code, on_interrupt="return")
    assert result.killed_by == "interrupt"
    assert str(lab.over).startswith("killed: interrupted twice after")
    with pytest.raises(StateError, match="session 'lab' has ended: killed: interrupted twice"):
        lab.run_cell("1")


def test_out_of_memory_ends_it_in_one_line() -> None:
    """Over the memory limit the cell says so, and the next one that the session is gone."""
    with nscontainer.session("small", memory="64M") as lab:
        result = lab.run_cell("b = bytearray(200 << 20)")
        assert result.oom_killed
        assert result.describe_exit().startswith("killed: out of memory at 64 MiB")
        for again in (lambda: lab.run_cell("1"), lambda: Session.find("small")):
            with pytest.raises(
                StateError, match="session 'small' has ended: killed: out of memory"
            ):
                again()
    assert eventually(lambda: not Container.list(all=True))


def test_a_timeout_of_the_session_ends_it() -> None:
    """--timeout counts from the session's beginning."""
    with nscontainer.session(timeout="0.5s") as lab:
        result = lab.run_cell("import time\ntime.sleep(20)")
        assert result.timed_out == "wall"
        assert lab.over is not None


@pytest.mark.once
def test_exit_ends_it_with_its_code(lab: Session) -> None:
    """exit(3) in a cell is the container's end, with that code, after its atexit handlers."""
    lab.run_cell("import atexit\natexit.register(print, 'bye')")
    result = lab.run_cell("print('one')\nexit(3)")
    assert result.exit_code == 3
    assert result.stdout == "one\nbye\n"
    assert lab.container.status == "removed"


@pytest.mark.once
def test_a_child_of_a_cell_that_returns_is_no_second_session(lab: Session) -> None:
    """os.fork() in a cell: the child ends where the cell does, and the session stays whole."""
    lab.run_cell("import os\nx = 1\npid = os.fork()\nif pid: os.waitpid(pid, 0)")
    assert lab.run_cell("print(x)").stdout == "1\n"
    assert len(lab.container.top()) == 1


def test_a_paused_session_says_so(lab: Session) -> None:
    """No cell hangs: paused is an error of one line, and resume lets it go on."""
    lab.container.pause()
    with pytest.raises(StateError, match="session 'lab' is paused"):
        lab.run_cell("1")
    lab.container.resume()
    assert lab.run_cell("print(1)").stdout == "1\n"


@pytest.mark.once
def test_an_error_of_the_callers_own_frees_the_session(lab: Session) -> None:
    """An exception in a sink lets go of the session, and the next cell attaches again."""

    def refuse(message: dict[str, object]) -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        lab.run_cell("print(1)", on_message=refuse)
    assert eventually(lambda: _try(lab, "print(2)") == "2\n")


def _try(lab: Session, code: str) -> str | None:
    try:
        return lab.run_cell(code).stdout
    except StateError:
        return None


@pytest.mark.once
def test_without_ipython_and_cold() -> None:
    """A cold interpreter keeps its variables as well."""
    with nscontainer.session(cold=True) as lab:
        lab.run_cell("x = 2")
        assert lab.run_cell("print(x * 21)").stdout == "42\n"


@pytest.mark.once
def test_what_a_session_cannot_be() -> None:
    """A container of another kind is none, and the name of none is one line."""
    with pytest.raises(NotFoundError, match="no session 'nobody'"):
        Session.find("nobody")
    with pytest.raises(SpecError, match="a session runs cells"):
        nscontainer.session(init=True)
    other = Container.create(spec.build(["sleep", "9"]), name="other", start=True)
    with pytest.raises(StateError, match="container 'other' is no session"):
        Session.find("other")
    other.kill()
    other.wait(5)


# --- detached: attached again --------------------------------------------------------------------


def test_a_detached_session_survives_its_owner_and_is_attached_again(own_engine: Path) -> None:
    """SIGKILL of the owner in a cell: the cell goes on, its output is in the log, another attaches."""
    owner = Owner(
        own_engine,
        "import nscontainer\n"
        "lab = nscontainer.session('lab', detach=True)\n"
        "lab.run_cell('x = 1')\n"
        'lab.run_cell(\'print("began")\\nimport time\\ntime.sleep(1)\\nprint("through")\\nx = 2\','
        " on_message=lambda m: print('running', flush=True))",
    )
    try:
        assert owner.line() == "running"
        owner.kill()
        lab = Session.find("lab")
        lab.attach()
        with pytest.raises(StateError, match="still runs the cell of a notebook that went away"):
            lab.run_cell("1")
        assert eventually(lambda: _try(lab, "print(x)") == "2\n")
        assert lab.container.logs() == b"through\n"
        lab.detach()
    finally:
        _remove("lab")
    assert eventually(lambda: not owner.offspring())


def test_a_foreground_session_dies_with_its_owner(own_engine: Path) -> None:
    """SIGKILL of the owner: the session is gone, and nothing is left."""
    owner = Owner(
        own_engine,
        "import nscontainer, time\nlab = nscontainer.session('lab')\n"
        "lab.run_cell('x = 1')\nprint('made', flush=True)\ntime.sleep(60)",
    )
    assert owner.line() == "made"
    owner.kill()
    assert eventually(lambda: not Container.list(all=True))
    assert eventually(lambda: not owner.offspring())


@pytest.mark.once
def test_one_at_a_time(own_engine: Path) -> None:
    """A second who attaches gets one line that names the first; when that goes it is free."""
    owner = Owner(
        own_engine,
        "import nscontainer\nlab = nscontainer.session('lab', detach=True)\n"
        "lab.run_cell('x = 1')\nprint('made', flush=True)\ninput()\nlab.detach()\n"
        "print('let go', flush=True)\ninput()",
    )
    try:
        assert owner.line() == "made"
        lab = Session.find("lab")
        with pytest.raises(StateError, match=f"in use by process {owner.process.pid}"):
            lab.run_cell("1")
        owner.say("")
        assert owner.line() == "let go"
        assert lab.run_cell("print(x)").stdout == "1\n"
        lab.detach()
    finally:
        owner.kill()
        _remove("lab")


@pytest.mark.once
def test_a_child_that_the_owner_forked_holds_nothing(own_engine: Path) -> None:
    """It has copies of all the owner's ends; when the owner goes, the session is free all the same."""
    owner = Owner(
        own_engine,
        "import nscontainer, os, time\nlab = nscontainer.session('lab', detach=True)\n"
        "lab.run_cell('x = 1')\n"
        "if os.fork() == 0:\n    time.sleep(60)\nprint('forked', flush=True)\ntime.sleep(60)",
    )
    try:
        assert owner.line() == "forked"
        owner.kill()
        assert eventually(lambda: _try(Session.find("lab"), "print(x)") == "1\n")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(owner.process.pid, signal.SIGKILL)
        _remove("lab")


@pytest.mark.once
def test_one_cell_at_a_time(lab: Session) -> None:
    """A cell from within another's sink is refused, and harms neither."""
    refused: list[str] = []

    def again(message: dict[str, object]) -> None:
        with pytest.raises(StateError) as caught:
            lab.run_cell("print(2)")
        refused.append(str(caught.value))

    assert lab.run_cell("print(1)", on_message=again).stdout == "1\n"
    assert refused == ["session 'lab' runs another cell of this process"]


@pytest.mark.once
def test_a_cell_that_closes_its_output(lab: Session) -> None:
    """Its descriptors are its own to close: the next owner gets what is left."""
    lab.run_cell("import os\nos.close(1)")
    assert lab.run_cell("print(1)").stdout == "1\n"
    lab.detach()
    assert eventually(lambda: _try(lab, "print(2)") == "2\n")


def test_an_ended_detached_session_is_kept_until_it_is_removed(own_engine: Path) -> None:
    """Its name is taken and that is said; rm frees it."""
    lab = nscontainer.session("lab", detach=True)
    lab.container.stop(5)
    try:
        with pytest.raises(StateError, match="has ended") as caught:
            Session.find("lab")
        assert "rm lab" in str(caught.value.hint)
    finally:
        lab.detach()
        _remove("lab")


def test_one_that_has_ended_and_has_not_been_told_of_yet(
    lab: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its monitor lets go of it first and tells of it then; who asks in between hears that it is over."""
    assert Session.find("lab") is lab
    with monkeypatch.context() as patch:
        patch.setattr(Container, "status", property(lambda _: "exited"))
        with pytest.raises(StateError, match="has ended"):
            Session.find("lab")
    assert Session.find("lab") is lab


@pytest.mark.once
def test_a_renamed_session_is_found_by_its_new_name(lab: Session) -> None:
    """The name is the container's; what runs in it doesn't notice."""
    lab.run_cell("x = 1")
    Container.get("lab").rename("lib")
    assert Session.find("lib").run_cell("print(x)").stdout == "1\n"
    assert lab.run_cell("1").name == "lib"
    with pytest.raises((NotFoundError, StateError)):  # or an earlier one of that name has ended
        Session.find("lab")


def test_a_hostile_session_breaks_nothing(lab: Session) -> None:
    """A cell that writes junk to the door, and closes it: the session ends, the monitor lives on."""
    lab.run_cell("import os\nos.write(3, b'junk' * 5)")
    assert lab.run_cell("print(1)").stdout == "1\n"
    lab.run_cell("os.close(3)")
    lab.container.update(cpu="50%")
    assert lab.run_cell("print(2)").stdout == "2\n"


@pytest.mark.once
def test_values_go_in_and_out_cell_by_cell(engine: Path) -> None:
    """-i and --out of a session's cells: each brings its own, and no descriptor stays behind."""
    with nscontainer.session() as lab:
        first = lab.run_cell("y = [n * 2 for n in x]", inputs={"x": [1, 2]}, out={"all": "y"})
        assert first.values == {"all": [2, 4]}
        count = "n = len(__import__('os').listdir('/proc/self/fd'))"
        seen = [lab.run_cell(count, inputs={"x": i}, out={"n": "n"}).values["n"] for i in range(5)]
        assert len(set(seen)) == 1
        with pytest.raises(TransferError, match="function"):
            lab.run_cell("f = print", out={"f": "lambda: 1"})
        assert lab.run_cell("pass", out={"y": "y"}).values == {"y": [2, 4]}
