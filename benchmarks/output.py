"""Output: how soon the first line of a cell in a fresh container is here, and how fast 100 MB come."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Callable

from benchmarks import stats
from benchmarks.bench import Bench
from benchmarks.ours import Ours
from benchmarks.report import Report, Row
from benchmarks.start import compare, medians, versus

TARGET = 1.5
FLOOD_BYTES = 100_000_000
LINE_BYTES = 100
FLOOD = f"for number in range({FLOOD_BYTES // LINE_BYTES}):\n    print(f'{{number:099d}}')"
TITLE = "a cell's output: the first line from a fresh container, and 100 MB of lines"
COMPARED = """\
first line: from nscontainer.run_cell("print('hello')") until its message is here; the cell's end and the
container's removal are not in it. crun: a container of /bin/true, as in start, until it is gone.
100 MB: run_cell of a loop of print until it returns, all of it taken and the result's bound applied;
subprocess: python3 -c of the same loop into a pipe, read to its end and thrown away. That one's print
fills a buffer of 8 KiB; a cell's lines each leave at once, short of a flood."""


def run(bench: Bench) -> Report:
    """Measure it."""
    report = Report("output", TITLE)
    with bench.ours() as ours:
        timed: dict[str, Callable[[], float]] = {
            "ours": functools.partial(_ask, ours, "first"),
            "crun /bin/true": bench.bundle.run,
        }
        rounds = stats.interleave(timed, bench.rounds(40), label="output")
        report.raw["ns"] = dict(rounds.values)
        report.rows.append(compare(rounds, "ours", "crun /bin/true", "a cell's first line", TARGET))
        floods = {
            "ours": functools.partial(_ask, ours, "flood", code=FLOOD, most=FLOOD_BYTES),
            "subprocess": functools.partial(_ask, ours, "piped", code=FLOOD, most=FLOOD_BYTES),
        }
        flooded = stats.interleave(floods, max(3, bench.rounds(24) // 4), warm_up=1, label="100 MB")
    report.raw["flood_ns"] = dict(flooded.values)
    report.rows.append(_throughput(flooded))
    report.details += [medians(rounds, "ours"), COMPARED]
    return report


def _ask(ours: Ours, op: str, **request: object) -> float:
    return float(ours.ask(op=op, **request)["ns"])


def _throughput(rounds: stats.Rounds) -> Row:
    """Make the line about 100 MB: rates to read, the ratio of times to compare."""
    mine, peer = rounds.values["ours"], rounds.values["subprocess"]
    row = versus("100 MB printed", mine, "subprocess", peer, None)
    rates = [f"{FLOOD_BYTES / statistics.median(ns) * 1e3:.0f} MB/s" for ns in (mine, peer)]
    return dataclasses.replace(row, note=f"{rates[0]} against {rates[1]}")
