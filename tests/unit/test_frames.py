"""The usage frame: what it holds, that it plots, and that it becomes a file."""

from __future__ import annotations

import importlib.util
import json
import os

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from nscontainer import frames, schema
from nscontainer.errors import SpecError
from nscontainer.measure import RunResult
from tests.unit import factories


@pytest.fixture(scope="module")
def run():
    """A throttled run of a second."""
    return factories.run(1)


def test_shape(run):
    """One row a reading, the schema's columns in order, seconds as index; made once."""
    usage = run.usage
    assert usage is run.usage
    assert list(usage.columns) == [*schema.NAMES, "sample.took"]
    assert usage.index.name == "elapsed_s"
    assert usage.index.dtype == "float64"
    assert usage.index.is_monotonic_increasing
    assert usage.index.is_unique
    assert (usage.index[0], usage.index[-1]) == (0, 1)
    assert len(usage) == run.sample_count + 2


def test_first_row_is_the_baseline_and_last_the_exact_end(run):
    """Counters begin at 0 and end at the totals; gauges are as they were."""
    for column in schema.COLUMNS:
        figures = run.usage[column.name]
        total = run.totals[column.name]
        if total is None:
            assert np.isnan(figures.iloc[-1])
            continue
        assert figures.iloc[-1] == total
        if column.kind == "counter":
            assert figures.iloc[0] == 0
    assert run.usage["memory.usage"].iloc[0] == 9 * factories.MIB


def test_a_figure_the_host_can_not_give_is_missing_and_not_zero(run):
    """NaN all through, while a known zero is 0."""
    assert run.usage["net.rx_bytes"].isna().all()
    assert (run.usage["memory.oom_kill"] == 0).all()


def test_counters_are_exact(run):
    """Known counters are int64, to the last ns."""
    assert run.usage["cpuacct.usage"].dtype == "int64"
    big = (1 << 53) + 1
    final = factories.reading({"cpuacct.usage": big})
    usage = RunResult.from_record(factories.record(final=final), b"").usage
    assert usage["cpuacct.usage"].iloc[-1] == big


def test_an_unknown_baseline_leaves_a_counter_unknown():
    """Without a baseline there is nothing to be relative to; NA does not wrap round."""
    baseline = factories.reading({"cpuacct.usage": None})
    usage = RunResult.from_record(factories.record(baseline=baseline), b"").usage
    assert usage["cpuacct.usage"].isna().all()
    final = factories.reading({"cpuacct.usage": None})
    usage = RunResult.from_record(factories.record(final=final), b"").usage
    assert usage["cpuacct.usage"].tolist()[0] == 0
    assert np.isnan(usage["cpuacct.usage"].iloc[1])


def test_quota_is_in_cpus(run):
    """The schema's scale is applied; 0.2 is 0.2."""
    assert run.usage["cpu.quota"].dtype == "float64"
    assert set(run.usage["cpu.quota"].dropna()) == {0.2}


def test_took(run):
    """Each row carries how long its reading took, in ns."""
    assert run.usage["sample.took"].between(30_000, 70_000).all()
    bare = RunResult.from_record(factories.record(), b"").usage
    assert bare["sample.took"].isna().all()


def test_pids_peak_from_the_samples():
    """Linux < 6.1 keeps none: the highest so far, in each row."""
    counts = [1, 5, 2]
    rows = [
        (10 * (i + 1), 1, factories.reading({"pids.current": n, "pids.peak": None}))
        for i, n in enumerate(counts)
    ]
    nothing = factories.reading({"pids.current": 0, "pids.peak": None})
    record = factories.record(
        baseline=nothing, final=factories.reading({"pids.current": 0, "pids.peak": 5})
    )
    usage = RunResult.from_record(record, factories.sample_bytes(rows)).usage
    assert usage["pids.peak"].tolist() == [0, 1, 5, 5, 5]


