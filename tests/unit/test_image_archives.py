"""load, save, import and export on archives made by hand: what is taken, what is refused, what stays."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import os
import pty
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest

from nscontainer.errors import HostError, ImageError, NotFoundError, NsContainerError, SpecError
from nscontainer.image import media
from nscontainer.image.archives import contents, load, rootfs, save, source, tarindex
from nscontainer.image.progress import Event
from nscontainer.image.records import Image
from nscontainer.image.store import Store

Members = dict[str, bytes]


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar(members: Mapping[str, bytes | str], **more: Any) -> bytes:
    """A tar of files, and of symbolic links where the value is a text."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", **more) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return data.getvalue()


LAYERS = (tar({"a": b"1\n"}), tar({"b": b"2\n"}))


def config(*layers: bytes, **run: Any) -> bytes:
    rootfs_ = {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}
    return json.dumps(
        {"architecture": "amd64", "os": "linux", "config": run, "rootfs": rootfs_}
    ).encode()


def docker_archive(
    tags: list[str] | None = None, layers: tuple[bytes, ...] = LAYERS
) -> dict[str, bytes | str]:
    """The members of a ``docker save``."""
    made = config(*layers, Env=["A=1"])
    names = [f"{digest(layer)[7:]}/layer.tar" for layer in layers]
    entry = {"Config": f"{digest(made)[7:]}.json", "RepoTags": tags, "Layers": names}
    return {
        entry["Config"]: made,  # type: ignore[dict-item]
        **dict(zip(names, layers, strict=True)),
        "manifest.json": json.dumps([entry]).encode(),
    }


def described(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}


def oci_image(
    blobs: Members, *layers: bytes, kind: str = media.OCI_LAYER, **run: Any
) -> dict[str, Any]:
    """Put an image's blobs among others; give its manifest's descriptor."""
    made = config(*layers, **run)
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media.OCI_MANIFEST,
            "config": described(made, media.OCI_CONFIG),
            "layers": [described(layer, kind) for layer in layers],
        }
    ).encode()
    for data in (made, manifest, *layers):
        blobs[f"blobs/sha256/{digest(data)[7:]}"] = data
    return described(manifest, media.OCI_MANIFEST)


def oci_archive(blobs: Members, *entries: dict[str, Any]) -> Members:
    index = {"schemaVersion": 2, "manifests": [*entries]}
    return {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index).encode(),
        **blobs,
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "images"))


