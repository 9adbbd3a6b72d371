"""load on archives made by hand: what is taken, what is refused, what stays."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nscontainer.errors import ImageError, SpecError
from nscontainer.image import media
from nscontainer.image.archives import contents, load, source, tarindex
from nscontainer.image.progress import Event
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


@pytest.fixture
def put(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "archive.tar"
        path.write_bytes(data)
        return path

    return write


# --------------------------------------------------------------------------------------- docker's


@pytest.mark.parametrize("squeeze", [bytes, gzip.compress, lzma.compress])
def test_docker_archives(store: Store, squeeze: Callable[[bytes], bytes]) -> None:
    """A docker save's images come with their names, ids and diffIDs, also compressed and by a stream."""
    archive = squeeze(tar(docker_archive(["lab:1", "lab:newest"])))
    events: list[Event] = []
    (image,) = load.load(io.BytesIO(archive), store=store, progress=events.append)
    assert image.names == ("lab:1", "lab:newest")
    assert image.id == digest(config(*LAYERS, Env=["A=1"]))
    assert [layer.diff_id for layer in image.layers] == [digest(layer) for layer in LAYERS]
    assert image.env == ("A=1",)
    assert {event.kind for event in events} >= {"download", "unpack", "done"}
    assert store.layer_dir(digest(LAYERS[0])) is not None


def test_layers_that_are_links(store: Store, put: Callable[[bytes], Path]) -> None:
    """Old docker saves have a layer that repeats as a link to the first."""
    members = docker_archive(["lab:1"], (LAYERS[0], LAYERS[0], LAYERS[1]))
    entry = json.loads(members["manifest.json"])[0]
    members["again/layer.tar"] = f"../{entry['Layers'][0]}"
    entry["Layers"][1] = "again/layer.tar"
    members["manifest.json"] = json.dumps([entry]).encode()
    (image,) = load.load(put(tar(members)), store=store)
    assert len(image.layers) == 3


def test_compressed_layers_of_docker(store: Store, put: Callable[[bytes], Path]) -> None:
    """A docker-archive may hold compressed layers: gzip is kept, and the diffIDs are compared."""
    members = docker_archive(["lab:1"])
    names = json.loads(members["manifest.json"])[0]["Layers"]
    members[names[0]] = gzip.compress(LAYERS[0])
    members[names[1]] = lzma.compress(LAYERS[1])
    (image,) = load.load(put(tar(members)), store=store)
    kinds = [layer.descriptor.media_type for layer in image.layers]
    assert kinds == [media.OCI_LAYER_GZIP, media.OCI_LAYER]  # OCI has no xz
    members[names[0]] = gzip.compress(LAYERS[1])
    with pytest.raises(ImageError, match="has the diffID"):
        load.load(put(tar(members)), store=Store(f"{store.root}2"))


def test_a_directory_of_docker_save(store: Store, tmp_path: Path) -> None:
    """A docker save that somebody has unpacked is taken as well."""
    with tarfile.open(fileobj=io.BytesIO(tar(docker_archive(["lab:1"])))) as archive:
        archive.extractall(tmp_path / "unpacked")
    (image,) = load.load(tmp_path / "unpacked", store=store)
    assert image.names == ("lab:1",)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda m: m.pop([n for n in m if n.endswith("layer.tar")][1]), "lacks sha256:"),
        (lambda m: m.pop(next(n for n in m if len(n) == 69)), r"has no [0-9a-f]{64}\.json"),
        (
            lambda m: m.__setitem__([n for n in m if n.endswith("layer.tar")][1], LAYERS[0]),
            "has the digest",
        ),
        (lambda m: m.__setitem__("manifest.json", b"[{}]"), "entry without Config or Layers"),
        (lambda m: m.__setitem__("manifest.json", b"{"), "manifest.json is no JSON"),
        (lambda m: m.__setitem__("manifest.json", b"[]"), "has no image in it"),
        (
            lambda m: m.update({"repositories": m.pop("manifest.json")}),
            "written by a Docker older than 1.10",
        ),
        (lambda m: m.pop("manifest.json"), "neither manifest.json nor index.json"),
    ],
)
def test_spoilt_docker_archives(
    store: Store, put: Callable[[bytes], Path], spoil: Callable[[Members], Any], message: str
) -> None:
    """An archive that lacks something or isn't what it says is refused in a line, and nothing stays."""
    members: Any = docker_archive(["lab:1"])
    spoil(members)
    with pytest.raises(ImageError, match=message):
        load.load(put(tar(members)), store=store)
    assert left(store) == []
    assert store.images() == []


