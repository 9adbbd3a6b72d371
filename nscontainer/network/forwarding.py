"""Have the host forward packets while a network is up, and no longer.

A packet is forwarded if the interface *it came in by* may forward (net/ipv4/route.c,
ip_route_input_slow, IN_DEV_FORWARD): the bridge for what leaves, the host's own interfaces for the
answers. So these are switched on one by one rather than by ``ip_forward``, which is every interface's,
and resets others of their settings (Documentation/networking/ip-sysctl.rst). As that would make
the host a router between its own networks, a rule keeps it from forwarding among these.

What was switched on is in ``/run``, as it lasts as long: until the machine ends. All engines of the
machine share it, whatever their state directories, since the interfaces are the same ones.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from typing import Any, Final

from nscontainer.errors import HostError
from nscontainer.linux import nftables

TABLE: Final = "nscontainer_forwarding"
OURS: Final = "nsc"
"""What the names of our bridges begin with."""


def place() -> str:
    """Give the file of what was switched on in this network namespace."""
    return f"/run/nscontainer-forwarding-{os.stat('/proc/self/ns/net').st_ino}.json"


def hold(bridge: str) -> None:
    """Switch forwarding on for a bridge and for the host's interfaces.

    Called again, it takes in interfaces that have come since.
    """
    _write(bridge, 1)
    with _record() as record:
        holders = {*_living(record.get("holders", [])), bridge}
        if _read("all") == 1:  # Docker's doing, or the administrator's: nothing to add, or to undo
            if record.get("interfaces"):
                nftables.delete_tables([TABLE])
            record |= {"holders": sorted(holders), "interfaces": []}
            return
        switched = set(record.get("interfaces", []))
        fresh = {name for name in _uplinks() - switched if _read(name) == 0}
        if fresh:  # first the rule, then the switch: the host is never a router in between
            _keep_apart(switched | fresh)
        record |= {"holders": sorted(holders), "interfaces": sorted(switched | fresh)}
    for name in fresh:
        _write(name, 1)


def lags() -> bool:
    """Tell whether an interface of the host's has come that should forward and doesn't."""
    return _read("all") != 1 and any(_read(name) == 0 for name in _uplinks())


def let_go(bridge: str) -> None:
    """Put everything back if this was the last bridge that is up."""
    with _record() as record:
        holders = set(_living(record.get("holders", []))) - {bridge}
        record["holders"] = sorted(holders)
        if holders:
            return
        if _read("all") != 1:  # else somebody has come to need it meanwhile
            for name in record.get("interfaces", []):  # none: a host that no route leads from
                with contextlib.suppress(HostError):
                    _write(name, 0)
        record["interfaces"] = []
        nftables.delete_tables([TABLE])


def collect() -> None:
    """Put everything back if bridges went without saying so."""
    if os.path.exists(place()):
        let_go("")


def _keep_apart(interfaces: set[str]) -> None:
    names = ", ".join(f'"{name}"' for name in sorted(interfaces))
    chain = (
        "chain forward {\n"
        "type filter hook forward priority filter; policy accept;\n"
        f"iifname {{ {names} }} oifname {{ {names} }} drop\n}}\n"
    )
    nftables.run(nftables.anew(TABLE, chain))


def _uplinks() -> set[str]:
    """Give the host's interfaces that a route leads by."""
    with open("/proc/net/route", encoding="ascii") as file:
        names = {line.split(maxsplit=1)[0] for line in file.readlines()[1:]}
    return {name for name in names if not name.startswith(OURS) and '"' not in name} - {"lo"}


def _living(bridges: list[str]) -> list[str]:
    return [name for name in bridges if os.path.exists(f"/sys/class/net/{name}")]


def _setting(interface: str) -> str:
    return f"/proc/sys/net/ipv4/conf/{interface}/forwarding"


def _read(interface: str) -> int | None:
    try:
        with open(_setting(interface), encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _write(interface: str, value: int) -> None:
    try:
        with open(_setting(interface), "w", encoding="ascii") as file:
            file.write(str(value))
    except FileNotFoundError:
        return  # it went meanwhile
    except OSError as error:
        message = f"{_setting(interface)} can't be written: {error.strerror}"
        raise HostError(message, hint="networks need root, and /proc/sys writable") from None


@contextlib.contextmanager
def _record() -> Iterator[dict[str, Any]]:
    """Give what was switched on, under a lock, and write it back; with nothing in it, it goes."""
    fd = _locked()
    try:
        try:
            record = json.loads(os.pread(fd, 65536, 0) or b"{}")
        except ValueError:
            record = {}
        yield record
        if not record.get("holders") and not record.get("interfaces"):
            os.unlink(place())
            return
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(record).encode(), 0)
    finally:
        os.close(fd)


def _locked() -> int:
    path = place()
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except FileNotFoundError:
            pass  # its last holder removed it while we waited
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
