"""A directory tree that is written into by name, and never left: directories by descriptor.

Each component of a path is opened on its own, with O_NOFOLLOW. A symbolic link where a directory is
expected is followed as the container would see it: within the tree, ``/`` and ``..`` at its top.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Final

from nscontainer.errors import LayerError
from nscontainer.image.tarheader import shown
from nscontainer.linux import userns

Parts = tuple[bytes, ...]

OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CACHED: Final = 48
_MOST_LINKS: Final = 40
"""As Linux: path_resolution(7)."""


def split(name: bytes, *, most_bytes: int, most_parts: int) -> Parts:
    """Split an entry's name into its components; a leading slash and ``.`` mean nothing.

    Raises
    ------
    LayerError
        A component is ``..`` or longer than 255 bytes, or there are too many.
    """
    parts = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        raise _bad(name, "'..' in its name")
    if len(name) > most_bytes or len(parts) > most_parts:
        raise _bad(name, f"its name has {len(name)} bytes and {len(parts)} parts")
    if any(len(part) > 255 for part in parts):
        raise _bad(name, "a part of its name has more than 255 bytes")
    if b"\0" in name:
        raise _bad(name, "a NUL in its name")
    return parts


def _bad(name: bytes, why: str) -> LayerError:
    return LayerError(f"{shown(name)}: {why}", entry=shown(name))


class Tree:
    """The tree below one directory.

    Parameters
    ----------
    top
        An open directory; stays the caller's.
    deepest
        Levels of directories there may be: names through links could pile up any number.
    """

    def __init__(self, top: int, deepest: int) -> None:
        self._top = top
        self._deepest = deepest
        self._open: dict[Parts, int] = {}
        self.made: set[Parts] = set()
        """Directories that nobody described: parents made on the way."""

    def close(self) -> None:
        """Let go of the directories that are open."""
        self.forget()

    def trim(self) -> None:
        """Close the directories opened first where there are many; between two entries only."""
        while len(self._open) > _CACHED:
            os.close(self._open.pop(next(iter(self._open))))

    def forget(self) -> None:
        """Close directories held open: one of them may have been replaced."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def directory(self, parts: Parts, *, make: bool = True) -> tuple[int, Parts]:
        """Open a directory, made where it is missing; give it (not to be closed) and where it really is.

        Raises
        ------
        LayerError
            It can't be: something else is there, or the links go round in circles.
        OSError
            ``make`` is false and it isn't there.
        """
        if not parts:
            return self._top, parts
        if (fd := self._open.get(parts)) is not None:
            return fd, parts
        return self._walk(parts, make=make)

    def _walk(self, parts: Parts, *, make: bool) -> tuple[int, Parts]:
        start = len(parts) - 1
        while start and parts[:start] not in self._open:
            start -= 1
        at = parts[:start]
        todo = list(reversed(parts[start:]))
        links = 0
        fd = self._open[at] if at else self._top
        while todo:
            part = todo.pop()
            if part == b"..":
                at = at[:-1]
                fd = self.directory(at, make=make)[0]
                continue
            try:
                fd = self._step(fd, at, part, make=make)
            except NotADirectoryError:
                target = self._link(fd, part, (*at, part))
                links += 1
                if links > _MOST_LINKS or len(todo) > 2000:
                    raise _bad(b"/".join(parts), "too many symbolic links on the way") from None
                if target.startswith(b"/"):
                    at, fd = (), self._top
                todo += [p for p in reversed(target.split(b"/")) if p not in (b"", b".")]
                continue
            at = (*at, part)
            if len(at) > self._deepest:
                raise _bad(b"/".join(parts), f"more than {self._deepest} directories deep")
        return fd, at

    def _step(self, fd: int, at: Parts, part: bytes, *, make: bool) -> int:
        """Open one directory in another."""
        here = (*at, part)
        if (known := self._open.get(here)) is not None:
            return known
        try:
            new = os.open(part, OPEN_DIRECTORY, dir_fd=fd)
        except FileNotFoundError:
            if not make:
                raise
            os.mkdir(part, 0o700, dir_fd=fd)
            self.made.add(here)
            new = os.open(part, OPEN_DIRECTORY, dir_fd=fd)
        self._open[here] = new
        return new

    def _link(self, fd: int, part: bytes, here: Parts) -> bytes:
        try:
            return os.readlink(part, dir_fd=fd)
        except OSError:
            raise _bad(
                b"/".join(here), "is not a directory, and something is to be in it"
            ) from None

    def remove(self, fd: int, path: Parts) -> bool:
        """Remove what is in a directory, whatever it is; tell whether it was a directory itself.

        Parameters
        ----------
        fd
            The directory it is in, which stays open.
        path
            Where it really is.
        """
        try:
            os.unlink(path[-1], dir_fd=fd)
        except IsADirectoryError:
            for there in [p for p in self._open if p[: len(path)] == path]:
                os.close(self._open.pop(there))
            _remove_directory(fd, path[-1])
            return True
        return False


def _remove_directory(fd: int, name: bytes) -> None:
    if os.geteuid() != 0:
        # One that its mode closes to us. It is no link: nobody but us is here, and we have looked.
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                os.chmod(name, 0o700, dir_fd=fd)
    inner = os.open(name, OPEN_DIRECTORY, dir_fd=fd)
    try:
        for entry in os.listdir(inner):
            try:
                os.unlink(entry, dir_fd=inner)
            except IsADirectoryError:
                _remove_directory(inner, os.fsencode(entry))
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=fd)


def is_whiteout(facts: os.stat_result) -> bool:
    """Tell whether this is overlayfs' mark for "not there": a character device 0/0."""
    return stat.S_ISCHR(facts.st_mode) and facts.st_rdev == 0


def opaque_mark() -> str:
    """Name the attribute by which a directory hides what lower layers have of it.

    The other one is anyone's to set: overlayfs looks at it only where it was mounted so (``userxattr``), by
    who isn't root or is it in a user namespace alone, where there are no attributes ``trusted``.
    """
    return f"{'trusted' if userns.privileged() else 'user'}.overlay.opaque"


def is_opaque(directory: int | str) -> bool:
    """Tell whether a directory of a layer has overlayfs' mark for "nothing shines through"."""
    try:
        return os.getxattr(directory, opaque_mark()) == b"y"
    except OSError:
        return False


def remove_tree(path: str) -> None:
    """Remove a directory of ours with all in it, by descriptor, never following a link out of it."""
    parent = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            _remove_directory(parent, os.fsencode(os.path.basename(path)))
    finally:
        os.close(parent)
