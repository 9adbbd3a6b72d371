"""Where cells run but JupyterLab: nbclient, papermill, IPython in a terminal and without, VS Code's needs."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pexpect
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode, v4
from papermill.exceptions import PapermillExecutionError

from tests.integration.inside import private_engine
from tests.notebook import kernel as kernels

pytestmark = [pytest.mark.notebook, pytest.mark.root]

TIMEOUT_S = 60
LOAD = "%load_ext nscontainer"
FAILS = "%%container -q\nx = 1\nx / 0"
PLOTTED = "%%container --cpu {q}% -o r\nsum(i * i for i in range(3_000_000))"


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory that must be empty when the editor has gone."""
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    with private_engine() as top:
        yield top


def notebook_of(cells: Sequence[str]) -> NotebookNode:
    made: NotebookNode = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells])
    made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return made


def shown(cell: NotebookNode, mime: str = "text/plain") -> list[Any]:
    return [output.data[mime] for output in cell.outputs if mime in output.get("data", {})]


# --- programs that run notebooks -------------------------------------------------------------


def test_nbclient_stops_at_a_failed_cell(tmp_path: Path):
    """Its exception ends with our line, and the next cell has not run."""
    notebook = notebook_of([LOAD, FAILS, "print('never')"])
    resources = {"metadata": {"path": str(tmp_path)}}
    with pytest.raises(CellExecutionError) as caught:
        NotebookClient(notebook, timeout=TIMEOUT_S, resources=resources).execute()
    assert caught.value.evalue == "exit code 1"
    names = [output.ename for output in notebook.cells[1].outputs]
    assert names == ["ZeroDivisionError", "ContainerFailed"]
    assert notebook.cells[2].outputs == []


def papermill_runs(folder: Path, notebook: NotebookNode, **parameters: Any) -> NotebookNode:
    """Run a notebook by papermill; give what it wrote, also where it raised."""
    nbformat.write(notebook, folder / "in.ipynb")
    papermill.execute_notebook(
        folder / "in.ipynb", folder / "out.ipynb", parameters, cwd=folder, progress_bar=False
    )
    written: NotebookNode = nbformat.read(folder / "out.ipynb", as_version=4)
    return written


def test_papermill_passes_parameters(tmp_path: Path):
    """A parameter gets into the line of the magic; card and picture are in what it writes."""
    notebook = notebook_of([LOAD, "q = 100", PLOTTED, "r.plot();"])
    notebook.cells[1].metadata.tags = ["parameters"]
    out = papermill_runs(tmp_path, notebook, q=35)
    assert out.cells[2].metadata.tags == ["injected-parameters"]
    assert "asked CPU 35 %; read back as asked" in shown(out.cells[3])[-1]
    assert "35 %" in shown(out.cells[3], "text/html")[-1]
    assert len(shown(out.cells[4], "image/png")) == 1


def test_papermill_fails_where_the_container_does(tmp_path: Path):
    """It raises, its notebook has the traceback and our line once, and no later cell has run."""
    with pytest.raises(PapermillExecutionError, match="division by zero"):
        papermill_runs(tmp_path, notebook_of([LOAD, FAILS, "print('never')"]))
    out = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    errors = [o for cell in out.cells for o in cell.get("outputs", ()) if o.output_type == "error"]
    assert [(e.ename, e.evalue) for e in errors] == [
        ("ZeroDivisionError", "division by zero"),
        ("ContainerFailed", "exit code 1"),
    ]
    assert out.cells[-1].outputs == []


# --- plain IPython ---------------------------------------------------------------------------


