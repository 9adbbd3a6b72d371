"""What the proof by others needs: trees with every case, their look, and the other programs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import stat
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import sandbox
from benchmarks.docker import Docker
from nscontainer.image import extract
from nscontainer.image.archives import rootfs
from nscontainer.image.pack import pack
from nscontainer.image.records import Image
from nscontainer.image.store import Store
from nscontainer.image.tree import is_whiteout

Look = dict[str, tuple[Any, ...]]
"""A tree: of each name mode, uid, gid, mtime in ns, what it is or has in it, its first link, attributes."""
BUSYBOX = "/bin/busybox"
LONG = "n" * 255
DEEP = "/".join(letter * 90 for letter in "abcdef")
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
"""cap_net_bind_service=ep, as Linux stores it: struct vfs_cap_data, capability.h."""
EARLY_NS = 1_000_000_007_123_456_789
CONFIG = {
    "created": "2026-01-02T03:04:05.678901234Z",
    "author": "somebody",
    "architecture": "amd64",
    "os": "linux",
    "config": {
        "User": "1000:1001",
        "ExposedPorts": {"8080/tcp": {}, "53/udp": {}},
        "Env": ["PATH=/bin", "GREETING=grüß dich", "EMPTY="],
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ["echo $GREETING from $(pwd) as $(id -u):$(id -g)"],
        "Volumes": {"/data": {}},
        "WorkingDir": "/srv/work",
        "Labels": {"org.example.a": "1", "b": "zwei"},
        "StopSignal": "SIGUSR1",
    },
    "history": [
        {"created": "2026-01-01T00:00:00Z", "created_by": "the first layer", "comment": "base"},
        {"created": "2026-01-01T00:00:01Z", "created_by": "ENV GREETING", "empty_layer": True},
        {"created": "2026-01-02T03:04:05.678901234Z", "created_by": "the second layer"},
    ],
}


# ------------------------------------------------------------------------------------- the trees


def make_base(top: Path) -> None:
    """A layer with every kind of file and attribute that an image can have."""
    for directory in (
        "bin",
        "etc",
        "dir/inner",
        "gone",
        "hides",
        "srv/work",
        "data",
        "tmp",
        "kinds",
    ):
        (top / directory).mkdir(parents=True)
    os.chmod(top / "tmp", 0o1777)
    shutil.copy(BUSYBOX, top / "bin/busybox")
    for name in ("sh", "echo", "id", "cat", "ls", "stat", "touch", "pwd"):
        os.symlink("busybox", top / "bin" / name)
    for name in ("dir/a", "dir/b", "dir/inner/c", "gone/d", "hides/e", "becomes_directory"):
        (top / name).write_text(f"{name} of the base\n")
    (top / "becomes_file").mkdir()
    (top / "becomes_file/f").write_text("f\n")
    os.link(top / "dir/a", top / "dir/a_too")
    os.link(top / "dir/a", top / "etc/a_elsewhere")
    (top / LONG).write_text("a name of 255 bytes\n")
    (top / DEEP).mkdir(parents=True)
    (top / DEEP / "deep").write_text("a path of over 500 bytes\n")
    os.symlink(DEEP, top / "link_to_deep")
    os.symlink("/nowhere/at all", top / "dangling")
    (top / "grüße 日本語\n").write_text("a name that isn't ASCII, with a line feed\n")
    (top / "empty").mkdir()
    (top / "empty_file").touch()
    _special(top)
    with (top / "sparse").open("wb") as file:
        file.seek(3 << 20)
        file.write(b"in the middle of 10 MiB")
        file.truncate(10 << 20)
    os.setxattr(top / "dir/b", "user.note", "grün".encode())
    os.setxattr(top / "dir/b", "user.binary", b"\0\xff\n=")
    os.setxattr(top / "dir", "user.of_directory", b"1")
    shutil.copy(BUSYBOX, top / "bin/able")
    os.setxattr(top / "bin/able", "security.capability", CAPABILITY)
    _set_times(top)


def _set_times(top: Path) -> None:
    for number, name in enumerate(sorted(_everything(top))):
        when = EARLY_NS + number * 1_000_000_001
        os.utime(os.path.join(top, name), ns=(when, when), follow_symlinks=False)


def _special(top: Path) -> None:
    kinds = top / "kinds"
    for name, mode in (("setuid", 0o4755), ("setgid", 0o2755), ("none", 0), ("all", 0o7777)):
        (kinds / name).write_text(name)
        os.chmod(kinds / name, mode)
    (kinds / "setgid_directory").mkdir()
    os.chmod(kinds / "setgid_directory", 0o2770)
    os.mkfifo(kinds / "fifo", 0o640)
    os.mknod(kinds / "character", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(kinds / "block", stat.S_IFBLK | 0o660, os.makedev(259, 70000))
    for name, uid, gid in (
        ("usual", 1000, 1001),
        ("nobodys", 65534, 65534),
        ("far", 100_000, 100_001),
        ("farther", 3_000_000, 4_000_000),
    ):
        (kinds / name).write_text(name)
        os.chown(kinds / name, uid, gid)
    os.symlink("usual", kinds / "somebodys_link")
    os.chown(kinds / "somebodys_link", 1000, 1001, follow_symlinks=False)


def _everything(top: Path) -> Iterator[str]:
    for directory, folders, names in os.walk(top):
        for name in (*folders, *names):
            yield os.path.relpath(os.path.join(directory, name), top)


def make_second(top: Path) -> None:
    """A layer as overlayfs leaves one: deletions, an opaque directory, other kinds in a name's place."""
    for directory in ("dir", "hides", "becomes_directory", "etc"):
        (top / directory).mkdir(parents=True)
    os.mknod(top / "dir/a", stat.S_IFCHR, os.makedev(0, 0))
    os.mknod(top / "gone", stat.S_IFCHR, os.makedev(0, 0))
    os.setxattr(top / "hides", "trusted.overlay.opaque", b"y")
    (top / "hides/new").write_text("what is in an opaque directory\n")
    (top / "becomes_file").write_text("a directory before\n")
    (top / "becomes_directory/inside").write_text("a file before\n")
    (top / "dir/b").write_text("changed\n")
    os.link(top / "dir/b", top / "etc/b_too")
    os.chmod(top / "dir", 0o750)
    (top / "srv").mkdir()
    (top / "srv/work").mkdir()
    os.chown(top / "srv/work", 1000, 1001)
    _set_times(top)


