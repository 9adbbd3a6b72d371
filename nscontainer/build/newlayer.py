"""A layer that is made of files, not by running something: planned first, then written as a tar.

The plan knows the image below. A directory that is there already comes into the layer with the mode,
owner and times that it has: in a union the upper one's are what counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from nscontainer.build.trees import Node, Tree
from nscontainer.errors import SpecError, StateError

_BLOCK: Final = 512
_CHUNK: Final = 1 << 20
WHITEOUT: Final = ".wh."
_TYPES: Final[Mapping[str, bytes]] = {
    "dir": tarfile.DIRTYPE,
    "file": tarfile.REGTYPE,
    "link": tarfile.SYMTYPE,
    "fifo": tarfile.FIFOTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
}


class Sink(Protocol):
    """What a tar is written to."""

    def write(self, data: bytes, /) -> object:
        """Take bytes."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a new file is."""

    uid: int = 0
    gid: int = 0


@dataclass
class NewLayer:
    """What is to be in a layer, by path; on top of an image's tree, it is a tree itself."""

    below: Tree
    mtime_ns: int
    """Of directories that are made for a path's sake."""
    entries: dict[str, Node] = field(default_factory=dict)
    _inline: dict[str, bytes] = field(default_factory=dict)
    _kept: set[str] = field(default_factory=set)
    """Directories of the image that are here only so that they stay as they are."""

    def look(self, path: str) -> Node | None:
        """Give what will be there."""
        return self.entries.get(path) or self.below.look(path)

    def names(self, path: str) -> list[str]:
        """Give the names that will be in a directory."""
        below = f"{path}/" if path else ""
        own = {p[len(below) :] for p in self.entries if p.startswith(below)}
        is_there = (node := self.below.look(path)) is not None and node.kind == "dir"
        return sorted(
            {*(n for n in own if n and "/" not in n), *(self.below.names(path) * is_there)}
        )

    # --- planning ----------------------------------------------------------------------------

    def make_directory(self, path: str, owner: Owner) -> None:
        """Have a directory, and those above it: as it is where it is there, else 0755 and the owner's.

        Raises
        ------
        SpecError
            Something else stands in the way.
        """
        if not path or path in self.entries:
            if path and self.entries[path].kind != "dir":
                raise SpecError(f"/{path} is no directory")
            return
        self.make_directory(path.rpartition("/")[0], owner)
        found = self.below.look(path)
        _check_name(path)
        if found is None:
            found = Node("dir", 0o755, owner.uid, owner.gid, self.mtime_ns)
        elif found.kind == "dir":
            self._kept.add(path)
        else:
            raise SpecError(f"/{path} is no directory in the image")
        self.entries[path] = found

    def put(self, path: str, node: Node, owner: Owner, content: bytes | None = None) -> None:
        """Have a file, or a directory's mode and owner; ``content`` where no file has it.

        Raises
        ------
        SpecError
            A directory would take the place of something else, or something else that of one.
        """
        _check_name(path)
        there = self.look(path)
        if there is not None and (there.kind == "dir") != (node.kind == "dir"):
            what = "a symbolic link" if there.kind == "link" else f"a {there.kind}"
            if there.kind == "dir":
                raise SpecError(f"/{path} is a directory in the image, a {node.kind} comes over it")
            raise SpecError(
                f"/{path} is {what} in the image, a directory comes over it",
                hint=f"copy what is in it to /{path}/",
            )
        self.make_directory(path.rpartition("/")[0], owner)
        if node.kind == "dir" and not path:
            return  # the root stays as it is
        self.entries[path] = node
        self._kept.discard(path)
        if content is not None:
            self._inline[path] = content

    # --- what is in it -----------------------------------------------------------------------

    def digest(self) -> str:
        """Give what the layer is made of, as a digest: names, modes, owners, contents; not times.

        Raises
        ------
        StateError
            A file went away, or changed, meanwhile.
        """
        whole = hashlib.sha256()
        contents: dict[object, str] = {}
        for path, node in sorted(self.entries.items()):
            if path in self._kept:
                continue
            told = [path, node.kind, node.mode, node.uid, node.gid, node.target]
            told += [node.device if node.kind in ("char", "block") else 0]
            told += [[name, value.hex()] for name, value in node.xattrs]
            if node.kind == "file":
                key = node.inode or path
                if key not in contents:
                    content = hashlib.sha256()
                    for chunk in self._content(path, node):
                        content.update(chunk)
                    contents[key] = content.hexdigest()
                told += [contents[key]]
            whole.update(json.dumps(told).encode() + b"\n")
        return whole.hexdigest()

    @property
    def size(self) -> int:
        """How many bytes its files have."""
        return sum(node.size for node in self.entries.values())

    def _content(self, path: str, node: Node) -> Iterator[bytes]:
        if path in self._inline:
            yield self._inline[path]
            return
        changed = StateError(f"{node.real} changed while it was copied", hint="build again")
        try:
            with open(node.real, "rb", opener=_without_links) as file:
                left = node.size
                while left and (chunk := file.read(min(_CHUNK, left))):
                    left -= len(chunk)
                    yield chunk
                if left or os.fstat(file.fileno()).st_mtime_ns != node.mtime_ns:
                    raise changed
        except FileNotFoundError:
            raise changed from None

    def write(self, sink: Sink) -> None:
        """Write the layer's tar: sorted, so that the same files give the same bytes.

        Raises
        ------
        StateError
            A file went away, or changed, meanwhile.
        """
        names: dict[tuple[int, int], str] = {}
        for path, node in sorted(self.entries.items()):
            linked = None if node.inode is None else names.get(node.inode)
            if node.inode is not None and linked is None:
                names[node.inode] = path
            sink.write(header(path, node, linked))
            if node.kind == "file" and linked is None:
                for chunk in self._content(path, node):
                    sink.write(chunk)
                sink.write(bytes(-node.size % _BLOCK))
        sink.write(bytes(2 * _BLOCK))


