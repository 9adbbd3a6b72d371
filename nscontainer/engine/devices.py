"""The container's /dev: six harmless device nodes, borrowed from the host by bind mounts.

The nodes are mounts of their own and everything else is mounted ``nodev``, so a node that a process
makes (or an image brings) opens nothing: no device cgroup is needed for that.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from nscontainer.linux import mount
from nscontainer.linux.syscalls import kernel_error

NODES: Final = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
"""Name and device number (Linux Documentation/admin-guide/devices.txt)."""

LINKS: Final = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "core": "/proc/kcore",
    "ptmx": "pts/ptmx",
}


def checked_node(name: str) -> int:
    """Give a detached mount of one device node, after making sure that it is that device.

    The check and the mount use the same fd.
    """
    fd = open_node(name)
    try:
        return mount.open_tree(fd)
    finally:
        os.close(fd)


def open_node(name: str) -> int:
    """Open a device node (O_PATH) and make sure that it is that device.

    CVE-2025-31133: a /dev/null that is something else would unmask what it is put over.
    """
    fd = os.open(f"/dev/{name}", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    facts = os.fstat(fd)
    number = (os.major(facts.st_rdev), os.minor(facts.st_rdev))
    if not stat.S_ISCHR(facts.st_mode) or number != NODES[name]:
        os.close(fd)
        raise kernel_error(errno.ENODEV, "fstat", f"/dev/{name}")
    return fd
