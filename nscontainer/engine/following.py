"""Reading a sample log while it grows."""

from __future__ import annotations

import array
import fcntl
import os
import weakref

from nscontainer.schema import ROW_BYTES, ROW_FIELDS

_MOST_ROWS = 1 << 14  # at once: what follows a long log late doesn't take it whole into memory


class Follower:
    """Gives each row of a sample log once, as it comes.

    Parameters
    ----------
    fd
        The log; a duplicate is kept until this is closed or dropped.
    first_row
        The row to begin with.
    offset_ns
        What is taken from the rows' times: where a session's cell begins.
    """

    def __init__(self, fd: int, *, first_row: int = 0, offset_ns: int = 0) -> None:
        self._fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
        self.close = weakref.finalize(self, os.close, self._fd)
        """Let go of the log."""
        self._next = first_row
        self._offset_ns = offset_ns

    def new(self) -> array.array[int]:
        """Give the whole rows that have come since the last call, their fields one after another."""
        rows = read_rows(self._fd, self._next, self._next + _MOST_ROWS, self._offset_ns)
        self._next += len(rows) // ROW_FIELDS
        return rows


def read_rows(fd: int, first: int, end: int, offset_ns: int) -> array.array[int]:
    """Read those of some rows that are there, their times less ``offset_ns``."""
    data = os.pread(fd, (end - first) * ROW_BYTES, first * ROW_BYTES)
    rows = array.array("q", data[: len(data) // ROW_BYTES * ROW_BYTES])
    if offset_ns:
        for at in range(0, len(rows), ROW_FIELDS):
            rows[at] -= offset_ns
    return rows
