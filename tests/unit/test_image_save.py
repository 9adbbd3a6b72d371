"""save, import and export: what is written, and what never is."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import pty
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nscontainer.errors import HostError, ImageError, NotFoundError, SpecError
from nscontainer.image.archives import load, rootfs, save
from nscontainer.image.records import Image
from nscontainer.image.store import Store
from tests.unit.archives_made import (
    LAYERS,
    docker_archive,
    left,
    tar,
)


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
