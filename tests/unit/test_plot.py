"""The pictures: what is on them, on whose Axes, and that a long run draws fast."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nscontainer import Together, curves, drawing, plot, schema, spec
from nscontainer.errors import SpecError
from nscontainer.measure import RunResult
from tests.unit import factories
from tests.unit.factories import MIB
from tests.unit.test_measure_result import change


@pytest.fixture(autouse=True)
def no_pyplot(monkeypatch):
    """As in a script that has not imported pyplot, whatever other tests did."""
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    monkeypatch.delitem(sys.modules, "IPython", raising=False)


def texts(axes) -> str:
    """Every text on the Axes, legends too."""
    found = []
    for axis in np.atleast_1d(np.asarray(axes, dtype=object)):
        legend = axis.get_legend()
        found += [t.get_text() for t in axis.texts]
        found += [t.get_text() for t in legend.get_texts()] if legend else []
        found += [axis.get_title(loc="left"), axis.get_ylabel(), axis.get_xlabel()]
    return "\n".join(found)


def line(axis: Axes, label: str):
    """The line whose label begins so."""
    (found,) = (entry for entry in axis.lines if str(entry.get_label()).startswith(label))
    return found


def drawn(axes) -> int:
    """Draw the picture whole; how many bytes of PNG it is."""
    buffer = io.BytesIO()
    np.atleast_1d(np.asarray(axes, dtype=object))[0].figure.savefig(buffer, format="png")
    return len(buffer.getvalue())


def test_overview():
    """Three Axes above one time axis; the picture says what ran, under which limits, and the end."""
    axes = factories.run().plot()
    assert axes.shape == (3,)
    assert all(isinstance(axis, Axes) for axis in axes)
    said = texts(axes)
    assert "cell: import time; t = time.monotonic(); while" in said
    assert "CPU 20 %, memory 256 MiB · exit 0" in said
    assert "quota 20 %" in said
    assert "throttled 50 of 50 periods" in said
    assert "peak 12.0 MiB" in said
    assert "limit 256 MiB: off the scale" in said
    assert axes[2].get_xlabel() == "time since the code was let go (s)"
    assert axes[0].get_shared_x_axes().joined(axes[0], axes[2])
    assert drawn(axes) > 10_000


def test_cpu_curve_lies_on_the_quota_line():
    """20 ms samples of a 100 ms period show 20 %, without beats; the samples stand behind."""
    axis = factories.run().plot("cpu")
    use, quota = line(axis, "over 100 ms"), line(axis, "quota")
    assert np.abs(use.get_ydata() - 20).max() < 2
    assert set(quota.get_ydata()) == {20.0}
    assert use.get_linestyle() != quota.get_linestyle()  # told apart in black and white
    assert "each sample (20 ms)" in texts(axis)


def test_a_quota_set_while_it_ran_is_a_step():
    """No line before the update, the quota after it; a mark where it was."""
    run = factories.run(
        4,
        quota=lambda t: None if t < 2 else 0.2,
        asked=spec.Limits(),
        limit_changes=[change(2, cpu="20%")],
    )
    cpu, throttling, _ = run.plot()
    quota = line(cpu, "quota")
    known = ~np.isnan(quota.get_ydata())
    assert quota.get_xdata()[known] == pytest.approx([2, 4], abs=0.03)
    assert set(quota.get_ydata()[known]) == {20.0}
    use = line(cpu, "over 100 ms")
    assert use.get_ydata()[use.get_xdata() < 1.9] == pytest.approx(100, abs=1)
    assert use.get_ydata()[use.get_xdata() > 2.1] == pytest.approx(20, abs=2)
    values, edges, _ = throttling.patches[0].get_data()
    assert values[edges[1:] < 2.03].max() == 0
    assert values[edges[:-1] > 1.99] == pytest.approx(80, abs=6)
    assert "CPU 20 %" in texts(cpu)
    assert "no limits, then CPU 20 % from 2 s on" in texts(cpu)


def test_out_of_memory_is_marked():
    """The limit is drawn, the kill has its mark and its word."""
    run = factories.run(
        1.2,
        quota=None,
        asked=spec.limits(memory="256M"),
        memory=lambda t: min(256, 9 + 210 * t) * MIB,
        oom_at=1.19,
        oom_killed=True,
        exit_code=137,
        signal=9,
    )
    cpu, throttling, memory = run.plot()
    assert "out of memory" in texts(memory)
    assert set(line(memory, "limit 256 MiB").get_ydata()) == {256}
    assert "killed: out of memory at 256 MiB; peak 256.0 MiB after 1.2 s" in texts(cpu)
    assert "no CPU quota" in texts(throttling)


def test_timeout_is_marked():
    """A line at the end with its reason."""
    run = factories.run(
        2,
        asked=spec.limits(cpu="20%", timeout=2),
        killed_by="timeout",
        timed_out="wall",
        exit_code=137,
        signal=9,
    )
    axis = run.plot("cpu")
    assert "timeout" in {text.get_text() for text in axis.texts}
    assert axis.lines[-1].get_xdata() == [2, 2]


def test_memory_limit_changed_on_the_way():
    """Both limits and the step between them."""
    run = factories.run(
        2,
        memory=lambda t: 40 * MIB,
        asked=spec.limits(memory="128M"),
        limit_changes=[change(1, memory="64M")],
    )
    limit = line(run.plot("memory"), "limit 128 MiB, then 64 MiB")
    assert limit.get_xdata().tolist() == [0, 1, 1, 2]
    assert limit.get_ydata().tolist() == [128, 128, 64, 64]


def test_the_reading_after_the_end_is_no_memory_of_the_run():
    """The curve does not fall to nothing at the end."""
    usage = line(factories.run().plot("memory"), "usage")
    assert usage.get_ydata()[-1] == pytest.approx(12, abs=0.1)


@pytest.mark.parametrize("kind", ["overview", "cpu", "memory", "throttling"])
@pytest.mark.parametrize("seconds", [0, 0.001, 0.03, 0.05])
def test_the_shortest_runs(seconds, kind):
    """No sample, one, two: a picture all the same, without a warning."""
    assert drawn(factories.run(seconds).plot(kind))


def test_a_host_that_gives_no_figures():
    """It says so instead of drawing zeros."""
    nothing = factories.reading(fill=None)
    rows = factories.sample_bytes([(at, 1, nothing) for at in range(0, 1000, 100)])
    record = factories.record(baseline=nothing, final=nothing, wall_ns=1000)
    axes = RunResult.from_record(record, rows).plot()
    assert texts(axes).count("this host gave no figure") == 3
    assert drawn(axes)


def test_what_ran_is_no_formula_and_no_markup():
    """Dollar signs, line breaks and control characters in a command are harmless."""
    run = factories.run(0.1, code="x = '$\\frac{' # $\x1b[31m\n" * 3)
    axes = run.plot()
    assert drawn(axes)
    assert "\x1b" not in texts(axes)
    assert "$\\frac{" in texts(axes)


def test_given_axes():
    """ax= draws there, and says how many it needs."""
    run = factories.run(1)
    figure = Figure()
    mine = figure.subplots(3)
    assert (run.plot(ax=mine) == mine).all()
    assert run.plot("memory", ax=mine[0]) is mine[0]
    with pytest.raises(SpecError, match="needs 3 Axes, not 1"):
        run.plot(ax=mine[0])
    with pytest.raises(SpecError, match="needs one Axes, not 3"):
        run.plot("cpu", ax=mine)
    with pytest.raises(SpecError, match="'disk' is not known"):
        run.plot("disk")


def test_two_runs_on_one_axes():
    """A second run on the same Axes keeps the first's limits of x in sight."""
    axis = factories.run(4).plot("cpu")
    factories.run(1).plot("cpu", ax=axis)
    assert axis.get_xlim()[1] > 4


