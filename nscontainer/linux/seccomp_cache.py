"""Compiled seccomp programs, kept on disk: a compilation takes longer than a container's start."""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from nscontainer.linux import seccomp
from nscontainer.linux.seccomp_profile import Profile

_DIGEST_BYTES: Final = hashlib.sha256().digest_size


def compile_cached(
    profile: Profile,
    *,
    caps: frozenset[str],
    kernel: tuple[int, int],
    directory: Path,
) -> bytes:
    """Compile a profile as :func:`seccomp.compile_profile` does, or take it from a directory.

    The directory is made where it is missing (0700). One that another user owns or may write is
    not used, nor is one that can't be made, nor a damaged file in it: the program is then compiled
    anew. A file begins with a digest of its key and program, and comes into being whole (rename).
    """
    key = seccomp.fingerprint(profile, caps=caps, kernel=kernel)
    dirfd = _open_directory(directory)
    if dirfd is None:
        return seccomp.compile_profile(profile, caps=caps, kernel=kernel)
    try:
        program = _read(dirfd, key)
        if program is None:
            program = seccomp.compile_profile(profile, caps=caps, kernel=kernel)
            with suppress(OSError):  # a full or read-only disk: next time, then
                _write(dirfd, key, program)
        return program
    finally:
        os.close(dirfd)


def _is_ours(status: os.stat_result) -> bool:
    """Return whether nobody but this user (and root) can have written it."""
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _open_directory(directory: Path) -> int | None:
    """Open the directory; None where it isn't one of ours. All else goes by this descriptor."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        dirfd = os.open(directory, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    if _is_ours(os.fstat(dirfd)):
        return dirfd
    os.close(dirfd)
    return None


def _digest(key: str, program: bytes) -> bytes:
    """Bind a program to its key, so that a file under another's name isn't taken for it."""
    return hashlib.sha256(key.encode() + program).digest()


def _read(dirfd: int, key: str) -> bytes | None:
    """Return the program of this key, None where there is none to be trusted."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(f"{key}.bpf", flags, dir_fd=dirfd)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or not _is_ours(status):
            return None
        digest = file.read(_DIGEST_BYTES)
        program = file.read(seccomp.MAX_INSNS * seccomp.INSN_BYTES)
    return program if digest == _digest(key, program) else None


def _write(dirfd: int, key: str, program: bytes) -> None:
    """Put a program in place under its key."""
    temporary = f".{key}.{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=dirfd)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(_digest(key, program) + program)
        os.rename(temporary, f"{key}.bpf", src_dir_fd=dirfd, dst_dir_fd=dirfd)
    except BaseException:
        os.unlink(temporary, dir_fd=dirfd)
        raise
