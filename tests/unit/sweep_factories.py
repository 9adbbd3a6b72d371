"""Sweeps for the tests of what is made of them: no container, and always the same."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nscontainer.experiment import levels
from nscontainer.experiment.plan import Factor, Plan, Turn, Value, Work
from nscontainer.experiment.sweep import Run, Sweep
from nscontainer.measure.conditions import Conditions
from nscontainer.measure.result import RunResult
from nscontainer.spec import Limits
from tests.unit import factories

CODE = "total = 0\nfor i in range({n}):\n    total += i\n"
CALM = Conditions(
    steal_share=0.001,
    other_cpus=0.02,
    thermal_throttles=0,
    governor="performance",
    mhz=2900.0,
    swap_in_pages=0,
    swap_out_pages=0,
    load_1m=0.1,
)


def plan(
    factors: Mapping[str, Sequence[Value]] | None = None,
    *,
    free: Sequence[str] = ("n",),
    code: str = CODE,
    **changes: Any,
) -> Plan:
    """Make a plan; three levels of CPU are varied unless others are given."""
    varied = factors if factors is not None else {"cpu": ("20%", "50%", "100%")}
    return Plan(
        work=Work(kind="cell", code=code),
        factors=tuple(
            Factor(name=name, levels=tuple(values), free=name in free)
            for name, values in varied.items()
        ),
        **({"repeat": 5} | changes),
    )


def wall_at(point: Mapping[str, Value], work_s: float = 1.0) -> float:
    """How long ``work_s`` of CPU time takes at a point's quota."""
    quota = levels.number("cpu", point["cpu"]) if point.get("cpu") is not None else None
    return work_s / min(1.0, float(quota)) if quota is not None else work_s


def result(
    point: Mapping[str, Value],
    wall_s: float,
    *,
    reported: Mapping[str, Any] | None = None,
    sample_s: float = 0.1,
    **changes: Any,
) -> RunResult:
    """Make the result of a busy loop at one point."""
    quota = levels.number("cpu", point["cpu"]) if point.get("cpu") is not None else None
    memory = levels.number("memory", point["memory"]) if point.get("memory") is not None else None
    cpus = None if quota is None else float(quota)
    limit = factories.MIB * 256 if memory is None else int(memory)
    made = factories.run(
        wall_s,
        quota=cpus,
        sample_s=sample_s,
        asked=Limits(
            cpu_quota_us=None if cpus is None else round(cpus * 100_000), memory_bytes=limit
        ),
        **changes,
    )
    if reported:
        object.__setattr__(made, "reported", dict(reported))
    return made


def sweep(
    factors: Mapping[str, Sequence[Value]] | None = None,
    *,
    wall: Callable[[Mapping[str, Value]], float] = wall_at,
    noise: float = 0.02,
    seed: int = 1,
    reported: Callable[[Mapping[str, Value]], Mapping[str, Any]] | None = None,
    conditions: Callable[[Turn], Conditions] = lambda _turn: CALM,
    host: Callable[[Turn], str] = lambda _turn: "lab-7",
    change: Callable[[Turn], Mapping[str, Any]] = lambda _turn: {},
    done: int | None = None,
    of_plan: Plan | None = None,
    sample_s: float = 0.1,
    **facts: Any,
) -> Sweep:
    """Make a whole sweep.

    Parameters
    ----------
    factors
        As of :func:`plan`; ``of_plan`` is taken instead where it is given.
    wall
        Wall time at a point, before the noise (log-normal, ``noise`` is its relative width).
    change
        What of a turn's exit record is different.
    done
        So many runs have ended, and the sweep was interrupted; None is all.
    sample_s
        Few samples, as a test makes hundreds of runs.
    facts
        Fields of the :class:`Sweep`.
    """
    the_plan = of_plan or plan(factors)
    points = the_plan.points()
    random_ = random.Random(seed)

    def make(turn: Turn) -> Run:
        levels_ = points[turn.point].levels
        seconds = wall(levels_) * math.exp(random_.gauss(0, noise))
        made = result(
            levels_,
            seconds,
            reported=None if reported is None else reported(levels_),
            sample_s=sample_s,
            **change(turn),
        )
        return Run(
            turn=turn,
            conditions=conditions(turn),
            host=host(turn),
            cpus=None,
            read=lambda made=made: made,  # type: ignore[misc]
        )

    turns = the_plan.turns()
    warmups = [turn for turn in turns if turn.warmup]
    counted = [turn for turn in turns if not turn.warmup][:done]
    values: dict[str, Any] = {
        "id": "3f2a9c41",
        "plan": the_plan,
        "warmups": tuple(map(make, warmups)),
        "runs": tuple(map(make, counted)),
        "status": "complete" if done is None else "interrupted",
        "created_unix": 1_750_000_000.0,
        "facts": factories.host().to_dict(),
    }
    return Sweep(**(values | facts))
