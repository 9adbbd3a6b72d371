"""Sweeps on the workers of others' executors: real processes of concurrent.futures, Dask and ipyparallel."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import nscontainer
from nscontainer import sweep_runners
from nscontainer.errors import HostError
from nscontainer.experiment.store import Store
from nscontainer.experiment.sweep import Sweep
from nscontainer.linux import clone
from nscontainer.sweeps import sweep

pytestmark = [
    pytest.mark.root,
    pytest.mark.userns,
    pytest.mark.once,
    pytest.mark.timeout(120),
    pytest.mark.usefixtures("engine"),
    # Theirs: sockets and loops that they leave to the garbage collector at their end.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CODE = "import time, nscontainer\ntime.sleep(0.3)\nnscontainer.report(double=2 * n)"
Pids = Callable[[], list[int]]


@contextmanager
def of_python() -> Iterator[tuple[Executor, Pids]]:
    """Two processes, spawned: they have nothing of this one."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield pool, lambda: list(pool._processes)


def another_host() -> None:
    """Call this worker's machine something else, in a UTS namespace of its own."""
    clone.unshare(clone.CLONE_NEWUTS)
    socket.sethostname("worker-b")


def another_version() -> None:
    """Pretend that another nscontainer is installed for this worker."""
    sweep_runners.__version__ = "9.9.9"  # type: ignore[attr-defined]


@contextmanager
def of_dask() -> Iterator[tuple[Executor, Pids]]:
    """A scheduler here and two workers in processes of their own."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client.get_executor(), lambda: list(client.run(os.getpid).values())


@contextmanager
def of_ipyparallel() -> Iterator[tuple[Executor, Pids]]:
    """A controller and two engines."""
    ipyparallel = pytest.importorskip("ipyparallel")
    cluster = ipyparallel.Cluster(n=2, log_level=40)
    try:
        client = cluster.start_and_connect_sync(activate=False)
        with closing(client):
            yield client.executor(), lambda: client[:].apply_sync(os.getpid)
    finally:
        cluster.stop_cluster_sync()


KINDS = {"python": of_python, "dask": of_dask, "ipyparallel": of_ipyparallel}


def judge(s: Sweep, points: int, repeat: int) -> None:
    """Each run is there once, done once, and says where."""
    assert s.status == "complete"
    assert [run.turn.number for run in s.runs] == list(range(points * repeat))
    assert len({run.result.id for run in s.runs}) == points * repeat, "no result stands for two"
    assert {run.host for run in s.runs} == {socket.gethostname()}
    for run in s.runs:
        levels = s.plan.points()[run.turn.point].levels
        assert run.result.ok, run.result.stderr
        assert run.result.reported == {"double": 2 * int(str(levels["n"]))}


@pytest.mark.parametrize("kind", KINDS)
def test_runs_come_back(kind: str, tmp_path: Path) -> None:
    """Every point and repeat, with what the cells reported."""
    with KINDS[kind]() as (executor, _):
        s = sweep(CODE, params={"n": [1, 2]}, repeat=2, executor=executor, store=Store(tmp_path))
    judge(s, 2, 2)


@pytest.mark.parametrize("kind", ["dask", "ipyparallel"])
def test_a_lost_workers_runs_are_done_again(kind: str, tmp_path: Path) -> None:
    """A worker that is killed in the middle: its run is done elsewhere, and none is there twice."""
    killed: list[int] = []
    with KINDS[kind]() as (executor, pids):
        workers = pids()

        def kill(_: Any) -> None:
            if not killed:
                killed.append(workers[0])
                time.sleep(0.1)  # the next run is on its way
                os.kill(workers[0], signal.SIGKILL)

        s = sweep(
            CODE,
            params={"n": [1, 2]},
            repeat=3,
            executor=executor,
            store=Store(tmp_path),
            on_result=kill,
        )
    assert killed
    judge(s, 2, 3)


def test_a_row_has_its_workers_host(tmp_path: Path) -> None:
    """And its Linux and CPU: a worker's, not the caller's."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), another_host) as executor:
        s = sweep(CODE, params={"n": [1, 2]}, executor=executor, store=Store(tmp_path))
    assert set(s.summary["host"]) == {"worker-b"}
    assert {run.result.provenance.host for run in s.runs} == {"worker-b"}
    assert s.facts["host"] == socket.gethostname() != "worker-b"
    assert set(s.summary["linux"]) == {s.facts["linux"]}  # one kernel
    assert set(s.summary["cpu_model"]) == {s.facts["cpu_model"]}


def test_a_worker_of_another_version_runs_nothing(tmp_path: Path) -> None:
    """One line names the worker, its version and the caller's; nothing ran, and nothing is kept."""
    store = Store(tmp_path)
    with (
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), another_version) as executor,
        pytest.raises(HostError) as caught,
    ):
        sweep(CODE, params={"n": [1, 2]}, executor=executor, store=store)
    host, mine = socket.gethostname(), nscontainer.__version__
    said = f"the worker on {host} has nscontainer 9.9.9, and this sweep's is {mine}"
    assert (caught.value.message, len(caught.value.sweep)) == (said, 0)  # type: ignore[attr-defined]
    assert store.list() == []


def test_a_pool_that_breaks_keeps_what_is_done(tmp_path: Path) -> None:
    """Python's own pool takes nothing more: the same call with a new one goes on from there."""
    store, kinds = Store(tmp_path), []

    def go(executor: Executor, **more: Any) -> Sweep:
        params = {"n": [1, 2]}
        return sweep(CODE, params=params, repeat=3, executor=executor, store=store, **more)

    with of_python() as (executor, pids):

        def kill(_: Any) -> None:
            for pid in pids():
                os.kill(pid, signal.SIGKILL)

        with pytest.raises(HostError, match="takes no more runs") as caught:
            go(executor, on_result=kill)
        kinds = [run.result.id for run in caught.value.sweep.runs]  # type: ignore[attr-defined]
    assert 1 <= len(kinds) < 6
    with of_python() as (executor, _):
        s = go(executor)
    judge(s, 2, 3)
    assert set(kinds) <= {run.result.id for run in s.runs}, "what was done is not done again"
