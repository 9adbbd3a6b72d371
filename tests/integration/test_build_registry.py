"""A base image that isn't here comes from its registry; with --pull a newer one does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nscontainer.errors import RegistryError, one_line
from nscontainer.image.store import Store
from tests.integration import registries
from tests.integration.building import build, make_base

pytestmark = [pytest.mark.root, pytest.mark.images, pytest.mark.usefixtures("engine")]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """One of Debian's on loopback, with ``base:1`` in it."""
    for name in ("NSCONTAINER_CONFIG_DIR", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    make_base()
    with registries.registry(tmp_path / "registry") as host:
        push("base:latest", f"{host}/base:1")
        yield host


def push(name: str, to: str) -> None:
    """Copy an image of ours into the registry by skopeo."""
    source = f"oci:{Store().root}:{name}"
    registries.skopeo("copy", "-q", "--dest-tls-verify=false", source, f"docker://{to}")


def test_a_base_from_a_registry(registry: str) -> None:
    """It is pulled once; the cache holds for the same one, and not for a newer one."""
    name = f"{registry}/base:1"
    text = f"FROM {name}\nRUN cat /made 2>/dev/null || echo old"
    first = build(text)
    assert first.said == "old\n"
    assert first.notes == [f"pulling {name}"]
    assert Store().get(name).names == (name,)
    build("FROM base\nRUN echo new > /made", None, "newer")
    push("newer:latest", name)
    second = build(text)
    assert second.notes == []
    assert set(second.steps.values()) == {"cached"}
    third = build(text, pull=True)
    assert third.said == "new\n"


def test_a_copy_from_an_image_of_a_registry(registry: str) -> None:
    """COPY --from pulls as FROM does."""
    built = build(f"FROM scratch\nCOPY --from={registry}/base:1 /usr/bin/busybox /bin/")
    assert built.notes == [f"pulling {registry}/base:1"]


def test_one_that_is_nowhere(registry: str) -> None:
    """The error names the line and what the registry said."""
    with pytest.raises(RegistryError) as caught:
        build(f"FROM base\nCOPY --from={registry}/nothing:1 /a /b")
    assert one_line(caught.value).startswith("Dockerfile:2: ")
    assert "nothing:1" in one_line(caught.value)
