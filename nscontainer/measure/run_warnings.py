"""What a reader of a run's figures ought to know before believing them, as data.

Each rule is a function; each ends in what to do about it. The magics and the card show them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from nscontainer import ladder, units
from nscontainer.measure import network_warnings
from nscontainer.measure.text import percent, plural, size, text_of
from nscontainer.spec import PERIOD_US

if TYPE_CHECKING:
    from nscontainer.measure.result import RunResult

THROTTLED_SHARE: Final = 0.1
"""Throttled in less than this part of its periods, a quota did not set the pace."""
STEAL_SHARE: Final = 0.02
STEAL_LEAST_S: Final = 0.05
"""/proc/stat counts it in ticks of 10 ms: less than some of them is no measurement."""
FEWEST_PERIODS: Final = 20
"""A spinner may overrun a tick per CPU and period and pays it back: see over how many."""
OVERRUN: Final = 1.01
MISSED_SHARE: Final = 0.05
STORAGE_FULL_SHARE: Final = 0.002
STORAGE_FULL_BYTES: Final = 1 << 16
"""With no more than this left, or this part of it, a layer is full: a file of any size doesn't go in."""


@dataclass(frozen=True)
class RunWarning:
    """One thing to know about a run.

    Attributes
    ----------
    code
        What it is, in a word that stays: ``throttled``, ``steal``, ``limit-differs`` ...
    severity
        ``error``: the run was not what was asked for; ``warning``: its figures may mislead;
        ``info``: good to know.
    message
        One line that ends in advice, where there is some.
    figures
        The numbers that it rests on.
    """

    code: str
    severity: Literal["error", "warning", "info"]
    message: str
    figures: Mapping[str, Any] = field(default_factory=dict, hash=False)


def find(run: RunResult) -> tuple[RunWarning, ...]:
    """Give every warning of a run, the gravest first."""
    order = {"error": 0, "warning": 1, "info": 2}
    found = [warning for rule in RULES for warning in rule(run)]
    return tuple(sorted(found, key=lambda warning: order[warning.severity]))


def _oom(run: RunResult) -> Iterator[RunWarning]:
    kills = run.totals["memory.oom_kill"]
    if run.oom_killed or kills:
        limit = run.limits.in_force.memory_bytes
        where = f" at {size(limit)}" if limit is not None and limit >= 0 else ""
        count = plural(int(kills), "process", "processes") if kills else "a process"
        yield RunWarning(
            "oom-kill",
            "error",
            f"out of memory{where}: Linux killed {count}; give it more --memory",
            {"oom_kill": kills, "limit_bytes": limit, "peak_bytes": run.totals["memory.peak"]},
        )


def _limits(run: RunResult) -> Iterator[RunWarning]:
    limits = run.limits
    doublings = limits.period_doublings
    for row in limits.rows():
        if not row.differs:
            continue
        figures = {"limit": row.name, "asked": row.asked, "read_back": row.read_back}
        if row.name == "cpu" and doublings:
            yield RunWarning(
                "period-doubled",
                "warning",
                f"Linux doubled the CPU period {_times(doublings)} (its timer was late): now "
                f"{row.read_back}; use a longer --cpu-period",
                figures | {"doublings": doublings},
            )
        elif row.read_back is None:
            yield RunWarning(
                "limit-unread",
                "error",
                f"{row.label} {row.asked} was asked for but could not be read back: don't rely on it",
                figures,
            )
        else:
            yield RunWarning(
                "limit-differs",
                "error",
                f"{row.label}: {row.asked or 'no limit'} was asked for, "
                f"but {row.read_back} was read back",
                figures,
            )


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _parent(run: RunResult) -> Iterator[RunWarning]:
    parents, own = run.record["parents_quota"], run.limits.read_back.cpus
    if parents is not None and (own is None or parents < own):
        yield RunWarning(
            "parent-quota",
            "warning",
            f"a parent cgroup allows {units.format_cpu(parents)} of a CPU, and its throttling is "
            "not counted here",
            {"parents_cpus": parents, "own_cpus": own},
        )


def _throttled(run: RunResult) -> Iterator[RunWarning]:
    share = run.totals["throttled_share"]
    if share is not None and share >= THROTTLED_SHARE:
        periods, throttled = run.totals["cpu.nr_periods"], run.totals["cpu.nr_throttled"]
        cpus = run.limits.in_force.cpus or run.limits.read_back.cpus
        quota = f" of {units.format_cpu(cpus)}" if cpus is not None else ""
        yield RunWarning(
            "throttled",
            "info",
            f"throttled in {throttled} of {plural(int(periods or 0), 'period')}: the CPU quota{quota} set its pace",
            {"share": share, "nr_throttled": throttled, "nr_periods": periods, "cpus": cpus},
        )


