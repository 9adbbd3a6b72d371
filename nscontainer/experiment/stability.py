"""What to know before believing a sweep: noise, drift, a machine that was busy with something else.

As pyperf does for a benchmark. Each rule is a function and each warning ends in what to do about it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean, median, stdev
from typing import Any, Final

from nscontainer import units
from nscontainer.experiment import machine, rows, statistics
from nscontainer.experiment.sweep import Sweep
from nscontainer.measure.run_warnings import FEWEST_PERIODS, RunWarning
from nscontainer.measure.text import plural, text_of
from nscontainer.spec import PERIOD_US

NOISY: Final = 0.10
"""A standard deviation of more than this part of the mean, as pyperf has it."""
WIDE: Final = 0.10
"""An interval wider than this, from end to end, leaves too much open."""
SHORT_S: Final = 0.05
"""/proc counts in ticks of 10 ms, and a start varies by a few ms: in less, both are much of what is measured."""
SHORT_SAMPLES: Final = 3
FEW_REPEATS: Final = 5
OUTLIER_Z: Final = 3.5
"""Of Iglewicz and Hoaglin's score by the median absolute deviation."""
OUTLIER_LEAST: Final = 0.10
"""What is nearer to the median is none, however alike the others are."""
DRIFT_P: Final = 0.01
DRIFT_LEAST: Final = 0.02
FIRST_LEAST: Final = 0.05


def find(sweep: Sweep) -> tuple[RunWarning, ...]:
    """Give every warning of a sweep, the gravest first; none where no run has ended."""
    order = {"error": 0, "warning": 1, "info": 2}
    found = [w for rule in (*RULES, *machine.RULES) for w in rule(sweep)] if sweep.runs else []
    return tuple(sorted(found, key=lambda warning: order[warning.severity]))


def _values(sweep: Sweep) -> dict[int, list[float]]:
    found = rows.by_point(sweep, sweep.plan.metric)
    return {point: [value for _, value in some] for point, some in found.items()}


def _and_more(sweep: Sweep, points: Sequence[int]) -> str:
    """Name the first of some points, and say how many more there are."""
    more = len(points) - 1
    return rows.named(sweep.plan, points[0]) + (f" and {more} more" if more else "")


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


# --- what the runs say -----------------------------------------------------------------------


def _failed(sweep: Sweep) -> Iterator[RunWarning]:
    bad = [run for run in sweep.runs if not run.result.ok]
    if not bad:
        return
    by_itself = [r for r in bad if not r.result.oom_killed and r.result.timed_out is None]
    exits = Counter(run.result.describe_exit() for run in bad)
    said, count = exits.most_common(1)[0]
    others = f" ({count} times)" if len(exits) > 1 else ""
    all_ = len(bad) == len(sweep.runs)
    advice = "what they have is shown all the same" if all_ else "times are of the others"
    yield RunWarning(
        "failed-runs",
        "error" if by_itself else "warning",
        f"{len(bad)} of {plural(len(sweep.runs), 'run')} failed: {text_of(said, 80)}{others}; {advice}: "
        "see exit in .summary",
        {"failed": len(bad), "exits": dict(exits)},
    )


def _short(sweep: Sweep) -> Iterator[RunWarning]:
    """Say which runs are over before there is anything to be measured."""
    found: dict[int, float] = {}
    for point, some in rows.by_point(sweep, "wall_s").items():
        wall_s = median(value for _, value in some)
        sample_s = some[0][0].result.record["sample_s"] or 0.0
        if wall_s < max(SHORT_S, SHORT_SAMPLES * sample_s):
            found[point] = wall_s
    if found:
        points = sorted(found, key=lambda point: found[point])
        shortest = units.format_seconds(found[points[0]])
        yield RunWarning(
            "too-short",
            "warning",
            f"too short: {shortest} at {_and_more(sweep, points)}; let each run do more, "
            "a loop for one: start and clock ticks are much of it",
            {"wall_s": {rows.named(sweep.plan, p): found[p] for p in points}},
        )


def _few_periods(sweep: Sweep) -> Iterator[RunWarning]:
    """Quotas that a run hardly met."""
    found: dict[int, tuple[float, float]] = {}
    for point, some in rows.by_point(sweep, "wall_s").items():
        limits = some[0][0].result.limits.asked
        if limits.cpus is None:
            continue
        period_s = (limits.cpu_period_us or PERIOD_US) / 1e6
        periods = median(value for _, value in some) / period_s
        if periods < FEWEST_PERIODS:
            found[point] = periods, period_s
    if found:
        points = sorted(found, key=lambda point: found[point][0])
        periods, period_s = found[points[0]]
        yield RunWarning(
            "few-periods",
            "warning",
            f"only {plural(math.floor(periods), 'quota period')} of {units.format_seconds(period_s)} at "
            f"{_and_more(sweep, points)}: to judge a quota, run for "
            f"{units.format_seconds(FEWEST_PERIODS * period_s)} or more, or take a shorter --cpu-period",
            {"periods": {rows.named(sweep.plan, p): found[p][0] for p in points}},
        )


def _noisy(sweep: Sweep) -> Iterator[RunWarning]:
    found = {}
    for point, values in _values(sweep).items():
        if len(values) >= statistics.FEWEST and (mean := abs(fmean(values))) > 0:
            spread = stdev(values) / mean
            if spread > NOISY:
                found[point] = spread
    if found:
        points = sorted(found, key=lambda point: -found[point])
        yield RunWarning(
            "noisy",
            "warning",
            f"noisy: the standard deviation is {_percent(found[points[0]])} of the mean at "
            f"{_and_more(sweep, points)}; end what else runs, let each run do more",
            {"spread": {rows.named(sweep.plan, p): found[p] for p in points}},
        )


