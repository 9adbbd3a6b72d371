"""Files that are there whole or not at all, and locks that end with their holder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from typing import Final

from nscontainer.errors import HostError
from nscontainer.linux import syscalls

SCRATCH: Final = "tmp"
"""The directory of a store where files are made; on the same filesystem as all of it."""
_SYNCFS: Final = syscalls.libc.syncfs


def write_whole(path: str, data: bytes, scratch: str) -> None:
    """Write a file so that a reader, or one who looks after a crash, sees all of it or the old one.

    Parameters
    ----------
    scratch
        A directory on the same filesystem for the file in the making.
    """
    temporary = f"{scratch}/new-{os.urandom(8).hex()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_directory(os.path.dirname(path))


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of it: write(2) may take a part."""
    done = os.write(fd, data)
    if done < len(data):
        view = memoryview(data)
        while done < len(view):
            done += os.write(fd, view[done:])


def sync_directory(path: str) -> None:
    """See to it that a rename in this directory outlives a crash."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_filesystem(path: str) -> None:
    """Write everything of the filesystem that a path is on to the disk: syncfs(2)."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.check(_SYNCFS(fd), "syncfs", path)
    finally:
        os.close(fd)


@contextlib.contextmanager
def shared(path: str) -> Iterator[None]:
    """Hold a lock together with others who share it."""
    with _held(path, fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def exclusive(path: str) -> Iterator[None]:
    """Hold a lock alone; wait until it can be had."""
    with _held(path, fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def exclusive_if_free(path: str) -> Iterator[bool]:
    """Hold a lock alone if it can be had at once; gives whether it is."""
    fd = _open(path)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            yield False
        else:
            yield True
    finally:
        os.close(fd)


@contextlib.contextmanager
def _held(path: str, how: int) -> Iterator[None]:
    fd = _open(path)
    try:
        fcntl.flock(fd, how)
        yield
    finally:
        os.close(fd)


def _open(path: str) -> int:
    # Lock files are never removed: who waits for one that was would hold nothing.
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextlib.contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Turn a full or broken disk's error into one line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"no space left on the disk while {doing}"
            raise HostError(message, hint="prune frees what is unused") from None
        if error.errno in (errno.EROFS, errno.EIO):
            message = f"{error.strerror} while {doing}"
            raise HostError(message.lower()) from None
        raise
