"""What sampling costs: the monitor's own CPU time, and the workload's."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import stats
from benchmarks.bench import Bench
from benchmarks.report import Report, Row

TITLE = "what sampling every 20 ms costs"
SAMPLE_S = 0.02
SHARE_TARGET = 0.5
STEPS = 300_000_000
"""About half a second of work."""


def run(bench: Bench) -> Report:
    """Measure it."""
    report = Report("sampling", TITLE)
    seconds = 5.0 if bench.quick else 20.0
    for what, command in (
        ("an idle container", ["sleep", str(seconds + 2)]),
        ("2 spinning threads", bench.workload.threads(2, seconds + 2)),
    ):
        share, samples, missed = monitor_share(bench, command, seconds)
        report.raw[what] = {"percent": share, "samples": samples, "missed": missed}
        report.rows.append(
            Row(
                what=f"monitor of {what}",
                ours=f"{share / 100 * SAMPLE_S * 1e6:.0f} µs a sample",
                peer="",
                value=share,
                unit="% CPU",
                target=SHARE_TARGET,
                note=f"{samples} samples in {seconds:.0f} s, {missed} missed",
            )
        )
    report.rows.append(workload_time(bench, report))
    return report


def monitor_share(bench: Bench, command: list[str], seconds: float) -> tuple[float, int, int]:
    """Give a monitor's CPU share in %, and the samples it took and missed, over that time."""
    from nscontainer.engine.container import Container
    from nscontainer.schema import ROW_BYTES
    from nscontainer.spec import build

    spec = build(command, sample=SAMPLE_S, **bench.workload.options)
    container = Container.create(spec)
    try:
        container.start()
        pid = int(container.inspect()["monitor_pid"])
        time.sleep(0.5)  # its own start is not sampling
        rows_before = len(container.samples()) // ROW_BYTES
        used_before, begin = _cpu_ns(pid), time.monotonic_ns()
        time.sleep(seconds)
        used, spent = _cpu_ns(pid) - used_before, time.monotonic_ns() - begin
        rows = len(container.samples()) // ROW_BYTES - rows_before
    finally:
        container.kill()
        record = container.wait(10)
    return 100 * used / spent, rows, int(record["missed_samples"])


def _cpu_ns(pid: int) -> int:
    """Give a process's CPU time: of the scheduler's own book, for /proc/PID/stat counts in ticks."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0])
    except FileNotFoundError:  # a Linux without CONFIG_SCHED_INFO
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) * 10_000_000


def workload_time(bench: Bench, report: Report) -> Row:
    """Compare a fixed piece of work's own CPU time, sampled every 20 ms and every 10 s.

    The third contender is the second once more: what differs between these two is noise.
    """
    import nscontainer

    def measure(sample_s: float) -> float:
        result = nscontainer.run(
            bench.workload.steps(STEPS), sample=sample_s, **bench.workload.options
        )
        return float(result.totals["cpuacct.usage"] or 0)

    rounds = stats.interleave(
        {
            "20 ms": lambda: measure(SAMPLE_S),
            "10 s": lambda: measure(10.0),
            "10 s again": lambda: measure(10.0),
        },
        bench.rounds(40),
        label="sampling",
    )
    report.raw["cpu_ns"] = dict(rounds.values)
    ratio, noise = rounds.ratio("20 ms", "10 s"), rounds.ratio("10 s again", "10 s")
    width = max(noise.high - 1, 1 - noise.low)
    report.details.append(
        f"noise: the same work at 10 s, measured twice, differs by {noise.value:.4f} × "
        f"({noise.low:.4f} … {noise.high:.4f}); at 20 ms it is {ratio.value:.4f} × "
        f"({ratio.low:.4f} … {ratio.high:.4f})"
    )
    return Row(
        what="workload's CPU time, at 20 ms",
        ours=f"{rounds.median('20 ms') / 1e9:.4f} s",
        peer=f"at 10 s {rounds.median('10 s') / 1e9:.4f} s",
        value=abs(ratio.value - 1) * 100,
        low=max(0.0, ratio.low - 1, 1 - ratio.high) * 100,
        high=max(ratio.high - 1, 1 - ratio.low) * 100,
        unit="% more",
        target=width * 100,
        note=f"the target is the noise of two equal runs: {width * 100:.2f} %",
    )
