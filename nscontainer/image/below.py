"""What lies below a container's read-write layer, looked at as overlayfs unites it.

Read from the directories on the disk and not through a mount: the container may have ended, and its
mounts were in its monitor's namespace alone. No symbolic link is ever followed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from nscontainer.image.host import View
from nscontainer.image.tree import is_whiteout, opaque_mark
from nscontainer.linux import userns
from nscontainer.linux.syscalls import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2


class Layer(Protocol):
    """One layer. Paths are relative to its top, without a slash at either end; "" is the top."""

    def stat(self, path: str) -> os.stat_result | None:
        """Give what it has at a path, a whiteout too; None where it has nothing."""

    def opaque(self, path: str) -> bool:
        """Tell whether nothing of the layers below is seen in a directory."""

    def names(self, path: str) -> list[str]:
        """List a directory."""

    def xattr(self, path: str, name: str) -> bytes | None:
        """Give an extended attribute."""


class DiskLayer:
    """A layer that is a directory of the disk.

    Parameters
    ----------
    top
        An open directory, which is closed with it.
    """

    def __init__(self, top: int) -> None:
        self._top = top

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._top)

    def _open(self, path: str, flags: int) -> int:
        return openat2(self._top, path or ".", flags, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)

    def stat(self, path: str) -> os.stat_result | None:
        """Give what is at a path."""
        try:
            fd = self._open(path, os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def opaque(self, path: str) -> bool:
        """Look for overlayfs' mark."""
        return self.xattr(path, opaque_mark()) == b"y"

    def names(self, path: str) -> list[str]:
        """List a directory."""
        try:
            fd = self._open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return []
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)

    def xattr(self, path: str, name: str) -> bytes | None:
        """Give an attribute of a file or directory."""
        try:
            fd = self._open(path, os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            return os.getxattr(f"/proc/self/fd/{fd}", name)
        except OSError:
            return None
        finally:
            os.close(fd)


class HostLayer:
    """The machine's own directory as a view shows it, with the init layer that hides."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._there = {*view.hidden, *view.shown, *view.directories}
        for path in (*self._there, *view.links):
            above = os.path.dirname(path)
            while len(above) > len(view.path):
                self._there.add(above)
                above = os.path.dirname(above)

    def _at(self, path: str) -> str:
        return os.path.join(self._view.path, path).rstrip("/") or "/"

    def stat(self, path: str) -> os.stat_result | None:
        """Give what the container sees there."""
        place = self._at(path)
        seen = place in self._there or place in self._view.links or self._view.shows(place)
        if not seen or place in self._view.removed:
            return None
        try:
            return _with_owner(os.lstat(place))
        except OSError:
            return None

    def opaque(self, _: str) -> bool:
        """There is nothing below."""
        return True

    def names(self, path: str) -> list[str]:
        """List what the container sees."""
        place = self._at(path)
        try:
            found = os.listdir(place)
        except OSError:
            return []
        return [name for name in found if self.stat(f"{path}/{name}".lstrip("/")) is not None]

    def xattr(self, path: str, name: str) -> bytes | None:
        """Give an attribute."""
        with contextlib.suppress(OSError):
            return os.getxattr(self._at(path), name, follow_symlinks=False)
        return None


_NOBODY = 65534  # /proc/sys/kernel/overflowuid


def _with_owner(facts: os.stat_result) -> os.stat_result:
    """Give to root what is of no id of this user namespace: its directories are root's where we make them."""
    if userns.privileged() or _NOBODY not in (facts.st_uid, facts.st_gid):
        return facts
    plain = list(facts[:10])
    plain[4:6] = [0 if number == _NOBODY else number for number in plain[4:6]]
    exact = ("st_atime_ns", "st_mtime_ns", "st_ctime_ns", "st_rdev", "st_blocks", "st_blksize")
    return os.stat_result(plain, {name: getattr(facts, name) for name in exact})


def view_of(facts: Mapping[str, Any]) -> View:
    """Read a view as a container's state file has it."""
    return View(
        str(facts["path"]),
        hidden=set(facts.get("hidden", ())),
        shown=set(facts.get("shown", ())),
        removed=set(facts.get("removed", ())),
        directories=set(facts.get("directories", ())),
        links=dict(facts.get("links", {})),
    )


class Stack:
    """Layers united, top first.

    A directory is a path and the layers that it is made of: those down to the first that has
    something else there, or marks it opaque.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = layers
        self.top = self._open("", range(len(layers)))

    def _open(self, path: str, among: Iterable[int]) -> tuple[int, ...]:
        open_in = []
        for number in among:
            facts = self._layers[number].stat(path)
            if facts is None:
                continue
            if not stat.S_ISDIR(facts.st_mode):
                break
            open_in.append(number)
            if self._layers[number].opaque(path):
                break
        return tuple(open_in)

    def look(
        self, inside: tuple[int, ...], path: str
    ) -> tuple[os.stat_result | None, tuple[int, ...]]:
        """Give what stands at a path in a directory of these layers; and its own layers if it is one."""
        for at, number in enumerate(inside):
            facts = self._layers[number].stat(path)
            if facts is None:
                continue
            if is_whiteout(facts):
                return None, ()
            if stat.S_ISDIR(facts.st_mode):
                return facts, self._open(path, inside[at:])
            return facts, ()
        return None, ()

    def names(self, inside: tuple[int, ...], path: str) -> list[str]:
        """List a directory."""
        found = {name for number in inside for name in self._layers[number].names(path)}
        return sorted(
            name for name in found if self.look(inside, f"{path}/{name}".lstrip("/"))[0] is not None
        )

    def xattr(self, inside: tuple[int, ...], path: str, name: str) -> bytes | None:
        """Give an extended attribute of what stands at a path."""
        for number in inside:
            if self._layers[number].stat(path) is not None:
                return self._layers[number].xattr(path, name)
        return None

    def find(self, path: str) -> os.stat_result | None:
        """Give what stands at a path from the top."""
        inside, here, facts = self.top, "", None
        for part in [part for part in path.split("/") if part]:
            here = f"{here}/{part}".lstrip("/")
            facts, inside = self.look(inside, here)
            if facts is None:
                return None
        return facts
