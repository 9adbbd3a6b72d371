"""The container's output on our own standard output and error, byte for byte, as it comes."""

from __future__ import annotations

import os
import select
from collections.abc import Callable


def write_all(fd: int, data: bytes) -> None:
    """Write every byte, waiting where the descriptor is non-blocking (a shared terminal's can be).

    Raises
    ------
    BrokenPipeError
        Nobody reads any more.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


class Outlet:
    """Writes to a descriptor until nobody reads any more, then says so once and drops the rest.

    Parameters
    ----------
    fd
        Where to.
    on_broken
        Called once, when the reader has gone.
    """

    def __init__(self, fd: int, on_broken: Callable[[], None]) -> None:
        self.fd = fd
        self.broken = False
        self._on_broken = on_broken

    def __call__(self, data: bytes) -> None:
        """Write the bytes."""
        if self.broken:
            return
        try:
            write_all(self.fd, data)
        except BrokenPipeError:
            self.broken = True
            self._on_broken()