def _check_name(path: str) -> None:
    if path.rpartition("/")[2].startswith(WHITEOUT):
        message = f"/{path}: a layer takes names with {WHITEOUT} for deletions"
        raise SpecError(message, hint="rename it, or name it in .dockerignore")


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def header(path: str, node: Node, linked: str | None) -> bytes:
    """Make a tar header; ``linked`` is the earlier name of a file that has more than one."""
    info = tarfile.TarInfo(path)
    info.type = tarfile.LNKTYPE if linked is not None else _TYPES[node.kind]
    info.mode, info.uid, info.gid = node.mode, node.uid, node.gid
    info.size = node.size if linked is None else 0
    info.linkname = linked or node.target
    if node.kind in ("char", "block"):
        info.devmajor, info.devminor = os.major(node.device), os.minor(node.device)
    seconds, nanoseconds = divmod(node.mtime_ns, 10**9)
    info.mtime = seconds
    pax: dict[str, str] = {}
    if nanoseconds:
        pax["mtime"] = f"{seconds}.{nanoseconds:09d}".rstrip("0")
    for name, value in node.xattrs:
        # tarfile encodes a value that isn't ASCII as UTF-8, with surrogates as the bytes they stand for.
        pax[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")
    info.pax_headers = pax
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def of_bytes(content: bytes, mtime_ns: int) -> Node:
    """Make the node of a file that has just these bytes."""
    return Node("file", 0o644, 0, 0, mtime_ns, size=len(content))


def changed(node: Node, *, owner: Owner | None, mode: int | None) -> Node:
    """Give a node to another owner, with another mode where one is asked for."""
    if owner is not None:
        node = replace(node, uid=owner.uid, gid=owner.gid)
    return node if mode is None or node.kind == "link" else replace(node, mode=mode)
