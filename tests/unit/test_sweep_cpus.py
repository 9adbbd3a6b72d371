"""CPUs held against other processes: real ones, never two at a time on one CPU."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from nscontainer.errors import HostError
from nscontainer.experiment import cpus

HOLD = """
import sys
from nscontainer.experiment import cpus
with cpus.held(sys.argv[1], map(int, sys.argv[2].split(","))):
    print("held", flush=True)
    sys.stdin.readline()
"""
TAKE_TURNS = """
import os, sys, time
from nscontainer.experiment import cpus
directory, wanted = sys.argv[1], [int(cpu) for cpu in sys.argv[2].split(",")]
waited = []
for _ in range(15):
    with cpus.held(directory, wanted, lambda: waited.append(1)):
        mine = []
        for cpu in wanted:  # fails where another is there
            mine.append(os.open(f"{directory}/there{cpu}", os.O_CREAT | os.O_EXCL))
        time.sleep(0.005)
        for cpu in wanted:
            os.unlink(f"{directory}/there{cpu}")
    time.sleep(0.001)
print("all")
"""


def start(code: str, directory: Path, wanted: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(directory), wanted],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@contextmanager
def holder(directory: Path, wanted: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has CPUs, until it is told or killed."""
    with start(HOLD, directory, wanted) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_two_processes_never_share_a_cpu(tmp_path: Path) -> None:
    """Of three that want overlapping ones, each has its own to itself each time, and none waits forever."""
    with ExitStack() as stack:
        several = [
            stack.enter_context(start(TAKE_TURNS, tmp_path, wanted))
            for wanted in ("0,1", "1,2", "2,0")
        ]
        said = [process.communicate(timeout=60)[0] for process in several]
    assert said == ["all\n"] * 3
    assert [process.returncode for process in several] == [0] * 3


def test_one_waits_for_the_other_and_has_it_when_that_is_killed(tmp_path: Path) -> None:
    """Linux lets go of what a killed process held; what is free isn't waited for."""
    waits: list[int] = []
    with holder(tmp_path, "0") as other:

        def waiting() -> None:
            waits.append(1)
            if len(waits) == 2:  # it is still held: nothing was taken away
                other.send_signal(signal.SIGKILL)

        with cpus.held(str(tmp_path), (1, 2), lambda: pytest.fail("nobody has 1 and 2")):
            pass
        with cpus.held(str(tmp_path), (0, 1), waiting):
            assert len(waits) >= 2


def test_an_interrupt_while_waiting_lets_go_of_what_was_taken(tmp_path: Path) -> None:
    """CPU 0 was taken, 1 is another's: after Ctrl-C both are free for the next."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with (
        holder(tmp_path, "1"),
        pytest.raises(KeyboardInterrupt),
        cpus.held(str(tmp_path), (0, 1), interrupt),
    ):
        pytest.fail("1 is another's")
    with cpus.held(str(tmp_path), (0, 1), lambda: pytest.fail("nobody has it")):
        pass


def test_locks_that_cannot_be_made_are_an_error(tmp_path: Path) -> None:
    """One line, and how to go without."""
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(HostError, match="can't be locked") as caught,
        cpus.held(f"{tmp_path}/file", (0,)),
    ):
        pass
    assert caught.value.hint == "share_cpus=True goes without"
