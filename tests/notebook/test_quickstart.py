"""notebooks/01-quickstart.ipynb, executed as a person would: its outputs are what it says they are."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator

import pytest
from nbformat import NotebookNode  # noqa: TC002

from tests.host import ROOT
from tests.notebook import executed as notebooks
from tests.notebook.executed import cell, shown, text

NOTEBOOK = ROOT / "notebooks" / "01-quickstart.ipynb"

pytestmark = [pytest.mark.notebook, pytest.mark.root, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def executed() -> Iterator[NotebookNode]:
    """Run it once."""
    with notebooks.execute(NOTEBOOK) as notebook:
        yield notebook


def rows(of: NotebookNode) -> dict[str, list[float]]:
    """The last table of a cell: its numbers by the name of the row."""
    found = {}
    for line in shown(of)[-1].splitlines()[1:]:
        words = line.split()
        numbers = [i for i, word in enumerate(words) if word.replace(".", "", 1).isdigit()]
        found[" ".join(words[: numbers[0]])] = [float(words[i]) for i in numbers]
    return found


# --- as committed ------------------------------------------------------------------------------


def test_it_is_committed_without_outputs():
    """And names its kernel."""
    notebooks.check_committed(NOTEBOOK)


# --- as executed -------------------------------------------------------------------------------


def test_each_level_had_what_it_asked_for(executed: NotebookNode):
    """Never more than was asked; and as much, in each period in which it was throttled.

    A machine that is busy with other things gives less, and then throttles less: the second half
    holds there too, and on a free machine means all of the quota.
    """
    found = rows(cell(executed, tag="table"))
    assert list(found) == ["10%", "20%", "50%", "100%"]
    for level in (10, 20, 50, 100):
        asked, had, throttled, cpu_s, wall_s = found[f"{level}%"]
        assert asked == level
        # The rest of the last period isn't waited out: half a period of some fifteen at 50 %.
        assert 0.95 * asked * throttled / 100 <= had <= 1.06 * asked
        assert cpu_s / wall_s == pytest.approx(had / 100, rel=0.05)
    assert found["10%"][2] > 50


def test_the_same_work_takes_longer_under_a_smaller_quota(executed: NotebookNode):
    """Wall time falls from level to level; CPU time stays."""
    found = list(rows(cell(executed, tag="table")).values())
    walls, cpus = [row[4] for row in found], [row[3] for row in found]
    assert walls[0] > walls[1] > max(walls[2:])
    assert max(cpus) < 3 * min(cpus)


def test_the_quota_written_while_it_ran_took_hold(executed: NotebookNode):
    """By the cgroup's files and by update alike: what the machine could give before, 20 % after."""
    found = rows(cell(executed, tag="halves"))
    assert list(found) == ["by hand", "by update"]
    for first, second, _ in found.values():
        assert 24 < first < 101
        assert 5 < second < 21.5
    assert [row[2] for row in found.values()] == [0, 1]


@pytest.mark.parametrize(
    "begins", ["r.usage[", "r.plot()", "import time", "import matplotlib", "oom.plot("]
)
def test_every_picture_is_there(executed: NotebookNode, begins: str):
    """Each plotting cell shows one picture, of a size that has something on it."""
    (png,) = shown(cell(executed, begins=begins), "image/png")
    width, height = struct.unpack(">II", base64.b64decode(png)[16:24])
    assert width > 500
    assert height > 250


def test_the_card_is_shown(executed: NotebookNode):
    """The first cell shows its card, with the limits read back."""
    was_live, card = shown(cell(executed, begins="%%container --cpu 20%"))
    assert was_live.startswith("20.")
    assert shown(cell(executed, begins="%%container --cpu 20%"), "image/png")
    assert "asked CPU 20 %, memory 256 MiB; read back as asked" in card
    assert shown(cell(executed, begins="%%container --cpu 20%"), "text/html")


def test_the_shell_saw_a_container(executed: NotebookNode):
    """Process 1, a loopback, a user namespace of 65536 ids, fewer capabilities; not so outside."""
    inside = dict(
        line.split("  ", 1)
        for line in text(cell(executed, begins="%%container --sh --quiet -o")).splitlines()
    )
    outside = dict(line.split("  ", 1) for line in text(cell(executed, begins="%%sh")).splitlines())
    inside, outside = ({k: v.strip() for k, v in d.items()} for d in (inside, outside))
    assert inside["my process id"] == "1"
    assert inside["interfaces"] == "lo"
    assert inside["user ids"].endswith("65536 ids")
    assert inside["host name"] != outside["host name"]
    assert int(inside["processes seen"]) < 10
    assert int(inside["capabilities"], 16).bit_count() == 14


def test_what_was_written_inside_stayed_inside(executed: NotebookNode):
    """The file that a cell read back isn't there outside."""
    assert shown(cell(executed, begins="from pathlib")) == ["False"]
    assert not (NOTEBOOK.parent / "from-inside.txt").exists()


def test_limits_that_were_hit_say_so_in_one_line(executed: NotebookNode):
    """Out of memory with its peak, and the timeout: one line each, and the notebook goes on."""
    out_of_memory = text(cell(executed, begins="%%container --memory 64M"), "stderr").strip()
    assert out_of_memory.startswith("ContainerFailed: killed: out of memory at 64 MiB; peak 6")
    assert "\n" not in out_of_memory
    late = cell(executed, begins="%%container --timeout")
    assert text(late, "stderr").strip() == "ContainerFailed: killed: timeout of 1 s"
    assert text(late).strip() == "going to sleep"
