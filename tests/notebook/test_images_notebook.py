"""notebooks/03-images.ipynb, executed as a person would: its outputs are what it says they are."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from nbformat import NotebookNode  # noqa: TC002

from tests.host import ROOT
from tests.notebook import executed as notebooks
from tests.notebook.executed import cell, shown, text

NOTEBOOK = ROOT / "notebooks" / "03-images.ipynb"

pytestmark = [pytest.mark.notebook, pytest.mark.root, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def executed() -> Iterator[NotebookNode]:
    """Run it once; it cleans up after itself."""
    with notebooks.execute(NOTEBOOK) as notebook:
        yield notebook


def cells(notebook: NotebookNode, begins: str) -> list[NotebookNode]:
    """The cells with a beginning, in order."""
    return [c for c in notebook.cells if c.cell_type == "code" and c.source.startswith(begins)]


def test_it_is_committed_without_outputs():
    """And names its kernel."""
    notebooks.check_committed(NOTEBOOK)


def test_an_image_is_made_of_a_tar_and_runs(executed: NotebookNode):
    """One layer; a shell cell runs in it."""
    made = text(cell(executed, begins="%container import"))
    assert re.fullmatch(r"tiny:1 · [0-9a-f]{12} · 1 layer, \d+\.\d [KM]iB\n", made)
    assert "tiny:1" in shown(cell(executed, begins="%container images"))[0]
    first, unchanged, *_ = cells(executed, "%%container --image tiny:1")
    assert text(first) == "welcome\nold\n"
    assert text(unchanged) == "welcome\nfrom the base\n"


def test_what_the_container_changed(executed: NotebookNode):
    """diff has the three changes and their directories; on the disk there is one whiteout."""
    table = shown(cell(executed, begins="%container diff"))[0].splitlines()[1:]
    rows = [tuple(line.split()[1:]) for line in table]
    assert rows == [
        ("C", "/etc"),
        ("C", "/etc/motd"),
        ("C", "/srv"),
        ("A", "/srv/new"),
        ("D", "/srv/old"),
    ]
    disk = text(cell(executed, begins="upper ="))
    assert "/etc/motd: file, 8 bytes\n" in disk
    assert "/srv/old: whiteout, 0 bytes\n" in disk


def test_the_picture_and_its_data(executed: NotebookNode):
    """The stack is shown as a picture, in text where there are none; the frame agrees."""
    for one in cells(executed, "%container layers"):
        assert len(shown(one, "image/png")) == 1
    said = shown(cell(executed, begins="%container layers lab"))[0]
    assert "/etc/motd  from 2  shadowed in 0" in said
    assert "/srv/old   gone    whiteout in 2, deleted in 0" in said
    frame = shown(cell(executed, begins="stack ="))[0]
    assert re.search(r"/srv/old +0 .* deleted +14 +2", frame)


def test_commit_makes_a_layer_without_the_init_layers_files(executed: NotebookNode):
    """The new image shows the changes; /etc/hostname is there in a container, and in no layer."""
    assert re.match(r"tiny:2 · .* · 2 layers", text(cell(executed, begins="%container commit -m")))
    plain, named = cells(executed, "%%container --image tiny:2")
    assert text(plain) == "changed\nnew\n"
    assert text(named) == "snail\n"
    assert text(cell(executed, begins="files =")) == "['/etc/motd']\n"


def test_layers_are_shared(executed: NotebookNode):
    """Three containers and two images on two layers."""
    table = shown(cell(executed, begins='for name in ("one", "two")'))[0].splitlines()[1:]
    found = (line.rsplit(maxsplit=4) for line in table)
    counts = {words[0].split(maxsplit=1)[1]: int(words[1]) for words in found}
    assert counts["images"] == 2
    assert counts["unpacked layers"] == 2
    assert counts["containers"] == 3


def test_the_build_is_cached(executed: NotebookNode):
    """Of the second build only the line that was changed runs."""
    first, second = cells(executed, "%%image tiny:3")
    assert "cached" not in "".join(shown(first, "text/html"))
    html = "".join(shown(second, "text/html"))
    assert html.count("cached") == 2


def test_what_was_deleted_is_in_the_archive(executed: NotebookNode):
    """The layers' tars have the data and the mark that deletes it; the digest is the layer's name."""
    opened = 'with tarfile.open(f"{work}/tiny.tar") as archive:\n'
    said = text(cell(executed, begins=f"{opened}    manifest"))
    assert "2 ['srv/data']\n" in said
    assert "4 ['srv/.wh.data', 'srv/.wh.new']\n" in said
    assert "['tiny:3'] 5 layers" in said
    assert shown(cell(executed, begins=f"{opened}    top")) == ["True"]


def test_an_image_on_host_runs_python(executed: NotebookNode):
    """What a session wrote is there for a later cell, with the notebook's own packages."""
    assert shown(cell(executed, begins="%%container --image mine:1"))[0] == "6"
    assert "deleted: sha256:" in text(cell(executed, begins="%container rm lab"))
