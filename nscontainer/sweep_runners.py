"""How a sweep's runs run: here one after the other, several at once, or on an executor's workers."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from nscontainer import __version__, api
from nscontainer.engine import state
from nscontainer.errors import HostError
from nscontainer.experiment import cpus, execute, substitute
from nscontainer.experiment.plan import Plan, Turn, Value
from nscontainer.measure import result_file
from nscontainer.measure.conditions import Conditions, Watch
from nscontainer.measure.result import RunResult

_AHEAD: Final = 16
"""How many runs an executor gets at once that doesn't say how many workers it has."""


# --- one run ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one run is, plain: it can be pickled and sent to another machine.

    ``slot`` are the CPUs that it has for itself, None is all; ``share_cpus`` waits for nobody.
    """

    kind: str
    code: str | None
    command: tuple[str, ...] | None
    stdin: str | None
    options: Mapping[str, Any]
    parameters: Mapping[str, Value]
    turn: tuple[str, int] = ("", 0)
    """The sweep's id and the run's number: Dask takes equal jobs for one."""
    slot: tuple[int, ...] | None = None
    share_cpus: bool = False
    version: str = __version__
    """The nscontainer that made it."""
    cell: Mapping[str, Any] = field(default_factory=dict)


def job_of(plan: Plan, point: int) -> Job:
    """Make the job of one point of a plan."""
    of = plan.points()[point].levels
    names = {factor.name: factor.free for factor in plan.factors}
    options = dict(plan.options)
    options |= {n: level for n, level in of.items() if not names[n] and level is not None}
    parameters = {name: level for name, level in of.items() if names[name]}
    work = substitute.fill(plan.work, parameters)
    if work.kind != "cell" and parameters:
        more = substitute.environment(parameters)
        env = options.get("env") or {}
        options["env"] = (
            env | more
            if isinstance(env, dict)
            else [*env, *(f"{name}={value}" for name, value in more.items())]
        )
    return Job(
        kind=work.kind, code=work.code, command=work.command, stdin=work.stdin, options=options,
        parameters=parameters,
    )  # fmt: skip


def run_here(
    job: Job,
    tick: Callable[[str], None] | None = None,
    on_start: Callable[[Any], None] | None = None,
) -> execute.Done:
    """Run a job on this machine, and read what the machine did beside it."""
    own = job.slot
    options = dict(job.options)
    if own is not None:
        options["cpuset_cpus"] = cpus.written(own)
    locks = () if job.share_cpus else own if own is not None else sorted(os.sched_getaffinity(0))
    say = tick or (lambda _: None)
    with cpus.held(state.state_dir(), locks, lambda: say(cpus.WAITING)):
        watch = Watch()
        result = _run(job, options, {"on_tick": lambda _: say(""), "on_start": on_start})
        conditions = watch.end(result.cpu_s)
    shown = None if own is None else cpus.written(own)
    return execute.Done(result=result, conditions=conditions, host=socket.gethostname(), cpus=shown)


def _run(job: Job, options: dict[str, Any], hooks: dict[str, Any]) -> RunResult:
    if job.kind == "cell":
        cell = dict(job.cell)
        cell["inputs"] = {**(cell.get("inputs") or {}), **job.parameters}
        return api.run_cell(job.code or "", on_interrupt="return", **hooks, **cell, **options)
    stdin = None if job.stdin is None else job.stdin.encode()
    if job.kind == "script":
        options = api.script_options(options)
    hooks |= {"input": stdin, "on_interrupt": "return"}
    result: RunResult = api.run(job.command or (), **hooks, **options)
    return result


Answer = tuple[bytes | None, dict[str, Any], str, str | None]
"""What crosses back: a result as a file's bytes, conditions, host, CPUs; of a refusal no result, but why."""


def run_job(job: Job) -> Answer:
    """Run a job on a worker, if its nscontainer is the caller's: another's figures may mean other things."""
    if job.version != __version__:
        return None, {"version": __version__}, socket.gethostname(), None
    done = run_here(job)
    return result_file.to_bytes(done.result), done.conditions.to_dict(), done.host, done.cpus


