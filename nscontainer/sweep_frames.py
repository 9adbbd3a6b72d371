"""A sweep as pandas DataFrames: a row a run, a row a sample, a row a level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import pandas as pd

from nscontainer.errors import SpecError
from nscontainer.experiment import rows, stability, statistics
from nscontainer.experiment.plan import Factor
from nscontainer.experiment.sweep import Sweep
from nscontainer.frames import UNITS
from nscontainer.measure.run_warnings import RunWarning

_NO_TEXTS: Final = (
    "wall_s cpu_s cpu_share throttled_share peak_memory steal_share other_cpus thermal_throttles mhz "
    "swap_in_pages swap_out_pages load_1m parent_cpus".split()
)
"""Numbers, also where a host gives none of them."""
_AFTER: Final = "warnings"
"""The first column after the reported values."""
_HELD_ANYWAY: Final = frozenset({"peak_memory", "exit_code", "other_cpus", "steal_share", "mhz"})
"""What a run that failed tells as well as any."""
Pair = tuple[Sequence[float], Sequence[float]]


def summary(sweep: Sweep) -> pd.DataFrame:
    """Make the summary: one row a run in the order in which they were to run.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``run_id``. The factors in the plan's order, as numbers in their unit (no limit is
        NaN), then the columns of :func:`nscontainer.experiment.rows.row`, the reported values before
        ``warnings``. ``attrs["units"]`` has the units.
    """
    found = [rows.row(sweep, run) for run in sorted(sweep.runs, key=lambda run: run.turn.number)]
    names = _columns(sweep, found)
    frame = pd.DataFrame.from_records(found, columns=names)
    for name in _NO_TEXTS:
        frame[name] = pd.to_numeric(frame[name]).astype("float64")
    for name in ("repeat", "order", "exit_code"):
        frame[name] = frame[name].astype("int64")
    frame["started_utc"] = pd.to_datetime(frame["started_utc"], utc=True)
    for name in ("ok", "oom_killed", "timed_out", "limits_differ", "recorded"):
        frame[name] = frame[name].astype(bool)
    for factor in sweep.plan.factors:
        frame[factor.name] = _level_column(sweep, factor, frame[factor.name])
    frame = frame.set_index("run_id")
    known = rows.units(sweep.plan)
    frame.attrs["units"] = {name: known[name] for name in frame.columns if name in known}
    return frame


def _columns(sweep: Sweep, found: Sequence[dict[str, Any]]) -> list[str]:
    """Give the columns of all rows: one may have reported what another has not."""
    factors = [factor.name for factor in sweep.plan.factors]
    names = dict.fromkeys(name for row in found for name in row)
    own = ["run_id", *factors, *(name for name in rows.ORDER if name != "run_id")]
    at = own.index(_AFTER)
    return [*own[:at], *(name for name in names if name not in own), *own[at:]]


def _level_column(sweep: Sweep, factor: Factor, column: Any) -> Any:
    """Keep one type whatever has run so far: a column of numbers where all its levels are."""
    levels = [rows.number(sweep.plan, factor.name, level) for level in factor.levels]
    if any(isinstance(level, (str, bool)) for level in levels):
        return column.astype(object)
    whole = all(isinstance(level, int) for level in levels)
    return column.astype("int64" if whole else "float64")


def samples(sweep: Sweep) -> pd.DataFrame:
    """Make the long frame of all samples.

    Returns
    -------
    pandas.DataFrame
        ``run_id``, the factors, ``elapsed_s`` and the columns of :attr:`RunResult.usage`.
        ``attrs["units"]`` has the units.
    """
    parts = []
    for run in sorted(sweep.runs, key=lambda run: run.turn.number):
        part = run.result.usage.reset_index()
        part.attrs = {}  # pandas compares them, slowly, before it drops them
        first: dict[str, Any] = {"run_id": f"{sweep.id}/{run.turn.number}"}
        first |= rows.parameters(sweep.plan, run.turn.point)
        for at, (name, value) in enumerate(first.items()):
            part.insert(at, name, math.nan if value is None else value)
        parts.append(part)
    factors = [factor.name for factor in sweep.plan.factors]
    if not parts:
        return pd.DataFrame(columns=["run_id", *factors, *UNITS])
    whole = pd.concat(parts, ignore_index=True)
    for factor in sweep.plan.factors:
        whole[factor.name] = _level_column(sweep, factor, whole[factor.name])
    known = UNITS | {n: u for n in factors if (u := rows.factor_unit(sweep.plan, n))}
    whole.attrs["units"] = {name: known[name] for name in whole.columns if name in known}
    return whole


def warnings(sweep: Sweep) -> tuple[RunWarning, ...]:
    """Give every warning of the whole, the gravest first."""
    return stability.find(sweep)


# --- compare ---------------------------------------------------------------------------------


def compare(
    sweep: Sweep, by: str | None = None, metric: str | None = None, *, baseline: Any = None
) -> pd.DataFrame:
    """Compare the levels of a factor; see :meth:`nscontainer.experiment.sweep.Sweep.compare`.

    Returns
    -------
    pandas.DataFrame
        Indexed by the level as a number, in the plan's order. ``n`` runs that count, ``failed`` ones
        that don't; ``median`` and its interval; ``relative`` to the baseline with its interval; ``p``,
        corrected for the number of levels; ``verdict``. Where other factors vary in a grid, relative and p
        are by comparison within each of their combinations. ``attrs`` has ``units``, ``by``, ``metric``,
        ``baseline`` and ``within``, those other factors.

    Raises
    ------
    SpecError
        There is no such factor, metric or level, or nothing has run.
    """
    factor = _factor(sweep, by)
    name = metric or sweep.plan.metric
    frame = sweep.summary
    _check_metric(frame, name)
    levels = [rows.number(sweep.plan, factor.name, level) for level in factor.levels]
    base = _baseline(sweep, factor, levels, baseline)
    counted = _counted(frame, name)
    within = [
        other.name
        for other in sweep.plan.factors
        if other is not factor and sweep.plan.mode == "grid" and len(other.levels) > 1
    ]
    blocks = [_blocks(counted, factor.name, level, name, within) for level in levels]
    seed = sweep.plan.seed
    found = [
        _level(block, frame[_is(frame[factor.name], level)], blocks[base], seed)
        for block, level in zip(blocks, levels, strict=True)
    ]
    unit = frame.attrs["units"].get(name, "")
    _judge(found, base, is_time=unit == "s")
    table = pd.DataFrame.from_records(
        [{"label": rows.label(sweep.plan, factor.name, level)} for level in factor.levels]
    )
    for column in (*_FIGURES, "verdict"):
        table[column] = [entry[column] for entry in found]
    table.index = pd.Index(
        _level_column(sweep, factor, pd.Series(levels, dtype=object)), name=factor.name
    )
    units = {column: unit for column in ("median", "low", "high") if unit}
    table.attrs.update(
        units=units, by=factor.name, metric=name, baseline=table["label"].iloc[base], within=within
    )
    return table


_FIGURES: Final = "n failed median low high relative relative_low relative_high p".split()


def _factor(sweep: Sweep, by: str | None) -> Factor:
    found = rows.factor(sweep.plan, by) if sweep.plan.factors else None
    if found is None:
        raise SpecError(
            "nothing is varied in this sweep", hint='give a list, as cpu=["20%", "50%"]'
        )
    return found


def _check_metric(frame: pd.DataFrame, name: str) -> None:
    numbers = frame.select_dtypes("number").columns
    if name in numbers:
        return
    if frame.empty:
        raise SpecError("no run has ended yet", hint="run the sweep first")
    raise SpecError(
        f"{name!r} is no numeric column of the summary", hint=f"one of {', '.join(numbers)}"
    )


def _baseline(sweep: Sweep, factor: Factor, levels: Sequence[Any], asked: Any) -> int:
    if asked is None:
        return len(levels) - 1
    for i, level in enumerate(levels):
        if asked is factor.levels[i] or asked in (factor.levels[i], level):
            return i
    try:
        wanted = rows.number(sweep.plan, factor.name, asked)
    except SpecError:
        wanted = None
    no_limit = isinstance(asked, float) and math.isnan(asked)
    labels = [rows.label(sweep.plan, factor.name, level) for level in factor.levels]
    for i, level in enumerate(levels):
        if (
            (wanted is not None and wanted == level)
            or (no_limit and level is None)
            or asked == labels[i]
        ):
            return i
    message = f"{asked!r} is not a level of {factor.name}"
    raise SpecError(message, hint=f"one of {', '.join(labels)}")


def _counted(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Leave out runs that failed, whose times say nothing, unless that is all of them."""
    known = frame[frame[name].notna()]
    if name in _HELD_ANYWAY or not frame["ok"].any():
        return known
    return known[known["ok"]]


