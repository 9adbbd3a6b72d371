"""notebooks 05 to 07: executed for real, and shown again by a user who may do nothing, as on Binder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbformat import NotebookNode  # noqa: TC002

from tests.host import ROOT
from tests.notebook import executed as notebooks
from tests.notebook.executed import cell, shown, text

NOTEBOOKS = ROOT / "notebooks"
NAMES = ("05-cpu-quota", "06-memory", "07-reproduce")
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
POD = ("bwrap", "--unshare-user", "--disable-userns", "--dev-bind", "/", "/", "--")
"""With no user namespace to be had, as in a pod of mybinder's."""
REPLAY = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
resources = {"metadata": {"path": sys.argv[3]}}
NotebookClient(notebook, timeout=200, kernel_name="python3", resources=resources).execute()
nbformat.write(notebook, sys.argv[2])
"""

pytestmark = [pytest.mark.notebook, pytest.mark.timeout(300)]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_committed_without_outputs(name: str):
    """And names its kernel."""
    notebooks.check_committed(NOTEBOOKS / f"{name}.ipynb")


def test_the_recordings_are_small():
    """They go with every checkout."""
    assert sum(f.stat().st_size for f in (NOTEBOOKS / "recorded").iterdir()) < 1_500_000


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """For real: no cell fails, nothing is called recorded, and it ends in a picture."""
    monkeypatch.setenv("NSCONTAINER_RUNS", str(tmp_path))
    monkeypatch.setenv("NSCONTAINER_REPLAY", str(NOTEBOOKS / "recorded"))
    with notebooks.execute(NOTEBOOKS / f"{name}.ipynb") as notebook:
        check(name, notebook)
        assert not [line for line in marks(notebook) if "no container can run" in line]


def check(name: str, notebook: NotebookNode) -> None:
    """What each of them is to show."""
    last = [c for c in notebook.cells if c.cell_type == "code"][-1]
    assert len(shown(last, "image/png")) == 1
    if name == "07-reproduce":
        (both,) = shown(cell(notebook, begins="both = nscontainer.rerun"), "text/html")
        assert "here: " in both
        assert both.count("<table") >= 1
    if name == "06-memory":
        assert text(cell(notebook, begins="print(oom.describe_exit")).startswith("killed: out of")
        rows = shown(cell(notebook, begins="rows = need"))[0]
        assert [line.split()[4] for line in rows.splitlines()[1:]] == ["3", "3", "0", "0"]


def marks(notebook: NotebookNode) -> list[str]:
    """The lines that say that something is recorded."""
    texts = [t for c in notebook.cells if c.cell_type == "code" for t in shown(c)]
    return [t for t in texts if t.startswith("recorded on ")]


def python_of_anyone() -> list[str]:
    """Give a Python that uid 65534 can start, with this one's packages."""
    if subprocess.run([*NOBODY, "env", sys.executable, "-c", ""], check=False).returncode == 0:
        return [sys.executable]
    other = shutil.which(f"python3.{sys.version_info[1]}", path="/usr/bin")
    if other is None:
        pytest.skip(f"{sys.executable} can't be started by uid 65534, and there is no other")
    return [other]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user can get at: pytest's own are root's."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.root
@pytest.mark.parametrize(
    ("name", "place", "told"),
    [
        *((name, POD, "no container can run here: user namespace: ") for name in NAMES),
        ("07-reproduce", (), "no container with limits can run here: "),
    ],
    ids=[*NAMES, "without limits"],
)
def test_anyone_sees_what_was_recorded(
    name: str, place: tuple[str, ...], told: str, open_folder: Path
):
    """By binder/start, without any privilege: every cell shows its recording, below a line that says so."""
    python = python_of_anyone()
    if subprocess.run(
        [*NOBODY, "test", "-x", str(ROOT / "binder" / "start")], check=False
    ).returncode:
        pytest.skip(f"{ROOT} is in a folder that uid 65534 may not enter")
    site = next(path for path in sys.path if path.endswith("site-packages"))
    home = open_folder / "home"
    kernel = home / "kernels" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    argv = [*python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    for path in (open_folder, *open_folder.rglob("*")):
        os.chown(path, 65534, 65534)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "magics"), site)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "JUPYTER_PATH": str(home / "kernels"),
        "REPO_DIR": str(ROOT),
    }
    done = subprocess.run(
        [
            *(*NOBODY, *place, str(ROOT / "binder" / "start")),
            *(*python, "-c", REPLAY, str(NOTEBOOKS / f"{name}.ipynb")),
            *(str(open_folder / "shown.ipynb"), str(home)),
        ],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert told in done.stdout
    notebook = notebooks.read(open_folder / "shown.ipynb")
    check(name, notebook)
    lines = marks(notebook)
    cells = [c for c in notebook.cells if c.source.startswith("%%container")]
    assert len(lines) >= len(cells)
    assert told in lines[0]
