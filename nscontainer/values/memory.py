"""Files that live in memory and have no name; large ones in huge pages."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from typing import Final

from nscontainer import nameless
from nscontainer.linux import mount
from nscontainer.runner import values

ALIGN: Final = values.ALIGN
"""Where each buffer begins, in bytes: at a multiple of it."""
_HUGE_FROM: Final = 4 << 20
_LINUX: Final = hasattr(os, "O_TMPFILE")
_OPEN: Final = "/proc/self/fd" if _LINUX else "/dev/fd"


def new_file(size: int | None) -> int:
    """Make a file that is read and written by its descriptor only, which is the caller's to close.

    A memfd where it is small. Else a file of a tmpfs of its own, which is mounted nowhere: it may have
    huge pages (tmpfs(5), ``huge=``), which a memfd has only where the whole host is set so. Filling a
    gigabyte then takes a quarter of the time.

    Parameters
    ----------
    size
        How large it is going to be, in bytes; None where that is not known.
    """
    if _LINUX and (size is None or size >= _HUGE_FROM):
        # OSError: not root, or a Linux without transparent huge pages. A memfd does as well.
        with contextlib.suppress(OSError):
            options: dict[str, str | None] = {"size": "0", "huge": "within_size"}
            filesystem = mount.new_filesystem("tmpfs", options)
            try:
                path = f"/proc/self/fd/{filesystem}/."
                return os.open(path, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o400)
            finally:
                os.close(filesystem)
    return nameless.new("values")


def for_reading(fd: int) -> int:
    """Open a file of ours once more, to be read only."""
    return os.open(f"{_OPEN}/{fd}", os.O_RDONLY | os.O_CLOEXEC)


def is_written_by_nobody(fd: int) -> bool:
    """Tell whether no process has the file open for writing, or mapped so.

    Linux grants a read lease only then (F_SETLEASE in fcntl(2)). ``fd`` is open for reading only.
    """
    if not _LINUX:
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return False
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True


def copy_on_write(fd: int, size: int) -> memoryview:
    """Map a file: writing to the memory changes nothing in the file, nor costs anything before."""
    return memoryview(mmap.mmap(fd, size, access=mmap.ACCESS_COPY))


def copied(fd: int, size: int) -> memoryview:
    """Read a file into memory of our own."""
    view, done = memoryview(mmap.mmap(-1, size)), 0
    while done < size:
        count = os.preadv(fd, [view[done : done + values.MOST_AT_ONCE]], done)
        if not count:
            message = f"the file ends at {done} of {size} bytes"
            raise OSError(message)
        done += count
    return view