def test_a_config_of_other_layers(store: Store, put: Callable[[bytes], Path]) -> None:
    """As many layers as the config tells of must be there."""
    members = docker_archive(["lab:1"])
    entry = json.loads(members["manifest.json"])[0]
    entry["Layers"].pop()
    members["manifest.json"] = json.dumps([entry]).encode()
    with pytest.raises(ImageError, match=r"tells of 2 layers, manifest.json of 1"):
        load.load(put(tar(members)), store=store)


def test_a_layer_that_is_refused(store: Store, put: Callable[[bytes], Path]) -> None:
    """A layer that can't be unpacked safely leaves no image behind."""
    evil = tar({"../out": b"1\n"})
    with pytest.raises(ImageError, match=r"\.\."):
        load.load(put(tar(docker_archive(["lab:1"], (LAYERS[0], evil)))), store=store)
    assert store.images() == []
    assert [name for name in left(store) if not name.endswith(".lock")] == []


def test_what_is_there_already(store: Store, put: Callable[[bytes], Path]) -> None:
    """A second load copies nothing, and moves the name."""
    path = put(tar(docker_archive(["lab:1"])))
    load.load(path, store=store)
    events: list[Event] = []
    load.load(path, store=store, progress=events.append)
    assert {event.note for event in events} == {"already here"}
    other = docker_archive(["lab:1"], LAYERS[:1])
    (image,) = load.load(put(tar(other)), store=store)
    assert [made.names for made in store.images() if made.id != image.id] == [()]


def test_an_image_kept_in_other_bytes(store: Store, put: Callable[[bytes], Path]) -> None:
    """An image that is here with compressed layers is the same image when Docker's plain ones come."""
    layers = [store.add_layer(io.BytesIO(layer)) for layer in LAYERS]
    first = store.make_image({"os": "linux"}, layers, name="lab:1")
    plain = docker_archive(["lab:2"])
    made = Path(store.blob_path(first.id)).read_bytes()
    entry = json.loads(plain["manifest.json"])[0]
    plain[entry["Config"]] = made
    (image,) = load.load(put(tar(plain)), store=store)
    assert (image.id, image.manifest.digest) == (first.id, first.manifest.digest)
    assert image.names == ("lab:1", "lab:2")
    assert len(store.images()) == 1
    assert not store.has(digest(LAYERS[0]))


def test_interrupted_and_gone_on_with(store: Store, put: Callable[[bytes], Path]) -> None:
    """An interrupt leaves no image; a second load goes on in the layer where the first broke off."""
    large = tar({"a": os.urandom(5 << 20)})
    path = put(tar(docker_archive(["lab:1"], (LAYERS[0], large))))

    def interrupt(event: Event) -> None:
        if event.kind == "download" and event.done_bytes > 2 << 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load.load(path, store=store, progress=interrupt)
    assert store.images() == []
    assert left(store) == [f"tmp/{digest(large)[7:]}.partial"]
    events: list[Event] = []
    (image,) = load.load(path, store=store, progress=events.append)
    ours = [e for e in events if e.kind == "download" and e.layer == digest(large)[7:19]]
    assert ours[0].done_bytes > 3 << 20
    assert store.layer_dir(image.layers[1].diff_id) is not None


# ------------------------------------------------------------------------------------------ OCI's


