"""The frames of a sweep: their columns, units and types, and how levels are compared."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nscontainer import schema
from nscontainer.errors import SpecError
from nscontainer.experiment import rows
from nscontainer.experiment.sweep import Sweep
from tests.unit import factories, sweep_factories
from tests.unit.sweep_factories import plan, sweep

OWN = (
    "repeat order ok exit exit_code oom_killed timed_out wall_s cpu_s cpu_share throttled_share "
    "peak_memory warnings host linux cpu_model cpus started_utc steal_share other_cpus thermal_throttles governor mhz "
    "swap_in_pages swap_out_pages load_1m parent_cpus limits_differ recorded".split()
)
FAILED = {"exit_code": 1}


def two_factors(**more: Any) -> Sweep:
    levels = {"cpu": ("20%", "50%", None), "memory": ("128M", "256M")}
    return sweep(of_plan=plan(levels, repeat=4), **more)


# --- summary ---


def test_a_row_a_run_with_the_columns_that_are_promised() -> None:
    s = two_factors()
    assert list(s.summary.columns) == ["cpu", "memory", *OWN]
    assert list(rows.ORDER[1:]) == OWN
    assert s.summary.index.name == "run_id"
    assert list(s.summary.index) == [f"3f2a9c41/{i}" for i in range(24)]
    assert list(s.summary["order"]) == list(range(24))
    assert set(s.summary["repeat"]) == {0, 1, 2, 3}


def test_levels_are_numbers_in_their_unit_and_no_limit_is_missing() -> None:
    s = two_factors()
    assert s.summary["cpu"].dtype == np.float64
    assert set(s.summary["cpu"].dropna()) == {0.2, 0.5}
    assert s.summary["cpu"].isna().sum() == 8
    assert s.summary["memory"].dtype == np.int64
    assert set(s.summary["memory"]) == {128 * factories.MIB, 256 * factories.MIB}
    units = s.summary.attrs["units"]
    assert units["cpu"] == "CPUs"
    assert units["memory"] == units["peak_memory"] == "bytes"
    assert units["wall_s"] == "s"
    assert set(units) <= set(s.summary.columns)


def test_a_rows_figures_are_its_results() -> None:
    s = sweep()
    for run, (_, row) in zip(s.runs, s.summary.iterrows(), strict=True):
        assert row["wall_s"] == run.result.wall_s
        assert row["cpu_s"] == run.result.cpu_s
        assert row["peak_memory"] == run.result.totals["memory.peak"]
        assert row["throttled_share"] == run.result.totals["throttled_share"]
        assert row["started_utc"] == run.result.started
        assert row["warnings"].split(", ") == [w.code for w in run.result.warnings]
        assert row["ok"]
        assert row["exit"] == "ok"
        assert row["governor"] == "performance"
        assert not row["recorded"]


def test_types_stay_whatever_has_run() -> None:
    full, none = two_factors(), two_factors(done=0)
    assert none.summary.empty
    assert list(none.summary.columns) == list(full.summary.columns)
    for name in ("cpu", "memory", "wall_s", "repeat", "exit_code", "ok", "steal_share"):
        assert none.summary[name].dtype == full.summary[name].dtype, name


def test_what_a_host_does_not_tell_is_missing_and_a_number() -> None:
    s = sweep(
        conditions=lambda _turn: type(sweep_factories.CALM)(),
        change=lambda _turn: {"final": factories.reading(), "baseline": factories.reading()},
    )
    for name in ("steal_share", "mhz", "thermal_throttles", "load_1m", "parent_cpus"):
        assert s.summary[name].dtype == np.float64, name
        assert s.summary[name].isna().all(), name


def test_reported_values_are_columns_before_the_warnings() -> None:
    s = sweep(
        {"cpu": ("50%", "100%"), "n": (1000, 2000)},
        reported=lambda p: {"items": p["n"], "wall_s": 3} | ({"x": "a"} if p["n"] == 1000 else {}),
    )
    columns = list(s.summary.columns)
    between = columns[columns.index("peak_memory") + 1 : columns.index("warnings")]
    assert sorted(between) == ["items", "reported.wall_s", "x"]
    assert (s.summary["items"] == s.summary["n"]).all()
    assert s.summary["x"].isna().sum() == 10
    assert "n" not in s.summary.attrs["units"]


# --- samples ---


def test_samples_are_all_runs_under_one_another() -> None:
    s = two_factors(done=5)
    frame = s.samples
    assert list(frame.columns[:4]) == ["run_id", "cpu", "memory", "elapsed_s"]
    assert set(schema.NAMES) < set(frame.columns)
    assert len(frame) == sum(len(run.result.usage) for run in s.runs)
    for run in s.runs:
        mine = frame[frame["run_id"] == f"3f2a9c41/{run.turn.number}"]
        usage = run.result.usage
        assert mine["cpuacct.usage"].tolist() == usage["cpuacct.usage"].tolist()
        assert mine["elapsed_s"].tolist() == usage.index.tolist()
    assert frame.attrs["units"]["cpuacct.usage"] == "ns"
    assert frame.attrs["units"]["cpu"] == "CPUs"
    assert s.runs[0].result.usage.attrs["units"]  # which it left alone
    assert list(two_factors(done=0).samples.columns)[:4] == list(frame.columns[:4])


# --- compare ---


def test_a_row_a_level_in_the_plans_order() -> None:
    s = sweep({"cpu": ("100%", "20%", None, "50%")}, noise=0.01)
    frame = s.compare("cpu")
    assert frame.index.name == "cpu"
    assert np.array_equal(frame.index, [1.0, 0.2, math.nan, 0.5], equal_nan=True)
    assert list(frame.columns) == (
        "label n failed median low high relative relative_low relative_high p verdict".split()
    )
    assert list(frame["label"]) == ["100 %", "20 %", "no limit", "50 %"]
    assert list(frame["n"]) == [5] * 4
    assert (frame["low"] <= frame["median"]).all()
    assert (frame["median"] <= frame["high"]).all()
    assert frame["relative"].tolist() == pytest.approx([0.5, 2.5, 0.5, 1.0], rel=0.03)
    assert frame["verdict"].iloc[3] == "baseline"
    assert frame["verdict"].iloc[0].startswith("faster −49.")
    assert frame["verdict"].iloc[1].startswith("slower +1")
    assert frame.attrs["units"] == {"median": "s", "low": "s", "high": "s"}
    assert frame.attrs["baseline"] == "50 %"
    by_median = s.summary[s.summary["cpu"] == 0.2]["wall_s"].median()
    assert frame["median"].iloc[1] == by_median


def test_equal_levels_do_not_differ_and_five_percent_does() -> None:
    """The whole way, from runs to a verdict; the 100 repeats are test_sweep_statistics'."""
    walls = {"equal": 1.0, "more": 1.05, "base": 1.0}
    s = sweep(
        of_plan=plan({"n": tuple(walls)}, repeat=10), wall=lambda p: walls[str(p["n"])], noise=0.015
    )
    verdicts = s.compare()["verdict"]
    assert verdicts["equal"] == "no difference found"
    assert verdicts["more"].startswith("slower +")


