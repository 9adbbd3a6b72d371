"""An ordinary user's container against root's: the same command, and the same cell."""

from __future__ import annotations

from benchmarks import roots, stats
from benchmarks.bench import Bench
from benchmarks.ours import Ours
from benchmarks.report import Report
from benchmarks.start import medians, versus
from tests import ordinary

TITLE = "an ordinary user's container against root's, from the call until it is gone"
TARGET = 1.3
COMPARED = """\
Each in a process with the warm library, in turn; the user has subordinate ids and no cgroup, so there is no
accounting on that side. "made anew": no container stands by."""


def run(bench: Bench) -> Report:
    """Measure it."""
    report = Report("rootless", TITLE)
    with (
        ordinary.person() as one,
        bench.ours() as root,
        Ours(become=one.command) as user,
        bench.ours(standby=False) as root_anew,
        Ours(
            standby=False, become=lambda words: one.command(words, {"NSCONTAINER_STANDBY": "0"})
        ) as anew,
    ):
        contenders = {
            "user": lambda: user.run([roots.TRUE]),
            "root": lambda: root.run([roots.TRUE]),
            "user, made anew": lambda: anew.run([roots.TRUE]),
            "root, made anew": lambda: root_anew.run([roots.TRUE]),
            "user, a cell": lambda: user.cell("1+1"),
            "root, a cell": lambda: root.cell("1+1"),
        }
        rounds = stats.interleave(contenders, bench.rounds(40), label="rootless")
    report.raw["ns"] = dict(rounds.values)
    for kind in ("", ", made anew", ", a cell"):
        ours, peer = rounds.values[f"user{kind}"], rounds.values[f"root{kind}"]
        report.rows.append(versus(f"rootless{kind}", ours, "root", peer, TARGET))
    report.details += [medians(rounds, "root"), COMPARED]
    return report
