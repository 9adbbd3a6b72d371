"""clone3, unshare and setns: how a process gets, changes and joins namespaces."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import Final

from nscontainer.linux import syscalls

CLONE_NEWTIME: Final = 0x00000080
CLONE_PIDFD: Final = 0x00001000
CLONE_CHILD_SETTID: Final = 0x01000000
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
CLONE_INTO_CGROUP: Final = 0x200000000

FLAGS: Final = {
    "mnt": CLONE_NEWNS,
    "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC,
    "pid": CLONE_NEWPID,
    "net": CLONE_NEWNET,
    "user": CLONE_NEWUSER,
    "cgroup": CLONE_NEWCGROUP,
    "time": CLONE_NEWTIME,
}
"""A namespace's name, as in /proc/PID/ns, and its clone flag."""


class _CloneArgs(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    )


_pthread_self = syscalls.libc.pthread_self
_pthread_self.restype = ctypes.c_void_p
_tid_address: int | None = None


def _find_tid_address() -> int:
    """Find where glibc keeps the calling thread's id, 0 where it isn't found.

    fork(3) has the kernel write the child's id there; a raw clone3 must do the same, or glibc's
    recursive mutexes would compare a stale owner. The field has no public offset, so look for the
    id itself in the first KiB of the thread's descriptor and take it only if it is unique.
    """
    global _tid_address  # noqa: PLW0603 - a process-wide constant, found once
    if _tid_address is None:
        base = _pthread_self() or 0
        tid = ctypes.c_uint32(os.getpid()).value
        words = (ctypes.c_uint32 * 256).from_address(base)
        hits = [i for i, word in enumerate(words) if word == tid]
        _tid_address = base + 4 * hits[0] if len(hits) == 1 else 0
    return _tid_address


def clone3(flags: int, *, exit_signal: int, cgroup_fd: int | None = None) -> tuple[int, int]:
    """Fork with clone flags: clone3(2), as os.fork for a single-threaded process.

    Returns
    -------
    tuple[int, int]
        The child's process id and a pidfd of it; (0, -1) in the child.

    Raises
    ------
    KernelError
        The kernel refused.
    """
    pidfd = ctypes.c_int(-1)
    args = _CloneArgs(
        flags=flags | CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=exit_signal
    )
    if cgroup_fd is not None:
        args.flags |= CLONE_INTO_CGROUP
        args.cgroup = cgroup_fd
    tid_address = _find_tid_address()
    if tid_address:
        args.flags |= CLONE_CHILD_SETTID
        args.child_tid = tid_address
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = -1
    try:
        pid = syscalls.syscall_with_gil(
            syscalls.CLONE3, "clone3", ctypes.byref(args), ctypes.sizeof(args)
        )
    finally:
        if pid == 0:
            ctypes.pythonapi.PyOS_AfterFork_Child()
        else:
            ctypes.pythonapi.PyOS_AfterFork_Parent()
    return (0, -1) if pid == 0 else (pid, pidfd.value)


def unshare(flags: int) -> None:
    """Leave namespaces for new ones: unshare(2)."""
    syscalls.check(syscalls.libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(fd: int, flags: int) -> None:
    """Join namespaces: setns(2) with a namespace's fd, or a pidfd and several flags (>= 5.8)."""
    syscalls.check(syscalls.libc.setns(ctypes.c_int(fd), ctypes.c_int(flags)), "setns")


def write_id_maps(pid: int, base: int, count: int) -> None:
    """Map ids 0 … count-1 of a process's user namespace to base … outside (user_namespaces(7))."""
    for kind in ("uid", "gid"):
        write_id_map(f"/proc/{pid}/{kind}_map", [(0, base, count)])


def write_id_map(path: str, rows: Sequence[tuple[int, int, int]]) -> None:
    """Write a whole map at once, as it must be: first id inside, first outside, how many."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"".join(b"%d %d %d\n" % row for row in rows))
        finally:
            os.close(fd)
    except OSError as error:
        raise syscalls.kernel_error(error.errno or 0, "write", path) from None
