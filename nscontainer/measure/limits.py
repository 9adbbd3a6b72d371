"""The limits of a run: what was asked, and what the cgroup said afterwards, side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nscontainer import ladder, units
from nscontainer.limits import PERIOD_US, Limits
from nscontainer.measure import disk_limits
from nscontainer.measure.records import NS_PER_S
from nscontainer.measure.text import size

PAGE_BYTES: Final = 65_536
"""Linux rounds a memory limit down to whole pages; no machine's are larger than this."""

STORAGE_SHARE: Final = 0.02
"""A filesystem has some blocks for its own trees: so near to what was asked for is the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBack:
    """What the cgroup's files said after the run.

    Named as :class:`nscontainer.spec.Limits`; -1 is no limit, None is not there to be read.
    """

    cpu_quota_us: int | None = None
    cpu_period_us: int | None = None
    cpu_burst_us: int | None = None
    cpu_shares: int | None = None
    cpu_weight: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    memory_bytes: int | None = None
    memory_swap_bytes: int | None = None
    pids: int | None = None
    disk_read_bps: Mapping[str, int] | None = None
    """By ``MAJOR:MINOR``, as the three after it; an empty one is no limit."""
    disk_write_bps: Mapping[str, int] | None = None
    disk_read_iops: Mapping[str, int] | None = None
    disk_write_iops: Mapping[str, int] | None = None
    disk_paths: Mapping[str, list[str]] | None = None
    """The disks that each PATH of a limit means; of ``""``, those behind the storage."""
    disk_names: Mapping[str, str] | None = None
    """A disk's name, ``vda``, by its number."""
    blkio_weight: int | None = None
    storage_bytes: int | None = None
    net_rx_bps: int | None = None
    net_tx_bps: int | None = None
    net_delay_s: float | None = None
    net_loss: float | None = None

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any] | None) -> ReadBack:
        """Take what is known of a reading."""
        names = {f.name for f in dataclasses.fields(cls)}
        return cls(**{k: v for k, v in (plain or {}).items() if k in names})

    @property
    def cpus(self) -> float | None:
        """The CPU quota in CPUs, None where there is none (or it could not be read)."""
        if self.cpu_quota_us is None or self.cpu_quota_us < 0 or not self.cpu_period_us:
            return None
        return self.cpu_quota_us / self.cpu_period_us


@dataclass(frozen=True, slots=True)
class LimitChange:
    """An ``update`` while the container ran; fields of ``asked`` that stayed as they were are None."""

    elapsed_s: float
    asked: Limits
    read_back: ReadBack

    @property
    def text(self) -> str:
        """What was changed, as ``CPU 20 %, memory 64 MiB``."""
        return asked_text(self.asked) or "nothing"


@dataclass(frozen=True, slots=True)
class LimitRow:
    """One limit, as a person reads it. ``read_back`` is None where nothing can be read back."""

    name: str
    label: str
    asked: str | None
    read_back: str | None
    differs: bool
    unheld: str | None = None
    """Why it was not held at all, as ``--best-effort`` allowed; ``read_back`` says so too."""


