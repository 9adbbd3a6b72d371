"""Messages between owner, spawner and monitor: length-framed JSON over a Unix stream socket.

File descriptors travel with the first byte of their message (SCM_RIGHTS, unix(7)). JSON and not
pickle: no end has to trust the other's bytes.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any, Final

_HEADER: Final = struct.Struct("!IB")  # the body's bytes, and how many fds come along
MAX_FDS: Final = 8
MAX_BODY: Final = 64 << 20
_CLOSE_ON_EXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
"""Linux's; elsewhere (:mod:`nscontainer.unconfined`) it is set on each descriptor that comes."""

Message = dict[str, Any]


class WireError(OSError):
    """The other end closed in the middle of a message, or sent what is none."""


@contextlib.contextmanager
def short(directory: str, name: str) -> Iterator[str]:
    """Give a socket's path that is short however long its directory's is: 107 bytes are all (unix(7))."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def send(sock: socket.socket, message: Message, fds: tuple[int, ...] | list[int] = ()) -> None:
    """Send one message whole; the fds are duplicated into the receiver."""
    body = json.dumps(message, separators=(",", ":")).encode()
    data = _HEADER.pack(len(body), len(fds)) + body
    if fds:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        sent = sock.sendmsg([data], rights)
        data = data[sent:]
    if data:
        sock.sendall(data)


class Inbox:
    """Reads messages from one socket, whole ones only, however they arrive."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._data = bytearray()
        self._fds: list[int] = []
        self.closed = False

    def fill(self, *, wait: bool = True) -> bool:
        """Take in what there is; False when nothing came (or the other end is closed)."""
        flags = 0 if wait else socket.MSG_DONTWAIT
        space = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
        try:
            data, ancillary, _, _ = self.sock.recvmsg(65536, space, flags | _CLOSE_ON_EXEC)
        except BlockingIOError:
            return False
        except (ConnectionResetError, BrokenPipeError):
            data, ancillary = b"", []
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                rights = array.array("i")
                rights.frombytes(payload[: len(payload) - len(payload) % rights.itemsize])
                for fd in rights if not _CLOSE_ON_EXEC else ():
                    os.set_inheritable(fd, False)  # noqa: FBT003 - os's own signature
                self._fds.extend(rights)
        if not data:
            self.closed = True
            return False
        self._data += data
        return True

    def pop(self) -> tuple[Message, list[int]] | None:
        """Give the next whole message and its fds, or None until there is one."""
        if len(self._data) < _HEADER.size:
            return None
        size, count = _HEADER.unpack_from(self._data)
        if size > MAX_BODY or count > MAX_FDS:
            message = f"a message of {size} bytes and {count} fds is none of ours"
            raise WireError(message)
        end = _HEADER.size + size
        if len(self._data) < end:
            return None
        try:
            body = json.loads(bytes(self._data[_HEADER.size : end]))
        except (ValueError, RecursionError):
            body = None
        del self._data[:end]
        fds, self._fds = self._fds[:count], self._fds[count:]
        if not isinstance(body, dict):
            message = "a message that is no JSON object"
            raise WireError(message)
        return body, fds

    def get(self) -> tuple[Message, list[int]] | None:
        """Wait for a message; None when the other end has closed."""
        while True:
            ready = self.pop()
            if ready is not None:
                return ready
            if not self.fill() and self.closed:
                return None

    def close(self) -> None:
        """Close the socket and every fd that came and was not taken."""
        for fd in self._fds:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._fds.clear()
        self.sock.close()
