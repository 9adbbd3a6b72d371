"""A Python cell in a fresh container, from the magic's call to its return."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import roots, stats
from benchmarks.bench import Bench
from benchmarks.peers import PeerError
from benchmarks.report import Report
from benchmarks.start import compare, medians

CODE = "1+1"
TITLE = "a Python cell in a fresh container: %%container in an InteractiveShell, cell 1+1"
COMPARED = """\
crun: a container of /bin/true, as in start. docker: docker run --rm --network none of python3 -c
with this very Python in its image. Ours: run_cell_magic("container", "", "1+1") until it returns,
the cell's value shown and the container gone; the zygote has IPython loaded, the docker has not."""


def run(bench: Bench) -> Report:
    """Measure it."""
    report = Report("cell", TITLE)
    timed: dict[str, Callable[[], float]] = {"crun /bin/true": bench.bundle.run}
    try:
        words = bench.docker.command("python", roots.python_program(), "-c", CODE)
        timed["docker python3 -c"] = lambda: bench.timer.time(words)
    except PeerError as error:
        report.details.append(f"not measured: docker: {error}")
    timed["python3 -c"] = lambda: bench.timer.time([roots.python_program(), "-c", CODE])
    with bench.ours() as ours:
        timed = {"ours": lambda: ours.cell(CODE), **timed}
        rounds = stats.interleave(timed, bench.rounds(40), label="cell")
    report.raw["ns"] = dict(rounds.values)
    for peer, target in (("crun /bin/true", 1.5), ("docker python3 -c", 0.05)):
        if peer in rounds.values:
            report.rows.append(compare(rounds, "ours", peer, "a cell", target))
    report.details += [medians(rounds, "ours"), COMPARED]
    return report
