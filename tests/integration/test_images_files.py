"""Root filesystems in and out: export of real containers, and of what stands on ``host``; bootstrap."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nscontainer
from nscontainer import images, spec
from nscontainer.engine.container import Container
from nscontainer.errors import ImageError, NotFoundError, SpecError
from nscontainer.image.archives import debian, merge
from nscontainer.image.store import Store
from tests.integration import rootfs_images as made
from tests.integration.inside import ROOT, eventually, private_engine

pytestmark = [pytest.mark.root, pytest.mark.once]

BASE = (
    made.LayerTar().directory("data").file("data/one", "1").file("data/two", "2")
    .hard_link("data/one_too", "data/one").directory("data/sub", mode=0o700, uid=7)
    .file("data/sub/deep", "d").directory("keep").file("keep/file", "k").directory("mine")
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def top() -> Iterator[Path]:
    """An engine of their own, and an image of two layers."""
    with private_engine() as directory:
        made.make("base", made.busybox().bytes(), BASE.bytes(), config={"Cmd": ["sh"]})
        yield directory


def exported(what: Container | str) -> dict[str, tuple[Any, ...]]:
    """What an export has of each file: mode, owner, content or target."""
    data = io.BytesIO()
    images.export(what, data)
    data.seek(0)
    found = {}
    with tarfile.open(fileobj=data) as tar:
        for entry in tar:
            content = tar.extractfile(entry).read() if entry.isreg() else entry.linkname  # type: ignore[union-attr]
            found[entry.name] = (oct(entry.mode), entry.uid, entry.gid, content)
    return found


def test_an_image(top: Path) -> None:
    """An image's export has its layers' files, each once, hard links kept."""
    files = exported("base")
    assert files["data/one_too"][3] == "data/one"
    assert files["data/sub"][:3] == ("0o700", 7, 0)
    assert files["bin/sh"][3] == "busybox"


def test_a_container(top: Path) -> None:
    """A container's export is its image's files with its changes, and nothing of the engine's."""
    before = exported("base")
    script = """
        rm data/one; echo new > data/three; chown 1000:1001 data/three
        rm -r keep; mkdir keep; echo other > keep/new; chmod 711 data; rm -r mine; echo f > mine
    """
    with made.ended(script, workdir="/", volumes=["/etc:/made/by/mount:ro"]) as container:
        files = exported(container)
    gone = {
        "data/one",
        "data/one_too",
        "data/three",
        "data",
        "keep/file",
        "keep/new",
        "keep",
        "mine",
    }
    assert {k: v for k, v in files.items() if k not in gone} == {
        k: v for k, v in before.items() if k not in gone
    }
    assert files["data/three"] == ("0o644", 1000, 1001, b"new\n")
    assert files["data/one_too"][3] == b"1"
    assert files["data"][0] == "0o711"
    assert files["mine"][3] == b"f\n"
    assert "keep/file" not in files
    assert files["keep/new"][3] == b"other\n"
    assert files.keys() - before.keys() == {"data/three", "keep/new"}


def test_a_running_one(top: Path) -> None:
    """A container that runs can be exported, and goes on."""
    what = spec.build(["sh", "-c", "echo here > /now; while :; do sleep 0.1; done"], image="base")
    container = Container.create(what, start=True)
    try:
        assert eventually(lambda: exported(container).get("now", ("",) * 4)[3] == b"here\n")
        assert container.status == "running"
    finally:
        container.remove(force=True)


def test_committed_saved_loaded(top: Path, tmp_path: Path) -> None:
    """commit, save and load give the same image, in another store, and it runs."""
    with made.ended(
        "echo kept > /data/kept; rm /data/two; rm -r /data/sub; mkdir /data/sub"
    ) as container:
        image = images.commit(container, "kept:1", changes=['CMD ["cat", "/data/kept"]'])
        tree = exported(container)
    assert exported("kept:1") == tree
    images.save("kept:1", tmp_path / "kept.tar")
    images.remove("kept:1")
    (loaded,) = images.load(tmp_path / "kept.tar")
    assert (loaded.id, loaded.manifest.digest) == (image.id, image.manifest.digest)
    assert [layer.diff_id for layer in loaded.layers] == [layer.diff_id for layer in image.layers]
    assert exported("kept:1") == tree
    assert nscontainer.run([], image="kept:1").stdout == "kept\n"


def test_exported_and_imported(top: Path, tmp_path: Path) -> None:
    """What was exported, compressed by hand, is imported as one layer that has and runs the same."""
    images.export("base", tmp_path / "root.tar")
    subprocess.run(["gzip", tmp_path / "root.tar"], check=True)
    images.import_(tmp_path / "root.tar.gz", "flat:1", changes=['CMD ["cat", "/data/two"]'])
    assert exported("flat:1") == exported("base")
    result = nscontainer.run([], image="flat:1", env={"PATH": "/bin"})
    assert result.stdout == "2"