def test_names_of_oci_archives(store: Store, put: Callable[[bytes], Path]) -> None:
    """Docker's name counts, then a ref.name that is one; a mere tag is the archive's own name's."""
    blobs: Members = {}
    entries = [oci_image(blobs, LAYERS[0], Env=[f"N={number}"]) for number in range(4)]
    for entry, notes in zip(
        entries,
        (
            {"io.containerd.image.name": "docker.io/library/lab:1", contents.REF_NAME: "1"},
            {contents.REF_NAME: "localhost:5000/lab:2"},
            {contents.REF_NAME: "latest"},
            {},
        ),
        strict=True,
    ):
        entry["annotations"] = notes
    images = load.load(put(tar(oci_archive(blobs, *entries))), store=store)
    assert [image.names for image in images] == [
        ("lab:1",), ("localhost:5000/lab:2",), ("archive:latest",), (),
    ]  # fmt: skip


def test_a_name_for_the_only_one(store: Store, put: Callable[[bytes], Path]) -> None:
    """A name of one's own takes the place of the archive's, where it has one image."""
    blobs: Members = {}
    one, two = (oci_image(blobs, LAYERS[0], Env=[f"N={number}"]) for number in range(2))
    path = put(tar(oci_archive(blobs, one)))
    assert load.load(path, store=store, name="mine:7")[0].names == ("mine:7",)
    path = put(tar(oci_archive(blobs, one, two)))
    with pytest.raises(SpecError, match="has 2 images: which is to be mine"):
        load.load(path, store=store, name="mine")
    with pytest.raises(SpecError, match="can't be a part"):
        load.load(path, store=store, name="Mine")


def test_a_name_that_is_none(store: Store, put: Callable[[bytes], Path]) -> None:
    """An archive can't bring an image of the built-in one's name."""
    with pytest.raises(ImageError, match="the name 'host' is the built-in image's"):
        load.load(put(tar(docker_archive(["host:latest"]))), store=store)
    assert left(store) == []


def test_indexes_by_platform(store: Store, put: Callable[[bytes], Path]) -> None:
    """Of a nested index the image for the platform is taken; the others needn't be there."""
    blobs: Members = {}
    made = {arch: oci_image(blobs, LAYERS[0], Env=[f"ARCH={arch}"]) for arch in ("amd64", "arm64")}
    for arch, entry in made.items():
        entry["platform"] = {"os": "linux", "architecture": arch}
    attestation = oci_image({}, LAYERS[1])
    attestation["annotations"] = {"vnd.docker.reference.type": "attestation-manifest"}
    absent = {**oci_image({}, LAYERS[1]), "platform": {"os": "linux", "architecture": "s390x"}}
    inner = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media.OCI_INDEX,
            "manifests": [attestation, absent, made["arm64"], made["amd64"]],
        }
    ).encode()
    blobs[f"blobs/sha256/{digest(inner)[7:]}"] = inner
    named = {"annotations": {contents.REF_NAME: "lab:1"}}
    path = put(tar(oci_archive(blobs, described(inner, media.OCI_INDEX, **named))))
    for platform in ("linux/amd64", "arm64"):
        (image,) = load.load(path, store=store, platform=platform)
        assert image.env == (f"ARCH={platform.removeprefix('linux/')}",)
        assert image.names == ("lab:1",)
    with pytest.raises(ImageError, match=r"lab:1 isn't there for linux/s390x") as caught:
        load.load(path, store=store, platform="linux/s390x")
    assert caught.value.hint == "it is for linux/amd64, linux/arm64, linux/s390x"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda m: m.pop(blob_of(m, LAYERS[0])), "lacks sha256:"),
        (lambda m: m.__setitem__(blob_of(m, LAYERS[0]), LAYERS[1]), "has the digest"),
        (lambda m: m.__setitem__(blob_of(m, LAYERS[0]), b"short"), "has 5 bytes, not"),
        (lambda m: m.__setitem__("oci-layout", b"{}"), "of version None is not known"),
        (lambda m: m.__setitem__("index.json", b"{}"), "no list of manifests"),
        (lambda m: m.__setitem__("index.json", b'{"manifests": []}'), "has no image in it"),
        (lambda m: m.__setitem__("index.json", b'{"manifests": [{"mediaType": "x"}]}'), "no image"),
    ],
)
def test_spoilt_oci_archives(
    store: Store, put: Callable[[bytes], Path], spoil: Callable[[Members], Any], message: str
) -> None:
    """As with Docker's: one line, and nothing stays."""
    blobs: Members = {}
    members = oci_archive(blobs, oci_image(blobs, LAYERS[0]))
    spoil(members)
    with pytest.raises(ImageError, match=message):
        load.load(put(tar(members)), store=store)
    assert left(store) == []


