"""The image store: what is put in comes out, under its names, and what is damaged is said to be."""

from __future__ import annotations

import io
import json
import os
import stat
import time
from pathlib import Path

import pytest

from nscontainer.errors import ImageError, LayerError, NotFoundError, SpecError, StateError
from nscontainer.image import digest as digests
from nscontainer.image import media, records
from nscontainer.image.progress import Event
from nscontainer.image.store import Descriptor, Image, Layer, Store
from tests.images import tars

TAR = tars.whole(tars.directory(b"d"), tars.file(b"d/a", b"content"))


def make(store: Store, name: str | None, text: bytes = b"1", **config: object) -> Image:
    layer = store.add_layer(io.BytesIO(tars.whole(tars.file(b"a", text))))
    return store.make_image({"architecture": "amd64", "os": "linux", **config}, [layer], name=name)


def container(store: Store, image: Image, name: str = "lab") -> Path:
    """A container's state file, as the engine writes it."""
    there = Path(store.root).parent / "containers" / "0123456789ab"
    there.mkdir(parents=True)
    keys = [layer.key for layer in image.layers]
    state = {"name": name, "image_id": image.id, "layers": keys}
    (there / "state.json").write_text(json.dumps(state))
    return there / "state.json"


def blobs(store: Store) -> set[str]:
    return {f"sha256:{name}" for name in os.listdir(f"{store.root}/blobs/sha256")}


# --- the layout -----------------------------------------------------------------------------------


