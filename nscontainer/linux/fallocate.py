"""Space of the disk for a file before it is written: fallocate(2); and given back: FITRIM."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from typing import Final

from nscontainer.linux.syscalls import check, kernel_error, libc

FITRIM: Final = 0xC0185879
_WHOLE: Final = struct.pack("QQQ", 0, 2**64 - 1, 0)


def fallocate(fd: int, size: int) -> None:
    """Have the disk set aside what a file of this size takes; what is in it stays.

    Not posix_fallocate(3), which writes all of it where the filesystem can't.

    Raises
    ------
    KernelError
        ENOSPC, or EOPNOTSUPP.
    """
    done = libc.fallocate(fd, 0, ctypes.c_long(0), ctypes.c_long(size))
    check(done, "fallocate", os.readlink(f"/proc/self/fd/{fd}"))


def trim(fd: int) -> None:
    """Give back what no file uses of the filesystem that an open directory is on."""
    try:
        fcntl.ioctl(fd, FITRIM, _WHOLE)
    except OSError as error:
        raise kernel_error(error.errno or 0, "ioctl FITRIM") from None