def make_image(store: Store, scratch: Path, name: str, compression: str = "gzip") -> Image:
    """An image of both layers, with a config in which every field is set."""
    layers = []
    for number, make in enumerate((make_base, make_second)):
        top = scratch / f"layer{number}"
        top.mkdir()
        make(top)
        with store.holding():
            layers.append(
                store.add_layer(lambda sink, top=top: pack(str(top), sink), compression)  # type: ignore[misc]
            )
        shutil.rmtree(top)
    return store.make_image(CONFIG, layers, name=name)


# -------------------------------------------------------------------------------------- the look


def look(top: str | Path, *, times: bool = True) -> Look:
    """All that lstat, xattrs and content say of each file below a directory, but for the top itself."""
    found: Look = {}
    first: dict[tuple[int, int], str] = {}
    for name in sorted(_everything(Path(top))):
        path = os.path.join(top, name)
        facts = os.lstat(path)
        kind = stat.S_IFMT(facts.st_mode)
        if is_whiteout(facts):
            found[name] = ("whiteout",)
            continue
        what: Any = None
        if kind == stat.S_IFREG:
            what = hashlib.sha256(Path(path).read_bytes()).hexdigest(), facts.st_size
            what += (facts.st_blocks * 512 < facts.st_size,)  # sparse, or not
        elif kind == stat.S_IFLNK:
            what = os.readlink(path)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            what = facts.st_rdev
        linked = None
        if kind != stat.S_IFDIR and facts.st_nlink > 1:
            linked = first.setdefault((facts.st_dev, facts.st_ino), name)
        attributes = {
            key: os.getxattr(path, key, follow_symlinks=False)
            for key in os.listxattr(path, follow_symlinks=False)
            if not key.startswith("trusted.overlay.")
        }
        time = facts.st_mtime_ns if times else None
        found[name] = (
            oct(facts.st_mode),
            facts.st_uid,
            facts.st_gid,
            time,
            what,
            linked,
            attributes,
        )
    return found


