"""The command line with real containers: exit codes, streams, signals, and every sub-command."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.root, pytest.mark.once]

Run = Callable[..., "subprocess.CompletedProcess[str]"]
NSC = (sys.executable, "-m", "nscontainer")
LOOP = 'trap "echo term; exit 7" TERM; echo ready; while :; do sleep 0.05; done'


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An engine of our own: `ps` then lists the containers of these tests only."""
    state = tmp_path_factory.mktemp("state", numbered=True)
    state.chmod(0o700)
    yield {**os.environ, "NSCONTAINER_STATE_DIR": str(state)}
    left = os.listdir(state / "containers") if (state / "containers").is_dir() else []
    assert left == []


@pytest.fixture
def nsc(environment: dict[str, str], tmp_path: Path) -> Run:
    def run(*argv: str, **more: Any) -> subprocess.CompletedProcess[str]:
        settings: dict[str, Any] = {
            "capture_output": True, "text": True, "timeout": 60, "check": False,
            "env": environment, "cwd": tmp_path, "stdin": subprocess.DEVNULL,
        }  # fmt: skip
        if "input" in more:
            del settings["stdin"]
        settings |= more
        done: subprocess.CompletedProcess[str] = subprocess.run([*NSC, *argv], **settings)  # noqa: PLW1510 - it is among the settings
        return done

    return run


@pytest.fixture
def start(
    environment: dict[str, str], tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start the command line in the background; what is left of it is killed at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*argv: str, **more: object) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(  # type: ignore[call-overload]
            [*NSC, *argv], env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL,
            **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more),
        )  # fmt: skip
        started.append(process)
        return process  # type: ignore[no-any-return]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def detached(nsc: Run) -> Iterator[str]:
    """A running container of the name ``box``."""
    made = nsc("run", "-d", "--name", "box", "--cpu", "50%", "--memory", "64M", "sh", "-c", LOOP)
    assert made.returncode == 0, made.stderr
    assert len(made.stdout.strip()) == 12
    wait_for(lambda: "ready" in nsc("logs", "box").stdout)
    yield "box"
    nsc("rm", "-f", "box")


def wait_for(condition: Callable[[], object], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def read_until(process: subprocess.Popen[bytes], text: bytes) -> None:
    assert process.stdout is not None
    seen = b""
    while text not in seen:
        assert select.select([process.stdout], [], [], 10)[0], seen
        seen += os.read(process.stdout.fileno(), 4096)


# --- run -------------------------------------------------------------------------------------


def test_streams_and_exit_code(nsc: Run) -> None:
    """Both streams arrive apart, the exit code is the command's; nothing of ours is added."""
    done = nsc("run", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 3)


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (["--bogus", "true"], 125, "--bogus is not an option"),
        (["--cpu", "none", "true"], 125, "'none' is not an amount of CPU"),
        (["--privileged", "true"], 125, "--privileged is not supported"),
        ([], 125, "there is no command to run"),
        (["--usage", "x.txt", "true"], 125, "says no format"),
        (["/etc/passwd"], 126, "can't be executed"),
        (["no-such-program"], 127, "not found"),
        (["--init", "sh", "-c", "kill -9 $$"], 137, ""),
        (["--timeout", "0.2s", "sleep", "9"], 137, ""),
        (["--init", "sh", "-c", "kill -15 $$"], 143, ""),
    ],
)
def test_exit_codes(nsc: Run, argv: list[str], code: int, text: str) -> None:
    """Docker's exit codes; an error is one line, and a signal's end says nothing in a pipe."""
    done = nsc("run", *argv)
    assert done.returncode == code
    assert text in done.stderr
    assert done.stderr.count("\n") == (1 if text else 0)


def test_standard_input(nsc: Run) -> None:
    """-i connects it, without -i it is empty."""
    assert nsc("run", "-i", "cat", input="hello").stdout == "hello"
    assert nsc("run", "cat", input="hello").stdout == ""


def test_environment_and_working_directory(nsc: Run, tmp_path: Path) -> None:
    """A relative path means what it means here; -e NAME hands the caller's value on."""
    (tmp_path / "script.sh").write_text("echo $A $HOME_TOWN; pwd\n", encoding="utf-8")
    environ = {**os.environ, "HOME_TOWN": "Kiel", "NSCONTAINER_STATE_DIR": f"{tmp_path}/state"}
    done = nsc("run", "-e", "A=1", "-e", "HOME_TOWN", "--", "sh", "script.sh", env=environ)
    assert done.stdout == f"1 Kiel\n{tmp_path}\n"