@dataclass(frozen=True, repr=False)
class RunLimits:
    """The limits of a run.

    Attributes
    ----------
    asked
        As at the start (:class:`nscontainer.spec.Limits`).
    read_back
        What the cgroup's files said at the end.
    changes
        Every ``update`` in between, in order.
    unheld
        What this host could not hold, as ``--best-effort`` allowed: the cause, by the field of
        ``asked``; also ``network``.
    """

    asked: Limits
    read_back: ReadBack
    changes: tuple[LimitChange, ...] = ()
    unheld: Mapping[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> RunLimits:
        """Read an exit record's limits."""
        changes = tuple(
            LimitChange(
                c["elapsed_ns"] / NS_PER_S,
                _limits(c.get("asked")),
                ReadBack.from_dict(c.get("read_back")),
            )
            for c in record["limit_changes"] or ()
        )
        asked, read_back = record["limits_asked"], record["limits_read_back"]
        unheld = {str(name): str(why) for name, why in (record.get("unheld") or {}).items()}
        return cls(_limits(asked), ReadBack.from_dict(read_back), changes, unheld)

    @property
    def in_force(self) -> Limits:
        """What held in the end: the first limits with every change made to them, less what could not be."""
        return ladder.without(self._asked_last, self.unheld)

    @property
    def _asked_last(self) -> Limits:
        limits = self.asked
        for change in self.changes:
            fields = dataclasses.fields(Limits)
            new = {f.name: getattr(change.asked, f.name) for f in fields}
            limits = dataclasses.replace(
                limits, **{k: v for k, v in new.items() if v not in (None, ())}
            )
        return limits

    @property
    def differs(self) -> bool:
        """Whether some limit read back is not as it was asked."""
        return any(row.differs for row in self.rows())

    @property
    def period_doublings(self) -> int:
        """How many times Linux doubled the CPU period, and the quota with it; 0 if it did not.

        A period timer that can't keep up does that (kernel/sched/fair.c,
        sched_cfs_period_timer()), silently: their ratio, and so the limit, stays.
        """
        limits, read = self.in_force, self.read_back
        if limits.cpus is None or read.cpus is None or read.cpu_period_us is None:
            return 0
        times, rest = divmod(read.cpu_period_us, limits.cpu_period_us or PERIOD_US)
        same = abs(read.cpus / limits.cpus - 1) < 0.01
        return times.bit_length() - 1 if same and not rest and times > 1 else 0

    @property
    def longest_period_s(self) -> float | None:
        """The longest quota period that was in force, in s; None without a CPU quota."""
        asked = [self.asked, *(change.asked for change in self.changes)]
        periods = [limits.cpu_period_us or PERIOD_US for limits in asked if limits.cpus is not None]
        if self.read_back.cpus is not None and self.read_back.cpu_period_us is not None:
            periods.append(self.read_back.cpu_period_us)
        return max(periods, default=0) / 1e6 or None

    def rows(self) -> list[LimitRow]:
        """Give each limit that was asked, or that was found in force without."""
        if not self.unheld:
            return list(_rows(self.in_force, self.read_back))
        held = {(row.name, row.label): row for row in _rows(self.in_force, self.read_back)}
        rows = []
        for row in _rows(self._asked_last, None):
            why = self.unheld.get("cpu_quota_us" if row.name == "cpu" else row.name)
            here = held.pop((row.name, row.label), row)
            if why is not None:
                text = f"not held: {why}"
                here = dataclasses.replace(row, read_back=text, differs=False, unheld=why)
            rows.append(here)
        return [*rows, *held.values()]

    def __repr__(self) -> str:
        rows = self.rows()
        if not rows and not self.changes:
            return "no limits"
        cells = [("limit", "asked", "read back", "")]
        cells += [
            (row.label, row.asked or "-", row.read_back or "-", "<- differs" if row.differs else "")
            for row in rows
        ]
        wide = [max(len(row[i]) for row in cells) for i in range(4)]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(r, wide, strict=True)).rstrip() for r in cells
        ]
        lines += [f"from {change.elapsed_s:.3g} s on: {change.text}" for change in self.changes]
        return "\n".join(lines)


def _limits(plain: Mapping[str, Any] | None) -> Limits:
    return Limits.from_dict(plain or {})


def cpu_text(quota_us: int | None, period_us: int | None) -> str | None:
    """Write a CPU quota: ``20 %``, and its period where that is not the usual one."""
    if quota_us is None:
        return None
    if quota_us < 0:
        return "no limit"
    period = period_us or PERIOD_US
    text = units.format_cpu(quota_us / period)
    return text if period == PERIOD_US else f"{text} ({quota_us / 1e3:g} of {period / 1e3:g} ms)"


def size_text(limit: int | None) -> str | None:
    """Write a limit in bytes; None where there is none to write."""
    return None if limit is None else "no limit" if limit < 0 else size(limit)


def count_text(limit: int | None) -> str | None:
    """Write a limit that is a count."""
    return None if limit is None else "no limit" if limit < 0 else str(limit)


def asked_text(limits: Limits) -> str:
    """Write limits in one line: ``CPU 20 %, memory 256 MiB, pids 64``."""
    return ", ".join(f"{row.label} {row.asked}" for row in _rows(limits, None) if row.asked)


def _rows(asked: Limits, read: ReadBack | None) -> Iterator[LimitRow]:
    checks = read is not None
    read = read or ReadBack()
    yield from _cpu_rows(asked, read, checks=checks)
    swap_asked = asked.memory_swap_bytes
    if swap_asked is None and read.memory_swap_bytes is not None:
        swap_asked = asked.memory_bytes  # as Limits says: no swap beside the memory
    for name, label, wanted, found in (
        ("memory_bytes", "memory", asked.memory_bytes, read.memory_bytes),
        ("memory_swap_bytes", "memory + swap", swap_asked, read.memory_swap_bytes),
    ):
        same = wanted == found or (
            wanted is not None
            and found is not None
            and min(wanted, found) >= 0
            and abs(wanted - found) < PAGE_BYTES
        )
        row = LimitRow(name, label, size_text(wanted), size_text(found), checks and not same)
        if _worth(wanted, found) and (
            name == "memory_bytes" or asked.memory_swap_bytes or not same
        ):
            yield row
    if _worth(asked.pids, read.pids):
        yield LimitRow(
            "pids",
            "pids",
            count_text(asked.pids),
            count_text(read.pids),
            checks and asked.pids != read.pids,
        )
    for cells in disk_limits.rows(asked, read, checks=checks):
        yield LimitRow(*cells)
    yield from _network_rows(asked, read, checks=checks)
    if asked.storage_bytes is not None:
        yield _storage_row(asked.storage_bytes, read.storage_bytes, checks=checks)
    for ulimit in asked.ulimits:
        text = f"{ulimit.soft}:{ulimit.hard}".replace("-1", "unlimited")
        yield LimitRow("ulimits", f"ulimit {ulimit.name}", text, None, differs=False)
    for name, label, seconds in (
        ("timeout_s", "timeout", asked.timeout_s),
        ("cpu_time_s", "CPU time", asked.cpu_time_s),
    ):
        if seconds is not None:
            yield LimitRow(name, label, units.format_seconds(seconds), None, differs=False)


