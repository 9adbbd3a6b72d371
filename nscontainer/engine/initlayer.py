"""The init layer: what the engine puts between an image and a container's read-write layer.

Never committed. On the image ``host`` it hides as well (docs/adr/0005); on a stored image it has what the
image lacks of mount points and name files, found in the image's own layers without ever following one
of its links out of them (docs/adr/0019).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from nscontainer.image.host import COPIED_BYTES, OWN, WORLD_WRITABLE, View
from nscontainer.linux.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, openat2

INIT_FILES: Final = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
"""Empty in the init layer; the real ones are mounted over them and never committed."""
MARKER: Final = "/.nscontainerenv"


def make_init_layer(
    layer: str, view: View, *, owner: int | None, files: Iterable[str], covers: str | None = None
) -> None:
    """Write a view's init layer: what hides the host's directories, and mount points.

    Parameters
    ----------
    owner
        By how much ids are higher on the disk than in the container; None makes all of it the
        container's root's: what the host's root owns is nobody's in a user's namespace.
    files
        Those of :data:`INIT_FILES` and :data:`MARKER` that are in this view.
    covers
        A second layer, beneath the first, whose whiteouts hide: an ordinary user can't mark a directory
        opaque on every filesystem (tmpfs has user.* attributes from Linux 6.6 only).
    """
    os.mkdir(layer, 0o755)
    inside = _Relative(layer, view.path, owner, _on_host)
    if view.path != "/":
        with contextlib.suppress(OSError):
            facts = os.stat(view.path)
            os.chmod(layer, stat.S_IMODE(facts.st_mode))
            inside.chown(layer, facts.st_uid, facts.st_gid)
    else:
        inside.chown(layer, 0, 0)
    if covers is not None:
        os.mkdir(covers, 0o755)
        below = _Relative(covers, view.path, owner, _on_host)
        for path in sorted(view.hidden):
            below.whiteout(path)
    if view.bare:
        _fill(inside, view)
    else:
        _hide(inside, view, opaque=covers is None)
    for path in sorted(view.removed):
        inside.whiteout(path)
    for path, target in sorted(view.links.items()):
        inside.link(path, target)
    for path in files:
        inside.file(path)


def _hide(inside: _Relative, view: View, *, opaque: bool) -> None:
    for path in sorted(view.hidden):
        inside.directory(path, opaque=opaque)
    for path in sorted(view.directories | view.shown):
        inside.directory(path)
    for path in sorted(view.shown):
        inside.show(path)


def _fill(inside: _Relative, view: View) -> None:
    """Make a bare view: mount points, and copies of the files that stand beside them."""
    for path in sorted(view.directories):
        inside.directory(path)
    for path in sorted(view.shown):
        inside.copy(path)


def _on_host(path: str) -> os.stat_result | None:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    if path in WORLD_WRITABLE:  # sticky, as /tmp is
        return os.stat_result((stat.S_IFDIR | 0o1777, *facts[1:]))
    return facts


@dataclass(frozen=True, slots=True)
class _Relative:
    """Makes files of a layer by the container's absolute paths. The layer is nobody else's yet."""

    layer: str
    top: str
    owner: int | None
    facts_of: Callable[[str], os.stat_result | None]
    """What a directory below is like: a merged one shows what the top one is."""

    def _place(self, path: str) -> str:
        relative = os.path.relpath(path, self.top)
        here = self.layer
        seen = self.top.rstrip("/")
        for part in os.path.dirname(relative).split("/"):
            if part:
                here, seen = f"{here}/{part}", f"{seen}/{part}"
                if not os.path.isdir(here):
                    self._mkdir(here, seen)
        return os.path.join(self.layer, relative)

    def _mkdir(self, here: str, path: str) -> None:
        """Make a directory with the mode and owner of the one below."""
        os.mkdir(here, 0o755)
        facts = self.facts_of(path)
        uid = gid = 0
        if facts is not None:
            os.chmod(here, stat.S_IMODE(facts.st_mode))
            uid, gid = facts.st_uid, facts.st_gid
        self.chown(here, uid, gid)

    def chown(self, here: str, uid: int, gid: int) -> None:
        if self.owner is not None:
            os.chown(here, self.owner + uid, self.owner + gid, follow_symlinks=False)

    def directory(self, path: str, *, opaque: bool = False) -> None:
        here = self._place(path)
        if not os.path.isdir(here):
            self._mkdir(here, path)
        if opaque:
            os.setxattr(here, "trusted.overlay.opaque", b"y")

    def show(self, path: str) -> None:
        """Let a directory below an opaque one be seen: overlayfs looks it up from the layers' roots.

        An absolute redirect leaves the opaque parent behind (fs/overlayfs/namei.c, ovl_lookup). A
        mount of its own would do as well, at the price of another read-write layer.
        """
        target = "/" + os.path.relpath(path, self.top)
        os.setxattr(f"{self.layer}{target}", "trusted.overlay.redirect", os.fsencode(target))

    def whiteout(self, path: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mknod(self._place(path), stat.S_IFCHR, os.makedev(0, 0))

    def link(self, path: str, target: str) -> None:
        here = self._place(path)
        with contextlib.suppress(FileExistsError):
            os.symlink(target, here)
            self.chown(here, 0, 0)

    def file(self, path: str) -> None:
        here = self._place(path)
        with contextlib.suppress(FileNotFoundError):  # what was copied of the host's
            os.unlink(here)
        os.close(os.open(here, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
        self.chown(here, 0, 0)

    def copy(self, path: str) -> None:
        """Copy one of the host's small files, if everybody may read it."""
        with contextlib.suppress(OSError), open(path, "rb") as file:
            facts = os.fstat(file.fileno())
            if stat.S_ISREG(facts.st_mode) and facts.st_mode & stat.S_IROTH:
                here = self._place(path)
                with open(here, "xb") as copied:
                    copied.write(file.read(COPIED_BYTES))
                os.chmod(here, stat.S_IMODE(facts.st_mode) & 0o777)


