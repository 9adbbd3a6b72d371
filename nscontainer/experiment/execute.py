"""A plan carried out: turn by turn, each kept as it ends, and gone on with where it was left."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from nscontainer.errors import CommandError, HostError
from nscontainer.experiment import rows
from nscontainer.experiment.plan import Plan, Turn
from nscontainer.experiment.progress import Progress
from nscontainer.experiment.store import Store
from nscontainer.experiment.sweep import Run, Sweep
from nscontainer.measure.conditions import Conditions
from nscontainer.measure.result import RunResult

MOST_TRIES: Final = 1 + 3
"""How often a run is submitted whose worker is lost each time."""
_TICK_S: Final = 0.25
# Dask's and ipyparallel's, known by name: neither need be installed here.
_LOST: Final = frozenset({"KilledWorker", "EngineError", "CommClosedError"})


@dataclass(frozen=True, kw_only=True)
class Done:
    """A run that has ended: its result, what the machine did beside it, where, on which CPUs."""

    result: RunResult
    conditions: Conditions = field(default_factory=Conditions)
    host: str = ""
    cpus: str | None = None


class Runner(Protocol):
    """Runs a turn: at once, in a thread, or on another machine."""

    width: int
    """How many turns it takes at a time."""

    def submit(self, turn: Turn, tick: Callable[[str], None]) -> Future[Done]:
        """Begin it. ``tick`` may be called while it runs, by the caller's thread only: what it waits for."""

    def stop(self) -> None:
        """End what runs; called once, after an interrupt or a failure."""


def execute(
    plan: Plan,
    runner: Runner,
    store: Store,
    id: str,  # noqa: A002
    *,
    check: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
    on_result: Callable[[Run], None] | None = None,
    begun: Sweep | None = None,
) -> Sweep:
    """Carry a plan out, as far as it isn't yet.

    Parameters
    ----------
    check
        Raise where the very first run failed by itself: neither memory nor time ended it. Later
        failures are findings. A sweep that ended so, without any run, isn't kept.
    begun
        What there is of it from another time.

    Raises
    ------
    KeyboardInterrupt
        The sweep so far is its ``sweep``.
    CommandError
        With ``check``; its ``sweep`` and ``result``.
    HostError
        Workers were lost again and again.
    """
    work = _Work(plan, runner, store, id, check=check, begun=begun)
    work.on_progress, work.on_result = on_progress, on_result
    try:
        work.go()
    except BaseException as error:
        runner.stop()
        # As it is kept: the interrupt may have come just after a run was.
        kept = dataclasses.replace(store.load(id), status="interrupted")
        store.end(id, "interrupted")
        if isinstance(error, (KeyboardInterrupt, CommandError, HostError)):
            error.sweep = kept  # type: ignore[union-attr]
        if not isinstance(error, KeyboardInterrupt) and not (kept.runs or kept.warmups):
            store.delete(id)  # nothing came of it, and the error is with who asked
        raise
    store.end(id, "complete")
    return store.load(id)


