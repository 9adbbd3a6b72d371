"""The live view in a real kernel, and in a real terminal."""

from __future__ import annotations

import base64
import itertools
import os
import pty
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.notebook.kernel import Cell, Kernel, plain

pytestmark = [pytest.mark.notebook, pytest.mark.root]

SPIN = "import time\nt = time.monotonic()\nwhile time.monotonic() - t < {}:\n    pass\n"


def views(cell: Cell) -> list[tuple[float, str, dict[str, Any]]]:
    """What was shown under a display id, its updates included."""
    return [
        (at, kind, content)
        for at, kind, content in cell.messages
        if kind in ("display_data", "update_display_data") and content["transient"]
    ]


def test_a_long_cell_has_one(kernel: Kernel):
    """One display from about the third second on, renewed a few times a second, at last a picture."""
    cell = kernel.run("%%container --cpu 30% --memory 256M\n" + SPIN.format(4) + "print('end')")
    assert cell.ok
    found = views(cell)
    kinds = [kind for _, kind, _ in found]
    assert kinds[0] == "display_data"
    assert set(kinds[1:]) == {"update_display_data"}
    assert len({content["transient"]["display_id"] for *_, content in found}) == 1
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(found[:-1])]
    assert 0.2 < sum(gaps) / len(gaps) < 0.55, gaps
    for *_, content in found[:-1]:
        said = content["data"]["text/plain"]
        assert " s · CPU " in said
        assert " of 30 % · throttled " in said
        assert " of 256 MiB" in said
        assert "<svg" in content["data"]["text/html"]
    last = found[-1][2]["data"]
    assert "text/html" not in last
    width, height = struct.unpack(">II", base64.b64decode(last["image/png"])[16:24])
    assert width > 900
    assert height > 150
    assert " % of a CPU for 4" in last["text/plain"]
    # Then the card, as after each cell.
    assert "asked CPU 30 %" in cell.shown()[-1]


def test_a_short_or_quiet_one_has_none(kernel: Kernel):
    """Nothing moves for a cell that is soon over, or where nobody wants it, or all is captured."""
    assert not views(kernel.run("%%container\nimport time; time.sleep(1)"))
    assert not kernel.run("%%container -q\nimport time; time.sleep(3)").of("display_data")
    assert not views(kernel.run("%%capture c\n%%container\nimport time; time.sleep(3)"))


def test_a_script_and_a_session_have_one(kernel: Kernel):
    """Each of its own: a session's begins with the cell."""
    assert len(views(kernel.run("%%container --sh\nsleep 3"))) > 3
    kernel.run("%container create lab --cpu 50%")
    kernel.run("%%container lab -q\nimport time; time.sleep(1.5)")
    cell = kernel.run("%%container lab\n" + SPIN.format(3))
    first = views(cell)[0][2]["data"]["text/plain"]
    assert first.startswith("2.")
    assert " of 50 % · throttled " in first
    kernel.run("%container rm -f lab")


def test_an_animation_is_left_alone(kernel: Kernel):
    """A cell that keeps clearing its output has the picture at its end only."""
    code = """%%container
import time
from IPython.display import clear_output
for i in range(30):
    clear_output(wait=True)
    print(i)
    time.sleep(0.1)
"""
    cell = kernel.run(code)
    (only,) = views(cell)
    assert "image/png" in only[2]["data"]


def test_it_ends_with_what_is_killed_or_interrupted(kernel: Kernel):
    """The picture shows where it was cut off."""
    cell = kernel.run("%%container --timeout 2.5s\n" + SPIN.format(60))
    assert "image/png" in views(cell)[-1][2]["data"]
    assert "killed: timeout of 2.5 s" in views(cell)[-1][2]["data"]["text/plain"]

    def interrupt(kind: str, content: Any) -> None:
        if kind == "display_data" and content["transient"]:
            kernel.interrupt()

    cell = kernel.run("%%container\n" + SPIN.format(60), during=interrupt)
    assert "image/png" in views(cell)[-1][2]["data"]
    assert cell.errors()[-1].startswith("KeyboardInterrupt")


def test_a_memory_limit_that_is_changed_meanwhile(kernel: Kernel):
    """The line follows an update."""
    code = "%%container --name grown -m 128M\nimport time\ntime.sleep(6)"
    env = {**os.environ}
    command = [sys.executable, "-m", "nscontainer", "update", "-m", "512M", "grown"]

    def grow(kind: str, content: Any) -> None:
        if kind == "display_data" and content["transient"]:
            subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)

    said = [content["data"]["text/plain"] for *_, content in views(kernel.run(code, during=grow))]
    assert "of 128 MiB" in said[0]
    assert "of 512 MiB" in said[-2]