@pytest.fixture
def put(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "archive.tar"
        path.write_bytes(data)
        return path

    return write


def left(store: Store) -> list[str]:
    """Blobs, temporary files and layers that are in a store."""
    found = []
    for folder in ("blobs/sha256", "tmp", "layers"):
        found += [f"{folder}/{name}" for name in os.listdir(f"{store.root}/{folder}")]
    return found


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


# -------------------------------------------------------------------------------------------- save


@pytest.fixture
def two(store: Store, tmp_path: Path) -> list[Image]:
    """Two images that share a layer; the first has two names."""
    path = tmp_path / "two.tar"
    path.write_bytes(tar(docker_archive(["one:1", "one:2"])))
    (one,) = load.load(path, store=store)
    path.write_bytes(tar(docker_archive(["two:1"], LAYERS[:1])))
    (two,) = load.load(path, store=store)
    path.unlink()
    return [one, two]


@pytest.mark.parametrize("format_", ["docker", "oci"])
def test_saved_and_loaded(store: Store, two: list[Image], tmp_path: Path, format_: str) -> None:
    """What is saved is loaded with the same ids, manifests and names; shared blobs are there once."""
    save.save(["one:1", "two:1"], tmp_path / "out.tar", store=store, format=format_)
    other = Store(str(tmp_path / "other"))
    images = load.load(tmp_path / "out.tar", store=other)
    assert [image.names for image in images] == [("one:1",), ("two:1",)]
    assert [(i.id, i.manifest.digest) for i in images] == [(i.id, i.manifest.digest) for i in two]
    with tarfile.open(tmp_path / "out.tar") as archive:
        names = archive.getnames()
        assert len(names) == len(set(names))
        assert {entry.mtime for entry in archive} == {0}


def test_the_same_bytes(store: Store, two: list[Image], tmp_path: Path) -> None:
    """An archive depends on nothing but the images: written twice, and to a stream, it is the same."""
    stream = io.BytesIO()
    save.save(["one:1", "two:1"], tmp_path / "1.tar", store=store)
    save.save(["one:1", "two:1"], tmp_path / "2.tar", store=store)
    save.save(["one:1", "two:1"], stream, store=store)
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()
    assert (tmp_path / "1.tar").read_bytes() == stream.getvalue()


def test_by_name_and_by_id(store: Store, two: list[Image], tmp_path: Path) -> None:
    """By name an image is saved with that name, by id with all of them; twice named, it is there once."""
    other = Store(str(tmp_path / "other"))
    save.save(two[0].id, tmp_path / "id.tar", store=store)
    assert [i.names for i in load.load(tmp_path / "id.tar", store=other)] == [("one:1", "one:2")]
    save.save(["one:2", two[0].id[7:19]], tmp_path / "both.tar", store=store)
    assert len(load.load(tmp_path / "both.tar", store=other)) == 1


def test_a_layouts_directory(store: Store, two: list[Image], tmp_path: Path) -> None:
    """oci to a path with a slash at its end, and oci-dir, make a directory, and never touch one."""
    for path, format_ in ((f"{tmp_path}/slash/", "oci"), (f"{tmp_path}/plain", "oci-dir")):
        save.save("one:1", path, store=store, format=format_)
        assert sorted(os.listdir(path)) == ["blobs", "index.json", "oci-layout"]
        with pytest.raises(SpecError, match="is there already"):
            save.save("one:1", path, store=store, format=format_)
    with pytest.raises(SpecError, match="can't be written to a stream"):
        save.save("one:1", io.BytesIO(), store=store, format="oci-dir")


def test_a_save_that_fails(store: Store, two: list[Image], tmp_path: Path) -> None:
    """A damaged blob is found while it is written; the file that was there before stays."""
    out = tmp_path / "out.tar"
    out.write_bytes(b"before")
    path = Path(store.blob_path(two[0].layers[1].descriptor.digest))
    path.write_bytes(path.read_bytes().replace(b"2\n", b"3\n"))
    with pytest.raises(ImageError, match="is damaged: its digest is another"):
        save.save("one:1", out, store=store)
    with pytest.raises(ImageError, match="is damaged"):
        save.save("one:1", tmp_path / "layout", store=store, format="oci-dir")
    assert out.read_bytes() == b"before"
    assert sorted(os.listdir(tmp_path)) == ["images", "out.tar"]


def test_where_nothing_is_written(store: Store, two: list[Image], tmp_path: Path) -> None:
    """Not to a terminal, a directory, a place that isn't there; not what isn't there."""
    master, slave = pty.openpty()
    with (
        os.fdopen(master, "rb"),
        os.fdopen(slave, "wb") as terminal,
        pytest.raises(SpecError, match="isn't written to a terminal"),
    ):
        save.save("one:1", terminal, store=store)
    with pytest.raises(SpecError, match="is a directory"):
        save.save("one:1", tmp_path, store=store)
    with pytest.raises(HostError, match="can't be written: No such file"):
        save.save("one:1", tmp_path / "no/where.tar", store=store)
    with pytest.raises(SpecError, match="format 'zip' is unknown"):
        save.save("one:1", tmp_path / "x", store=store, format="zip")
    with pytest.raises(NotFoundError, match="no image 'three:1'"):
        save.save(["one:1", "three:1"], tmp_path / "x", store=store)
    with pytest.raises(SpecError, match="no image to save"):
        save.save([], tmp_path / "x", store=store)
    assert not (tmp_path / "x").exists()


def test_what_stands_on_the_host(store: Store, tmp_path: Path) -> None:
    """The built-in image, and what was committed on it, can't be saved; the error names export."""
    layer = store.add_layer(io.BytesIO(LAYERS[0]))
    labels = {"org.nscontainer.base": "host"}
    store.make_image({"os": "linux", "config": {"Labels": labels}}, [layer], name="mylab:1")
    for name in ("mylab:1", "host"):
        with pytest.raises(SpecError, match=r"(is|stands on) this machine's own system") as caught:
            save.save(name, tmp_path / "x.tar", store=store)
        assert "export" in str(caught.value.hint)


# ----------------------------------------------------------------------------- import and export


@pytest.mark.parametrize("squeeze", [bytes, gzip.compress, lzma.compress])
def test_import(store: Store, squeeze: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """A root filesystem's tar becomes a layer: ./ goes, the configuration is by the changes."""
    data = tar({"./etc/hostname": b"x\n", "bin/sh": "busybox", "./bin/busybox": b"ELF"})
    changes = ['CMD ["sh"]', "ENV A=1 B=two", "LABEL x=y", "WORKDIR /srv"]
    image = rootfs.import_(
        io.BytesIO(squeeze(data)), "root:1", store=store, changes=changes, message="by hand"
    )
    assert (image.cmd, image.env, image.workdir) == (("sh",), ("A=1", "B=two"), "/srv")
    assert image.history[0]["comment"] == "by hand"
    rootfs.export("root:1", tmp_path / "out.tar", store=store)
    with tarfile.open(tmp_path / "out.tar") as archive:
        assert archive.getnames() == ["bin", "bin/busybox", "bin/sh", "etc", "etc/hostname"]
    again = rootfs.import_(tmp_path / "out.tar", store=store)
    assert again.layers[0].diff_id == image.layers[0].diff_id
    assert again.names == ()


def test_import_refuses(store: Store, tmp_path: Path) -> None:
    """A tar that climbs out, or is none, makes no image and leaves nothing."""
    for data in (tar({"a/../../b": b""}), b"no tar" * 200, gzip.compress(tar({"a": b"1"}))[:-9]):
        with pytest.raises(ImageError):
            rootfs.import_(io.BytesIO(data), "root:1", store=store)
    with pytest.raises(SpecError, match="is none that changes an image"):
        rootfs.import_(io.BytesIO(LAYERS[0]), "root:1", store=store, changes=["RUN ls"])
    with pytest.raises(SpecError, match="can't be opened"):
        rootfs.import_(tmp_path / "nowhere.tar", store=store)
    assert left(store) == []


def test_a_directory_imported(store: Store, tmp_path: Path) -> None:
    """A directory is a root filesystem too."""
    top = tmp_path / "root"
    (top / "etc").mkdir(parents=True)
    (top / "etc/motd").write_text("hello\n")
    image = rootfs.import_(top, "root:1", store=store)
    rootfs.export(image.id, tmp_path / "out.tar", store=store)
    with tarfile.open(tmp_path / "out.tar") as archive:
        assert archive.getmember("etc/motd").uid == 0


def test_export_of_nothing(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is neither a container nor an image is told so, and no file is made."""
    monkeypatch.setenv("NSCONTAINER_STATE_DIR", str(tmp_path))
    with pytest.raises(NotFoundError, match="neither a container nor an image 'lab'"):
        rootfs.export("lab", tmp_path / "out.tar", store=store)
    assert sorted(os.listdir(tmp_path)) == ["images"]
