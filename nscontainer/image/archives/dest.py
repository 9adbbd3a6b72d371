"""The file that an archive is written to: whole under its name, or not there at all."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from nscontainer.errors import HostError, SpecError

Target = str | os.PathLike[str] | BinaryIO
"""A path, or a stream that takes bytes."""


@contextlib.contextmanager
def writing(target: Target) -> Iterator[BinaryIO]:
    """Give a stream to write an archive to.

    A path is written under a temporary name beside it and renamed at the end; what was there before
    stays until then. A device or a pipe is written to as it is.

    Raises
    ------
    SpecError
        It is a terminal, a directory, or can't be made.
    HostError
        Writing failed: no space left, say.
    """
    if not isinstance(target, str | os.PathLike):
        _refuse_terminal(target)
        if not isinstance(target, io.RawIOBase):
            yield target
            target.flush()
            return
        whole = io.BufferedWriter(target)  # a raw stream may take a part of what it is given
        try:
            yield whole
        finally:
            whole.detach()
        return
    path = os.fspath(target)
    try:
        kind = os.stat(path).st_mode
    except OSError:
        kind = stat.S_IFREG
    if stat.S_ISDIR(kind):
        raise SpecError(f"{path} is a directory", hint="name a file in it")
    with _told(path):
        if not stat.S_ISREG(kind):
            with open(path, "wb") as file:
                _refuse_terminal(file)
                yield file
            return
        path = os.path.realpath(path)
        with _replacing(path) as file:
            yield file


@contextlib.contextmanager
def new_directory(path: str) -> Iterator[str]:
    """Give an empty directory to fill, which gets its name at the end.

    Raises
    ------
    SpecError
        There is something of that name already.
    """
    path = os.path.abspath(path)
    if os.path.lexists(path) and (not os.path.isdir(path) or os.listdir(path)):
        raise SpecError(f"{path} is there already", hint="name a new directory")
    with _told(path):
        temporary = tempfile.mkdtemp(
            prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(path)
        )
        try:
            yield temporary
            os.chmod(temporary, 0o777 & ~_umask())
            os.rename(temporary, path)
        except BaseException:
            import shutil

            shutil.rmtree(temporary, ignore_errors=True)
            raise


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[BinaryIO]:
    fd, temporary = tempfile.mkstemp(
        prefix=f".{os.path.basename(path)[:200]}.", dir=os.path.dirname(path)
    )
    try:
        with os.fdopen(fd, "wb", buffering=1 << 20) as file:
            yield file
            file.flush()
            os.fchmod(fd, 0o666 & ~_umask())
            os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HostError(f"{path} can't be written: {error.strerror or error}") from None


def _refuse_terminal(file: BinaryIO) -> None:
    if file.isatty():
        raise SpecError(
            "an archive isn't written to a terminal", hint="name a file by -o, or redirect"
        )


def _umask() -> int:
    """Read this process's file mode mask without changing it, as umask(2) would."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o022