def test_what_stands_on_the_host(
    top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container of the machine's own system is exported as it sees it; saving it is refused."""
    listed: set[str] = set()
    # Names alone: the whole machine is more than a test should copy.
    monkeypatch.setattr(
        merge._Merging, "_entry", lambda _, path, *rest, **more: listed.add(os.fsdecode(path))
    )
    monkeypatch.setattr(
        merge._Merging, "_file", lambda self, _, name, path, facts: self._entry(path)
    )
    with made.ended(
        "echo mine > /etc/of_the_container; rm /etc/debian_version", "host"
    ) as container:
        image = images.commit(container, "on-host:1")
        images.export(container, io.BytesIO())
    assert {"etc/of_the_container", "etc/passwd", "usr/bin/env", "root/", "tmp/"} <= listed
    assert not {"etc/debian_version", "etc/shadow"} & listed
    hidden = ("proc/", "sys/", "var/tmp/", f"{top}/"[1:])
    assert [name for name in listed if name.startswith(hidden) and name not in hidden] == []
    assert image.on_host
    for name in ("on-host:1", "host"):
        with pytest.raises(SpecError, match=r"(is|stands on) this machine's own system"):
            images.save(name, tmp_path / "x.tar")
    assert not (tmp_path / "x.tar").exists()


def test_neither(top: Path, tmp_path: Path) -> None:
    """A name that is neither's is one line, and nothing is made."""
    with pytest.raises(NotFoundError, match="neither a container nor an image 'nobody'"):
        images.export("nobody", tmp_path / "x.tar")
    assert not (tmp_path / "x.tar").exists()


# --------------------------------------------------------------------------------------- bootstrap


def processes(word: str) -> list[str]:
    """Processes with a word among theirs."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and word.encode() in (entry / "cmdline").read_bytes():
                found.append(entry.name)
    return found


@pytest.mark.images
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_bootstrap(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian comes from its archive: it runs, has nothing of this machine's, and comes the same again."""
    said: list[str] = []
    suite = "debian:bookworm"
    image = images.bootstrap(suite, progress=lambda event: said.append(event.note))
    assert image.names == (suite,)
    assert "downloading packages with apt..." in said
    result = nscontainer.run(["cat", "/etc/os-release"], image=suite)
    assert "VERSION_CODENAME=bookworm" in result.stdout
    result = nscontainer.run(
        ["sh", "-c", "apt-get --version; cat /etc/apt/sources.list"], image=suite
    )
    assert result.stdout.splitlines()[-3:] == [*debian.suite(suite).lines]
    files = exported(suite)
    assert "etc/resolv.conf" not in files
    assert "etc/hostname" not in files
    assert [name for name in files if name.startswith("dev/")] == []
    assert files["dev"][0] == "0o755"
    own = os.uname().nodename.encode()
    lines = {line.strip() for _, _, _, what in files.values() if isinstance(what, bytes)
             for line in what[:4096].splitlines()}  # fmt: skip
    assert own not in lines
    again = images.bootstrap(suite, "again:1")
    assert again.id == image.id
    assert set(again.names) == {suite, "again:1"}


@pytest.mark.images
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_bootstrap_by_debootstrap(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is only debootstrap, it does, and leaves nothing of this machine's either."""
    import shutil

    which = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda name, **more: None if name == "mmdebstrap" else which(name, **more)
    )
    images.bootstrap("debian:bookworm", "by-debootstrap:1", include=["busybox"])
    result = nscontainer.run(["busybox", "cat", "/etc/apt/sources.list"], image="by-debootstrap:1")
    assert result.stdout.splitlines() == [*debian.suite("debian:bookworm").lines]
    names = exported("by-debootstrap:1")
    assert [name for name in names if name.startswith(("dev/", "proc/", "sys/"))] == []
    assert not {"etc/resolv.conf", "etc/hostname"} & names.keys()


@pytest.mark.images
def test_bootstrap_that_fails(top: Path) -> None:
    """A package that isn't there is the tool's error in one line, and nothing stays."""
    before = sorted(os.listdir(Store().scratch)), [image.id for image in images.list()]
    with pytest.raises(ImageError, match=r"mmdebstrap failed: .*no-such-package-anywhere"):
        images.bootstrap("debian:bookworm", "x:1", include=["no-such-package-anywhere"])
    assert (sorted(os.listdir(Store().scratch)), [image.id for image in images.list()]) == before


@pytest.mark.images
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_bootstrap_broken_off(top: Path, how: signal.Signals) -> None:
    """Interrupted, or its owner killed, a bootstrap ends with all it has started, and leaves nothing."""
    source = (
        "import sys\nfrom nscontainer import images\n"
        "images.bootstrap('debian:bookworm', 'y:1', progress=lambda e: print(e.note, flush=True))"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", source],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert owner.stdout is not None
    scratch = ""
    for line in owner.stdout:
        if line.startswith("extracting archives"):
            (scratch,) = [n for n in os.listdir(Store().scratch) if n.startswith("bootstrap-")]
            owner.send_signal(how)
            break
    owner.wait(timeout=30)
    owner.stdout.close()
    assert scratch
    assert eventually(lambda: processes(scratch) == [])
    if how == signal.SIGKILL:  # nobody was left to clear up: the next one that frees space does
        time.sleep(0.1)
        images.prune()
    assert [n for n in os.listdir(Store().scratch) if n.startswith("bootstrap-")] == []
    with pytest.raises(NotFoundError):
        images.get("y:1")


@pytest.mark.images
@pytest.mark.slow
def test_bootstrapped_layers_are_everybodys(top: Path, tmp_path: Path) -> None:
    """umoci and skopeo read a bootstrapped image as they do any other."""
    images.get("debian:bookworm")
    images.save("debian:bookworm", tmp_path / "debian.tar")
    size = (tmp_path / "debian.tar").stat().st_size
    assert 20e6 < size < 100e6
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "-q", f"docker-archive:{tmp_path}/debian.tar",
         f"oci:{tmp_path}/layout:1"], check=True,
    )  # fmt: skip
    subprocess.run(
        ["umoci", "unpack", "--image", f"{tmp_path}/layout:1", tmp_path / "bundle"], check=True
    )
    theirs = hashlib.sha256((tmp_path / "bundle/rootfs/usr/bin/bash").read_bytes()).hexdigest()
    result = nscontainer.run(["sha256sum", "/bin/bash"], image="debian:bookworm")
    assert result.stdout.split()[0] == theirs
    subprocess.run(["rm", "-rf", tmp_path / "bundle"], check=True)
