"""Places in a container's root: found, made and mounted on from inside, always beneath its fd."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath

from nscontainer.linux import mount
from nscontainer.linux.syscalls import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    KernelError,
    kernel_error,
    openat2,
)


class Root:
    """Places in the container's root, always found beneath its fd.

    Parameters
    ----------
    made
        Takes the paths that are made in it.
    """

    def __init__(self, made: list[str] | None = None) -> None:
        self._made = [] if made is None else made
        self.fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def open(self, path: str) -> int:
        """Open what is there, through links that stay inside."""
        return openat2(self.fd, path, os.O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)

    def make(self, path: str, *, directory: bool, links: int = 0) -> int:
        """Open a place, making what is missing of it; of up to so many links to nothing, their targets."""
        with contextlib.suppress(FileNotFoundError):
            return self.open(path)
        parent, _, name = path.rstrip("/").rpartition("/")
        above = self.make(parent, directory=True, links=links) if parent else os.dup(self.fd)
        try:
            place = os.readlink(f"/proc/self/fd/{above}")
            target = _link_at(above, name) if links else None
            if target is not None:
                path = posixpath.normpath(posixpath.join(place, target))
                return self.make(f"/{path.lstrip('/')}", directory=directory, links=links - 1)
            if directory:
                os.mkdir(name, 0o755, dir_fd=above)
            else:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(name, flags, 0o644, dir_fd=above))
            self._made.append(posixpath.join(place, name))
        except KernelError:
            raise
        except OSError as error:
            raise kernel_error(error.errno or 0, "mkdir" if directory else "open", path) from None
        finally:
            os.close(above)
        return self.open(path)

    def attach(self, tree: int, path: str, *, directory: bool = True) -> None:
        """Mount a detached tree on a place, made where it is missing; close the tree."""
        target = self.make(path, directory=directory, links=40)
        try:
            mount.move_mount(tree, target)
        except KernelError as error:
            raise kernel_error(error.errno or 0, error.op, path) from None
        finally:
            os.close(target)
            os.close(tree)


def _link_at(above: int, name: str) -> str | None:
    """Read a link whose text is a path; one of procfs' is none, and may be the fd that we look by."""
    try:
        os.close(openat2(above, name, os.O_PATH, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EXDEV):
            return None
    try:
        return os.readlink(name, dir_fd=above)
    except OSError:  # nothing there, or no link
        return None
