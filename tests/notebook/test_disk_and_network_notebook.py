"""notebooks/04-disk-and-network.ipynb, executed as a person would: each limit was held, and drawn."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from nbformat import NotebookNode  # noqa: TC002

from tests.host import ROOT
from tests.notebook import executed as notebooks
from tests.notebook.executed import cell, shown, text

NOTEBOOK = ROOT / "notebooks" / "04-disk-and-network.ipynb"

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.root,
    pytest.mark.loop,
    pytest.mark.network,
    pytest.mark.slow,
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def executed() -> Iterator[NotebookNode]:
    """Run it once; it cleans up after itself."""
    with notebooks.execute(NOTEBOOK) as notebook:
        yield notebook


def figures(of: NotebookNode) -> list[float]:
    """The numbers of a cell's first line."""
    return [float(number) for number in re.findall(r"[\d.]+\d|\d", text(of).splitlines()[0])]


def pictures(of: NotebookNode) -> int:
    """How many pictures a cell shows."""
    return len(shown(of, "image/png"))


def test_it_is_committed_without_outputs():
    """And names its kernel."""
    notebooks.check_committed(NOTEBOOK)


def test_disk_speed(executed: NotebookNode):
    """15 MiB at 5 MiB a second take 3 s; the disk has them all."""
    done = cell(executed, begins="print(f\"{direct.totals['blkio.write_bytes']")
    mib, seconds = figures(done)
    assert mib == 15
    assert seconds == pytest.approx(3, rel=0.1)
    assert pictures(done) == 1
    assert pictures(cell(executed, begins="reading.plot")) == 1


def test_operations(executed: NotebookNode):
    """90 operations at 30 a second take 3 s; the picture has two panels."""
    done = cell(executed, begins="print(f\"{small.totals['blkio.writes']")
    operations, kib, seconds = figures(done)
    assert 85 <= operations <= 125  # the filesystem of a layer of its own has some
    assert 350 <= kib < 600
    assert seconds == pytest.approx(3, rel=0.15)
    assert pictures(done) == 1


def test_buffered_writes_are_held_too(executed: NotebookNode):
    """On v1 as well, by a disk of the container's own; a quarter of a second may be in memory still."""
    done = cell(executed, begins='print(f"{buffered.wall_s')
    assert figures(done)[0] == pytest.approx(2.8, rel=0.15)
    assert pictures(done) == 1


def test_a_limit_is_moved(executed: NotebookNode):
    """There is a picture of its step."""
    assert pictures(cell(executed, begins="time.sleep(4)")) == 1


def test_storage(executed: NotebookNode):
    """64 MiB fit, less what the filesystem itself needs."""
    assert text(cell(executed, begins="%%container --storage")) == "No space left on device\n"
    assert figures(cell(executed, begins='print(f"{written'))[0] == pytest.approx(64, rel=0.02)


def test_network_speed(executed: NotebookNode):
    """5 MB at 10 Mbit a second take 4 s, and the headers' share more; found by name."""
    done = cell(executed, begins="print(f\"{client.totals['net.tx_bytes']")
    megabytes, seconds = figures(done)
    assert megabytes == pytest.approx(5.4, abs=0.3)
    assert seconds == pytest.approx(4.2, rel=0.1)
    assert pictures(done) == 1


def test_both_in_one_picture(executed: NotebookNode):
    """What the client sent is what the server received, but for what a full queue lost."""
    assert pictures(cell(executed, begins="server.wait()")) == 1
    table = shown(cell(executed, begins='both.usage.groupby("container")'))[0]
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()[2:]}
    sent, received = float(rows["client"][1]), float(rows["server"][0])
    assert 5.0e6 < received < sent < 1.15 * received


def test_together(executed: NotebookNode):
    """They began at about one instant, and there is one picture."""
    done = cell(executed, begins='echo = """')
    assert figures(done)[0] < 1000
    assert pictures(done) == 1


def test_a_published_port(executed: NotebookNode):
    """The notebook reaches the server in the container."""
    done = cell(executed, begins="for _ in range(100):")
    assert text(done) == "hello from a container\n"
