"""Recordings: found by what was asked, wherever that is, and marked wherever they are shown."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from nscontainer import recordings
from nscontainer.errors import HostError
from nscontainer.experiment.plan import Factor, Plan, Work
from tests.host import ROOT
from tests.unit import factories

CELL = "print('made up')\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the recording of one cell, which is replayed."""
    monkeypatch.setenv(recordings.RECORD, str(tmp_path))
    path = recordings.keep_cell(factories.run(3, code=CELL), recordings.cell(CELL, {"cpu": "20%"}))
    assert path is not None
    monkeypatch.delenv(recordings.RECORD)
    monkeypatch.setenv(recordings.REPLAY, str(tmp_path))
    monkeypatch.setenv(recordings.ALWAYS, "1")
    return tmp_path


def test_a_cell_is_found_again_and_marked(folder: Path):
    """All of it is as it was, and the card, the text, the line and the picture say what it is."""
    assert len(list(folder.iterdir())) == 1
    found = recordings.find_cell(recordings.cell(CELL, {"cpu": "20%"}))
    assert found is not None
    assert found == dataclasses.replace(factories.run(3, code=CELL), recorded=found.recorded)
    assert found.recorded is not None
    assert found.recorded.startswith("recorded on ")
    title = found.plot("cpu").get_title(loc="left")
    for shown in (str(found), repr(found), found._repr_html_(), title):
        assert found.recorded in shown
    assert len(str(found).splitlines()) <= 6
    assert "ALWAYS is set" in recordings.line(found.recorded)


def test_other_code_or_options_are_no_recording_of_it(folder: Path):
    """The error says what was looked for and where."""
    for plan in (recordings.cell("1", {"cpu": "20%"}), recordings.cell(CELL, {"cpu": "21%"})):
        with pytest.raises(HostError) as caught:
            recordings.find_cell(plan)
        assert str(folder) in (caught.value.hint or "")


def test_a_key_knows_no_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Where it was, its sys.path, its seed and the values of variables don't matter; the rest does."""

    def plan(**changed: object) -> Plan:
        work = Work(kind="cell", code="x", name=f"with x (sha256 {changed.pop('digest', 'a')})")
        factors = (Factor(name="cpu", levels=("10%", "20%")),)
        return dataclasses.replace(Plan(work=work, factors=factors), **changed)  # type: ignore[arg-type]

    here = {"volumes": [f"{os.getcwd()}/data:/data"], "workdir": os.getcwd(), "python_path": ["a"]}
    key = recordings.key(plan(options=here))
    monkeypatch.chdir(tmp_path)
    there = {"volumes": [f"{tmp_path}/data:/data"], "workdir": "/", "python_path": []}
    assert recordings.key(plan(options=there, seed=5, digest="b")) == key
    assert recordings.key(plan(options=there, repeat=2)) != key
    assert recordings.key(plan(options=there | {"memory": "1G"})) != key


def test_nothing_is_replayed_where_nobody_asks(monkeypatch: pytest.MonkeyPatch):
    """Without a folder, not even the machine is looked at."""
    monkeypatch.delenv(recordings.REPLAY, raising=False)
    monkeypatch.setattr(recordings, "_cannot", lambda: pytest.fail("the doctor was asked"))
    assert recordings.find_cell(recordings.cell(CELL, {})) is None
    assert recordings.keep_cell(factories.run(1), recordings.cell(CELL, {})) is None


def test_a_folder_that_cannot_be_written_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """In one line, with what to do."""
    (tmp_path / "file").touch()
    monkeypatch.setenv(recordings.RECORD, str(tmp_path / "file" / "folder"))
    with pytest.raises(HostError, match="can't be written"):
        recordings.keep_cell(factories.run(1), recordings.cell(CELL, {}))


@pytest.mark.parametrize(
    ("line", "told"),
    [("--out x", "--out"), ("--bg", "in the background")],
)
def test_what_is_never_recorded_is_refused(
    folder: Path, shell: InteractiveShell, line: str, told: str
):
    """A value, a run in the background: the reason, and no attempt."""
    del folder
    ran = shell.run_cell(f"%%container --cpu 20% {line}\n{CELL}")
    assert isinstance(ran.error_in_exec, HostError)
    assert told in (ran.error_in_exec.hint or "")


@pytest.fixture
def shell() -> InteractiveShell:
    """A shell with the magics."""
    made = InteractiveShell.instance()
    made.run_line_magic("load_ext", "nscontainer")
    return made


def test_the_magic_shows_it(
    folder: Path, shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
):
    """One line says what it is; its output, its card and ``-o`` are as if it had run."""
    del folder
    assert shell.run_cell(f"%%container --cpu 20% -o r\n{CELL}").success
    told = capsys.readouterr().out
    assert told.startswith("recorded on ")
    assert "limit 20 %" in told
    assert shell.user_ns["r"].recorded in told


DARWIN = """
import platform, sys
import numpy, pandas, matplotlib  # as they are on this machine
matplotlib.use("Agg")
sys.platform = "darwin"
sys.path_importer_cache.clear()
import os
for name in ("setns", "unshare", "memfd_create", "pidfd_open", "sched_getaffinity", "eventfd", "splice"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("fcntl_linux", "nscontainer.engine", "nscontainer.linux"):
    sys.modules[name] = None  # nobody may load the engine
from nscontainer import recordings
found = recordings.find_cell(recordings.cell(sys.argv[1], {"cpu": "20%"}))
found.plot()
print(recordings.line(found.recorded))
print(len(found.usage))
"""


def test_it_opens_on_a_mac(folder: Path):
    """A subprocess that takes itself for macOS's, with nothing of Linux's in reach, draws it."""
    environment = {k: v for k, v in os.environ.items() if k != recordings.ALWAYS}
    done = subprocess.run(
        [sys.executable, "-c", DARWIN, CELL],
        env=environment | {recordings.REPLAY: str(folder)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    first, rows = done.stdout.splitlines()
    assert "no container can run here: Linux: this is macOS" in first
    assert int(rows) > 100
