"""Is a difference real? Intervals by bootstrap, a test by permutation, and a verdict in words.

Everything is of medians and ranks: times of runs are skewed, and one slow run shall not decide. The same
values and seed give the same figures, whatever order they come in. ADR 0030 says why it is so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Values = Sequence[float] | npt.NDArray[np.float64]
Floats = npt.NDArray[np.float64]

RESAMPLES: Final = 9_999
LEVEL: Final = 0.95
ALPHA: Final = 0.05
FEWEST: Final = 3
"""Fewer values have no interval: a median of two is no more than their middle."""
MOST_EXACT: Final = 100
"""Up to so many values in both, all ways to divide them are counted; above, a random part of them."""

BASELINE: Final = "baseline"
NO_DIFFERENCE: Final = "no difference found"
TOO_FEW: Final = "too few repeats"
_NONE: Final = (math.nan, math.nan)


# --- intervals -------------------------------------------------------------------------------


def interval(values: Values, seed: int = 0, level: float = LEVEL) -> tuple[float, float]:
    """Give the interval of the median: bootstrap, percentiles of :data:`RESAMPLES` medians.

    Of 3 to 5 values it is from the least to the greatest, which holds the true median in 75, 88 and 94 %
    of cases and not in 95: the bootstrap can't know of values that it never saw.

    Returns
    -------
    tuple
        Low and high, in the values' unit; both NaN for fewer than :data:`FEWEST` values.
    """
    return _percentiles(_medians(values, np.random.default_rng(seed)), level)


def relative_width(values: Values, seed: int = 0) -> float:
    """Give the interval's width, from end to end, as a share of the median; infinite where there is none."""
    low, high = interval(values, seed)
    middle = abs(float(np.median(values))) if len(values) else 0.0
    if math.isnan(low):
        return math.inf
    if low == high:
        return 0.0
    return (high - low) / middle if middle else math.inf


def ratio_interval(
    a: Values, b: Values, seed: int = 0, level: float = LEVEL
) -> tuple[float, float]:
    """Give the interval of ``median(a) / median(b)``; NaN where either has too few values or ``b`` has 0 or less."""
    rng = np.random.default_rng(seed)
    of_a, of_b = _medians(a, rng), _medians(b, rng)
    if not len(of_a) or not len(of_b) or of_b.min() <= 0:
        return _NONE
    return _percentiles(of_a / of_b, level)


def difference_interval(
    a: Values, b: Values, seed: int = 0, level: float = LEVEL
) -> tuple[float, float]:
    """Give the interval of ``median(a) - median(b)``; NaN where either has too few values."""
    rng = np.random.default_rng(seed)
    of_a, of_b = _medians(a, rng), _medians(b, rng)
    return _NONE if not len(of_a) or not len(of_b) else _percentiles(of_a - of_b, level)


def _medians(values: Values, rng: np.random.Generator) -> Floats:
    # Sorted, so that the order in which runs ended changes nothing.
    known: Floats = np.sort(np.asarray(values, dtype=np.float64))
    if len(known) < FEWEST:
        return np.empty(0)
    drawn = known[rng.integers(0, len(known), size=(RESAMPLES, len(known)))]
    medians: Floats = np.median(drawn, axis=1)
    return medians