def test_a_script_gets_a_figure_that_pyplot_knows_nothing_of():
    """No pyplot is imported, and so no window, no backend and no figure that piles up."""
    axis = factories.run(1).plot("cpu")
    assert "matplotlib.pyplot" not in sys.modules
    assert isinstance(axis.figure, Figure)


def test_who_uses_pyplot_gets_a_figure_of_pyplot():
    """plt.show(), and a notebook's inline backend, show it."""
    code = """
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
from tests.unit import factories
axes = factories.run(1).plot()
assert plt.get_fignums() == [1]
assert plt.gcf() is axes[0].figure
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_off_the_main_thread_it_is_never_pyplots(monkeypatch):
    """pyplot is not for threads: a background run's figure is its own."""
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", object())
    result: list[bool] = []
    thread = threading.Thread(target=lambda: result.append(drawing.shown_inline()))
    thread.start()
    thread.join()
    assert result == [False]
    assert drawing.shown_inline()


@pytest.mark.slow
def test_an_hour_of_samples_draws_fast():
    """180 000 rows are thinned out before they are drawn; no peak gets lost."""
    run = factories.run(
        3600, memory=lambda t: (200 if 1000 < t < 1000.03 else 12) * MIB, asked=spec.Limits()
    )
    assert len(run.usage) > 170_000
    begin = time.process_time()
    axes = run.plot()
    drawn(axes)
    assert time.process_time() - begin < 3
    assert all(len(entry.get_xdata()) <= 4000 for axis in axes for entry in axis.lines)
    assert line(axes[2], "usage").get_ydata().max() == 200


# --- the numbers behind ---------------------------------------------------------------------