def _is(column: Any, level: Any) -> Any:
    return column.isna() if level is None else column == level


def _blocks(
    frame: pd.DataFrame, by: str, level: Any, metric: str, within: Sequence[str]
) -> dict[Any, list[float]]:
    """Give a level's values, by the combination of the other factors' levels."""
    part = frame[_is(frame[by], level)]
    if not within:
        return {(): part[metric].tolist()}
    return {key: group[metric].tolist() for key, group in part.groupby(list(within), dropna=False)}


def _level(
    block: dict[Any, list[float]], ran: pd.DataFrame, base: dict[Any, list[float]], seed: int
) -> dict[str, Any]:
    values = [value for some in block.values() for value in some]
    low, high = statistics.interval(values, seed)
    # A key with NaN in it (no limit) is not equal to itself: compared by how it is written.
    others = {str(key): some for key, some in base.items()}
    pairs = [(some, others[str(key)]) for key, some in block.items() if str(key) in others]
    entry: dict[str, Any] = {
        "n": len(values),
        "failed": len(ran) - int(ran["ok"].sum()),
        "median": float(pd.Series(values, dtype="float64").median()),
        "low": low,
        "high": high,
        "pairs": pairs,
    }
    ratio, ratio_low, ratio_high = statistics.ratio_within(pairs, seed)
    entry |= {"relative": ratio, "relative_low": ratio_low, "relative_high": ratio_high}
    return entry | {"p": statistics.p_within(pairs, seed)}


def _judge(found: list[dict[str, Any]], base: int, *, is_time: bool) -> None:
    """Put the corrected p and the verdict into each level's entry."""
    found[base] |= {"p": math.nan, "relative_low": math.nan, "relative_high": math.nan}
    corrected = statistics.holm([entry["p"] for entry in found])
    tests = sum(not math.isnan(p) for p in corrected)
    for i, (entry, p) in enumerate(zip(found, corrected, strict=True)):
        entry["p"] = p
        if not entry["n"]:
            entry["verdict"] = "all runs failed" if entry["failed"] else "no runs"
            continue
        if i == base:
            entry["verdict"] = statistics.BASELINE
            continue
        pairs: list[Pair] = entry["pairs"]
        within, none_at = (entry["relative_low"], entry["relative_high"]), 1.0
        if math.isnan(entry["relative"]):
            within, none_at = statistics.difference_within(pairs)[1:], 0.0
        least = statistics.least_p(*((len(a), len(b)) for a, b in pairs))
        entry["verdict"] = statistics.verdict(
            p,
            within,
            entry["relative"],
            enough=least * tests < statistics.ALPHA,
            none_at=none_at,
            is_time=is_time,
        )
