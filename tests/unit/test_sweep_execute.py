"""A plan carried out by a runner that is made up: order, going on after an interrupt, lost workers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from pathlib import Path

import pytest

from nscontainer.errors import CommandError, HostError, SpecError
from nscontainer.experiment import cpus
from nscontainer.experiment.execute import Done, execute
from nscontainer.experiment.plan import Plan, Turn
from nscontainer.experiment.store import Store
from nscontainer.experiment.sweep import Sweep
from nscontainer.measure.conditions import Watch
from tests.unit import factories, sweep_factories


class Fake:
    """Runs nothing; ``fails`` says by the number of the submission what goes wrong."""

    def __init__(self, fails: dict[int, BaseException] | None = None, width: int = 1) -> None:
        self.fails, self.width, self.stopped = fails or {}, width, 0
        self.turns: list[Turn] = []

    def submit(self, turn: Turn, tick: Callable[[str], None]) -> Future[Done]:
        self.turns.append(turn)
        tick("")
        future: Future[Done] = Future()
        error = self.fails.get(len(self.turns))
        if error is None:
            future.set_result(Done(result=factories.run(1.0), host="fake"))
        else:
            future.set_exception(error)
        return future

    def stop(self) -> None:
        self.stopped += 1


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def carried_out(plan: Plan, fake: Fake, store: Store) -> Sweep:
    left = store.unfinished(plan.key)
    if left is None:
        return execute(plan, fake, store, store.begin(plan, {}))
    name, plan = left
    return execute(plan, fake, store, name, begun=store.load(name))


def test_order(store: Store) -> None:
    """Warm-ups come first and apart, then each repeat's points in the order of the seed."""
    plan = sweep_factories.plan(repeat=3, warmup=1, seed=7)
    fake = Fake()
    sweep = carried_out(plan, fake, store)
    assert fake.turns == plan.turns()
    assert (len(sweep.runs), len(sweep.warmups), sweep.status) == (9, 3, "complete")


@pytest.mark.parametrize("at", range(1, 10))
def test_interrupt_at_each_run(at: int, store: Store) -> None:
    """Wherever it is interrupted, what is done is kept, and the same call does the rest, nothing twice."""
    plan = sweep_factories.plan(repeat=3, seed=7)
    first = Fake({at: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt) as caught:
        carried_out(plan, first, store)
    assert len(caught.value.sweep) == at - 1  # type: ignore[attr-defined]
    assert first.stopped == 1
    # Another call has drawn another seed: the one that was kept is used.
    second = Fake()
    sweep = carried_out(sweep_factories.plan(repeat=3, seed=99), second, store)
    assert first.turns[: at - 1] + second.turns == plan.turns()
    assert [run.turn for run in sweep.runs] == plan.turns()
    assert store.unfinished(plan.key) is None


def test_lost_workers(store: Store) -> None:
    """A lost worker's run is submitted again and kept once; four times lost is an error."""
    plan = sweep_factories.plan(repeat=2, seed=1)
    fake = Fake({2: BrokenExecutor("gone"), 3: BrokenExecutor("gone")}, width=2)
    sweep = carried_out(plan, fake, store)
    assert len(fake.turns) == 8
    assert [run.turn for run in sweep.runs] == plan.turns()
    with pytest.raises(HostError, match="lost its worker 4 times"):
        carried_out(plan, Fake({n: BrokenExecutor("gone") for n in range(1, 9)}), store)


def test_until(store: Store) -> None:
    """Equal runs are narrow enough once the interval can be told; with no width to reach it ends at the most."""
    plan = sweep_factories.plan(repeat=1, until=0.02, most_repeats=8)
    done = carried_out(plan, Fake(), store)
    assert 3 < len(done.runs) < 8 * 3


def test_first_failure(store: Store) -> None:
    """A failure by itself of the very first run is raised, and nothing is kept; a later one is a row."""

    class Failing(Fake):
        def submit(self, turn: Turn, tick: Callable[[str], None]) -> Future[Done]:
            future = super().submit(turn, tick)
            if len(self.turns) == self.width:
                future = Future()
                future.set_result(Done(result=factories.run(1.0, exit_code=3)))
            return future

    plan = sweep_factories.plan(repeat=2)
    with pytest.raises(CommandError) as caught:
        carried_out(plan, Failing(), store)
    assert caught.value.exit_code == 3
    assert len(caught.value.sweep) == 0  # type: ignore[attr-defined]
    assert store.list() == []
    assert len(carried_out(plan, Failing(width=2), store).runs) == 6


def test_cores_and_slots(tmp_path: Path) -> None:
    """Siblings stay together; more runs at once than cores are refused."""
    for cpu in range(8):
        folder = tmp_path / f"devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    found = cpus.cores(range(8), str(tmp_path))
    assert found == [(0, 4), (1, 5), (2, 6), (3, 7)]
    assert [cpus.written(slot) for slot in cpus.slots(2, found)] == ["0-1,4-5", "2-3,6-7"]
    with pytest.raises(SpecError, match="there are 4 cores"):
        cpus.slots(5, found)


def test_conditions(tmp_path: Path) -> None:
    """Counters are differences; what a machine doesn't tell is None."""
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "loadavg").write_text("0.50 0.4 0.3 1/2 3\n")
    (proc / "stat").write_text("cpu 100 0 0 100 0 0 0 0 0 0\n")
    (proc / "vmstat").write_text("pswpin 5\npswpout 7\n")
    watch = Watch(str(proc), str(tmp_path / "sys"))
    (proc / "stat").write_text("cpu 250 0 0 140 0 0 0 10 0 0\n")
    (proc / "vmstat").write_text("pswpin 6\npswpout 10\n")
    got = watch.end(own_cpu_s=0.5, seconds=1.0)
    assert got.steal_share == pytest.approx(10 / 200)
    assert got.other_cpus == pytest.approx(1.0)  # at 100 ticks a second
    assert (got.swap_in_pages, got.swap_out_pages, got.load_1m) == (1, 3, 0.5)
    assert (got.thermal_throttles, got.governor, got.mhz) == (None, None, None)