def test_large_output_is_whole(nsc: Run) -> None:
    """Ten megabytes arrive byte for byte."""
    done = nsc("run", "sh", "-c", "head -c 10000000 /dev/zero | tr '\\0' x")
    assert done.stdout == "x" * 10_000_000


def test_closed_streams(environment: dict[str, str], tmp_path: Path) -> None:
    """A stream that the caller closed doesn't become one of the engine's own descriptors."""
    for closed in (">&-", "2>&-", "<&-", "<&- >&- 2>&-"):
        line = f'exec "$0" -m nscontainer run -i sh -c "echo out; echo err >&2; exit 3" {closed}'
        done = subprocess.run(
            ["sh", "-c", line, sys.executable], env=environment, cwd=tmp_path, check=False,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 3, closed
        assert done.stdout == ("" if " >&-" in f" {closed}" else "out\n")
        assert done.stderr == ("" if "2>&-" in closed else "err\n")


def test_card_is_a_line(nsc: Run) -> None:
    """--card prints the summary where standard error is no terminal."""
    done = nsc("run", "--card", "true")
    assert "exit 0" in done.stderr.splitlines()[0]


def test_usage_and_result(nsc: Run, tmp_path: Path) -> None:
    """The samples as files, and the whole result for later."""
    pytest.importorskip("pandas")
    import nscontainer

    done = nsc("run", "--usage", "u.csv", "--result", "r.nsc", "sh", "-c", "sleep 0.2")
    assert (done.returncode, done.stderr) == (0, "")
    header, *rows = (tmp_path / "u.csv").read_text(encoding="utf-8").splitlines()
    assert header.startswith("elapsed_s,cpuacct.usage,")
    assert len(rows) >= 5
    assert nscontainer.load(tmp_path / "r.nsc").exit_code == 0


def test_unwritable_result_is_refused_before(nsc: Run) -> None:
    """A result that can't be kept is refused before the run, not after it."""
    done = nsc("run", "--result", "/nonexistent/r.nsc", "touch", "ran")
    assert done.returncode == 125
    assert "can't be written" in done.stderr


def test_broken_pipe(environment: dict[str, str]) -> None:
    """When the reader leaves, so do we: quickly, quietly, as by SIGPIPE."""
    process = subprocess.Popen(
        [*NSC, "run", "yes"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(2) == b"y\n"
    process.stdout.close()
    assert process.wait(timeout=20) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


# A terminal sends the SIGINT and then drops what is on its way out (n_tty.c, isig): hence the sleep.
PYTHON_LOOP = (
    "import time\ntry:\n    print('ready', flush=True)\n    time.sleep(60)\n"
    "except KeyboardInterrupt:\n    time.sleep(0.2)\n    print('interrupted')\n    raise SystemExit(9)"
)


def test_ctrl_c_reaches_the_command(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    """The first Ctrl-C is a SIGINT inside; what the command makes of it is its exit code."""
    process = start("run", "/usr/bin/python3", "-c", PYTHON_LOOP)
    read_until(process, b"ready")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (out, err, process.returncode) == (b"interrupted\n", b"", 9)


def test_second_ctrl_c_kills(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    """One that goes on after SIGINT is killed by the second."""
    process = start("run", "sh", "-c", "trap : INT; echo ready; while :; do sleep 0.05; done")
    read_until(process, b"ready")
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 137


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_stops(start: Callable[..., subprocess.Popen[bytes]], number: int) -> None:
    """A SIGTERM to us is the container's stop signal, so that it can end in order."""
    before = signal.signal(number, signal.SIG_DFL)  # where the tests run under nohup, too
    process = start("run", "sh", "-c", LOOP)
    signal.signal(number, before)
    read_until(process, b"ready")
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == (b"term\n", 7)


def test_sigkill_takes_the_container_along(
    nsc: Run, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """A foreground container never outlives us."""
    process = start("run", "--name", "doomed", "sh", "-c", LOOP)
    read_until(process, b"ready")
    assert "doomed" in nsc("ps").stdout
    process.kill()
    process.wait()
    wait_for(lambda: "doomed" not in nsc("ps", "-a").stdout)


def _in_terminal(
    environment: dict[str, str], *argv: str, keys: bytes = b"", cue: bytes = b"ready"
) -> tuple[bytes, int]:
    """Run with a terminal as all three streams; type the keys once it says ``cue``."""
    pid, master = pty.fork()
    if pid == 0:
        os.execve(NSC[0], [*NSC, *argv], environment)
    import fcntl
    import struct
    import termios

    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", 33, 77, 0, 0))
    seen = b""
    while select.select([master], [], [], 20)[0]:
        try:
            data = os.read(master, 4096)
        except OSError:
            break
        seen += data
        if keys and cue in seen:
            os.write(master, keys)
            keys = b""
    os.close(master)
    return seen, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_terminal(environment: dict[str, str]) -> None:
    """-it gives a terminal of our size, and takes keys."""
    script = "tty; stty size; echo ready; read line; echo got $line"
    seen, code = _in_terminal(
        environment, "run", "-it", "-q", "sh", "-c", script, keys=b"something\r"
    )
    assert code == 0, seen
    assert b"/dev/pts/" in seen
    assert b"33 77" in seen
    assert b"got something" in seen


def test_terminal_ctrl_c_is_a_key(environment: dict[str, str]) -> None:
    """Ctrl-C typed into -it interrupts the program inside."""
    seen, code = _in_terminal(
        environment, "run", "-it", "-q", "/usr/bin/python3", "-c", PYTHON_LOOP, keys=b"\x03"
    )
    assert b"interrupted" in seen
    assert code == 9


def test_summary_in_a_terminal(environment: dict[str, str]) -> None:
    """Where a person looks on, the run ends in a line about it; -q leaves it out."""
    seen, _ = _in_terminal(environment, "run", "--cpu", "50%", "true")
    assert b"exit 0" in seen
    seen, _ = _in_terminal(environment, "run", "-q", "true")
    assert seen == b""


# --- the others ------------------------------------------------------------------------------


def test_life_of_a_detached_container(nsc: Run, detached: str) -> None:
    """ps, rename, pause, resume, stop, wait, logs and rm tell one story."""
    assert '"sh -c trap' in nsc("ps").stdout
    assert nsc("ps", "-q").stdout.strip() == json.loads(nsc("ps", "--json").stdout)[0]["id"]
    assert nsc("rename", "box", "crate").returncode == 0
    assert nsc("pause", "crate").stdout == "crate\n"
    assert "(Paused)" in nsc("ps").stdout
    assert nsc("unpause", "crate").stdout == "crate\n"
    assert nsc("rm", "crate").returncode == 1
    assert nsc("stop", "crate").stdout == "crate\n"
    assert nsc("ps", "-q").stdout == ""
    assert "Exited (7)" in nsc("ps", "-a").stdout
    assert nsc("wait", "crate").stdout == "7\n"
    assert nsc("logs", "crate").stdout == "ready\nterm\n"
    assert nsc("logs", "--tail", "1", "crate").stdout == "term\n"
    assert nsc("start", "crate").returncode == 125
    assert nsc("rm", "crate").stdout == "crate\n"
    assert nsc("ps", "-a", "-q").stdout == ""


def test_detached_with_rm_goes_by_itself(nsc: Run) -> None:
    """-d --rm leaves nothing once it has ended."""
    nsc("run", "-d", "--rm", "--name", "brief", "sleep", "0.2")
    wait_for(lambda: nsc("ps", "-aq").stdout == "")


def test_exec(nsc: Run, detached: str) -> None:
    """Another command in it: streams, exit codes, environment, directory, user."""
    done = nsc("exec", "box", "sh", "-c", "echo out; echo err >&2; exit 5")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 5)
    assert nsc("exec", "-i", "box", "cat", input="in").stdout == "in"
    script = "echo $A; pwd; id -u"
    done = nsc("exec", "-e", "A=1", "-w", "/usr", "-u", "7", "box", "sh", "-c", script)
    assert done.stdout == "1\n/usr\n7\n"
    done = nsc("exec", "box", "no-such-program")
    assert done.returncode == 127
    assert nsc("exec", "box", "/etc/passwd").returncode == 126
    assert nsc("exec", "nobox", "true").returncode == 1
    assert nsc("exec", "box").returncode == 125


def test_exec_broken_pipe_ends_the_command(
    nsc: Run, detached: str, environment: dict[str, str]
) -> None:
    """When the reader of exec's output leaves, the command inside ends too; the container lives."""
    process = subprocess.Popen(
        [*NSC, "exec", "box", "yes"], env=environment, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.read(2)
    process.stdout.close()
    assert process.wait(timeout=20) == 141
    wait_for(lambda: "yes" not in nsc("top", "box").stdout)
    assert "box" in nsc("ps").stdout


def test_update_and_stats(nsc: Run, detached: str) -> None:
    """A changed limit is in force, and stats shows it; other limits stay."""
    row = json.loads(nsc("stats", "--no-stream", "--json").stdout)
    assert (row["cpu_limit"], row["memory_limit_bytes"]) == (0.5, 64 << 20)
    assert 0 <= row["cpu_share"] < 1
    assert nsc("update", "--cpu", "20%", "box").stdout == "box\n"
    row = json.loads(nsc("stats", "--no-stream", "--json", "box").stdout)
    assert (row["cpu_limit"], row["memory_limit_bytes"]) == (0.2, 64 << 20)
    table = nsc("stats", "--no-stream").stdout.splitlines()
    assert table[0].split()[:7] == "CONTAINER ID NAME CPU % CPU LIMIT".split()
    assert "20%" in table[1]
    assert nsc("update", "box").returncode == 125


def test_live_stats(environment: dict[str, str], detached: str) -> None:
    """In a terminal the table is redrawn in place; Ctrl-C leaves it, and that is no failure."""
    seen, code = _in_terminal(environment, "stats", keys=b"\x03", cue=b"box")
    assert code == 0
    assert seen.startswith(b"\x1b[H")
    assert b"CONTAINER ID" in seen


def test_kill(nsc: Run, detached: str) -> None:
    """Another signal than KILL goes to the first process."""
    assert nsc("kill", "-s", "TERM", "box").returncode == 0
    assert nsc("wait", "box").stdout == "7\n"
    assert nsc("kill", "box").returncode == 1
    assert nsc("kill", "-s", "NOPE", "box").returncode == 125


def test_inspect(nsc: Run, detached: str) -> None:
    """All that is known, as JSON; one that isn't there is an error beside the others."""
    done = nsc("inspect", "box", "nobox")
    assert done.returncode == 1
    (facts,) = json.loads(done.stdout)
    assert facts["status"] == "running"
    assert facts["spec"]["limits"]["memory_bytes"] == 64 << 20
    assert done.stderr.startswith("nscontainer: no container and no image 'nobox'")


def test_what_a_container_says_of_itself_is_harmless(nsc: Run) -> None:
    """A command line with terminal controls can't steer the terminal of who lists it."""
    nsc("run", "-d", "--name", "rogue", "sh", "-c", "sleep 30; : '\x1b]0;owned\x07\r\nfake row'")
    try:
        for argv in (["ps", "--no-trunc"], ["top", "rogue"], ["stats", "--no-stream"]):
            shown = nsc(*argv).stdout
            assert "rogue" in shown or "sleep 30" in shown
            assert not set(shown) & set("\x1b\x07\r")
        assert len(nsc("ps", "--no-trunc").stdout.splitlines()) == 2
    finally:
        nsc("rm", "-f", "rogue")


def test_logs_follow(nsc: Run, start: Callable[..., subprocess.Popen[bytes]]) -> None:
    """-f goes on until the container has ended."""
    nsc("run", "-d", "--name", "talker", "sh", "-c", "echo one; sleep 1; echo two")
    try:
        out, _ = start("logs", "-f", "talker").communicate(timeout=20)
        assert out == b"one\ntwo\n"
    finally:
        nsc("rm", "-f", "talker")


def test_doctor(nsc: Run) -> None:
    """Here, containers run; and the doctor leaves nothing behind (the session's leak check)."""
    done = nsc("doctor")
    assert done.returncode == 0, done.stdout
    assert "containers run here" in done.stdout
    found = json.loads(nsc("doctor", "--json").stdout)
    assert {f["status"] for f in found if f["needed"]} <= {"works", "limited"}


def test_gc_has_nothing_to_do(nsc: Run) -> None:
    """After containers that ended in order nothing is left to collect."""
    assert nsc("run", "true").returncode == 0
    assert (nsc("gc").stdout, nsc("gc").returncode) == ("", 0)


def test_unprivileged_user_gets_one_clear_error(environment: dict[str, str]) -> None:
    """Not root: one line from the doctor's findings, before anything is made."""
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    python = "/usr/bin/python3"
    root = str(Path(__file__).resolve().parents[2])
    environ = {**environment, "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*nobody, python, "-m", "nscontainer", "run", "true"],
        env=environ, cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 125, done.stderr
    assert done.stderr.startswith("nscontainer: no container can run here: state directory:")
    assert done.stderr.count("\n") == 1
