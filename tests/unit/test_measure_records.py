"""The exit record and the samples, as figures: exact, and NA never zero."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from nscontainer import schema
from nscontainer.measure import RunResult, rates, records
from tests.unit import factories


def test_measure_imports_standard_library_only():
    """What a run's way back to the notebook imports is no pandas, numpy or zipfile."""
    code = (
        "import sys, nscontainer.measure, nscontainer.card; "
        "print(sorted({'pandas', 'numpy', 'matplotlib', 'IPython', 'zipfile', 'importlib.metadata'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


def test_totals_are_the_final_reading_less_the_baseline():
    """Counters are differences to the last ns; gauges and peaks are the final reading's."""
    big = (1 << 53) + 1  # a float would lose the 1
    baseline = factories.reading({"cpuacct.usage": 7, "memory.usage": 5, "memory.peak": 5})
    final = factories.reading(
        {"cpuacct.usage": 7 + big, "memory.usage": 3, "memory.peak": 9, "cpu.quota": 200_000}
    )
    run = RunResult.from_record(factories.record(baseline=baseline, final=final), b"")
    assert run.totals["cpuacct.usage"] == big
    assert (run.totals["memory.usage"], run.totals["memory.peak"]) == (3, 9)
    assert run.totals["cpu.quota"] == 0.2
    assert set(schema.NAMES) < set(run.totals)
    assert run.totals.units["cpuacct.usage"] == "ns"


def test_derived_totals():
    """Shares are of the wall time and of the periods; steal is in seconds."""
    final = factories.reading(
        {"cpuacct.usage": 500_000_000, "cpu.nr_periods": 10, "cpu.nr_throttled": 4}
    )
    run = RunResult.from_record(factories.record(final=final, steal_ns=30_000_000), b"")
    assert run.totals["cpu_share"] == 0.5
    assert run.totals["throttled_share"] == 0.4
    assert run.totals["steal_s"] == 0.03
    assert run.cpu_s == 0.5


def test_missing_figures_are_none():
    """A figure that the host can't give is None in the totals, whichever reading lacks it."""
    record = factories.record(
        baseline=factories.reading(fill=None), final=factories.reading(), steal_ns=None
    )
    totals = RunResult.from_record(record, b"").totals
    assert totals["cpuacct.usage"] is None
    assert totals["cpu_share"] is None
    assert totals["throttled_share"] is None
    assert totals["steal_s"] is None
    assert totals["memory.usage"] == 0
    assert "cpuacct.usage       NA" in repr(totals)


def test_no_periods_is_no_share():
    """0 of 0 periods is not 0 %."""
    assert RunResult.from_record(factories.record(), b"").totals["throttled_share"] is None


def test_pids_peak_of_the_samples_where_linux_keeps_none():
    """Linux < 6.1: the highest count that was seen."""
    readings = [factories.reading({"pids.current": n, "pids.peak": None}) for n in (1, 5, 2)]
    samples = factories.sample_bytes([(10 * (i + 1), 1, r) for i, r in enumerate(readings)])
    final = factories.reading({"pids.current": 0, "pids.peak": None})
    run = RunResult.from_record(factories.record(final=final, baseline=final), samples)
    assert run.totals["pids.peak"] == 5


def test_series_begins_with_the_baseline_and_ends_with_the_final_reading():
    """Rows at 0 and at the end are the readings themselves and don't come twice."""
    rows = [(at, 1, factories.reading({"cpuacct.usage": 100 + at})) for at in (0, 250, 750, 1000)]
    record = factories.record(
        wall_ns=1000,
        baseline=factories.reading({"cpuacct.usage": 100}),
        final=factories.reading({"cpuacct.usage": 1100}),
    )
    samples = factories.sample_bytes(rows)
    assert records.times(record, samples) == [0, 250, 750, 1000]
    assert records.series(record, samples, "cpuacct.usage") == [0, 250, 750, 1000]
    assert RunResult.from_record(record, samples).sample_count == 2


def test_a_sample_after_the_wall_time_moves_the_final_reading():
    """The final reading is never before a sample."""
    samples = factories.sample_bytes([(1200, 1, factories.reading())])
    record = records.plain(factories.record(wall_ns=1000))
    assert records.times(record, samples) == [0, 1200]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": None}, "lacks 'id'"),
        ({"exit_code": "0"}, "'exit_code' is '0'"),
        ({"exit_code": True}, "'exit_code' is True"),
        ({"final": [1, 2, 3]}, "'final' is no reading"),
        ({"final": [1 << 63] * len(schema.COLUMNS)}, "'final' is no reading"),
        ({"final": [0.5] * len(schema.COLUMNS)}, "'final' is no reading"),
        ({"wall_ns": -1}, "'wall_ns' is -1"),
        ({"spec": {"x": object()}}, "not plain JSON"),
    ],
)
def test_what_is_no_exit_record(change, says):
    """A record that can't be one is refused with the key and the value."""
    with pytest.raises(ValueError, match=says):
        RunResult.from_record(factories.record() | change, b"")


