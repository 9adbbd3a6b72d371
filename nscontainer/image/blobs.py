"""Blobs: files named by the digest of what is in them, and how one comes to be."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from types import TracebackType
from typing import BinaryIO, Final, Self

from nscontainer.errors import ImageError
from nscontainer.image import digest as digests
from nscontainer.image import files
from nscontainer.image.records import Descriptor

_CHUNK: Final = 1 << 20


class Blobs:
    """The directory ``blobs/sha256`` of a store, and ``tmp`` beside it."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.directory = f"{root}/blobs/sha256"
        self.scratch = f"{root}/{files.SCRATCH}"

    def path(self, digest: str) -> str:
        """Give the file of a blob, whether it is there or not."""
        return f"{self.directory}/{digests.hexadecimal(digest)}"

    def has(self, digest: str) -> bool:
        """Tell whether a blob is there, whole."""
        return os.path.isfile(self.path(digest))

    def open(self, blob: Descriptor) -> BinaryIO:
        """Open a blob for reading. Whoever reads it compares the digest; the size is looked at here.

        Raises
        ------
        ImageError
            It isn't there, or not as long as it should be.
        """
        try:
            file = open(self.path(blob.digest), "rb", buffering=0)  # noqa: SIM115 - the caller's
        except FileNotFoundError:
            raise _missing(blob.digest) from None
        size = os.fstat(file.fileno()).st_size
        if size != blob.size:
            file.close()
            raise damaged(blob.digest, f"{size} bytes instead of {blob.size}")
        return file

    def read(self, blob: Descriptor, limit: int) -> bytes:
        """Read a small blob whole, its digest and size compared.

        Raises
        ------
        ImageError
            It isn't there, is damaged, or is larger than ``limit`` bytes.
        """
        if blob.size > limit:
            message = f"the blob {blob.digest} has {blob.size} bytes; at most {limit} are read"
            raise ImageError(message)
        with self.open(blob) as file:
            data = file.read()
        if digests.of(data) != blob.digest:
            raise damaged(blob.digest, "its digest is another")
        return data

    def partials(self) -> list[int]:
        """Give the bytes of each file in the making, or left by who was killed."""
        sizes = []
        with os.scandir(self.scratch) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    sizes.append(entry.stat().st_size)
        return sizes

    def put(self, data: bytes) -> str:
        """Keep some bytes; give their digest."""
        digest = digests.of(data)
        if not self.has(digest):
            with files.disk_errors("an image was being written"):
                files.write_whole(self.path(digest), data, self.scratch)
        return digest


def damaged(digest: str, how: str) -> ImageError:
    """Make the error for a blob that is not what its name says."""
    message = f"the blob {digest} is damaged: {how}"
    return ImageError(message, hint="remove the image (rmi) and pull or load it again")


def _missing(digest: str) -> ImageError:
    message = f"the blob {digest} is not in the store"
    return ImageError(message, hint="remove the image (rmi) and pull or load it again")


class BlobWriter:
    """A blob that is being written: a context, left without it where :meth:`commit` was not called.

    With a digest, what a killed writer left is gone on with: :attr:`offset` bytes are there already
    (all, where another has finished it meanwhile; then nothing more need be written). A second
    writer of the same digest waits for the first.

    Parameters
    ----------
    digest, size
        What the blob must turn out to have; None where that is still to be seen.
    """

    def __init__(self, blobs: Blobs, digest: str | None = None, size: int | None = None) -> None:
        self._blobs = blobs
        self._digest = digest
        self._size = size
        self._hash = digests.Hashing()
        self._fd = -1
        self._finished = False
        self._keep = False
        self.complete = False
        """The blob is in the store already."""
        if digest is None:
            self._path = f"{blobs.scratch}/new-{os.urandom(8).hex()}"
        else:
            self._path = f"{blobs.scratch}/{digests.hexadecimal(digest)}.partial"

    @property
    def offset(self) -> int:
        """Bytes that are there."""
        return self._hash.size

    def __enter__(self) -> Self:
        with files.disk_errors("a blob was being written"):
            if self._digest is None:
                self._fd = os.open(self._path, _FRESH, 0o600)
            else:
                self._take_up(self._digest)
        return self

    def _take_up(self, digest: str) -> None:
        """Lock the partial file and hash what is in it, or find that the blob is there."""
        while True:
            if self._blobs.has(digest):
                self.complete = True
                self._hash.size = os.stat(self._blobs.path(digest)).st_size
                return
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if _is_at(fd, self._path):  # else the one before us has finished or given up
                    self._rehash(fd)
                    self._fd, self._keep = fd, True
                    return
            finally:
                if self._fd != fd:
                    os.close(fd)

    def _rehash(self, fd: int) -> None:
        while data := os.read(fd, _CHUNK):
            self._hash.update(data)
        if self._size is not None and self._hash.size > self._size:
            self.restart(fd)

    def restart(self, fd: int | None = None) -> None:
        """Begin anew: what there was is of no use (a server that can't go on in the middle)."""
        if self.complete:
            return
        fd = self._fd if fd is None else fd
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        self._hash = digests.Hashing()

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises
        ------
        ImageError
            They are more than the blob has.
        """
        if self.complete:
            return
        if self._size is not None and self._hash.size + len(data) > self._size:
            self._keep = False
            message = (
                f"the blob {self._digest or ''} is longer than the {self._size} bytes announced"
            )
            raise ImageError(message.replace("  ", " "))
        with files.disk_errors("a blob was being written"):
            files.write_all(self._fd, data)
        self._hash.update(data)

    def commit(self) -> tuple[str, int]:
        """Make it a blob of the store; give its digest and size in bytes.

        Raises
        ------
        ImageError
            Digest or size are not those announced. A blob too short is kept to be gone on with.
        """
        if self.complete:
            assert self._digest is not None
            return self._digest, self._hash.size
        digest, size = self._hash.digest, self._hash.size
        if self._size is not None and size != self._size:
            message = f"the blob {self._digest or ''} ended after {size} of {self._size} bytes"
            raise ImageError(message.replace("  ", " "))
        if self._digest is not None and digest != self._digest:
            self._keep = False
            message = f"what came for the blob {self._digest} has the digest {digest}"
            raise ImageError(message, hint="it was changed on its way, or where it came from")
        with files.disk_errors("a blob was being written"):
            os.fsync(self._fd)
            os.rename(self._path, self._blobs.path(digest))
            files.sync_directory(self._blobs.directory)
        self._finished = self.complete = True
        return digest, size

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._fd < 0:
            return
        if not self._finished and not (self._keep and self._hash.size):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
        os.close(self._fd)
        self._fd = -1


_FRESH: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
