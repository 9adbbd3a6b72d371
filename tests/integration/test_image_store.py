"""The image store under kill -9, under many at once, below a real overlayfs, and read by other programs."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nscontainer.image import digest as digests
from nscontainer.image import media
from nscontainer.image.pack import pack
from nscontainer.image.records import Descriptor, Image, Layer
from nscontainer.image.store import Store
from tests.images import killed, looks, tars, trees

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}


@pytest.fixture
def root(tmp_path: Path) -> Iterator[str]:
    """A store's directory in an engine's of its own."""
    (tmp_path / "state").mkdir(mode=0o700)
    yield str(tmp_path / "state" / "images")
    shutil.rmtree(tmp_path / "state")


def program(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "tests" / "images" / name), *arguments]


@pytest.mark.slow
def test_killed_at_any_system_call(tmp_path: Path) -> None:
    """A writer killed at a system call, each in turn, leaves a store that is whole, goes on, and is swept."""
    command = program("killed.py", "points", str(tmp_path), "9")
    done = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    assert int(done.stdout) > 200, "there are about so many calls to be killed at"


def large_image(store: Store) -> tuple[Image, bytes]:
    """An image whose unpacking takes some tenths of a second, and its compressed layer."""
    chance = random.Random(1)
    parts = [tars.file(b"d%d/f%d" % (n % 50, n), chance.randbytes(2000)) for n in range(4000)]
    layer = store.add_layer(io.BytesIO(tars.whole(*parts)))
    image = store.make_image({"os": "linux"}, [layer], name="large")
    return image, Path(store.blob_path(layer.descriptor.digest)).read_bytes()


UNPACK = """
import sys
from nscontainer.image.store import Store
store = Store(sys.argv[1])
print("begun", flush=True)
store.unpack(store.get("large"))
print("done", flush=True)
"""


@pytest.mark.slow
def test_killed_while_unpacking(root: str) -> None:
    """An unpack killed at some moment leaves no layer that counts; the next one makes it whole."""
    store = Store(root)
    image, _ = large_image(store)
    layer = image.layers[0]
    chance = random.Random(2)
    killed_halfway = 0
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", UNPACK, root], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        with process, process.stdout:
            assert process.stdout.readline() == "begun\n"
            time.sleep(chance.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
            whole = process.stdout.read() == "done\n"
        if there := store.layer_dir(layer.diff_id):
            assert len(list(Path(there).rglob("f*"))) == 4000
            store.remove("large")
            image, _ = large_image(store)
        else:
            assert not whole
            killed_halfway += bool(os.path.exists(f"{root}/layers/.new-{layer.key}"))
    assert killed_halfway, "none was killed while it unpacked"
    store.unpack(image)
    there = store.layer_dir(layer.diff_id)
    assert there is not None
    assert len(list(Path(there).rglob("f*"))) == 4000
    assert [n for n in os.listdir(f"{root}/layers") if n.startswith((".new", ".old"))] == []


PULL = """
import os, sys
from nscontainer.image.store import Store
store = Store(sys.argv[1])
data = open(sys.argv[2], "rb").read()
with store.writer(sys.argv[3], len(data)) as writer:
    print(writer.offset, flush=True)
    for at in range(writer.offset, len(data), 65536):
        writer.write(data[at : at + 65536])
    writer.commit()
