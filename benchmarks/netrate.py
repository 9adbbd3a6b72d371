"""Network speed really had, against what was asked, by iperf3's receiver.

TCP's payload is 1448 of the 1514 bytes that a packet is on the wire, and the rate is of the latter. From the
first byte to the last: the burst and the time that TCP needs to find its speed are in it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from benchmarks.bench import Bench
from benchmarks.ours import OursError
from benchmarks.report import Report, Row, table
from benchmarks.stats import Progress

TITLE = "network speed really had under --net-rate"
MBITS = (1, 10, 100, 1000)
PAYLOAD = 1448 / 1514
RUN_S = 8
PORT = 5399
TARGET = 5.0
"""In % of what was asked: issue 5's."""


@dataclass(frozen=True, slots=True)
class Had:
    """What was had, of a rate and a direction."""

    mbit: int
    direction: str
    had_mbit: float
    lost: int
    """Packets that the full queue lost."""

    @property
    def deviation(self) -> float:
        """In % of what was asked."""
        return 100 * (self.had_mbit / self.mbit - 1)


def run(bench: Bench) -> Report:
    """Measure it."""
    report = Report("netrate", TITLE)
    rates = MBITS[1::2] if bench.quick else MBITS
    todo = [(mbit, direction) for mbit in rates for direction in ("rx", "tx")]
    found = []
    with Progress("netrate", len(todo)) as progress:
        for mbit, direction in todo:
            found.append(measure(mbit, direction))
            progress.step()
    report.raw["cases"] = [asdict(had) for had in found]
    worst = max(found, key=lambda had: abs(had.deviation))
    report.rows.append(
        Row(
            what=f"network rate kept, worst of {len(found)}",
            ours=f"{worst.had_mbit:.4g} Mbit/s",
            peer=f"asked {worst.mbit} Mbit/s",
            value=abs(worst.deviation),
            unit="% off",
            target=TARGET,
            note=f"{worst.direction}; median of all "
            f"{statistics.median(abs(had.deviation) for had in found):.2f} % off",
        )
    )
    lines = [
        [f"{had.mbit} Mbit/s", had.direction, f"{had.deviation:+.2f}", str(had.lost)]
        for had in found
    ]
    report.details.append(table(["asked", "", "% off", "packets lost"], lines))
    return report


def measure(mbit: int, direction: str) -> Had:
    """Let one TCP stream go as fast as it can, for some seconds."""
    import nscontainer

    find = "$(ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p')"
    reverse = "-R" if direction == "rx" else ""
    with _server():
        result = nscontainer.run(
            ["sh", "-c", f"exec iperf3 -J -t {RUN_S} -p {PORT} {reverse} -c {find}"],
            network="bridge",
            net_rate=f"{mbit}mbit",
        )
    if not result.ok:
        message = f"iperf3: {result.stdout or result.stderr}"
        raise OursError(message)
    told = json.loads(result.stdout)["end"]["sum_received"]
    lost = result.record["network_shaping"][direction]["dropped"]
    return Had(mbit, direction, told["bits_per_second"] / 1e6 / PAYLOAD, lost)


@contextmanager
def _server() -> Iterator[None]:
    try:
        server = subprocess.Popen(
            ["iperf3", "-s", "-1", "-p", str(PORT)], stdout=subprocess.DEVNULL
        )
    except FileNotFoundError:
        message = "iperf3 isn't here"
        raise OursError(message) from None
    try:
        time.sleep(0.3)  # it says nothing to a pipe before its first client
        yield
    finally:
        server.kill()
        server.wait()
