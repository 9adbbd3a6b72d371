"""Which servers may have a registry's images: the registry itself, its mirrors, and how to reach them.

Configuration is ours, ``registries.toml``::

    [registry."docker.io"]
    mirrors = ["https://mirror.example", "http://localhost:5000"]
    insecure = false

and Docker's ``/etc/docker/daemon.json`` (``registry-mirrors``, which are docker.io's, and
``insecure-registries``).
"""

from __future__ import annotations

import ipaddress
import json
import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from nscontainer.errors import SpecError
from nscontainer.image.names import DOCKER_HUB

_HUB_SERVER: Final = "registry-1.docker.io"
DAEMON_JSON: Final = "/etc/docker/daemon.json"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server to ask.

    Parameters
    ----------
    registry
        Whose images these are, as in an image's name: ``docker.io``.
    host
        Where to connect, ``host`` or ``host:port``.
    schemes
        ``https`` and ``http``, to be tried in that order.
    verify
        Whether its certificate must be good.
    prefix
        What a mirror puts before a repository's name, with its slash, or "".
    mirror
        Whether it is a mirror, whose failure only means to ask the next.
    """

    registry: str
    host: str
    schemes: tuple[str, ...] = ("https",)
    verify: bool = True
    prefix: str = ""
    mirror: bool = False


@dataclass(frozen=True, slots=True)
class Registries:
    """What the configuration says.

    Parameters
    ----------
    mirrors
        URLs to ask first, in order, by registry.
    insecure
        Hosts (``host`` or ``host:port``) that may be plain http or have any certificate.
    networks
        The same, by address.
    """

    mirrors: dict[str, tuple[str, ...]] = field(default_factory=dict)
    insecure: frozenset[str] = frozenset()
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()

    def endpoints(self, registry: str) -> list[Endpoint]:
        """Give the servers to ask for a registry's images: mirrors in order, then itself."""
        found = [self._mirror(registry, url) for url in self.mirrors.get(registry, ())]
        return [*found, self.itself(registry)]

    def itself(self, registry: str) -> Endpoint:
        """Give the registry's own server."""
        host = _HUB_SERVER if registry == DOCKER_HUB else registry
        insecure = self.is_insecure(registry)
        plain = insecure or is_loopback(host)
        return Endpoint(registry, host, ("https", "http") if plain else ("https",), not insecure)

    def is_insecure(self, host: str) -> bool:
        """Whether the configuration takes it without a good certificate or without TLS at all."""
        name = hostname(host)
        if host in self.insecure or name in self.insecure:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return any(address in network for network in self.networks)

    def _mirror(self, registry: str, url: str) -> Endpoint:
        parts = urlsplit(url)
        path = parts.path.strip("/")
        return Endpoint(
            registry,
            parts.netloc,
            (parts.scheme,),
            verify=not self.is_insecure(parts.netloc),
            prefix=f"{path}/" if path else "",
            mirror=True,
        )


def web_address(url: str) -> SplitResult | None:
    """Split an http or https URL; None where it is none: another scheme, no host, a port that can't be."""
    try:
        parts = urlsplit(url)
        able = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # a bracket that isn't closed, port 99999
        return None
    return parts if able else None


def hostname(host: str) -> str:
    """Give the name or address in ``host:port``, without brackets."""
    return urlsplit(f"//{host}").hostname or host


def is_loopback(host: str) -> bool:
    """Whether that is this machine by a name or address that can't be another's."""
    name = hostname(host)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def config_dirs() -> list[str]:
    """Give the directories of our configuration, the strongest first."""
    if given := os.environ.get("NSCONTAINER_CONFIG_DIR"):
        return [os.path.abspath(given)]
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return [f"{home}/nscontainer", "/etc/nscontainer"]


def load(dirs: list[str] | None = None, daemon_json: str = DAEMON_JSON) -> Registries:
    """Read the configuration; a user's own file is stronger than the machine's, ours than Docker's.

    Raises
    ------
    SpecError
        A file can't be understood.
    """
    mirrors: dict[str, tuple[str, ...]] = {}
    insecure: dict[str, bool] = {}
    for directory in config_dirs() if dirs is None else dirs:
        path = f"{directory}/registries.toml"
        for registry, entry in _table(_read(path, tomllib.loads), "registry", path).items():
            where = f"{path}: [registry.{json.dumps(registry)}]"
            if not isinstance(entry, dict):
                raise SpecError(f"{where} is no table")
            if unknown := set(entry) - {"mirrors", "insecure"}:
                raise SpecError(f"{where}: no such key: {', '.join(sorted(unknown))}")
            if "mirrors" in entry:
                mirrors.setdefault(registry, _urls(entry["mirrors"], f"{where} mirrors"))
            if "insecure" in entry:
                if not isinstance(entry["insecure"], bool):
                    raise SpecError(f"{where} insecure: not true or false: {entry['insecure']!r}")
                insecure.setdefault(registry, entry["insecure"])
    hosts = {host for host, yes in insecure.items() if yes}
    networks = []
    docker = _read(daemon_json, json.loads)
    if urls := docker.get("registry-mirrors"):
        mirrors.setdefault(DOCKER_HUB, _urls(urls, f"{daemon_json} registry-mirrors"))
    for name in docker.get("insecure-registries") or ():
        try:
            networks.append(ipaddress.ip_network(name))
        except ValueError:
            if insecure.get(name, True):
                hosts.add(str(name))
    return Registries(mirrors, frozenset(hosts), tuple(networks))


def _read(path: str, parse: Callable[[str], Any]) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            found = parse(file.read())
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise SpecError(f"{path} can't be read: {error}") from None
    if not isinstance(found, dict):
        raise SpecError(f"{path} holds no table")
    return found


def _table(config: dict[str, Any], key: str, path: str) -> dict[str, Any]:
    found = config.get(key, {})
    if not isinstance(found, dict):
        raise SpecError(f"{path}: {key} is no table")
    return found


def _urls(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise SpecError(f"{where}: not a list of URLs: {value!r}")
    for url in value:
        parts = web_address(url) if isinstance(url, str) else None
        if parts is None:
            raise SpecError(f"{where}: not a URL: {url!r}", hint="as https://mirror.example")
        if parts.username is not None or parts.query or parts.fragment:
            raise SpecError(
                f"{where}: {parts.hostname}: only scheme, host and path, please",
                hint="credentials belong into Docker's config.json",
            )
    return tuple(value)
