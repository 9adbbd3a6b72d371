"""What a result says of its network's limits: asked, read back, and whether one set the pace."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from nscontainer import limits, schema
from nscontainer.measure import RunResult
from tests.unit import factories

MBIT = 1_000_000
S = 1_000_000_000


def result(**changes: Any) -> RunResult:
    """A run of so many seconds."""
    samples = changes.pop("samples", b"")
    return RunResult.from_record(factories.record(**changes), samples)


def rows(run: RunResult) -> dict[str, tuple[str | None, str | None, bool]]:
    """The rows of the network's limits."""
    return {
        row.name: (row.asked, row.read_back, row.differs)
        for row in run.limits.rows()
        if row.name.startswith("net_")
    }


def test_asked_and_read_back() -> None:
    """Each in the words one would say it in."""
    asked = limits.limits(net_rx="10mbit", net_tx="1.5mbit", net_delay="50ms", net_loss="1%")
    read = {
        "net_rx_bps": 10 * MBIT,
        "net_tx_bps": 1_500_000,
        "net_delay_s": 0.05,
        "net_loss": 0.01,
    }
    run = result(asked=asked, limits_read_back=read)
    assert rows(run) == {
        "net_rx_bps": ("10 Mbit/s", "10 Mbit/s", False),
        "net_tx_bps": ("1.5 Mbit/s", "1.5 Mbit/s", False),
        "net_delay_s": ("50 ms", "50 ms", False),
        "net_loss": ("1 %", "1 %", False),
    }
    assert run.warnings == ()


@pytest.mark.parametrize(
    ("asked", "read", "expected"),
    [
        ({"net_rx": "10mbit"}, {"net_rx_bps": 9 * MBIT}, ("10 Mbit/s", "9 Mbit/s", True)),
        ({"net_rx": "10mbit"}, {}, ("10 Mbit/s", None, True)),
        ({"net_rx": "10mbit"}, {"net_rx_bps": -1}, ("10 Mbit/s", "no limit", True)),
        ({"net_rx": "max"}, {"net_rx_bps": -1}, ("no limit", "no limit", False)),
        ({}, {"net_rx_bps": 5 * MBIT}, (None, "5 Mbit/s", True)),
        ({"net_rx": 9999999}, {"net_rx_bps": 9999992}, ("10 Mbit/s", "10 Mbit/s", False)),
    ],
)
def test_one_that_is_not_as_asked(
    asked: dict[str, Any], read: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    """It differs; what is less than a byte a second, does not."""
    run = result(asked=limits.limits(**asked), limits_read_back=read)
    assert rows(run) == {"net_rx_bps": expected}
    assert [w.code for w in run.warnings] == (
        ["limit-differs"] if expected[2] and expected[1] else []
    ) + (["limit-unread"] if expected[1] is None else [])


def test_no_row_without_a_limit() -> None:
    """Nothing asked, and nothing there: nothing to say."""
    read = {"net_rx_bps": -1, "net_tx_bps": -1, "net_delay_s": 0.0, "net_loss": 0.0}
    assert rows(result(limits_read_back=read)) == {}


def traffic(*bps: float, column: str = "net.rx_bytes") -> dict[str, Any]:
    """Samples of seconds at these rates, read each 100 ms and repeated each 20 ms, as the engine does."""
    moved, samples = 0.0, []
    for step in range(len(bps) * 50):
        if step % 5 == 0 and step:
            moved += bps[(step - 1) // 50] / 8 / 10
        row = factories.reading({column: round(moved)})
        samples.append((step * S // 50, 1000, row))
    moved += bps[-1] / 8 / 10
    return {
        "samples": factories.sample_bytes(samples),
        "final": factories.reading({column: round(moved)}),
        "wall_ns": len(bps) * S,
    }


def limited(run: RunResult) -> dict[str, dict[str, Any]]:
    """The figures of the warning that a limit set the pace, by direction."""
    found = [w for w in run.warnings if w.code == "network-limited"]
    return {w.figures["direction"]: {**w.figures, "text": w.message} for w in found}


def test_a_limit_that_set_the_pace() -> None:
    """Three of five seconds at the limit are told, with what its queue lost."""
    asked = limits.limits(net_rate="10mbit")
    run = result(
        asked=asked,
        limits_read_back={"net_rx_bps": 10 * MBIT, "net_tx_bps": 10 * MBIT},
        network_shaping={"rx": {"dropped": 12}, "tx": {"dropped": 0}},
        **traffic(9.9e6, 9.9e6, 9.9e6, 1e6, 1e6),
    )
    found = limited(run)
    assert set(found) == {"rx"}
    assert found["rx"]["at_limit_s"] == pytest.approx(3, abs=0.6)
    assert found["rx"]["dropped"] == 12
    assert "received at its network limit of 10 Mbit/s" in found["rx"]["text"]


def test_a_limit_that_did_not() -> None:
    """Half its rate, or no limit at all, is nothing to tell."""
    asked = limits.limits(net_rate="10mbit")
    read = {"net_rx_bps": 10 * MBIT, "net_tx_bps": 10 * MBIT}
    assert limited(result(asked=asked, limits_read_back=read, **traffic(5e6, 5e6, 5e6))) == {}
    assert limited(result(**traffic(5e6, 5e6, 5e6))) == {}


def test_a_limit_changed_on_the_way() -> None:
    """Each stretch is judged by the limit that was in force."""
    change = {
        "elapsed_ns": 2 * S,
        "asked": {"net_tx_bps": 4 * MBIT},
        "read_back": {"net_tx_bps": 4 * MBIT},
    }
    run = result(
        asked=limits.limits(net_tx="20mbit"),
        limits_read_back={"net_tx_bps": 4 * MBIT},
        limit_changes=[change],
        **traffic(4e6, 4e6, 4e6, 4e6, column="net.tx_bytes"),
    )
    assert limited(run)["tx"]["at_limit_s"] == pytest.approx(2, abs=0.6)
    assert limited(run)["tx"]["bps"] == 4 * MBIT


@pytest.mark.parametrize("counts", [{"rx": 3}, {"rx": {"dropped": "x"}}, {}])
def test_a_strange_record_is_no_error(counts: dict[str, Any]) -> None:
    """A saved file may say anything of the queues."""
    asked = limits.limits(net_rx="10mbit")
    read = {"net_rx_bps": 10 * MBIT}
    run = result(asked=asked, limits_read_back=read, network_shaping=counts, **traffic(1e7, 1e7))
    assert limited(run)["rx"]["dropped"] is None


def test_the_columns_are_there() -> None:
    """The names that the rules go by."""
    assert {"net.rx_bytes", "net.tx_bytes"} <= set(schema.NAMES)
    assert {"net_rx_bps", "net_tx_bps"} <= {f.name for f in dataclasses.fields(limits.Limits)}
