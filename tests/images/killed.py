"""Programs that use a store and are killed, and what must be true of it afterwards.

As a script: ``killed.py points DIR`` kills a writer at each of its system calls in turn.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from nscontainer.image import digest as digests
from nscontainer.image import media
from nscontainer.image.records import Descriptor
from nscontainer.image.store import Store
from tests.images import tars

CALLS = (
    "open write rename fsync unlink mkdir rmdir link symlink mkfifo utime ftruncate close lseek fchmod"
).split()


def layer(number: int, files: int = 5) -> bytes:
    """A small layer that is like no other."""
    return tars.whole(
        tars.directory(b"d%d" % number),
        *(tars.file(b"d%d/f%d" % (number, n), b"%d" % number * 1000) for n in range(files)),
        tars.symlink(b"d%d/s" % number, b"f0"),
    )


def pull(store: Store, data: bytes, cut: int = 3) -> Descriptor:
    """Write a blob as a pull does: with its digest known, going on where another has been killed."""
    digest = digests.of(data)
    with store.writer(digest, len(data)) as writer:
        step = max(1, len(data) // cut)
        for at in range(writer.offset, len(data), step):
            writer.write(data[at : at + step])
        writer.commit()
    return Descriptor(media.OCI_LAYER_GZIP, digest, len(data))


def work(root: str) -> None:
    """All that writes to a store: layers, images, names, a pull, an unpack, a removal."""
    store = Store(root)
    with store.holding():
        one = store.add_layer(io.BytesIO(layer(1)))
        two = store.add_layer(io.BytesIO(layer(2)), "none")
        image = store.make_image({"os": "linux"}, [one, two], name="lab:1")
    store.tag("lab:1", "lab:2")
    store.unpack(image)
    with store.holding():
        pull(store, os.urandom(64) + bytes(5000))
        three = store.add_layer(io.BytesIO(layer(3)))
        other = store.make_image({"os": "linux"}, [one, three], name="lab:2")
    store.unpack(other)
    store.remove("lab:1")
    store.prune()


def check(root: str) -> int:
    """Assert that a store is whole, whatever has happened to its users; give the number of images."""
    store = Store(root)
    assert json.loads(Path(root, "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    listed = json.loads(Path(root, "index.json").read_bytes())["manifests"]
    images = store.images()
    assert len({entry["digest"] for entry in listed}) == len(images), "an image has lost a blob"
    for image in images:
        for name in image.names:
            assert store.get(name).id == image.id
        for blob in (image.manifest, *(layer.descriptor for layer in image.layers)):
            assert digests.of(store.read_blob(blob, 1 << 30)) == blob.digest
    for name in os.listdir(f"{root}/blobs/sha256"):
        data = Path(root, "blobs/sha256", name).read_bytes()
        assert digests.of(data) == f"sha256:{name}", "half a blob is visible"
    for image in images:
        for part in image.layers:
            if there := store.layer_dir(part.diff_id):
                check_layer(Path(there))
        for key in store.unpack(image):
            check_layer(Path(root, "layers", key))
    return len(images)


def check_layer(top: Path) -> None:
    """Assert that a layer of :func:`layer` is all there."""
    (directory,) = top.iterdir()
    number = directory.name[1:]
    names = sorted(path.name for path in directory.iterdir())
    assert names == sorted([*(f"f{n}" for n in range(len(names) - 1)), "s"]), names
    assert len(names) >= 6
    for path in directory.iterdir():
        assert path.read_text() == number * 1000
        assert path.lstat().st_mtime == 1_700_000_000 or path.is_symlink()


def check_swept(root: str) -> None:
    """Assert that one who sweeps leaves nothing but what images name."""
    store = Store(root)
    for image in store.images():
        for name in image.names:
            store.remove(name, force=True)
    store.prune(all=True)
    for directory in ("blobs/sha256", "layers", "tmp"):
        assert os.listdir(f"{root}/{directory}") == [], directory


def killed_at(number: int, root: str, act: Callable[[str], None]) -> bool:
    """Do something in a process that is killed at its so-manieth system call, and say if it was."""
    pid = os.fork()
    if pid == 0:
        left = [number]

        def wrap(call: Callable[..., object]) -> Callable[..., object]:
            def counting(*args: object, **kwargs: object) -> object:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                    time.sleep(60)
                return call(*args, **kwargs)

            return counting

        for name in CALLS:
            setattr(os, name, wrap(getattr(os, name)))
        try:
            act(root)
        except BaseException as error:  # noqa: BLE001 - told by the exit code
            print(f"{type(error).__name__}: {error}", flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "what was not killed has failed"
    return False


def points(top: str, step: int) -> int:
    """Kill a writer at each point in turn; what is left is whole, goes on, and can be swept."""
    number = 1
    while True:
        root = f"{top}/state{number}/images"
        os.mkdir(os.path.dirname(root), 0o700)
        if not killed_at(number, root, work):
            check(root)
            return number
        check(root)
        work(root)
        assert check(root) == 1
        check_swept(root)
        number += step


if __name__ == "__main__":
    assert sys.argv[1] == "points"
    print(points(sys.argv[2], int(sys.argv[3])))
