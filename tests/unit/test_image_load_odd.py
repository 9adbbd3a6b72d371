"""load on archives that somebody has tampered with."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from nscontainer.errors import ImageError, NsContainerError
from nscontainer.image import media
from nscontainer.image.archives import contents, load, rootfs
from nscontainer.image.store import Store
from tests.unit.archives_made import (
    LAYERS,
    Members,
    config,
    described,
    digest,
    docker_archive,
    left,
    oci_archive,
    oci_image,
    tar,
)

ODD: tuple[Any, ...] = (
    None,
    -1,
    1 << 70,
    1.5,
    True,
    "",
    "x",
    "\ud800",
    "a\0b",
    "../../etc/passwd",
    [],
    {},
    [[]],
    [None],
    "/",
)


def spoilt(members: dict[str, bytes | str], random: Random) -> bytes:
    """An archive with something odd in its JSON, or with bytes of it changed."""
    members = dict(members)
    for _ in range(random.randint(1, 3)):
        name = random.choice([*members])
        content = members[name]
        assert isinstance(content, bytes)
        try:
            value = json.loads(content)
        except ValueError:
            value = None
        if value is None or random.random() < 0.2:
            members.pop(name) if random.random() < 0.2 else members.update(
                {name: shaken(content, random)}
            )
        else:
            members[name] = json.dumps(odd(value, random)).encode()
    data = tar(members)
    return shaken(data, random) if random.random() < 0.2 else data


def shaken(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        if changed:
            changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(
        changed[: random.randrange(len(changed) + 1)] if random.random() < 0.3 else changed
    )


def odd(value: Any, random: Random) -> Any:
    """A JSON value with one of its parts replaced."""
    if isinstance(value, dict | list) and value and random.random() < 0.85:
        key = random.choice([*value] if isinstance(value, dict) else range(len(value)))
        copy = value.copy()
        copy[key] = odd(value[key], random)
        return copy
    return random.choice(ODD)


def oddly_made(random: Random) -> bytes:
    """An OCI archive whose digests are all right, and its config, manifest or index is not."""

    def encoded(value: Any) -> bytes:
        return json.dumps(odd(value, random) if random.random() < 0.4 else value).encode()

    blobs: Members = {}

    def keep(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        blobs[f"blobs/sha256/{digest(data)[7:]}"] = data
        return described(data, media_type, **more)

    manifest = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": keep(encoded(json.loads(config(*LAYERS, Env=["A=1"]))), media.OCI_CONFIG),
        "layers": [keep(layer, media.OCI_LAYER) for layer in LAYERS],
    }
    named = {"annotations": {contents.REF_NAME: "lab:1"}}
    entry = keep(encoded(manifest), media.OCI_MANIFEST, **named)
    members = oci_archive(blobs, entry)
    members["index.json"] = encoded(json.loads(members["index.json"]))
    return tar(members)


@pytest.mark.parametrize("kind", ["docker", "oci", "nested", "linked"])
def test_odd_archives(store: Store, kind: str, tmp_path: Path) -> None:
    """Whatever is changed in an archive, it is loaded or refused by an error of ours, and refused whole."""
    blobs: Members = {}
    entry = oci_image(blobs, *LAYERS, Env=["A=1"])
    entry["annotations"] = {contents.REF_NAME: "lab:1"}
    if kind == "nested":
        entry["platform"] = {"os": "linux", "architecture": "amd64"}
        inner = json.dumps({"mediaType": media.OCI_INDEX, "manifests": [entry, entry]}).encode()
        blobs[f"blobs/sha256/{digest(inner)[7:]}"] = inner
        entry = described(inner, media.OCI_INDEX, annotations={contents.REF_NAME: "lab:1"})
    members: Any = docker_archive(["lab:1"]) if kind == "docker" else oci_archive(blobs, entry)
    refused = 0
    for seed in range(150):
        random = Random(f"{kind}-{seed}")
        data = oddly_made(random) if kind == "linked" else spoilt(members, random)
        given: Any = io.BytesIO(data)
        if seed % 4 == 0:
            given = tmp_path / "odd.tar"
            given.write_bytes(data)
        error = None
        try:
            load.load(given, store=store)
        except NsContainerError as caught:
            error = caught
        if error is not None:
            refused += 1
            remains = [name for name in left(store) if not name.endswith(".lock")]
            assert (remains, "\n" in error.message) == ([], False), (seed, error)
        for image in store.images():
            store.remove(image.id, force=True)
    assert 40 < refused <= 150


def test_bombs(store: Store) -> None:
    """A stream that unpacks to a thousand times its size is no archive and no root filesystem."""
    bomb = gzip.compress(tar({"manifest.json": bytes(100 << 20)}))
    with pytest.raises(ImageError, match="taken for a bomb"):
        load.load(io.BytesIO(bomb), store=store)
    with pytest.raises(ImageError, match="taken for a bomb"):
        rootfs.import_(io.BytesIO(bomb), "root:1", store=store)
    assert left(store) == []


@pytest.mark.parametrize("kind", [[], {}, [[]], 7])
def test_a_layer_of_no_kind_at_all(store: Store, kind: object) -> None:
    """A layer's media type that isn't even a text is refused like one that isn't known."""
    blobs: Members = {}
    oci_image(blobs, *LAYERS)
    parts = [json.loads(data) for data in blobs.values() if bytes(data).startswith(b"{")]
    manifest = next(part for part in parts if "layers" in part)
    manifest["layers"][0]["mediaType"] = kind
    with pytest.raises(ImageError):
        store.add_manifest(json.dumps(manifest).encode(), media.OCI_MANIFEST, name="lab")


def test_a_strangers_image_never_stands_on_this_machine(store: Store) -> None:
    """The label of images that stand on ``host`` is ours to give: with it, the machine's files would be seen."""
    blobs: Members = {}
    entry = oci_image(blobs, *LAYERS, Labels={"org.nscontainer.base": "host"})
    for members in (
        oci_archive(blobs, entry),
        docker_archive(["lab:1"], Labels={"org.nscontainer.base": "host"}),
    ):
        with pytest.raises(ImageError, match="stands on the system of the machine that made it"):
            load.load(io.BytesIO(tar(members)), store=store)
        assert left(store) == []
        assert store.images() == []
