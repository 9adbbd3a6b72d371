"""Sweeps in a real kernel: run, stopped and gone on with, mistyped, and what a saved notebook shows."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from traitlets.config import Config

from nscontainer import Container
from tests.integration.inside import eventually
from tests.notebook.kernel import Cell, Kernel, fail, run

pytestmark = [pytest.mark.notebook, pytest.mark.root]

WORK = "import time\nprint('hello')\ntime.sleep(0.4)\n"


def views(cell: Cell) -> list[dict[str, Any]]:
    """What the sweep's display showed, one after the other."""
    found = [*cell.of("display_data"), *cell.of("update_display_data")]
    by_id = [content for content in found if content["transient"].get("display_id")]
    assert len({content["transient"]["display_id"] for content in by_id}) == 1
    return [content["data"] for content in by_id]


def test_a_sweep_in_a_cell(kernel: Kernel):
    """A display that says how far it is and ends as the card; the first output once; ``s`` has it all."""
    cell = kernel.run("%%container --cpu 50%,100% --memory 64M --repeat 3 -o s\n" + WORK)
    assert cell.ok, cell.errors()
    shown = views(cell)
    assert shown[0]["text/plain"].startswith("0 of 6 runs")
    said = [data["text/plain"] for data in shown[1:-1]]
    assert any(" of 6 runs · " in text and " s left · cpu " in text for text in said), said
    assert all("progressbar" in data["text/html"] for data in shown[:-1])
    assert any("95 % interval" in data["text/html"] for data in shown[:-1])
    assert "progressbar" not in shown[-1]["text/html"]
    assert "6 runs" in shown[-1]["text/plain"]
    assert cell.text() == "hello\n"
    assert run(
        kernel, "print(s.status, len(s), sorted(map(float, s.summary['cpu'].unique())))"
    ) == ("complete 6 [0.5, 1.0]\n")
    assert run(kernel, "t = %container last\nprint(t is s)") == "True\n"
    drawn = kernel.run("%container plot s speed")
    assert drawn.ok, drawn.errors()
    assert len(drawn.shown("image/png")) == 1
    assert Container.list(all=True) == []


def test_in_the_background(kernel: Kernel):
    """The cell returns at once, its bar moves below it, ``s`` has what is done; stopped, and gone on with."""
    line = "%%container --bg --repeat 40 --seed 1 -o s\n"
    cell = kernel.run(line + WORK)
    assert cell.ok, cell.errors()
    assert run(kernel, "print(s.status, s.done)") == "running False\n"
    kernel.listen(lambda: any("2 of 40 runs" in str(view) for view in kernel.updates))
    assert run(kernel, "print(2 <= len(s) < 40, len(s.summary) >= 2)") == "True True\n"
    assert run(kernel, "s.stop(); print(s.wait(60).status)") == "interrupted\n"
    kernel.listen(lambda: "interrupted after" in kernel.updates[-1].get("text/plain", ""))
    done = int(run(kernel, "print(len(s))"))
    assert "hello\n" in cell.text()
    again = kernel.run(line + WORK)
    kernel.listen(lambda: "going on after" in again.text())
    assert f"going on after {done} of 40 runs" in again.text()
    assert run(kernel, "s.stop(); s.wait(60); print(len(s) >= %d)" % done) == "True\n"  # noqa: UP031
    assert eventually(lambda: Container.list(all=True) == [])


