"""Each warning of a sweep: there where it should be, with its advice, and not on a calm machine."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from nscontainer.experiment import stability
from nscontainer.experiment.plan import Turn
from nscontainer.experiment.sweep import Sweep
from nscontainer.measure.conditions import Conditions
from nscontainer.measure.run_warnings import RunWarning
from tests.unit.sweep_factories import CALM, plan, sweep


def long(point: Any) -> float:
    return 2.5


def codes(s: Sweep) -> list[str]:
    return [warning.code for warning in s.warnings]


def the(s: Sweep, code: str) -> RunWarning:
    found = [warning for warning in s.warnings if warning.code == code]
    assert len(found) == 1, codes(s)
    return found[0]


def beside(**changes: Any) -> Sweep:
    """Make a sweep whose third run had something beside it."""

    def at(turn: Turn) -> Conditions:
        return dataclasses.replace(CALM, **changes) if turn.number == 2 else CALM

    return sweep(wall=long, conditions=at)


def drifting(per_run: float, **more: Any) -> Sweep:
    """Make a sweep whose every run takes longer than the one before."""
    walls = iter(range(1000))
    return sweep(wall=lambda _p: 2.5 * (1 + per_run * next(walls)), noise=0.003, **more)


def test_a_calm_machine_has_none() -> None:
    assert codes(sweep(wall=long)) == []
    assert codes(sweep(of_plan=plan(repeat=20), wall=long, seed=4)) == []
    assert codes(sweep(done=0)) == []


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        (
            {"steal_share": 0.05},
            "steal",
            "took up to 5.0 % of the CPU time in 1 of 15 runs: repeat",
        ),
        (
            {"thermal_throttles": 3},
            "thermal",
            "slowed down for its heat 3 times in 1 of 15 runs: cool",
        ),
        (
            {"governor": "powersave"},
            "governor",
            "changed (performance, powersave): .* set performance",
        ),
        ({"mhz": 2000.0}, "clock-varies", "between 2000 and 2900 MHz: fix it"),
        ({"swap_in_pages": 500}, "swap", "swapping in 1 of 15 runs: end what"),
        ({"swap_out_pages": 500}, "swap", "swapping in 1 of 15 runs"),
        ({"other_cpus": 0.7}, "competing-load", r"used 0\.70 CPUs .* in 1 of 15 runs: end them"),
    ],
)
def test_what_ran_beside_it(changes: dict[str, Any], code: str, said: str) -> None:
    s = beside(**changes)
    assert codes(s) == [code]
    assert re.search(said.replace("(", r"\(").replace(")", r"\)"), the(s, code).message)


def test_a_host_that_tells_nothing_is_not_warned_of() -> None:
    assert codes(sweep(wall=long, conditions=lambda _turn: Conditions())) == []


def test_runs_side_by_side_are_no_competition() -> None:
    busy = dataclasses.replace(CALM, other_cpus=1.0)
    s = sweep(of_plan=plan(parallel=2), wall=long, conditions=lambda _turn: busy)
    assert codes(s) == []


def test_another_governor_throughout_is_good_to_know() -> None:
    s = sweep(wall=long, conditions=lambda _t: dataclasses.replace(CALM, governor="schedutil"))
    assert the(s, "governor").severity == "info"
    assert the(beside(governor="schedutil"), "governor").severity == "warning"


def test_too_short() -> None:
    s = sweep({"n": (1, 2)}, wall=lambda p: 0.02 * float(p["n"] or 0), sample_s=0.01)
    assert "too short: 19.7 ms" in the(s, "too-short").message
    assert "at n 1 and 1 more; let each run do more" in the(s, "too-short").message
    sampled = sweep({"n": (1,)}, wall=lambda _p: 0.2, sample_s=0.1)
    assert the(sampled, "too-short").figures["wall_s"] == {"n 1": pytest.approx(0.2, rel=0.1)}
    assert "too-short" not in codes(sweep({"n": (1,)}, wall=lambda _p: 0.2, sample_s=0.02))


def test_few_periods() -> None:
    s = sweep({"cpu": ("20%", "100%")})
    assert the(s, "few-periods").message.startswith(
        "only 10 quota periods of 100 ms at cpu 100 %: to"
    )
    assert "run for 2 s or more" in the(s, "few-periods").message
    assert "few-periods" not in codes(sweep({"cpu": (None,)}, wall=lambda _p: 1.0))


def test_noise_asks_for_quiet_and_for_repeats() -> None:
    s = sweep(of_plan=plan(repeat=10), wall=long, noise=0.15, seed=2)
    assert "of the mean at cpu" in the(s, "noisy").message
    more = the(s, "more-repeats")
    assert more.figures["width"] > stability.WIDE
    assert f"about --repeat {more.figures['repeats']} would make it 10 %" in more.message
    assert more.figures["repeats"] > 10
    wild = sweep(of_plan=plan(repeat=5), wall=long, noise=0.6, seed=2)
    assert "repeating alone won't do" in the(wild, "more-repeats").message


def test_few_repeats() -> None:
    s = sweep(of_plan=plan(repeat=2), wall=long)
    assert codes(s) == ["few-repeats"]
    assert "only 2 runs at a level" in the(s, "few-repeats").message
    running = sweep(of_plan=plan(repeat=5), wall=long, done=4, status="running")
    assert the(running, "few-repeats").severity == "info"


def test_an_outlier_is_named() -> None:
    numbers = iter(range(1000))
    s = sweep(wall=lambda _p: 2.5 * (1.4 if next(numbers) == 9 else 1))
    found = the(s, "outliers")
    assert found.message.startswith("1 outlier: run 3f2a9c41/9 is ")
    assert found.figures["run_ids"] == ["3f2a9c41/9"]


def test_drift_either_way() -> None:
    s = drifting(0.004)
    assert "above the first; random order" in the(s, "drift").message
    assert the(s, "drift").figures["rank_correlation"] > 0.8
    assert "below the first" in the(drifting(-0.004), "drift").message
    assert "drift" not in codes(drifting(0.0005))


def test_drift_is_seldom_seen_where_there_is_none() -> None:
    seen = sum("drift" in codes(sweep(wall=long, seed=seed, noise=0.03)) for seed in range(40))
    assert seen <= 2


def test_a_first_run_effect_asks_for_a_warm_up() -> None:
    def slow_first(**more: Any) -> Sweep:
        numbers = iter(range(-3 * more.get("warmup", 0), 1000))
        the_plan = plan(repeat=5, **more)
        return sweep(of_plan=the_plan, wall=lambda _p: 2.5 * (1.2 if next(numbers) < 3 else 1))

    s = slow_first()
    assert "above the later ones; use --warmup 1" in the(s, "first-run").message
    assert the(s, "first-run").figures["more"] == pytest.approx(0.2, abs=0.05)
    assert "first-run" not in codes(slow_first(warmup=1))


def test_failed_runs() -> None:
    s = sweep(wall=long, change=lambda t: {"exit_code": 3} if t.number in (1, 4) else {})
    found = the(s, "failed-runs")
    assert found.severity == "error"
    assert found.message.startswith("2 of 15 runs failed: exit code 3; times are of the others")
    timed_out = {"exit_code": 137, "timed_out": "wall", "killed_by": "timeout", "signal": 9}
    meant = sweep(wall=long, change=lambda _t: timed_out)
    assert the(meant, "failed-runs").severity == "warning"
    assert "15 of 15 runs failed" in the(meant, "failed-runs").message


def test_limits_that_differ_and_a_parents() -> None:
    def other(turn: Turn) -> dict[str, Any]:
        quota = {"cpu_quota_us": 99_000, "cpu_period_us": 100_000, "memory_bytes": 1 << 28}
        return {"limits_read_back": quota} if turn.number == 1 else {}

    s = sweep(wall=long, change=other)
    assert s.warnings[0].code == "limits-differ"
    assert "in 1 of 15 runs a limit was not as asked: CPU" in the(s, "limits-differ").message
    below = sweep(wall=long, change=lambda _t: {"parents_quota": 0.5})
    assert "allowed 50 % of a CPU in 5 of 15 runs" in the(below, "parent-quota").message


def test_several_hosts() -> None:
    by_level = sweep(wall=long, host=lambda turn: f"lab-{turn.point}")
    assert the(by_level, "hosts").severity == "warning"
    assert "not every level on each: compare only what ran on one" in the(by_level, "hosts").message
    mixed = sweep(wall=long, host=lambda turn: f"lab-{turn.repeat % 2}")
    assert the(mixed, "hosts").severity == "info"


def test_unfinished_and_recorded() -> None:
    s = sweep(wall=long, done=12)
    assert (
        the(s, "unfinished").message == "12 of 15 runs have ended: the same call goes on from here"
    )
    recorded = sweep(wall=long, done=12, recorded="recorded on lab-9")
    assert codes(recorded) == ["recorded"]
    assert the(recorded, "recorded").message.startswith("recorded on lab-9: not run here")


def test_the_gravest_comes_first() -> None:
    s = sweep(done=7, change=lambda t: {"exit_code": 3} if t.number == 1 else {})
    severities = [warning.severity for warning in s.warnings]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    assert severities[0] == "error"