@contextlib.contextmanager
def terminal(home: Path) -> Iterator[pexpect.spawn[str]]:
    """IPython in a terminal of 100 columns, as a person has it, with the magics loaded."""
    child = pexpect.spawn(
        sys.executable,
        ["-m", "IPython", "--no-banner", "--colors=NoColor", "--no-autoindent"],
        # pexpect is no terminal that answers where its cursor is.
        env={**os.environ, "IPYTHONDIR": str(home), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
        cwd=home,
        encoding="utf-8",
        dimensions=(40, 100),
        timeout=TIMEOUT_S,
    )
    try:
        child.expect_exact("In [1]:")
        child.send(f"{LOAD}\r")
        child.expect_exact("In [2]:")
        yield child
    finally:
        child.close(force=True)


def test_ipython_in_a_terminal(tmp_path: Path):
    """A cell that is typed in shows output, value and card as text; Ctrl-C ends one; it exits."""
    with terminal(tmp_path) as child:
        # Two empty lines end a cell with a magic here.
        child.send("%%container --cpu 50% -o r\rprint('said inside')\r6 * 7\r\r\r")
        child.expect_exact("In [3]:")
        said = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", child.before or "")
        output = said.rpartition("...:")[2].splitlines()
        assert [line for line in output if line][:2] == ["said inside", "42"]
        assert "asked CPU 50 %; read back as asked" in said
        assert "<div" not in said
        child.send("%%container -q\rimport time\rprint('asleep')\rtime.sleep(600)\r\r\r")
        child.expect(r"asleep\r\n")
        child.sendintr()
        child.expect_exact("KeyboardInterrupt: interrupted")
        child.expect_exact("In [4]:")
        child.send("%%container\rimport time\rtime.sleep(600)\r\r\r")
        child.expect(r"\[runs \d+\.\d s · CPU .* MiB\]")
        child.sendintr()
        child.expect_exact("KeyboardInterrupt: interrupted")
        assert "\r\x1b[K" in (child.before or "").rpartition("MiB]")[2]  # rubbed out
        child.expect_exact("In [5]:")
        child.send("print('goes', 'on', r.ok)\r")
        child.expect_exact("goes on True")
        child.expect_exact("In [6]:")
        child.send("exit\r")
        child.expect(pexpect.EOF)
        child.wait()
        assert child.exitstatus == 0


SCRIPT = """\
%load_ext nscontainer
get_ipython().run_cell_magic('container', '--cpu 50% -o r', "print('said inside')")
print('after', r.exit_code)
"""


@pytest.mark.parametrize("how", ["script", "stdin"])
def test_ipython_without_a_terminal(tmp_path: Path, how: str):
    """A script or a pipe gets plain text: no escape codes, no HTML, and no line of a live view."""
    script = tmp_path / "script.ipy"
    script.write_text(SCRIPT)
    arguments, text = ([str(script)], None) if how == "script" else (["--simple-prompt"], SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--no-banner", *arguments],
        input="" if text is None else text,
        env={**os.environ, "IPYTHONDIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "said inside\n" in done.stdout
    assert "asked CPU 50 %; read back as asked" in done.stdout
    assert "after 0" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert "<div" not in done.stdout


# --- what VS Code relies on ------------------------------------------------------------------

STANDARD = {"text/plain", "text/html", "image/png", "application/vnd.jupyter.widget-view+json"}
SHOWS_ALL = {
    "a long cell with its live view": "%%container --cpu 50% -o r\nimport time\ntime.sleep(3)",
    "a picture": "r.plot();",
    "a table": "%container ps",
    "a failure": FAILS,
    "a dashboard": "%%container --bg -o b\nimport time\ntime.sleep(1)",
    "until it is over": "b.wait()",
}


def test_only_standard_messages_are_sent(tmp_path: Path):
    """What any front end can show, with a text for the rest; nothing that would need code of ours.

    VS Code shows the mimetypes of Jupyter's own, renews a display by its id, and gives ipywidgets
    their comms. It starts kernels by their kernelspec: python3 here, without a provisioner.
    """
    with kernels.start(str(tmp_path)) as kernel:
        cells = [kernel.run(code) for code in SHOWS_ALL.values()]
    mimes: set[str] = set()
    ids: set[str] = set()
    renewed: set[str] = set()
    for cell in cells:
        for kind in ("display_data", "execute_result", "update_display_data"):
            for content in cell.of(kind):
                assert "text/plain" in content["data"], content
                mimes |= set(content["data"])
                html = content["data"].get("text/html", "")
                assert not re.search(r"<script|<link|<iframe|\son\w+\s*=", html), html
                display_id = content.get("transient", {}).get("display_id")
                if display_id is not None:
                    (renewed if kind == "update_display_data" else ids).add(display_id)
    assert mimes == STANDARD
    assert renewed
    assert renewed <= ids
