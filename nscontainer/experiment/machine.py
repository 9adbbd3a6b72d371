"""What the machine did beside a sweep's runs, as warnings: one rule for each thing that misleads."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any, Final

from nscontainer import units
from nscontainer.experiment.sweep import Run, Sweep
from nscontainer.measure.run_warnings import STEAL_SHARE, RunWarning
from nscontainer.measure.text import percent, plural, text_of

OTHERS_CPUS: Final = 0.10
"""So much of a CPU is more than a desktop at rest and the sweep's own watching take."""
CLOCK_SPREAD: Final = 0.05
SWAPPED_PAGES: Final = 256
"""1 MiB: less may be any daemon's."""


def _limits(sweep: Sweep) -> Iterator[RunWarning]:
    found = [run for run in sweep.runs if run.result.limits.differs]
    if found:
        row = next(row for row in found[0].result.limits.rows() if row.differs)
        yield RunWarning(
            "limits-differ",
            "error",
            f"in {_of(found, sweep)} a limit was not as asked: {row.label} {row.asked or 'no limit'} asked, "
            f"{row.read_back or 'nothing'} read back; see limits_differ in .summary",
            {"runs": len(found)},
        )


def _ladder(sweep: Sweep) -> Iterator[RunWarning]:
    """Say what runs were, where they were less than asked or no containers at all."""
    for code, text in (
        ("not-isolated", "wholly or in part not isolated; see isolation of each result"),
        ("best-effort", "without something that was asked for; see limits of each result"),
    ):
        found = [run for run in sweep.runs if any(w.code == code for w in run.result.warnings)]
        if found:
            yield RunWarning(
                code, "warning", f"{_of(found, sweep)} ran {text}", {"runs": len(found)}
            )


def _parent(sweep: Sweep) -> Iterator[RunWarning]:
    """Say where a run's own quota wasn't the lowest."""
    found = [
        (warning.figures["parents_cpus"], run)
        for run in sweep.runs
        for warning in run.result.warnings
        if warning.code == "parent-quota"
    ]
    if found:
        least = min(parents for parents, _ in found)
        runs = [run for _, run in found]
        yield RunWarning(
            "parent-quota",
            "warning",
            f"a parent cgroup allowed {units.format_cpu(least)} of a CPU in {_of(runs, sweep)}, less than "
            "was asked: sweep below that, or run outside of it",
            {"parents_cpus": least, "runs": len(found)},
        )


def _hosts(sweep: Sweep) -> Iterator[RunWarning]:
    hosts = sorted({run.host for run in sweep.runs})
    if len(hosts) < 2:
        return
    seen = {(run.host, run.turn.point) for run in sweep.runs}
    points = {run.turn.point for run in sweep.runs}
    mixed = len(seen) == len(hosts) * len(points)
    advice = "compare only what ran on one of them" if not mixed else "see host in .summary"
    yield RunWarning(
        "hosts",
        "info" if mixed else "warning",
        f"ran on {len(hosts)} machines ({text_of(', '.join(hosts), 60)})"
        f"{'' if mixed else ', and not every level on each'}: {advice}",
        {"hosts": hosts},
    )


def _steal(sweep: Sweep) -> Iterator[RunWarning]:
    found = [run for run in sweep.runs if (run.conditions.steal_share or 0) > STEAL_SHARE]
    if found:
        most = max(run.conditions.steal_share or 0 for run in found)
        yield RunWarning(
            "steal",
            "warning",
            f"the hypervisor took up to {percent(most)} of the CPU time in {_of(found, sweep)}: "
            "repeat, compare CPU times",
            {"share": most, "runs": len(found)},
        )


def _thermal(sweep: Sweep) -> Iterator[RunWarning]:
    found = [run for run in sweep.runs if run.conditions.thermal_throttles]
    if found:
        count = sum(run.conditions.thermal_throttles or 0 for run in found)
        yield RunWarning(
            "thermal",
            "warning",
            f"a CPU was slowed down for its heat {plural(count, 'time')} in {_of(found, sweep)}: cool it, "
            "pause, or set a lower clock",
            {"throttles": count, "runs": len(found)},
        )


def _governor(sweep: Sweep) -> Iterator[RunWarning]:
    """Say where the clock follows the load, and so is another for each quota."""
    found = sorted({run.conditions.governor for run in sweep.runs if run.conditions.governor})
    if found and found != ["performance"]:
        varied = len(found) > 1
        yield RunWarning(
            "governor",
            "warning" if varied else "info",
            f"the CPU governor {'changed' if varied else 'is'} ({text_of(', '.join(found), 60)}): the clock may "
            "follow the load; set performance, as by cpupower frequency-set -g performance",
            {"governors": found},
        )


def _clock(sweep: Sweep) -> Iterator[RunWarning]:
    found = [run.conditions.mhz for run in sweep.runs if run.conditions.mhz]
    if len(found) < 2:
        return
    spread = (max(found) - min(found)) / median(found)
    if spread > CLOCK_SPREAD and len({run.host for run in sweep.runs}) == 1:
        yield RunWarning(
            "clock-varies",
            "info",
            f"the CPUs' clock was between {min(found):.0f} and {max(found):.0f} MHz: fix it, or repeat more",
            {"spread": spread},
        )


def _swap(sweep: Sweep) -> Iterator[RunWarning]:
    def pages(run: Run) -> int:
        return (run.conditions.swap_in_pages or 0) + (run.conditions.swap_out_pages or 0)

    found = [run for run in sweep.runs if pages(run) >= SWAPPED_PAGES]
    if found:
        yield RunWarning(
            "swap",
            "warning",
            f"the machine was swapping in {_of(found, sweep)}: end what holds the memory, or set --memory "
            "below what is free",
            {"runs": len(found), "pages": sum(map(pages, found))},
        )


def _others(sweep: Sweep) -> Iterator[RunWarning]:
    """Say what competed; of runs side by side, the others are meant to be there."""
    if sweep.plan.parallel > 1:
        return
    found = [run for run in sweep.runs if (run.conditions.other_cpus or 0) > OTHERS_CPUS]
    if found:
        most = max(run.conditions.other_cpus or 0 for run in found)
        middle = median(run.conditions.other_cpus or 0 for run in found)
        yield RunWarning(
            "competing-load",
            "warning",
            f"others used {middle:.2f} CPUs (up to {most:.2f}) in {_of(found, sweep)}: end them, or give the runs "
            "CPUs of their own by --cpuset-cpus",
            {"cpus": middle, "most": most, "runs": len(found)},
        )


def _of(found: list[Run], sweep: Sweep) -> str:
    return f"{len(found)} of {plural(len(sweep.runs), 'run')}"


def _recorded(sweep: Sweep) -> Iterator[RunWarning]:
    if sweep.recorded is not None:
        yield RunWarning(
            "recorded",
            "info",
            f"{text_of(sweep.recorded, 120)}: not run here; rerun it to have this machine's figures",
            {"host": sweep.facts.get("host")},
        )


RULES: Final[tuple[Any, ...]] = (
    _limits,
    _ladder,
    _parent,
    _hosts,
    _steal,
    _thermal,
    _governor,
    _clock,
    _swap,
    _others,
    _recorded,
)