def test_it_is_an_oci_image_layout(store: Store) -> None:
    """The files are those of the OCI image-spec, with OCI's media types alone, and ours alone."""
    image = make(store, "lab:1")
    root = Path(store.root)
    assert json.loads((root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((root / "index.json").read_text())
    (entry,) = index["manifests"]
    assert index["schemaVersion"] == 2
    assert entry["mediaType"] == media.OCI_MANIFEST
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "lab:1"}
    manifest = json.loads(store.read_blob(image.manifest))
    assert manifest["config"]["mediaType"] == media.OCI_CONFIG
    assert manifest["layers"][0]["mediaType"] == media.OCI_LAYER_GZIP
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_a_layer_refused_while_it_is_still_read_is_not_called_damaged(store: Store) -> None:
    """Whether the blob is whole is looked at apart from the reading ahead, which goes on meanwhile."""
    evil = tars.whole(tars.file(b"../evil", b"x"), tars.file(b"a", os.urandom(7 << 20)))
    layer = store.add_layer(io.BytesIO(evil))
    for _ in range(10):
        with pytest.raises(LayerError, match=r"is refused: \.\./evil"):
            store.unpack_layer(layer)


def test_a_store_of_others_is_refused(tmp_path: Path) -> None:
    """A store that others may write to isn't trusted."""
    Store(str(tmp_path / "images"))
    (tmp_path / "images").chmod(0o777)
    with pytest.raises(Exception, match="not ours alone"):
        Store(str(tmp_path / "images"))


def test_the_image_says_what_its_config_says(store: Store) -> None:
    """Everything a run needs of an image's config can be read, and what isn't there is empty."""
    config = {
        "Env": ["A=1", "B=2"], "Entrypoint": ["/init"], "Cmd": ["sh"], "User": "1:2",
        "WorkingDir": "/w", "Labels": {"org.nscontainer.base": "host"}, "Volumes": {"/v": {}, "/a": {}},
        "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGINT",
    }  # fmt: skip
    image = make(store, "lab", config=config, created="2024-01-02T03:04:05.123456789Z")
    assert (image.architecture, image.os, image.on_host) == ("amd64", "linux", True)
    assert (image.env, image.entrypoint, image.cmd) == (("A=1", "B=2"), ("/init",), ("sh",))
    assert (image.user, image.workdir, image.stop_signal) == ("1:2", "/w", "SIGINT")
    assert (image.volumes, image.exposed_ports) == (("/a", "/v"), ("80/tcp",))
    assert image.created is not None
    assert image.created.isoformat() == "2024-01-02T03:04:05.123456+00:00"
    assert image.size == image.layers[0].descriptor.size
    bare = make(store, "bare", b"2", created=5, config=None)
    assert (bare.env, bare.cmd, bare.user, bare.labels, bare.created) == ((), (), "", {}, None)
    assert not bare.on_host


def test_images_of_no_layers(store: Store) -> None:
    """An image of no layers is one (a commit of an untouched container on the host's image)."""
    image = store.make_image({"os": "linux"}, [], name="nothing")
    assert store.unpack(image) == []
    assert store.get("nothing").layers == ()


# --- blobs ----------------------------------------------------------------------------------------


def test_a_broken_off_blob_is_gone_on_with(store: Store) -> None:
    """What was written stays when a writer is left without commit, and is hashed again by the next."""
    data = os.urandom(3 << 20)
    digest = digests.of(data)
    with store.writer(digest, len(data)) as writer:
        writer.write(data[: 1 << 20])
    assert not store.has(digest)
    with store.writer(digest, len(data)) as writer:
        assert writer.offset == 1 << 20
        writer.write(data[1 << 20 :])
        assert writer.commit() == (digest, len(data))
    assert Path(store.blob_path(digest)).read_bytes() == data
    with store.writer(digest, len(data)) as writer:
        assert (writer.offset, writer.complete) == (len(data), True)
        assert writer.commit() == (digest, len(data))
    assert os.listdir(f"{store.root}/tmp") == []


def test_a_blob_that_is_not_what_it_should_be(store: Store) -> None:
    """A blob that is longer, shorter or another than announced is no blob, and it's said how."""
    data = b"x" * 1000
    with store.writer(digests.of(data), 1000) as writer:
        writer.write(data[:-1])
        with pytest.raises(ImageError, match="ended after 999 of 1000 bytes"):
            writer.commit()
    with store.writer(digests.of(data), 1000) as writer:
        assert writer.offset == 999
        with pytest.raises(ImageError, match="longer than the 1000 bytes"):
            writer.write(b"xx")
    with store.writer(digests.of(data), 1000) as writer:
        assert writer.offset == 0, "what was wrong is of no use"
        writer.write(b"y" * 1000)
        with pytest.raises(ImageError, match="has the digest sha256:"):
            writer.commit()
    with store.writer(digests.of(data), 1000) as writer:
        writer.write(b"y" * 500)
        writer.restart()
        writer.write(data)
        writer.commit()
    assert store.has(digests.of(data))
    assert os.listdir(f"{store.root}/tmp") == []


def test_a_blob_without_a_digest_leaves_nothing_when_given_up(store: Store) -> None:
    """Of a writer that was to find out the digest, nothing stays without commit."""
    with store.writer() as writer:
        writer.write(b"half")
        assert len(os.listdir(f"{store.root}/tmp")) == 1
    assert os.listdir(f"{store.root}/tmp") == []
    with store.writer() as writer:
        writer.write(b"whole")
        assert writer.commit() == (digests.of(b"whole"), 5)
    assert blobs(store) == {digests.of(b"whole")}


def test_a_damaged_blob_is_found_on_every_reading(store: Store) -> None:
    """A byte changed on the disk is found, the blob named, and the way to mend it."""
    digest = store.put(b'{"a": 1}')
    blob = Descriptor("x", digest, 8)
    assert store.read_blob(blob) == b'{"a": 1}'
    Path(store.blob_path(digest)).write_bytes(b'{"a": 2}')
    with pytest.raises(ImageError, match=f"{digest} is damaged") as caught:
        store.read_blob(blob)
    assert "rmi" in str(caught.value.hint)
    Path(store.blob_path(digest)).write_bytes(b'{"a": 2')
    with pytest.raises(ImageError, match="7 bytes instead of 8"):
        store.open_blob(blob)
    Path(store.blob_path(digest)).unlink()
    with pytest.raises(ImageError, match="is not in the store"):
        store.open_blob(blob)
    with pytest.raises(ImageError, match="at most 4 are read"):
        store.read_blob(blob, 4)


# --- layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gzip", "zstd", "none"])
def test_a_layer_is_added_and_unpacked(store: Store, kind: str) -> None:
    """One pass gives diffID and digest, the same tar the same ones, and unpacking gives the tree."""
    layer = store.add_layer(io.BytesIO(TAR), kind)
    assert layer.diff_id == digests.of(TAR)
    assert layer == store.add_layer(lambda sink: sink.write(TAR), kind)
    assert layer.descriptor.digest in blobs(store)
    image = store.make_image({}, [layer], name="lab")
    assert store.layer_dir(layer.diff_id) is None
    events: list[Event] = []
    (key,) = store.unpack(image, events.append)
    assert key == layer.key == layer.diff_id[7:31]
    there = store.layer_dir(layer.diff_id)
    assert there is not None
    assert Path(there, "d/a").read_bytes() == b"content"
    assert events[-1].kind == "unpack"
    assert events[-1].done_bytes == layer.descriptor.size
    facts = store.layer_facts(layer.diff_id)
    assert facts is not None
    assert (facts["entries"], facts["bytes"]) == (2, 7)
    before = Path(there).stat().st_ino
    assert store.unpack(image) == [key]
    assert Path(there).stat().st_ino == before, "a layer is unpacked once"


def test_a_layer_that_fails_while_it_is_written_leaves_nothing(store: Store) -> None:
    """Where the writer of a tar fails, its error comes through and nothing stays."""

    def fail(sink: object) -> None:
        sink.write(TAR[:100])  # type: ignore[attr-defined]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.add_layer(fail)
    with pytest.raises(SpecError, match="lzma"):
        store.add_layer(io.BytesIO(TAR), "lzma")
    assert blobs(store) == set()
    assert os.listdir(f"{store.root}/tmp") == []


def test_a_refused_layer_leaves_nothing(store: Store) -> None:
    """An evil layer is refused with one line that names layer and entry, and no directory stays."""
    layer = store.add_layer(io.BytesIO(tars.whole(tars.file(b"fine"), tars.file(b"../evil"))))
    image = store.make_image({}, [layer], name="evil")
    with pytest.raises(LayerError, match=r"layer [0-9a-f]{12} is refused: \.\./evil") as caught:
        store.unpack(image)
    assert caught.value.entry == "../evil"
    left = [name for name in os.listdir(f"{store.root}/layers") if not name.endswith(".lock")]
    assert left == []
    assert store.layer_dir(layer.diff_id) is None


def test_one_bad_layer_among_many(store: Store) -> None:
    """With layers unpacked side by side, the failure of one is raised, and the good ones can stay."""
    good = [
        store.add_layer(io.BytesIO(tars.whole(tars.file(b"%d" % n, os.urandom(100_000)))))
        for n in range(6)
    ]
    bad = store.add_layer(io.BytesIO(tars.whole(tars.file(b"../evil"))))
    image = store.make_image({}, [*good[:3], bad, *good[3:]], name="evil")
    with pytest.raises(LayerError, match="evil"):
        store.unpack(image)
    assert not [name for name in os.listdir(f"{store.root}/layers") if name.startswith(".new")]
    fine = store.make_image({}, good, name="fine")
    assert store.unpack(fine) == [layer.key for layer in good]


def test_the_same_layer_twice_in_an_image(store: Store) -> None:
    """An image may have a layer twice: it is unpacked once and named twice."""
    layer = store.add_layer(io.BytesIO(TAR))
    image = store.make_image({}, [layer, layer], name="twice")
    assert store.unpack(image) == [layer.key, layer.key]


def _break(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x55
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("where", [0, 2, 20, 600, -1500, -3])
def test_a_damaged_layer_blob_is_named_at_unpacking(store: Store, kind: str, where: int) -> None:
    """A flipped byte, wherever it is, is said to be damage of that blob, with how to mend it."""
    tar = tars.whole(tars.file(b"a", os.urandom(4000)), tars.file(b"b", os.urandom(4000)))
    layer = store.add_layer(io.BytesIO(tar), kind)
    image = store.make_image({}, [layer], name="lab")
    _break(Path(store.blob_path(layer.descriptor.digest)), where)
    with pytest.raises(
        ImageError, match=f"the blob {layer.descriptor.digest} is damaged"
    ) as caught:
        store.unpack(image)
    assert "rmi" in str(caught.value.hint)
    assert store.layer_dir(layer.diff_id) is None
    store.remove("lab")
    assert blobs(store) == set()


def test_a_layer_of_another_diff_id(store: Store) -> None:
    """A config that names another diffID than its layer has is found when that is unpacked."""
    layer = store.add_layer(io.BytesIO(TAR))
    lie = Layer(layer.descriptor, digests.of(b"another"))
    with pytest.raises(ImageError, match="is not the one the image names"):
        store.unpack(store.make_image({}, [lie], name="lab"))
    assert store.layer_dir(lie.diff_id) is None


def test_a_layer_of_another_boot_is_unpacked_anew(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may not have reached the disk before a crash isn't trusted; what has been there a while is."""
    image = make(store, "lab")
    layer = image.layers[0]
    store.unpack(image)
    there = Path(store.root, "layers", layer.key)
    monkeypatch.setattr("nscontainer.linux.procfs.boot_id", lambda: "another")
    assert store.layer_dir(layer.diff_id) is None
    (there / "a").write_bytes(b"")  # as after a crash
    store.unpack(image)
    assert (there / "a").read_bytes() == b"1"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 100)
    store.unpack(image)
    monkeypatch.setattr("nscontainer.linux.procfs.boot_id", lambda: "a third")
    assert store.layer_dir(layer.diff_id) == str(there)


# --- names ----------------------------------------------------------------------------------------


def test_found_by_name_id_and_digest(store: Store) -> None:
    """An image is found by each of its names, its id, four digits of it, and its manifest's digest."""
    image = make(store, "docker.io/library/lab:1")
    other = make(store, "ghcr.io/org/tool", b"2")
    store.tag("lab:1", "mine/lab")
    for ref in (
        "lab:1", "library/lab:1", "docker.io/lab:1", "mine/lab", image.id, image.id[7:], image.id[7:11],
        image.id[:12], image.manifest.digest, f"lab@{image.manifest.digest}",
        f"lab:1@{image.manifest.digest}",
    ):  # fmt: skip
        found = store.get(ref)
        assert (found.id, found.names) == (image.id, ("lab:1", "mine/lab:latest")), ref
    assert store.get("ghcr.io/org/tool").id == other.id
    assert {found.id for found in store.images()} == {image.id, other.id}


@pytest.mark.parametrize("ref", ["", "lab:2", "LAB:1", "abc", "0" * 64, "sha256:" + "0" * 64, "sha256:",
                                 "tool", "lab@sha256:" + "0" * 64, "a b", "ä", "\0"])  # fmt: skip
def test_not_found(store: Store, ref: str) -> None:
    """What isn't there is one clear line with a hint, whatever was asked for."""
    make(store, "lab:1")
    with pytest.raises(NotFoundError) as caught:
        store.get(ref)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_close_names_are_told(store: Store) -> None:
    """A wrong tag is answered with those that are there."""
    make(store, "python:3.12")
    with pytest.raises(
        NotFoundError, match=r"no image 'python:3.13'; there is python:3.12"
    ) as caught:
        store.get("python:3.13")
    assert "pull python:3.13" in str(caught.value.hint)


def test_a_name_moves(store: Store) -> None:
    """A name given to another image is that one's, and the first stays without."""
    first = make(store, "lab")
    second = make(store, "lab", b"2")
    assert store.get("lab").id == second.id
    assert store.get(first.id).names == ()
    store.tag(first.id, "lab")
    assert store.get("lab").id == first.id
    assert store.get(second.id).names == ()
    store.tag(second.id, "other")
    assert store.get(second.id).names == ("other:latest",)
    listed = json.loads(Path(store.root, "index.json").read_text())["manifests"]
    assert len(listed) == 2


def test_a_name_to_give_has_no_digest_and_is_not_host(store: Store) -> None:
    """Bad names are refused before anything is changed."""
    image = make(store, "lab")
    for bad in (f"a@{image.manifest.digest}", "host", "A", ""):
        with pytest.raises(SpecError):
            store.tag("lab", bad)
    for bad in ("host", "A", ""):
        with pytest.raises(SpecError):
            make(store, bad, b"2")
    with pytest.raises(NotFoundError):
        store.tag("nothing", "x")
    with pytest.raises(NotFoundError, match="this machine's own system"):
        store.get("host")
    assert store.get("lab").names == ("lab:latest",)


def test_the_same_image_twice_is_one(store: Store) -> None:
    """Making an image again under another name gives it a name more."""
    make(store, "a")
    image = make(store, "b")
    assert image.names == ("a:latest", "b:latest")
    assert make(store, None).names == image.names
    assert len(store.images()) == 1


# --- manifests of others --------------------------------------------------------------------------


def docker_manifest(store: Store, **changes: object) -> bytes:
    layer = store.add_layer(io.BytesIO(TAR))
    config = {"os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]}}
    data = json.dumps(config).encode()
    part = layer.descriptor
    manifest = {
        "schemaVersion": 2,
        "mediaType": media.DOCKER_MANIFEST,
        "config": {"mediaType": media.DOCKER_CONFIG, "digest": store.put(data), "size": len(data)},
        "layers": [
            {"mediaType": media.DOCKER_LAYER_GZIP, "digest": part.digest, "size": part.size}
        ],
    }
    return json.dumps(manifest | changes).encode()


def test_docker_manifests_are_converted(store: Store) -> None:
    """Docker's schema 2 becomes OCI's, with the same config and so the same id, the digest kept."""
    manifest = docker_manifest(store)
    digest = digests.of(manifest)
    image = store.add_manifest(
        manifest, media.DOCKER_MANIFEST, name="python:3", source_digest=digest
    )
    assert image.manifest.digest != digest
    assert image.repo_digests == (f"python@{digest}",)
    assert image.manifest.annotations["org.nscontainer.original-digest"] == digest
    assert json.loads(store.read_blob(image.manifest))["mediaType"] == media.OCI_MANIFEST
    assert image.layers[0].descriptor.media_type == media.OCI_LAYER_GZIP
    assert store.get(f"python@{digest}").id == image.id
    store.unpack(image)
    make(store, "python:3", b"2")
    assert store.get(f"python:3@{digest}").id == image.id, "still known by its digest"


def test_oci_manifests_are_kept_to_the_byte(store: Store) -> None:
    """A manifest of OCI's keeps its digest, odd spaces and unknown fields included."""
    image = make(store, "lab")
    manifest = store.read_blob(image.manifest).replace(b"{", b'{ "x":1,', 1)
    other = store.add_manifest(manifest, media.OCI_MANIFEST, name="odd")
    assert other.manifest.digest == digests.of(manifest)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schemaVersion": 1}, "of a kind not done"),
        ({"mediaType": media.DOCKER_LIST}, "a list of manifests"),
        ({"mediaType": "text/plain"}, "of a kind not done: 'text/plain'"),
        ({"config": None}, "no config"),
        ({"config": {"mediaType": "application/vnd.cncf.helm.config.v1+json"}}, "no container image"),
        ({"layers": "x"}, "no layers"),
        ({"layers": [7]}, "a layer of a kind not done"),
        ({"layers": [{"mediaType": "application/x"}]}, "a layer of a kind not done"),
        ({"layers": [{"mediaType": media.OCI_LAYER, "digest": "md5:1", "size": 1}]}, "no digest"),
        ({"layers": [{"mediaType": media.OCI_LAYER, "digest": "sha512:" + "0" * 128, "size": 1}]}, "not of sha256"),
        ({"layers": [{"mediaType": media.OCI_LAYER, "digest": "sha256:" + "0" * 64, "size": -1}]}, "size is -1"),
        ({"layers": [{"mediaType": media.OCI_LAYER, "digest": "sha256:" + "0" * 64, "size": 1}]}, "not in the store"),
        ({"layers": []}, "names 1 layers, its manifest 0"),
    ],
)  # fmt: skip
def test_manifests_that_are_refused(store: Store, changes: dict[str, object], words: str) -> None:
    """What is no image, or not all here, is refused in one line and no image comes of it."""
    with pytest.raises(ImageError, match=words):
        store.add_manifest(docker_manifest(store, **changes), media.DOCKER_MANIFEST, name="bad")
    assert store.images() == []


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b"null"])
def test_a_manifest_that_is_no_json(store: Store, data: bytes) -> None:
    """Neither is what is no JSON object."""
    with pytest.raises(ImageError, match="no JSON object"):
        store.add_manifest(data, media.OCI_MANIFEST, name="bad")


