"""Traffic control: the bucket for a rate, what holds a direction, and what Linux says it has.

The messages themselves are checked against ``tc`` in tests/integration/test_network_speed.py.
"""

from __future__ import annotations

import struct
from typing import Any

import pytest

from nscontainer.linux import tc
from nscontainer.linux.rtnetlink import RtNetlink, attr
from nscontainer.linux.tc import Netem, Tbf
from nscontainer.network import shaping

MBIT = 1_000_000


@pytest.mark.parametrize(
    ("bps", "expected"),
    [
        (8_000, Tbf(1_000, 3_200, 16_000)),
        (10 * MBIT, Tbf(1_250_000, 12_500, 137_500)),
        (1_000 * MBIT, Tbf(125_000_000, 1_250_000, 13_750_000)),
    ],
)
def test_the_bucket_for_a_rate(bps: int, expected: Tbf) -> None:
    """10 ms may go at once and 100 ms may wait; at a low rate, two frames and ten."""
    assert shaping.bucket(bps) == expected


@pytest.mark.parametrize("bps", [8_000, 56_000, 3 * MBIT, 52 * MBIT, 10**10, 10**12, 10**13])
def test_every_bucket_lets_a_frame_through(bps: int) -> None:
    """A packet larger than the burst, or than the queue, would be lost each time; and 32 bits hold both."""
    tbf = shaping.bucket(bps)
    assert 2 * shaping.FRAME < tbf.burst_bytes < tbf.limit_bytes < 1 << 32
    # Up to 64 KiB come in one piece, and are cut up only where the burst is smaller.
    assert tbf.burst_bytes < 65_536 or tbf.limit_bytes >= 65_536


@pytest.mark.parametrize(
    ("asked", "shape"),
    [
        ((None, None, None), (False, False)),
        ((-1, 0.0, 0.0), (False, False)),
        ((10 * MBIT, None, None), (True, False)),
        ((None, 0.05, None), (False, True)),
        ((-1, None, 0.01), (False, True)),
        ((10 * MBIT, 0.05, 0.01), (True, True)),
    ],
)
def test_what_holds_a_direction(asked: tuple[Any, ...], shape: tuple[bool, bool]) -> None:
    """None, -1 and 0 are no limit; delay and loss are one queue, the rate another."""
    assert shaping.pipe(*asked).shape == shape


def test_a_delay_holds_what_is_under_way() -> None:
    """At 100 Mbit/s, 50 ms are 413 full packets: the delay's queue has room for twice that and more."""
    netem = shaping.pipe(100 * MBIT, 0.05, None).netem
    assert netem is not None
    assert netem.limit_packets >= 2 * 413
    assert shaping.pipe(10**13, 60.0, None).netem == Netem(60.0, 0.0, 1_000_000)


def test_settings_are_read() -> None:
    """The burst comes in ticks of 64 ns at the rate, a rate above 32 bits in an attribute of its own."""
    spec = struct.pack("=BBHhHI", 0, 1, 0, -1, 0, 1_250_000)
    parms = spec + bytes(12) + struct.pack("=III", 75_000, 156_250, 0)
    assert tc._tbf({tc.TCA_TBF_PARMS: parms}) == Tbf(1_250_000, 12_500, 75_000)
    fast = {tc.TCA_TBF_PARMS: parms, tc.TCA_TBF_RATE64: struct.pack("=Q", 10**10)}
    assert tc._tbf(fast).rate_bytes == 10**10
    half = struct.pack("=6I", 781_250, 1000, 1 << 31, 0, 0, 0)
    rough = tc._netem(half)
    assert rough.delay_s == 0.05
    assert rough.loss == pytest.approx(0.5)
    exact = half + attr(tc.TCA_NETEM_LATENCY64, struct.pack("=q", 50_000_001))
    assert tc._netem(exact).delay_s == 0.050000001


def test_the_loopback_has_no_queue_of_ours() -> None:
    """Linux's own are left out."""
    with RtNetlink() as route:
        assert tc.queues(route, 1) == []
