"""The doctor's trials of networks, in a network namespace of their own: nothing of the host's is touched."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Final

from nscontainer.doctor import kernel, trial
from nscontainer.doctor.seen import Seen
from nscontainer.errors import HostError
from nscontainer.linux import clone, mount, nftables, prctl, tc, userns
from nscontainer.linux.rtnetlink import RtNetlink
from nscontainer.network import usermode

_MAC: Final = b"\x02\x42\x0a\xd5\0\1"
_WHY: Final = "a container can be on the host's network, on none or in user mode, not on a bridge"
_SLIRP_S: Final = 12.0
_RULES: Final = """
table ip nscontainer_doctor {
    chain forward { type filter hook forward priority filter; ct state established accept; }
    chain out { type nat hook postrouting priority srcnat; masquerade; }
}
"""


def networks() -> Iterator[Seen]:
    """Make a bridge with a port, then rules, then look which queues there are."""
    if not kernel.is_root():
        yield Seen("networks", "missing", "a bridge needs root", _WHY, "networks")
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


def user_mode() -> Iterator[Seen]:
    """Start slirp4netns for a moment, in a network namespace that is in a user namespace."""
    why = "without it no --network slirp4netns, the one that an ordinary user has"
    name = "network user"
    try:
        usermode.check_host()
        trial.run(_slirp, timeout_s=_SLIRP_S)
    except HostError as error:
        yield Seen(name, "missing", error.message, why, "slirp4netns")
    except OSError as error:
        cause = "tun" if "/dev/net/tun" in str(error) else "report"
        yield Seen(name, "missing", str(error), why, cause)
    else:
        yield Seen(name, "works", "slirp4netns started, and ended")


def _slirp() -> None:
    if not kernel.is_root():
        userns.enter()
    # slirp4netns shuts itself in by pivot_root and lets go of the old root, mounts beneath and all: where
    # those are shared, as systemd has them, root's would be unmounted on the host.
    clone.unshare(clone.CLONE_NEWNS)
    mount.make_private()
    pid, pidfd = clone.clone3(clone.CLONE_NEWUSER | clone.CLONE_NEWNET, exit_signal=signal.SIGCHLD)
    if pid == 0:
        prctl.set_pdeathsig(signal.SIGKILL)
        while True:
            signal.pause()
    try:
        clone.write_id_maps(pid, 0, 1)
        usermode.UserMode(pid, mapped=True).close()
    except HostError as error:
        raise trial.TrialError(0, "", error.message) from None
    finally:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitpid(pid, 0)


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