def test_others_entries_in_the_index_are_kept(store: Store) -> None:
    """What another program has put into the index stays there, and is not taken for an image of ours."""
    make(store, "lab")
    path = Path(store.root, "index.json")
    index = json.loads(path.read_text())
    data = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    foreign = {
        "mediaType": media.OCI_INDEX, "digest": store.put(data), "size": len(data),
        "annotations": {"org.opencontainers.image.ref.name": "Not Ours", "x": "y"},
    }  # fmt: skip
    index["manifests"].append(foreign)
    index["annotations"] = {"a": "b"}
    path.write_text(json.dumps(index))
    store.tag("lab", "more")
    store.prune()
    after = json.loads(path.read_text())
    assert foreign in after["manifests"]
    assert after["annotations"] == {"a": "b"}
    assert store.has(foreign["digest"])  # type: ignore[arg-type]
    assert len(store.images()) == 1


def test_lists_that_name_each_other_many_times_over(store: Store) -> None:
    """A sweep reads each list once, not once for every way that leads to it: here 10^8."""
    with store.holding():
        image = make(store, "lab")
        inner = [image.manifest] * 100
        for _ in range(4):
            listed = [{**one.to_json(), "annotations": {}} for one in inner]
            data = media.encode({"schemaVersion": 2, "manifests": listed})
            inner = [Descriptor(media.OCI_INDEX, store.put(data), len(data))] * 100
        path = Path(store.root, "index.json")
        index = json.loads(path.read_text())
        index["manifests"] += [inner[0].to_json()]
        path.write_text(json.dumps(index))
    kept = blobs(store)
    store.sweep()
    assert blobs(store) == kept


