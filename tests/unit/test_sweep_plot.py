"""The pictures of a sweep: the figures on them, what they say, and what odd sweeps look like."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from nscontainer import spec, sweep_plot
from nscontainer.errors import SpecError
from nscontainer.experiment.sweep import Sweep
from nscontainer.sweep_plot import groups, heatmap, labels, over_time
from tests.unit import sweep_factories
from tests.unit.factories import MIB
from tests.unit.sweep_factories import plan
from tests.unit.test_plot import drawn, line, texts

CPU = {"cpu": ("20%", "50%", "100%")}
FAILED = {"exit_code": 1}
OOM = {"oom_killed": True, "exit_code": 137, "signal": 9}


@pytest.fixture(autouse=True)
def no_pyplot(monkeypatch):
    """As in a script that has not imported pyplot, whatever other tests did."""
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    monkeypatch.delitem(sys.modules, "IPython", raising=False)


@pytest.fixture(scope="module")
def simple():
    """Three quotas, five runs each, of 1 s of work."""
    return sweep_factories.sweep(CPU, sample_s=0.02)


@pytest.fixture(scope="module")
def two():
    """Quota by memory."""
    return sweep_factories.sweep(CPU | {"memory": ("64M", "128M")})


def of_one(cpu="20%", **changes):
    return sweep_factories.sweep(of_plan=plan({"cpu": (cpu,)}, **changes), sample_s=0.02)


def medians(axis):
    """Each level's median as drawn: (x, y, low, high)."""
    found = []
    for bars in axis.containers:
        data, _, lines = bars.lines
        low, high = lines[0].get_segments()[0][:, 1] if lines else (np.nan, np.nan)
        found.append((data.get_xdata()[0], data.get_ydata()[0], low, high))
    return found


def test_quota_has_a_curve_on_each_dashed_line(simple):
    """Median over the repeats at the quota; the line there; its name at the right end, markers that differ."""
    axis = simple.plot()
    for label, level in (("20 %", 20), ("50 %", 50), ("100 %", 100)):
        use = line(axis, label)
        assert np.abs(use.get_ydata() - level).max() < 0.05 * level
    dashed = [entry for entry in axis.lines if entry.get_linestyle() == "--"]
    assert sorted(entry.get_ydata()[0] for entry in dashed) == [20, 50, 100]
    assert [t.get_text() for t in axis.texts] == ["20 %", "50 %", "100 %"]
    assert len({line(axis, x).get_marker() for x in ("20 %", "50 %", "100 %")}) == 3
    assert line(axis, "20 %").get_xdata()[-1] == pytest.approx(5, rel=0.06)
    assert len(axis.collections) == 3  # a band each
    assert drawn(axis) > 10_000


def test_a_picture_alone_says_what_it_shows(simple):
    """What ran, how often, where, the seed; what is seen and how."""
    title = simple.plot("speed").get_title(loc="left")
    for said in (
        "cell: total = 0; for i in range",
        "n = 5",
        "lab-7",
        "2 CPUs",
        "seed 0",
        "95 % interval",
    ):
        assert said in title
    assert "recorded" not in title
    assert "not complete" not in title


def test_a_recorded_and_a_half_done_sweep_say_so():
    """On every kind, in the title."""
    half = sweep_factories.sweep(
        CPU, done=7, recorded="recorded on lab-7 (Linux 6.18) on 2025-06-15"
    )
    for kind in ("quota", "speed", "throttling", "memory", "ecdf", "scaling"):
        title = half.plot(kind).get_title(loc="left")
        assert "not complete: 7 of 15 runs" in title
        assert "recorded on lab-7" in title
        assert "n = 2 to 3" in title


def test_speed_has_each_run_its_median_and_the_ideal(simple):
    """Medians are those of the summary, intervals hold them, and ideal is time x quota = constant."""
    axis = simple.plot("speed")
    frame = simple.summary
    for (x, y, low, high), level in zip(medians(axis), (0.2, 0.5, 1.0), strict=True):
        wall = frame[frame["cpu"] == level]["wall_s"]
        assert x == pytest.approx(level)
        assert y == pytest.approx(wall.median())
        assert (low, high) == (
            pytest.approx(wall.min(), rel=0.02),
            pytest.approx(wall.max(), rel=0.02),
        )
    runs = [entry for entry in axis.lines if entry.get_label() == "_runs"]
    assert sum(len(entry.get_ydata()) for entry in runs) == 15
    ideal = line(axis, "ideal")
    constant = ideal.get_xdata() * ideal.get_ydata()
    assert constant == pytest.approx(constant[0])
    assert constant[0] == pytest.approx(1, rel=0.05)
    assert axis.get_ylabel() == "wall time (s)"
    assert [t.get_text() for t in axis.get_xticklabels()] == ["20 %", "50 %", "100 %"]


