"""bootstrap's words: suites, mirrors and dates, without an archive being asked."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nscontainer.errors import HostError, SpecError
from nscontainer.image.archives import bootstrap, debian
from nscontainer.image.store import Store


@pytest.mark.parametrize(
    "text", ["debian", "debian:", "debian:noble", "ubuntu:bookworm", "arch:x", "debian:../x"]
)
def test_unknown_suites(text: str) -> None:
    """Only suites that are known are asked for."""
    with pytest.raises(SpecError, match="can't be bootstrapped"):
        debian.suite(text)


def test_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stable suite comes with its updates and security fixes; sid, or a mirror named, alone."""
    monkeypatch.setattr(debian, "_own_addresses", list)
    assert debian.suite("debian:bookworm").lines == (
        "deb http://deb.debian.org/debian bookworm main",
        "deb http://deb.debian.org/debian bookworm-updates main",
        "deb http://deb.debian.org/debian-security bookworm-security main",
    )
    assert len(debian.suite("debian:sid").lines) == 1
    assert debian.suite("ubuntu:noble").lines[2] == (
        "deb http://security.ubuntu.com/ubuntu noble-security main universe"
    )
    mirror = "https://snapshot.debian.org/archive/debian/20250101T000000Z"
    assert debian.suite("debian:bookworm", mirror).sources == ((mirror, "bookworm"),)


@pytest.mark.parametrize("mirror", ["ftp://x/debian", "http://x y", "http://x/$(id)", "x'", ""])
def test_mirrors_that_are_none(mirror: str) -> None:
    """A mirror is an address, and never more than that: it ends up in a shell's words."""
    with pytest.raises(SpecError, match="is no address"):
        debian.suite("debian:bookworm", mirror)


def test_own_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own apt sources tell the mirror, in both of apt's forms; one with a password doesn't."""
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb http://no/debian x main\ndeb [arch=amd64] http://me:secret@private/debian x main\n"
        "deb https://apt.example.org/other x main\n"
    )
    (tmp_path / "sources.list.d/a.sources").write_text(
        "Types: deb\nURIs: http://mirror.example.org/debian/\nSuites: x\n"
    )
    found = [*debian._own_addresses(str(tmp_path))]
    assert found[0] == "http://me:secret@private/debian"
    monkeypatch.setattr(debian, "_own_addresses", lambda: found)
    assert debian.suite("debian:bookworm").sources[0][0] == "http://mirror.example.org/debian"
    assert debian.suite("debian:bookworm").sources[2][0].endswith("deb.debian.org/debian-security")


def test_dated(monkeypatch: pytest.MonkeyPatch) -> None:
    """SOURCE_DATE_EPOCH dates an image; what is no number is refused."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert debian.published(debian.suite("debian:sid")) == 1_700_000_000
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(SpecError, match="SOURCE_DATE_EPOCH is 'yesterday'"):
        debian.published(debian.suite("debian:sid"))


def test_a_mirror_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that can't be reached is told, with its address."""
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    with pytest.raises(
        HostError, match=r"http://127.0.0.1:9/debian/dists/sid/InRelease can't be had"
    ):
        debian.published(debian.suite("debian:sid", "http://127.0.0.1:9/debian"))


def test_refused_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words that can't be, and a tool that isn't there, are told first."""
    store = Store(str(tmp_path / "images"))
    with pytest.raises(SpecError, match="variant 'tiny' is unknown"):
        bootstrap.bootstrap("debian:bookworm", store=store, variant="tiny")
    with pytest.raises(SpecError, match="'a;b' is no package's name"):
        bootstrap.bootstrap("debian:bookworm", store=store, include=["curl", "a;b"])
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(HostError, match="neither mmdebstrap nor debootstrap") as caught:
        bootstrap.bootstrap("debian:bookworm", store=store)
    assert caught.value.hint == "as root: apt-get install mmdebstrap"
