"""The benchmarks' own arithmetic: what they say of us has to be right."""

from __future__ import annotations

import functools
import tarfile
from io import BytesIO

import pytest

from benchmarks import quota, report, roots, stats


def test_ratio_of_medians_and_its_interval() -> None:
    """The ratio is of medians, one wild round doesn't move it, and the interval holds it."""
    peer = [10.0, 11.0, 9.0, 10.5, 9.5, 10.0, 10.2, 9.8, 10.1]
    ours = [value / 2 for value in peer]
    ours[3] = 500.0
    ratio = stats.ratio_of_medians(ours, peer)
    assert ratio.low <= ratio.value <= ratio.high
    assert ratio.value == pytest.approx(0.5, rel=0.05)


def test_a_round_that_was_slow_for_all_stays_together() -> None:
    """What disturbs whole rounds alike leaves no spread in the ratio."""
    peer = [10.0, 40.0, 10.0, 30.0, 20.0]
    ratio = stats.ratio_of_medians([3 * value for value in peer], peer)
    assert (ratio.low, ratio.value, ratio.high) == (3.0, 3.0, 3.0)


def test_a_median_of_differences_and_its_interval() -> None:
    """Round by round: what slows both alike is not in it, and one wild round doesn't move it."""
    peer = [10.0, 40.0, 10.0, 30.0, 20.0, 10.0, 10.0]
    ours = [value + 3 for value in peer]
    ours[2] = 500.0
    found = stats.median_difference(ours, peer)
    assert (found.low, found.value) == (3.0, 3.0)
    assert found.high >= 3.0


def test_contenders_take_turns() -> None:
    """Each is measured once a round, in changing order; rounds of the warm-up don't count."""
    order: list[str] = []

    def contender(name: str) -> float:
        order.append(name)
        return float(len(order))

    rounds = stats.interleave(
        {name: functools.partial(contender, name) for name in "abc"}, 4, warm_up=1, settle_s=0
    )
    turns = [order[i : i + 3] for i in range(0, 15, 3)]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 1
    assert {name: len(values) for name, values in rounds.values.items()} == dict.fromkeys("abc", 4)
    assert min(min(values) for values in rounds.values.values()) == 4.0


@pytest.mark.parametrize("phase_ms", [0, 7, 55, 99])
def test_share_over_whole_periods_ignores_the_phase(phase_ms: int) -> None:
    """20 ms in each 100 ms is 20 %, wherever in a period a run begins and ends."""
    step = 20_000_000
    times = [step * i for i in range(320)]

    def used(at_ns: int) -> int:
        periods, rest = divmod(at_ns + phase_ms * 1_000_000, 100_000_000)
        return periods * step + min(rest, step)

    share = quota.share_over_windows(times, [used(at) for at in times])
    assert share == pytest.approx(20.0, abs=1e-9)


def test_quotas_under_a_millisecond_and_unusable_ones_are_left_out() -> None:
    """Linux's least quota is 1 ms, and one thread can't use 150 %."""
    cases = list(quota.cases(quick=False))
    assert all(case.percent * case.period_ms >= 100 for case in cases)
    assert quota.Case(150, 1, 100) not in cases
    assert quota.Case(5, 4, 50) in cases
    assert set(quota.cases(quick=True)) < set(cases)


def test_a_row_says_whether_its_target_is_reached() -> None:
    """By the value; the spread only says how clear that is."""
    row = report.Row(what="w", ours="", peer="", value=0.9, low=0.8, high=1.1, target=1.0)
    assert (row.reached, row.clear) == ("yes", False)
    assert report.Row(what="w", ours="", peer="", value=2.0).reached == "-"


def test_the_python_image_is_whole() -> None:
    """The tar for docker import has this Python, its standard library and its dynamic loader."""
    files = roots.python_files()
    assert roots.python_program() in files
    assert any(file.endswith("/encodings/__init__.py") for file in files)
    with tarfile.open(fileobj=BytesIO(roots.tar(roots.true_files()))) as archive:
        names = archive.getnames()
    assert "bin/true" in names
    assert "proc" in names
