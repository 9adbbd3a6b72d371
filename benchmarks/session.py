"""A cell in a session that is there, against the same cell in the notebook's own interpreter."""

from __future__ import annotations

import functools

from benchmarks import stats
from benchmarks.bench import Bench
from benchmarks.ours import Ours
from benchmarks.report import Report, Row, milliseconds

TITLE = "a cell in an existing session: %%container lab against the same cell of the notebook's own"
CELLS = {
    "1+1": "1+1",
    "1000 lines": "for i in range(1000):\n    print(i)",
    "a DataFrame": "import pandas as pd\npd.DataFrame({'a': range(1000)}).describe()",
    "200 ms of work": "import time\nt = time.process_time()\n"
    "while time.process_time() - t < 0.2:\n    pass",
}
TARGET_MS = 5.0
COMPARED = """\
Both by run_cell of one InteractiveShell, until it returns: the cell alone, and under %%container lab with
its output, its reading and its card shown. The value is the median of the differences, round by round,
and its 95 % interval. With "200 ms of work" the two cells' own times differ as well."""


def run(bench: Bench) -> Report:
    """Measure it."""
    report = Report("session", TITLE)
    with bench.ours() as ours:
        ours.ask(op="magic", line="create lab")
        for name, code in CELLS.items():
            contenders = {
                "session": functools.partial(_cell, ours, f"%%container lab\n{code}"),
                "notebook": functools.partial(_cell, ours, code),
            }
            rounds = stats.interleave(contenders, bench.rounds(60), label=f"session {name}")
            report.raw[name] = dict(rounds.values)
            report.rows.append(_row(name, rounds))
        ours.ask(op="magic", line="rm -f lab")
    report.details.append(COMPARED)
    return report


def _cell(ours: Ours, code: str) -> float:
    return float(ours.ask(op="notebook", code=code)["ns"])


def _row(name: str, rounds: stats.Rounds) -> Row:
    found = rounds.difference("session", "notebook")
    return Row(
        what=f"session: {name}",
        ours=milliseconds(rounds.median("session")),
        peer=f"notebook {milliseconds(rounds.median('notebook'))}",
        value=found.value / 1e6,
        low=found.low / 1e6,
        high=found.high / 1e6,
        unit="ms",
        target=TARGET_MS,
    )