def _storage_row(wanted: int, found: int | None, *, checks: bool) -> LimitRow:
    same = found is not None and abs(found / wanted - 1) < STORAGE_SHARE
    text = size_text(wanted if same else found)
    return LimitRow("storage_bytes", "storage", size_text(wanted), text, checks and not same)


def _worth(wanted: int | None, found: int | None) -> bool:
    return wanted is not None or (found is not None and found >= 0)


def bit_rate_text(limit: float | None) -> str | None:
    """Write a limit in bits a second."""
    return None if limit is None else "no limit" if limit < 0 else units.format_bit_rate(limit)


def delay_text(delay_s: float | None) -> str | None:
    """Write a delay of each packet; 0 is none."""
    return None if delay_s is None else units.format_seconds(delay_s) if delay_s else "none"


def loss_text(share: float | None) -> str | None:
    """Write a share of the packets that are lost."""
    return None if share is None else f"{share * 100:.4g} %" if share else "none"


def _network_rows(asked: Limits, read: ReadBack, *, checks: bool) -> Iterator[LimitRow]:
    # Linux counts whole bytes a second, delays in ns and a loss in 2^-32.
    for name, label, text, grain in (
        ("net_rx_bps", "network in", bit_rate_text, 8.0),
        ("net_tx_bps", "network out", bit_rate_text, 8.0),
        ("net_delay_s", "network delay", delay_text, 1e-7),
        ("net_loss", "network loss", loss_text, 1e-8),
    ):
        wanted, found = getattr(asked, name), getattr(read, name)
        none = -1.0 if name.endswith("bps") else 0.0
        if wanted is None and found in (None, none):
            continue
        same = found is not None and abs(found - (none if wanted is None else wanted)) < grain
        yield LimitRow(name, label, text(wanted), text(found), checks and not same)


def _cpu_rows(asked: Limits, read: ReadBack, *, checks: bool) -> Iterator[LimitRow]:
    if _worth(asked.cpu_quota_us, read.cpu_quota_us):
        period_us = asked.cpu_period_us or PERIOD_US
        wanted, found = asked.cpus, read.cpus
        known = read.cpu_quota_us is not None
        if wanted is None or found is None:
            same = known and wanted is found
        else:
            same = abs(found / wanted - 1) < 1e-3 and read.cpu_period_us == period_us
        yield LimitRow(
            "cpu",
            "CPU",
            cpu_text(asked.cpu_quota_us, period_us),
            cpu_text(read.cpu_quota_us, read.cpu_period_us),
            checks and not same,
        )
    if asked.cpu_burst_us is not None:
        found_us = read.cpu_burst_us
        yield LimitRow(
            "cpu_burst_us",
            "CPU burst",
            f"{asked.cpu_burst_us / 1e3:g} ms",
            None if found_us is None else f"{found_us / 1e3:g} ms",
            checks and found_us != asked.cpu_burst_us,
        )
    if asked.cpu_shares is not None:
        shares, weight = read.cpu_shares, read.cpu_weight
        if shares is None:
            from nscontainer.linux.cgroup2 import shares_to_weight  # not on the way of every run

            same = weight == shares_to_weight(asked.cpu_shares)
        else:
            same = shares == asked.cpu_shares
        found_text = f"weight {weight}" if shares is None and weight is not None else None
        yield LimitRow(
            "cpu_shares",
            "CPU shares",
            str(asked.cpu_shares),
            found_text if shares is None else str(shares),
            checks and not same,
        )
    for name, label in (("cpuset_cpus", "CPUs"), ("cpuset_mems", "memory nodes")):
        wanted_set, found_set = getattr(asked, name), getattr(read, name)
        if wanted_set is not None:
            # No reader gives the memory nodes back yet: not there is not different.
            differs = _members(found_set) != _members(wanted_set)
            differs = differs and (name == "cpuset_cpus" or found_set is not None)
            yield LimitRow(name, label, wanted_set, found_set, checks and differs)


def _members(text: str | None) -> set[int] | None:
    if text is None:
        return None
    members: set[int] = set()
    for part in text.split(","):
        low, _, high = part.strip().partition("-")
        if low.isdigit():
            members.update(range(int(low), int(high or low) + 1))
    return members
