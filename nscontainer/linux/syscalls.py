"""The way to the kernel: raw system calls through ctypes, errors as :class:`KernelError`.

Numbers from 424 on are the same on every architecture (``asm-generic/unistd.h``).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from typing import Any, Final

libc: Final = ctypes.CDLL(None, use_errno=True)
# clone3 must keep the GIL: the child is a copy of the calling thread alone.
_libc_with_gil: Final = ctypes.PyDLL(None, use_errno=True)

OPEN_TREE: Final = 428
MOVE_MOUNT: Final = 429
FSOPEN: Final = 430
FSCONFIG: Final = 431
FSMOUNT: Final = 432
CLONE3: Final = 435
CLOSE_RANGE: Final = 436
OPENAT2: Final = 437
MOUNT_SETATTR: Final = 442
PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41, "riscv64": 41}.get(platform.machine(), 41)


class KernelError(OSError):
    """A system call that failed, and which: ``op`` is its man-page name."""

    def __init__(self, code: int, op: str, path: str | None = None, detail: str = "") -> None:
        text = os.strerror(code)
        super().__init__(code, f"{text} [{detail}]" if detail else text, path)
        self.op = op
        self.detail = detail

    def __str__(self) -> str:
        """Name the call as well: ``mount: [Errno 1] Operation not permitted: '/x'``."""
        return f"{self.op}: {super().__str__()}"


class _NotFoundError(KernelError, FileNotFoundError):
    """ENOENT, so that ``except FileNotFoundError`` takes it as from any function of os."""


class _NotPermittedError(KernelError, PermissionError):
    """EPERM or EACCES."""


_KINDS: Final = {
    errno.ENOENT: _NotFoundError,
    errno.EPERM: _NotPermittedError,
    errno.EACCES: _NotPermittedError,
}


def kernel_error(code: int, op: str, path: str | None = None, detail: str = "") -> KernelError:
    """Make the :class:`KernelError` that is also Python's own exception for this errno."""
    return _KINDS.get(code, KernelError)(code, op, path, detail)


_syscall = libc.syscall
_syscall.restype = ctypes.c_long
_syscall_with_gil = _libc_with_gil.syscall
_syscall_with_gil.restype = ctypes.c_long


def syscall(number: int, op: str, *args: Any, path: str | None = None) -> int:
    """Make a system call.

    Parameters
    ----------
    number
        The call's number on this architecture.
    op
        Its name, for the error.
    args
        Integers, bytes or ctypes pointers. Python integers are passed as C longs.

    Raises
    ------
    KernelError
        It returned -1.
    """
    result: int = _syscall(number, *[ctypes.c_long(a) if type(a) is int else a for a in args])
    if result < 0:
        raise kernel_error(ctypes.get_errno(), op, path)
    return result


def syscall_with_gil(number: int, op: str, *args: Any) -> int:
    """Make a system call without letting go of the interpreter lock (clone3)."""
    result: int = _syscall_with_gil(
        number, *[ctypes.c_long(a) if type(a) is int else a for a in args]
    )
    if result < 0:
        raise kernel_error(ctypes.get_errno(), op)
    return result


def check(result: int, op: str, path: str | None = None) -> int:
    """Turn a libc function's -1 into a :class:`KernelError`."""
    if result < 0:
        raise kernel_error(ctypes.get_errno(), op, path)
    return result


def close_range(first: int, last: int = 0xFFFFFFFF) -> None:
    """Close every file descriptor from ``first`` to ``last``, both included: close_range(2)."""
    syscall(CLOSE_RANGE, "close_range", first, last, 0)


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10


_OPENAT2_TRIES: Final = 1000
"""As a mount takes some microseconds, so many in a row are no race but a rule's refusal."""


def openat2(dirfd: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """Open a path with a rule for how it may resolve: openat2(2). The fd is close-on-exec.

    With ``..`` on the way, Linux gives EAGAIN where anything was renamed or mounted meanwhile, anywhere
    on the machine; it is asked again then, as the manual page has it.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    arguments = (dirfd, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    for _ in range(_OPENAT2_TRIES - 1):
        try:
            return syscall(OPENAT2, "openat2", *arguments, path=path)
        except KernelError as error:
            if error.errno != errno.EAGAIN:
                raise
    return syscall(OPENAT2, "openat2", *arguments, path=path)
