"""Trees of files as COPY sees them: an image's union of layers, or a build's context.

A tree is looked at by paths without ``..``, component by component, and a symbolic link on the way is
never followed by the kernel but by :func:`resolve`: inside the tree, as if it were the root.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

from nscontainer.errors import SpecError
from nscontainer.image.tree import is_opaque
from nscontainer.linux import userns

Kind = Literal["dir", "file", "link", "fifo", "char", "block"]
_KINDS: Final[dict[int, Kind]] = {
    stat.S_IFDIR: "dir",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
}
_NOBODY: Final = 65534
_MAX_LINKS: Final = 40  # path_resolution(7)
READ_LIMIT_BYTES: Final = 1 << 20
HOST: Final = "/."
"""This machine's root as the lowest directory of a union; so written, its files are told from layers'."""


@dataclass(frozen=True, slots=True)
class Node:
    """What stands at a path."""

    kind: Kind
    mode: int
    """Permission bits, set-user-id and the like too."""
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    target: str = ""
    """Where a symbolic link points."""
    device: int = 0
    real: str = ""
    """Where its content is to be had."""
    inode: tuple[int, int] | None = None
    """Device and number, where it has more than one name."""
    xattrs: tuple[tuple[str, bytes], ...] = ()


class Tree(Protocol):
    """What files can be looked up in. Paths have no slash at either end; the root is ''."""

    def look(self, path: str) -> Node | None:
        """Give what is there, without following a last symbolic link; None where nothing is."""

    def names(self, path: str) -> list[str]:
        """Give the names in a directory, sorted."""


def node_at(real: str, *, xattrs: bool) -> Node | None:
    """Make a node of a file; None where there is none, or a socket."""
    try:
        found = os.lstat(real)
        kind = _KINDS.get(stat.S_IFMT(found.st_mode))
        if kind is None:
            return None
        return Node(
            kind=kind,
            mode=stat.S_IMODE(found.st_mode),
            uid=found.st_uid,
            gid=found.st_gid,
            mtime_ns=found.st_mtime_ns,
            size=found.st_size if kind == "file" else 0,
            target=os.readlink(real) if kind == "link" else "",
            device=found.st_rdev,
            real=real,
            inode=(found.st_dev, found.st_ino) if found.st_nlink > 1 and kind == "file" else None,
            xattrs=_xattrs(real) if xattrs and kind in ("file", "dir") else (),
        )
    except (FileNotFoundError, NotADirectoryError):
        return None


def _xattrs(real: str) -> tuple[tuple[str, bytes], ...]:
    """Give what travels with a file: capabilities and the user's own attributes."""
    try:
        names = os.listxattr(real, follow_symlinks=False)
        wanted = sorted(n for n in names if n == "security.capability" or n.startswith("user."))
        return tuple((name, os.getxattr(real, name, follow_symlinks=False)) for name in wanted)
    except OSError:
        return ()  # a filesystem without


def resolve(tree: Tree, path: str) -> str:
    """Follow every symbolic link of a path, the last one too; what isn't there stays as it is.

    Raises
    ------
    SpecError
        The links go in circles.
    """
    todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            del done[-1:]
            continue
        node = tree.look("/".join([*done, part]))
        if node is None or node.kind != "link":
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise SpecError(f"the symbolic links of {path!r} go in circles")
        if node.target.startswith("/"):
            done.clear()
        todo.extend(part for part in reversed(node.target.split("/")) if part not in ("", "."))
    return "/".join(done)


def read(tree: Tree, path: str) -> bytes:
    """Give the beginning of a file of a tree (at most 1 MiB); nothing where there is none."""
    node = tree.look(resolve(tree, path))
    if node is None or node.kind != "file":
        return b""
    with open(node.real, "rb") as file:
        return file.read(READ_LIMIT_BYTES)


class Union:
    """The layers of an image, as overlayfs would show them.

    Parameters
    ----------
    directories
        The layers' diff directories in overlayfs's form, the lowest first.
    hides
        Tells whether what has a path in :data:`HOST` isn't to be seen, as in a container of it.
    """

    def __init__(
        self, directories: Iterable[str], hides: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._hides = hides
        self._stacks: dict[str, tuple[str, ...]] = {"": tuple(reversed(list(directories)))}

    def look(self, path: str) -> Node | None:
        """Give what is there, without following a last symbolic link; None where nothing is."""
        if not path:
            stack = self._stacks[""]
            return node_at(stack[0], xattrs=True) if stack else None
        parent, _, name = path.rpartition("/")
        for directory in self._stack(parent):
            node = self._node(f"{directory}/{name}", xattrs=True)
            if node is not None:
                return None if _is_whiteout(node) else node
        return None

    def names(self, path: str) -> list[str]:
        """Give the names in a directory, sorted."""
        found: dict[str, bool] = {}
        for directory in self._stack(path):
            for entry in os.scandir(directory):
                if entry.name not in found:
                    node = self._node(entry.path)
                    found[entry.name] = node is not None and not _is_whiteout(node)
        return sorted(name for name, is_there in found.items() if is_there)

    def _node(self, real: str, *, xattrs: bool = False) -> Node | None:
        if real.startswith(f"{HOST}/") and self._hides(real[len(HOST) :]):
            return None
        node = node_at(real, xattrs=xattrs)
        if node is None or userns.privileged() or not real.startswith(f"{HOST}/"):
            return node
        # What of this machine is of no id of our user namespace looks like nobody's (65534); here it is root's.
        uid, gid = (0 if number == _NOBODY else number for number in (node.uid, node.gid))
        return replace(node, uid=uid, gid=gid)

    def _stack(self, path: str) -> tuple[str, ...]:
        """Give the directories that are merged at a path, the topmost first."""
        if path not in self._stacks:
            parent, _, name = path.rpartition("/")
            merged = []
            for directory in self._stack(parent):
                real = f"{directory}/{name}"
                node = self._node(real)
                if node is None:
                    continue
                if node.kind != "dir":
                    break
                merged.append(real)
                if is_opaque(real):
                    break
            self._stacks[path] = tuple(merged)
        return self._stacks[path]


def _is_whiteout(node: Node) -> bool:
    return node.kind == "char" and node.device == 0


def clean(path: str) -> str:
    """Give a path as trees take it: no ``.``, no ``..``, no slash at either end."""
    return posixpath.normpath("/" + path).lstrip("/")
