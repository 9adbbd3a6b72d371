"""Image names, by Docker's grammar (distribution/reference): ``[registry/]repository[:tag][@digest]``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from nscontainer.errors import ImageError, SpecError
from nscontainer.image import digest as digests

DOCKER_HUB: Final = "docker.io"
HOST: Final = "host"
"""The built-in image: no image of the store may have its name."""
_LONGEST_NAME: Final = 255

_PART: Final = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY: Final = re.compile(
    rf"(?:{_PART}(?:\.{_PART})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?", re.ASCII
)
_COMPONENT: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*", re.ASCII)
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_HEX_ID: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_HINT: Final = "as python:3.12-slim, ghcr.io/org/tool:1 or localhost:5000/mylab"


@dataclass(frozen=True, slots=True)
class Reference:
    """An image's name, whole: what was left out is filled in as Docker does.

    Parameters
    ----------
    registry
        ``docker.io`` where none was named.
    repository
        The path in it; one of docker.io has at least two parts (``library/python``).
    tag
        ``latest`` where neither tag nor digest was given; None for a name by digest alone.
    digest
        ``sha256:…``, or None.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    def name_only(self) -> str:
        """Give registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar_name(self) -> str:
        """:meth:`name_only` as a person writes it: without docker.io/ and library/."""
        if self.registry != DOCKER_HUB:
            return self.name_only()
        return self.repository.removeprefix("library/")

    @property
    def familiar(self) -> str:
        """The name as a person writes it: ``python:3.12-slim``."""
        return self.familiar_name + self._suffix()

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{tag}@{self.digest}" if self.digest else tag

    def __str__(self) -> str:
        return self.name_only() + self._suffix()


def parse(text: str) -> Reference:
    """Read an image's name.

    Raises
    ------
    SpecError
        It is none by Docker's grammar, or it is the built-in image's.
    """
    if not text:
        message = f"{text!r} is no image name"
        raise SpecError(message, hint=_HINT)
    name, at, digest = text.partition("@")
    if at:
        try:
            digests.check(digest)
        except ImageError as error:
            raise SpecError(f"image name {text!r:.300}: {error}", hint=error.hint) from None
    name, tag = _tag_of(name, text)
    registry, path = _registry_of(name)
    _check(registry, path, text)
    if registry == DOCKER_HUB and path == f"library/{HOST}":
        message = f"{text!r}: the name {HOST!r} is the built-in image's"
        raise SpecError(message, hint="another name")
    return Reference(registry, path, tag or (None if at else "latest"), digest if at else None)


def _tag_of(name: str, text: str) -> tuple[str, str]:
    """Split off the tag: what follows a colon after the last slash."""
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    if not colon:
        return name, ""
    if not slash and "/" not in name and not tag:
        message = f"image name {text!r}: nothing follows the colon"
        raise SpecError(message, hint=_HINT)
    if not _TAG.fullmatch(tag):
        message = f"image name {text!r:.300}: {tag!r:.140} is no tag"
        raise SpecError(message, hint="up to 128 of A-Z a-z 0-9 _ . -, and neither . nor - first")
    return f"{head}{slash}{last}", tag


def _registry_of(name: str) -> tuple[str, str]:
    """Tell the registry from the repository, as Docker does: by the look of the first part."""
    first, slash, rest = name.partition("/")
    if slash and (any(c in first for c in ".:[") or first == "localhost" or first != first.lower()):
        registry, path = first, rest
    else:
        registry, path = DOCKER_HUB, name
    if registry == "index.docker.io":
        registry = DOCKER_HUB
    if registry == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    return registry, path


def _check(registry: str, path: str, text: str) -> None:
    if not _REGISTRY.fullmatch(registry) or not _is_address(registry):
        message = f"image name {text!r:.300}: {registry!r:.140} is no registry"
        raise SpecError(message, hint="a host name, with a port or without: localhost:5000")
    for part in path.split("/"):
        if not _COMPONENT.fullmatch(part):
            message = f"image name {text!r:.300}: {part!r:.140} can't be a part of it"
            if part.lower() != part and _COMPONENT.fullmatch(part.lower()):
                raise SpecError(message, hint=f"lower case: {text.replace(part, part.lower())}")
            raise SpecError(message, hint=f"a-z 0-9, with . _ or - between; {_HINT}")
    if len(registry) + 1 + len(path) > _LONGEST_NAME:
        message = f"image name {text!r:.60}… is longer than {_LONGEST_NAME} characters"
        raise SpecError(message, hint=_HINT)
    if _HEX_ID.fullmatch(path.removeprefix("library/")):
        message = f"image name {text!r} would be taken for an id: 64 hexadecimal digits"
        raise SpecError(message, hint=_HINT)


def _is_address(registry: str) -> bool:
    """Tell whether what has a host's look can be one: its port, and an address of IPv6."""
    host, bracket, rest = registry.removeprefix("[").partition("]")
    if bracket:
        import ipaddress

        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return False
    port = (rest if bracket else registry).rpartition(":")[2]
    return not port.isdigit() or 0 < int(port) < 1 << 16


def close_matches(name: str, known: Iterable[str]) -> list[str]:
    """Find which of the known names somebody may have meant, the likeliest first."""
    import difflib

    known = sorted(set(known))
    repository = name.partition("@")[0].rpartition("/")[2].partition(":")[0]
    same = [k for k in known if k.rpartition("/")[2].partition(":")[0] == repository]
    typed = {k.removesuffix(":latest"): k for k in known}  # which nobody types
    alike = difflib.get_close_matches(name, typed, n=3, cutoff=0.6)
    return list(dict.fromkeys([*(typed[k] for k in alike), *same]))[:3]