def test_a_damaged_index_is_said_to_be(store: Store) -> None:
    """An index that can't be read is one clear error."""
    Path(store.root, "index.json").write_text("{")
    with pytest.raises(ImageError, match=r"index\.json is no JSON object"):
        store.images()


# --- removal --------------------------------------------------------------------------------------


def test_removal_frees_what_nothing_else_names(store: Store) -> None:
    """A name goes alone while there are others; with the last go the image, its blobs and its layer."""
    shared = store.add_layer(io.BytesIO(TAR))
    own = store.add_layer(io.BytesIO(tars.whole(tars.file(b"own"))))
    first = store.make_image({}, [shared, own], name="first")
    second = store.make_image({}, [shared], name="second")
    store.unpack(first)
    store.tag("first", "alias")
    assert store.remove("first") == ["untagged: first:latest"]
    assert store.get("alias").id == first.id
    assert store.remove("alias") == [
        "untagged: alias:latest", f"deleted: {first.id}", f"deleted: {own.diff_id}",
    ]  # fmt: skip
    assert store.layer_dir(own.diff_id) is None
    assert store.layer_dir(shared.diff_id) is not None
    assert blobs(store) == {second.id, second.manifest.digest, shared.descriptor.digest}
    assert sorted(os.listdir(f"{store.root}/layers")) == [shared.key, f"{shared.key}.json"]