def test_unlumped_spreads_a_stop_over_when_it_stood():
    """A stop of 80 ms that is counted at 100 ms began at 20 ms."""
    at, counter = np.array([0.0, 0.05, 0.1, 0.15]), np.array([0.0, 0.0, 0.08, 0.08])
    x, y = curves.unlumped(at, counter)
    assert np.interp([0.02, 0.06, 0.1, 0.15], x, y) == pytest.approx([0, 0.04, 0.08, 0.08])


def test_stretches_never_reach_over_a_break():
    """What comes after an update does not show before it."""
    at = np.linspace(0, 4, 401)
    edges, share = curves.stair_rate(at, np.maximum(0, at - 1.5), 0.5, [0, 1.5])
    assert 1.5 in edges
    assert share[edges[1:] <= 1.5].max() == 0
    assert share[edges[:-1] >= 1.5] == pytest.approx(1)


def test_envelope_keeps_the_extremes():
    """The least and the greatest of each stretch."""
    values = np.zeros(20_000)
    values[7_777] = 5
    edges, low, high = curves.envelope(np.arange(20_001.0), values)
    assert len(edges) == len(low) + 1 <= curves.MOST_POINTS + 1
    assert (low.max(), high.max()) == (0, 5)


# --- disk and network -------------------------------------------------------------------------


def test_disk_against_its_limit_with_an_update():
    """Both rates without a saw, though only each fifth row is new; the limit steps where it was changed."""
    run = factories.flow(
        8,
        {
            "blkio.write_bytes": lambda t: (min(t, 4) * 5 + max(0, t - 4) * 15) * MIB,
            "blkio.read_bytes": lambda t: 2 * t * MIB,
        },
        spec.limits(disk_read="2M", disk_write="5M"),
        limit_changes=[change(4, disk_write="15M")],
    )
    axis = run.plot("io")
    assert isinstance(axis, Axes)
    assert axis.get_ylabel() == "disk\n(MiB/s)"
    write, read = line(axis, "write: 80.0 MiB"), line(axis, "read: 16.0 MiB")
    x, y = write.get_xdata(), write.get_ydata()
    assert y[x < 4] == pytest.approx(5, rel=0.01)
    assert y[x > 4] == pytest.approx(15, rel=0.02)
    assert x[0] == 0
    assert 7.85 < x[-1] < 8  # what was written when it had ended is no rate of its
    assert read.get_ydata() == pytest.approx(2, rel=0.01)
    limit = line(axis, "write limit")
    assert limit.get_xdata().tolist() == [0, 4, 4, 8]
    assert limit.get_ydata().tolist() == [5, 5, 15, 15]
    assert set(line(axis, "read limit").get_ydata()) == {2}
    assert "write limit 15 MiB/s" in texts(axis)
    assert drawn(axis)


def test_operations_have_a_panel_where_they_are_limited():
    """And only there; Docker's form of the limit counts as well."""
    asked = spec.limits(device_read_iops=["/dev/sda:50", "/dev/sdb:20"])
    run = factories.flow(4, {"blkio.reads": lambda t: 20 * t}, asked)
    io, iops = run.plot("io")
    assert [str(e.get_label())[:5] for e in io.lines] == ["read:", "write"]
    assert set(line(iops, "reads limit").get_ydata()) == {20}
    assert line(iops, "reads: 80").get_ydata() == pytest.approx(20, abs=1)


def test_network_in_bits_and_one_line_for_both_directions():
    """10 Mbit/s is 1.25 MB a second."""
    run = factories.flow(
        5,
        {"net.rx_bytes": lambda t: 1.25e6 * t, "net.tx_bytes": lambda t: 0.1e6 * t},
        spec.limits(net_rate="10mbit"),
    )
    axis = run.plot("net")
    assert axis.get_ylabel() == "network\n(Mbit/s)"
    assert line(axis, "in: 6.25 MB").get_ydata() == pytest.approx(10, rel=0.01)
    assert line(axis, "out").get_ydata() == pytest.approx(0.8, rel=0.01)
    assert [entry.get_label() for entry in axis.lines].count("limit") == 1
    assert "limit 10 Mbit/s" in texts(axis)


def test_a_limit_far_above_is_named_and_not_drawn():
    """Or the curve would lie on the floor."""
    run = factories.flow(2, {"net.rx_bytes": lambda t: 1e5 * t}, spec.limits(net_rx="1gbit"))
    assert "in limit 1 Gbit/s: off the scale" in texts(run.plot("net"))


def test_the_overview_has_panels_for_the_limits_that_were_asked():
    """By an update too; without any it is as ever."""
    nothing = factories.flow(1, {}, spec.Limits())
    assert len(nothing.plot()) == 3
    disk = factories.flow(1, {}, spec.limits(disk_write="5M", disk_write_iops=7))
    assert [a.get_ylabel().split("\n")[0] for a in disk.plot()[3:]] == ["disk", "disk"]
    later = factories.flow(1, {}, spec.Limits(), limit_changes=[change(0.5, net_tx="1mbit")])
    assert len(later.plot()) == 4
    assert len(plot.strip(later)) > 1000


