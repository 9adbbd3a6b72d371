"""The front door of experiments: ``sweep()`` runs code at each level of what is varied, again and again."""

from __future__ import annotations

import dataclasses
import inspect
import json
import keyword
import secrets
import textwrap
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from typing import Any

from nscontainer import api, recordings, spec, sweep_runners
from nscontainer.errors import SpecError
from nscontainer.experiment import cpus, execute, levels
from nscontainer.experiment.plan import DEFAULT_MOST_REPEATS, Factor, Plan, Turn, Work
from nscontainer.experiment.progress import Progress
from nscontainer.experiment.store import Store
from nscontainer.experiment.sweep import Run, Sweep
from nscontainer.measure import provenance


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
        job = sweep_runners.job_of(plan, point.index)
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


# --- carried out -----------------------------------------------------------------------------


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

    def job(turn: Turn) -> sweep_runners.Job:
        return dataclasses.replace(
            sweep_runners.job_of(plan, turn.point),
            turn=(name, turn.number),
            share_cpus=share_cpus,
            cell=dict(cell or {}),
        )

    with sweep_runners.runner_for(plan, executor, job) as runner:
        done = execute.execute(
            plan, runner, store, name, check=check, on_progress=on_progress,
            on_result=on_result, begun=begun,
        )  # fmt: skip
    recordings.keep(done)
    return done


def _facts() -> dict[str, Any]:
    nothing = dict.fromkeys(("released_unix", "created_unix", "spec", "cgroup", "image"))
    return provenance.collect(nothing, None).to_dict()