def test_a_rate_has_its_ideal_upward():
    """A reported throughput: proportional to the quota."""
    made = sweep_factories.sweep(
        CPU, reported=lambda p: {"items_per_s": 1000 / sweep_factories.wall_at(p)}
    )
    axis = made.plot("speed", metric="items_per_s")
    ideal = line(axis, "ideal")
    assert ideal.get_ydata() / ideal.get_xdata() == pytest.approx([1000] * 3)
    assert axis.get_ylabel() == "throughput (items/s)"
    assert "Throughput by CPU" in axis.get_title(loc="left")


def test_throttling_by_level(simple):
    """The share of periods in which it was stopped, in per cent."""
    axis = simple.plot("throttling")
    expected = [
        100
        * np.median(
            [r.totals["throttled_share"] for r in simple.results if r.limits.asked.cpus == q]
        )
        for q in (0.2, 0.5, 1.0)
    ]
    assert [y for _, y, _, _ in medians(axis)] == pytest.approx(expected)


def test_one_level_shows_the_saw_tooth():
    """CPU time in each period rises to the quota and falls back: 20 ms of 100."""
    axis = of_one().plot("throttling")
    used = line(axis, "used").get_ydata()
    known = used[~np.isnan(used)]
    assert known.max() == pytest.approx(20, abs=2)
    assert known.min() < 20
    assert axis.lines[1].get_ydata()[0] == pytest.approx(20)
    assert "quota\n20 ms" in texts(axis)
    coarse = sweep_factories.sweep(of_plan=plan({"cpu": ("20%",)}), sample_s=0.1)
    assert "--sample 10ms" in texts(coarse.plot("throttling"))


def test_no_quota_has_nothing_to_throttle():
    """It says so, and draws use without a quota line."""
    free = of_one(None)
    assert "no CPU quota" in texts(free.plot("throttling"))
    axis = free.plot()
    assert not [entry for entry in axis.lines if entry.get_linestyle() == "--"]
    assert [t.get_text() for t in axis.texts] == ["no limit"]


def memory_sweep():
    """64 MiB is too little for what grows to 100 MiB; 128 MiB is enough; one has no limit."""
    the_plan = plan({"memory": ("64M", "128M", None)})
    points = the_plan.points()

    def change(turn):
        limit = points[turn.point].levels["memory"]
        most = 64 if limit == "64M" else 100
        grown: dict[str, Any] = {"memory": lambda t: min(most, 10 + 100 * t) * MIB}
        if limit is None:
            grown["limits_asked"] = dataclasses.asdict(spec.limits())
        return grown | (OOM | {"oom_at": 0.95} if limit == "64M" else {})

    return sweep_factories.sweep(of_plan=the_plan, change=change, sample_s=0.02)


def test_memory_against_each_limit_and_the_kill():
    """Limits dashed in MiB, the out-of-memory level marked with a word, no line where there is no limit."""
    axis = memory_sweep().plot("memory")
    dashed = sorted(entry.get_ydata()[0] for entry in axis.lines if entry.get_linestyle() == "--")
    assert dashed == [64, 128]
    assert "64 MiB: out of memory" in texts(axis)
    assert line(axis, "128 MiB").get_ydata().max() == pytest.approx(100)
    assert axis.get_ylabel() == "memory in use (MiB)"


def test_a_failed_level_has_a_mark_and_a_word():
    """Where its median would be; it doesn't count for scale and ideal."""
    axis = memory_sweep().plot("speed")
    assert "all 5 failed:\nout of memory" in texts(axis)
    assert len(medians(axis)) == 2
    told = memory_sweep().plot("ecdf").get_legend().get_texts()
    assert told[0].get_text() == "64 MiB (all failed: out of memory)"


def test_some_failures_are_told_and_left_out():
    """Two of five: the median is that of the other three."""
    made = sweep_factories.sweep(
        CPU, change=lambda turn: FAILED if turn.point == 0 and turn.repeat < 2 else {}
    )
    axis = made.plot("speed")
    assert "2 of 5\nfailed" in texts(axis)
    good = made.summary.query("cpu == 0.2 and ok")["wall_s"]
    assert len(good) == 3
    assert medians(axis)[0][1] == pytest.approx(good.median())