def test_no_figures_of_disk_network_and_pressure():
    """One clear line each, with the reason where it is known."""
    unknown = {name: None for name in schema.NAMES if name[:3] in ("blk", "net", "psi")}
    run = factories.flow(1, unknown, spec.Limits())
    assert "this host gave no figure for the disk" in texts(run.plot("io"))
    assert "the container has no network" in texts(run.plot("net"))
    assert "no figure for pressure (PSI)" in texts(run.plot("psi"))


def test_pressure():
    """As a part of the time."""
    run = factories.flow(3, {"psi.io": lambda t: 0.4e6 * t}, spec.Limits())
    assert line(run.plot("psi"), "for the disk").get_ydata() == pytest.approx(40, rel=0.01)


def test_only_whole_readings_count():
    """Rows between repeat the last; where nothing changed the beat goes on, so a burst stays short."""
    run = factories.flow(
        4, {"net.rx_bytes": lambda t: 0 if t < 3 else 1e6 * (t - 3)}, spec.Limits()
    )
    there = curves.fresh(run.usage, 0.02)
    assert there[0]
    assert there[-1]
    assert np.diff(np.flatnonzero(there)).max() <= 5
    assert 38 <= there.sum() <= 46
    at, rate = curves.slow_rate(
        run.usage.index[there].to_numpy(), run.usage["net.rx_bytes"][there].to_numpy(float), 0.5
    )
    assert rate[at < 2.6].max() == 0
    assert rate[at > 3.4] == pytest.approx(1e6, rel=0.01)
    assert curves.fresh(run.usage, 0.1).all()


# --- several runs -----------------------------------------------------------------------------


def together() -> Together:
    """A server, and a client that began 0.9 s after it."""
    server = factories.flow(
        4, {"net.rx_bytes": lambda t: 1.25e6 * max(0, t - 1)}, spec.limits(net_rx="10mbit")
    )
    client = factories.flow(
        2, {"net.tx_bytes": lambda t: 1.25e6 * t}, spec.Limits(), released_ns=5_000_900_000_000
    )
    return Together(server=server, client=client)


def test_several_runs_on_one_axis():
    """Each its colour, from where it began; the limit in its own's; what moved nothing isn't there."""
    both = together()
    axis = both.plot("net")
    server, client = line(axis, "server in"), line(axis, "client out")
    assert server.get_color() != client.get_color()
    assert client.get_xdata()[0] == pytest.approx(0.9, abs=0.02)
    limit = line(axis, "server's limit 10 Mbit/s")
    assert limit.get_color() == server.get_color()
    assert limit.get_linestyle() == "--"
    assert "server out" not in texts(axis)
    assert axis.get_xlabel() == "time since the first was let go (s)"
    assert both.wall_s == pytest.approx(4)
    assert drawn(axis)
    for kind in ("cpu", "memory", "io"):
        assert drawn(both.plot(kind))
    with pytest.raises(SpecError, match="'disk' is not known"):
        both.plot("disk")


def test_results_of_two_boots_share_no_clock():
    """Nor does one that has none, of an older version."""
    one = factories.run(1)
    with pytest.raises(SpecError, match="'a' and 'b' share no clock"):
        Together(a=one, b=factories.run(1, boot_id="another"))
    with pytest.raises(SpecError, match="doesn't say when it began"):
        Together(a=one, b=factories.run(1, released_ns=None))
    with pytest.raises(SpecError, match="two results have the name 'quiet-heron'"):
        Together(one, factories.run(2))
    with pytest.raises(SpecError, match="no result"):
        Together()


NOTEBOOK = """
import sys, nbclient, nbformat
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in (
    "from tests.unit import factories; r = factories.run(1)",
    "axes = r.plot()",
    "r.plot('cpu');",
    "r",
)])
nbclient.NotebookClient(notebook, kernel_name="python3", timeout=60).execute()
print([sorted(o.data) for cell in notebook.cells for o in cell.outputs])
"""


@pytest.mark.notebook
def test_a_notebook_shows_the_picture_and_the_card():
    """With nothing imported but nscontainer: each plot is shown once, under its cell."""
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    picture = ["image/png", "text/plain"]
    card = ["text/html", "text/plain"]
    assert done.stdout.strip() == str([picture, picture, card])


@pytest.mark.parametrize("changes", [{}, {"quota": None}, {"seconds": 0.03}])
def test_the_strip(changes):
    """A live view's last picture: wide, low, and no pyplot figure."""
    png = plot.strip(factories.run(**changes))
    width, height = struct.unpack(">II", png[16:24])
    assert width > 2.5 * height > 500
    assert "matplotlib.pyplot" not in sys.modules
