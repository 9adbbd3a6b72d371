"""Which container has which address of a network: ``<state dir>/networks/<name>.leases``, a line each.

Read and written under :func:`nscontainer.network.records.lock`. A lease is written before its interface
is made and taken back after it is gone; so what a killed monitor left is found by its lease, and a
bridge is in use as long as there is one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Final

from nscontainer.errors import SpecError, StateError
from nscontainer.network.records import Network

Alive = Callable[[str], bool]
"""Tells by its id whether a container still has its monitor."""

_HINT: Final = (
    "nscontainer ps shows who is on it; a network with more room: network create NAME --subnet"
)


def held(top: str, network: Network) -> dict[str, str]:
    """Give who has what: address to container id, dead ones and those that stand by among them."""
    try:
        with open(_path(top, network), encoding="ascii", errors="replace") as file:
            pairs = [line.split() for line in file]
    except FileNotFoundError:
        return {}
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}  # cut off: a power cut's


def take(top: str, network: Network, container_id: str, asked: str | None, alive: Alive) -> str:
    """Give a container an address: the one asked for, or the lowest that is free.

    Call it under the lock.

    Raises
    ------
    SpecError
        The address asked for is no container's on this network.
    StateError
        It is taken; or none is left.
    """
    there = held(top, network)
    if asked is not None:
        _check(network, asked)
        holder = there.get(asked)
        if holder is not None and alive(holder):
            message = f"address {asked} is taken by container {holder}"
            raise StateError(message, hint="another --ip, or none: a free one is chosen then")
        address: str | None = asked
    else:
        address = _free(network, there)
        if address is None:
            there = {one: holder for one, holder in there.items() if alive(holder)}
            address = _free(network, there)
    if address is None:
        message = f"network {network.name!r} has no free address left of {network.subnet}"
        raise StateError(message, hint=_HINT)
    there[address] = container_id
    _write(top, network, there)
    return address


def give_back(top: str, network: Network, container_id: str) -> dict[str, str]:
    """Take a container's lease back; give those that are left. Call it under the lock."""
    there = held(top, network)
    left = {address: holder for address, holder in there.items() if holder != container_id}
    if left != there:
        _write(top, network, left)
    return left


def sweep(top: str, network: Network, alive: Alive) -> tuple[list[str], dict[str, str]]:
    """Take back the leases of the dead: their ids, and what is left. Call it under the lock."""
    there = held(top, network)
    left = {address: holder for address, holder in there.items() if alive(holder)}
    if left != there:
        _write(top, network, left)
    return sorted({*there.values()} - {*left.values()}), left


def _path(top: str, network: Network) -> str:
    return f"{top}/networks/{network.name}.leases"


def _write(top: str, network: Network, leases: dict[str, str]) -> None:
    """Rewrite the file in place: nothing in it outlives a power cut anyway."""
    text = "".join(f"{address} {holder}\n" for address, holder in leases.items())
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    if not leases:
        os.unlink(_path(top, network))
        return
    fd = os.open(_path(top, network), flags, 0o600)
    try:
        os.pwrite(fd, text.encode(), 0)
        os.ftruncate(fd, len(text))
    finally:
        os.close(fd)


# --- addresses, as numbers -------------------------------------------------------------------


def _span(network: Network) -> tuple[int, int]:
    """Give the subnet's own address and its broadcast address."""
    base = _number(network.subnet.partition("/")[0])
    return base, base | (1 << 32 - network.prefix) - 1


def _free(network: Network, taken: dict[str, str]) -> str | None:
    first, last = _span(network)
    used = {*map(_number, taken), _number(network.gateway)}
    number = next((one for one in range(first + 1, last) if one not in used), None)
    return None if number is None else _text(number)


def _check(network: Network, asked: str) -> None:
    first, last = _span(network)
    try:
        number = _number(asked)
    except OSError:
        number = 0
    if asked == network.gateway:
        message = f"address {asked} is the gateway of network {network.name!r}"
        raise SpecError(message, hint="choose another of its subnet")
    if not first < number < last or _text(number) != asked:
        message = f"address {asked!r} is no container's on network {network.name!r}"
        raise SpecError(message, hint=f"from {_text(first + 1)} to {_text(last - 1)}")


def _number(address: str) -> int:
    return int.from_bytes(socket.inet_aton(address))


def _text(number: int) -> str:
    return socket.inet_ntoa(number.to_bytes(4))