@pytest.mark.parametrize("baseline", ["20%", 0.2, "0.2", "20 %"])
def test_the_baseline_may_be_named_in_any_way(baseline: object) -> None:
    frame = sweep().compare(baseline=baseline)
    assert frame["verdict"].iloc[0] == "baseline"
    assert frame["relative"].tolist() == pytest.approx([1, 0.4, 0.2], rel=0.05)


def test_no_limit_may_be_the_baseline() -> None:
    s = sweep({"cpu": (None, "50%")})
    assert s.compare(baseline="no limit")["verdict"].iloc[0] == "baseline"
    assert s.compare(baseline=math.nan)["verdict"].iloc[0] == "baseline"


def test_another_factor_is_kept_out_of_the_comparison() -> None:
    """5 % by CPU, ten times as much by n: pooled it would be lost, within each n it is seen."""
    s = sweep(
        of_plan=plan({"cpu": ("50%", "60%"), "n": (1, 10, 100)}, repeat=4),
        wall=lambda p: float(p["n"] or 0) * (1.05 if p["cpu"] == "50%" else 1.0) / 20,
        noise=0.01,
    )
    frame = s.compare("cpu")
    assert frame["verdict"].iloc[0].startswith("slower +")
    assert frame["relative"].iloc[0] == pytest.approx(1.05, abs=0.02)
    assert frame.attrs["within"] == ["n"]
    assert s.compare("n")["relative"].tolist() == pytest.approx([0.01, 0.1, 1], rel=0.05)