print("done", flush=True)
"""


def test_a_killed_pull_goes_on(root: str, tmp_path: Path) -> None:
    """A download killed again and again goes on where it was, never shows half a blob, and comes out whole."""
    store = Store(root)
    data = random.Random(3).randbytes(48 << 20)
    digest = digests.of(data)
    (tmp_path / "data").write_bytes(data)
    command = [sys.executable, "-c", PULL, root, str(tmp_path / "data"), digest]
    offsets = []
    for delay_s in (0.0, 0.005, 0.01, 0.01, 0.02, None):
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process, process.stdout:
            offsets.append(int(process.stdout.readline()))
            if delay_s is not None:
                time.sleep(delay_s)
                process.send_signal(signal.SIGKILL)
        if not store.has(digest):
            assert os.listdir(f"{root}/blobs/sha256") == []
    assert offsets == sorted(offsets)
    assert offsets[-1] > 0, "the last one has gone on"
    assert Path(store.blob_path(digest)).read_bytes() == data
    assert os.listdir(f"{root}/tmp") == []


def test_two_pulls_of_one_blob(root: str, tmp_path: Path) -> None:
    """Of two downloads of the same blob the second waits for the first, and then finds it there."""
    data = random.Random(4).randbytes(8 << 20)
    digest = digests.of(data)
    (tmp_path / "data").write_bytes(data)
    store = Store(root)
    with store.writer(digest, len(data)) as first:
        first.write(data[: 1 << 20])
        command = [sys.executable, "-c", PULL, root, str(tmp_path / "data"), digest]
        second = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        time.sleep(0.5)
        assert second.poll() is None, "it didn't wait"
        first.write(data[1 << 20 :])
        first.commit()
    out, _ = second.communicate(timeout=30)
    assert out == f"{len(data)}\ndone\n"


@pytest.mark.slow
def test_many_at_once(root: str) -> None:
    """Six programs that add, tag, unpack, remove and prune at once lose nothing and leave nothing."""
    processes = [
        subprocess.Popen(
            program("busy.py", root, str(number), "12"), env=ENVIRONMENT, stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(6)
    ]  # fmt: skip
    for process in processes:
        _, said = process.communicate(timeout=100)
        assert process.returncode == 0, said[-2000:]
    killed.check(root)
    store = Store(root)
    kept = {name for image in store.images() for name in image.names}
    assert {f"mine{number}:11" for number in range(6)} <= kept
    assert kept <= {f"mine{number}:11" for number in range(6)} | {"everybodys:1"}
    killed.check_swept(root)


def test_many_unpack_one_image(root: str) -> None:
    """Programs that need the same layer at once all get it, and it is unpacked once."""
    store = Store(root)
    image, _ = large_image(store)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", UNPACK, root], env=ENVIRONMENT, stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    for process in processes:
        out, _ = process.communicate(timeout=60)
        assert out == b"begun\ndone\n"
    there = store.layer_dir(image.layers[0].diff_id)
    assert there is not None
    assert len(list(Path(there).rglob("f*"))) == 4000


# --- below a real overlayfs -----------------------------------------------------------------------


def union(store: Store, image: Image) -> dict[str, bytes | str]:
    """What a container would see of an image, as the kernel unions its layers."""
    directories = [f"{store.root}/layers/{key}" for key in reversed(store.unpack(image))]
    with_empty = [*directories, f"{store.root}/tmp"] if len(directories) == 1 else directories
    script = (
        "mount -t overlay overlay -o lowerdir=$1 /mnt && cd / && exec $2 -c "
        "'import json, sys; from pathlib import Path; from tests.images import looks; "
        'print(repr(looks.short(Path("/mnt"))))\''
    )
    command = ["unshare", "--mount", "sh", "-c", script, "-", ":".join(with_empty), sys.executable]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, bytes | str] = eval(done.stdout)
    return found


def image_of(store: Store, *layers: bytes) -> Image:
    return store.make_image({}, [store.add_layer(io.BytesIO(tar)) for tar in layers], name="lab")


@pytest.mark.root
def test_overlayfs_takes_whiteouts_and_opaque_directories(root: str) -> None:
    """In the kernel's union, what an upper layer deletes is gone, and what it makes anew is alone."""
    base = tars.whole(
        tars.file(b"a", b"base"), tars.file(b"b", b"base"), tars.file(b"d/x", b"base"),
        tars.file(b"o/x", b"base"), tars.file(b"r/x", b"base"),
    )  # fmt: skip
    upper = tars.whole(
        tars.file(b".wh.a"), tars.file(b"b", b"upper"), tars.file(b"d/.wh.x"), tars.file(b"d/y", b"1"),
        tars.file(b"o/.wh..wh..opq"), tars.file(b"o/y", b"1"),
        tars.file(b".wh.r"), tars.directory(b"r"), tars.file(b"r/y", b"1"),
    )  # fmt: skip
    assert union(Store(root), image_of(Store(root), base, upper)) == {
        "b": b"upper", "d": "dir", "d/y": b"1", "o": "dir", "o/y": b"1", "r": "dir", "r/y": b"1",
    }  # fmt: skip