def test_by_id_with_several_names_takes_force(store: Store) -> None:
    """An id with several names isn't removed without force, as in Docker."""
    image = make(store, "a")
    store.tag("a", "b")
    with pytest.raises(StateError, match="several names: a:latest, b:latest"):
        store.remove(image.id)
    lines = store.remove(image.id[7:19], force=True)
    assert lines[:3] == ["untagged: a:latest", "untagged: b:latest", f"deleted: {image.id}"]
    assert blobs(store) == set()


def test_images_of_containers_stay(store: Store) -> None:
    """What a container stands on isn't removed; by force it loses its name, and goes after the container."""
    image = make(store, "lab")
    store.unpack(image)
    store.tag("lab", "alias")
    state = container(store, image)
    assert store.remove("alias") == ["untagged: alias:latest"]
    with pytest.raises(StateError, match="in use by container lab"):
        store.remove("lab")
    assert store.remove("lab", force=True) == ["untagged: lab:latest"]
    assert store.get(image.id).names == ()
    assert store.prune(all=True).removed == ()
    assert store.layer_dir(image.layers[0].diff_id) is not None
    assert blobs(store) == {image.id, image.manifest.digest, image.layers[0].descriptor.digest}
    (images, layers, _) = store.usage()
    assert (images.active, layers.active, layers.reclaimable_bytes) == (1, 1, 0)
    state.unlink()
    pruned = store.prune()
    assert pruned.removed == (image.id,)
    assert pruned.freed_bytes > 0
    assert blobs(store) == set()
    assert os.listdir(f"{store.root}/layers") == []


