"""A run of a sweep as one row of plain figures: what the summary shows and the warnings are judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nscontainer.errors import SpecError
from nscontainer.experiment import levels
from nscontainer.experiment.plan import Factor, Plan, Value
from nscontainer.experiment.sweep import Run, Sweep

UNITS: Final[dict[str, str]] = {
    "repeat": "count",
    "order": "count",
    "wall_s": "s",
    "cpu_s": "s",
    "cpu_share": "CPUs",
    "throttled_share": "share",
    "peak_memory": "bytes",
    "steal_share": "share",
    "other_cpus": "CPUs",
    "thermal_throttles": "count",
    "mhz": "MHz",
    "swap_in_pages": "count",
    "swap_out_pages": "count",
    "parent_cpus": "CPUs",
}
"""Of the summary's own columns; those that are missing have none."""
ORDER: Final = (
    "run_id repeat order ok exit exit_code oom_killed timed_out wall_s cpu_s cpu_share throttled_share "
    "peak_memory warnings host linux cpu_model cpus started_utc steal_share other_cpus thermal_throttles governor mhz "
    "swap_in_pages swap_out_pages load_1m parent_cpus limits_differ recorded".split()
)
"""The summary's own columns; the factors stand after the first, the reported values before ``warnings``."""
OWN: Final = frozenset(ORDER)


def units(plan: Plan) -> dict[str, str]:
    """Give the units of the summary's columns, the factors' too."""
    return UNITS | {f.name: unit for f in plan.factors if (unit := factor_unit(plan, f.name))}


def factor(plan: Plan, by: str | None) -> Factor | None:
    """Find a factor by its name, as an option's flag too; without one, the first that is varied.

    Raises
    ------
    SpecError
        There is none of that name.
    """
    factors = {factor.name: factor for factor in plan.factors}
    if by is None:
        return next(iter(factors.values()), None)
    name = by.lstrip("-").replace("-", "_")
    if name not in factors:
        hint = f"one of {', '.join(factors)}" if factors else "nothing is varied in it"
        raise SpecError(f"{by!r} is not varied in this sweep", hint=hint)
    return factors[name]


def _is_free(plan: Plan, name: str) -> bool:
    return next(factor.free for factor in plan.factors if factor.name == name)


def factor_unit(plan: Plan, name: str) -> str:
    """Give the unit of a factor's levels; a free parameter has none."""
    return "" if _is_free(plan, name) else levels.unit(name)


def number(plan: Plan, name: str, level: Value) -> float | int | str | None:
    """Give a level as the frames hold it (:func:`nscontainer.experiment.levels.number`)."""
    return level if _is_free(plan, name) else levels.number(name, level)


def label(plan: Plan, name: str, level: Value) -> str:
    """Write a level for a reader."""
    return str(level) if _is_free(plan, name) else levels.label(name, level)


def parameters(plan: Plan, point: int) -> dict[str, float | int | str | None]:
    """Give the levels of a point, in the plan's order of factors."""
    return {name: number(plan, name, v) for name, v in plan.points()[point].levels.items()}


def reported(run: Run) -> Mapping[str, Any]:
    """Give what the work reported; a name of the summary's own has ``reported.`` before it."""
    values: Mapping[str, Any] = getattr(run.result, "reported", None) or {}
    return {(f"reported.{k}" if k in OWN else k): v for k, v in values.items()}


def metric(run: Run, name: str) -> float | None:
    """Give one numeric figure of a run by its column's name; None where it has none."""
    result, totals = run.result, run.result.totals
    own: dict[str, Any] = {
        "wall_s": result.wall_s,
        "cpu_s": result.cpu_s,
        "cpu_share": totals["cpu_share"],
        "throttled_share": totals["throttled_share"],
        "peak_memory": totals["memory.peak"],
    }
    value = own[name] if name in own else reported(run).get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def figure(run: Run, name: str) -> float | None:
    """Give the same of a run that went well; None of one that failed."""
    return metric(run, name) if run.result.ok else None


def by_point(sweep: Sweep, name: str) -> dict[int, list[tuple[Run, float]]]:
    """Give the runs that count and their figure, by point and in their order.

    What failed doesn't count, unless that is all there is.
    """
    some_ok = any(run.result.ok for run in sweep.runs)
    found: dict[int, list[tuple[Run, float]]] = {}
    for run in sorted(sweep.runs, key=lambda run: run.turn.number):
        value = metric(run, name)
        if value is not None and (run.result.ok or not some_ok):
            found.setdefault(run.turn.point, []).append((run, value))
    return dict(sorted(found.items()))


def named(plan: Plan, point: int) -> str:
    """Name a point for a reader: ``cpu 20 %, memory 128 MiB``; where nothing varies, ``these runs``."""
    parts = [
        f"{name.replace('_', '-')} {label(plan, name, level)}"
        for name, level in plan.points()[point].levels.items()
    ]
    return ", ".join(parts) or "these runs"


def row(sweep: Sweep, run: Run) -> dict[str, Any]:
    """Make the row of a run, in the order of the summary's columns."""
    result, totals, turn = run.result, run.result.totals, run.turn
    found = parameters(sweep.plan, turn.point)
    return {
        "run_id": f"{sweep.id}/{turn.number}",
        **found,
        "repeat": turn.repeat,
        "order": turn.number,
        "ok": result.ok,
        "exit": result.describe_exit(),
        "exit_code": result.exit_code,
        "oom_killed": result.oom_killed,
        "timed_out": result.timed_out is not None,
        "wall_s": result.wall_s,
        "cpu_s": result.cpu_s,
        "cpu_share": totals["cpu_share"],
        "throttled_share": totals["throttled_share"],
        "peak_memory": totals["memory.peak"],
        **{(f"reported.{k}" if k in found else k): v for k, v in reported(run).items()},
        "warnings": ", ".join(dict.fromkeys(w.code for w in result.warnings)),
        "host": run.host,
        "linux": result.provenance.linux,
        "cpu_model": result.provenance.cpu_model,
        "cpus": run.cpus,
        "started_utc": result.started,
        **run.conditions.to_dict(),
        "parent_cpus": result.record["parents_quota"],
        "limits_differ": bool(result.limits.differs),
        "recorded": sweep.recorded is not None,
    }
