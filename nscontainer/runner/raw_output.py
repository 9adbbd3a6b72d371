"""Keeps the order between what goes over the channel and what goes straight to descriptors 1 and 2.

A subprocess's output reaches the owner through a pipe of its own. The owner shows what the channel
holds before it looks at the pipes; so order is kept if a message waits until the pipes are empty.
"""

from __future__ import annotations

import fcntl
import os
import stat
import termios
import time

_PATIENCE_S = 0.05  # something that never stops printing mustn't stop the cell
_IMPATIENCE_S = 1.0
_PAUSE_S = 0.0002


class RawOutput:
    """What was written to descriptors 1 and 2 and not yet read by the owner."""

    def __init__(self) -> None:
        self._pipes = {fd: name for fd in (1, 2) if (name := _pipe_name(fd)) is not None}
        self._impatient_until = 0.0

    def wait(self) -> None:
        """Return when the owner has read all of it, or has let us wait too long."""
        if not self._unread():
            return
        deadline = time.monotonic() + _PATIENCE_S
        while self._impatient_until < deadline - _PATIENCE_S and self._unread():
            if time.monotonic() > deadline:
                self._impatient_until = deadline + _IMPATIENCE_S
            time.sleep(_PAUSE_S)

    def _unread(self) -> bool:
        for fd, name in self._pipes.items():
            try:
                count = fcntl.ioctl(
                    fd, termios.FIONREAD, b"\0\0\0\0"
                )  # works on either end: pipe(7)
            except OSError:
                continue
            if any(count) and _pipe_name(fd) == name:
                return True
        return False


def _pipe_name(fd: int) -> tuple[int, int] | None:
    """Tell one pipe from others; None where the descriptor is none (the cell may redirect it)."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISFIFO(status.st_mode) else None
