"""Which networks there are: one JSON file each, ``<state dir>/networks/<name>.json``.

A record is what outlives a container and a reboot: name, subnet, gateway. The bridge and the rules are
made from it when the first container comes, and go with the last one. The network ``bridge`` is
always there: its record is written when first asked for.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from nscontainer.errors import HostError, NotFoundError, SpecError, StateError
from nscontainer.netspec import USER_MODE

if TYPE_CHECKING:
    from ipaddress import IPv4Network

DEFAULT: Final = "bridge"
RESERVED: Final = ("bridge", "host", "none", "container", "default", USER_MODE)
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
_POOLS: Final = ("10.213.0.0/16", "172.29.0.0/16", "192.168.192.0/18")
"""Where free subnets are looked for, in order. Docker's own begin at 172.17 and 192.168.0."""
_SIZE: Final = 24
_LONGEST: Final = 29
"""A subnet of /29 has six addresses: the gateway's and five containers'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One network.

    Attributes
    ----------
    subnet, gateway
        As ``10.213.4.0/24`` and ``10.213.4.1``; the gateway is the bridge's own address.
    bridge
        The interface's name while it is up.
    internal
        Whether there is no way out of it.
    """

    name: str
    id: str
    subnet: str
    gateway: str
    bridge: str
    internal: bool = False
    created_unix: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def prefix(self) -> int:
        """Length of the subnet's prefix in bits."""
        return int(self.subnet.partition("/")[2])


def directory(top: str) -> str:
    """Give (and make) the directory of the records; leases and the like may live beside them."""
    path = f"{top}/networks"
    with contextlib.suppress(FileExistsError):
        os.makedirs(path, mode=0o700)
    return path


