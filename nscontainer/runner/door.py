"""The way into a session: its monitor hands over a socket for each owner that comes.

A session outlives its owners, and one that is killed may leave half a message behind. So no two
speak over the same socket: what the runner got at its start is only the door, and every owner brings a
fresh stream. Who opens the door is the monitor, which is trusted; what goes back is a byte a cell.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket

MARK = b"A"
"""Comes with each owner's socket. As the first byte of a message it would mean one of a gigabyte."""
IDLE = b"."
"""Goes back at the end of each cell, whether or not anybody waits for it."""


def is_one(channel: socket.socket) -> bool:
    """Wait for the first byte on a channel, and tell whether it is a door."""
    try:
        return channel.recv(1, socket.MSG_PEEK) == MARK
    except OSError:
        return False


class Door:
    """Where a session's owners come in, one after another."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        os.register_at_fork(after_in_child=sock.close)  # a child would keep the session's end open

    def next(self) -> socket.socket | None:
        """Wait for an owner; None when there can come no more."""
        space = socket.CMSG_SPACE(array.array("i").itemsize)
        try:
            data, ancillary, _, _ = self._sock.recvmsg(1, space, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            return None
        for level, kind, payload in ancillary:
            if data and level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(payload[: fds.itemsize])
                return socket.socket(fileno=fds[0])
        return None

    def tell_idle(self) -> None:
        """Say that a cell has ended: the monitor may not have been told by its owner."""
        with contextlib.suppress(OSError):
            self._sock.send(IDLE, socket.MSG_DONTWAIT)
