"""The command line without containers: parsing, tables, errors, and what it loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nscontainer import cli
from nscontainer.cli import manage, run, stats, text
from nscontainer.cli.output import Outlet, write_all
from nscontainer.errors import (
    CommandError,
    EngineError,
    HostError,
    NotFoundError,
    NsContainerError,
    SpecError,
)
from nscontainer.schema import NAMES

ROOT = Path(__file__).resolve().parents[2]


def outcome(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = cli.main(argv)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


# --- main ------------------------------------------------------------------------------------


def test_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Without arguments the help is printed, as Docker does."""
    for argv in ([], ["--help"], ["-h"], ["help"]):
        code, out, _ = outcome(capsys, *argv)
        assert code == 0
        assert all(f"\n  {name} " in out for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each sub-command is there and shows its usage without touching the engine."""
    code, out, err = outcome(capsys, name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: nscontainer {name}")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["inspekt"], "'inspekt' is not a command (did you mean inspect?)"),
        (["xyzzy"], "'xyzzy' is not a command (nscontainer --help lists them)"),
        (["ps", "--al"], "--al is not an option (did you mean --all?)"),
        (["ps", "surplus"], "'surplus' is one argument too many (see nscontainer ps --help)"),
        (["rm"], "the following arguments are required: CONTAINER (see nscontainer rm --help)"),
        (["run"], "there is no command to run (nscontainer run [options] -- COMMAND [ARGUMENT…])"),
        (["run", "--memory", "lots", "true"], "'lots' is not a size (write bytes, or"),
        (["run", "-d", "--usage", "u.csv", "true"], "--usage needs a container in the foreground"),
        (["run", "--usage", "u.txt", "true"], "usage file 'u.txt' says no format"),
        (["run", "--result", "/nonexistent/r", "true"], "file '/nonexistent/r' can't be written"),
        (["update", "box"], "update was given no limit to change"),
        (["update", "--ulimit", "nofile=1", "box"], "--ulimit can't be changed"),
        (["kill", "-s", "NOPE", "box"], "signal 'NOPE' is not known"),
        (["exec", "box"], "exec needs a container and a command"),
        (["exec", "-t", "box", "sh"], "exec gives no terminal"),
        (["exec", "-w", "x", "box", "sh"], "workdir 'x' is not absolute"),
    ],
)
def test_errors_of_usage(argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line on standard error, exit code 125, nothing made."""
    code, out, err = outcome(capsys, *argv)
    assert (code, out) == (125, "")
    assert err.startswith(f"nscontainer: {line}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "name", "code"),
    [
        (CommandError("x", exit_code=127), "run", 127),
        (HostError("x"), "run", 125),
        (EngineError("x"), "run", 125),
        (SpecError("x"), "ps", 125),
        (HostError("x"), "ps", 1),
        (NotFoundError("x"), "exec", 1),
    ],
)
def test_exit_codes_of_errors(error: NsContainerError, name: str, code: int) -> None:
    """Docker's: 125 where the command never ran, else 1."""
    assert cli.fail(error, name) == code


def test_broken_pipe_is_quiet() -> None:
    """A table whose reader has gone ends without a word."""
    script = "import sys; from nscontainer.cli import main; sys.exit(main(sys.argv[1:]))"
    reader, writer = os.pipe()
    os.close(reader)  # before it starts: nobody ever reads
    done = subprocess.run(
        [sys.executable, "-c", script, "--help"],
        stdout=writer, stderr=subprocess.PIPE, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


# --- run's arguments -------------------------------------------------------------------------


def test_the_command_keeps_its_options() -> None:
    """The first argument that is no option starts the command, with or without --."""
    for dashes in ([], ["--"]):
        given, command = run.parse(["--cpu", "20%", *dashes, "sh", "-c", "x", "--cpu"])
        assert command == ["sh", "-c", "x", "--cpu"]
        assert given.cpu == "20%"


def test_working_directory_is_the_callers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A relative path in the command means the same inside; -w overrides."""
    monkeypatch.chdir(tmp_path)
    given, _ = run.parse(["true"])
    assert run.build_options(given)["workdir"] == str(tmp_path)
    given, _ = run.parse(["-w", "/usr", "true"])
    assert run.build_options(given)["workdir"] == "/usr"


def test_terminal_needs_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """-it with a pipe as standard input is refused, as Docker does."""
    monkeypatch.setattr(os, "isatty", lambda _fd: False)
    with pytest.raises(SpecError, match="-t with -i needs a terminal"):
        run.parse(["-it", "sh"])


# --- text ------------------------------------------------------------------------------------


def test_printable() -> None:
    """Nothing that a container chose can steer a terminal; the rest stays as it is."""
    assert text.printable("plain ünï 漢字") == "plain ünï 漢字"
    assert text.printable("\x1b[2J\r\n\x9b1m\u202e") == "\\x1b[2J\\r\\n\\x9b1m\\u202e"
    assert text.printable("\udce9") == "\\udce9"


def test_table_is_aligned_and_escaped() -> None:
    """Columns are three apart and a cell can't add a row."""
    assert text.table(["A", "LONG"], [["x\ny", "1"], ["z", "22"]]).split("\n") == [
        "A      LONG",
        "x\\ny   1",
        "z      22",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "Less than a second"), (1.9, "1 second"), (59, "59 seconds"), (60, "About a minute"),
     (200, "3 minutes"), (3600, "About an hour"), (7200, "2 hours"), (200_000, "2 days")],
)  # fmt: skip
def test_age(seconds: float, words: str) -> None:
    """Docker's words."""
    assert text.age(seconds) == words