def _short(run: RunResult) -> Iterator[RunWarning]:
    limits = run.limits.in_force
    if limits.cpus is None:
        return
    period_s = (limits.cpu_period_us or PERIOD_US) / 1e6
    counted = run.totals["cpu.nr_periods"]
    periods = counted if counted is not None else int(run.wall_s / period_s)
    if periods < FEWEST_PERIODS:
        yield RunWarning(
            "short-run",
            "warning",
            f"only {plural(int(periods), 'quota period')} of {units.format_seconds(period_s)}: "
            f"to judge the quota, run for {FEWEST_PERIODS} or more",
            {"nr_periods": periods, "period_s": period_s},
        )


def _overrun(run: RunResult) -> Iterator[RunWarning]:
    """More CPU than the quota lets through, over enough periods to say so."""
    limits, used_s = run.limits.asked, run.cpu_s
    periods = run.totals["cpu.nr_periods"] or 0
    if limits.cpus is None or used_s is None or run.limits.changes or limits.cpu_burst_us:
        return
    # A quota that has just been set may be had once more before its first period is over.
    most_s = limits.cpus * (run.wall_s + 2 * (limits.cpu_period_us or PERIOD_US) / 1e6) * OVERRUN
    if periods >= FEWEST_PERIODS and used_s > most_s:
        share = used_s / run.wall_s
        yield RunWarning(
            "quota-overrun",
            "warning",
            f"had {percent(share)} of a CPU, more than its quota of "
            f"{units.format_cpu(limits.cpus)}",
            {"cpu_share": share, "cpus": limits.cpus},
        )


def _steal(run: RunResult) -> Iterator[RunWarning]:
    steal_s, cpus = run.totals["steal_s"], run.record["host_cpus"]
    if steal_s is None or not cpus or run.wall_s <= 0:
        return
    share = steal_s / (run.wall_s * cpus)
    if share > STEAL_SHARE and steal_s >= STEAL_LEAST_S:
        yield RunWarning(
            "steal",
            "warning",
            f"the hypervisor took {percent(share)} of this machine's CPU time meanwhile: repeat, "
            "compare CPU times",
            {"share": share, "steal_s": steal_s, "host_cpus": cpus},
        )


def _swap(run: RunResult) -> Iterator[RunWarning]:
    used, total = run.provenance.swap_used_bytes, run.provenance.swap_total_bytes
    if not used:
        return
    limited = run.limits.in_force.memory_bytes is not None
    unlimited_swap = limited and run.limits.read_back.memory_swap_bytes in (None, -1)
    end = (
        "this run's limit does not hold its swap: it may have had more memory than that"
        if unlimited_swap
        else "times may vary with what has to be read back from disk"
    )
    yield RunWarning(
        "host-swap",
        "warning" if unlimited_swap else "info",
        f"the host was using {units.format_size(used)} of swap: {end}",
        {"swap_used_bytes": used, "swap_total_bytes": total},
    )


def _at_limit(run: RunResult) -> Iterator[RunWarning]:
    hits = run.totals["memory.failcnt"]
    if hits and not run.oom_killed:
        yield RunWarning(
            "memory-at-limit",
            "warning",
            f"hit its memory limit {plural(int(hits), 'time')}: reclaim slowed it; "
            "try more --memory",
            {"failcnt": hits, "peak_bytes": run.totals["memory.peak"]},
        )


def _missed(run: RunResult) -> Iterator[RunWarning]:
    missed = run.record["missed_samples"]
    if missed:
        share = missed / (missed + run.sample_count)
        yield RunWarning(
            "missed-samples",
            "warning" if share > MISSED_SHARE else "info",
            f"{missed} of {missed + run.sample_count} samples missed: totals are exact, the "
            "curve has gaps; try a longer --sample",
            {"missed": missed, "share": share},
        )


def _zygote(run: RunResult) -> Iterator[RunWarning]:
    limit = run.limits.in_force.memory_bytes
    if run.start_mode == "zygote" and limit is not None and limit >= 0:
        yield RunWarning(
            "zygote-memory",
            "info",
            "started from the warm Python, whose memory is not counted here; --cold counts it all",
            {"limit_bytes": limit},
        )


def _network(run: RunResult) -> Iterator[RunWarning]:
    if run.isolation.network == "host" and run.isolation.confined:
        yield RunWarning(
            "network-host",
            "info",
            "network host: its traffic is neither limited nor told from the host's",
        )


def _network_limits(run: RunResult) -> Iterator[RunWarning]:
    for held in network_warnings.held(run):
        yield RunWarning(
            "network-limited",
            "info",
            held.message,
            {
                "direction": held.direction,
                "at_limit_s": held.at_limit_s,
                "bps": held.bps,
                "dropped": held.dropped,
            },
        )


