"""notebooks/02-cells.ipynb, executed as a person would: its outputs are what it says they are."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from nbformat import NotebookNode  # noqa: TC002

from tests.host import ROOT
from tests.notebook import executed as notebooks
from tests.notebook.executed import cell, shown, text

NOTEBOOK = ROOT / "notebooks" / "02-cells.ipynb"
WIDGET = "application/vnd.jupyter.widget-view+json"

pytestmark = [pytest.mark.notebook, pytest.mark.root, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def executed() -> Iterator[NotebookNode]:
    """Run it once."""
    with notebooks.execute(NOTEBOOK) as notebook:
        yield notebook


def test_it_is_committed_without_outputs():
    """And names its kernel."""
    notebooks.check_committed(NOTEBOOK)


def test_rich_output(executed: NotebookNode):
    """The display as it was updated, the figure, the table, in this order; %timeit, a bar of tqdm."""
    first = cell(executed, begins="%%container --quiet\nimport asyncio")
    assert shown(first)[0] == "'… answered'"
    assert len(shown(first, "image/png")) == 1
    assert "<table" in shown(first, "text/html")[0]
    assert "per loop" in text(cell(executed, begins="%%container --quiet --cpu 50%"))
    bar = text(cell(executed, begins="%%container --quiet\nfrom tqdm"), "stderr")
    assert bar.count("\r") > 3
    assert "40/40" in bar


def test_errors(executed: NotebookNode):
    """A traceback, once, and one line; what killed a cell with the figures."""
    failed = cell(executed, begins="%%container --quiet --no-raise-error\n")
    (error,) = (o for o in failed.outputs if o.output_type == "error")
    assert error.ename == "ZeroDivisionError"
    assert text(failed, "stderr") == "ContainerFailed: exit code 1\n"
    killed = text(cell(executed, begins="%%container --quiet --no-raise-error --memory"), "stderr")
    said = r"ContainerFailed: killed: out of memory at 64 MiB; peak 6[34]\.\d MiB after .*s\n"
    assert re.fullmatch(said, killed)


def test_variables(executed: NotebookNode):
    """The share of points in the unit circle is 1 - exp(-1/2)."""
    back = cell(executed, begins="print(f")
    assert text(back) in ("39.3% are inside\n", "39.4% are inside\n", "39.5% are inside\n")
    assert "True" in shown(back)[0]


def test_the_session(executed: NotebookNode):
    """Variables last, each cell had its own limit; the widget is there, with its value."""
    assert shown(cell(executed, begins="%%container lab -o first"))[0] == "6057"
    assert shown(cell(executed, begins="%%container lab -o second"))[0] == "11301"
    table = shown(cell(executed, begins="pd.DataFrame("))[0].splitlines()
    assert table[1].split()[:2] == ["first", "0.2"]
    assert table[2].split()[:2] == ["second", "1.0"]
    assert WIDGET in cell(executed, begins="%%container lab --quiet\nimport").outputs[0].data
    slider = text(cell(executed, begins="%%container lab --quiet\nprint"))
    assert slider == "the slider is at 7\n"


def test_the_live_views_end_as_pictures(executed: NotebookNode):
    """Of the cell that was waited for, and of the one in the background, whose quota was moved twice."""
    front = cell(executed, begins="%%container --cpu 30%")
    assert len(shown(front, "image/png")) == 1
    assert "limit 30 %" in shown(front)[0]
    behind = cell(executed, begins="%%container --cpu 20% --bg")
    assert WIDGET in behind.outputs[0].data
    assert len(shown(behind, "image/png")) == 1
    assert "limit 20 %, then 80 %, then 40 %" in shown(behind)[-1]
    assert shown(cell(executed, begins="import time\n"))[0] == "'running'"
    assert shown(cell(executed, begins="job.wait()"), "image/png")


def test_capture_and_defaults(executed: NotebookNode):
    """What was captured isn't shown; what was set by default was asked."""
    assert not cell(executed, begins="%%container --quiet --capture").outputs
    assert shown(cell(executed, begins="said.stdout")) == ["'not shown\\n'"]
    assert "asked CPU 50 %, memory 256 MiB" in shown(cell(executed, begins="%%container\nsum"))[1]
