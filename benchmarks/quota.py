"""CPU quota really had, against what was asked.

The share is taken over whole periods: of every two samples that lie a whole number of periods (about
five seconds) apart, the CPU time between them over the time between them. The two lie in the same
phase of a period, so that it doesn't count where in a period a run happened to begin and end; a
plain total over wall time is off by up to one quota in all, and stands beside it.
"""

from __future__ import annotations

import bisect
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from benchmarks.bench import Bench
from benchmarks.report import Report, Row, table
from benchmarks.stats import Progress

TITLE = "CPU really had under a quota"
PERCENTS = (5, 10, 20, 50, 100, 150)
THREADS = (1, 2, 3, 4)
PERIODS_MS = (10, 50, 100)
WINDOW_NS = 5_000_000_000
"""A whole number of each of these periods."""
BEGIN_NS = 300_000_000
"""The program's own start, and the first period's part, are left out."""
RUN_S = 6.5
BINDING = 0.98
"""A quota that throttled in fewer periods than this share wasn't what held the program back."""
TRIES = 3
"""Of a case in which the quota wasn't binding: the machine may have been busy just then."""
TARGET = 0.5


@dataclass(frozen=True, slots=True)
class Case:
    """One quota to keep."""

    percent: int
    threads: int
    period_ms: int


@dataclass(frozen=True, slots=True)
class Had:
    """What was had under it, in % of one CPU and of what was asked."""

    had_percent: float
    deviation: float
    whole_run_deviation: float
    throttled: float
    """Share of its periods that were throttled."""
    steal: float

    @property
    def binding(self) -> bool:
        """Whether the quota, and not the machine, set the limit."""
        return self.throttled >= BINDING


def cases(*, quick: bool) -> Iterator[Case]:
    """Give what to measure: all with a quota of 1 ms at least (Linux's least) that can be used."""
    for percent in PERCENTS:
        for period_ms in PERIODS_MS:
            for threads in THREADS:
                usable = percent * period_ms >= 100 and threads * 100 >= percent
                if usable and (not quick or (threads in (1, 4) and period_ms != 50)):
                    yield Case(percent, threads, period_ms)


def run(bench: Bench) -> Report:
    """Measure it."""
    report = Report("quota", TITLE)
    todo = list(cases(quick=bench.quick))
    tried: dict[Case, list[Had]] = {}
    with Progress("quota", len(todo)) as progress:
        for case in todo:
            tried[case] = [measure(bench, case)]
            while not tried[case][-1].binding and len(tried[case]) < (1 if bench.quick else TRIES):
                tried[case].append(measure(bench, case))
            progress.step()
    # Chosen by how often it throttled, never by how near it came.
    found = {case: max(runs, key=lambda run: run.throttled) for case, runs in tried.items()}
    report.raw["cases"] = [
        {"case": asdict(case), "had": asdict(had), "tried": [asdict(run) for run in tried[case]]}
        for case, had in found.items()
    ]
    held = {case: had for case, had in found.items() if had.binding}
    if not held:
        report.missing = "the machine is too busy: no quota was ever what held the workload back"
    else:
        worst = max(held, key=lambda case: abs(held[case].deviation))
        report.rows.append(
            Row(
                what=f"CPU quota kept, worst of {len(held)}",
                ours=f"{held[worst].had_percent:.3f} %",
                peer=f"asked {worst.percent} %",
                value=abs(held[worst].deviation),
                unit="% off",
                target=TARGET,
                note=f"{worst.threads} threads, {worst.period_ms} ms; median of all "
                f"{statistics.median(abs(had.deviation) for had in held.values()):.3f} % off",
            )
        )
    report.details.append(_table(found))
    report.details.append(
        "each: deviation from what was asked over whole periods, in %. (In brackets: the quota "
        f"throttled in fewer than {BINDING:.0%} of the periods, so that the machine and not the "
        f"quota set the limit; not judged.) Workload: {bench.workload.kind}."
    )
    plain = [abs(had.whole_run_deviation) for had in held.values()]
    if plain:
        report.details.append(
            f"total over wall time, where in a period it ends left to chance: median "
            f"{statistics.median(plain):.3f} %, worst {max(plain):.3f} % off"
        )
    return report


def measure(bench: Bench, case: Case) -> Had:
    """Run the workload under one quota."""
    import nscontainer

    result = nscontainer.run(
        bench.workload.threads(case.threads, RUN_S),
        cpu=f"{case.percent}%",
        cpu_period=case.period_ms * 1000,
        sample="10ms" if case.period_ms == 10 else "20ms",
        check=True,
        **bench.workload.options,
    )
    usage = result.usage
    times = [round(float(second) * 1e9) for second in usage.index]
    had = share_over_windows(times, [int(value) for value in usage["cpuacct.usage"]])
    totals = {name: float(value or 0) for name, value in result.totals.items()}
    whole = 100 * totals["cpuacct.usage"] / 1e9 / result.wall_s
    periods = totals["cpu.nr_periods"]
    return Had(
        had_percent=had,
        deviation=100 * (had / case.percent - 1),
        whole_run_deviation=100 * (whole / case.percent - 1),
        throttled=totals["cpu.nr_throttled"] / periods if periods else 0.0,
        steal=totals["steal_s"] / result.wall_s,
    )


def share_over_windows(times_ns: Sequence[int], usage_ns: Sequence[int]) -> float:
    """Give the CPU share, in % of one CPU, over windows of whole periods.

    The mean over all pairs of samples that are :data:`WINDOW_NS` apart, to within a twentieth of a
    beat; where the machine let no two be that, over the nearest.
    """
    shares = []
    for i, begin in enumerate(times_ns):
        if begin < BEGIN_NS:
            continue
        at = bisect.bisect_left(times_ns, begin + WINDOW_NS)
        near = [j for j in (at - 1, at) if i < j < len(times_ns)]
        if not near or begin + WINDOW_NS > times_ns[-1]:
            continue
        j = min(near, key=lambda j: abs(times_ns[j] - begin - WINDOW_NS))
        spent = times_ns[j] - begin
        shares.append((abs(spent - WINDOW_NS), 100 * (usage_ns[j] - usage_ns[i]) / spent))
    if not shares:
        return float("nan")
    exact = [share for off, share in shares if off < 1_000_000]
    return statistics.fmean(exact or [share for _, share in shares])


def _table(found: dict[Case, Had]) -> str:
    periods = sorted({case.period_ms for case in found})
    threads = sorted({case.threads for case in found})
    header = ["asked"] + [f"{p} ms ×{t}" for p in periods for t in threads]
    lines = []
    for percent in PERCENTS:
        line = [f"{percent} %"]
        for period in periods:
            for count in threads:
                had = found.get(Case(percent, count, period))
                cell = "" if had is None else f"{had.deviation:+.2f}"
                line.append(cell if had is None or had.binding else f"({cell})")
        lines.append(line)
    return table(header, lines)
