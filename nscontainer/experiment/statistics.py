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
Pairs = Sequence[tuple[Values, Values]]
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
    if len(values) < FEWEST:
        return _NONE
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
    return ratio_within([(a, b)], seed, level)[1:]


def ratio_within(pairs: Pairs, seed: int = 0, level: float = LEVEL) -> tuple[float, float, float]:
    """Compare within blocks: the geometric mean of their medians' ratios, and its interval.

    Parameters
    ----------
    pairs
        In each block the one's values and the other's: all with the same memory, where CPUs are compared.

    Returns
    -------
    tuple
        The ratio, low, high; NaN where a median isn't above 0, or there are too few values in all.
    """
    blocks = [(a, b) for a, b in pairs if len(a) and len(b)]
    if not blocks or min(min(map(min, block)) for block in blocks) <= 0:
        return (math.nan, *_NONE)
    rng = np.random.default_rng(seed)
    logs = [math.log(float(np.median(a)) / float(np.median(b))) for a, b in blocks]
    ratio = math.exp(sum(logs) / len(logs))
    if _too_few(blocks):
        return (ratio, *_NONE)
    drawn = [np.log(_medians(a, rng) / _medians(b, rng)) for a, b in blocks]
    low, high = _percentiles(np.exp(np.mean(drawn, axis=0)), level)
    return ratio, low, high


def difference_within(
    pairs: Pairs, seed: int = 0, level: float = LEVEL
) -> tuple[float, float, float]:
    """Compare within blocks as :func:`ratio_within`, by the mean difference of their medians."""
    blocks = [(a, b) for a, b in pairs if len(a) and len(b)]
    if not blocks:
        return (math.nan, *_NONE)
    difference = float(np.mean([np.median(a) - np.median(b) for a, b in blocks]))
    if _too_few(blocks):
        return (difference, *_NONE)
    rng = np.random.default_rng(seed)
    drawn = [_medians(a, rng) - _medians(b, rng) for a, b in blocks]
    return (difference, *_percentiles(np.mean(drawn, axis=0), level))


def _too_few(blocks: Pairs) -> bool:
    return min(sum(len(a) for a, _ in blocks), sum(len(b) for _, b in blocks)) < FEWEST


def _medians(values: Values, rng: np.random.Generator) -> Floats:
    # Sorted, so that the order in which runs ended changes nothing.
    known: Floats = np.sort(np.asarray(values, dtype=np.float64))
    drawn = known[rng.integers(0, len(known), size=(RESAMPLES, len(known)))]
    medians: Floats = np.median(drawn, axis=1)
    return medians


def _percentiles(found: Floats, level: float) -> tuple[float, float]:
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
    """Test whether both may come from the same source: :func:`p_within` of a single block."""
    return p_within([(a, b)], seed)


def p_within(pairs: Pairs, seed: int = 0) -> float:
    """Test within blocks by rank sums, two-sided: Mann and Whitney's test, of several blocks van Elteren's.

    Exact, with equal values too, up to :data:`MOST_EXACT` values in each block; else
    :data:`RESAMPLES` random permutations by ``seed``.

    Returns
    -------
    float
        The share of all ways to divide the values of each block in which the rank sums are as far
        from their middle as here, or farther; NaN where no block has both.
    """
    blocks = [(_double_ranks(a, b), len(a)) for a, b in pairs if len(a) and len(b)]
    if not blocks:
        return math.nan
    middle = sum(n * (len(ranks) + 1) for ranks, n in blocks)  # of the doubled ranks' sums
    far = abs(sum(int(ranks[:n].sum()) for ranks, n in blocks) - middle)
    if max(len(ranks) for ranks, _ in blocks) > MOST_EXACT:
        rng = np.random.default_rng(seed)
        beyond = 0
        for _ in range(RESAMPLES):
            total = sum(int(rng.permutation(ranks)[:n].sum()) for ranks, n in blocks)
            beyond += abs(total - middle) >= far
        return (beyond + 1) / (RESAMPLES + 1)
    chances = np.ones(1)
    for ranks, n in blocks:
        ways = _ways(ranks, n)
        chances = np.convolve(chances, ways / ways.sum())
    extreme = np.abs(np.arange(len(chances)) - middle) >= far
    return float(min(1.0, chances[extreme].sum()))


def _double_ranks(a: Values, b: Values) -> npt.NDArray[np.int64]:
    """Rank both from 1, equal ones by their mean, times two: whole numbers, which can be counted exactly."""
    values: Floats = np.concatenate([np.asarray(a, np.float64), np.asarray(b, np.float64)])
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


def least_p(*counts: tuple[int, int]) -> float:
    """Give the least p that blocks of so many values can have: that of two groups wholly apart."""
    ways = math.prod(math.comb(n + m, n) for n, m in counts if n and m)
    return min(1.0, 2 / ways)


def fewest_repeats(tests: int) -> int:
    """Say how many repeats of each level so many comparisons need, for a difference to be seen at all."""
    n = FEWEST
    while least_p((n, n)) * tests >= ALPHA:
        n += 1
    return n


def rank_correlation(x: Values, y: Values) -> tuple[float, float]:
    """Give Spearman's rank correlation and its p (by Fisher's transform); 0 and 1 where nothing varies."""
    n = len(x)
    if n < 4:
        return 0.0, 1.0
    of_x, of_y = (_double_ranks(values, ()).astype(np.float64) for values in (x, y))
    if not np.ptp(of_x) or not np.ptp(of_y):
        return 0.0, 1.0
    rho = float(np.corrcoef(of_x, of_y)[0, 1])
    z = math.atanh(min(abs(rho), 1 - 1e-12)) * math.sqrt((n - 3) / 1.06)
    return rho, math.erfc(z / math.sqrt(2))


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