def test_what_are_no_samples():
    """Half a row, or rows that go back in time, are refused."""
    with pytest.raises(ValueError, match="no whole sample rows"):
        RunResult.from_record(factories.record(), b"\0" * 9)
    rows = [(20, 1, factories.reading()), (10, 1, factories.reading())]
    with pytest.raises(ValueError, match="order of time"):
        RunResult.from_record(factories.record(), factories.sample_bytes(rows))


def test_a_result_is_frozen_and_apart_from_its_makers():
    """The record given can change afterwards; the result does not, nor lets itself be changed."""
    given = factories.record()
    run = RunResult.from_record(given, b"")
    given["limits_asked"]["pids"] = 5
    assert run.limits.asked.pids is None
    with pytest.raises(AttributeError):
        run.code = "x"  # type: ignore[misc]
    assert run == RunResult.from_record(factories.record(), b"", provenance=run.provenance)
    assert hash(run) == hash(run)
    json.dumps(run.record)


# --- rates ----------------------------------------------------------------------------------


def test_window_is_whole_periods_of_100_ms_at_least():
    """20 ms samples of a 100 ms period: 100 ms; of a 30 ms period: 120 ms; of none: 100 ms."""
    ms = 1_000_000
    assert rates.window_ns(100 * ms, 20 * ms, 5_000 * ms, 100) == 100 * ms
    assert rates.window_ns(30 * ms, 5 * ms, 5_000 * ms, 100) == 120 * ms
    assert rates.window_ns(None, 20 * ms, 5_000 * ms, 100) == 100 * ms
    assert rates.window_ns(None, 20 * ms, 3_600_000 * ms, 1000) == 3_600 * ms


def test_window_over_coarse_samples_hides_the_beat():
    """Samples too far apart to resolve a period: 20 periods, though no more than a fifth."""
    ms = 1_000_000
    assert rates.window_ns(100 * ms, 70 * ms, 100_000 * ms, 1000) == 2_000 * ms
    assert rates.window_ns(100 * ms, 70 * ms, 5_000 * ms, 1000) == 1_000 * ms
    assert rates.window_ns(100 * ms, 10_000 * ms, 10**13, 10**6) == 10_000 * ms


@pytest.mark.parametrize("sample_s", [0.005, 0.02, 0.07, 0.3])
@pytest.mark.parametrize("quota", [0.1, 0.5])
def test_cpu_of_a_throttled_spinner_is_its_quota_all_along(quota, sample_s):
    """However it is sampled, a constant quota shows as a flat curve."""
    run = factories.run(20, quota=quota, sample_s=sample_s)
    _, use = rates.cpu_bins(run.record, run.samples, period_ns=100_000_000, points=110)
    assert len(use) > 3
    assert max(abs(u - quota) for u in use) < 0.12 * quota


def test_cpu_bins_of_next_to_nothing():
    """Two readings make one stretch; none, or no time, make none."""
    run = factories.run(0.05)
    step, use = rates.cpu_bins(run.record, run.samples, period_ns=100_000_000, points=100)
    assert step == 50_000_000
    assert use == [pytest.approx(0.4)]
    empty = records.plain(factories.record(wall_ns=0, final=None, baseline=None))
    assert rates.cpu_bins(empty, b"", period_ns=None, points=100) == (0, [])


def test_quota_in_force_is_as_sampled():
    """A quota that something else wrote into the cgroup shows, though no update says so."""
    run = factories.run(2, quota=lambda t: None if t < 1 else 0.2)
    (begin, middle, first), (again, end, second) = rates.cpu_quota(
        run.record, run.samples, run.limits
    )
    assert (begin, first, second, end) == (0, None, 0.2, 2)
    assert middle == again == pytest.approx(1, abs=0.03)


def test_quota_in_force_without_samples_is_as_asked():
    """A run shorter than a sample: what was asked."""
    run = factories.run(0.01, quota=0.2)
    assert rates.cpu_quota(run.record, run.samples, run.limits) == [(0, 0.01, 0.2)]