def test_ecdf_is_a_stair_to_all(simple):
    """Each level's sorted figures, in steps of a fifth."""
    axis = simple.plot("ecdf")
    stair = line(axis, "20 %")
    walls = np.sort(simple.summary.query("cpu == 0.2")["wall_s"])
    assert stair.get_xdata()[1:] == pytest.approx(walls)
    assert list(stair.get_ydata()) == pytest.approx([0, 20, 40, 60, 80, 100])
    assert stair.get_drawstyle() == "steps-post"


def test_heatmap_has_each_cells_median(two):
    """In the cell, in a colour that is read on its ground; columns are the first factor."""
    axis = two.plot("heatmap")
    frame = two.summary
    written = {tuple(map(round, t.get_position())): t.get_text() for t in axis.texts}
    assert len(written) == 6
    for (i, j), text in written.items():
        there = frame[
            (frame["cpu"] == (0.2, 0.5, 1.0)[i]) & (frame["memory"] == (64, 128)[j] * MIB)
        ]
        assert float(text) == pytest.approx(there["wall_s"].median(), rel=0.006)
    assert [t.get_text() for t in axis.get_yticklabels()] == ["64 MiB", "128 MiB"]
    assert heatmap.text_colour((0.0, 0.13, 0.3)) == "white"
    assert heatmap.text_colour((0.99, 0.9, 0.2)) == "black"
    turned = two.plot("heatmap", by="memory")
    assert turned.get_xlabel() == "memory"


def test_scaling_is_speed_up_against_the_ideal(simple):
    """The lowest level is 1; time halves where the quota doubles: efficiency is 100 %."""
    axis = simple.plot("scaling")
    data = axis.containers[0].lines[0]
    assert data.get_ydata() == pytest.approx([1, 2.5, 5], rel=0.06)
    assert line(axis, "ideal").get_ydata() == pytest.approx([1, 2.5, 5])
    (right,) = [a for a in axis.figure.axes if a is not axis]
    assert right.lines[0].get_ydata() == pytest.approx([100] * 3, rel=0.06)


def test_threads_under_one_quota_meet_a_ceiling():
    """1 to 4 threads under 200 %: no more than twice as fast, and the picture says so."""
    the_plan = plan({"threads": (1, 2, 4)}, free=("threads",), options={"cpu": "200%"})
    made = sweep_factories.sweep(
        of_plan=the_plan,
        wall=lambda p: 1 / min(int(str(p["threads"])), 2),
        change=lambda _turn: {"limits_asked": dataclasses.asdict(spec.limits(cpu="200%"))},
    )
    axis = made.plot("scaling")
    assert "most there can be (2)" in texts(axis)
    assert line(axis, "most").get_ydata()[0] == 2
    assert axis.containers[0].lines[0].get_ydata() == pytest.approx([1, 2, 2], rel=0.06)


@pytest.mark.parametrize("count", [1, 2, 7, 12, 30])
def test_levels_are_named_and_lie_apart(count):
    """From one to thirty: every label at the right end clear of the others, a sample of many."""
    made = sweep_factories.sweep(
        of_plan=plan(
            {"cpu": tuple(f"{x}%" for x in np.linspace(10, 100, count).round(1))}, repeat=1
        )
    )
    axis = made.plot()
    figure = axis.figure
    figure.canvas.draw()
    boxes = sorted(t.get_window_extent().y0 for t in axis.texts)
    assert len(boxes) == (count if count <= groups.MOST_NAMED else 8)
    height = axis.texts[0].get_window_extent().height
    assert all(np.diff(boxes) > 0.8 * height)
    for kind in ("speed", "throttling", "ecdf"):
        assert drawn(made.plot(kind)) > 5_000


def test_labels_move_as_little_as_can_be():
    """Apart by the gap, within the picture, the order kept."""
    assert labels.spread_out([10, 50], 5, 0, 100) == [10, 50]
    assert labels.spread_out([50, 50], 4, 0, 100) == [48, 52]
    assert labels.spread_out([0, 0, 0], 5, 0, 100) == [0, 5, 10]
    assert labels.spread_out([99, 100], 5, 0, 100) == [95, 100]
    assert labels.spread_out([1, 2, 3], 100, 0, 10) == [0, 5, 10]


