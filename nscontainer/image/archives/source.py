"""An archive or a directory as named parts, whatever it came by: a file, a stream, compressed or not.

An archive that is compressed, or comes by a pipe, goes to a nameless temporary file first: an archive
of images says only near its end which of its members are needed.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, Protocol

from nscontainer.errors import ImageError, LayerError, SpecError
from nscontainer.image import compression, files
from nscontainer.image.archives import tarindex
from nscontainer.linux.syscalls import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, KernelError, openat2

CHUNK: Final = 1 << 20
JSON_LIMIT: Final = 8 << 20
"""The longest manifest, index or config that is read into memory."""

Given = str | os.PathLike[str] | BinaryIO
"""A path, or a stream of bytes."""


class Source(Protocol):
    """Parts by name."""

    @property
    def what(self) -> str:
        """What errors call it."""

    def size(self, name: str) -> int | None:
        """Give a part's size in bytes, or None where there is no such part."""

    def open(self, name: str) -> BinaryIO:
        """Open a part that is there."""


def read(source: Source, name: str, limit: int = JSON_LIMIT) -> bytes:
    """Read a part whole.

    Raises
    ------
    ImageError
        It isn't there, or is longer than the limit.
    """
    size = source.size(name)
    if size is None:
        raise ImageError(f"{source.what} has no {name}")
    if size > limit:
        raise ImageError(f"{source.what}: {name} has {size} bytes, more than {limit}")
    with source.open(name) as file:
        data = file.read(size)
    if len(data) != size:
        raise ImageError(f"{source.what}: {name} ends after {len(data)} of {size} bytes")
    return data


@contextlib.contextmanager
def opened(given: Given, temporary: str) -> Iterator[Source]:
    """Open an archive or a directory.

    Parameters
    ----------
    temporary
        The directory for a compressed archive's content.

    Raises
    ------
    SpecError
        It can't be opened.
    ImageError
        It is no tar, or its compressed form is damaged or a bomb.
    """
    if isinstance(given, str | os.PathLike) and os.path.isdir(given):
        with _directory(os.fspath(given)) as directory:
            yield directory
        return
    with raw(given) as (stream, what), contextlib.ExitStack() as stack:
        file = _seekable_tar(stream)
        if file is None:
            file = stack.enter_context(_spooled(stream, temporary, what))
        yield _Tar(file, what, tarindex.read(file, what))


@contextlib.contextmanager
def raw(given: Given) -> Iterator[tuple[BinaryIO, str]]:
    """Open a file, or take a stream; give it with what errors call it."""
    if not isinstance(given, str | os.PathLike):
        yield given, str(getattr(given, "name", "")) or "the archive"
        return
    path = os.fspath(given)
    try:
        stream = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise SpecError(f"{path} can't be opened: {error.strerror}") from None
    with stream:
        yield stream, path


def _seekable_tar(stream: BinaryIO) -> BinaryIO | None:
    """Give a plain tar in a regular file as what can be read at any place."""
    try:
        fd = stream.fileno()
        if not stat.S_ISREG(os.fstat(fd).st_mode) or stream.tell() != 0:
            return None
        beginning = os.pread(fd, 16, 0)
    except (OSError, ValueError, AttributeError):  # no descriptor, or a pipe
        return None
    return None if compression.decompress(io.BytesIO(beginning)).kind else stream


@contextlib.contextmanager
def _spooled(stream: BinaryIO, temporary: str, what: str) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile(dir=temporary) as file:
        try:
            with files.disk_errors(f"{what} was being unpacked"):
                shutil.copyfileobj(compression.decompress(stream), file, CHUNK)
                file.flush()
        except LayerError as error:
            raise ImageError(f"{what}: {error}", hint=error.hint) from None
        yield file


class Counting(io.RawIOBase):
    """Counts the bytes that are read from a stream."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        self.count = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Read the next bytes, as many as come at once."""
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)


class _Window(io.RawIOBase):
    """A span of a file, which others may read at the same time."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        super().__init__()
        self._fd, self._at, self._end = fd, offset, offset + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        view = memoryview(buffer)[: max(0, self._end - self._at)]
        count = os.preadv(self._fd, [view], self._at) if len(view) else 0
        self._at += count
        return count


@dataclass(frozen=True, slots=True)
class _Tar:
    file: BinaryIO
    what: str
    index: tarindex.Index

    def size(self, name: str) -> int | None:
        member = self.index.find(name)
        return None if member is None else member.size

    def open(self, name: str) -> BinaryIO:
        member = self.index.find(name)
        assert member is not None
        return io.BufferedReader(_Window(self.file.fileno(), member.offset, member.size), CHUNK)


@dataclass(frozen=True, slots=True)
class _Directory:
    fd: int
    what: str

    def _open(self, name: str) -> int | None:
        """Open a regular file of the directory; links that stay inside it are followed."""
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
        try:
            fd = openat2(self.fd, name, flags, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
        except (KernelError, ValueError):  # ValueError: half a character, which no file's name has
            return None
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        return None

    def size(self, name: str) -> int | None:
        fd = self._open(name)
        if fd is None:
            return None
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def open(self, name: str) -> BinaryIO:
        fd = self._open(name)
        if fd is None:
            raise ImageError(f"{self.what} has no {name} any more")
        return os.fdopen(fd, "rb", buffering=CHUNK)


@contextlib.contextmanager
def _directory(path: str) -> Iterator[_Directory]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SpecError(f"{path} can't be opened: {error.strerror}") from None
    try:
        yield _Directory(fd, path)
    finally:
        os.close(fd)
