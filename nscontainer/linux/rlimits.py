"""Resource limits: prlimit(2) by Docker's ``--ulimit`` names."""

from __future__ import annotations

import errno
import resource
from pathlib import Path
from typing import Final

from nscontainer.linux.syscalls import KernelError, kernel_error

RESOURCES: Final[dict[str, int]] = {
    "as": resource.RLIMIT_AS,
    "core": resource.RLIMIT_CORE,
    "cpu": resource.RLIMIT_CPU,
    "data": resource.RLIMIT_DATA,
    "fsize": resource.RLIMIT_FSIZE,
    "locks": 10,  # asm-generic/resource.h; without effect since Linux 2.4.25, so not in `resource`
    "memlock": resource.RLIMIT_MEMLOCK,
    "msgqueue": resource.RLIMIT_MSGQUEUE,
    "nice": resource.RLIMIT_NICE,
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "rss": resource.RLIMIT_RSS,
    "rtprio": resource.RLIMIT_RTPRIO,
    "rttime": resource.RLIMIT_RTTIME,
    "sigpending": resource.RLIMIT_SIGPENDING,
    "stack": resource.RLIMIT_STACK,
}
"""Docker's name of a limit and its RLIMIT_ number. Units are setrlimit(2)'s."""

UNLIMITED: Final = -1
_NR_OPEN: Final = Path("/proc/sys/fs/nr_open")


def current(name: str, pid: int = 0) -> tuple[int, int]:
    """Return the soft and the hard limit of a process, 0 being the caller; -1 is unlimited.

    Raises
    ------
    KeyError
        There is no such limit.
    OSError
        No such process, or not ours to ask.
    """
    soft, hard = resource.prlimit(pid, RESOURCES[name])
    return _from_rlim(soft), _from_rlim(hard)


def apply(name: str, soft: int, hard: int, pid: int = 0) -> None:
    """Set one limit of a process, 0 being the caller; -1 is unlimited.

    Raises
    ------
    KeyError
        There is no such limit.
    KernelError
        EPERM: the hard limit can't be raised so far; EINVAL: soft is above hard. The file name is
        the limit's, the text says what was in the way.
    """
    number = RESOURCES[name]
    try:
        resource.prlimit(pid, number, (_to_rlim(soft), _to_rlim(hard)))
    except ValueError as error:  # CPython's word for EINVAL (Modules/resource.c)
        detail = f"soft limit {_text(soft)} is above hard limit {_text(hard)}"
        if not _above(soft, hard):
            detail = str(error)
        raise _error(errno.EINVAL, name, detail) from None
    except OSError as error:
        detail = _why_not(name, hard, pid) if error.errno == errno.EPERM else ""
        raise _error(error.errno or 0, name, detail) from None


# RLIM_INFINITY is -1 up to Python 3.14 and 2**64 - 1 from 3.15 on, which deprecates passing -1.
def _to_rlim(limit: int) -> int:
    return resource.RLIM_INFINITY if limit == UNLIMITED else limit


def _from_rlim(limit: int) -> int:
    return UNLIMITED if limit == resource.RLIM_INFINITY else limit


def _error(number: int, name: str, detail: str) -> KernelError:
    return kernel_error(number, "prlimit", f"RLIMIT_{name.upper()}", detail)


def _why_not(name: str, hard: int, pid: int) -> str:
    """Say which of EPERM's two reasons it was (kernel/sys.c do_prlimit)."""
    if name == "nofile":
        try:
            nr_open = int(_NR_OPEN.read_text())
        except (OSError, ValueError):
            pass  # no procfs here (any more): the other reason is the likelier
        else:
            if _above(hard, nr_open):
                return f"{_text(hard)} is above fs.nr_open, {nr_open}"
    old = current(name, pid)[1]
    return f"raising the hard limit from {_text(old)} to {_text(hard)} needs CAP_SYS_RESOURCE"


def _above(one: int, other: int) -> bool:
    """Compare two limits, unlimited being above every number."""
    return other != UNLIMITED and (one == UNLIMITED or one > other)


def _text(limit: int) -> str:
    return "unlimited" if limit == UNLIMITED else str(limit)
