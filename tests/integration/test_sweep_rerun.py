"""An exported sweep run again, in real containers."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

import nscontainer
from nscontainer import cli
from nscontainer.errors import SpecError
from nscontainer.experiment.store import Store

pytestmark = [
    pytest.mark.root,
    pytest.mark.userns,
    pytest.mark.once,
    pytest.mark.usefixtures("engine"),
]


def exported(path: Path, store: Store, **options: Any) -> Path:
    s = nscontainer.sweep(
        "from nscontainer import report\nreport(twice=2 * n)",
        cpu=["50%", None], params={"n": [1, 2]}, repeat=2, store=store, **options,
    )  # fmt: skip
    s.export(path)
    return path


def test_an_exported_sweep_is_run_again(tmp_path: Path) -> None:
    """Both sides, the same levels; what differs is named; the picture has both."""
    store = Store(tmp_path / "runs")
    path = exported(tmp_path / "s.zip", store)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    meta = json.loads(parts["sweep.json"])
    for run in meta["runs"]:
        run["provenance"]["host"] = "another"
        run["provenance"]["image_digest"] = "sha256:other"
    parts["sweep.json"] = json.dumps(meta).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    both = nscontainer.rerun(path, store=store)
    assert (len(both.recorded), len(both.here)) == (8, 8)
    assert both.recorded.recorded is not None
    assert both.here.recorded is None
    assert both.here.plan.factors == both.recorded.plan.factors
    assert store.load(both.here.id).status == "complete"
    frame = both.compare("n", "twice")
    assert frame["there"].tolist() == frame["here"].tolist() == [2.0, 4.0]
    assert frame["ratio"].tolist() == [1.0, 1.0]
    assert frame["label"].tolist() == ["1", "2"]
    differs = both.differs.set_index("fact")
    assert differs.loc["host", "there"] == "another"
    assert "pull the one of that digest" in str(differs.loc["image host", "note"])
    assert len(both.plot("speed")) == 2
    for said in (str(both), both._repr_html_()):
        assert "another" in said
        assert "recorded on" in said
        assert "50 %" in said


def test_what_cannot_be_run_again_as_asked(tmp_path: Path) -> None:
    """Other levels; a file that would have folders of this machine: nothing runs."""
    store = Store(tmp_path / "runs")
    path = exported(tmp_path / "s.zip", store, volumes=[f"{tmp_path}:/mnt:ro"])
    with pytest.raises(SpecError, match="cpu is varied"):
        nscontainer.rerun(path, store=store, cpu="20%")
    with pytest.raises(SpecError, match="volumes") as caught:
        nscontainer.rerun(path, store=store)
    assert caught.value.hint == (
        "say what it may have here: rerun(…, volumes=…), or --trust volumes"
    )
    assert len(store.list()) == 1
    assert len(nscontainer.rerun(path, store=store, volumes=[], repeat=1).here) == 4


def test_what_a_file_reaches_out_by_is_trusted_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of it is named in one error; of a part that is trusted the rest is refused; what is trusted is said."""
    monkeypatch.setenv("NSCONTAINER_RUNS", str(tmp_path / "runs"))
    (tmp_path / "seen").write_text("the folder\n")
    path = tmp_path / "s.zip"
    volumes, caps = [f"{tmp_path}:/mnt:ro"], ["NET_RAW"]
    nscontainer.sweep(
        ["sh", "-c", "cat /mnt/seen; : {n}"], params={"n": [1, 2]}, volumes=volumes, cap_add=caps
    ).export(path)
    assert cli.main(["rerun", str(path)]) == 125
    said = capsys.readouterr().err
    assert f"the sweep was run with volumes {volumes} and cap_add {caps}, of another" in said
    assert "--trust volumes,cap_add" in said
    assert cli.main(["rerun", "--trust", "volumes", str(path)]) == 125
    assert f"was run with cap_add {caps}, of another" in capsys.readouterr().err
    assert len(Store().list()) == 1
    assert cli.main(["rerun", "--trust", "volumes,cap-add", str(path)]) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"trusted as the file has it: volumes {volumes}",
        f"trusted as the file has it: cap_add {caps}",
    ]
    done = Store().load(Store().list()[0]["id"])
    assert [run.result.stdout for run in done.runs] == ["the folder\n"] * 2
    assert cli.main(["rerun", "--trust", "memory", str(path)]) == 125
    assert "'memory' is nothing by which" in capsys.readouterr().err
