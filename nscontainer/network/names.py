"""The name files of a container: /etc/hostname, /etc/hosts and /etc/resolv.conf."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from nscontainer.errors import SpecError
from nscontainer.netspec import HOST_GATEWAY, LOCALHOST

RESOLVER: Final = "127.0.0.11"
"""Where a container on a network finds its resolver (Docker's address)."""
_LOCAL: Final = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a container is on its network."""

    address: str
    gateway: str


def files(
    hostname: str,
    *,
    host: bool,
    place: Place | None = None,
    add_hosts: Iterable[tuple[str, str]] = (),
) -> dict[str, str]:
    """Give the text of the name files, by path.

    Parameters
    ----------
    host
        Whether it shares the host's network: then it has the host's files.
    place
        Its place on a network, or that of the container it shares one with; None without.
    """
    if host:
        hosts, resolv = read("/etc/hosts"), read("/etc/resolv.conf")
    elif place is not None:
        hosts = f"{_LOCAL}{place.address}\t{hostname}\n"
        resolv = _resolv()
    else:
        hosts = f"{_LOCAL}127.0.1.1\t{hostname}\n"
        resolv = "# no network: no name server\n"
    if hosts and not hosts.endswith("\n"):
        hosts += "\n"
    gateway = gateway_of(host=host, place=place)
    for added, address in add_hosts:
        hosts += f"{gateway if address == HOST_GATEWAY else address}\t{added}\n"
    return {"/etc/hostname": f"{hostname}\n", "/etc/hosts": hosts, "/etc/resolv.conf": resolv}


def gateway_of(*, host: bool, place: Place | None) -> str | None:
    """Give the address at which the host is reached; None without a network."""
    return LOCALHOST if host else None if place is None else place.gateway


def check(add_hosts: Iterable[tuple[str, str]], *, reaches_host: bool) -> None:
    """Refuse ``host-gateway`` where there is none.

    Raises
    ------
    SpecError
        With the name.
    """
    for added, address in add_hosts:
        if address == HOST_GATEWAY and not reaches_host:
            message = f"add-host {added}:{HOST_GATEWAY}: without a network there is no gateway"
            raise SpecError(message, hint="--network bridge, or an address instead")


def _resolv() -> str:
    """Give the resolver, and what the host completes names with.

    ``ndots:0``: a name is tried as it stands first, so that a container's costs no question outside.
    """
    search = [words for words in _host_lines() if words[0] in ("search", "domain")]
    lines = [f"nameserver {RESOLVER}", *(" ".join(words) for words in search[-1:])]
    return "\n".join([*lines, "options ndots:0", ""])


def host_servers() -> list[str]:
    """List the host's name servers, as its /etc/resolv.conf says now."""
    return [words[1] for words in _host_lines() if words[0] == "nameserver" and len(words) > 1]


def _host_lines() -> list[list[str]]:
    lines = read("/etc/resolv.conf").splitlines()
    return [words for line in lines if (words := line.split("#")[0].split(";")[0].split())]


def read(path: str) -> str:
    """Read a file of the host's; what can't be read is empty."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(65536)
    except OSError:
        return ""
