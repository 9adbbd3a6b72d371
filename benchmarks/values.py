"""An array of float64 into a cell and out of one, against a copy of the same within the process."""

from __future__ import annotations

import functools

from benchmarks import stats
from benchmarks.bench import Bench
from benchmarks.bigparent import available_bytes
from benchmarks.report import Report, milliseconds
from benchmarks.start import versus

FULL_BYTES, QUICK_BYTES = 1_000_000_000, 125_000_000
TARGET = 1.5
TITLE = "an array of 1 GB into a cell and out of one (125 MB with --quick)"
COMPARED = """\
copy: numpy's x.copy(). in: run_cell("import numpy; x.sum()", inputs={"x": x}) less run_cell("import
numpy"): until the last byte was read inside. out: run_cell("import numpy; x = numpy.ones(n)",
out={"x": "x"}) and the sum of what came, less the same cell without out: until the last byte was
read here. copy in a cell: the same cell with y = x.copy(), less that without. Reading it once, x.sum() here, is in ours and not in the copy."""


def run(bench: Bench) -> Report:
    """Measure it."""
    report = Report("values", TITLE)
    size = QUICK_BYTES if bench.quick else FULL_BYTES
    if available_bytes() < 6 * size:
        report.missing = (
            f"it needs {6 * size / 1e9:.1f} GB, and {available_bytes() / 1e9:.1f} are free"
        )
        return report
    names = ("copy", "sum", "cell", "in", "made", "copied", "out")
    with bench.ours() as ours:
        timed = {name: functools.partial(ours.values, name, size) for name in names}
        rounds = stats.interleave(timed, bench.rounds(12), label="values")
    report.raw["ns"] = dict(rounds.values)
    what = f"{size / 1e6:.0f} MB of float64"
    copy, copied = rounds.values["copy"], _less(rounds, "copied", "made")
    report.rows = [
        versus(f"{what} in", _less(rounds, "in", "cell"), "copy", copy, TARGET),
        versus(f"{what} out", _less(rounds, "out", "made"), "copy", copy, TARGET),
        versus(f"{what} out", _less(rounds, "out", "made"), "copy in a cell", copied, None),
    ]
    medians = (f"{name} {milliseconds(rounds.median(name))}" for name in names)
    report.details += [f"medians: {', '.join(medians)}", COMPARED]
    return report


def _less(rounds: stats.Rounds, name: str, base: str) -> tuple[float, ...]:
    """Give what a contender took beyond another, round by round."""
    pairs = zip(rounds.values[name], rounds.values[base], strict=True)
    return tuple(one - other for one, other in pairs)
