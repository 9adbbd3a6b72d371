"""What a container asks of its network, in Docker's words: mode, addresses, names, ports."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from nscontainer.errors import SpecError

OTHERS: Final = "container:"
"""Before the name of the container whose network is shared."""
USER_MODE: Final = "slirp4netns"
"""The network that a program in user mode makes, as Podman calls it."""
HOST_GATEWAY: Final = "host-gateway"
"""Docker's word for the address at which a container reaches the host."""
LOCALHOST: Final = "127.0.0.1"

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
_HOST = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9_.-]{0,252}[a-zA-Z0-9_])?")


@dataclass(frozen=True, slots=True)
class Publish:
    """A port of the container that the host passes on. ``host_port`` 0 is any free one."""

    host_ip: str
    host_port: int
    port: int
    protocol: Literal["tcp", "udp"] = "tcp"


def has_own_interface(network: str) -> bool:
    """Whether a container with this network has a place on one of ours: an address, ports, limits."""
    return network not in ("none", "host", USER_MODE) and not network.startswith(OTHERS)


def parse_network(text: str) -> str:
    """Check ``none``, ``host``, ``bridge``, ``slirp4netns``, ``container:NAME`` or a network's name.

    Raises
    ------
    SpecError
        It can be none of these.
    """
    text = str(text).strip()
    name = text.removeprefix(OTHERS)
    if _NAME.fullmatch(name) is None:
        message = f"network {text!r} can't be a name"
        raise SpecError(message, hint="none, host, bridge, container:NAME or a network's name")
    return text


def parse_address(text: str, what: str) -> str:
    """Check an IPv4 address.

    Raises
    ------
    SpecError
        It is none.
    """
    text = str(text).strip()
    try:
        return socket.inet_ntop(socket.AF_INET, socket.inet_pton(socket.AF_INET, text))
    except OSError:
        message = f"{what} {text!r} is not an IPv4 address"
        raise SpecError(message, hint="as 10.213.0.5") from None


def parse_add_host(text: str) -> tuple[str, str]:
    """Read Docker's ``--add-host NAME:ADDRESS``; the address may be ``host-gateway`` or IPv6.

    Raises
    ------
    SpecError
        It is no such thing.
    """
    name, colon, address = str(text).strip().partition(":")
    if "=" in name:
        name, colon, address = str(text).strip().partition("=")
    if not colon or _HOST.fullmatch(name) is None or not (address == HOST_GATEWAY or _ip(address)):
        message = f"add-host {text!r} can't be read"
        raise SpecError(message, hint="write NAME:ADDRESS, as db:10.0.0.5 or host:host-gateway")
    return name, address


def _ip(text: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except OSError:
            continue
        return True
    return False


def parse_publish(text: str) -> Publish:
    """Read Docker's ``[ADDRESS:][HOSTPORT:]PORT[/tcp|udp]``; without an address it is localhost's.

    Raises
    ------
    SpecError
        It is no such thing, or a port is out of range.
    """
    raw = str(text).strip()
    body, _, protocol = raw.partition("/")
    parts = body.split(":")
    hint = "write 8080:80, 127.0.0.1:8080:80, 80 or 53:53/udp"
    if len(parts) > 3 or protocol not in ("", "tcp", "udp"):
        message = f"publish {raw!r} can't be read"
        raise SpecError(message, hint=hint)
    host_port = _port(parts[-2], raw, hint, least=0) if len(parts) > 1 and parts[-2] else 0
    host_ip = parse_address(parts[0], "publish") if len(parts) == 3 and parts[0] else LOCALHOST
    port = _port(parts[-1], raw, hint, least=1)
    return Publish(host_ip, host_port, port, "udp" if protocol == "udp" else "tcp")


def _port(text: str, raw: str, hint: str, *, least: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= 65535:
        message = f"publish {raw!r}: {text!r} is not a port"
        raise SpecError(message, hint=hint)
    return int(text)


def check_publish(entries: Iterable[str | Publish]) -> tuple[Publish, ...]:
    """Read all ports to publish, and refuse two for one port of the host.

    Raises
    ------
    SpecError
        One can't be read, or two are the same.
    """
    published = tuple(e if isinstance(e, Publish) else parse_publish(e) for e in entries)
    asked = [(p.host_ip, p.host_port, p.protocol) for p in published if p.host_port]
    for wanted in asked:
        if asked.count(wanted) > 1:
            message = f"publish: port {wanted[1]} of the host is given twice"
            raise SpecError(message, hint="give each a port of its own")
    return published


def check_fit(network: str, options: Iterable[str]) -> None:
    """Refuse what a network without an interface of its own can't do.

    Parameters
    ----------
    options
        Those given that need one.

    Raises
    ------
    SpecError
        With the first of them, and how to get it.
    """
    if has_own_interface(network):
        return
    there = ("dns",) if network == USER_MODE else ()
    for option in options:
        if option in there:
            continue
        message = f"{option} needs a network of the container's own, and network is {network}"
        raise SpecError(message, hint="--network bridge")
