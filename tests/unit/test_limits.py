"""Limits of disk and network, in the forms people write them."""

from __future__ import annotations

from typing import Any

import pytest

from nscontainer import units
from nscontainer.errors import SpecError
from nscontainer.limits import DeviceRate, limits


def test_rates_are_read_in_the_forms_of_their_trade() -> None:
    """Disks count powers of 1024 as Docker does, networks powers of 1000 as tc does."""
    asked = limits(disk_read="5M", disk_write="5MB/s", disk_read_iops=100, net_rate="10mbit")
    assert (asked.disk_read_bps, asked.disk_write_bps) == (5 << 20, 5 << 20)
    assert asked.disk_read_iops == 100
    assert (asked.net_rx_bps, asked.net_tx_bps) == (10_000_000, 10_000_000)
    assert limits(net_rx="1.5Gbit/s").net_rx_bps == 1_500_000_000
    assert limits(net_tx=500_000).net_tx_bps == 500_000
    assert limits(net_delay="50ms", net_loss="1%").net_loss == 0.01
    assert limits(storage="size=1G").storage_bytes == 1 << 30
    assert limits(device_read_bps=["/dev/sda:5M"]).device_read_bps == (
        DeviceRate("/dev/sda", 5 << 20),
    )


def test_a_limit_is_lifted_by_dockers_words() -> None:
    """-1 and max, of every rate."""
    asked = limits(disk_read=-1, disk_write_iops="max", net_rate="unlimited")
    assert (asked.disk_read_bps, asked.disk_write_iops, asked.net_rx_bps) == (-1, -1, -1)


@pytest.mark.parametrize(
    "options",
    [
        {"disk_read": "fast"},
        {"disk_read": 0},
        {"disk_write": "100"},
        {"disk_read_iops": 0},
        {"disk_write_iops": "5M"},
        {"device_read_bps": ["sda:5M"]},
        {"device_read_bps": ["/dev/sda"]},
        {"device_read_bps": ["/dev/sda:1M", "/dev/sda:2M"]},
        {"device_write_iops": ["/dev/sda:5M"]},
        {"blkio_weight": 5},
        {"storage": "1M"},
        {"storage": "big"},
        {"net_rate": "10mbps"},
        {"net_rate": "1kbit"},
        {"net_rate": 0},
        {"net_rate": "1mbit", "net_rx": "1mbit"},
        {"net_delay": "-5ms"},
        {"net_delay": "2m"},
        {"net_loss": "101%"},
        {"net_loss": "some"},
    ],
)
def test_nonsense_is_one_line_with_the_value_in_it(options: dict[str, Any]) -> None:
    """And how to mend it."""
    with pytest.raises(SpecError) as caught:
        limits(**options)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_bit_rates_are_written_as_they_are_read() -> None:
    """A number of bits a second with a decimal prefix."""
    assert units.format_bit_rate(10_000_000) == "10 Mbit/s"
    assert units.format_bit_rate(1_500_000_000) == "1.5 Gbit/s"
    assert units.format_bit_rate(8000) == "8 kbit/s"
