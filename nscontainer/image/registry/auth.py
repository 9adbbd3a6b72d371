"""Tokens and passwords for one server: what a 401 asks for, fetched once, kept until it runs out.

The token protocol is Docker's (distribution/docs/spec/auth/token.md, oauth.md): the registry's 401
names a *realm*, which gives a token for a *service* and *scopes*.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

from nscontainer.errors import RegistryError
from nscontainer.image.registry import faults
from nscontainer.image.registry.credentials import Credentials, Found
from nscontainer.image.registry.hosts import is_loopback, web_address

if TYPE_CHECKING:
    from nscontainer.image.registry.transport import Transport

_ANSWER_LIMIT: Final = 1 << 20
_USUAL_LIFE_S: Final = 60.0
"""How long a token holds that doesn't say (token.md)."""
_MARGIN_S: Final = 10.0
_CLIENT_ID: Final = "nscontainer"
_ITEM: Final = re.compile(
    r"""[\s,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)         # a scheme, or a parameter's name
        (?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?  # = "quoted" or = token""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authorise that a server offers (RFC 9110 §11.6.1); names are lower case."""

    scheme: str
    parameters: dict[str, str]


def challenges(values: Sequence[str]) -> list[Challenge]:
    """Read ``WWW-Authenticate`` headers, each with one challenge or more."""
    found: list[Challenge] = []
    for value in values:
        position = 0
        while match := _ITEM.match(value, position):
            position = match.end()
            name, quoted, token = match.groups()
            if quoted is None and token is None:
                found.append(Challenge(name.lower(), {}))
            elif found:
                text = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else token
                found[-1].parameters.setdefault(name.lower(), text)
    return found


def join_scopes(*scopes: str) -> tuple[str, ...]:
    """Put scopes together: one for each resource, with all actions asked for, in order."""
    actions: dict[str, list[str]] = {}
    for scope in " ".join(scopes).split():
        resource, _, wanted = scope.rpartition(":")
        have = actions.setdefault(resource, [])
        have += [action for action in wanted.split(",") if action not in have]
    return tuple(f"{resource}:{','.join(wanted)}" for resource, wanted in actions.items())


class Authorizer:
    """What to send as ``Authorization`` to one server; its threads share it.

    Parameters
    ----------
    host
        The server, for messages.
    look_up
        Finds the credentials, asked at the first 401.
    insecure
        Whether a password may go over plain http.
    """

    def __init__(
        self, transport: Transport, host: str, look_up: Callable[[], Found], *, insecure: bool
    ) -> None:
        self._transport = transport
        self._host = host
        self._look_up = look_up
        self._insecure = insecure
        self._found: Found | None = None
        self._headers: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Authorizer({self._host!r})"

    def header(self, scope: str) -> str | None:
        """Give what was accepted for that scope before, while it holds."""
        header, until = self._headers.get(scope, (None, 0.0))
        return header if time.monotonic() < until else None

    def answer(self, offered: Sequence[Challenge], scope: str, refused: str | None) -> str | None:
        """Give what to send after a 401; None where there is nothing (else) to try.

        Parameters
        ----------
        refused
            What was sent, so that one thread fetches a token and the others take it.

        Raises
        ------
        RegistryError
            The token server refused or failed.
        """
        with self._lock:
            known = self.header(scope)
            if known is not None and known != refused:
                return known
            for challenge in offered:
                if challenge.scheme == "bearer" and "realm" in challenge.parameters:
                    header, life_s = self._token(challenge.parameters, scope)
                    break
                if challenge.scheme == "basic" and (basic := self._basic()):
                    header, life_s = basic, float("inf")
                    break
            else:
                return None
            if header == refused:
                return None
            self._headers[scope] = (header, time.monotonic() + life_s)
            return header

    @property
    def found(self) -> Found:
        """The credentials that were (or weren't) found."""
        if self._found is None:
            self._found = self._look_up()
        return self._found

    def _basic(self) -> str | None:
        have = self.found.credentials
        return have.basic if have and have.password else None

    def _token(self, parameters: dict[str, str], scope: str) -> tuple[str, float]:
        realm = parameters["realm"]
        parts = web_address(realm)
        have = self.found.credentials
        if parts is None:
            raise RegistryError(
                f"{self._host} names a token server that can't be asked: {faults.printable(realm)}",
                reason="refused",
            )
        if have and parts.scheme == "http" and not (self._insecure or is_loopback(parts.netloc)):
            raise RegistryError(
                f"{self._host} wants the password at {parts.netloc} over plain http: not sent",
                reason="unauthorized",
                hint="name the registry insecure in registries.toml if that is meant to be",
            )
        fields = {"scope": " ".join(join_scopes(parameters.get("scope", ""), scope))}
        if service := parameters.get("service"):
            fields["service"] = service
        answer = self._ask(realm, have, fields)
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise RegistryError(f"{parts.netloc} gave no token", reason="unauthorized")
        life_s = answer.get("expires_in")
        if not isinstance(life_s, int | float) or life_s <= 0:
            life_s = _USUAL_LIFE_S
        return f"Bearer {token}", max(life_s - _MARGIN_S, life_s / 2)

    def _ask(self, realm: str, have: Credentials | None, fields: dict[str, str]) -> dict[str, Any]:
        """GET with a password or without, POST with a token that stands for it (oauth.md)."""
        headers = {"Accept": "application/json"}
        if have and have.identity_token:
            fields |= {
                "grant_type": "refresh_token",
                "client_id": _CLIENT_ID,
                "refresh_token": have.identity_token,
            }
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            return self._send("POST", realm, headers, urlencode(fields).encode(), have)
        query = [("scope", one) for one in fields.pop("scope").split()]
        query += list(fields.items())
        if have:
            headers["Authorization"] = have.basic
            query.append(("account", have.username))
        joint = "&" if urlsplit(realm).query else "?"
        return self._send("GET", realm + joint + urlencode(query), headers, None, have)

    def _send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | None,
        have: Credentials | None,
    ) -> dict[str, Any]:
        # A redirect isn't followed: a password goes where the registry said and nowhere else.
        response = self._transport.send(method, url, headers=headers, body=body)
        try:
            if response.status in {401, 403} and have:
                raise RegistryError(
                    f"the credentials for {self._host} from {have.source} were refused",
                    reason="unauthorized",
                    status=response.status,
                    hint=f"docker login {self._host}",
                )
            if response.status != 200:
                raise faults.of_response(response, "a token", url)
            text = self._transport.read_all(response, url, _ANSWER_LIMIT)
        finally:
            response.close()
        try:
            answer = json.loads(text or b"")
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise RegistryError(
                f"{urlsplit(url).netloc} gave no token but something else", reason="unauthorized"
            )
        return answer
