"""``nscontainer sweep`` with real containers: tables, files, an interruption and going on from there."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.once]

NSC = (sys.executable, "-m", "nscontainer")
SPIN = "import time; end = time.process_time() + 0.1\nwhile time.process_time() < end: pass"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An engine and a store of our own; no container may be left in the end."""
    state = tmp_path_factory.mktemp("state", numbered=True)
    state.chmod(0o700)
    runs = tmp_path_factory.mktemp("runs", numbered=True)
    yield {
        **os.environ,
        "NSCONTAINER_STATE_DIR": str(state),
        "NSCONTAINER_RUNS": str(runs),
    }
    left = os.listdir(state / "containers") if (state / "containers").is_dir() else []
    assert left == []


def nsc(environment: dict[str, str], where: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*NSC, *argv], capture_output=True, text=True, timeout=110, check=False,
        env=environment, cwd=where, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_compares_and_writes_what_is_asked(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Two quotas, three repeats: a table of both, a row a run."""
    done = nsc(
        environment, tmp_path, "sweep", "--cpu", "50%,100%", "--repeat", "3", "--csv", "runs.csv",
        "--plot", "speed.png", "--kind", "speed", "-o", "s.zip", "--", sys.executable, "-c", SPIN,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("6 runs, kept as ")
    assert any(line.startswith("50 %  ") for line in lines)
    assert any(line.startswith("100 %") and "baseline" in line for line in lines)
    found = rows(tmp_path / "runs.csv")
    assert sorted(row["cpu"] for row in found) == ["0.5"] * 3 + ["1.0"] * 3
    assert {row["ok"] for row in found} == {"True"}
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "s.zip").read_bytes().startswith(b"PK")


def test_parameters_come_by_text_and_by_environment(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Each run has its own; relative paths mean what they mean here."""
    (tmp_path / "seen").mkdir()
    done = nsc(
        environment, tmp_path, "sweep", "--param", "n=1,2", "--param", "mode=a,b", "--zip",
        "-v", f"{tmp_path}/seen:{tmp_path}/seen", "--",
        "sh", "-c", "echo {n} $mode > seen/{n}-${mode}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = {path.name: path.read_text() for path in (tmp_path / "seen").iterdir()}
    assert seen == {"1-a": "1 a\n", "2-b": "2 b\n"}


def test_what_fails_at_first_ends_the_sweep(environment: dict[str, str], tmp_path: Path) -> None:
    """Its own words and exit code: the rest would fail alike."""
    done = nsc(
        environment, tmp_path, "sweep", "--cpu", "50%,100%", "--",
        "sh", "-c", "echo no such luck >&2; exit 3",
    )  # fmt: skip
    assert done.returncode == 3
    assert "no such luck" in done.stderr
    assert "exit code 3" in done.stderr.splitlines()[-1]


def test_a_terminal_sees_one_line_that_is_renewed(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """In a real one of 40 columns: no line is longer, each begins where the last did, none stays."""
    argv = [
        "sweep",
        "--param",
        f"long={'x' * 60},b",
        "--repeat",
        "2",
        "--",
        "sh",
        "-c",
        "sleep 0.3; : {long}",
    ]
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 40, 0, 0))
    with subprocess.Popen(
        [*NSC, *argv], env=environment, cwd=tmp_path, stdin=slave, stderr=slave,
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        os.close(slave)
        seen = b""
        with contextlib.suppress(OSError):  # EIO: the last one that had it has ended
            while data := os.read(master, 4096):
                seen += data
        report, _ = process.communicate(timeout=60)
    os.close(master)
    said = seen.decode()
    assert process.returncode == 0
    assert "\n" not in said
    lines = said.split("\x1b[K")
    assert lines.pop() == ""
    assert all(line.startswith("\r") and len(line) <= 1 + 39 for line in lines)
    assert lines[-1] == "\r"
    assert any(line.startswith("\r1 of 4") for line in lines)
    assert any(line.endswith("x…") for line in lines)
    assert report.startswith("4 runs, kept as ")


def test_an_interrupted_sweep_goes_on_from_there(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Ctrl-C in the middle: what is done is kept; the same command does only the rest."""
    (tmp_path / "log").write_text("")
    argv = [
        "sweep", "--cpu", "50%,100%", "--repeat", "4", "--csv", "runs.csv",
        "-v", f"{tmp_path}:{tmp_path}", "--", "sh", "-c", "sleep 0.4; echo x >> log",
    ]  # fmt: skip
    process = subprocess.Popen(
        [*NSC, *argv], env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while len((tmp_path / "log").read_text()) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert process.returncode == 130, said
    assert " of 8 runs; the same command goes on from there" in said
    kept = int(said.split("stopped after ")[1].split()[0])
    assert 1 <= kept < 8
    before = len((tmp_path / "log").read_text().split())
    done = nsc(environment, tmp_path, *argv)
    assert done.returncode == 0, done.stderr
    assert len(rows(tmp_path / "runs.csv")) == 8
    assert len((tmp_path / "log").read_text().split()) == before + 8 - kept


def test_history_lists_and_removes(environment: dict[str, str], tmp_path: Path) -> None:
    """Each sweep is a row, until it is removed."""
    done = nsc(environment, tmp_path, "sweep", "--repeat", "2", "--", "true")
    assert done.returncode == 0, done.stderr
    kept = done.stdout.split("kept as ")[1].split()[0]
    listed = json.loads(nsc(environment, tmp_path, "history", "--json").stdout)
    assert kept in {row["id"] for row in listed}
    assert kept in nsc(environment, tmp_path, "history").stdout
    assert nsc(environment, tmp_path, "history", "rm", kept).returncode == 0
    assert kept not in nsc(environment, tmp_path, "history").stdout
    gone = nsc(environment, tmp_path, "history", "rm", kept)
    assert gone.returncode == 1
    assert kept in gone.stderr


def test_an_exported_sweep_runs_again(environment: dict[str, str], tmp_path: Path) -> None:
    """Both sides and the level by name."""
    done = nsc(
        environment, tmp_path, "sweep", "--cpu", "50%,100%", "--repeat", "2", "-o", "s.zip", "--",
        "sh", "-c", "sleep 0.05",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    again = nsc(environment, tmp_path, "rerun", "-o", "here.zip", "s.zip")
    assert again.returncode == 0, again.stderr
    assert "100 %" in again.stdout
    assert (tmp_path / "here.zip").exists()