def _escaped_writes(run: RunResult) -> Iterator[RunWarning]:
    """Say that on v1 nothing holds (nor counts) what Linux writes back later."""
    escaped = run.record.get("escaped_writes")
    if escaped is None:
        return
    where = "buffered writes to its volumes" if escaped == "volumes" else "its buffered writes"
    advice = (
        "write into the container instead, or with O_DIRECT"
        if escaped == "volumes"
        else "it takes /dev/fuse, loop devices, mkfs.ext4, and the limit from the start"
    )
    yield RunWarning(
        "writes-escape",
        "warning",
        f"cgroup v1 doesn't hold {where} to the disk's limit, and doesn't count them; {advice}",
        {"escaped": escaped},
    )


def _storage(run: RunResult) -> Iterator[RunWarning]:
    """Say that the read-write layer was full, or its size more than the disk had."""
    facts = run.record.get("storage")
    if facts and facts["errors"]:
        yield RunWarning(
            "storage-lost",
            "error",
            "the disk beneath its layer was full or failed: what it wrote is in part lost; free some, "
            "or ask for a --storage that can be reserved",
            {"errors": facts["errors"], "used_bytes": facts["used_bytes"]},
        )
    if not facts or facts["size_bytes"] is None:
        return
    limit, free, host_free = facts["size_bytes"], facts["free_bytes"], facts["host_free_bytes"]
    figures = {"limit_bytes": limit, "used_bytes": facts["used_bytes"], "free_bytes": free}
    full = max(STORAGE_FULL_BYTES, limit * STORAGE_FULL_SHARE)
    if free <= full or facts["free_files"] == 0:
        what = "" if facts["free_files"] else " of files"
        yield RunWarning(
            "storage-full",
            "warning",
            f"its storage limit of {size(limit)} was full{what}: what did not fit failed with ENOSPC; "
            "try more --storage",
            figures,
        )
    if limit > host_free:
        yield RunWarning(
            "storage-beyond-disk",
            "warning",
            f"storage {size(limit)} was asked for, but the disk beneath had {size(host_free)} free: "
            "it may have been full before; free some, or ask for less",
            figures | {"host_free_bytes": host_free},
        )


def _unheld(run: RunResult) -> Iterator[RunWarning]:
    """Say which limits did not hold at all, as --best-effort allowed."""
    limits = run.limits
    told = set()
    for row in limits.rows():
        if row.unheld is not None:
            told.add("cpu_quota_us" if row.name == "cpu" else row.name)
            yield RunWarning(
                "best-effort",
                "warning",
                f"{row.label} {row.asked} was not held: {text_of(row.unheld, 300)}",
                {"limit": row.name, "asked": row.asked, "why": row.unheld},
            )
    others = {name: why for name, why in limits.unheld.items() if name not in told}
    for name, why in others.items():
        if name in ladder.EXTRAS:
            code = "no-cgroup" if name == "accounting" else "best-effort"
            text = text_of(f"{ladder.EXTRAS[name]}: {why}", 300)
            yield RunWarning(code, "warning", text, {"limit": name, "why": why})


def _by_rlimit(run: RunResult) -> Iterator[RunWarning]:
    """Say what the limits of an unconfined run are worth."""
    if run.isolation.confined:
        return
    held = run.limits.in_force
    for value, label, how in (
        (held.memory_bytes, "memory", "RLIMIT_DATA holds each process by itself to it, not all together"),
        (held.pids, "pids", "RLIMIT_NPROC counts all tasks of this user, of which it was let have so many more"),
        (held.cpuset_cpus, "CPUs", "by its CPU affinity, which the code may widen again"),
    ):  # fmt: skip
        if value is not None:
            yield RunWarning("rlimit", "warning", f"{label}: {how}; a container's limit is exact")


def _isolation(run: RunResult) -> Iterator[RunWarning]:
    if not run.isolation.confined:
        yield RunWarning(
            "not-isolated",
            "warning",
            "not isolated: a plain process, with this user's files, network and rights; "
            "nscontainer doctor says what a container takes",
        )
    missing = run.isolation.missing
    if missing:
        yield RunWarning(
            "not-isolated",
            "warning",
            f"no {', '.join(missing)} namespace on this host: the container shared the host's",
            {"namespaces": missing},
        )
    for note in run.isolation.notes:
        yield RunWarning("isolation", "info", text_of(note, 300))


def _reports(run: RunResult) -> Iterator[RunWarning]:
    if run.report_refused:
        first, *more = run.report_refused
        others = f" (and {len(more)} more)" if more else ""
        yield RunWarning(
            "report-refused",
            "warning",
            f"a reported value is left out: {first}{others}",
            {"refused": run.report_refused},
        )


RULES: Final[tuple[Callable[[RunResult], Iterator[RunWarning]], ...]] = (
    _oom,
    _limits,
    _parent,
    _overrun,
    _short,
    _steal,
    _at_limit,
    _swap,
    _missed,
    _throttled,
    _zygote,
    _network,
    _network_limits,
    _escaped_writes,
    _storage,
    _unheld,
    _by_rlimit,
    _isolation,
    _reports,
)