@pytest.mark.root
def test_no_layer_can_bring_marks_of_overlayfs(root: str) -> None:
    """Attributes by which overlayfs would hide, redirect or borrow files have no effect from a tar."""
    base = tars.whole(
        tars.file(b"secret/x", b"base"), tars.file(b"d/x", b"base"), tars.file(b"f", b"base")
    )

    def marked(name: bytes, value: bytes) -> bytes:
        return tars.pax({b"SCHILY.xattr.trusted.overlay." + name: value})

    upper = tars.whole(
        marked(b"opaque", b"y"), tars.directory(b"d"),
        marked(b"redirect", b"/secret"), tars.directory(b"e"),
        marked(b"metacopy", b""), tars.file(b"f", b"upper"),
    )  # fmt: skip
    assert union(Store(root), image_of(Store(root), base, upper)) == {
        "secret": "dir", "secret/x": b"base", "d": "dir", "d/x": b"base", "e": "dir", "f": b"upper",
    }  # fmt: skip


@pytest.mark.root
def test_what_a_container_writes_is_packed(root: str, tmp_path: Path) -> None:
    """The upper directory of a real overlay, packed and put on top as a layer, gives the same union."""
    store = Store(root)
    base = tars.whole(
        *(
            tars.file(b"%b/%d" % (d, n), b"base")
            for d in (b"keep", b"gone", b"anew")
            for n in range(3)
        )
    )
    image = image_of(store, base)
    (lower,) = (f"{root}/layers/{key}" for key in store.unpack(image))
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir(mode=0o755)
    work.mkdir()
    script = (
        f"mount -t overlay overlay -o lowerdir={lower},upperdir={upper},workdir={work} /mnt && cd /mnt "
        "&& rm -r gone anew keep/1 && mkdir anew && echo 1 >anew/new && echo more >>keep/2 "
        "&& ln keep/2 keep/hard && mknod pipe p && mkdir -m 1777 t && chmod 4755 keep/0"
    )
    subprocess.run(["unshare", "--mount", "sh", "-ec", script], check=True)
    layer = store.add_layer(lambda sink: pack(str(upper), sink))
    both = store.make_image({}, [*image.layers, layer], name="both")
    assert union(store, both) == {
        "anew": "dir", "anew/new": b"1\n", "keep": "dir", "keep/0": b"base", "keep/2": b"basemore\n",
        "keep/hard": "= keep/2", "pipe": "fifo", "t": "dir",
    }  # fmt: skip
    there = Path(f"{root}/layers/{layer.key}")
    assert (there / "keep/0").stat().st_mode & 0o7777 == 0o4755
    before, after = looks.short(upper), looks.short(there)
    assert after == before


