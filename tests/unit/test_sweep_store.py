"""The store of sweeps: nothing lost, nothing twice, whoever else writes and whoever is killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from nscontainer.errors import HostError, NotFoundError, StateError
from nscontainer.experiment.plan import Factor, Plan, Work
from nscontainer.experiment.store import Store, directory
from nscontainer.measure import result_file
from nscontainer.measure.conditions import Conditions
from tests.unit import factories

PLAN = Plan(
    work=Work(kind="cell", code="pass"),
    factors=(Factor(name="cpu", levels=("20%", "50%")),),
    seed=7,
)
ROOT = str(Path(__file__).parents[2])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def keep(store: Store, name: str, number: int) -> None:
    turn = PLAN.turns(10)[number]
    store.save(name, turn, factories.run(1.0), Conditions(load_1m=0.5), "here", "0-1")


def python(code: str, store: Store) -> subprocess.Popen[str]:
    head = f"""
import sys
sys.path.insert(0, {ROOT!r})
from tests.unit.test_sweep_store import *
store = Store({store.path!r})
"""
    return subprocess.Popen(
        [sys.executable, "-c", head + textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )


def test_what_is_kept_comes_back(store: Store) -> None:
    """A run's result, turn, conditions, host and CPUs are as they were; the folder is its owner's."""
    name = store.begin(PLAN, {"host": "here"})
    keep(store, name, 0)
    store.end(name, "complete")
    sweep = Store(store.path).load(name[:5])
    assert (sweep.id, sweep.plan, sweep.status, sweep.facts) == (
        name,
        PLAN,
        "complete",
        {"host": "here"},
    )
    (run,) = sweep.runs
    assert run.result == factories.run(1.0)
    assert (run.turn, run.host, run.cpus) == (PLAN.turns()[0], "here", "0-1")
    assert run.conditions == Conditions(load_1m=0.5)
    assert stat.S_IMODE(os.stat(store.path).st_mode) == 0o700
    (row,) = store.list()
    assert (row["id"], row["runs"], row["status"]) == (name, 1, "complete")


def test_nobody_else_reads_it(store: Store) -> None:
    """Whatever the umask: a cell's code and output may be private."""
    before = os.umask(0)
    try:
        store.end(store.begin(PLAN, {}), "complete")
    finally:
        os.umask(before)
    modes = {e.name: stat.S_IMODE(e.stat().st_mode) for e in os.scandir(store.path)}
    assert modes == {"runs.sqlite": 0o600, "runs.sqlite.lock": 0o600}


def test_a_run_is_kept_once(store: Store) -> None:
    """The same turn again, as from a worker that was thought lost, changes nothing."""
    name = store.begin(PLAN, {})
    keep(store, name, 0)
    keep(store, name, 0)
    assert len(store.load(name)) == 1


def test_an_interrupted_one_is_gone_on_with_by_one(store: Store) -> None:
    """The first that asks has it with its seed; another doesn't, until that one lets go of it."""
    name = store.begin(PLAN, {})
    other = Store(store.path)
    assert other.unfinished(PLAN.key) is None
    store.end(name, "interrupted")
    assert other.unfinished(PLAN.key) == (name, PLAN)
    assert store.unfinished(PLAN.key) is None
    with pytest.raises(StateError, match="under way"):
        store.delete(name)
    other.end(name, "complete")
    assert store.unfinished(PLAN.key) is None


def test_a_killed_one_can_be_gone_on_with(store: Store) -> None:
    """Its process says nothing any more: what it had kept is there, and it is interrupted."""
    code = "name = store.begin(PLAN, {})\nkeep(store, name, 0)\nprint(name, flush=True)\ninput()"
    with python(code, store) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        assert store.load(name).status == "running"
        process.send_signal(signal.SIGKILL)
    assert store.load(name).status == "interrupted"
    assert store.unfinished(PLAN.key) == (name, PLAN)
    assert len(store.load(name)) == 1
    store.end(name, "interrupted")


def test_several_processes_write_at_once(store: Store) -> None:
    """Each run of four notebooks' sweeps is there at the end."""
    code = "name = store.begin(PLAN, {})\nfor i in range(8): keep(store, name, i)\nstore.end(name, 'complete')"
    several = [python(code, store) for _ in range(4)]
    for process in several:
        process.communicate(timeout=60)
    assert [process.returncode for process in several] == [0] * 4
    assert [row["runs"] for row in store.list()] == [8] * 4


def test_killed_at_any_moment(store: Store) -> None:
    """A writer that is killed leaves whole runs, and a database that goes on."""
    code = "name = store.begin(PLAN, {})\nprint(flush=True)\nfor i in range(10**9): keep(store, name, i % 20)"
    for wait_s in (0.0, 0.003, 0.01, 0.05):
        with python(code, store) as process:
            assert process.stdout is not None
            process.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(wait_s)
            process.kill()
    for row in store.list():
        assert [run.result for run in store.load(row["id"]).runs] == [factories.run(1.0)] * row[
            "runs"
        ]


def test_what_is_deleted_is_gone(store: Store) -> None:
    """The sweep and its runs; its results can't be read any more, and that is said."""
    name = store.begin(PLAN, {})
    keep(store, name, 0)
    store.end(name, "complete")
    (run,) = store.load(name).runs
    store.delete(name)
    assert store.list() == []
    with pytest.raises(NotFoundError, match="no longer kept"):
        _ = run.result
    with pytest.raises(NotFoundError, match="no sweep"):
        store.load(name)


@pytest.mark.parametrize("text", ["", "%", "_", "zz"])
def test_no_id_no_sweep(store: Store, text: str) -> None:
    """A pattern is no id."""
    store.end(store.begin(PLAN, {}), "complete")
    with pytest.raises(NotFoundError):
        store.load(text)


def test_nothing_is_made_by_looking(store: Store) -> None:
    """A person who has kept nothing has no database."""
    assert store.list() == []
    assert store.unfinished("key") is None
    assert not os.path.exists(store.path)


def test_a_newer_format_and_a_damaged_file_are_refused_in_a_line(store: Store) -> None:
    """And stay as they are."""
    store.end(store.begin(PLAN, {}), "complete")
    file = os.path.join(store.path, "runs.sqlite")
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(HostError, match="has format 99"):
        store.list()
    Path(file).write_bytes(b"no database " * 1000)
    with pytest.raises(HostError, match="can't be used: file is not a database"):
        store.begin(PLAN, {})
    assert Path(file).read_bytes() == b"no database " * 1000


def test_a_damaged_result_is_refused_in_a_line(store: Store) -> None:
    """It is named, and the others can still be read."""
    name = store.begin(PLAN, {})
    keep(store, name, 0)
    keep(store, name, 1)
    with sqlite3.connect(os.path.join(store.path, "runs.sqlite")) as db:
        db.execute("UPDATE run SET result = x'00' WHERE number = 0")
    db.close()
    first, second = store.load(name).runs
    with pytest.raises(result_file.ResultFileError, match=f"run 0 of sweep {name}"):
        _ = first.result
    assert second.result == factories.run(1.0)


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The variable of ours goes first, then XDG's, then the home's."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("NSCONTAINER_RUNS", raising=False)
    assert directory() == str(tmp_path / ".local/share/nscontainer")
    monkeypatch.setenv("XDG_DATA_HOME", "/x")
    assert directory() == "/x/nscontainer"
    monkeypatch.setenv("NSCONTAINER_RUNS", "/y")
    assert directory() == "/y"
