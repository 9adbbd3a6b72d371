"""The front door of experiments: ``sweep()`` runs code at each level of what is varied, again and again."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import keyword
import os
import queue
import secrets
import socket
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from nscontainer import api, recordings, spec
from nscontainer.engine import state
from nscontainer.errors import SpecError
from nscontainer.experiment import cpus, execute, levels, substitute
from nscontainer.experiment.plan import DEFAULT_MOST_REPEATS, Factor, Plan, Turn, Value, Work
from nscontainer.experiment.progress import Progress
from nscontainer.experiment.store import Store
from nscontainer.experiment.sweep import Run, Sweep
from nscontainer.measure import provenance, result_file
from nscontainer.measure.conditions import Conditions, Watch
from nscontainer.measure.result import RunResult

_AHEAD: Final = 16
"""How many runs an executor gets at once that doesn't say how many workers it has."""


def sweep(
    work: str | Iterable[str] | Callable[..., Any] | Work,
    *,
    executor: Executor | None = None,
    resume: bool = True,
    check: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
    on_result: Callable[[Run], None] | None = None,
    store: Store | None = None,
    share_cpus: bool = False,
    **how: Any,
) -> Sweep:
    """Run something at each level of what is varied, in random order, each in a fresh container.

    Parameters
    ----------
    work
        Python code, a command (a list), a function, or a :class:`Work`. What a function returns, a
        number or a dict of them, is reported.
    executor
        Any :class:`concurrent.futures.Executor`, whose workers have nscontainer: runs go there.
    resume
        Go on with the same call's sweep that was interrupted, where there is one.
    check
        Raise where the very first run fails by itself.
    on_progress, on_result
        Called as it goes on, and with each :class:`Run` that has ended.
    share_cpus
        Let other sweeps on this machine run beside it.
    how
        ``repeat=1, warmup=0, zip=False, until=None, most_repeats=100, metric="wall_s", seed=None,
        parallel=1, params=None`` (:class:`Plan`), and options as :func:`nscontainer.run` takes them;
        a limit, ``image`` or ``network`` with a list is varied.

    Raises
    ------
    SpecError
        Before anything has run.
    KeyboardInterrupt
        What is done is kept, and is its ``sweep``; the same call goes on from there.
    CommandError
        With ``check``; it has ``sweep`` and ``result``.

    Examples
    --------
    >>> s = nscontainer.sweep("sum(range(10**6))", cpu=["20%", "50%"], repeat=5)  # doctest: +SKIP
    >>> s.compare("cpu")  # doctest: +SKIP
    """
    return run_plan(
        prepare(work, **how), executor=executor, resume=resume, check=check, on_progress=on_progress,
        on_result=on_result, store=store, share_cpus=share_cpus,
    )  # fmt: skip


# --- what is to be done ----------------------------------------------------------------------


def prepare(
    work: str | Iterable[str] | Callable[..., Any] | Work,
    *,
    repeat: int = 1,
    warmup: int = 0,
    zip: bool = False,  # noqa: A002 - its name on the command line
    until: float | None = None,
    most_repeats: int = DEFAULT_MOST_REPEATS,
    metric: str = "wall_s",
    seed: int | None = None,
    parallel: int = 1,
    params: Mapping[str, Any] | None = None,
    **options: Any,
) -> Plan:
    """Make the plan of a sweep, and check each of its points; arguments as :func:`sweep`'s.

    Raises
    ------
    SpecError
        Something can't be used.
    """
    for name, value, least in (
        ("repeat", repeat, 1), ("warmup", warmup, 0), ("most_repeats", most_repeats, 1),
        ("parallel", parallel, 1),
    ):  # fmt: skip
        if type(value) is not int or value < least:
            message = f"{name} {value!r} is not a whole number from {least} on"
            raise SpecError(message, hint=f"as {name}=5")
    if until is not None and not 0 < until < 1:
        raise SpecError(f"until {until!r} is no width of an interval", hint="a share, as 0.02")
    factors, fixed = [], {}
    for name, value in options.items():
        several = levels.given(name, value)
        if several is None:
            fixed[name] = value
        else:
            factors.append(Factor(name=name, levels=several))
    for name, value in (params or {}).items():
        factors.append(Factor(name=name, levels=levels.parameter(name, value), free=True))
    if zip and len({len(factor.levels) for factor in factors}) > 1:
        lengths = ", ".join(f"{f.name} has {len(f.levels)}" for f in factors)
        raise SpecError(f"zip takes lists of one length: {lengths}", hint="or leave zip out")
    free = [factor.name for factor in factors if factor.free]
    plan = Plan(
        work=as_work(work, free), factors=tuple(factors), options=_plain(fixed),
        mode="zip" if zip else "grid", repeat=repeat, warmup=warmup, until=until,
        most_repeats=most_repeats, metric=metric, parallel=parallel,
        seed=secrets.randbelow(1 << 31) if seed is None else seed,
    )  # fmt: skip
    _check(plan)
    return plan


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(json.dumps(options))
    except (TypeError, ValueError) as error:
        message = f"an option of a sweep can't be kept as text: {error}"
        raise SpecError(message, hint="write it as on the command line") from None
    return plain