def test_a_registrys_digest_is_forgotten_and_the_names_stay(store: Store) -> None:
    """As in Docker: who removes ``repository@digest`` keeps the image under its own names."""
    image = make(store, "lab:1")
    data, known = store.read_blob(image.manifest), f"reg.example/lab@{image.manifest.digest}"
    for repository in ("reg.example/lab", "reg.example/other"):
        name = f"{repository}@{image.manifest.digest}"
        digest = image.manifest.digest
        store.add_manifest(data, media.OCI_MANIFEST, name=name, source_digest=digest)
    store.tag(known, "mine")
    assert store.remove(known) == [f"untagged: {known}"]
    found = store.get("mine")
    assert found.names == ("lab:1", "mine:latest")
    assert found.repo_digests == (f"reg.example/other@{image.manifest.digest}",)
    with pytest.raises(NotFoundError):
        store.get(known)
    store.remove(image.id, force=True)
    assert store.images() == []


def test_an_image_removed_while_a_container_was_born_stays(store: Store) -> None:
    """A birth that had found the image before it was removed keeps it: the sweep puts it back, nameless."""
    image = make(store, "lab")
    with store.holding():  # the birth
        assert store.remove("lab")[0] == "untagged: lab:latest"
        assert store.images() == []
        state = container(store, image)
    assert store.prune(all=True).removed == ()
    assert store.get(image.id).names == ()
    assert len(blobs(store)) == 3
    state.unlink()
    store.prune()
    assert blobs(store) == set()