def test_where_no_picture_can_be_drawn(kernel: Kernel):
    """It says that the run is over all the same: without matplotlib, or where ■ breaks off the drawing."""
    kernel.run(
        "from nscontainer import plot\nstrip = plot.strip\n"
        "def refuse(_): raise ImportError\nplot.strip = refuse"
    )
    cell = kernel.run("%%container\nimport time; time.sleep(2.5)")
    assert cell.ok
    assert "<strong>ended after 2.5 s" in views(cell)[-1][2]["data"]["text/html"]
    kernel.run("def draw(_):\n    print('drawing', flush=True)\n    import time; time.sleep(60)")
    kernel.run("plot.strip = draw")

    def interrupt(kind: str, content: Any) -> None:
        if kind == "stream" and content["text"] == "drawing\n":
            kernel.interrupt()

    cell = kernel.run("%%container -o r --out y=7\nimport time; time.sleep(2.5)", during=interrupt)
    kernel.run("plot.strip = strip")
    assert cell.errors()[-1].splitlines()[-1].startswith("KeyboardInterrupt")
    assert "<strong>ended after 2.5 s" in views(cell)[-1][2]["data"]["text/html"]
    assert kernel.run("print(r.exit_code, y)").text() == "0 7\n"


def test_a_terminal_has_a_line(tmp_path: Path):
    """It is drawn over and over, keeps out of the way of what is printed, and is gone at the end."""
    script = tmp_path / "long.ipy"
    body = SPIN.format(3.2) + "print('half', end='', flush=True)\n" + SPIN.format(1)
    script.write_text(
        "%load_ext nscontainer\nget_ipython().run_cell_magic('container', '--cpu 50%', "
        + repr(body)
        + ")\n"
    )
    said = in_terminal([sys.executable, "-m", "IPython", "--no-banner", str(script)], tmp_path)
    lines = [part for part in said.split("\r\x1b[K") if part.startswith("[runs ")]
    assert len(lines) >= 4
    assert all(" · CPU " in line and " of 50 %" in line for line in lines)
    after = said.partition("half")[2]
    assert "[runs" not in after  # the line is begun: nothing is drawn over it
    shown = plain(after)
    assert " % of a CPU for 4" in shown


def test_a_terminals_line_makes_way(tmp_path: Path):
    """It is rubbed out before a value is shown, somebody is asked, or a traceback."""
    for last in ("'the value'", "input('the value')", "1 / 0"):
        script = tmp_path / "long.ipy"
        body = SPIN.format(2.5) + last
        script.write_text(
            "%load_ext nscontainer\nget_ipython().run_cell_magic('container', '--no-raise-error', "
            + repr(body)
            + ")\n"
        )
        said = in_terminal([sys.executable, "-m", "IPython", str(script)], tmp_path)
        *_, before = said.partition("---" if "/" in last else "the value")[0].split("[runs ")
        assert "]\r\x1b[K" in before, before


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_is_not_utf_8(tmp_path: Path, encoding: str):
    """What it can't print it gets as escapes: the cell and the next ones run."""
    script = tmp_path / "long.ipy"
    body = SPIN.format(2.5) + "print('\\u65e5')\ndisplay('\\u672c')\nraise SystemError('\\u8a9e')"
    script.write_text(
        "%load_ext nscontainer\n"
        "get_ipython().run_cell_magic('container', '--cpu 50% --no-raise-error -o r', "
        + ascii(body)
        + ")\nprint('went on', r.exit_code)\n"
    )
    command = [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", str(script)]
    said = in_terminal(command, tmp_path, PYTHONIOENCODING=encoding)
    for text in (
        "\\u65e5\r\n",
        "'\\u672c'",
        "SystemError: \\u8a9e",
        "% of a CPU for 2",
        "went on 1",
    ):
        assert text in said, said


def in_terminal(command: list[str], directory: Path, **more: str) -> str:
    """Run a command on a pseudo-terminal, where a line has been typed; give all it wrote."""
    master, slave = pty.openpty()
    os.write(master, b"typed\n")
    environ = {
        **os.environ,
        "IPYTHONDIR": str(directory),
        "TERM": "xterm",
        "COLUMNS": "120",
        **more,
    }
    with subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environ, cwd=directory
    ) as process:
        os.close(slave)
        parts = []
        try:
            while data := os.read(master, 65536):
                parts.append(data)
        except OSError:  # EIO: the other end is closed
            pass
        assert process.wait(60) == 0
    os.close(master)
    return b"".join(parts).decode(errors="replace")
