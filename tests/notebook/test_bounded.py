"""A flood of output in a real kernel: it neither hangs nor fills memory, and what is missing is said."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.inside import private_engine
from tests.notebook import kernel as kernels
from tests.notebook.kernel import Kernel, run

pytestmark = [pytest.mark.notebook, pytest.mark.root]

MIB = 1 << 20
LINES = 100 * MIB // 100
"""Of 100 bytes each."""
DROPPED = re.compile(r"^\[nscontainer: (\d+\.\d) MiB of output dropped here\]$", re.MULTILINE)

PRINT = f"""
for number in range({LINES}):
    print(f"{{number:099d}}")
"""
WRITE = f"""
import os
def lines(begin, end):
    return b"".join(b"%099d\\n" % number for number in range(begin, end))
for begin in range(0, {LINES}, 1024):
    data = memoryview(lines(begin, min(begin + 1024, {LINES})))
    while data:
        data = data[os.write(1, data):]
"""
SUBPROCESS = f"""
import subprocess
subprocess.run(["awk", 'BEGIN {{ for (i = 0; i < {LINES}; i++) printf "%099d\\\\n", i }}'], check=True)
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel for all tests."""
    with (
        private_engine() as top,
        kernels.start(
            str(tmp_path_factory.mktemp("notebook")), NSCONTAINER_STATE_DIR=str(top)
        ) as started,
    ):
        started.run("%%container -q\nprint('warm')")
        yield started


def peak_bytes(pid: int) -> int:
    """Read the most memory that a process has had."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["VmHWM"].split()[0]) * 1024


def check(text: str, kept_mib: int) -> None:
    """Check that a text has a flood's beginning and end, and says truly what is missing."""
    first, last = f"{0:099d}\n", f"{LINES - 1:099d}\n"
    assert text.startswith(first)
    assert text.endswith(last)
    assert len(DROPPED.findall(text)) == 1
    (dropped,) = DROPPED.findall(text)
    assert abs(float(dropped) + len(text) / MIB - 100 * LINES / MIB) < 0.1
    assert kept_mib * MIB * 0.99 < len(text) < kept_mib * MIB + 70_000
    # The line before may be cut, where its beginning came in a piece of its own.
    before, _, after = (DROPPED.sub("[]", text)).partition("[]\n")
    whole = [*before.splitlines()[:-1], *after.splitlines()]
    assert {len(line) for line in whole} == {99}


@pytest.mark.slow
@pytest.mark.parametrize(
    "code", [PRINT, WRITE, SUBPROCESS], ids=["print", "os.write", "subprocess"]
)
def test_100_megabytes(kernel: Kernel, code: str) -> None:
    """Notebook and result have the beginning, the end and the line; memory holds far less than all."""
    with open(f"/proc/{kernel.pid}/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # begin VmHWM anew: proc_pid_clear_refs(5)
    before = peak_bytes(kernel.pid)
    check(run(kernel, "%%container -q -o r\n" + code), 8)
    assert peak_bytes(kernel.pid) - before < 60 * MIB
    kernel.run("text = r.stdout; del r")
    begin, end, length = run(kernel, "print(int(text[:100]), int(text[-100:]), len(text))").split()
    assert (int(begin), int(end)) == (0, LINES - 1)
    assert 16 * MIB * 0.99 < int(length) < 16 * MIB + 70_000
    assert "dropped here]" in run(
        kernel, "print([l for l in text.splitlines() if l[0] == '[']); del text"
    )


@pytest.mark.slow
def test_in_a_session(kernel: Kernel) -> None:
    """A session's cell is bounded as any."""
    run(kernel, "%container create lab")
    check(run(kernel, "%%container lab -q -o r\n" + PRINT), 8)
    assert run(kernel, "print(len(r.stdout) < 17 << 20)") == "True\n"
    run(kernel, "%container rm -f lab")


@pytest.mark.parametrize(
    "body",
    [
        "print('x' * 99)",
        "os.write(1, b'x' * 99 + b'\\n')",
        "subprocess.run('yes | head -c 1M', shell=True)",
    ],
    ids=["print", "os.write", "subprocess"],
)
def test_the_stop_button_in_a_flood(kernel: Kernel, body: str) -> None:
    """■ ends a cell that prints without end, on every way out."""
    timer = threading.Timer(1.5, kernel.interrupt)
    timer.start()
    cell = kernel.run(f"%%container -q -o r\nimport os, subprocess\nwhile True:\n    {body}")
    timer.join()
    assert not cell.ok
    assert cell.errors()[-1] == "KeyboardInterrupt: interrupted", cell.errors()
    assert run(kernel, "print(r.interrupted)") == "1\n"


def test_a_slow_front_end(kernel: Kernel) -> None:
    """A front end that takes its time with each message gets the end all the same."""

    def slow(kind: str, _: dict[str, Any]) -> None:
        if kind == "stream":
            time.sleep(0.05)

    code = "%%container -q\nfor number in range(150_000):\n    print(f'{number:099d}')"
    cell = kernel.run(code, during=slow)
    assert cell.ok, cell.errors()
    assert cell.text().endswith(f"{149_999:099d}\n")
    assert len(DROPPED.findall(cell.text())) == 1


def test_displays_are_bounded(kernel: Kernel) -> None:
    """Eighty displays of a megabyte: what is over the bound is left out, and counted."""
    code = "from IPython.display import HTML, display\nfor _ in range(80):\n    display(HTML('x' * 2**20))"
    cell = kernel.run("%%container -q -o r\n" + code)
    assert cell.ok, cell.errors()
    assert len(cell.of("display_data")) == 63
    assert cell.text("stderr") == "[nscontainer: 17 displays dropped here]\n"
    assert run(kernel, "print(len(r.outputs), r.stderr)").startswith("64 [nscontainer: 17 displays")