@contextlib.contextmanager
def lock(top: str) -> Iterator[None]:
    """Hold off everybody else who would make or remove a network, its bridge or its rules."""
    fd = os.open(f"{directory(top)}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def get(top: str, ref: str) -> Network:
    """Find a network by name, id, or the beginning of its id (four digits at least).

    Raises
    ------
    NotFoundError
        There is none, or several.
    """
    if ref == DEFAULT:
        return _default(top)
    if _NAME.fullmatch(ref):
        found = _read(f"{top}/networks/{ref}.json")
        if found is not None:
            return found
    hits = [n for n in listed(top) if len(ref) >= 4 and n.id.startswith(ref)]
    if len(hits) == 1:
        return hits[0]
    message = f"several networks' ids begin with {ref!r}" if hits else f"no network {ref!r}"
    hint = "nscontainer network ls lists them, network create makes one"
    raise NotFoundError(message, hint=hint)


def listed(top: str) -> list[Network]:
    """List the networks that have a record, the default one first, then by name."""
    try:
        names = os.listdir(f"{top}/networks")
    except FileNotFoundError:
        return []
    found = [_read(f"{top}/networks/{name}") for name in names if name.endswith(".json")]
    return sorted((n for n in found if n is not None), key=lambda n: (n.name != DEFAULT, n.name))


def check_name(name: str) -> str:
    """Refuse a name that a network can't have.

    Raises
    ------
    SpecError
        It is reserved or has other characters than letters, digits and ``_.-``.
    """
    if name in RESERVED:
        message = f"network name {name!r} is reserved"
        raise SpecError(message, hint="choose another name")
    if _NAME.fullmatch(name) is None:
        message = f"network name {name!r} can't be used"
        raise SpecError(message, hint="letters, digits, _ . and -, up to 63")
    return name


def create(
    top: str,
    name: str,
    *,
    subnet: str | None = None,
    gateway: str | None = None,
    internal: bool = False,
    labels: Mapping[str, str] | None = None,
) -> Network:
    """Write a new network's record.

    Parameters
    ----------
    subnet
        As ``10.9.0.0/24``; a free one by default.
    gateway
        The bridge's own address; the subnet's first by default.

    Raises
    ------
    SpecError
        Name, subnet or gateway can't be used.
    StateError
        Name or subnet is taken.
    """
    check_name(name)
    asked = None if subnet is None else _subnet(subnet)
    with lock(top):
        there = listed(top)
        if any(n.name == name for n in there):
            message = f"network {name!r} exists already"
            raise StateError(message, hint=f"nscontainer network rm {name}, or another name")
        if asked is None:
            asked = _free_subnet(top, there)
        else:
            _check_free(asked, there)
        return _write(top, _made(name, asked, gateway, internal=internal, labels=labels or {}))


def remove(top: str, ref: str, in_use: Callable[[Network], list[str]]) -> Network:
    """Remove a network's record.

    Parameters
    ----------
    in_use
        Gives the containers that are on it; asked under the lock.

    Raises
    ------
    NotFoundError, StateError
        There is none; it is the default one, or in use.
    """
    if ref in RESERVED:
        message = f"network {ref!r} is built in: it can't be removed"
        raise StateError(message, hint="leave it: nothing of it is up while no container uses it")
    with lock(top):
        network = get(top, ref)
        if network.name == DEFAULT:
            message = f"network {ref!r} is the built-in {DEFAULT!r}: it can't be removed"
            raise StateError(message, hint="leave it")
        users = in_use(network)
        if users:
            message = f"network {network.name!r} is in use by {', '.join(users[:5])}"
            raise StateError(message, hint="stop and remove these first")
        os.unlink(f"{top}/networks/{network.name}.json")
        return network


# --- the default one -------------------------------------------------------------------------


def _default(top: str) -> Network:
    """Give the network ``bridge``; a host that has come to use its subnet gets it another one."""
    found = _read(f"{top}/networks/{DEFAULT}.json")
    if found is not None and not _collides(found):
        return found
    with lock(top):
        found = _read(f"{top}/networks/{DEFAULT}.json")
        if found is not None and not _collides(found):
            return found
        others = [n for n in listed(top) if n.name != DEFAULT]
        return _write(top, _made(DEFAULT, _free_subnet(top, others)))


def _collides(network: Network) -> bool:
    """Tell whether the host has come to use a subnet while its bridge was down (a VPN, Docker)."""
    if os.path.exists(f"/sys/class/net/{network.bridge}"):
        return False
    base, mask = _numbers(network.subnet)
    return any((base ^ to) & mask & by == 0 for _, to, by in host_routes())


# --- subnets ---------------------------------------------------------------------------------


def host_routes() -> list[tuple[str, int, int]]:
    """Give the host's IPv4 routes: interface, destination and mask as numbers.

    Those wider than /8 are left out: a default route (a VPN writes it as two /1) is no subnet in use.
    """
    routes = []
    try:
        with open("/proc/net/route", encoding="ascii") as file:
            next(file, None)
            for line in file:
                words = line.split()
                # native byte order of a big-endian number (net/ipv4/fib_trie.c, fib_route_seq_show)
                to, by = (
                    struct.unpack("!I", struct.pack("=I", int(words[at], 16)))[0] for at in (1, 7)
                )
                if by >= 0xFF000000:
                    routes.append((words[0], to, by))
    except OSError:
        return []
    return routes


def contains(network: Network, address: str) -> bool:
    """Tell whether an address is of a network's subnet."""
    base, mask = _numbers(network.subnet)
    return (base ^ struct.unpack("!I", socket.inet_aton(address))[0]) & mask == 0  # type: ignore[no-any-return]


def _numbers(subnet: str) -> tuple[int, int]:
    address, _, length = subnet.partition("/")
    base: int = struct.unpack("!I", socket.inet_aton(address))[0]
    return base, (0xFFFFFFFF << (32 - int(length))) & 0xFFFFFFFF


def _subnet(text: str) -> IPv4Network:
    import ipaddress

    try:
        network = ipaddress.IPv4Network(text, strict=True)
    except ValueError as error:
        message = f"subnet {text!r} can't be used: {error}"
        raise SpecError(message, hint="an IPv4 network, as 10.9.0.0/24") from None
    if network.prefixlen > _LONGEST:
        message = f"subnet {text!r} is too small: {network.num_addresses} addresses"
        raise SpecError(message, hint=f"/{_LONGEST} at least; /24 has room for 253 containers")
    if (
        network.prefixlen < 8
        or network.is_loopback
        or network.is_multicast
        or network.is_link_local
    ):
        message = f"subnet {text!r} can't be a container network's"
        raise SpecError(message, hint="part of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16")
    return network


def _check_free(asked: IPv4Network, there: list[Network]) -> None:
    for other in there:
        base, mask = _numbers(other.subnet)
        if (base ^ int(asked.network_address)) & mask & int(asked.netmask) == 0:
            message = f"subnet {asked} overlaps network {other.name!r} ({other.subnet})"
            raise StateError(message, hint="choose another, or leave --subnet out")
    for interface, base, mask in host_routes():
        if (base ^ int(asked.network_address)) & mask & int(asked.netmask) == 0:
            route = f"{socket.inet_ntoa(struct.pack('!I', base))}/{mask.bit_count()}"
            message = f"subnet {asked} overlaps the host's route {route} on {interface}"
            raise StateError(message, hint="choose another, or leave --subnet out")


def _free_subnet(top: str, there: list[Network]) -> IPv4Network:
    """Find a subnet that neither a network of ours nor a route of the host has.

    Engines with state directories of their own don't see each other's records, so each begins
    elsewhere in the pool.
    """
    import ipaddress
    import zlib

    taken = [_numbers(n.subnet) for n in there] + [(to, by) for _, to, by in host_routes()]
    first = 0 if top == "/var/lib/nscontainer" else zlib.crc32(top.encode())
    for pool in map(ipaddress.IPv4Network, _POOLS):
        count = 1 << (_SIZE - pool.prefixlen)
        for step in range(count):
            base = int(pool.network_address) + (((first + step) % count) << (32 - _SIZE))
            mask = (0xFFFFFFFF << (32 - _SIZE)) & 0xFFFFFFFF
            if not any((base ^ other) & mask & by == 0 for other, by in taken):
                return ipaddress.IPv4Network((base, _SIZE))
    message = f"no free subnet is left in {', '.join(_POOLS)}"
    raise HostError(message, hint="name one: --subnet 10.9.0.0/24")


# --- the file --------------------------------------------------------------------------------


def _made(
    name: str,
    subnet: IPv4Network,
    gateway: str | None = None,
    *,
    internal: bool = False,
    labels: Mapping[str, str] | None = None,
) -> Network:
    import ipaddress

    address = subnet.network_address + 1
    if gateway is not None:
        try:
            address = ipaddress.IPv4Address(gateway)
        except ValueError:
            message = f"gateway {gateway!r} is no IPv4 address"
            raise SpecError(message, hint=f"as {subnet.network_address + 1}") from None
        if address not in subnet or address in (subnet.network_address, subnet.broadcast_address):
            message = f"gateway {gateway!r} is no host's address in {subnet}"
            raise SpecError(message, hint=f"as {subnet.network_address + 1}")
    identity = os.urandom(6).hex()
    return Network(
        name=name,
        id=identity,
        subnet=str(subnet),
        gateway=str(address),
        bridge=f"nsc{identity}",  # 15 characters: what IFNAMSIZ has room for
        internal=internal,
        created_unix=time.time(),
        labels=dict(labels or {}),
    )


def _write(top: str, network: Network) -> Network:
    """Put a record in place whole: after a crash there is the old one or the new one."""
    path = f"{directory(top)}/{network.name}.json"
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(asdict(network), file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}.new", path)
    fd = os.open(f"{top}/networks", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return network


def _read(path: str) -> Network | None:
    try:
        with open(path, encoding="utf-8") as file:
            facts: dict[str, Any] = json.load(file)
        return Network(**facts)
    except (OSError, ValueError, TypeError):
        return None
