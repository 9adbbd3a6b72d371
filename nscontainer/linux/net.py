"""Being in another network namespace, and the loopback of one's own up (netdevice(7))."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Iterator

from nscontainer.linux import clone
from nscontainer.linux.syscalls import kernel_error

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1


def loopback_up() -> None:
    """Bring ``lo`` of this network namespace up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            answer = fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sh22x", b"lo", 0))
            flags = struct.unpack_from("16sh", answer)[1] | IFF_UP
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags))
        except OSError as error:
            raise kernel_error(error.errno or 0, "ioctl SIOCSIFFLAGS", "lo") from None


@contextlib.contextmanager
def within(netns_fd: int) -> Iterator[None]:
    """Be in another network namespace for a block: setns(2), and back.

    A socket made there belongs to it for good. The process must have no other thread: setns(2) moves
    only the one that calls.

    Raises
    ------
    KernelError
        setns(2) refused.
    """
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        clone.setns(netns_fd, clone.CLONE_NEWNET)
        try:
            yield
        finally:
            clone.setns(own, clone.CLONE_NEWNET)
    finally:
        os.close(own)