def test_nothing_is_swept_from_under_one_who_adds(store: Store) -> None:
    """While somebody holds the store, blobs that nothing names yet stay; the next removal frees them."""
    make(store, "old")
    with store.holding():
        digest = store.put(b"not named yet")
        store.remove("old")
        assert store.has(digest)
        assert len(blobs(store)) == 4
    make(store, "new", b"2")
    store.remove("new")
    assert blobs(store) == set()


def test_prune(store: Store) -> None:
    """Nameless images and broken-off pulls go; with ``all`` every image that no container stands on."""
    first = make(store, "lab")
    make(store, "lab", b"2")
    make(store, "kept", b"3")
    with store.writer(digests.of(b"x"), 1000) as writer:
        writer.write(b"y" * 500)
    assert store.usage()[2].size_bytes == 500
    store.remove("kept")
    assert store.usage()[2].size_bytes == 500, "a removal keeps what a pull can go on with"
    pruned = store.prune()
    assert pruned.removed == (first.id,)
    assert pruned.freed_bytes > 500
    assert store.usage()[2].size_bytes == 0
    assert store.prune(all=True).removed == ("lab:latest",)
    assert blobs(store) == set()


def test_a_damaged_image_can_be_removed(store: Store) -> None:
    """An image that lacks its config, or its manifest, is left out of the list and can be removed."""
    for lost in ("config", "manifest"):
        image = make(store, "lab")
        make(store, "fine", b"2")
        Path(store.blob_path(image.id if lost == "config" else image.manifest.digest)).unlink()
        assert [found.names for found in store.images()] == [("fine:latest",)]
        with pytest.raises(ImageError, match="is not in the store") as caught:
            store.get("lab")
        assert "rmi" in str(caught.value.hint)
        assert store.remove("lab")[0] == "untagged: lab:latest"
        assert len(store.images()) == 1
        store.remove("fine")
        assert blobs(store) == set()


