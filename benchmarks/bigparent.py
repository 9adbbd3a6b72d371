"""A start from a process that holds much memory, against the same from one that holds little."""

from __future__ import annotations

from benchmarks import roots, stats
from benchmarks.bench import Bench
from benchmarks.report import Report, Row, milliseconds
from benchmarks.start import medians

SMALL_BYTES, BIG_BYTES = 50_000_000, 2_000_000_000
TARGET = 1.2
TITLE = "starts from a process that holds 2 GB of touched memory, and from one with 50 MB"


def run(bench: Bench) -> Report:
    """Measure it."""
    report = Report("bigparent", TITLE)
    available = available_bytes()
    if available < 2 * BIG_BYTES:
        report.missing = (
            f"it needs {2 * BIG_BYTES / 1e9:.0f} GB, and {available / 1e9:.1f} are free"
        )
        return report
    with (
        bench.ours(holding_bytes=SMALL_BYTES) as small,
        bench.ours(holding_bytes=BIG_BYTES) as big,
    ):
        sizes = f"{small.rss_bytes / 1e6:.0f} MB and {big.rss_bytes / 1e6:.0f} MB resident"
        timed = {
            "run, 50 MB": lambda: small.run([roots.TRUE]),
            "run, 2 GB": lambda: big.run([roots.TRUE]),
            "cell, 50 MB": lambda: small.cell("1+1"),
            "cell, 2 GB": lambda: big.cell("1+1"),
        }
        rounds = stats.interleave(timed, bench.rounds(40), label="bigparent")
    report.raw["ns"] = dict(rounds.values)
    for what, name in (("run /bin/true", "run"), ("a cell", "cell")):
        ratio = rounds.ratio(f"{name}, 2 GB", f"{name}, 50 MB")
        report.rows.append(
            Row(
                what=f"{what} from a process of 2 GB",
                ours=milliseconds(rounds.median(f"{name}, 2 GB")),
                peer=f"from 50 MB {milliseconds(rounds.median(f'{name}, 50 MB'))}",
                value=ratio.value,
                low=ratio.low,
                high=ratio.high,
                target=TARGET,
            )
        )
    report.details += [medians(rounds, "run, 2 GB"), sizes]
    return report


def available_bytes() -> int:
    """Give how much memory could be used without swapping."""
    with open("/proc/meminfo", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["MemAvailable"].split()[0]) * 1024
