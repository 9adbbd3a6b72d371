"""From a counter of CPU time to a rate that doesn't show the sampling. Standard library only."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from nscontainer.limits import Limits
from nscontainer.measure.limits import RunLimits
from nscontainer.measure.records import NS_PER_S, end_ns, series, times

Stretch = tuple[float, float, float | None]
"""From when to when, in s, a limit stayed the same, and the limit (None where there was none)."""


def interpolated(at: Sequence[int], x: Sequence[int], y: Sequence[int]) -> list[float]:
    """Give ``y`` at each of the ascending points ``at``, straight between its neighbours."""
    result, i = [], 0
    for point in at:
        while i < len(x) - 2 and x[i + 1] < point:
            i += 1
        width = x[i + 1] - x[i]
        part = min(1.0, max(0.0, (point - x[i]) / width)) if width > 0 else 1.0
        result.append(y[i] + (y[i + 1] - y[i]) * part)
    return result


def window_ns(period_ns: int | None, step_ns: float, span_ns: int, points: int) -> int:
    """Choose over how long a rate of CPU use is taken, so that it doesn't show the sampling.

    A throttled container runs at the head of each quota period and then stands still. Over whole
    periods the quota shows as what it is, as long as some samples fall into each. Samples nearly as
    long as the period make beats that are not there: 20 periods keep those under some 5 %.

    Parameters
    ----------
    period_ns
        The longest quota period; None without a quota.
    step_ns
        Time between samples.
    span_ns, points
        The whole run, and into how many windows it is cut at most.
    """
    least = max(100e6, step_ns, span_ns / points)
    if period_ns is None:
        return int(least)
    if step_ns > period_ns / 4.5:
        least = max(least, min(20 * period_ns, span_ns / 5))
    return period_ns * -int(-least // period_ns)


def cpu_bins(
    record: Mapping[str, Any], samples: bytes, *, period_ns: int | None, points: int
) -> tuple[int, list[float]]:
    """Give CPU use, in CPUs, over at most ``points`` equal stretches of a run.

    Returns
    -------
    tuple
        The length of a stretch in ns, and the figure of each; empty where the host gives no figure.
        A rest shorter than a stretch at the end is left out, unless there is nothing else.
    """
    at = times(record, samples)
    used = series(record, samples, "cpuacct.usage")
    known = [(t, u) for t, u in zip(at, used, strict=True) if u is not None]
    if len(known) < 2 or at[-1] <= 0:
        return 0, []
    step = window_ns(period_ns, at[-1] / (len(at) - 1), at[-1], points)
    step = min(step, at[-1])
    edges = [step * i for i in range(at[-1] // step + 1)]
    marks = interpolated(edges, [t for t, _ in known], [u for _, u in known])
    return step, [(b - a) / step for a, b in itertools.pairwise(marks)]


def stretches(points: Iterable[tuple[float, float | None]], end_s: float) -> list[Stretch]:
    """Give a limit, seen at some points of time, as the stretches in which it stayed the same.

    The first figure counts from 0 on, and the last until ``end_s``.
    """
    result: list[Stretch] = []
    for at, limit in points:
        if result and result[-1][2] == limit:
            continue
        begin = at if result else 0.0
        if result:
            result[-1] = (result[-1][0], begin, result[-1][2])
        result.append((begin, end_s, limit))
    return result


def cpu_quota(record: Mapping[str, Any], samples: bytes, limits: RunLimits) -> list[Stretch]:
    """Give the CPU quota in force, in CPUs: as sampled, or as asked where no sample says."""
    end_s = end_ns(record, samples) / NS_PER_S
    # Not from the two readings at the ends: one is from before the limits, one from after them.
    seen = series(record, samples, "cpu.quota")[1:-1]
    if any(quota is not None for quota in seen):
        at = times(record, samples)[1:-1]
        sampled = (
            (ns / NS_PER_S, None if quota is None else quota / 1e6)
            for ns, quota in zip(at, seen, strict=True)
        )
        return stretches(sampled, end_s)
    held = "cpu_quota_us" not in limits.unheld
    asked = [(0.0, limits.asked.cpus if held else None)]
    asked += [
        (change.elapsed_s, change.asked.cpus)
        for change in limits.changes
        if change.asked.cpu_quota_us is not None
    ]
    return stretches(asked, end_s)


def disk_limit(
    record: Mapping[str, Any], samples: bytes, limits: RunLimits, of: str
) -> list[Stretch]:
    """Give a limit of the disks as asked: ``of`` is ``read_bps``, ``write_iops`` and so on.

    Of several disks' limits it is the tightest.
    """

    def tightest(asked: Limits) -> float | None:
        short = getattr(asked, f"disk_{of}")
        each = [device.rate for device in getattr(asked, f"device_{of}")]
        found = [rate for rate in (short, *each) if rate is not None]
        held = [rate for rate in found if rate >= 0]
        return min(held) if held else (-1 if found else None)

    return _as_asked(record, samples, limits, tightest)


def net_limit(
    record: Mapping[str, Any], samples: bytes, limits: RunLimits, of: str
) -> list[Stretch]:
    """Give a limit of the network as asked, in bits a second: ``of`` is ``rx_bps`` or ``tx_bps``."""
    return _as_asked(record, samples, limits, lambda asked: getattr(asked, f"net_{of}"))


def _as_asked(
    record: Mapping[str, Any],
    samples: bytes,
    limits: RunLimits,
    get: Callable[[Limits], float | None],
) -> list[Stretch]:
    """Give a limit as the start and each update asked for it; what is below 0 lifted it."""
    asked = [(0.0, get(limits.asked))]
    asked += [(c.elapsed_s, limit) for c in limits.changes if (limit := get(c.asked)) is not None]
    known = ((at, None if limit is None or limit < 0 else float(limit)) for at, limit in asked)
    return stretches(known, end_ns(record, samples) / NS_PER_S)


def memory_limit(record: Mapping[str, Any], samples: bytes, limits: RunLimits) -> list[Stretch]:
    """Give the memory limit in force, in bytes, as asked: the samples don't hold it."""
    return _as_asked(record, samples, limits, lambda asked: asked.memory_bytes)
