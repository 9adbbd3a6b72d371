"""Where the time of a start goes: the stages of the set-up, and the calls the user waits in."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks import roots
from benchmarks.bench import Bench
from benchmarks.report import Report, milliseconds, table
from benchmarks.stats import Progress

TITLE = "where a start's time goes (run /bin/true)"
OF_INIT = frozenset("join identity mounts pivot filesystems masks system confine".split())
"""Stages of the first process; the monitor's go on at the same time (nscontainer.engine.stages)."""
CALLS = {
    "spec": "reading the options",
    "create": "request, all of the set-up, limits armed, gate opened",
    "drive": "exec, the command, final reading, everything removed",
    "result": "the result made of the record and the samples",
}


def run(bench: Bench) -> Report:
    """Measure it."""
    report = Report("profile", TITLE)
    count = bench.rounds(40)
    with bench.ours() as ours, Progress("profile", count) as progress:
        for _ in range(2):
            ours.ask(op="stages", argv=[roots.TRUE])
        answers = []
        for _ in range(count):
            answers.append(ours.ask(op="stages", argv=[roots.TRUE]))
            progress.step()
    report.raw["runs"] = answers
    totals = [float(answer["ns"]) for answer in answers]
    whole = statistics.median(totals)
    report.details.append(f"in all {milliseconds(whole)} (least {milliseconds(min(totals))})")
    calls = {name: [float(a["calls"][name]) for a in answers] for name in CALLS}
    lines = [[name, *_figures(calls[name], whole), CALLS[name]] for name in CALLS]
    report.details.append(table(["call", "median", "least", "of all", ""], lines))
    stages = _stages(answers)
    lines = [
        [f"  {name}" if name in OF_INIT else name, *_figures(values, whole)]
        for name, values in stages.items()
    ]
    lines.append(["create, less the monitor's", *_figures(_outside(answers), whole)])
    lines.append(["the command itself", *_figures([float(a["wall_ns"]) for a in answers], whole)])
    report.details.append(table(["stage", "median", "least", "of all"], lines))
    report.details.append("indented: the first process's stages, while the monitor is in gate")
    return report


def _stages(answers: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Give each stage's times, in the order of the set-up."""
    found: dict[str, list[float]] = {}
    for answer in answers:
        for name, nanoseconds in answer["stages"]:
            found.setdefault(str(name), []).append(float(nanoseconds))
    return found


def _outside(answers: Sequence[dict[str, Any]]) -> list[float]:
    """Give what of ``create`` is in no stage of the monitor: messages, and the way to it."""
    return [
        float(a["calls"]["create"]) - sum(ns for name, ns in a["stages"] if name not in OF_INIT)
        for a in answers
    ]


def _figures(values: Sequence[float], whole: float) -> list[str]:
    median = statistics.median(values)
    return [milliseconds(median), milliseconds(min(values)), f"{100 * median / whole:.0f} %"]