def test_stopped_and_gone_on_with(kernel: Kernel):
    """■ ends the run in hand and keeps the others; the same cell does the rest, and nothing twice."""
    code = "%%container --repeat 6 -o s\nprint('part')\nimport time\ntime.sleep(0.5)"
    pressed: list[bool] = []

    def press(_kind: str, content: dict[str, Any]) -> None:
        text = str(content.get("data", {}).get("text/plain", ""))
        if text.startswith("2 of 6 runs") and not pressed:
            pressed.append(True)
            kernel.interrupt()

    cell = kernel.run(code, during=press)
    assert not cell.ok
    done = int(run(kernel, "print(len(s))"))
    assert 2 <= done < 6
    assert cell.errors() == [
        f"KeyboardInterrupt: stopped after {done} of 6 runs; run the cell again to go on from there"
    ]
    assert "progressbar" not in views(cell)[-1]["text/html"]
    assert run(kernel, "print(s.status)") == "interrupted\n"
    assert Container.list(all=True) == []
    again = kernel.run(code)
    assert again.ok, again.errors()
    assert again.text() == f"going on after {done} of 6 runs\npart\n"
    assert run(kernel, "print(s.status, [r.turn.number for r in s.runs])") == (
        "complete [0, 1, 2, 3, 4, 5]\n"
    )
    assert "going on" not in kernel.run(code).text()  # that one was complete


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("--cpu 10%,2x%", "1", "cpu: '2x%' is not an amount of CPU (write 20%"),
        ("--repeat 0", "1", "repeat '0' is not a whole number from 1 on"),
        ("--cpu 10%,20% --memory 64M,128M,1G --zip", "1", "lists of one length: cpu has 2, memory"),
        ("--repeat 2", "print({n})", "{n} stands in the cell, and there is no parameter 'n'"),
        ("--memory 64M,1", "1", "memory"),
        ("--repeat 2 -i nowhere", "1", "there is no variable 'nowhere'"),
        ("--repeat 2 --out y", "1", "--out is for one run"),
        ("--repeat 2 -i len", "#!/bin/sh\necho", "variables go into Python cells only"),
    ],
)
def test_mistyped(kernel: Kernel, line: str, code: str, says: str):
    """One line before anything is made."""
    text = fail(kernel, f"%%container {line}\n{code}")
    assert says in text
    assert "\n" not in text
    assert Container.list(all=True) == []


def test_what_fails(kernel: Kernel):
    """The first run's failure is the cell's, with its traceback once; with --no-raise-error it is a row."""
    cell = kernel.run("%%container --cpu 50%,100% -o s\nx = 1\nx / 0")
    traceback, line = cell.errors()
    assert "Cell In[" in traceback
    assert ", line 3" in traceback
    assert line.startswith("ContainerFailed: exit code 1; the sweep was not gone on with")
    cell = kernel.run("%%container --cpu 50%,100% --no-raise-error -o s\nx = 1\nx / 0")
    assert cell.ok
    assert len(cell.errors()) == 1
    assert run(kernel, "print(list(s.summary['exit_code']))") == "[1, 1]\n"


def test_scripts_parameters_and_inputs(kernel: Kernel):
    """A shell has a parameter by ``{n}`` and in its environment; a cell as a variable; -i goes to each run."""
    run(kernel, "%%container --sh --param n=3,5 -q -o s\necho {n} $n")
    assert run(kernel, "print(sorted(r.stdout for r in s.results))") == "['3 3\\n', '5 5\\n']\n"
    run(kernel, "base = [10]")
    run(kernel, "%%container -i base --param n=1,2 --repeat 2 -q -o s\nprint(base[0] + n)")
    assert run(kernel, "print(sorted(r.stdout for r in s.results))") == (
        "['11\\n', '11\\n', '12\\n', '12\\n']\n"
    )
    assert kernel.run("%%container --repeat 2 -q\nx = 0").of("display_data") == []


def test_a_saved_notebook_shows_it(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What nbclient writes has the card and the picture, and no bar."""
    del engine
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell("%load_ext nscontainer"),
            nbformat.v4.new_code_cell("%%container --cpu 50%,100% --repeat 2 -o s\nprint('out')"),
        ]
    )
    config = Config({"KernelManager": {"transport_encryption": "auto"}})
    client = NotebookClient(notebook, timeout=100, kernel_name="python3", config=config)
    client.execute(cwd=str(tmp_path))
    card, output, picture = notebook.cells[1].outputs
    assert "4 runs" in card.data["text/plain"]
    assert "<table" in card.data["text/html"]
    assert "progressbar" not in card.data["text/html"]
    assert output.text == "out\n"
    assert base64.b64decode(picture.data["image/png"]).startswith(b"\x89PNG")
