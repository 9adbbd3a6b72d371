"""Being in another network namespace, and the loopback of one's own up (netdevice(7))."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from nscontainer.linux import clone, userns
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

    The process must have no other thread: setns(2) moves only the one that calls. There is no way back
    from a user namespace of one's own to the host's network: an ordinary user's process stays.

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
            try:
                clone.setns(own, clone.CLONE_NEWNET)
            except PermissionError:
                if userns.privileged():
                    raise
    finally:
        os.close(own)


def sockets_within(
    netns_fd: int, make: Callable[[], Sequence[socket.socket]]
) -> list[socket.socket]:
    """Make sockets in another network namespace: they belong to it for good.

    By a child where this process could not come back, as :func:`within` says.

    Raises
    ------
    KernelError
        setns(2) refused, or ``make`` failed.
    """
    if userns.privileged():
        with within(netns_fd):
            return list(make())
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        pid = os.fork()
        if pid == 0:
            _send_sockets(theirs, netns_fd, make)
        theirs.close()
        data, fds, _, _ = socket.recv_fds(ours, 16, 8)
        os.waitpid(pid, 0)
    if not fds:
        raise kernel_error(int(data or b"0"), "setns", f"/proc/self/fd/{netns_fd}")
    return [socket.socket(fileno=fd) for fd in fds]


def _send_sockets(
    line: socket.socket, netns_fd: int, make: Callable[[], Sequence[socket.socket]]
) -> NoReturn:
    try:
        clone.setns(netns_fd, clone.CLONE_NEWNET)
        made = make()  # kept until they are sent
        socket.send_fds(line, [b"0"], [one.fileno() for one in made])
    except OSError as error:
        line.send(str(error.errno or 0).encode())
    finally:
        os._exit(0)