def blob_of(members: Members, data: bytes) -> str:
    return next(name for name, content in members.items() if content == data)


def test_a_manifest_that_was_changed(store: Store, put: Callable[[bytes], Path]) -> None:
    """A manifest's digest is compared before it is believed."""
    blobs: Members = {}
    entry = oci_image(blobs, LAYERS[0])
    name = f"blobs/sha256/{entry['digest'][7:]}"
    blobs[name] = blobs[name].replace(b"schemaVersion", b"SchemaVersion")
    with pytest.raises(ImageError, match="isn't what its digest says"):
        load.load(put(tar(oci_archive(blobs, entry))), store=store)


def test_indexes_in_indexes(store: Store, put: Callable[[bytes], Path]) -> None:
    """Indexes that go on and on are not followed."""
    blobs: Members = {}
    entry = oci_image(blobs, LAYERS[0])
    for _ in range(6):
        inner = json.dumps({"mediaType": media.OCI_INDEX, "manifests": [entry]}).encode()
        blobs[f"blobs/sha256/{digest(inner)[7:]}"] = inner
        entry = described(inner, media.OCI_INDEX)
    with pytest.raises(ImageError, match="indexes within indexes"):
        load.load(put(tar(oci_archive(blobs, entry))), store=store)


# ---------------------------------------------------------------------------------------- tars


def test_what_is_no_archive(store: Store, put: Callable[[bytes], Path], tmp_path: Path) -> None:
    """No file, no tar, a tar cut off, a damaged stream, a tar of something else: each told in a line."""
    whole = tar(docker_archive(["lab:1"]))
    with pytest.raises(SpecError, match="can't be opened: No such file"):
        load.load(tmp_path / "nowhere", store=store)
    for data in (b"no tar at all" * 100, whole[:9000], gzip.compress(whole)[:-300], b""):
        with pytest.raises(ImageError):
            load.load(put(data), store=store)
    with pytest.raises(ImageError) as caught:
        load.load(put(tar({"etc/passwd": b""})), store=store)
    assert caught.value.hint == "a tar of a root filesystem: import"
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ImageError, match=r"neither manifest.json nor index.json"):
        load.load(tmp_path / "nothing", store=store)
    assert left(store) == []


def test_names_are_only_compared(tmp_path: Path) -> None:
    """Absolute and climbing names, links in circles: an index of names, and nothing is opened."""
    path = tmp_path / "x.tar"
    path.write_bytes(
        tar(
            {"/etc/shadow": b"1", "./a/../b": b"22", "../../c": b"333", "loop": "loop", "l": "./b"},
            format=tarfile.PAX_FORMAT,
        )
    )
    with path.open("rb") as file:
        index = tarindex.read(file, "x")
        assert {name: member.size for name, member in index.members.items()} == {
            "etc/shadow": 1, "b": 2, "../../c": 3,
        }  # fmt: skip
        assert index.find("loop") is None
        assert index.find("l") == index.members["b"]


def test_a_layouts_links_stay_inside(tmp_path: Path) -> None:
    """A blob of a layout that is a link to another place is none; one that is a fifo blocks nobody."""
    (tmp_path / "secret").write_text("secret")
    layout = tmp_path / "layout"
    layout.mkdir()
    (layout / "out").symlink_to("../secret")
    (layout / "absolute").symlink_to(tmp_path / "secret")
    (layout / "in").symlink_to("real")
    (layout / "real").write_text("1234")
    os.mkfifo(layout / "fifo")
    with source.opened(layout, str(tmp_path)) as parts:
        sizes = [parts.size(name) for name in ("out", "absolute", "in", "fifo", "../secret")]
    assert sizes == [None, None, 4, None, None]
