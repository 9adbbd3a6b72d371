"""Image names: Docker's grammar, and what one is told where a name is none."""

from __future__ import annotations

import pytest

from nscontainer.errors import ImageError, SpecError
from nscontainer.image import digest as digests
from nscontainer.image import names

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "whole", "familiar"),
    [
        ("python", "docker.io/library/python:latest", "python:latest"),
        ("python:3.12-slim", "docker.io/library/python:3.12-slim", "python:3.12-slim"),
        ("docker.io/python", "docker.io/library/python:latest", "python:latest"),
        ("index.docker.io/library/python", "docker.io/library/python:latest", "python:latest"),
        ("me/tool", "docker.io/me/tool:latest", "me/tool:latest"),
        ("localhost/tool", "localhost/tool:latest", "localhost/tool:latest"),
        ("localhost:5000/a/b:1", "localhost:5000/a/b:1", "localhost:5000/a/b:1"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        ("ghcr.io/org/a__b-c.d_e:V_1.-x", "ghcr.io/org/a__b-c.d_e:V_1.-x", None),
        ("Registry/a", "Registry/a:latest", None),
        (f"python@{DIGEST}", f"docker.io/library/python@{DIGEST}", f"python@{DIGEST}"),
        (f"a/b:1@{DIGEST}", f"docker.io/a/b:1@{DIGEST}", f"a/b:1@{DIGEST}"),
        ("docker.io/a.b/c", "docker.io/a.b/c:latest", None),
    ],
)
def test_names_that_docker_takes(text: str, whole: str, familiar: str | None) -> None:
    """A name is read as Docker reads it, and reading what comes of it gives the same again."""
    reference = names.parse(text)
    assert str(reference) == whole
    assert familiar is None or reference.familiar == familiar
    assert names.parse(whole) == reference


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "a:", ":1", "/a", "a/", "a//b", "A", "a/B", "-a", "a-", "a_", "a___b", "a..b",
        "a b", "ä", "a:ä", "a:" + "x" * 129, "a:-1", "a:.1", "a@", "a@sha256:12", "a:1:2", "a\n",
        "a:1\n", "host", "host:latest", "docker.io/library/host", "0123456789abcdef" * 4,
        "a/" + "b" * 250, "localhost:port/a", "http://localhost/a", "a@sha512:" + "0" * 128,
        "a.b:99999999/c", "a@" + DIGEST.upper(), "\u0661.1/a",
    ],
)  # fmt: skip
def test_names_that_docker_refuses(text: str) -> None:
    """What is no name by the grammar is one error of ours, with a hint."""
    with pytest.raises(SpecError) as caught:
        names.parse(text)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_an_upper_case_name_is_answered_with_its_lower_case() -> None:
    """Who writes Python gets told python."""
    with pytest.raises(SpecError) as caught:
        names.parse("me/Python:3")
    assert caught.value.hint == "lower case: me/python:3"


def test_close_matches() -> None:
    """A tag or a letter that is wrong finds what is there."""
    known = ["python:3.12-slim", "python:3.11", "debian:bookworm", "localhost:5000/lab:1"]
    assert names.close_matches("pyhton:3.11", known)[0] == "python:3.11"
    assert names.close_matches("python:2", known)[:2]
    assert names.close_matches("lab", known) == ["localhost:5000/lab:1"]
    assert names.close_matches("zzz", known) == []


def test_only_sha256_digests() -> None:
    """sha512 is said to be not done; anything else to be no digest."""
    assert digests.check(DIGEST) == DIGEST
    with pytest.raises(ImageError, match="not of sha256"):
        digests.check("sha512:" + "0" * 128)
    for text in ("", "sha256:", DIGEST[:-1], DIGEST + "0", DIGEST.upper(), None, 7, DIGEST + "\n"):
        with pytest.raises(ImageError, match="no digest"):
            digests.check(text)


@pytest.mark.parametrize(
    "registry", ["localhost:99999", "localhost:0", "[::1]:70000", "[::::]", "[:]:5000", "[1]"]
)
def test_a_registry_that_can_be_nowhere(registry: str) -> None:
    """Neither an address nor a port: refused with the name, before anything is looked up."""
    with pytest.raises(SpecError, match="is no registry"):
        names.parse(f"{registry}/a:1")
