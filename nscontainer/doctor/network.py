"""The doctor's trials of networks, in a network namespace of their own: nothing of the host's is touched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from nscontainer.doctor import kernel, trial
from nscontainer.doctor.seen import Seen
from nscontainer.errors import HostError
from nscontainer.linux import clone, nftables, tc
from nscontainer.linux.rtnetlink import RtNetlink

_MAC: Final = b"\x02\x42\x0a\xd5\0\1"
_WHY: Final = "a container can be on the host's network or on none, not on a bridge"
_RULES: Final = """
table ip nscontainer_doctor {
    chain forward { type filter hook forward priority filter; ct state established accept; }
    chain out { type nat hook postrouting priority srcnat; masquerade; }
}
"""


def networks() -> Iterator[Seen]:
    """Make a bridge with a port, then rules, then look which queues there are."""
    if not kernel.is_root():
        yield Seen("networks", "missing", "a bridge needs root", _WHY, "root")
        return
    try:
        trial.run(_bridge, flags=clone.CLONE_NEWNET)
    except OSError as error:
        yield Seen("networks", "missing", str(error), _WHY, "bridge")
        return
    try:
        trial.run(_rules, flags=clone.CLONE_NEWNET)
    except OSError as error:
        yield Seen("networks", "missing", error.strerror or "", _WHY, "nftables")
        return
    yield Seen("networks", "works", "bridge, veth, address translation")
    yield from _speed()


def _bridge() -> None:
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    with RtNetlink() as route:
        route.add_bridge("nsc0", _MAC)
        bridge = route.link("nsc0")
        assert bridge is not None
        route.add_veth("nsv0", "eth0", own, _MAC, master=bridge.index)
        route.set_up(bridge.index)
    os.close(own)


def _rules() -> None:
    try:
        nftables.run(_RULES)
    except HostError as error:
        raise trial.TrialError(0, "", error.message) from None


def _speed() -> Iterator[Seen]:
    try:
        known = trial.run(_queues, flags=clone.CLONE_NEWNET)
    except OSError as error:
        known, said = [], str(error)
    else:
        said = f"no {' and no '.join({'tbf', 'netem'} - {*known})}"
    if "tbf" not in known:
        why = "without tbf a container's network can't be given a speed"
        yield Seen("network speed", "missing", said, why, "tbf")
    elif "netem" not in known:
        why = "rates hold; delay and loss need netem"
        yield Seen("network speed", "limited", said, why, "netem")
    else:
        yield Seen("network speed", "works", "tbf, netem")


def _queues() -> list[str]:
    with RtNetlink() as route:
        return [kind for kind in ("tbf", "netem") if tc.known(route, kind)]
