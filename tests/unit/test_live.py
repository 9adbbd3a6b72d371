"""What a run that isn't over is said to use: figures, a line, a picture, however long it runs."""

from __future__ import annotations

import array
import os
import xml.etree.ElementTree as ET

import pytest

from nscontainer import live, schema, spec
from nscontainer.engine.following import Follower
from nscontainer.live import Progress
from nscontainer.live_flows import Flows
from nscontainer.measure import RunResult
from tests.unit import factories
from tests.unit.factories import MIB


def rows(run: RunResult, *, until_s: float | None = None) -> array.array[int]:
    """A run's rows as they come while it runs: all but the final reading."""
    found = array.array("q", run.samples)[: -schema.ROW_FIELDS]
    if until_s is None:
        return found
    count = sum(1 for at in range(0, len(found), schema.ROW_FIELDS) if found[at] <= until_s * 1e9)
    return found[: count * schema.ROW_FIELDS]


def progress(run: RunResult, **how: int | None) -> Progress:
    """What is known at its end."""
    now = Progress(**how)
    now.add(rows(run))
    return now


@pytest.mark.parametrize("quota", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("sample_s", [0.02, 0.05])
def test_the_rate_is_the_quota_wherever_one_looks(quota: float, sample_s: float):
    """A throttled run is all or nothing in each period; whole periods show its quota."""
    run = factories.run(6, quota=quota, sample_s=sample_s)
    for until in (1.0, 2.13, 3.37, 5.71):
        now = Progress()
        now.add(rows(run, until_s=until))
        assert now.cpu == pytest.approx(quota, rel=0.08)
        assert now.throttled == pytest.approx(1 - quota, abs=0.12)
        assert now.quota == pytest.approx(quota)


def test_it_may_come_in_pieces():
    """Rows one by one, or all at once: the same."""
    run = factories.run(5)
    whole, pieces = progress(run), Progress()
    found = rows(run)
    for at in range(0, len(found), schema.ROW_FIELDS):
        pieces.add(found[at : at + schema.ROW_FIELDS])
    assert live.html(pieces) == live.html(whole)
    assert live.text(pieces) == live.text(whole)


def test_a_changed_quota_shows_from_where_it_changed():
    """Before 3 s 20 %, then 60 %."""
    now = progress(factories.run(6, quota=lambda t: 0.2 if t < 3 else 0.6))
    assert now.cpu == pytest.approx(0.6, rel=0.05)
    early = [rate or 0.0 for _, end, rate in now.steps("cpu_ns") if end < 2.9]
    assert sum(early) / len(early) == pytest.approx(0.2, rel=0.05)


def test_a_long_run_stays_small_and_right():
    """An hour is no bigger than a minute, and its total is the counter's."""
    run = factories.run(3600, quota=0.2, sample_s=1.0)
    now = progress(run)
    steps = now.steps("cpu_ns")
    assert len(steps) <= 240
    assert len(live.html(now)) < 40_000
    total = sum((end - begin) * (rate or 0.0) for begin, end, rate in steps)
    assert total == pytest.approx(0.2 * steps[-1][1], rel=0.01)


def test_the_most_memory_of_a_step_is_kept():
    """A peak of one sample isn't lost, even when steps were joined."""
    run = factories.run(120, quota=None, memory=lambda t: (90 if 50 <= t < 50.02 else 9) * MIB)
    found = [value for _, _, value in progress(run).gauge("memory")]
    assert max(v for v in found if v is not None) == 90 * MIB


def test_what_the_host_does_not_say():
    """No figure is no figure: no nought, no curve, no error."""
    row = array.array("q", [0, 1, *[schema.NA] * len(schema.COLUMNS)])
    now = Progress(memory_limit=MIB)
    for at in range(60):
        row[0] = at * 20_000_000
        now.add(row)
    assert live.text(now) == "1.2 s"
    assert "polyline" not in live.html(now)


def test_nothing_has_come_yet():
    """The first tick may come before the second row."""
    assert live.text(Progress()) == "0.0 s"
    ET.fromstring(live.html(Progress()).replace("&ensp;", " "))


def test_the_line_and_the_picture():
    """Both say the same; the picture is well-formed, with nothing that a viewer would take out."""
    now = progress(factories.run(5), memory_limit=64 * MIB)
    assert live.text(now).startswith("5.0 s · CPU 20.")
    assert "of 20 % · throttled " in live.text(now)
    assert live.text(now).endswith("memory 12.0 MiB of 64 MiB")
    html = live.html(now, "paused <b>")
    root = ET.fromstring(html.replace("&ensp;", " "))
    assert "paused <b> 5.0 s" in "".join(root.itertext())
    tags = {element.tag for element in root.iter()}
    assert tags <= {"div", "strong", "small", "span", "svg", "rect", "polyline", "polygon"}
    assert html.count("stroke-dasharray") == 2  # the quota and the limit
    assert live.html(progress(factories.run(5), memory_limit=10**12)).count("dasharray") == 1


def test_disk_and_network_show_where_they_are_limited():
    """From whole reading to whole reading, with no saw; the limit steps where it was changed."""
    run = factories.flow(
        6,
        {
            "net.rx_bytes": lambda t: 1.25e6 * t,
            "net.tx_bytes": lambda t: 1000 * t,
            "blkio.write_bytes": lambda t: 5 * MIB * min(t, 3),
        },
        spec.Limits(),
    )
    plain = progress(run)
    assert "network" not in live.text(plain)
    assert "network" not in live.html(plain)
    now = Progress()
    now.flows.limit(spec.limits(net_rx="10mbit", disk_write="5M"))
    now.add(rows(run, until_s=2.5))
    assert "disk written 5 MiB/s of 5 MiB/s · network in 10 Mbit/s of 10 Mbit/s" in live.text(now)
    now.flows.limit(spec.limits(net_rx="20mbit", disk_write="5M"))
    now.add(rows(run)[len(rows(run, until_s=2.5)) :])
    assert "disk written 0 B/s of 5 MiB/s · network in 10 Mbit/s of 20 Mbit/s" in live.text(now)
    rates = [rate for _, _, rate in now.flows.steps("net.rx_bytes")]
    assert rates == pytest.approx([1.25e6] * len(rates), rel=0.01)
    assert {v for _, _, v in now.flows.limits("net.rx_bytes")} == {1.25e6, 2.5e6}
    html = live.html(now)
    ET.fromstring(html.replace("&ensp;", " "))
    assert html.count("<svg") == 3 + (now.memory is not None and now.memory > 0)


def test_flows_of_a_long_run_stay_few():
    """An hour has no more marks than a minute."""
    flows = Flows()
    row = array.array("q", [0] * schema.ROW_FIELDS)
    at = schema.INDEX["net.rx_bytes"] + schema.ROW_PREFIX
    for i in range(36_000):
        row[0], row[at] = i * 100_000_000, i * 1000
        flows.take(row)
    steps = flows.steps("net.rx_bytes")
    assert len(steps) <= 240
    assert {round(rate or 0) for _, _, rate in steps} == {10_000}


def test_a_log_is_followed(tmp_path):
    """Each row once, as it comes; from a row on, its time counted from there."""
    run = factories.run(1)
    path = tmp_path / "samples"
    path.write_bytes(run.samples[: 3 * schema.ROW_BYTES])
    fd = os.open(path, os.O_RDONLY)
    all_, later = Follower(fd), Follower(fd, first_row=2, offset_ns=1_000)
    os.close(fd)
    first = all_.new()
    assert len(first) == 3 * schema.ROW_FIELDS
    assert not all_.new()
    path.write_bytes(run.samples)
    assert first.tobytes() + all_.new().tobytes() == run.samples
    rest = later.new()
    assert rest[0] == array.array("q", run.samples)[2 * schema.ROW_FIELDS] - 1_000
    assert len(rest) == len(run.samples) // 8 - 2 * schema.ROW_FIELDS
    all_.close()
    later.close()