def test_levels_that_go_together_are_not_kept_apart() -> None:
    s = sweep(of_plan=plan({"cpu": ("50%", "100%"), "memory": ("128M", "256M")}, mode="zip"))
    frame = s.compare("memory")
    assert frame.attrs["within"] == []
    assert frame["relative"].tolist() == pytest.approx([2.0, 1.0], rel=0.05)


def test_what_failed_does_not_count_unless_it_is_all() -> None:
    s = sweep(change=lambda turn: FAILED if turn.repeat == 0 else {})
    frame = s.compare()
    assert list(frame["n"]) == [4] * 3
    assert list(frame["failed"]) == [1] * 3
    assert list(s.compare(metric="peak_memory")["n"]) == [5] * 3
    everything = sweep(change=lambda _turn: FAILED).compare()
    assert list(everything["n"]) == [5] * 3
    one_level = sweep(change=lambda turn: FAILED if turn.point == 0 else {}).compare()
    assert one_level["verdict"].iloc[0] == "all runs failed"
    assert math.isnan(one_level["median"].iloc[0])
    assert one_level["verdict"].iloc[1].startswith("slower")


def test_missing_levels_and_too_few_runs_are_said() -> None:
    s = sweep(done=2)
    verdicts = s.compare()["verdict"]
    assert list(verdicts) == ["too few repeats", "too few repeats", "no runs"]
    assert math.isnan(s.compare()["median"].iloc[2])
    few = sweep(of_plan=plan(repeat=3)).compare()
    assert list(few["verdict"]) == ["too few repeats", "too few repeats", "baseline"]
    assert (few["low"] < few["high"]).all()
    uneven = sweep(of_plan=plan(repeat=8), done=3 * 6 + 1).compare()
    assert sorted(uneven["n"]) == [6, 6, 7]
    assert uneven["verdict"].iloc[0].startswith("slower")


def test_a_reported_value_is_compared() -> None:
    rng = random.Random(3)
    s = sweep(
        reported=lambda p: {"rate": 100 * rng.gauss(1, 0.01) / float(sweep_factories.wall_at(p))}
    )
    frame = s.compare(metric="rate")
    assert frame["verdict"].iloc[0].startswith("lower −79.")
    assert frame.attrs["units"] == {}


def test_a_figure_that_is_0_at_the_baseline_has_no_ratio_but_a_verdict() -> None:
    s = sweep({"cpu": ("20%", "100%")})
    frame = s.compare(metric="throttled_share")
    assert frame["median"].iloc[1] == 0
    assert math.isnan(frame["relative"].iloc[0])
    assert frame["verdict"].iloc[0] == "higher"


def test_bad_questions_get_an_answer_that_helps() -> None:
    s = sweep()
    with pytest.raises(SpecError, match="'memory' is not varied") as caught:
        s.compare("memory")
    assert caught.value.hint == "one of cpu"
    with pytest.raises(SpecError, match="'governor' is no numeric column") as caught:
        s.compare(metric="governor")
    assert "wall_s" in str(caught.value.hint)
    with pytest.raises(SpecError, match="'ok' is no numeric"):
        s.compare(metric="ok")
    with pytest.raises(SpecError, match="'30%' is not a level of cpu") as caught:
        s.compare(baseline="30%")
    assert caught.value.hint == "one of 20 %, 50 %, 100 %"
    with pytest.raises(SpecError, match="is not a level"):
        s.compare(baseline="rubbish")
    with pytest.raises(SpecError, match="nothing is varied"):
        sweep({}).compare()


def test_the_seed_gives_the_same_again() -> None:
    first, second = sweep().compare(), sweep().compare()
    pd.testing.assert_frame_equal(first, second)
