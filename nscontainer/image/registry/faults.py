"""Failures of network and registry as errors of ours: one line, which host, how to mend it.

Nothing that came with a URL's query or a header of ours is quoted: there may be secrets in it.
"""

from __future__ import annotations

import email.utils
import json
import ssl
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from nscontainer.errors import RegistryError

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

_BODY_LIMIT: Final = 64 << 10
_SAID_LIMIT: Final = 200
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class PassingError(RegistryError):
    """A failure that may be over at the next try.

    Parameters
    ----------
    after_s
        How long the server asks to wait, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        status: int | None = None,
        hint: str | None = None,
        after_s: float | None = None,
    ) -> None:
        super().__init__(message, reason=reason, status=status, hint=hint)
        self.after_s = after_s


class StoppedError(Exception):
    """The work was broken off by its owner; never shown."""


def of_exception(error: Exception, url: str) -> RegistryError:
    """Say what an exception of urllib3 or a socket means."""
    import urllib3.exceptions as theirs

    host = urlsplit(url).netloc
    if cause := _certificate_fault(error):
        return RegistryError(
            f"the TLS certificate of {host} is not trusted: {cause}",
            reason="tls",
            hint=f"put its CA into /etc/docker/certs.d/{host}/ca.crt, or name it by SSL_CERT_FILE",
        )
    if isinstance(error, theirs.ProxyError):
        return RegistryError(
            f"{host} can't be reached: the proxy doesn't answer: {_root(error)}",
            reason="unreachable",
            hint="see HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
        )
    if isinstance(error, theirs.SSLError | ssl.SSLError):
        detail = _root(error)
        if "WRONG_VERSION_NUMBER" in detail or "RECORD_LAYER" in detail:
            return RegistryError(
                f"{host} doesn't speak TLS",
                reason="tls",
                hint=f'a registry on plain http must be named: [registry."{host}"] insecure = true '
                "in registries.toml",
            )
        if "EOF" in detail:
            return PassingError(f"the connection to {host} was lost", reason="unreachable")
        return RegistryError(f"TLS with {host} failed: {detail}", reason="tls")
    if isinstance(error, theirs.NameResolutionError):
        return RegistryError(
            f"{host} can't be reached: no such host",
            reason="unreachable",
            hint="is its name right, and is there a network?",
        )
    if isinstance(error, theirs.NewConnectionError):
        return RegistryError(f"{host} can't be reached: {_root(error)}", reason="unreachable")
    if isinstance(error, theirs.TimeoutError | TimeoutError):
        return PassingError(f"{host} doesn't answer", reason="unreachable")
    if isinstance(error, theirs.LocationValueError):
        return RegistryError(f"{host} can't be asked: not a good address", reason="unreachable")
    return PassingError(f"the connection to {host} was lost", reason="unreachable")


def of_response(response: BaseHTTPResponse, what: str, url: str) -> RegistryError:
    """Say what an answer with a status of 400 and more means; ``what`` is what was asked for."""
    host, status = urlsplit(url).netloc, response.status
    said = _said(response)
    quoted = f": {said}" if said else ""
    if status == 429:
        return PassingError(
            f"{what}: {host} has had enough of us for now{quoted}",
            reason="rate-limited",
            status=status,
            hint="docker login raises most limits; or wait, or name a mirror in registries.toml",
            after_s=_after(response),
        )
    if status in _AGAIN:
        return PassingError(
            f"{what}: {host} failed with {status}{quoted}",
            reason="failed",
            status=status,
            after_s=_after(response),
        )
    if status in {401, 403}:
        return RegistryError(
            f"{what}: {host} refused{quoted or f' with {status}'}",
            reason="unauthorized",
            status=status,
        )
    if status in {404, 410}:
        return RegistryError(f"{what}: {host} has none{quoted}", reason="not-found", status=status)
    return RegistryError(
        f"{what}: {host} answered {status}{quoted}",
        reason="failed" if status >= 500 else "refused",
        status=status,
    )


def _after(response: BaseHTTPResponse) -> float | None:
    """Read ``Retry-After``: seconds, or a date."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _said(response: BaseHTTPResponse) -> str:
    """Read what the registry wrote: the messages of its JSON (distribution spec, "Error Codes")."""
    try:
        body = response.read(_BODY_LIMIT)
    except Exception:  # noqa: BLE001 - whatever breaks here, the status alone must do
        return ""
    try:
        answer = json.loads(body)
        errors = answer.get("errors") or [answer]
        words = [_words(entry) for entry in errors]
    except (ValueError, AttributeError, TypeError, RecursionError):
        return ""
    return printable("; ".join(filter(None, words)))


def _words(entry: dict[str, object]) -> str:
    code = str(entry.get("code") or "").lower().replace("_", " ")
    message = str(entry.get("message") or entry.get("details") or entry.get("error") or "")
    return message or code


def printable(text: str, limit: int = _SAID_LIMIT) -> str:
    """Make somebody else's text fit for one line of a terminal."""
    text = "".join(c if c.isprintable() else " " for c in text)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _certificate_fault(error: BaseException | None) -> str | None:
    """Find the reason of a refused certificate among the causes."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message or "it can't be verified"
    return None


def _root(error: BaseException) -> str:
    """Give the innermost reason, as the system words it."""
    words = ""
    for cause in _causes(error):
        if isinstance(cause, OSError) and (said := getattr(cause, "reason", 0) or cause.strerror):
            words = str(said)
    return printable(words) or type(error).__name__


def _causes(error: BaseException | None) -> list[BaseException]:
    """List the exception, those it wraps (urllib3 keeps them as arguments) and those it came from."""
    found: list[BaseException] = []
    todo = [error]
    while todo:
        one = todo.pop()
        if one is None or any(one is other for other in found) or len(found) > 20:
            continue
        found.append(one)
        todo += [one.__cause__, one.__context__]
        todo += [part for part in one.args if isinstance(part, BaseException)]
        original = getattr(one, "original_error", None)
        todo += [original] if isinstance(original, BaseException) else []
    return found