def exported(store: Store, what: str, scratch: Path) -> Look:
    """The look of an image as one tree: exported, and unpacked."""
    tar = scratch / "exported.tar"
    rootfs.export(what, tar, store=store)
    top = scratch / "exported"
    top.mkdir()
    with tar.open("rb") as stream:
        extract.extract(stream, str(top))
    try:
        return look(top)
    finally:
        tar.unlink()
        shutil.rmtree(top)


def layers_look(store: Store, image: Image) -> list[Look]:
    """The look of each layer's directory, whiteouts and all."""
    store.unpack(image)
    return [look(store.layer_dir(layer.diff_id) or "") for layer in image.layers]


def diff_ids(image: Image) -> list[str]:
    """What an image's layers are."""
    return [layer.diff_id for layer in image.layers]


# ------------------------------------------------------------------------------- other programs


def run(*words: str | Path, data: bytes | None = None) -> str:
    """Run a program that must succeed; give what it prints."""
    done = subprocess.run([*map(str, words)], input=data, capture_output=True, check=False)
    assert done.returncode == 0, (words, done.stderr.decode(errors="replace")[-2000:])
    return done.stdout.decode(errors="replace")


def skopeo(*words: str | Path) -> str:
    """Run skopeo, which is to ask nobody's policy."""
    return run("skopeo", "--insecure-policy", *words)


def umoci(*words: str | Path) -> str:
    """Run umoci."""
    return run("umoci", *words)


class Daemon:
    """A Docker daemon of the tests' own, and its client."""

    def __init__(self, docker: Docker) -> None:
        self._docker = docker

    def __call__(self, *words: str | Path, data: bytes | None = None) -> str:
        """Run the client; it must succeed."""
        done = subprocess.run(
            [*self._docker.client, *map(str, words)],
            env=self._docker.environment,
            input=data,
            stdin=None if data is not None else subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, (words, done.stderr.decode(errors="replace")[-2000:])
        return done.stdout.decode(errors="replace")

    def inspect(self, image: str) -> dict[str, Any]:
        """What docker says of an image."""
        answer: list[dict[str, Any]] = json.loads(self("image", "inspect", image))
        return answer[0]

    def history(self, image: str) -> Sequence[dict[str, Any]]:
        """The steps that made an image, newest first, by Docker's API: as they are, not shortened."""
        reply = self._ask(f"/images/{image}/history")
        steps: list[dict[str, Any]] = json.loads(reply)
        return steps

    def _ask(self, path: str) -> bytes:
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(f"{self._docker.top}/docker.sock")
            line.sendall(f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
            reply = b""
            while data := line.recv(1 << 16):
                reply += data
        head, _, body = reply.partition(b"\r\n\r\n")
        assert b" 200 " in head.splitlines()[0], reply[:500]
        return body


@contextlib.contextmanager
def docker_daemon(top: Path) -> Iterator[Daemon]:
    """Start a daemon whose data, socket and cgroups are apart from any other's; leave nothing of it."""
    try:
        with Docker(top, images=False) as docker:
            yield Daemon(docker)
    finally:
        sandbox.remove_cgroups()
        shutil.rmtree(top, ignore_errors=True)