ROW = {
    "id": "0123456789ab", "name": "box", "image": "host", "command": ["sh", "-c", "echo " + "x" * 40],
    "status": "running", "created_unix": 90.0, "released_unix": 95.0, "ended_unix": None,
    "exit_code": None, "lost": False,
    "ports": [{"host_ip": "127.0.0.1", "host_port": 8080, "port": 80, "protocol": "tcp"}],
}  # fmt: skip


def test_ps_table() -> None:
    """Docker's columns; a command is cut unless asked not to be."""
    header, line = manage.ps_table([ROW], now=100.0).split("\n")
    assert header.split() == "CONTAINER ID IMAGE COMMAND CREATED STATUS PORTS NAMES".split()
    assert header.index("PORTS") == line.index("127.0.0.1:8080->80/tcp")
    assert header.index("STATUS") == line.index("Up 5")
    assert "…" in line
    assert "10 seconds ago" in line
    assert "Up 5 seconds" in line
    assert "x" * 40 in manage.ps_table([ROW], now=100.0, full=True)
    assert "(cell)" in manage.ps_table([ROW | {"command": None}], now=100.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": "created"}, "Created"),
        ({"status": "paused"}, "Up 5 seconds (Paused)"),
        ({"status": "exited", "exit_code": 3, "ended_unix": 98.0}, "Exited (3) 2 seconds ago"),
        ({"status": "exited", "lost": True}, "Dead (its monitor was killed)"),
        ({"status": "exited"}, "Dead (its monitor was killed)"),
    ],
)
def test_status_text(change: dict[str, object], words: str) -> None:
    """What a container is up to, in Docker's words."""
    assert manage.status_text({**ROW, **change}, 100.0) == words


def reading(**figures: int | None) -> stats.Reading:
    return {"elapsed_ns": 0, "took_ns": 0, **dict.fromkeys(NAMES, None), **figures}