def _repeats(sweep: Sweep) -> Iterator[RunWarning]:
    """Too few of them for any interval, or for a narrow one."""
    values = _values(sweep)
    if not values:
        return
    fewest = min(map(len, values.values()))
    if fewest < statistics.FEWEST:
        yield RunWarning(
            "few-repeats",
            "info" if sweep.status == "running" else "warning",
            f"only {plural(fewest, 'run')} at a level: no interval, no verdict; use --repeat {FEW_REPEATS} or more",
            {"fewest": fewest},
        )
        return
    wide = {}
    for point, some in values.items():
        width = statistics.relative_width(some, sweep.plan.seed)
        needed = statistics.repeats_for(some, WIDE, sweep.plan.seed)
        if width > WIDE and needed is not None:
            wide[point] = width, needed
    if wide:
        points = sorted(wide, key=lambda point: -wide[point][0])
        width, needed = wide[points[0]]
        advice = (
            f"about --repeat {needed} would make it {_percent(WIDE)}"
            if needed <= sweep.plan.most_repeats
            else "make it less noisy first: repeating alone won't do"
        )
        yield RunWarning(
            "more-repeats",
            "warning",
            f"needs more repeats: the interval at {_and_more(sweep, points)} is {_percent(width)} of the median "
            f"wide; {advice}",
            {"width": width, "repeats": needed},
        )


def _outliers(sweep: Sweep) -> Iterator[RunWarning]:
    found: list[tuple[float, int, str]] = []
    for point, some in rows.by_point(sweep, sweep.plan.metric).items():
        if len(some) < FEW_REPEATS:
            continue
        middle = median(value for _, value in some)
        deviation = median(abs(value - middle) for _, value in some)
        for run, value in some:
            off = abs(value - middle)
            if off > OUTLIER_LEAST * abs(middle) and 0.6745 * off > OUTLIER_Z * deviation:
                part = off / abs(middle) if middle else math.inf
                found.append((part, point, f"{sweep.id}/{run.turn.number}"))
    if found:
        part, point, run_id = max(found)
        yield RunWarning(
            "outliers",
            "warning",
            f"{plural(len(found), 'outlier')}: run {run_id} is {_percent(part)} off the median at "
            f"{rows.named(sweep.plan, point)}; see what ran beside it in .summary, and repeat",
            {"run_ids": [name for _, _, name in found]},
        )


def _relative(sweep: Sweep) -> list[tuple[int, int, float]]:
    """Give each run's order and repeat, and its figure as a part of its point's median."""
    found = []
    for some in rows.by_point(sweep, sweep.plan.metric).values():
        middle = median(value for _, value in some)
        if len(some) >= 2 and middle > 0:
            found += [(run.turn.number, run.turn.repeat, value / middle) for run, value in some]
    return sorted(found)


def _drift(sweep: Sweep) -> Iterator[RunWarning]:
    """Say whether runs get slower, or quicker, the later they are."""
    found = _relative(sweep)
    if len(found) < 10:
        return
    rho, p = statistics.rank_correlation([at for at, _, _ in found], [part for _, _, part in found])
    third = len(found) // 3
    first, last = (median(part for _, _, part in some) for some in (found[:third], found[-third:]))
    change = last / first - 1
    if p < DRIFT_P and abs(change) > DRIFT_LEAST:
        yield RunWarning(
            "drift",
            "warning",
            f"drift: the last third of the runs is {_percent(abs(change))} {'above' if change > 0 else 'below'} the "
            "first; random order keeps it out of the comparison, but see what changed: heat, load, "
            "a cache; use --warmup",
            {"rank_correlation": rho, "p": p, "change": change},
        )


def _first(sweep: Sweep) -> Iterator[RunWarning]:
    """First runs that had something to fill: a cache, a compiled file."""
    if sweep.plan.warmup:
        return
    extra = []
    for some in rows.by_point(sweep, sweep.plan.metric).values():
        first = [value for run, value in some if run.turn.repeat == 0]
        later = [value for run, value in some if run.turn.repeat > 0]
        if first and len(later) >= 2 and median(later) > 0:
            extra.append((first[0] / median(later) - 1, first[0] > max(later)))
    if not extra:
        return
    more = median(part for part, _ in extra)
    highest = sum(is_highest for _, is_highest in extra)
    if more > FIRST_LEAST and highest >= 0.8 * len(extra):
        yield RunWarning(
            "first-run",
            "warning",
            f"the first runs are {_percent(more)} above the later ones; use --warmup 1",
            {"more": more, "points": len(extra)},
        )


def _unfinished(sweep: Sweep) -> Iterator[RunWarning]:
    if sweep.status == "interrupted" and sweep.recorded is None:
        total = len(sweep.plan.points()) * sweep.plan.repeat
        yield RunWarning(
            "unfinished",
            "info",
            f"{len(sweep)} of {plural(total, 'run')} have ended: the same call goes on from here",
            {"done": len(sweep), "total": total},
        )


RULES: Final[tuple[Any, ...]] = (
    _failed,
    _short,
    _few_periods,
    _noisy,
    _repeats,
    _outliers,
    _drift,
    _first,
    _unfinished,
)
