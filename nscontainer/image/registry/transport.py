"""HTTP by urllib3, imported when it is first used: proxies, TLS per host, broken off at any moment.

No retries and no redirects are left to the library: what may follow where, and with which headers,
is :mod:`nscontainer.image.registry.client`'s to say.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import threading
import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import nscontainer
from nscontainer.errors import HostError, SpecError
from nscontainer.image.registry import faults, hosts, tls

if TYPE_CHECKING:
    import urllib3
    from urllib3.response import BaseHTTPResponse

CONNECT_S: Final = 10.0
READ_S: Final = 30.0
"""A connection without a byte for that long is taken for lost."""
FINISH_S: Final = 600.0
"""The end of an upload: registries then move the blob, some for minutes."""
_CHUNK_BYTES: Final = 1 << 20
_CONNECTIONS: Final = 8


class Transport:
    """Connections to any number of hosts, shared by the threads of one pull or push."""

    def __init__(self, *, read_s: float | None = None) -> None:
        self.stop = threading.Event()
        self.read_s = READ_S if read_s is None else read_s
        self._managers: dict[tuple[str, bool, str | None], urllib3.PoolManager] = {}
        self._lock = threading.Lock()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None = None,
        verify: bool = True,
        read_s: float | None = None,
    ) -> BaseHTTPResponse:
        """Send one request; the answer's body is still to be read.

        Raises
        ------
        RegistryError
            Nothing came back.
        StoppedError
            :meth:`abort` was called.
        """
        import_urllib3()
        import urllib3

        if self.stop.is_set():
            raise faults.StoppedError
        sent = {"User-Agent": f"nscontainer/{nscontainer.__version__}", **headers}
        manager = self._manager(url, verify=verify)
        try:
            return manager.request(
                method,
                url,
                body=body,
                headers=sent,
                retries=False,
                redirect=False,
                preload_content=False,
                timeout=urllib3.Timeout(connect=CONNECT_S, read=read_s or self.read_s),
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            if self.stop.is_set():
                raise faults.StoppedError from None
            raise faults.of_exception(error, url) from None

    def read(self, response: BaseHTTPResponse, url: str, limit: int) -> bytes:
        """Read some of an answer's body, at least a byte; b"" is its end.

        Raises
        ------
        RegistryError
            The connection was lost.
        """
        import urllib3

        if self.stop.is_set():
            raise faults.StoppedError
        assert isinstance(response, urllib3.HTTPResponse)
        try:
            # What is there, not all that was asked for: a stall must not lose what came before it.
            return response.read1(limit, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            if self.stop.is_set():
                raise faults.StoppedError from None
            raise faults.of_exception(error, url) from None

    def read_all(self, response: BaseHTTPResponse, url: str, limit: int) -> bytes | None:
        """Read a body of at most ``limit`` bytes; None where it has more."""
        parts, total = [], 0
        while part := self.read(response, url, limit + 1 - total):
            parts.append(part)
            total += len(part)
            if total > limit:
                response.close()
                return None
        return b"".join(parts)

    def abort(self) -> None:
        """Break everything off, from any thread: those that wait for the network wake up and end."""
        self.stop.set()
        for one in list(self._sockets):
            with contextlib.suppress(OSError):
                # Not SSLSocket's own method, which would pull its state from under a reader.
                socket.socket.shutdown(one, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            managers, self._managers = list(self._managers.values()), {}
        for manager in managers:
            manager.clear()

    def _manager(self, url: str, *, verify: bool) -> urllib3.PoolManager:
        parts = urlsplit(url)
        proxy = proxy_for(parts.scheme, parts.netloc)
        key = (parts.netloc, verify, proxy)
        with self._lock:
            if key not in self._managers:
                self._managers[key] = self._make(parts.scheme, parts.netloc, proxy, verify=verify)
            return self._managers[key]

    def _make(
        self, scheme: str, host: str, proxy: str | None, *, verify: bool
    ) -> urllib3.PoolManager:
        import urllib3

        options: dict[str, Any] = {"maxsize": _CONNECTIONS, "blocksize": _CHUNK_BYTES}
        if scheme == "https":
            options["ssl_context"] = tls.context(host, verify=verify)
            if not verify:
                options["cert_reqs"] = "CERT_NONE"
                options["assert_hostname"] = False
        if proxy is None:
            made = urllib3.PoolManager(2, **options)
        else:
            address, headers = _proxy_parts(proxy)
            made = urllib3.ProxyManager(address, 2, proxy_headers=headers, **options)
        made.pool_classes_by_scheme = self._pools(verify=verify)
        return made

    def _pools(self, *, verify: bool) -> dict[str, Any]:
        """Make connection pools whose sockets :meth:`abort` knows."""
        from urllib3.connection import HTTPConnection, HTTPSConnection
        from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

        sockets = self._sockets

        class Plain(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                _keep(self.sock, sockets)

        class Secure(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                # No warning for each: whoever configured it insecure knows.
                self.is_verified = self.is_verified or not verify
                _keep(self.sock, sockets)

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        return {"http": PlainPool, "https": SecurePool}


def import_urllib3() -> None:
    """Import the library, or say that it is missing: an engine from a copied directory has none."""
    try:
        import urllib3  # noqa: F401
    except ImportError:
        raise HostError(
            "registries need the Python package urllib3", hint="pip install urllib3"
        ) from None


def _keep(one: object, sockets: weakref.WeakSet[socket.socket]) -> None:
    if isinstance(one, socket.socket):
        # A proxy's or NAT's idle cut shows only this way on a connection that only reads.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sockets.add(one)


def proxy_for(scheme: str, host: str) -> str | None:
    """Give the proxy's URL for a host, from the environment as curl and Go read it, or None."""
    if hosts.is_loopback(host) or _unproxied(host):
        return None
    names = {"https": ("https_proxy", "HTTPS_PROXY")}.get(scheme, ("http_proxy", "HTTP_PROXY"))
    for name in (*names, "all_proxy", "ALL_PROXY"):
        if value := os.environ.get(name):
            return value if "://" in value else f"http://{value}"
    return None


def _unproxied(host: str) -> bool:
    """Whether NO_PROXY covers it: names and their subdomains, addresses, networks, ``*``."""
    name = hosts.hostname(host)
    rules = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    for rule in filter(None, (part.strip().lower() for part in rules.split(","))):
        if rule in {"*", name, host}:
            return True
        bare = rule.removeprefix("*").lstrip(".")
        if name == bare or name.endswith(f".{bare}"):
            return True
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(name) in ipaddress.ip_network(rule, strict=False):
                return True
    return False


def _proxy_parts(proxy: str) -> tuple[str, dict[str, str]]:
    """Take the credentials out of a proxy's URL, into its header."""
    import urllib3

    parts = hosts.web_address(proxy)
    if parts is None:
        scheme, _, address = proxy.partition("://")
        if scheme not in {"http", "https"}:
            raise SpecError(
                f"a proxy of the kind {scheme!r} is not supported", hint="http or https"
            )
        what = f"{scheme}://{address.rpartition('@')[2]}"  # not the password
        raise SpecError(f"proxy {what!r:.200} is no URL", hint="as http://proxy.example:3128")
    address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if parts.username is None:
        return address, {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return address, dict(urllib3.make_headers(proxy_basic_auth=pair))
