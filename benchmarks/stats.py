"""Paired, interleaved measurements and what may be said of them.

A machine's speed drifts (other load, steal, frequency), so contenders take turns, each round in
another order, and the ratio of two medians gets a bootstrap interval that resamples whole
rounds: what disturbed one round disturbed all its contenders.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

RESAMPLES = 4000
SEED = 20_26
SETTLE_S = 0.03
"""Between two measurements: what the one before leaves to be done (a daemon cleaning up, a process
made ready for the next start) isn't to be on the account of the one after."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of medians (or a median of differences) with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Rounds:
    """Every measurement of every contender: ``values[name][i]`` is of round ``i``."""

    values: Mapping[str, tuple[float, ...]]

    def median(self, name: str) -> float:
        """Give a contender's median."""
        return statistics.median(self.values[name])

    def spread(self, name: str) -> tuple[float, float]:
        """Give a contender's quartiles."""
        low, _, high = statistics.quantiles(self.values[name], n=4, method="inclusive")
        return low, high

    def ratio(self, ours: str, peer: str) -> Ratio:
        """Give the ratio of two contenders' medians."""
        return ratio_of_medians(self.values[ours], self.values[peer])

    def difference(self, ours: str, peer: str) -> Ratio:
        """Give the median of what one took longer than the other, round by round."""
        return median_difference(self.values[ours], self.values[peer])


def interleave(
    contenders: Mapping[str, Callable[[], float]],
    rounds: int,
    *,
    warm_up: int = 2,
    settle_s: float = SETTLE_S,
    label: str = "",
) -> Rounds:
    """Measure all contenders in turn, ``rounds`` times, after ``warm_up`` rounds that don't count.

    Parameters
    ----------
    contenders
        By name, what takes one measurement and returns it.
    settle_s
        Slept before each measurement.
    label
        Shown with the progress on a terminal.
    """
    names = list(contenders)
    values: dict[str, list[float]] = {name: [] for name in names}
    chance = random.Random(SEED)  # noqa: S311 - no secret
    with Progress(label, warm_up + rounds) as progress:
        for number in range(warm_up + rounds):
            # In another order each time, so that nobody always follows the same one.
            for name in chance.sample(names, len(names)):
                time.sleep(settle_s)
                value = contenders[name]()
                if number >= warm_up:
                    values[name].append(value)
            progress.step()
    return Rounds({name: tuple(kept) for name, kept in values.items()})


def ratio_of_medians(ours: Sequence[float], peer: Sequence[float]) -> Ratio:
    """Give median(ours) / median(peer), with an interval from resampling rounds.

    Raises
    ------
    ValueError
        They are of different numbers of rounds.
    """
    pairs = list(zip(ours, peer, strict=True))
    chance = random.Random(SEED)  # noqa: S311 - statistics, no secret; the same answer every time
    resampled = []
    for _ in range(RESAMPLES):
        drawn = chance.choices(pairs, k=len(pairs))
        resampled.append(
            statistics.median(a for a, _ in drawn) / statistics.median(b for _, b in drawn)
        )
    resampled.sort()
    return Ratio(
        statistics.median(ours) / statistics.median(peer),
        resampled[round(0.025 * (RESAMPLES - 1))],
        resampled[round(0.975 * (RESAMPLES - 1))],
    )


def median_difference(ours: Sequence[float], peer: Sequence[float]) -> Ratio:
    """Give the median of ours − peer, with an interval from resampling rounds.

    Raises
    ------
    ValueError
        They are of different numbers of rounds.
    """
    differences = [a - b for a, b in zip(ours, peer, strict=True)]
    chance = random.Random(SEED)  # noqa: S311 - as above
    resampled = sorted(
        statistics.median(chance.choices(differences, k=len(differences))) for _ in range(RESAMPLES)
    )
    return Ratio(
        statistics.median(differences),
        resampled[round(0.025 * (RESAMPLES - 1))],
        resampled[round(0.975 * (RESAMPLES - 1))],
    )


class Progress:
    """How far it is, on a terminal's one line; silent elsewhere."""

    def __init__(self, label: str, steps: int) -> None:
        self.label = label
        self.steps = steps
        self.done = 0
        self._shown = sys.stderr.isatty()
        self._begin = time.monotonic()

    def __enter__(self) -> Self:
        self._show()
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def step(self) -> None:
        """One step further."""
        self.done += 1
        self._show()

    def _show(self) -> None:
        if self._shown:
            spent = time.monotonic() - self._begin
            sys.stderr.write(f"\r\033[K{self.label}: {self.done} of {self.steps}, {spent:.0f} s")
            sys.stderr.flush()
