"""What has been kept: as tables, and again."""

from __future__ import annotations

from pathlib import Path

import pytest

import nscontainer
from nscontainer.errors import NotFoundError, SpecError
from nscontainer.experiment.store import Store
from nscontainer.measure.conditions import Conditions
from nscontainer.measure.result_file import ResultFileError
from tests.unit import factories, sweep_factories


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("NSCONTAINER_RUNS", str(tmp_path / "runs"))
    return Store()


def test_no_sweeps_no_rows(store: Store) -> None:
    """An empty table with its columns; and nothing is made."""
    table = nscontainer.runs()
    assert list(table.columns) == ["created", "status", "what", "factors", "points", "runs", "host"]
    assert table.empty
    assert not Path(store.path).exists()


def test_sweeps_are_rows_the_newest_first(store: Store) -> None:
    """With what ran, what was varied, and how it ended."""
    first = store.begin(sweep_factories.plan({"cpu": ("20%", "50%"), "n": (1, 2)}), {"host": "h"})
    store.end(first, "complete")
    second = store.begin(sweep_factories.plan(), {"host": "h"})
    table = nscontainer.runs()
    assert list(table.index) == [second, first]
    assert list(table["status"]) == ["running", "complete"]
    assert table.loc[first, "factors"] == "cpu 20 %, 50 % × n 1, 2"
    assert str(table.loc[first, "what"]).startswith("cell: total = 0; for i in range({n}):")
    assert list(nscontainer.runs(what="TOTAL +=").index) == [second, first]
    assert nscontainer.runs(what="dd").empty
    with pytest.raises(SpecError, match="what is of sweeps"):
        nscontainer.runs(first, what="x")
    assert list(nscontainer.runs(status="complete").index) == [first]
    with pytest.raises(SpecError, match="no sweep can be 'done'"):
        nscontainer.runs(status="done")
    store.end(second, "interrupted")


def test_a_kept_sweep_is_loaded_by_its_id(store: Store) -> None:
    """Or the beginning of it; and its runs are a frame."""
    plan = sweep_factories.plan()
    name = store.begin(plan, {})
    store.save(name, plan.turns()[0], factories.run(1.0), Conditions(), "h", None)
    store.end(name, "interrupted")
    assert nscontainer.load(name[:6]).id == name
    assert list(nscontainer.runs(name).index) == [f"{name}/0"]


def test_a_result_file_is_loaded_as_before(tmp_path: Path, store: Store) -> None:
    """What is no sweep is a result, or refused as ever."""
    assert store.list() == []
    factories.run(1.0).save(tmp_path / "r")
    assert nscontainer.load(tmp_path / "r") == factories.run(1.0)
    (tmp_path / "bad").write_bytes(b"PK\3\4")
    with pytest.raises(ResultFileError):
        nscontainer.load(tmp_path / "bad")
    with pytest.raises(FileNotFoundError):
        nscontainer.load(tmp_path / "none")
    with pytest.raises(NotFoundError, match="no sweep of that id"):
        nscontainer.load("abcdef")