@pytest.mark.root
def test_an_ordinary_user_unpacks() -> None:
    """Without root the whole corpus has the same outcome, but for owners and devices, and can be removed."""
    top = tempfile.mkdtemp(dir="/var/tmp")  # pytest's own directory is closed to others
    try:
        done = subprocess.run(
            program("nobody.py", top), env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
    finally:
        shutil.rmtree(top)
    assert done.stdout == "done\n", done.stderr[-2000:]


# --- other programs -------------------------------------------------------------------------------


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.images
@pytest.mark.root
@pytest.mark.slow
def test_umoci_and_skopeo_read_the_store(root: str, tmp_path: Path) -> None:
    """skopeo finds an image by its name in the store's own directory, umoci unpacks it with every case."""
    store = Store(root)
    tree = tmp_path / "tree"
    tree.mkdir(mode=0o755)
    trees.every_case(tree)
    with (tree / "sparse").open("wb") as file:
        file.write(b"start")
        file.truncate((1 << 30) + (1 << 20))
    layer = store.add_layer(lambda sink: pack(str(tree), sink))
    for name in ("mylab:1", "ghcr.io/org/tool:1"):
        image = store.make_image({"os": "linux", "architecture": "amd64"}, [layer], name=name)
        seen = json.loads(run("skopeo", "inspect", "--raw", f"oci:{root}:{name}"))
        assert seen["config"]["digest"] == image.id
    copy = tmp_path / "copy"
    run("skopeo", "copy", f"oci:{root}:mylab:1", f"oci:{copy}:lab")
    run("umoci", "unpack", "--image", f"{copy}:lab", str(tmp_path / "bundle"))
    rootfs = tmp_path / "bundle" / "rootfs"
    (mine,) = store.unpack(image)
    large = (rootfs / "sparse").stat()
    assert large.st_size == (1 << 30) + (1 << 20)
    with (rootfs / "sparse").open("rb") as file:
        assert file.read(6) == b"start\0"
    for there in (rootfs, Path(root, "layers", mine)):
        (there / "sparse").unlink()
    ours = looks.everything(Path(root, "layers", mine))
    theirs = looks.everything(rootfs)
    gone = {name for name, facts in ours.items() if facts[0] == 0o020000 and facts[5] == 0}
    for name in gone | {"."}:
        del ours[name]
        theirs.pop(name, None)
    assert theirs.keys() == ours.keys()
    for name, facts in ours.items():
        kept = tuple(x for x in facts[7] if not x[0].startswith("trusted."))  # type: ignore[attr-defined]
        others = tuple(x for x in theirs[name][7] if not x[0].startswith("trusted."))  # type: ignore[attr-defined]
        assert (*theirs[name][:7], others) == (*facts[:7], kept), name
    assert sorted(run("umoci", "ls", "--layout", root).split()) == sorted(
        name for found in store.images() for name in found.names
    )


@pytest.mark.images
@pytest.mark.root
def test_what_others_write_into_the_store(root: str, tmp_path: Path) -> None:
    """An image that skopeo has copied into our directory is one of ours, and its name is kept by ours."""
    store = Store(root)
    (tmp_path / "other").mkdir(mode=0o700)
    other = Store(str(tmp_path / "other" / "images"))
    image = image_of(other, killed.layer(7))
    run("skopeo", "copy", f"oci:{other.root}:lab:latest", f"oci:{root}:theirs")
    (found,) = store.images()
    assert (found.names, found.id) == (("theirs:latest",), image.id)
    store.unpack(found)
    with store.holding():
        layer = store.add_layer(io.BytesIO(killed.layer(8)))
        store.make_image({}, [layer], name="ours")
    assert store.remove("theirs")[0] == "untagged: theirs:latest"
    assert len(os.listdir(f"{root}/blobs/sha256")) == 3


def test_layers_as_others_compress_them(root: str) -> None:
    """gzip in several members with padding, as pigz and tapes have it, is read; garbage after it is not."""
    store = Store(root)
    tar = killed.layer(9)
    half = len(tar) // 2
    for tail, fine in ((b"", True), (bytes(5000), True), (b"garbage", False)):
        data = gzip.compress(tar[:half]) + gzip.compress(tar[half:]) + tail
        digest = store.put(data)
        blob = Descriptor(media.OCI_LAYER_GZIP, digest, len(data))
        image = store.make_image({}, [Layer(blob, digests.of(tar))], name="lab")
        if fine:
            store.unpack(image)
            store.remove("lab")
        else:
            with pytest.raises(Exception, match="gzip stream is damaged"):
                store.unpack(image)