def test_what_killed_programs_left_is_swept(store: Store) -> None:
    """Temporary files and half-unpacked layers go with the next removal."""
    make(store, "lab")
    top = Path(store.root)
    (top / "tmp" / "new-1234").write_bytes(b"half")
    (top / "layers" / ".new-abc" / "deep").mkdir(parents=True)
    (top / "layers" / ".old-abc").mkdir()
    (top / "layers" / ("0" * 24)).mkdir()
    (top / "layers" / ("0" * 24 + ".json")).write_text("{}")
    os.symlink("/etc", top / "layers" / ".old-abc" / "work")
    store.remove("lab")
    assert os.listdir(top / "tmp") == []
    assert os.listdir(top / "layers") == []


def test_hostile_layers_are_removed_without_following_links(store: Store, tmp_path: Path) -> None:
    """The removal of a layer touches nothing that its links lead to."""
    outside = tmp_path / "outside"
    (outside / "work" / "incompat" / "volatile").mkdir(parents=True)
    (outside / "work" / "incompat" / "volatile" / "dirty").write_text("canary")
    target = os.fsencode(outside)
    tar = tars.whole(
        tars.symlink(b"work", target), tars.symlink(b"work0", target), tars.symlink(b"upper", target),
        tars.symlink(b"d/link", target), tars.directory(b"closed", 0), tars.file(b"closed/x"),
    )  # fmt: skip
    image = store.make_image({}, [store.add_layer(io.BytesIO(tar))], name="evil")
    store.unpack(image)
    store.remove("evil")
    assert os.listdir(f"{store.root}/layers") == []
    assert (outside / "work" / "incompat" / "volatile" / "dirty").read_text() == "canary"


@pytest.mark.parametrize(
    ("now_ns", "written"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_600_000_000_683_534_980, "2020-09-13T12:26:40.68353498Z"),
        (1_600_000_000_100_000_000, "2020-09-13T12:26:40.1Z"),
    ],
)
def test_times_are_written_as_go_writes_them(
    now_ns: int, written: str, monkeypatch: pytest.MonkeyPatch
):
    """Docker reads a time and writes it without zeros at its end: ours is the same text."""
    monkeypatch.setattr("time.time_ns", lambda: now_ns)
    assert records.timestamp() == written