def _check(plan: Plan) -> None:
    names = {factor.name for factor in plan.factors} | set(plan.options)
    if plan.parallel > 1:
        if "cpuset_cpus" in names:
            message = "parallel gives each run CPUs of its own, and cpuset_cpus others"
            raise SpecError(message, hint="leave one of them out")
        cpus.slots(plan.parallel, cpus.cores())
    for point in plan.points():
        job = job_of(plan, point.index)
        spec.build(None if job.kind == "cell" else job.command, **job.options)


def as_work(work: Any, parameters: Iterable[str] = ()) -> Work:
    """Make a :class:`Work` of what :func:`sweep` takes.

    Raises
    ------
    SpecError
        It is none of these, or a function that can't be taken along.
    """
    if isinstance(work, Work):
        return work
    if isinstance(work, str):
        return Work(kind="cell", code=work)
    if callable(work):
        return _function(work, list(parameters))
    if isinstance(work, Iterable):
        command = tuple(work)
        if all(isinstance(part, str) for part in command):
            return Work(kind="command", command=command)
    raise SpecError(f"{work!r} can't be run", hint="Python code, a command as a list, a function")


def _function(function: Callable[..., Any], parameters: list[str]) -> Work:
    name = getattr(function, "__name__", repr(function))
    why = _refused(function, name)
    source = ""
    if why is None:
        try:
            source = textwrap.dedent(inspect.getsource(function))
            inspect.signature(function).bind(**dict.fromkeys(parameters))
        except (OSError, TypeError) as error:
            why = f"its source can't be had: {error}" if not source else str(error)
    if why is not None:
        message = f"function {name!r} can't be taken into a container: {why}"
        raise SpecError(message, hint="a plain function at a module's level, or its code as text")
    given = ", ".join(f"{parameter}={parameter}" for parameter in parameters)
    call = f"""
_returned = {name}({given})
if isinstance(_returned, (dict, int, float)):
    from nscontainer import report
    report(**(_returned if isinstance(_returned, dict) else {{"returned": _returned}}))
"""
    return Work(kind="cell", code=source + call, name=name)


def _refused(function: Callable[..., Any], name: str) -> str | None:
    if not inspect.isfunction(function):
        return "it is a method or an object"
    if not name.isidentifier() or keyword.iskeyword(name):
        return "it has no name"
    if function.__closure__:
        return f"it uses {', '.join(function.__code__.co_freevars)} of the function around it"
    if "." in function.__qualname__.replace("<locals>.", ""):
        parts = function.__qualname__.split(".<locals>.")
        if "." in parts[-1]:
            return "it is a method or an object"
    return None


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


def run_job(job: Job) -> tuple[bytes, dict[str, Any], str, str | None]:
    """Run a job on a worker: give the result as a file's bytes, the conditions, the host, the CPUs."""
    done = run_here(job)
    return result_file.to_bytes(done.result), done.conditions.to_dict(), done.host, done.cpus


def _received(answer: tuple[bytes, dict[str, Any], str, str | None]) -> execute.Done:
    data, conditions, host, own = answer
    result = result_file.from_bytes(data, f"the run on {host}")
    return execute.Done(
        result=result, conditions=Conditions.from_dict(conditions), host=host, cpus=own
    )


def _facts() -> dict[str, Any]:
    nothing = dict.fromkeys(("released_unix", "created_unix", "spec", "cgroup", "image"))
    return provenance.collect(nothing, None).to_dict()


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
def _runner(
    plan: Plan, executor: Executor | None, job: Callable[[Turn], Job]
) -> Iterator[execute.Runner]:
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


def run_plan(
    plan: Plan,
    *,
    executor: Executor | None = None,
    resume: bool = True,
    check: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
    on_result: Callable[[Run], None] | None = None,
    store: Store | None = None,
    cell: Mapping[str, Any] | None = None,
    share_cpus: bool = False,
) -> Sweep:
    """Carry out a plan of :func:`prepare`; arguments and errors are :func:`sweep`'s.

    Parameters
    ----------
    cell
        More arguments for :func:`nscontainer.run_cell`: ``inputs``, ``filename``.

    Where no container can run and ``NSCONTAINER_REPLAY`` names a folder, its recording is what is given.
    """
    recorded = recordings.find(plan)
    if recorded is not None:
        return recorded
    store = Store() if store is None else store
    if executor is None:
        api.engine()
    left = store.unfinished(plan.key) if resume else None
    if left is None:
        name, begun = store.begin(plan, _facts()), None
    else:
        name, plan = left
        begun = store.load(name)

    def job(turn: Turn) -> Job:
        return dataclasses.replace(
            job_of(plan, turn.point),
            turn=(name, turn.number),
            share_cpus=share_cpus,
            cell=dict(cell or {}),
        )

    with _runner(plan, executor, job) as runner:
        done = execute.execute(
            plan, runner, store, name, check=check, on_progress=on_progress,
            on_result=on_result, begun=begun,
        )  # fmt: skip
    recordings.keep(done)
    return done
