"""An exported sweep: read back exactly, by other tools too, and a damaged one refused in a line."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nscontainer import schema, sweep_archive
from nscontainer.errors import HostError
from nscontainer.experiment.sweep import Sweep
from nscontainer.measure.result_file import ResultFileError
from tests.unit import sweep_factories

Meta = dict[str, Any]


def made(**changes: Any) -> Sweep:
    plan = sweep_factories.plan(
        {"cpu": ("20%", None), "n": (1000, 2.5, "many")}, repeat=2, warmup=1, seed=5
    )
    return sweep_factories.sweep(
        of_plan=plan,
        reported=lambda point: {"items": 3 if point["cpu"] else "none", "good": True},
        host=lambda turn: f"lab-{turn.number % 2}",
        sample_s=0.5,
        **changes,
    )


@functools.cache
def exported() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        made().export(f"{folder}/s.zip")
        return Path(f"{folder}/s.zip").read_bytes()


def rewritten(
    change: Callable[[Meta], Any], parts: Callable[[dict[str, bytes]], Any] = lambda _: None
) -> bytes:
    with zipfile.ZipFile(io.BytesIO(exported())) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    meta = json.loads(members["sweep.json"])
    change(meta)
    members["sweep.json"] = json.dumps(meta).encode()
    parts(members)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def test_what_is_exported_is_read_back_exactly(tmp_path: Path) -> None:
    """Every result, turn, condition, host, the plan and the facts; and so the frames."""
    sweep = made()
    sweep.export(tmp_path / "s.zip")
    again = sweep_archive.load(tmp_path / "s.zip")
    assert (again.id, again.plan, again.status) == (sweep.id, sweep.plan, sweep.status)
    assert (again.facts, again.created_unix) == (sweep.facts, sweep.created_unix)
    assert len(again.runs) == 12
    assert len(again.warmups) == 6
    for one, other in zip(
        (*sweep.warmups, *sweep.runs), (*again.warmups, *again.runs), strict=True
    ):
        assert other.result == one.result
        assert (other.turn, other.conditions, other.host, other.cpus) == (
            one.turn,
            one.conditions,
            one.host,
            one.cpus,
        )
    pd.testing.assert_frame_equal(again.samples, sweep.samples)
    pd.testing.assert_frame_equal(
        again.summary.drop(columns="recorded"), sweep.summary.drop(columns="recorded")
    )
    pd.testing.assert_frame_equal(again.compare("cpu"), sweep.compare("cpu"))


def test_it_is_marked_as_recorded(tmp_path: Path) -> None:
    """Who reads it sees that nothing ran here: where, on what, when."""
    made().export(tmp_path / "s.zip")
    again = sweep_archive.load(tmp_path / "s.zip")
    host, linux = again.facts["host"], again.facts["linux"].split(" ")[0]
    assert again.recorded == f"recorded on {host} (Linux {linux}) on 2025-06-15"
    assert again.runs[0].result.recorded == again.recorded
    assert again.summary["recorded"].all()
    again.export(tmp_path / "t.zip")
    assert sweep_archive.load(tmp_path / "t.zip").recorded == again.recorded


def test_other_tools_read_the_tables() -> None:
    """Parquet by pandas alone: a row a sample with its parameters; a row a run."""
    with zipfile.ZipFile(io.BytesIO(exported())) as archive:
        samples = pd.read_parquet(io.BytesIO(archive.read("samples.parquet")))
        summary = pd.read_parquet(io.BytesIO(archive.read("summary.parquet")))
    sweep = made()
    assert set(samples["run.number"]) == set(range(-6, 12))
    assert sorted(samples["cpu"].dropna().unique()) == [0.2]
    assert set(samples["n"]) == {"1000", "2.5", "many"}
    assert len(samples) == sum(
        len(r.result.samples) // schema.ROW_BYTES for r in (*sweep.warmups, *sweep.runs)
    )
    assert list(summary.index) == list(sweep.summary.index)
    assert summary["wall_s"].tolist() == sweep.summary["wall_s"].tolist()


def test_an_interrupted_sweep_and_one_without_runs(tmp_path: Path) -> None:
    """What there is of it."""
    for done in (4, 0):
        sweep = made(done=done)
        sweep.export(tmp_path / "s.zip")
        again = sweep_archive.load(tmp_path / "s.zip")
        assert (len(again), again.status) == (done, "interrupted")


def test_what_stands_there_stays_when_it_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole or not at all."""
    path = tmp_path / "s.zip"
    path.write_bytes(b"before")
    monkeypatch.setattr(sweep_archive, "_samples", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        made().export(path)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["s.zip"]


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, with what to install."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(HostError, match="needs pyarrow") as caught:
        made().export(tmp_path / "s.zip")
    assert caught.value.hint == "pip install 'nscontainer[parquet]'"


# --- files of anyone's -----------------------------------------------------------------------


def test_a_newer_file_and_another(tmp_path: Path) -> None:
    """Each says what it is."""
    path = tmp_path / "s.zip"
    path.write_bytes(rewritten(lambda m: m.update(version=2)))
    with pytest.raises(ResultFileError, match="has format 2; this nscontainer reads up to 1"):
        sweep_archive.load(path)
    path.write_bytes(rewritten(lambda m: m.update(format="else")))
    with pytest.raises(ResultFileError, match="not an exported sweep"):
        sweep_archive.load(path)
    path.write_bytes(b"PK")
    with pytest.raises(ResultFileError, match=r"s\.zip' is no exported sweep"):
        sweep_archive.load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(id=7),
        lambda m: m.update(created_unix="now"),
        lambda m: m.update(created_unix=1e300),
        lambda m: m.update(status="running away"),
        lambda m: m.update(facts=[]),
        lambda m: m["facts"].update(host=3),
        lambda m: m["plan"].update(repeat="2"),
        lambda m: m["plan"].update(repeat=True),
        lambda m: m["plan"].update(mode="all"),
        lambda m: m["plan"].update(options=None),
        lambda m: m["plan"].update(new=1),
        lambda m: m["plan"]["work"].update(kind="pickle"),
        lambda m: m["plan"]["work"].update(command="sh"),
        lambda m: m["plan"]["factors"][0].update(levels=["20%", "x"]),
        lambda m: m["plan"]["factors"][0].update(levels=[{}]),
        lambda m: m["plan"]["factors"][0].update(name="volumes"),
        lambda m: m["plan"]["factors"][1].update(name="a b"),
        lambda m: m["plan"]["factors"][1].update(levels=list(range(200_000))),
        lambda m: m["runs"][0].update(point=6),
        lambda m: m["runs"][0].update(number=1),
        lambda m: m["runs"][0].update(number="1"),
        lambda m: m["runs"][0].update(packages=-1),
        lambda m: m["runs"][0].update(packages=99),
        lambda m: m["runs"][0].update(host=None),
        lambda m: m["runs"][0].update(conditions={"load_1m": "high"}),
        lambda m: m["runs"][0]["record"].update(exit_code="0"),
        lambda m: m["runs"][0]["record"].update(wall_ns=10**400),
        lambda m: m["runs"].pop(),
        lambda m: m["runs"].append(3),
        lambda m: m.update(runs=None),
        lambda m: m.update(columns=["cpu.none"]),
        lambda m: m.update(columns=3),
        lambda m: m.update(shared={}),
    ],
)
def test_a_file_made_up_by_someone(tmp_path: Path, change: Callable[[Meta], Any]) -> None:
    """Valid zip, valid JSON, but no sweep: the one error, and at load, not later."""
    path = tmp_path / "s.zip"
    path.write_bytes(rewritten(change))
    with pytest.raises(ResultFileError, match=r"damaged one: .") as caught:
        sweep_archive.load(path)
    assert "\n" not in str(caught.value)


