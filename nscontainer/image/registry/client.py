"""Requests to one repository on one server: authorised, redirected, repeated where that may help."""

from __future__ import annotations

import contextlib
import functools
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urljoin, urlsplit

from nscontainer.errors import RegistryError
from nscontainer.image.names import DOCKER_HUB
from nscontainer.image.registry import auth, credentials, faults
from nscontainer.image.registry.hosts import Endpoint, web_address

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

    from nscontainer.image.registry.transport import Transport

T = TypeVar("T")

TRIES: Final = 5
FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 120.0
"""A server that asks to be left alone for longer gets its way: that is an error at once."""
_REDIRECTS: Final = 8
_PORTS: Final = {"http": 80, "https": 443}


class Patience:
    """How often a failure is forgiven: some times in a row; what gets further starts anew."""

    def __init__(self, stop: threading.Event, tries: int = TRIES) -> None:
        self._stop = stop
        self._tries = tries
        self._failures = 0

    def progress(self) -> None:
        """Note that something came."""
        self._failures = 0

    def failed(self, error: RegistryError) -> None:
        """Wait before the next try, or raise the error where there is none.

        Raises
        ------
        RegistryError
            The error: it is of no passing kind, or came once too often.
        StoppedError
            While it waited, the work was broken off.
        """
        self._failures += 1
        if not isinstance(error, faults.PassingError) or self._failures >= self._tries:
            raise error
        wait_s = FIRST_WAIT_S * 2 ** (self._failures - 1) * random.uniform(0.8, 1.2)  # noqa: S311
        if error.after_s is not None:
            if error.after_s > LONGEST_WAIT_S:
                raise RegistryError(
                    f"{error.message}; it asks to wait {error.after_s:.0f} s",
                    reason=error.reason,
                    status=error.status,
                    hint=error.hint,
                )
            wait_s = max(wait_s, error.after_s)
        if self._stop.wait(wait_s):
            raise faults.StoppedError