def _percentiles(found: Floats, level: float) -> tuple[float, float]:
    if not len(found):
        return _NONE
    low, high = np.percentile(found, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def repeats_for(values: Values, width: float, seed: int = 0) -> int | None:
    """Say how many values would make the interval so narrow: it narrows by the root of their number.

    Returns
    -------
    int or None
        At least as many as there are; None where nothing can be said of so few.
    """
    now = relative_width(values, seed)
    if not math.isfinite(now):
        return None
    return max(len(values), math.ceil(len(values) * (now / width) ** 2))


# --- the test --------------------------------------------------------------------------------


def permutation_p(a: Values, b: Values, seed: int = 0) -> float:
    """Test whether both may come from the same source: rank sums, two-sided (Mann and Whitney's test).

    Exact, with equal values too, up to :data:`MOST_EXACT` values; else :data:`RESAMPLES` random
    permutations by ``seed``.

    Returns
    -------
    float
        The share of all ways to divide the values in which the rank sum is as far from its middle as
        here, or farther; NaN where one has no values.
    """
    n, m = len(a), len(b)
    if not n or not m:
        return math.nan
    both: Floats = np.concatenate([np.asarray(a, np.float64), np.asarray(b, np.float64)])
    ranks = _double_ranks(both)
    middle = n * (n + m + 1)  # of the doubled ranks' sum
    far = abs(int(ranks[:n].sum()) - middle)
    if n + m > MOST_EXACT:
        rng = np.random.default_rng(seed)
        sums = np.array([int(rng.permutation(ranks)[:n].sum()) for _ in range(RESAMPLES)])
        return float((np.count_nonzero(np.abs(sums - middle) >= far) + 1) / (RESAMPLES + 1))
    ways = _ways(ranks, n)
    extreme = np.abs(np.arange(len(ways)) - middle) >= far
    return float(min(1.0, ways[extreme].sum() / ways.sum()))


def _double_ranks(values: Floats) -> npt.NDArray[np.int64]:
    """Rank from 1, equal ones by their mean, times two: whole numbers, which can be counted exactly."""
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, side="left")
    upto = np.searchsorted(ordered, values, side="right")
    return np.asarray(below + upto + 1, dtype=np.int64)


def _ways(ranks: npt.NDArray[np.int64], n: int) -> Floats:
    """Count, for each sum, the choices of ``n`` of the ranks that have it."""
    counts = np.zeros((n + 1, int(ranks.sum()) + 1))
    counts[0, 0] = 1.0
    for rank in ranks.tolist():
        counts[1:, rank:] += counts[:-1, :-rank].copy()
    ways: Floats = counts[n]
    return ways


def holm(p: Sequence[float]) -> list[float]:
    """Correct several tests' p for their number (Holm): the chance of any false one stays below 5 %.

    NaN are no tests: they stay, and don't count.
    """
    known = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    corrected = [math.nan] * len(p)
    highest = 0.0
    for at, (value, i) in enumerate(known):
        highest = max(highest, min(1.0, value * (len(known) - at)))
        corrected[i] = highest
    return corrected


def least_p(n: int, m: int) -> float:
    """Give the least p that so many values can have: that of two groups wholly apart."""
    return min(1.0, 2 / math.comb(n + m, n)) if n and m else 1.0


def fewest_repeats(tests: int) -> int:
    """Say how many repeats of each level so many comparisons need, for a difference to be seen at all."""
    n = FEWEST
    while least_p(n, n) * tests >= ALPHA:
        n += 1
    return n


# --- in words --------------------------------------------------------------------------------


def verdict(
    p: float,
    within: tuple[float, float],
    ratio: float,
    *,
    enough: bool,
    none_at: float = 1.0,
    is_time: bool = False,
) -> str:
    """Say whether a level differs from the baseline.

    Parameters
    ----------
    p
        Corrected for the number of levels.
    within
        The interval of the ratio, or of the difference.
    ratio
        The level's median over the baseline's; NaN where it can't be had.
    enough
        Whether so many repeats could show a difference at all.
    none_at
        What the interval has to leave out: 1 of a ratio, 0 of a difference.
    is_time
        Whether it is a time: more is slower.

    Returns
    -------
    str
        ``no difference found``, ``too few repeats``, or ``slower +5.2 %``.
    """
    low, high = within
    if not enough or math.isnan(low) or math.isnan(p):
        return TOO_FEW
    if p >= ALPHA or low <= none_at <= high:
        return NO_DIFFERENCE
    more = low > none_at
    word = ("slower" if more else "faster") if is_time else ("higher" if more else "lower")
    return word if math.isnan(ratio) else f"{word} {change(ratio)}"


def change(ratio: float) -> str:
    """Write a ratio as a change: ``+5.2 %``, ``−50 %``."""
    part = (ratio - 1) * 100
    sign = "−" if part < 0 else "+"
    size = abs(part)
    return f"{sign}{size:.2g} %" if size < 1 else f"{sign}{size:,.{1 if size < 100 else 0}f} %"