def _received(answer: Answer) -> execute.Done:
    data, conditions, host, own = answer
    if data is None:
        other = conditions["version"]
        message = f"the worker on {host} has nscontainer {other}, and this sweep's is {__version__}"
        raise HostError(message, hint=f"there: pip install nscontainer=={__version__}")
    result = result_file.from_bytes(data, f"the run on {host}")
    return execute.Done(
        result=result, conditions=Conditions.from_dict(conditions), host=host, cpus=own
    )


# --- the ways to run -------------------------------------------------------------------------


class _Here:
    """One after the other, in the caller's thread: an interrupt reaches the container as in a run."""

    width = 1

    def __init__(self, job: Callable[[Turn], Job]) -> None:
        self._job = job

    def submit(self, turn: Turn, tick: Callable[[str], None]) -> Future[execute.Done]:
        future: Future[execute.Done] = Future()
        future.set_result(run_here(self._job(turn), tick))
        return future

    def stop(self) -> None:
        pass


class _Threads:
    """Several at once on this machine, each on CPUs of its own."""

    def __init__(self, job: Callable[[Turn], Job], width: int) -> None:
        self._job, self.width = job, width
        self._slots: queue.SimpleQueue[tuple[int, ...]] = queue.SimpleQueue()
        for slot in cpus.slots(width, cpus.cores()):
            self._slots.put(slot)
        self._pool = ThreadPoolExecutor(width, thread_name_prefix="nscontainer-sweep")
        self._lock = threading.Lock()
        self._running: set[Any] = set()
        self._stopped = False

    def submit(self, turn: Turn, tick: Callable[[str], None]) -> Future[execute.Done]:  # noqa: ARG002
        return self._pool.submit(self._one, self._job(turn))

    def _one(self, job: Job) -> execute.Done:
        slot = self._slots.get()
        mine: list[Any] = []

        def waits(what: str) -> None:
            if what and self._stopped:  # one that runs is killed
                raise KeyboardInterrupt

        def began(container: Any) -> None:
            with self._lock:
                mine.append(container)
                self._running.add(container)
                stopped = self._stopped
            if stopped:
                _kill(container)

        try:
            return run_here(dataclasses.replace(job, slot=slot), waits, began)
        finally:
            with self._lock:
                self._running.difference_update(mine)
            self._slots.put(slot)

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for container in running:
            _kill(container)
        self._pool.shutdown(cancel_futures=True)

    def close(self) -> None:
        self._pool.shutdown()


def _kill(container: Any) -> None:
    with contextlib.suppress(Exception):  # it has just ended by itself
        container.kill()


class _Elsewhere:
    """On an executor's workers; the executor is the caller's, and stays."""

    def __init__(self, job: Callable[[Turn], Job], executor: Executor, width: int) -> None:
        self._job, self._executor = job, executor
        self.width = width if width > 1 else getattr(executor, "_max_workers", None) or _AHEAD
        self._theirs: set[Future[Any]] = set()

    def submit(self, turn: Turn, tick: Callable[[str], None]) -> Future[execute.Done]:  # noqa: ARG002
        theirs = self._executor.submit(run_job, self._job(turn))
        future: Future[execute.Done] = Future()
        self._theirs.add(theirs)

        def hand_on(done: Any) -> None:
            self._theirs.discard(theirs)
            try:
                future.set_result(_received(done.result()))
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                future.set_exception(error)

        theirs.add_done_callback(hand_on)
        return future

    def stop(self) -> None:
        for future in list(self._theirs):
            future.cancel()


@contextlib.contextmanager
def runner_for(
    plan: Plan, executor: Executor | None, job: Callable[[Turn], Job]
) -> Iterator[execute.Runner]:
    """Give what runs a plan's turns, of which ``job`` makes the jobs; it is closed in the end."""
    if executor is not None:
        yield _Elsewhere(job, executor, plan.parallel)
    elif plan.parallel == 1:
        yield _Here(job)
    else:
        threads = _Threads(job, plan.parallel)
        try:
            yield threads
        finally:
            threads.close()
