"""rtnetlink messages: what is written, what is read, and what Linux says of this machine's loopback."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

from nscontainer.linux import rtnetlink
from nscontainer.linux.rtnetlink import RtNetlink, attr, attributes, nest
from nscontainer.linux.syscalls import KernelError


def test_attributes_are_padded_and_read_back() -> None:
    """Each begins at a multiple of four, whatever the one before holds."""
    data = attr(1, b"abc") + attr(2, 7) + nest(3, attr(4, "eth0"))
    assert len(data) % 4 == 0
    found = dict(attributes(data))
    assert found[1] == b"abc"
    assert struct.unpack("=I", found[2]) == (7,)
    assert dict(attributes(found[3])) == {4: b"eth0\0"}


@pytest.mark.parametrize("cut", range(1, 12))
def test_cut_off_attributes_end(cut: int) -> None:
    """What is cut off, or says a length of 0, ends the list: no endless loop, no exception."""
    data = attr(1, b"abc") + attr(2, b"defg")
    assert len(list(attributes(data[:-cut]))) <= 2
    assert list(attributes(bytes(16))) == []


def test_the_loopback_is_found() -> None:
    """By name, in the list, with the counters that /sys shows."""
    with RtNetlink() as route:
        lo = route.link("lo")
        assert lo is not None
        assert (lo.name, lo.kind, lo.master) == ("lo", "", 0)
        assert lo in route.links()
        before = _sys("rx_bytes")
        assert before <= route.stats(lo.index).rx_bytes <= _sys("rx_bytes")


def test_an_unfinished_list_does_not_spoil_the_next_answer() -> None:
    """Answers to an earlier request are passed over."""
    with RtNetlink() as route:
        next(route.dump("RTM_GETLINK", rtnetlink.RTM_GETLINK, bytes(16)))
        link = route.link("lo")
        assert link is not None
        assert link.name == "lo"


def test_what_is_not_there() -> None:
    """No interface of that name is None; counters of one that isn't are an error with its errno."""
    with RtNetlink() as route:
        assert route.link("nsc-no-such") is None
        with pytest.raises(KernelError) as caught:
            route.stats(0x7FFFFFF0)
        assert caught.value.errno == errno.ENODEV


@pytest.mark.skipif(os.geteuid() == 0, reason="root may")
def test_a_refusal_names_the_message() -> None:
    """As every KernelError: what, on what, why."""
    with RtNetlink() as route, pytest.raises(PermissionError, match=r"RTM_NEWLINK.*nsc-nope"):
        route.add_bridge("nsc-nope", b"\x02\0\0\0\0\1")


def _sys(name: str) -> int:
    return int(Path(f"/sys/class/net/lo/statistics/{name}").read_text(encoding="ascii"))
