"""Disk speed really had, against what was asked: by O_DIRECT each way, by plain write(), by operations.

What plain write() had is what it wrote until its end: up to a quarter of a second's worth is still
on its way to the disk then (docs/adr/0024). On cgroup v2 all of it may be: there it isn't measured.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks.bench import Bench
from benchmarks.ours import OursError
from benchmarks.report import Report, Row, table
from benchmarks.stats import Progress

TITLE = "disk speed really had under --disk-read and --disk-write"
MIB = 1 << 20
RATES = (1, 5, 20, 50)
"""In MiB/s; of operations, in tens a second."""
RUN_S = 6
TARGET = 5.0
"""In % of what was asked: issue 5's."""
BLOCK: Final = {"read": 131072, "write": 131072, "buffered": 131072, "iops": 4096}
PATH: Final = "/var/tmp/nscontainer-diskrate"
CODE: Final = """
import mmap, os, sys, time
how, size, count, path = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
block = mmap.mmap(-1, size)
direct = 0 if how == "buffered" else os.O_DIRECT
if how == "read":
    fd = os.open(path, os.O_RDONLY | direct)
    for number in range(count):
        assert os.preadv(fd, [block], number * size) == size
else:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | direct, 0o600)
    for number in range(count):
        os.pwrite(fd, block, number * size)
"""


@dataclass(frozen=True, slots=True)
class Had:
    """What was had, of a way and a rate: bytes or operations a second."""

    way: str
    asked: float
    had: float

    @property
    def deviation(self) -> float:
        """In % of what was asked."""
        return 100 * (self.had / self.asked - 1)


def run(bench: Bench) -> Report:
    """Measure it."""
    report = Report("diskrate", TITLE)
    rates = RATES[1::2] if bench.quick else RATES
    ways = [way for way in BLOCK if way != "buffered" or not _is_v2()]
    found = []
    with Progress("diskrate", len(rates) * len(ways)) as progress:
        for rate in rates:
            for way in ways:
                found.append(measure(way, rate))
                progress.step()
    report.raw["cases"] = [asdict(had) for had in found]
    worst = max(found, key=lambda had: abs(had.deviation))
    report.rows.append(
        Row(
            what=f"disk rate kept, worst of {len(found)}",
            ours=_text(worst, worst.had),
            peer=f"asked {_text(worst, worst.asked)}",
            value=abs(worst.deviation),
            unit="% off",
            target=TARGET,
            note=f"{worst.way}; median of all "
            f"{statistics.median(abs(had.deviation) for had in found):.2f} % off",
        )
    )
    lines = [[_text(had, had.asked), had.way, f"{had.deviation:+.2f}"] for had in found]
    report.details.append(table(["asked", "", "% off"], lines))
    return report


def _is_v2() -> bool:
    return os.path.exists("/sys/fs/cgroup/cgroup.controllers")


def _text(had: Had, rate: float) -> str:
    return f"{rate:.0f}/s" if had.way == "iops" else f"{rate / MIB:.3g} MiB/s"


def measure(way: str, rate: int) -> Had:
    """Write or read as fast as may be, for some seconds; the quickest of two, as noise only slows."""
    asked = rate * 10 if way == "iops" else rate * MIB
    size = BLOCK[way]
    count = asked * RUN_S // (1 if way == "iops" else size)
    if way == "read":
        with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
            with open(f"{directory}/file", "wb") as file:
                file.writelines(os.urandom(size) for _ in range(count))
                os.fsync(file.fileno())
            options: dict[str, Any] = {"volumes": [f"{directory}:{PATH}:ro"], "disk_read": asked}
            wall_s = min(_once(way, size, count, f"{PATH}/file", options) for _ in range(2))
    else:
        options = {"disk_write_iops" if way == "iops" else "disk_write": asked}
        wall_s = min(_once(way, size, count, PATH, options) for _ in range(2))
    return Had(way, asked, (count if way == "iops" else count * size) / wall_s)


def _once(way: str, size: int, count: int, path: str, options: dict[str, Any]) -> float:
    import nscontainer

    command = [sys.executable, "-I", "-S", "-c", CODE, way, str(size), str(count), path]
    result = nscontainer.run(command, **options)
    if not result.ok:
        message = f"{way}: {result.stderr}"
        raise OursError(message)
    wall_s: float = result.wall_s
    return wall_s
