"""One file, read and written by a process of ours: a FUSE filesystem whose root is that file.

What asks for its bytes may be anyone, the kernel's own threads included; whoever serves it does the
I/O, and in whose cgroup that process is, there it is charged and throttled
(Documentation/filesystems/fuse, include/uapi/linux/fuse.h, protocol 7.31).

The filesystem is never attached anywhere: it is there as long as its file is open. When the server
dies, however, every request fails with ENOTCONN: nobody hangs.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import struct
import threading
from typing import TYPE_CHECKING, Final

from nscontainer.linux import mount
from nscontainer.linux.syscalls import check, libc

if TYPE_CHECKING:
    from typing_extensions import Buffer

DEVICE: Final = "/dev/fuse"
MAX_WRITE: Final = 1 << 20
"""The most that a request can carry: FUSE_MAX_MAX_PAGES, 256 pages."""

_GETATTR, _SETATTR, _OPEN, _READ, _WRITE = 3, 4, 14, 15, 16
_RELEASE, _FSYNC, _FLUSH, _INIT, _FALLOCATE = 18, 20, 25, 26, 43
_SILENT: Final = frozenset({2, 36, 42})  # FORGET, INTERRUPT, BATCH_FORGET: no answer is expected
_DESTROY: Final = 38

_IN: Final = struct.Struct("<IIQQIIIHH")  # fuse_in_header
_OUT: Final = struct.Struct("<IiQ")  # fuse_out_header
_RANGE: Final = struct.Struct("<QQIIQII")  # fuse_read_in, fuse_write_in
_INIT_OUT: Final = struct.Struct("<IIIIHHIIHHII16x")
_ATTR_OUT: Final = struct.Struct("<QII6Q10I")
_ARGUMENTS: Final = _IN.size + _RANGE.size
"""Where a write's data begins; they are read past it, into a buffer of their own that is aligned."""

# FUSE_ASYNC_READ, FUSE_BIG_WRITES, FUSE_ASYNC_DIO, FUSE_MAX_PAGES
_FLAGS: Final = 1 | 1 << 5 | 1 << 15 | 1 << 22
_BACKGROUND: Final = 64


def make() -> tuple[int, int]:
    """Make the filesystem: the server's end, and a detached mount whose root is the file.

    Nothing answers until :func:`serve` does; the file is opened through :func:`open_root` then.

    Raises
    ------
    KernelError
        Linux has no FUSE, or this user may not.
    """
    server = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        options = {"fd": str(server), "rootmode": "100600", "user_id": "0", "group_id": "0"}
        attrs = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC
        return server, mount.new_filesystem("fuse", options, attrs=attrs, source="nscontainer")
    except BaseException:
        os.close(server)
        raise


def open_root(mount_fd: int) -> int:
    """Open the file, for direct I/O."""
    return os.open(f"/proc/self/fd/{mount_fd}", os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)


def serve(server: int, file: int, threads: int = 4) -> None:
    """Answer until the filesystem is gone.

    Parameters
    ----------
    server
        The server's end.
    file
        What is read and written; with O_DIRECT, requests must be of whole blocks.
    threads
        How many requests are in work at a time.
    """
    others = [threading.Thread(target=_Server(server, file).run) for _ in range(threads - 1)]
    for thread in others:
        thread.start()
    _Server(server, file).run()
    for thread in others:
        thread.join()


class _Server:
    """One thread's loop and buffers."""

    def __init__(self, server: int, file: int) -> None:
        self.server = server
        self.file = file
        self.head = bytearray(_ARGUMENTS)
        # By mmap: on a page's boundary, as O_DIRECT wants it.
        self.data = memoryview(mmap.mmap(-1, MAX_WRITE + mmap.PAGESIZE))

    def run(self) -> None:
        buffers: list[Buffer] = [self.head, self.data]
        while True:
            try:
                os.readv(self.server, buffers)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    continue  # ENOENT: it was taken back
                return  # ENODEV: the filesystem is gone
            _, operation, unique, *_ = _IN.unpack_from(self.head)
            if operation == _DESTROY:
                return
            if operation not in _SILENT:
                self._answer(operation, unique)

    def _answer(self, operation: int, unique: int) -> None:
        code = 0
        body: bytes | memoryview = b""
        try:
            body = self._do(operation)
        except OSError as error:
            code = error.errno or errno.EIO
        length = _OUT.size + len(body)
        with contextlib.suppress(OSError):  # ENOENT: who asked has given up; ENODEV: see run()
            os.writev(self.server, [_OUT.pack(length, -code, unique), body])

    def _do(self, operation: int) -> bytes | memoryview:
        if operation in (_READ, _WRITE):
            _, offset, size, *_ = _RANGE.unpack_from(self.head, _IN.size)
            if operation == _READ:
                return self.data[: os.preadv(self.file, [self.data[:size]], offset)]
            return struct.pack("<II", os.pwritev(self.file, [self.data[:size]], offset), 0)
        if operation == _INIT:
            ahead, flags = struct.unpack_from("<8xII", self.head, _IN.size)
            return _INIT_OUT.pack(
                7, 31, ahead, _FLAGS & flags, _BACKGROUND, _BACKGROUND, MAX_WRITE, 1,
                MAX_WRITE // mmap.PAGESIZE, 0, 0, 0,
            )  # fmt: skip
        if operation in (_GETATTR, _SETATTR):
            return self._attributes()
        if operation == _OPEN:
            return struct.pack("<QII", 1, 0, 0)
        if operation == _FSYNC:
            os.fdatasync(self.file)
        elif operation == _FALLOCATE:
            self._fallocate()
        elif operation not in (_RELEASE, _FLUSH):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        return b""

    def _attributes(self) -> bytes:
        facts = os.fstat(self.file)
        hour = 3600
        return _ATTR_OUT.pack(
            hour, 0, 0, facts.st_ino, facts.st_size, facts.st_blocks, 0, 0, 0,
            0, 0, 0, 0o100600, 1, 0, 0, 0, 4096, 0,
        )  # fmt: skip

    def _fallocate(self) -> None:
        """Give freed blocks back: a discard is a hole in the file."""
        _, offset, length, mode, _ = struct.unpack_from("<QQQII", self.head, _IN.size)
        result = libc.fallocate(
            self.file, ctypes.c_int(mode), ctypes.c_long(offset), ctypes.c_long(length)
        )
        check(result, "fallocate")
