"""What the owner and its helper send one another: pickles, each with its length before it."""

from __future__ import annotations

import pickle
import socket
import struct
from dataclasses import dataclass
from typing import Any, Final, Literal

_SIZE: Final = struct.Struct("!Q")
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Stood:
    """An argument that stays with the owner: what it is, and which callback or file descriptor."""

    kind: Literal["callback", "read", "write"]
    number: int


def send(sock: socket.socket, message: object) -> None:
    """Send one message whole."""
    data = pickle.dumps(message)
    sock.sendall(_SIZE.pack(len(data)) + data)


class Receiving:
    """One message on its way in: what has come stays when the wait is broken off."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._data = bytearray()

    def all(self) -> Any:
        """Give the message; None where the other end has closed."""
        while (wanted := self._wanted()) > 0:
            data = self._sock.recv(min(wanted, _CHUNK))
            if not data:
                return None
            self._data += data
        return pickle.loads(memoryview(self._data)[_SIZE.size :])  # noqa: S301 - our own other half

    def _wanted(self) -> int:
        have = len(self._data)
        if have < _SIZE.size:
            return _SIZE.size - have
        return int(_SIZE.unpack_from(self._data)[0]) + _SIZE.size - have