def test_units(run):
    """Each column and the index has its unit, and they survive what people do with a frame."""
    assert set(run.usage.attrs["units"]) == {*run.usage.columns, "elapsed_s"}
    assert run.usage.attrs["units"]["cpu.quota"] == "CPUs"
    assert run.usage[["cpuacct.usage"]].attrs == run.usage.attrs
    assert pd.concat([run.usage, factories.run(2).usage]).attrs == run.usage.attrs


def test_pandas_draws_it(run):
    """The line of the README works: subplots of any columns, unknown ones too."""
    columns = ["cpuacct.usage", "cpu.throttled_time", "memory.usage", "net.rx_bytes", "cpu.quota"]
    figure = Figure()
    axes = run.usage[columns].plot(subplots=True, ax=figure.subplots(len(columns)))
    assert [len(axis.lines) for axis in axes] == [1] * len(columns)
    assert axes[0].lines[0].get_ydata()[-1] == run.totals["cpuacct.usage"]
    figure.savefig(os.devnull, format="png")


def test_matplotlib_and_numpy_take_a_column_as_it_is(run):
    """No pandas.NA: what is missing is NaN."""
    axis = Figure().subplots()
    axis.plot(run.usage.index, run.usage["psi.cpu"])
    axis.plot(run.usage["net.rx_bytes"])
    assert np.gradient(run.usage["cpuacct.usage"], run.usage.index).dtype == "float64"


def test_a_run_without_a_sample():
    """Two exact readings are a frame too."""
    usage = factories.run(0.01).usage
    assert usage.index.tolist() == [0, 0.01]


# --- files ----------------------------------------------------------------------------------


def test_csv(run, tmp_path):
    """elapsed_s first, then the columns; what is missing is empty."""
    frames.usage_to_file(run.usage, tmp_path / "u.csv")
    again = pd.read_csv(tmp_path / "u.csv", index_col="elapsed_s")
    pd.testing.assert_frame_equal(again, run.usage)
    assert (tmp_path / "u.csv").read_text().startswith("elapsed_s,cpuacct.usage,")


def test_json(run, tmp_path):
    """A list of objects; what is missing is null, and no figure loses a digit."""
    frames.usage_to_file(run.usage, str(tmp_path / "u.JSON"))
    again = pd.DataFrame(json.loads((tmp_path / "u.JSON").read_text())).set_index("elapsed_s")
    assert list(again.columns) == list(run.usage.columns)
    assert again["cpuacct.usage"].tolist() == run.usage["cpuacct.usage"].tolist()
    assert again["net.rx_bytes"].isna().all()
    assert again.index.tolist() == run.usage.index.tolist()
    assert len(pd.read_json(tmp_path / "u.JSON")) == len(run.usage)


def test_parquet(run, tmp_path):
    """All of it comes back, the units too."""
    pytest.importorskip("pyarrow")
    frames.usage_to_file(run.usage, tmp_path / "u.parquet")
    again = pd.read_parquet(tmp_path / "u.parquet")
    pd.testing.assert_frame_equal(again, run.usage)
    assert again.attrs == run.usage.attrs


@pytest.mark.parametrize("name", ["u", "u.xlsx", "u.csv.gz"])
def test_unknown_suffix(run, tmp_path, name):
    """The suffixes that work are named, and no file is made."""
    with pytest.raises(SpecError) as caught:
        frames.usage_to_file(run.usage, tmp_path / name)
    assert name in str(caught.value)
    assert caught.value.hint == "end it in .csv, .json or .parquet"
    assert not list(tmp_path.iterdir())


def test_parquet_without_pyarrow(run, tmp_path, monkeypatch):
    """The command that mends it is in the error."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match="needs pyarrow") as caught:
        frames.usage_to_file(run.usage, tmp_path / "u.parquet")
    assert "pip install pyarrow" in str(caught.value.hint)
    assert not list(tmp_path.iterdir())
