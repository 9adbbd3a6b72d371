"""A bridged container's start: ``--network bridge`` beside ``--network none`` and ``docker run``."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import roots, stats
from benchmarks.bench import Bench
from benchmarks.peers import PeerError
from benchmarks.report import Report
from benchmarks.start import compare, medians

TITLE = (
    "a container on a bridge that runs /bin/true, from the call until it and its interface are gone"
)
COMPARED = """\
Ours by two warm libraries, one for each kind, as a container of the last kind stands by. "made on
request": the same with NSCONTAINER_STANDBY=0, every veth made while the caller waits. docker: a private
dockerd in a network namespace of its own, its default bridge, --iptables=false (so without the rules that
ours has), docker run --rm --network bridge."""


def run(bench: Bench) -> Report:
    """Measure it."""
    report = Report("network", TITLE)
    timed: dict[str, Callable[[], float]] = {}
    missing = []
    try:
        daemon = bench.bridged_docker
        words = daemon.command("true", roots.TRUE, network="bridge")
        bench.timer.time(words)
        timed["docker"] = lambda: bench.timer.time(words)
    except PeerError as error:
        missing.append(f"not measured: docker: {error}")
    with (
        bench.ours() as none,
        bench.ours() as bridged,
        bench.ours(standby=False) as slow_none,
        bench.ours(standby=False) as slow_bridged,
    ):
        timed |= {
            "none": lambda: none.run([roots.TRUE]),
            "ours": lambda: bridged.run([roots.TRUE], network="bridge"),
            "none, made on request": lambda: slow_none.run([roots.TRUE]),
            "ours, made on request": lambda: slow_bridged.run([roots.TRUE], network="bridge"),
        }
        rounds = stats.interleave(timed, bench.rounds(40), label="network")
    report.raw["ns"] = dict(rounds.values)
    targets = [("ours", "none", 1.5), ("ours", "docker", 0.1)]
    for mine, peer, target in targets:
        if peer in rounds.values:
            report.rows.append(compare(rounds, mine, peer, "run /bin/true on a bridge", target))
    peer = "none, made on request"
    report.rows.append(
        compare(rounds, "ours, made on request", peer, "run /bin/true on a bridge", None)
    )
    report.details += [medians(rounds, "ours"), COMPARED, *missing]
    return report