class _Work:
    """What :func:`execute` knows while it goes on."""

    on_progress: Callable[[Progress], None] | None
    on_result: Callable[[Run], None] | None

    def __init__(
        self, plan: Plan, runner: Runner, store: Store, id_: str, *, check: bool, begun: Sweep | None
    ) -> None:  # fmt: skip
        self.plan, self.runner, self.store, self.id = plan, runner, store, id_
        self._points = plan.points()
        before = () if begun is None else (*begun.warmups, *begun.runs)
        self._runs = {run.turn.number: run for run in before}
        self._created = time.time() if begun is None else begun.created_unix
        self._facts = {} if begun is None else begun.facts
        self._first = check and not before  # the next to end is the very first
        self._flying: dict[Future[Done], Turn] = {}
        self._tries: dict[int, int] = {}
        self._begin = time.monotonic()
        self._ended = 0
        self._repeats = plan.repeat

    def go(self) -> None:
        self._say(None)
        self._fly(self.plan.turns())
        while self.plan.until is not None and self._repeats < self.plan.most_repeats:
            # What an earlier call began of a round is gone on with, so that no round has holes.
            if not self._unsettled():
                break
            self._repeats += 1
            self._fly(self.plan.turns(self._repeats))

    def _fly(self, turns: Iterable[Turn]) -> None:
        waiting = [turn for turn in turns if turn.number not in self._runs]
        while waiting or self._flying:
            # A warm-up is to be over before anything that counts.
            while (
                waiting
                and len(self._flying) < self.runner.width
                and (waiting[0].warmup or not any(t.warmup for t in self._flying.values()))
            ):
                self._launch(waiting.pop(0))
                if self.runner.width == 1:
                    break
            ended, _ = wait(self._flying, timeout=_TICK_S, return_when=FIRST_COMPLETED)
            for future in [f for f in self._flying if f in ended]:  # as they began: which is first?
                turn = self._flying.pop(future)
                self._land(turn, future, waiting)
            if not ended:
                self._say(next(iter(self._flying.values())), running=True)

    def _launch(self, turn: Turn) -> None:
        self._say(turn, running=True)
        self._tries[turn.number] = self._tries.get(turn.number, 0) + 1
        try:
            future = self.runner.submit(
                turn, lambda what: self._say(turn, running=not what, what=what)
            )
        except BrokenExecutor as error:
            message = f"the executor takes no more runs: {error}"
            raise HostError(
                message, hint="the same call with a new executor goes on from here"
            ) from None
        self._flying[future] = turn

    def _land(self, turn: Turn, future: Future[Done], waiting: list[Turn]) -> None:
        try:
            done = future.result()
        except Exception as error:
            if not _is_lost(error):
                raise
            if self._tries[turn.number] >= MOST_TRIES:
                message = (
                    f"run {turn.number} lost its worker {MOST_TRIES} times: {type(error).__name__}"
                )
                raise HostError(message, hint="look at the workers' logs") from error
            waiting.insert(0, turn)
            return
        result = done.result
        if result.interrupted:
            raise KeyboardInterrupt
        by_itself = not (result.ok or result.oom_killed or result.timed_out)
        first, self._first = self._first, False
        if first and by_itself:
            failure = CommandError(result.describe_exit(), exit_code=result.exit_code)
            failure.result = result  # type: ignore[attr-defined]
            raise failure
        if turn.number in self._runs:  # its lost worker was only slow
            return
        self.store.save(self.id, turn, result, done.conditions, done.host, done.cpus)
        run = Run(
            turn=turn,
            conditions=done.conditions,
            host=done.host,
            cpus=done.cpus,
            read=lambda: result,
        )
        self._runs[turn.number] = run
        self._ended += 1
        if self.on_result is not None:
            self.on_result(run)
        self._say(turn)

    # --- until -----------------------------------------------------------------------------------

    def _unsettled(self) -> bool:
        from nscontainer.experiment import statistics  # numpy, which nothing else here needs

        assert self.plan.until is not None
        for point in self._points:
            values = self._values(point.index)
            # Where all its runs failed, or report no such value, more of them would not help.
            if not values:
                continue
            if not statistics.relative_width(values, self.plan.seed) <= self.plan.until:
                return True
        return False

    def _values(self, point: int) -> list[float]:
        runs = (r for n, r in sorted(self._runs.items()) if n >= 0 and r.turn.point == point)
        found = (rows.figure(run, self.plan.metric) for run in runs)
        return [value for value in found if value is not None]

    # --- said ------------------------------------------------------------------------------------

    def sweep(self, status: Literal["interrupted", "running"] = "running") -> Sweep:
        runs = [run for _, run in sorted(self._runs.items())]
        return Sweep(
            id=self.id,
            plan=self.plan,
            runs=tuple(run for run in runs if not run.turn.warmup),
            warmups=tuple(run for run in runs if run.turn.warmup),
            status=status,
            created_unix=self._created,
            facts=self._facts,
        )

    def _say(self, turn: Turn | None, *, running: bool = False, what: str = "") -> None:
        if self.on_progress is None:
            return
        count = len(self._points)
        elapsed = time.monotonic() - self._begin
        total = self._repeats * count
        done = sum(number >= 0 for number in self._runs)
        to_go = total + self.plan.warmup * count - len(self._runs)
        self.on_progress(
            Progress(
                done=done,
                total=max(total, done),
                point=None if turn is None else self._points[turn.point],
                turn=turn,
                elapsed_s=elapsed,
                left_s=elapsed / self._ended * max(0, to_go) if self._ended else None,
                running=running,
                sweep=self.sweep(),
                what=what,
            )
        )


def _is_lost(error: BaseException) -> bool:
    # ipyparallel hands another process's error on by its name.
    names = {kind.__name__ for kind in type(error).__mro__} | {getattr(error, "ename", None)}
    return isinstance(error, BrokenExecutor) or bool(names & _LOST)
