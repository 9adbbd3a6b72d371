"""The statistics against scipy, and against what is known to be so: equal levels, and one 5 % off."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats

from nscontainer.experiment import statistics

Noise = Callable[[random.Random], float]


def normal(rng: random.Random) -> float:
    return 1 + rng.gauss(0, 0.02)


def skewed(rng: random.Random) -> float:
    """As runs are: never quicker than so, and some much slower."""
    return 1 + 0.02 * rng.expovariate(1.0) ** 2


def told(a: list[float], b: list[float], tests: int = 1) -> str:
    p = statistics.holm([statistics.permutation_p(a, b)] + [1.0] * (tests - 1))[0]
    ratio = float(np.median(a) / np.median(b))
    within = statistics.ratio_interval(a, b)
    enough = statistics.least_p((len(a), len(b))) * tests < statistics.ALPHA
    return statistics.verdict(p, within, ratio, enough=enough, is_time=True)


@pytest.mark.parametrize("noise", [normal, skewed])
@pytest.mark.parametrize("n", [5, 10, 20])
def test_equal_levels_have_no_difference(n: int, noise: Noise) -> None:
    rng = random.Random(f"equal {n}")
    verdicts = [
        told([noise(rng) for _ in range(n)], [noise(rng) for _ in range(n)]) for _ in range(100)
    ]
    assert verdicts.count(statistics.NO_DIFFERENCE) >= 93


@pytest.mark.parametrize("tests", [1, 3])
def test_a_difference_of_five_percent_is_found(tests: int) -> None:
    rng = random.Random("five percent")
    verdicts = [
        told([1.05 * normal(rng) for _ in range(10)], [normal(rng) for _ in range(10)], tests)
        for _ in range(100)
    ]
    assert sum(v.startswith("slower +") for v in verdicts) >= 90


@pytest.mark.parametrize(("n", "least"), [(5, 0.90), (10, 0.90), (20, 0.91)])
def test_the_interval_holds_the_true_median(n: int, least: float) -> None:
    """As often as the documentation says, within what 200 tries can tell."""
    rng = np.random.default_rng(7)
    truth = math.exp(0.5)
    within = 0
    for _ in range(200):
        low, high = statistics.interval(np.exp(rng.normal(0.5, 0.3, n)))
        within += low <= truth <= high
    assert within / 200 >= least


def test_the_interval_is_scipys() -> None:
    values = np.random.default_rng(3).lognormal(0, 0.1, 12)
    peer = scipy.stats.bootstrap(
        (values,), np.median, n_resamples=9999, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    low, high = statistics.interval(values)
    assert low == pytest.approx(peer.low, rel=0.01)
    assert high == pytest.approx(peer.high, rel=0.01)


@pytest.mark.parametrize(("n", "m"), [(3, 3), (5, 5), (4, 9), (20, 20), (50, 50)])
def test_p_is_mann_and_whitneys(n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.normal(1, 0.02, n), rng.normal(1.01, 0.02, m)
    peer = scipy.stats.mannwhitneyu(a, b, method="exact").pvalue
    assert statistics.permutation_p(a, b) == pytest.approx(peer, rel=1e-9)


def test_p_with_equal_values_is_that_of_all_permutations() -> None:
    a, b = [1.0, 1.0, 2.0, 3.0, 3.0], [2.0, 3.0, 3.0, 4.0]

    def rank_sum(x: list[float], y: list[float], axis: int = 0) -> float:
        return float(scipy.stats.rankdata([*x, *y])[: len(x)].sum())

    middle = len(a) * (len(a) + len(b) + 1) / 2
    peer = scipy.stats.permutation_test(
        (a, b), lambda x, y: abs(rank_sum(x, y) - middle), vectorized=False, alternative="greater"
    )
    assert statistics.permutation_p(a, b) == pytest.approx(peer.pvalue)


def test_many_values_have_a_p_by_chance_near_the_normal_one() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(1, 0.02, 80), rng.normal(1.004, 0.02, 80)
    peer = scipy.stats.mannwhitneyu(a, b, method="asymptotic").pvalue
    assert 0.01 < peer < 0.9
    assert statistics.permutation_p(a, b) == pytest.approx(peer, abs=0.02)


def test_the_same_values_and_seed_give_the_same_in_any_order() -> None:
    values = [1.0, 1.2, 1.1, 0.9, 1.05, 1.3]
    assert statistics.interval(values, 4) == statistics.interval(values[::-1], 4)
    a = list(np.random.default_rng(2).normal(1, 0.1, 80))
    b = list(np.random.default_rng(3).normal(1.02, 0.1, 80))
    assert statistics.permutation_p(a, b, 9) == statistics.permutation_p(a, b, 9)
    assert statistics.ratio_interval(a, b, 9) == statistics.ratio_interval(a[::-1], b, 9)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0]])
def test_too_few_values_have_no_interval(values: list[float]) -> None:
    assert all(map(math.isnan, statistics.interval(values)))
    assert statistics.relative_width(values) == math.inf
    assert statistics.repeats_for(values, 0.05) is None


@pytest.mark.parametrize("values", [[3.0, 1.0, 2.0], [5.0, 1.0, 2.0, 3.0, 4.0]])
def test_few_values_have_their_ends(values: list[float]) -> None:
    assert statistics.interval(values) == (min(values), max(values))


def test_how_many_repeats_would_do() -> None:
    """Four times as many halve the interval: tried with values that go on as they began."""
    values = np.random.default_rng(11).normal(1, 0.05, 40)
    width = statistics.relative_width(values)
    more = statistics.repeats_for(values, width / 2)
    assert more == pytest.approx(160, abs=2)
    again = np.random.default_rng(12).normal(1, 0.05, 160)
    assert statistics.relative_width(again) == pytest.approx(width / 2, rel=0.4)
    assert statistics.repeats_for(values, 1.0) == 40


def test_holm_is_as_in_the_book() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    corrected = statistics.holm([math.nan, 0.02, 0.02])
    assert math.isnan(corrected[0])
    assert corrected[1:] == [0.04, 0.04]


@pytest.mark.parametrize(("tests", "fewest"), [(1, 4), (2, 5), (6, 5), (7, 6)])
def test_how_few_repeats_can_show_anything(tests: int, fewest: int) -> None:
    assert statistics.fewest_repeats(tests) == fewest
    n = fewest
    assert statistics.permutation_p(range(n), range(n, 2 * n)) == statistics.least_p((n, n))


def test_both_the_test_and_the_interval_must_say_so() -> None:
    def said(p: float, low: float, high: float, ratio: float = 1.1, **more: bool) -> str:
        return statistics.verdict(p, (low, high), ratio, enough=True, **more)

    assert said(0.01, 1.05, 1.15) == "higher +10.0 %"
    assert said(0.01, 1.05, 1.15, is_time=True) == "slower +10.0 %"
    assert said(0.01, 0.4, 0.6, 0.5, is_time=True) == "faster −50.0 %"
    assert said(0.01, 0.4, 0.6, 0.5) == "lower −50.0 %"
    assert said(0.06, 1.05, 1.15) == "no difference found"
    assert said(0.01, 0.99, 1.15) == "no difference found"
    assert said(0.01, math.nan, math.nan) == "too few repeats"
    assert statistics.verdict(0.01, (1.1, 1.2), 1.1, enough=False) == "too few repeats"
    assert statistics.verdict(0.01, (1.0, 2.0), math.nan, enough=True, none_at=0.0) == "higher"


def test_a_baseline_of_zero_has_no_ratio() -> None:
    assert all(map(math.isnan, statistics.ratio_interval([1.0] * 5, [0.0] * 5)))
    assert statistics.difference_within([([1.0] * 5, [0.0] * 5)]) == (1.0, 1.0, 1.0)


def test_blocks_keep_another_factor_out_of_the_comparison() -> None:
    """Memory makes 10 times as much of a difference, and 5 % by CPU is seen all the same."""
    rng = random.Random(4)
    blocks = [
        ([1.05 * size * normal(rng) for _ in range(4)], [size * normal(rng) for _ in range(4)])
        for size in (1, 3, 10)
    ]
    ratio, low, high = statistics.ratio_within(blocks)
    assert ratio == pytest.approx(1.05, abs=0.02)
    assert 1.0 < low < 1.05 < high < 1.1
    assert statistics.p_within(blocks) < 0.01
    of_a, of_b = ([value for block in blocks for value in block[i]] for i in (0, 1))
    assert statistics.permutation_p(of_a, of_b) > 0.2


def test_the_p_of_blocks_is_that_of_all_permutations_within_them() -> None:
    blocks = [([1.0, 2.0], [3.0, 1.5, 2.0]), ([5.0, 4.0, 8.0], [6.0, 7.0])]
    choices = []
    for a, b in blocks:
        ranks = scipy.stats.rankdata([*a, *b])
        middle = len(a) * (len(ranks) + 1) / 2
        sums = [sum(c) - middle for c in itertools.combinations(ranks, len(a))]
        choices.append((sums, sum(ranks[: len(a)]) - middle))
    far = abs(sum(here for _, here in choices))
    every = [abs(sum(one)) for one in itertools.product(*(sums for sums, _ in choices))]
    expected = sum(one >= far - 1e-9 for one in every) / len(every)
    assert statistics.p_within(blocks) == pytest.approx(expected)


def test_the_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(8)
    x = np.arange(30.0)
    y = x * 0.05 + rng.normal(0, 1, 30)
    rho, p = statistics.rank_correlation(x, y)
    peer = scipy.stats.spearmanr(x, y)
    assert rho == pytest.approx(peer.statistic)
    assert p == pytest.approx(peer.pvalue, abs=0.01)
    assert statistics.rank_correlation([1, 2, 3], [1, 1, 1]) == (0.0, 1.0)
    assert statistics.rank_correlation(range(20), range(20))[1] < 1e-6
