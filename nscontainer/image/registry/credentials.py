"""Credentials as Docker and its kin keep them: ``docker login`` and ``skopeo login`` write them.

Read from ``$REGISTRY_AUTH_FILE``, ``$DOCKER_CONFIG/config.json`` or ``~/.docker/config.json``, and
``${XDG_RUNTIME_DIR}/containers/auth.json``; the first that knows the registry. Nothing here puts a
secret into a message or a ``repr``.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from typing import Any, Final

from nscontainer.errors import SpecError
from nscontainer.image.names import DOCKER_HUB

_HELPER_TIME_S: Final = 60.0
"""A helper may ask its user to unlock a keyring."""
_HELPER_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are to a registry: name and password, or a token that stands for them.

    Parameters
    ----------
    source
        Where they are from, to be said when they don't do.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    source: str = ""

    @property
    def basic(self) -> str:
        """The ``Authorization`` header of HTTP's Basic scheme."""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode("ascii")


@dataclass(frozen=True, slots=True)
class Found:
    """What a search for credentials came to: them, or what stood in the way of asking for them."""

    credentials: Credentials | None = None
    trouble: str = ""


def files() -> list[str]:
    """Give the files to look into, in order."""
    found = []
    if given := os.environ.get("REGISTRY_AUTH_FILE"):
        found.append(given)
    docker = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    found.append(f"{docker}/config.json")
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    found.extend((f"{runtime}/containers/auth.json", f"/run/containers/{os.getuid()}/auth.json"))
    return found


def find(registry: str, repository: str = "", *, paths: list[str] | None = None) -> Found:
    """Look up the credentials for a registry (``docker.io``, ``host:port``).

    Raises
    ------
    SpecError
        A file is there that can't be understood.
    """
    trouble = ""
    for path in files() if paths is None else paths:
        config = _read(path)
        if config is None:
            continue
        helper = _helper(config, registry)
        if helper:
            found = _ask(helper, _server(registry), path)
            if found.credentials:
                return found
            trouble = trouble or found.trouble
        if credentials := _written(config, registry, repository, path):
            return Found(credentials)
    return Found(trouble=trouble)


def _server(registry: str) -> str:
    """Give what Docker calls a registry when it keeps its credentials."""
    return "https://index.docker.io/v1/" if registry == DOCKER_HUB else registry


def _same(key: str, registry: str) -> bool:
    """Whether a key of ``auths`` means that registry: a host, or a URL with it."""
    host = re.sub(r"^https?://", "", key).split("/", 1)[0].lower()
    if registry == DOCKER_HUB:
        return host in {DOCKER_HUB, "index.docker.io", "registry-1.docker.io"}
    return host == registry.lower()


def _read(path: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    try:
        config = json.loads(text or "{}")
    except ValueError:
        config = None
    if not isinstance(config, dict):  # its text is not quoted: it holds secrets
        raise SpecError(f"{path} is not JSON", hint="mend it, or log in again with docker login")
    return config


def _helper(config: dict[str, Any], registry: str) -> str:
    by_host = config.get("credHelpers")
    if isinstance(by_host, dict):
        for host, helper in by_host.items():
            if _same(host, registry):
                return str(helper)
    return str(config.get("credsStore") or "")


def _written(
    config: dict[str, Any], registry: str, repository: str, path: str
) -> Credentials | None:
    """Look into ``auths``; Podman's files may have keys for a namespace: the longest counts."""
    auths = config.get("auths")
    if not isinstance(auths, dict):
        return None
    name = f"{registry}/{repository}"
    parts = name.split("/")
    keys = ["/".join(parts[:length]) for length in range(len(parts), 1, -1)]
    keys = [key for key in keys if key in auths]
    keys += [key for key in auths if _same(key, registry) and not _is_namespace(key)]
    for key in keys:
        entry = auths[key]
        if isinstance(entry, dict) and (found := _entry(entry, path)):
            return found
    return None


def _is_namespace(key: str) -> bool:
    """``quay.io/team`` is; ``https://quay.io/v1/`` is how Docker once wrote the registry itself."""
    _, _, rest = re.sub(r"^https?://", "", key).partition("/")
    return "://" not in key and rest.strip("/") not in {"", "v1", "v2"}


def _entry(entry: dict[str, Any], path: str) -> Credentials | None:
    username, password = entry.get("username") or "", entry.get("password") or ""
    if encoded := entry.get("auth"):
        try:
            pair = base64.b64decode(str(encoded), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            raise SpecError(f'{path}: an "auth" is not base64', hint="docker login") from None
        username, _, password = pair.partition(":")
        password = password.rstrip("\0")  # as Docker's own reader does
    token = entry.get("identitytoken") or ""
    if not (username or password or token):
        return None
    return Credentials(str(username), str(password), str(token), path)


def _ask(helper: str, server: str, path: str) -> Found:
    """Run ``docker-credential-<helper> get``; its protocol is docker/docker-credential-helpers'."""
    if not _HELPER_NAME.fullmatch(helper):
        raise SpecError(f"{path}: not the name of a credential helper: {helper!r}")
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"],
            input=server.encode(),
            capture_output=True,
            timeout=_HELPER_TIME_S,
            check=False,
        )
    except FileNotFoundError:
        return Found(trouble=f"{path} names the credential helper {program}, which is not on PATH")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Found(trouble=f"{program} can't be asked: {type(error).__name__}")
    if done.returncode != 0:
        said = done.stdout.decode("utf-8", "replace").lower()
        if "not found" in said:
            return Found()
        return Found(trouble=f"{program} get ended with {done.returncode}")
    try:
        answer = json.loads(done.stdout)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        return Found(trouble=f"{program} answered what is not credentials")
    if username == "<token>":
        return Found(Credentials(identity_token=secret, source=program))
    if not (username or secret):
        return Found()
    return Found(Credentials(username, secret, source=program))
