"""The numbers behind the pictures: rates, steps and thinned-out curves. numpy only."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nscontainer.measure import rates
from nscontainer.measure.rates import Stretch
from nscontainer.schema import MOST_ROWS, WHOLE_NS

Array = npt.NDArray[np.float64]
MOST_POINTS = 1_500
"""A curve has no more points than this: no screen shows more, and a long run must draw fast."""


def known(times_s: Any, values: Any) -> tuple[Array, Array]:
    """Leave out the points that the host gave no figure for."""
    at, figures = np.asarray(times_s, dtype=float), np.asarray(values, dtype=float)
    there = ~np.isnan(figures)
    return at[there], figures[there]


def smooth_rate(
    times_s: Array, counter: Array, period_s: float | None
) -> tuple[Array, Array, float]:
    """Give how fast a counter grew, over windows of whole quota periods.

    Returns
    -------
    tuple
        The middle of each window (s), growth a second, and the window's length (s). A run shorter than
        a window is one window.
    """
    end = float(times_s[-1])
    step_s = end / max(1, len(times_s) - 1)
    period_ns = None if period_s is None else round(period_s * 1e9)
    window_ns = rates.window_ns(period_ns, step_s * 1e9, round(end * 1e9), MOST_POINTS)
    window = window_ns / 1e9
    if window >= end:
        mean = (counter[-1] - counter[0]) / end if end > 0 else 0.0
        return np.array([0.0, end]), np.array([mean, mean]), end
    points = min(MOST_POINTS, max(2, len(times_s)))
    middle = np.linspace(window / 2, end - window / 2, points)
    upper = np.interp(middle + window / 2, times_s, counter)
    lower = np.interp(middle - window / 2, times_s, counter)
    return middle, (upper - lower) / window, window


def fresh(frame: Any, sample_s: float) -> npt.NDArray[np.bool_]:
    """Tell which rows of a usage frame are whole readings (:data:`nscontainer.schema.WHOLE_NS`).

    In the others the slow figures stand as they were, and a rate reckoned from them is a saw. They come
    in a fixed beat, and where it lies is told by the rows in which something slow has changed.
    """
    slow = [name for name in frame.columns if name.startswith(("blkio.", "net.", "psi."))]
    slow += ["memory.anon", "memory.file"]
    changed = (np.diff(np.nan_to_num(frame[slow].to_numpy(float)), axis=0) != 0).any(axis=1)
    there = np.zeros(len(frame), dtype=bool)
    there[[0, -1]] = True
    beat_ns = max(1, round(sample_s * 1e9))
    for begin in range(1, len(frame) - 1, MOST_ROWS):
        end = min(begin + MOST_ROWS, len(frame) - 1)
        every = max(1, WHOLE_NS // beat_ns)
        news = begin + np.flatnonzero(changed[begin - 1 : end - 1])
        beat = int(np.bincount(news % every).argmax()) if len(news) else 0
        there[begin + (beat - begin) % every : end : every] = True
        there[news] = True
        beat_ns *= 2
    return there


def slow_rate(
    times_s: Array, counter: Array, window_s: float, breaks_s: Sequence[float] = ()
) -> tuple[Array, Array]:
    """Give how fast a counter grew, over windows of ``window_s``, or a third of a short run.

    A window never reaches over one of ``breaks_s``, nor over the ends: there it is moved aside, and where
    there is no room for it the rate is the mean.

    Returns
    -------
    tuple
        Times (s), growth a second around each.
    """
    begin, end = float(times_s[0]), float(times_s[-1])
    window = min(window_s, max(WHOLE_NS / 1e9, (end - begin) / 3))
    at, rates_ = [], []
    marks = [begin, *(b for b in breaks_s if begin < b < end), end]
    for low, high in itertools.pairwise(marks):
        points = min(MOST_POINTS, max(2, int(len(times_s) * (high - low) / max(end - begin, 1e-9))))
        here = np.linspace(low, high, points)
        width = min(window, high - low)
        lower = np.clip(here - width / 2, low, high - width)
        grown = np.interp(lower + width, times_s, counter) - np.interp(lower, times_s, counter)
        at.append(here)
        rates_.append(grown / width if width > 0 else np.zeros(points))
    return np.concatenate(at), np.concatenate(rates_)


def unlumped(times_s: Array, counter: Array) -> tuple[Array, Array]:
    """Spread a counter of standing still over when it stood.

    Linux adds a stop to ``throttled_time`` when it is over, all at once: so it was in the time just
    before that. (Several CPUs' stops may overlap: then it grows faster than the clock.)
    """
    grown = np.flatnonzero(np.diff(counter) > 0)
    if not len(grown):
        return times_s, counter
    after = times_s[grown + 1]
    before = np.concatenate([times_s[:1], after[:-1]])
    begin = np.maximum(before, after - (counter[grown + 1] - counter[grown]))
    at = np.column_stack([begin, after]).ravel()
    figures = np.column_stack([counter[grown], counter[grown + 1]]).ravel()
    return (
        np.concatenate([times_s[:1], at, times_s[-1:]]),
        np.concatenate([counter[:1], figures, counter[-1:]]),
    )


def stair_rate(
    times_s: Array, counter: Array, least_s: float, breaks_s: Sequence[float]
) -> tuple[Array, Array]:
    """Give how fast a counter grew over equal stretches of ``least_s`` at least, from 0 to the end.

    A stretch never reaches over one of ``breaks_s``: what comes after does not show before it.

    Returns
    -------
    tuple
        n + 1 edges (s), n figures.
    """
    end = float(times_s[-1])
    least = max(least_s, end / 300)
    marks = [0.0, *(b for b in breaks_s if 0 < b < end), end]
    pieces = [
        np.linspace(begin, stop, max(1, int((stop - begin) / least)) + 1)
        for begin, stop in itertools.pairwise(marks)
    ]
    edges = np.unique(np.concatenate(pieces))
    return edges, np.diff(np.interp(edges, times_s, counter)) / np.diff(edges)


def sample_rate(times_s: Array, counter: Array) -> tuple[Array, Array]:
    """Give how fast a counter grew from each sample to the next: n + 1 edges, n figures."""
    width = np.diff(times_s)
    wide = width > 0
    edges = np.concatenate([times_s[:1], times_s[1:][wide]])
    return edges, np.diff(counter)[wide] / width[wide]


def envelope(edges: Array, values: Array) -> tuple[Array, Array, Array]:
    """Thin stairs out to the least and the greatest of each of :data:`MOST_POINTS` stretches."""
    begins = np.unique(np.linspace(0, len(values), MOST_POINTS + 1).astype(int)[:-1])
    low, high = np.minimum.reduceat(values, begins), np.maximum.reduceat(values, begins)
    return edges[np.append(begins, len(values))], low, high


def thinned(times_s: Array, values: Array) -> tuple[Array, Array]:
    """Thin a gauge out, keeping the greatest figure of each stretch: a peak must not get lost."""
    if len(values) <= 2 * MOST_POINTS:
        return times_s, values
    begins = np.unique(np.linspace(0, len(values), MOST_POINTS + 1).astype(int)[:-1])
    return times_s[begins], np.maximum.reduceat(values, begins)


def drawn_steps(stretches: Sequence[Stretch]) -> tuple[Array, Array]:
    """Give stretches as the corners of one line; where there is no limit it has a gap."""
    corners = [
        (at, np.nan if limit is None else limit)
        for begin, end, limit in stretches
        for at in (begin, end)
    ]
    return np.array([x for x, _ in corners]), np.array([y for _, y in corners])
