"""Debian's and Ubuntu's suites: which there are, where they come from, and when they were last published."""

from __future__ import annotations

import datetime as dt
import email.utils
import glob
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from nscontainer.errors import HostError, SpecError

DEBIAN_STABLE: Final = ("oldoldstable", "oldstable", "stable", "bullseye", "bookworm", "trixie")
DEBIAN_ROLLING: Final = ("testing", "forky", "unstable", "sid")
UBUNTU: Final = ("focal", "jammy", "noble", "plucky", "questing")
VARIANTS: Final = ("minbase", "essential", "apt", "required", "buildd", "important", "standard")
_MIRRORS: Final = {
    "debian": "http://deb.debian.org/debian",
    "ubuntu": "http://archive.ubuntu.com/ubuntu",
}
_SECURITY: Final = {
    "debian": "http://deb.debian.org/debian-security",
    "ubuntu": "http://security.ubuntu.com/ubuntu",
}
_COMPONENTS: Final = {"debian": "main", "ubuntu": "main universe"}
_KEYRINGS: Final = {
    "debian": ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
    "ubuntu": ("/usr/share/keyrings/ubuntu-archive-keyring.gpg", "ubuntu-keyring"),
}
_ADDRESS: Final = re.compile(r"(https?://|file:///)[A-Za-z0-9._~%:@/?=+,\[\]-]+", re.ASCII)
_HINT: Final = "as debian:bookworm, debian:sid or ubuntu:noble"
_TIMEOUT_S: Final = 20.0
_RELEASE_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Suite:
    """One release of a distribution, and the archives it comes from.

    Parameters
    ----------
    sources
        Archive and suite of each part, the release itself first.
    """

    family: str
    name: str
    sources: tuple[tuple[str, str], ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines of its ``/etc/apt/sources.list``."""
        parts = _COMPONENTS[self.family]
        return tuple(f"deb {archive} {suite} {parts}" for archive, suite in self.sources)

    @property
    def keyring(self) -> str:
        """The keys that its archives are signed with.

        Raises
        ------
        HostError
            They aren't here.
        """
        path, package = _KEYRINGS[self.family]
        if not os.path.exists(path):
            raise HostError(
                f"the keys of {self.family}'s archive are not here: {path}",
                hint=f"as root: apt-get install {package}",
            )
        return path


def suite(text: str, mirror: str | None = None) -> Suite:
    """Read ``debian:bookworm``.

    Parameters
    ----------
    mirror
        The archive to take it from, and nothing else; when not given, that of this machine's own apt
        where it has one of the same distribution, with updates and security fixes.

    Raises
    ------
    SpecError
        It is no suite that is known, or the mirror is no address.
    """
    family, _, name = text.partition(":")
    known = {"debian": (*DEBIAN_STABLE, *DEBIAN_ROLLING), "ubuntu": UBUNTU}.get(family, ())
    if name not in known:
        hint = f"of {family}: {', '.join(known)}" if known else _HINT
        raise SpecError(f"{text!r:.100} can't be bootstrapped", hint=hint)
    if mirror is not None:
        if not _ADDRESS.fullmatch(mirror):
            raise SpecError(f"mirror {mirror!r:.200} is no address", hint=f"as {_MIRRORS[family]}")
        return Suite(family, name, ((mirror, name),))
    archive = _own_mirror(family) or _MIRRORS[family]
    if name in DEBIAN_ROLLING:
        return Suite(family, name, ((archive, name),))
    security = _own_mirror("debian-security") if family == "debian" else None
    fixes = (security or _SECURITY[family], f"{name}-security")
    return Suite(family, name, ((archive, name), (archive, f"{name}-updates"), fixes))


def _own_mirror(directory: str) -> str | None:
    """Find in this machine's apt sources an archive whose address ends so; none with a password in it."""
    for address in _own_addresses():
        if _ADDRESS.fullmatch(address) and "@" not in address:
            found = address.rstrip("/")
            if address.startswith("http") and found.rpartition("/")[2] == directory:
                return found
    return None


def _own_addresses(apt: str = "/etc/apt") -> Iterator[str]:
    names = [f"{apt}/sources.list", *sorted(glob.glob(f"{apt}/sources.list.d/*"))]
    for path in names:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                lines = [line.partition("#")[0].strip() for line in file]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if path.endswith(".sources") and words and words[0].lower() == "uris:":
                yield from words[1:]
            elif path.endswith(".list") and words and words[0] == "deb":
                yield from (word for word in words[1:] if "://" in word)


def published(suite: Suite) -> int:
    """Give the time that the newest of a suite's archives was published, in seconds since 1970.

    What is made of them is dated so (SOURCE_DATE_EPOCH, reproducible-builds.org): the same archives, the
    same image.

    Raises
    ------
    HostError
        An archive can't be reached, or has no such suite.
    """
    if given := os.environ.get("SOURCE_DATE_EPOCH", ""):
        if not given.isdigit():
            raise SpecError(f"SOURCE_DATE_EPOCH is {given!r:.40}", hint="seconds since 1970")
        return int(given)
    return max(_release_date(archive, name) for archive, name in suite.sources)


def _release_date(archive: str, name: str) -> int:
    import urllib.error
    import urllib.request

    address = f"{archive}/dists/{name}/InRelease"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(_proxies()))
    try:
        with opener.open(address, timeout=_TIMEOUT_S) as answer:
            text = answer.read(_RELEASE_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise HostError(
            f"{address} can't be had: {reason}", hint="another archive: --mirror"
        ) from None
    found = re.search(r"^Date: (.+)$", text, re.MULTILINE)
    try:
        when = (
            email.utils.parsedate_to_datetime(found[1].replace("UTC", "+0000")) if found else None
        )
    except ValueError:
        when = None
    if when is None:
        raise HostError(f"{address} is no release of an archive: it has no date")
    return int(when.replace(tzinfo=when.tzinfo or dt.UTC).timestamp())


def apt_settings() -> list[str]:
    """Give those settings of this machine's apt that an archive may not be reached without."""
    wanted = ("Acquire::http::", "Acquire::https::", "Acquire::Check-", "Acquire::Retries")
    return [line for line in _apt_config().splitlines() if line.startswith(wanted)]


def _apt_config() -> str:
    try:
        return subprocess.run(
            ["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=False
        ).stdout
    except OSError:
        return ""


def _proxies() -> dict[str, str]:
    """Give the proxies that apt uses, or else those of the environment."""
    import urllib.request

    found = urllib.request.getproxies()
    for line in _apt_config().splitlines():
        for scheme in ("http", "https"):
            if line.startswith(f"Acquire::{scheme}::Proxy "):
                value = "".join(shlex.split(line.rstrip(";"))[1:])
                if value and value != "DIRECT":
                    found[scheme] = value
    return found