class Client:
    """One repository on one server.

    Parameters
    ----------
    endpoint
        The server.
    repository
        The repository's name in the registry; a mirror's prefix is put before it.
    actions
        What is to be done: ``pull``, or ``pull,push``.
    look_up
        Finds the credentials by registry and repository.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        repository: str,
        transport: Transport,
        *,
        actions: str = "pull",
        look_up: Callable[[str, str], credentials.Found] = credentials.find,
    ) -> None:
        self.endpoint = endpoint
        self.repository = endpoint.prefix + repository
        self.transport = transport
        self.scope = f"repository:{self.repository}:{actions}"
        self._lock = threading.Lock()
        self._base: str | None = None
        # A mirror has credentials of its own, never the registry's.
        owner = endpoint.host if endpoint.mirror else endpoint.registry
        self._auth = auth.Authorizer(
            transport,
            owner,
            functools.partial(look_up, owner, self.repository),
            insecure=not endpoint.verify,
        )

    @property
    def name(self) -> str:
        """The repository as messages name it."""
        owner = self.endpoint.host if self.endpoint.mirror else self.endpoint.registry
        return f"{owner}/{self.repository}"

    @property
    def base(self) -> str:
        """The server's URL; where http may do, https is tried first, once."""
        with self._lock:
            if self._base is None:
                self._base = self._find_base()
            return self._base

    def _find_base(self) -> str:
        first, *others = (f"{scheme}://{self.endpoint.host}" for scheme in self.endpoint.schemes)
        if not others:
            return first
        try:
            self.transport.send(
                "GET", f"{first}/v2/", headers={}, verify=self.endpoint.verify
            ).close()
        except RegistryError as error:
            if error.reason == "tls" and "speak" not in error.message:
                raise  # it does speak TLS: a bad certificate is no reason to do without
            return others[0]
        return first

    def url(self, path: str) -> str:
        """Give the URL of something in the repository: ``manifests/latest``."""
        return f"{self.base}/v2/{self.repository}/{path}"

    def patience(self) -> Patience:
        """Give a count of failures: a mirror's first is its last, for there are others to ask."""
        return Patience(self.transport.stop, 1 if self.endpoint.mirror else TRIES)

    def patiently(self, attempt: Callable[[], T]) -> T:
        """Do something until it comes out, or fails for good.

        Raises
        ------
        RegistryError
            It failed for good.
        """
        patience = self.patience()
        while True:
            try:
                return attempt()
            except RegistryError as error:
                patience.failed(error)

    def get(
        self, path: str, what: str, *, limit: int, accept: Iterable[str] = ()
    ) -> tuple[bytes, Mapping[str, str]]:
        """Get something small; give it and the answer's headers.

        Raises
        ------
        RegistryError
            It isn't to be had, or is larger than ``limit`` bytes.
        """

        def attempt() -> tuple[bytes, Mapping[str, str]]:
            headers = {"Accept": ", ".join(accept)} if accept else {}
            with self.request("GET", self.url(path), what, headers=headers) as response:
                body = self.transport.read_all(response, self.base, limit)
                if body is None:
                    raise RegistryError(
                        f"{what}: more than {limit} bytes came from {self.endpoint.host}",
                        reason="refused",
                    )
                return body, response.headers

        return self.patiently(attempt)

    @contextlib.contextmanager
    def request(
        self,
        method: str,
        url: str,
        what: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Callable[[], bytes | Iterable[bytes]] | None = None,
        accept: tuple[int, ...] = (200,),
        scope: str | None = None,
        read_s: float | None = None,
    ) -> Iterator[BaseHTTPResponse]:
        """Send one request, once; the answer is closed with the context.

        Parameters
        ----------
        what
            What is asked for, for messages.
        body
            Gives the body, anew for each time it has to be sent.
        accept
            The statuses that are no errors.

        Raises
        ------
        RegistryError
            Nothing came, or another status.
        """
        response = self._authorised(
            method, url, dict(headers or {}), body, scope or self.scope, read_s
        )
        try:
            if response.status not in accept:
                error = faults.of_response(response, what, url)
                raise self._explained(error) if error.reason == "unauthorized" else error
            yield response
        finally:
            # What was read to its end has given its connection back already.
            response.close()

    def _authorised(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: Callable[[], bytes | Iterable[bytes]] | None,
        scope: str,
        read_s: float | None,
    ) -> BaseHTTPResponse:
        """Send, answer a 401 once, follow redirects of what only reads."""
        answered = False
        redirects = 0
        while True:
            own = same_server(url, self.base)
            sent = self._auth.header(scope) if own else None
            response = self.transport.send(
                method,
                url,
                headers=headers | ({"Authorization": sent} if sent else {}),
                body=body() if body else None,
                verify=self.endpoint.verify or not own,
                read_s=read_s,
            )
            if response.status == 401 and own and not answered:
                offered = auth.challenges(response.headers.getlist("WWW-Authenticate"))
                try:
                    header = self._auth.answer(offered, scope, sent)
                except BaseException:
                    response.close()
                    raise
                if header is None:
                    return response
                response.close()
                answered = True
            elif response.status in {301, 302, 303, 307, 308} and method in {"GET", "HEAD"}:
                redirects += 1
                to = response.headers.get("Location", "")
                response.close()
                if redirects > _REDIRECTS or not to:
                    raise RegistryError(
                        f"{urlsplit(url).netloc} sends us round in circles", reason="failed"
                    )
                url = self.follow(url, to)
            else:
                return response

    def follow(self, url: str, to: str) -> str:
        """Give where a redirect or an upload's ``Location`` leads.

        Raises
        ------
        RegistryError
            From https to another server's http.
        """
        old = urlsplit(url)
        try:
            there = urljoin(url, to)
        except ValueError:
            there = ""
        new = web_address(there)
        if new is None:
            raise RegistryError(f"{old.netloc} sends us to no web address", reason="failed")
        if old.scheme == "https" and new.scheme == "http":
            if new.hostname == old.hostname:
                # A registry behind a proxy that ends TLS, and doesn't know of it.
                return new._replace(scheme="https", netloc=old.netloc).geturl()
            if self.endpoint.verify:
                raise RegistryError(
                    f"{old.netloc} sends us on to {new.netloc} over plain http: not followed",
                    reason="tls",
                )
        return there

    def _explained(self, error: RegistryError) -> RegistryError:
        """Say how to get in: with credentials, or better ones."""
        found = self._auth.found
        host = self.endpoint.host if self.endpoint.mirror else self.endpoint.registry
        login = "docker login" if host == DOCKER_HUB else f"docker login {host}"
        if found.credentials:
            who = found.credentials.username or "the token"
            hint = (
                f"asked as {who!r} from {found.credentials.source}; {login} with other credentials"
            )
        elif found.trouble:
            hint = f"asked without credentials: {found.trouble}"
        else:
            hint = f"asked without credentials, for there are none for {host}: {login}"
        return RegistryError(error.message, reason=error.reason, status=error.status, hint=hint)


def same_server(url: str, base: str) -> bool:
    """Whether a URL is of the server with that base: scheme, host and port."""
    return _origin(url) == _origin(base)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def mirrored(endpoint: Endpoint) -> str:
    """Name a server for the line that says which was used."""
    return f"mirror {endpoint.host}" if endpoint.mirror else endpoint.host
