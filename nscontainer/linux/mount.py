"""Mounts by file descriptor: the mount API of Linux 5.2 and later, and pivot_root.

A mount is made detached (an fd and nothing else), prepared, and then moved to its place: nobody can
swap a symbolic link under it in between, and what is never attached can't be left behind.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from typing import Final

from nscontainer.linux.syscalls import (
    FSCONFIG,
    FSMOUNT,
    FSOPEN,
    MOUNT_SETATTR,
    MOVE_MOUNT,
    OPEN_TREE,
    PIVOT_ROOT,
    KernelError,
    check,
    kernel_error,
    libc,
    syscall,
)

AT_FDCWD: Final = -100
AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000
AT_SYMLINK_NOFOLLOW: Final = 0x100

OPEN_TREE_CLONE: Final = 1
OPEN_TREE_CLOEXEC: Final = os.O_CLOEXEC

MOVE_MOUNT_F_EMPTY_PATH: Final = 0x04
MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40

FSCONFIG_SET_FLAG: Final = 0
FSCONFIG_SET_STRING: Final = 1
FSCONFIG_CMD_CREATE: Final = 6

MOUNT_ATTR_RDONLY: Final = 0x01
MOUNT_ATTR_NOSUID: Final = 0x02
MOUNT_ATTR_NODEV: Final = 0x04
MOUNT_ATTR_NOEXEC: Final = 0x08
MOUNT_ATTR_IDMAP: Final = 0x00100000

MS_REC: Final = 0x4000
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MNT_DETACH: Final = 2


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def open_tree(
    path: str | int, *, recursive: bool = False, dirfd: int = AT_FDCWD, follow: bool = True
) -> int:
    """Clone the mount at a path (or an fd) as a detached one: open_tree(2)."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    if isinstance(path, int):
        return syscall(OPEN_TREE, "open_tree", path, b"", flags | AT_EMPTY_PATH)
    if not follow:
        flags |= AT_SYMLINK_NOFOLLOW
    return syscall(OPEN_TREE, "open_tree", dirfd, os.fsencode(path), flags, path=path)


def move_mount(mount_fd: int, target: str | int) -> None:
    """Attach a detached mount at a path or onto an fd: move_mount(2)."""
    if isinstance(target, int):
        flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
        syscall(MOVE_MOUNT, "move_mount", mount_fd, b"", target, b"", flags)
        return
    syscall(
        MOVE_MOUNT,
        "move_mount",
        mount_fd,
        b"",
        AT_FDCWD,
        os.fsencode(target),
        MOVE_MOUNT_F_EMPTY_PATH,
        path=target,
    )


def mount_setattr(
    mount_fd: int,
    *,
    set_: int = 0,
    clear: int = 0,
    recursive: bool = False,
    userns_fd: int | None = None,
    propagation: int = 0,
) -> None:
    """Change a mount's attributes; with ``userns_fd``, map its ids: mount_setattr(2)."""
    attr = _MountAttr(set_, clear, propagation, 0)
    if userns_fd is not None:
        attr.attr_set |= MOUNT_ATTR_IDMAP
        attr.userns_fd = userns_fd
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscall(
        MOUNT_SETATTR,
        "mount_setattr",
        mount_fd,
        b"",
        flags,
        ctypes.byref(attr),
        ctypes.sizeof(attr),
    )


def new_filesystem(
    fstype: str,
    options: Mapping[str, str | None] | Sequence[tuple[str, str | None]] = (),
    *,
    attrs: int = 0,
    source: str | None = None,
) -> int:
    """Make a filesystem and give a detached mount of it: fsopen, fsconfig, fsmount.

    Parameters
    ----------
    fstype
        As in /proc/filesystems.
    options
        Mount options, or pairs where one may be given several times; a value of None is a flag.
    attrs
        ``MOUNT_ATTR_*``.

    Raises
    ------
    KernelError
        With the kernel's own words (the fs context's log) where it gave any.
    """
    context = syscall(FSOPEN, "fsopen", os.fsencode(fstype), 1, path=fstype)  # 1: close-on-exec
    try:
        try:
            pairs = list(options.items() if isinstance(options, Mapping) else options)
            if source is not None:
                pairs.append(("source", source))
            for key, value in pairs:
                if value is None:
                    _fsconfig(context, FSCONFIG_SET_FLAG, key, None)
                else:
                    _fsconfig(context, FSCONFIG_SET_STRING, key, value)
            _fsconfig(context, FSCONFIG_CMD_CREATE, None, None)
            return syscall(FSMOUNT, "fsmount", context, 1, attrs, path=fstype)
        except KernelError as error:
            raise kernel_error(error.errno or 0, error.op, fstype, _log(context)) from None
    finally:
        os.close(context)


def _fsconfig(context: int, command: int, key: str | None, value: str | None) -> None:
    syscall(
        FSCONFIG,
        "fsconfig",
        context,
        command,
        None if key is None else key.encode(),
        None if value is None else os.fsencode(value),
        0,
        path=key,
    )


def _log(context: int) -> str:
    """Read what the kernel noted in a filesystem context: lines as ``e overlay: …``."""
    lines: list[str] = []
    while len(lines) < 8:
        try:
            lines.append(os.read(context, 1024).decode(errors="replace").strip()[2:])
        except OSError:
            break
    return "; ".join(lines)


def make_private(propagation: int = MS_PRIVATE) -> None:
    """Keep this mount namespace's events to itself: mount(2) of / with MS_REC | MS_PRIVATE."""
    result = libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC | propagation), None)
    check(result, "mount", "/")


def mount(source: str, target: str, fstype: str, flags: int, data: str) -> None:
    """Mount at a path: mount(2), which takes longer options than fsconfig(2)."""
    result = libc.mount(
        os.fsencode(source), os.fsencode(target), fstype.encode(), ctypes.c_ulong(flags),
        os.fsencode(data),
    )  # fmt: skip
    check(result, "mount", fstype)


def umount2(path: str, flags: int = MNT_DETACH) -> None:
    """Detach the mount at a path: umount2(2)."""
    check(libc.umount2(os.fsencode(path), ctypes.c_int(flags)), "umount2", path)


def pivot_root(new_root_fd: int) -> None:
    """Make the mount behind an fd this namespace's root and detach the old one.

    pivot_root(2) of "." onto itself needs no directory for the old root (its man page's NOTES):
    the old root ends up stacked over the new one and is then detached from there.
    """
    os.fchdir(new_root_fd)
    syscall(PIVOT_ROOT, "pivot_root", b".", b".")
    umount2(".")
    os.chdir("/")