def test_what_is_taken_together_is_said():
    """Three factors: the title names those that the picture has not."""
    made = sweep_factories.sweep(
        of_plan=plan({"cpu": ("50%", "100%"), "memory": ("64M", "128M"), "n": (1, 2, 3)}, repeat=1)
    )
    assert "over 2 × memory, 3 × n" in made.plot("speed").get_title(loc="left")
    assert "over 3 × n" in made.plot("heatmap").get_title(loc="left")
    assert "over 2 × CPU, 2 × memory" in made.plot("speed", by="n").get_title(loc="left")


def test_levels_that_go_together_are_named_together():
    """In a zip a level is both."""
    made = sweep_factories.sweep(
        of_plan=plan({"cpu": ("50%", "100%"), "memory": ("64M", "128M")}, mode="zip")
    )
    assert [t.get_text() for t in made.plot().texts] == ["50 %, 64 MiB", "100 %, 128 MiB"]
    assert "over" not in made.plot("speed").get_title(loc="left").split("\n")[1]


@pytest.mark.parametrize("kind", ["quota", "speed", "throttling", "memory", "ecdf"])
def test_odd_sweeps_give_a_picture(kind):
    """One run; nothing varied; no run yet."""
    for made in (
        of_one(repeat=1),
        sweep_factories.sweep(of_plan=plan({}, repeat=3)),
        sweep_factories.sweep(CPU, done=0),
    ):
        assert drawn(made.plot(kind)) > 3_000
    assert over_time.NO_RUN in texts(made.plot(kind))


def test_what_can_not_be_drawn_is_refused(simple, two):
    """One line that names the kinds, the factors or the columns that there are; no figure is made."""
    cases: list[tuple[Sweep, tuple[str, ...], dict[str, Any], str, str]] = [
        (simple, ("pie",), {}, "plot kind 'pie' is not known", "quota, speed"),
        (simple, ("speed",), {"by": "memory"}, "does not vary 'memory'", "cpu"),
        (simple, ("speed",), {"metric": "nope"}, "metric 'nope' is no column", "wall_s"),
        (simple, ("speed",), {"metric": "exit"}, "has no numbers", "wall_s"),
        (simple, ("quota",), {"metric": "wall_s"}, "has no metric", "speed"),
        (simple, ("heatmap",), {}, "needs two factors, and this sweep varies cpu", "speed"),
        (two, ("speed",), {"by": ["cpu", "memory"]}, "by one factor", "heatmap"),
        (of_one(), ("scaling",), {}, "needs two levels", "vary"),
        (simple, ("scaling",), {"metric": "peak_memory"}, "needs a time or a rate", "_per_s"),
    ]
    for made, args, options, message, hint in cases:
        with pytest.raises(SpecError) as error:
            made.plot(*args, **options)
        assert message in str(error.value)
        assert hint in (error.value.hint or "")


def test_it_draws_on_what_it_is_given(simple):
    """A caller's Axes come back; two of them are no single one."""
    axes = Figure().subplots(1, 2)
    assert simple.plot("speed", axes[0]) is axes[0]
    with pytest.raises(SpecError, match="one Axes"):
        simple.plot("speed", axes)


def test_there_and_here_have_one_scale(simple):
    """Two Axes, each says which it is, the same limits."""
    slower = sweep_factories.sweep(CPU, wall=lambda p: 2 * sweep_factories.wall_at(p))
    left, right = sweep_plot.side_by_side(slower, simple, "speed")
    assert left.get_ylim() == right.get_ylim()
    assert left.get_title(loc="left").startswith("there: ")
    assert right.get_title(loc="left").startswith("here: ")


def test_a_level_is_the_median_of_those_that_still_ran():
    """Two runs end at 1 s and one at 3 s: the curve ends where less than half go on."""
    short = (np.array([0.0, 1.0]), np.array([1.0, 1.0]))
    long = (np.array([0.0, 3.0]), np.array([4.0, 4.0]))
    it = over_time.band([short, short, long])
    assert it is not None
    assert it.at[-1] == pytest.approx(1, abs=0.01)
    assert set(it.median) == {1.0}
    assert set(it.high) == {4.0}
    assert over_time.band([]) is None


def test_samples_after_the_kill_are_no_dip():
    """What is left after out of memory is not drawn: the curve ends at the peak."""
    made = memory_sweep()
    axis = made.plot("memory")
    killed = line(axis, "64 MiB").get_ydata()
    assert killed[-1] == pytest.approx(64, rel=0.01)
    assert (np.diff(killed) > -0.5).all()
