"""A command's start: ``nscontainer.run(["/bin/true"])`` from a warm library, and its peers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from benchmarks import roots, stats
from benchmarks.bench import Bench
from benchmarks.bundle import OPTIONS
from benchmarks.peers import PeerError, need
from benchmarks.report import Report, Row, milliseconds, table

TITLE = "a container that runs /bin/true, from the call until it is gone"
COMPARED = """\
crun: fresh mount, pid, network, ipc, uts, cgroup and user namespaces and cgroups, overlay root
mounted beforehand (so that not even the overlay's mount is on its side), no seccomp filter.
docker: the client's call to a private dockerd, --rm --network none, overlay2. bwrap: --unshare-all
on the same root, no cgroup. unshare: namespaces alone. Ours is what a caller of the library waits
for: seccomp filter, accounting, and the result with the container and its cgroups removed."""


def contenders(bench: Bench) -> tuple[dict[str, Callable[[], float]], list[str]]:
    """Give what can be timed of the peers, and why the rest can't."""
    plain = bench.bundle
    found: dict[str, Callable[[], float]] = {"crun": plain.run}
    missing = []
    limited = bench.new_bundle("limited", limits=True)
    found["crun, limits"] = limited.run
    makers: dict[str, Callable[[], Callable[[], float]]] = {
        "docker": lambda: _timed(bench, bench.docker.command("true", roots.TRUE)),
        "crun and an overlay": lambda: bench.new_bundle("fresh", fresh_overlay=True).run,
        "crun, no user namespace": lambda: bench.new_bundle("nouser", user_namespace=False).run,
        "runc": lambda: lambda: plain.run("runc"),
        "bwrap": lambda: _timed(bench, _bwrap(plain.overlay["merged"])),
        "unshare": lambda: _timed(bench, [need("unshare"), "-fpmniuC", roots.TRUE]),
        "no container": lambda: _timed(bench, [roots.TRUE]),
    }
    for name, make in makers.items():
        try:
            measure = make()
            measure()
        except PeerError as error:
            missing.append(f"{name}: {error}")
        else:
            found[name] = measure
    return found, missing


def _timed(bench: Bench, words: list[str]) -> Callable[[], float]:
    return lambda: bench.timer.time(words)


def _bwrap(root: str) -> list[str]:
    covers = ["--proc", "/proc", "--dev", "/dev"]
    return [need("bwrap"), "--unshare-all", "--bind", root, "/", *covers, roots.TRUE]


def run(bench: Bench) -> Report:
    """Measure it."""
    report = Report("start", TITLE)
    peers, missing = contenders(bench)
    with bench.ours() as ours:
        timed: dict[str, Callable[[], float]] = {
            "ours": lambda: ours.run([roots.TRUE]),
            "ours, limits": lambda: ours.run([roots.TRUE], **OPTIONS),
            **peers,
        }
        rounds = stats.interleave(timed, bench.rounds(40), label="start")
    report.raw["ns"] = dict(rounds.values)
    targets = [
        ("ours", "crun", 1.0),
        ("ours, limits", "crun, limits", 1.0),
        ("ours", "docker", 0.04),
    ]
    for mine, peer, target in targets:
        if peer in rounds.values:
            report.rows.append(compare(rounds, mine, peer, "run /bin/true", target))
    report.details.append(medians(rounds, "ours"))
    report.details += [COMPARED, *(f"not measured: {line}" for line in missing)]
    return report


def compare(rounds: stats.Rounds, mine: str, peer: str, what: str, target: float | None) -> Row:
    """Make a line of a ratio of times."""
    label = mine.removeprefix("ours")
    return versus(f"{what}{label}", rounds.values[mine], peer, rounds.values[peer], target)


def versus(
    what: str, ours: Sequence[float], name: str, peer: Sequence[float], target: float | None
) -> Row:
    """Make a line of the ratio of two medians of times."""
    ratio = stats.ratio_of_medians(ours, peer)
    return Row(
        what=what,
        ours=milliseconds(statistics.median(ours)),
        peer=f"{name} {milliseconds(statistics.median(peer))}",
        value=ratio.value,
        low=ratio.low,
        high=ratio.high,
        target=target,
    )


def medians(rounds: stats.Rounds, reference: str) -> str:
    """Lay out every contender's median, quartiles and least, fastest first."""
    lines = []
    for name in sorted(rounds.values, key=rounds.median):
        low, high = rounds.spread(name)
        lines.append(
            [
                name,
                milliseconds(rounds.median(name)),
                f"{milliseconds(low)} … {milliseconds(high)}",
                milliseconds(min(rounds.values[name])),
                f"{rounds.median(reference) / rounds.median(name):.3g}",
            ]
        )
    return table(["", "median", "quartiles", "least", f"{reference} / it"], lines)