def test_a_small_file_that_unpacks_into_a_huge_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused by what it says that it unpacks into, zip and Parquet alike, all parts together."""
    path = tmp_path / "s.zip"
    path.write_bytes(exported())
    with zipfile.ZipFile(path) as archive:
        needed = sum(
            info.file_size for info in archive.infolist() if info.filename != "summary.parquet"
        )
    monkeypatch.setattr(sweep_archive, "_MOST_BYTES", needed)  # and not the samples, unpacked
    with pytest.raises(ResultFileError, match=r"samples\.parquet: '\d+ bytes'"):
        sweep_archive.load(path)
    monkeypatch.setattr(sweep_archive, "_MOST_BYTES", 1000)
    with pytest.raises(ResultFileError, match=r"sweep\.json: '\d+ bytes'"):
        sweep_archive.load(path)


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(st.data())
def test_damage_is_noticed_or_harmless(tmp_path_factory: Any, data: st.DataObject) -> None:
    """A flipped bit, a cut, an inserted byte: the one error, or all as it was; never other figures."""
    good = exported()
    at = data.draw(st.integers(0, len(good) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert"]))
    if kind == "flip":
        bit = 1 << data.draw(st.integers(0, 7))
        bad = good[:at] + bytes([good[at] ^ bit]) + good[at + 1 :]
    else:
        bad = good[:at] if kind == "cut" else good[:at] + b"\0" + good[at:]
    path = tmp_path_factory.getbasetemp() / "damaged.zip"
    path.write_bytes(bad)
    try:
        again = sweep_archive.load(path)
    except ResultFileError:
        return
    assert again.results == made().results


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(st.data())
def test_tables_damaged_inside_a_whole_zip(tmp_path_factory: Any, data: st.DataObject) -> None:
    """The zip's checksums are right and the Parquet isn't: an error or a sweep, and never a crash."""

    def harm(parts: dict[str, bytes]) -> None:
        table = bytearray(parts["samples.parquet"])
        for _ in range(data.draw(st.integers(1, 4))):
            table[data.draw(st.integers(0, len(table) - 1))] = data.draw(st.integers(0, 255))
        parts["samples.parquet"] = bytes(table)

    path = tmp_path_factory.getbasetemp() / "harmed.zip"
    path.write_bytes(rewritten(lambda _: None, harm))
    with contextlib.suppress(ResultFileError):
        sweep_archive.load(path)