# --- stored images ---------------------------------------------------------------------------

KERNELS: Final = ("/proc", "/sys", "/dev")
LINKS: Final = {"/etc/mtab": "/proc/mounts"}
_HOPS: Final = 40


@dataclass(frozen=True, slots=True)
class Found:
    """Where a stored image has what the engine mounts over, as real paths in the container."""

    name_files: dict[str, str]
    volumes: tuple[str, ...]


def make_image_init_layer(layer: str, tree: Tree, volumes: tuple[str, ...], *, owner: int) -> Found:
    """Write a stored image's init layer: only what the image lacks, or has of the wrong type.

    Parameters
    ----------
    volumes
        The paths that the image declares as ``VOLUME``: directories are made where it has none.
    """
    os.mkdir(layer, 0o755)
    inside = _Relative(layer, "/", owner, tree.directory)
    top = tree.directory("/")
    if top is not None:
        os.chmod(layer, stat.S_IMODE(top.st_mode))
        inside.chown(layer, top.st_uid, top.st_gid)
    for path in KERNELS:  # a link there would have the engine mount somewhere else
        if tree.directory(path) is None:
            inside.directory(path)
    _make_own(inside, tree)
    name_files = {path: real for path in INIT_FILES if (real := tree.place_for_file(path))}
    for real in (*name_files.values(), tree.place_for_file(MARKER)):
        if real is not None and tree.stat(real) is None:
            inside.file(real)
    for path, target in LINKS.items():
        real = None if tree.is_link(path) else tree.place_for_file(path)
        if real is not None and tree.stat(real) is None:
            inside.link(real, target)
    places = [place for path in volumes if not _of_kernel(place := tree.real(path))]
    for place in places:
        if tree.stat(place) is None:
            inside.directory(place)
    return Found(name_files, tuple(places))


def _make_own(inside: _Relative, tree: Tree) -> None:
    """Make the engine's own directory where the image has none, or a link that leads elsewhere."""
    if tree.directory(tree.real(OWN)) is not None and not tree.is_link(OWN):
        return
    parent = tree.real(os.path.dirname(OWN))
    if _of_kernel(parent) and parent != "/":
        parent = os.path.dirname(OWN)
    inside.directory(os.path.join(parent, os.path.basename(OWN)))


def _of_kernel(path: str) -> bool:
    """Tell whether the engine's own mounts lie over a path, or there is no place for another."""
    return path == "/" or path in KERNELS or path.startswith(tuple(f"{top}/" for top in KERNELS))


@dataclass(frozen=True, slots=True)
class Tree:
    """An image's united layers to look into, by paths of the container; no link is ever followed.

    Parameters
    ----------
    fd
        Of the mount that unites them.
    """

    fd: int

    def stat(self, path: str) -> os.stat_result | None:
        """Give what stands at a path, a link itself; None where nothing does."""
        fd = self._open(path)
        if fd is None:
            return None
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def _open(self, path: str) -> int | None:
        flags = os.O_PATH | os.O_NOFOLLOW
        try:
            return openat2(self.fd, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
        except OSError:
            return None

    def directory(self, path: str) -> os.stat_result | None:
        """Give a directory's facts; None where there is none."""
        facts = self.stat(path)
        return facts if facts is not None and stat.S_ISDIR(facts.st_mode) else None

    def is_link(self, path: str) -> bool:
        """Tell whether a symbolic link stands at a path."""
        facts = self.stat(path)
        return facts is not None and stat.S_ISLNK(facts.st_mode)

    def real(self, path: str) -> str:
        """Give the path that a container would come to, whether or not anything is there.

        Step by step by hand: what a link says is a text, and its ``..`` end at the root.
        """
        done, hops = "", 0
        rest = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        while rest:
            part = rest.pop()
            if part == "..":
                done = done.rpartition("/")[0]
                continue
            here = f"{done}/{part}"
            target = self._link(here)
            if target is None:
                done = here
                continue
            hops += 1
            if hops > _HOPS:
                return path  # a loop: to be covered, or left alone, as it stands
            if target.startswith("/"):
                done = ""
            rest += [part for part in reversed(target.split("/")) if part not in ("", ".")]
        return done or "/"

    def _link(self, path: str) -> str | None:
        fd = self._open(path)
        if fd is None:
            return None
        try:
            if not stat.S_ISLNK(os.fstat(fd).st_mode):
                return None
            return os.readlink("", dir_fd=fd)
        finally:
            os.close(fd)

    def place_for_file(self, path: str) -> str | None:
        """Give the real path for a file to be mounted on or made; None where none can be."""
        real = self.real(path)
        if _of_kernel(real) or self.is_link(real):
            return None
        facts = self.stat(real)
        if facts is not None and not stat.S_ISREG(facts.st_mode):
            return None
        above = os.path.dirname(real)
        while above != "/":
            facts = self.stat(above)
            if facts is not None:
                return real if stat.S_ISDIR(facts.st_mode) else None
            above = os.path.dirname(above)
        return real
