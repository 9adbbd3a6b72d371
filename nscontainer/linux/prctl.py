"""prctl(2): what a process says about itself, and to what it binds its children."""

from __future__ import annotations

import ctypes
from typing import Final

from nscontainer.linux import syscalls

PR_SET_PDEATHSIG: Final = 1
PR_GET_DUMPABLE: Final = 3
PR_SET_DUMPABLE: Final = 4
PR_SET_KEEPCAPS: Final = 8
PR_SET_NAME: Final = 15
PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
PR_SET_TIMERSLACK: Final = 29
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
PR_GET_NO_NEW_PRIVS: Final = 39
PR_CAP_AMBIENT: Final = 47
PR_SET_IO_FLUSHER: Final = 57
"""Its memory is never had by writing to what it serves (Linux 5.6)."""

_prctl = syscalls.libc.prctl
_prctl.restype = ctypes.c_int
# Unused arguments must be zero, not garbage: several options answer EINVAL otherwise.
_prctl.argtypes = (
    ctypes.c_int,
    ctypes.c_ulong,
    ctypes.c_ulong,
    ctypes.c_ulong,
    ctypes.c_ulong,
)


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """Make a prctl(2) call with integer arguments.

    Raises
    ------
    KernelError
        It returned -1.
    """
    result: int = _prctl(option, arg2, arg3, arg4, arg5)
    return syscalls.check(result, "prctl")


def set_no_new_privs() -> None:
    """Let no execve(2) from here on grant privileges; it can't be undone."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def get_no_new_privs() -> bool:
    """Return whether :func:`set_no_new_privs` was called here or in an ancestor."""
    return prctl(PR_GET_NO_NEW_PRIVS) == 1


def set_dumpable(dumpable: bool) -> None:  # noqa: FBT001 - the name of the function says it
    """Say whether others of this user may trace the process and open its /proc entries.

    An execve(2) sets it back to true, a change of credentials to false (PR_SET_DUMPABLE(2const)).
    """
    prctl(PR_SET_DUMPABLE, int(dumpable))


def get_dumpable() -> bool:
    """Return whether the process is dumpable by its own user."""
    return prctl(PR_GET_DUMPABLE) == 1


def set_pdeathsig(sig: int) -> None:
    """Have this signal sent here when the *thread* that made this process ends; 0 is none.

    The parent may have gone before the call: compare getppid(2) afterwards. A change of
    credentials and a set-id execve(2) clear it.
    """
    prctl(PR_SET_PDEATHSIG, sig)


def set_keepcaps(keep: bool) -> None:  # noqa: FBT001 - the name of the function says it
    """Keep the permitted capabilities over a change from uid 0 to another."""
    prctl(PR_SET_KEEPCAPS, int(keep))


def set_child_subreaper(reaper: bool) -> None:  # noqa: FBT001 - the name of the function says it
    """Become the one that orphaned descendants are handed to, in place of init."""
    prctl(PR_SET_CHILD_SUBREAPER, int(reaper))


def set_name(name: str) -> None:
    """Name the calling thread (``comm``); the kernel keeps the first 15 bytes."""
    buffer = ctypes.create_string_buffer(name.encode())
    prctl(PR_SET_NAME, ctypes.addressof(buffer))