def test_stats_row() -> None:
    """Shares are of the time between two readings; what is missing stays missing."""
    before = reading(
        **{"elapsed_ns": 10**9, "cpuacct.usage": 0, "cpu.nr_periods": 10, "cpu.nr_throttled": 5}
    )
    now = reading(
        **{
            "elapsed_ns": 3 * 10**9, "cpuacct.usage": 10**9, "cpu.nr_periods": 30,
            "cpu.nr_throttled": 10, "cpu.quota": 200_000, "memory.usage": 32 << 20,
        }
    )  # fmt: skip
    row = stats.usage("id", "box", before, now, 64 << 20)
    assert (row.cpu_share, row.cpu_limit, row.throttled_share) == (0.5, 0.2, 0.25)
    assert (row.pids, row.read_bytes) == (None, None)
    line = stats.stats_table([row]).split("\n")[1]
    assert line.split() == ["id", "box", "50.00%", "20%", "25.00%", "32.0MiB", "/", "64.0MiB",
                            "50.00%", "--", "/", "--", "--"]  # fmt: skip
    assert stats.usage("id", "box", None, now, None).cpu_share is None
    assert stats.usage("id", "box", now, now, None).cpu_share is None


# --- output ----------------------------------------------------------------------------------


def test_outlet_says_once_that_nobody_reads() -> None:
    """After the reader has gone the rest is dropped, and the engine told once."""
    reader, writer = os.pipe()
    told: list[int] = []
    outlet = Outlet(writer, lambda: told.append(1))
    outlet(b"x")
    assert os.read(reader, 10) == b"x"
    os.close(reader)
    outlet(b"y")
    outlet(b"z")
    os.close(writer)
    assert told == [1]
    assert outlet.broken


def test_write_all_waits_for_room() -> None:
    """A full non-blocking descriptor (a terminal that someone made so) loses nothing."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    child = os.fork()
    if child == 0:
        os.close(reader)
        write_all(writer, b"a" * 300_000)
        os._exit(0)
    os.close(writer)
    size = 0
    while data := os.read(reader, 65536):
        size += len(data)
    os.close(reader)
    assert os.waitpid(child, 0)[1] == 0
    assert size == 300_000


# --- what is loaded --------------------------------------------------------------------------


def python(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_run_loads_little() -> None:
    """A container's start waits for no table, no doctor, no accounting, no third party."""
    script = """
import sys
from nscontainer.cli import run
run.parse(["--cpu", "20%", "true"])
import nscontainer.engine.container
print(*sorted(sys.modules))
"""
    loaded = set(python(script).split())
    for name in ("pandas", "numpy", "matplotlib", "IPython", "nscontainer.doctor",
                 "nscontainer.measure", "nscontainer.cli.manage", "asyncio", "email",
                 "importlib.metadata"):  # fmt: skip
        assert name not in loaded


MACOS = """
import os, sys
sys.platform = "darwin"
for name in ("fcntl", "resource", "termios", "tty", "pty"):
    sys.modules[name] = None  # an import of it fails
for name in ("memfd_create", "pidfd_open", "setns", "unshare", "sched_getaffinity", "O_PATH",
             "MFD_CLOEXEC", "eventfd", "getxattr", "setresuid", "O_TMPFILE", "posix_fallocate"):
    if hasattr(os, name):
        delattr(os, name)
import nscontainer
import nscontainer.api
import nscontainer.cli
import nscontainer.doctor
import nscontainer.options
from nscontainer.cli import diagnose, execute, manage, run, stats
from nscontainer.errors import HostError

findings = nscontainer.doctor.examine()
assert [f.name for f in findings] == ["Linux"], findings
assert findings[0].mend.startswith("use a Linux VM"), findings
try:
    nscontainer.run(["true"])
except HostError as error:
    assert "this is macOS" in str(error), error
else:
    raise AssertionError("it ran")
for argv, code in ((["run", "true"], 125), (["ps"], 1), (["gc"], 1), (["doctor"], 1),
                   (["version"], 0), (["exec", "x", "y"], 1), (["stats"], 1)):
    assert nscontainer.cli.main(argv) == code, argv
"""


def test_on_macos() -> None:
    """Everything imports where there is no Linux; using it is one clear error with the mend."""
    done = subprocess.run(
        [sys.executable, "-c", MACOS], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 5
    for line in lines:
        assert line.startswith("nscontainer: no container can run here: Linux: this is macOS")
        assert "brew install lima" in line
    assert "no container can run here: Linux missing" in done.stdout
