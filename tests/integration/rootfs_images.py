"""Small images made by hand for tests: Debian's static busybox, and layers of a few files."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nscontainer import spec
from nscontainer.engine.container import Container
from nscontainer.image.records import Image, Layer
from nscontainer.image.store import Store

BUSYBOX = Path("/bin/busybox")
APPLETS = (
    "sh cat chmod chown cp cut dd df echo env false find getfattr grep head hostname id kill ln ls mkdir "
    "mknod mount mv printf ps pwd readlink rm rmdir sed setsid sleep sort stat sync tail tar test "
    "touch tr true umount uname wc whoami"
).split()
PASSWD = "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001:Bob:/home/bob:/bin/sh\n"
GROUP = "root:x:0:\nstaff:x:50:bob\nbobs:x:1001:\n"


class LayerTar:
    """A layer's tar, entry by entry."""

    def __init__(self) -> None:
        self._data = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._data, mode="w", format=tarfile.PAX_FORMAT)

    def _add(self, name: str, kind: bytes, data: bytes = b"", **more: Any) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.size, member.mtime = kind, len(data), 1_600_000_000
        for key, value in more.items():
            setattr(member, key, value)
        self._tar.addfile(member, io.BytesIO(data))

    def file(self, name: str, text: str | bytes = "", **more: Any) -> LayerTar:
        """Add a file."""
        data = text.encode() if isinstance(text, str) else text
        self._add(name, tarfile.REGTYPE, data, **{"mode": 0o644, **more})
        return self

    def directory(self, name: str, **more: Any) -> LayerTar:
        """Add a directory."""
        self._add(name, tarfile.DIRTYPE, **{"mode": 0o755, **more})
        return self

    def link(self, name: str, target: str) -> LayerTar:
        """Add a symbolic link."""
        self._add(name, tarfile.SYMTYPE, linkname=target, mode=0o777)
        return self

    def hard_link(self, name: str, target: str) -> LayerTar:
        """Add another name of a file."""
        self._add(name, tarfile.LNKTYPE, linkname=target)
        return self

    def fifo(self, name: str) -> LayerTar:
        """Add a fifo."""
        self._add(name, tarfile.FIFOTYPE, mode=0o644)
        return self

    def bytes(self) -> bytes:
        """Close it and give it."""
        self._tar.close()
        return self._data.getvalue()


def busybox() -> LayerTar:
    """A root filesystem of busybox and nothing that it can do without."""
    tar = LayerTar().directory("bin").directory("etc").directory("tmp", mode=0o1777)
    tar.file("bin/busybox", BUSYBOX.read_bytes(), mode=0o755)
    for name in APPLETS:
        tar.link(f"bin/{name}", "busybox")
    return tar.file("etc/passwd", PASSWD).file("etc/group", GROUP)


def make(
    name: str,
    *layers: bytes | Layer,
    config: Mapping[str, Any] | None = None,
    architecture: str = "amd64",
) -> Image:
    """Make an image of layer tars (or layers of the store) in the engine's store."""
    store = Store()
    whole = [
        layer if isinstance(layer, Layer) else store.add_layer(io.BytesIO(layer), "none")
        for layer in layers
    ]
    settings = {"Env": ["PATH=/bin"], **(config or {})}
    plain = {"architecture": architecture, "os": "linux", "config": settings}
    return store.make_image(plain, whole, name=name)


def tree(top: str | os.PathLike[str]) -> dict[str, tuple[Any, ...]]:
    """Describe all below a directory of the host: kind, mode, owner, and content or target."""
    found: dict[str, tuple[Any, ...]] = {}
    for here, names, files in os.walk(top):
        for name in (*names, *files):
            path = Path(here, name)
            facts = path.lstat()
            kind = stat.S_IFMT(facts.st_mode)
            more: Any = None
            if kind == stat.S_IFREG:
                more = path.read_bytes()
            elif kind == stat.S_IFLNK:
                more = os.readlink(path)
            place = str(path.relative_to(top))
            found[place] = (kind, stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid, more)
    return found


def words(lines: Iterable[str]) -> list[str]:
    """Split lines, for what is compared without order."""
    return sorted(word for line in lines for word in line.split())


@contextlib.contextmanager
def ended(script: str, image: str = "base", **options: Any) -> Iterator[Container]:
    """A container that has run a script, and is kept."""
    what = spec.build(["sh", "-ec", script], image=image, **options)
    container = Container.create(what, remove=False, start=True)
    try:
        record = container.wait()
        assert record["exit_code"] == 0, (record["exit_code"], container.status)
        yield container
    finally:
        container.remove(force=True)
