"""``nscontainer ipython``: it adds its one key, takes just that away, and breaks nobody's file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from nscontainer import cli

OURS = {"lazy_magics": {"container": "nscontainer", "image": "nscontainer"}}


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment and a home of their own."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "home" / ".ipython"))
    (tmp_path / "env").mkdir()
    (tmp_path / "home").mkdir()
    return tmp_path / "env"


def test_there_and_back(prefix: Path, capsys: pytest.CaptureFixture[str]):
    """Nothing is left of it, directories included; each says one line."""
    file = prefix / "etc" / "ipython" / "ipython_config.json"
    assert cli.main(["ipython", "status"]) == 1
    assert cli.main(["ipython", "enable"]) == 0
    assert json.loads(file.read_text())["MagicsManager"] == OURS
    assert cli.main(["ipython", "status"]) == 0
    assert cli.main(["ipython", "enable"]) == 0
    assert cli.main(["ipython", "disable"]) == 0
    assert cli.main(["ipython", "disable"]) == 0
    assert list(prefix.iterdir()) == []
    assert capsys.readouterr().out.splitlines() == [
        "not enabled",
        f"enabled: wrote MagicsManager.lazy_magics.container to {file}",
        f"enabled in {file}",
        f"already enabled in {file}",
        f"disabled in {file}",
        f"not enabled in {file}",
    ]


def test_the_users_own(prefix: Path):
    """``--user`` is the profile in IPYTHONDIR."""
    assert cli.main(["ipython", "enable", "--user"]) == 0
    home = prefix.parent / "home"
    file = home / ".ipython" / "profile_default" / "ipython_config.json"
    assert json.loads(file.read_text())["MagicsManager"] == OURS
    (file.parent / "history.sqlite").touch()  # IPython's, meanwhile
    assert cli.main(["ipython", "disable", "--user"]) == 0
    assert [path.name for path in file.parent.iterdir()] == ["history.sqlite"]
    assert list(prefix.iterdir()) == []


@pytest.mark.parametrize(
    "before",
    [
        {},
        {"InteractiveShell": {"colors": "NoColor"}},
        {"MagicsManager": {"lazy_magics": {"other": "some.module"}, "auto_magic": False}},
    ],
)
def test_a_file_that_was_there_is_as_before(prefix: Path, before: dict[str, object]):
    """Its other keys, its mode and its directory stay."""
    file = prefix / "etc" / "ipython" / "ipython_config.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(before))
    file.chmod(0o640)
    assert cli.main(["ipython", "enable"]) == 0
    merged = json.loads(file.read_text())
    assert merged["MagicsManager"]["lazy_magics"]["container"] == "nscontainer"
    assert cli.main(["ipython", "disable"]) == 0
    assert json.loads(file.read_text()) == before
    assert file.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in file.parent.iterdir()] == ["ipython_config.json"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("ipython_config.json", "{", "is no configuration of IPython"),
        ("ipython_config.json", '{"MagicsManager": 3}', "is no configuration of IPython"),
        (
            "ipython_config.json",
            '{"MagicsManager": {"lazy_magics": {"container": "x"}}}',
            "has a magic 'container' already: 'x'",
        ),
        ("ipython_config.py", "c.MagicsManager.lazy_magics = {'a': 'b'}", "sets lazy_magics"),
    ],
)
def test_what_is_somebody_elses_is_left(
    prefix: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, said: str
):
    """One line, and no byte is changed."""
    file = prefix / "etc" / "ipython" / name
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert cli.main(["ipython", "enable"]) == 1
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
    assert file.read_text() == text
    assert [path.name for path in file.parent.iterdir()] == [name]


def test_where_it_cant_be_written(prefix: Path, capsys: pytest.CaptureFixture[str]):
    """The error names the option for oneself alone."""
    (prefix / "etc").write_text("no directory")
    assert cli.main(["ipython", "enable"]) == 1
    assert "can't be written: " in (line := capsys.readouterr().err)
    assert "--user" in line
