"""A sampler's side of a cgroup: its accounting files, kept open, read into a row of the schema."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from nscontainer import schema
from nscontainer.schema import NA

Row = list[int]
Take = Callable[[bytes, Row], None]
"""Puts the figures of one file's bytes into a row."""
Source = tuple[str | int, int, Take]
"""A file: its path (or an fd to keep), the most bytes to read of it, what takes them."""

WORD: Final = 64
"""Enough for a file of one number."""
TEXT: Final = 4096
LONG: Final = 65536
"""Enough for a line for each of some 400 block devices."""

BLANK: Final[Row] = [NA] * len(schema.COLUMNS)


def number(column: str, scale: int = 1) -> Take:
    """Take a file of one number, ``scale`` times, as a column."""
    index = schema.INDEX[column]
    if scale == 1:

        def take(data: bytes, row: Row) -> None:
            row[index] = int(data)

    else:

        def take(data: bytes, row: Row) -> None:
            row[index] = int(data) * scale

    return take


def keys(columns: Mapping[str, str], scale: Mapping[str, int] | None = None) -> Take:
    """Take lines ``key value`` of a file as columns; a key that isn't there stays NA.

    Parameters
    ----------
    columns
        Key to column.
    scale
        Column to factor, where it isn't 1.
    """
    plan = [
        (
            b"\n" + key.encode() + b" ",
            len(key) + 2,
            schema.INDEX[column],
            (scale or {}).get(column, 1),
        )
        for key, column in columns.items()
    ]

    def take(data: bytes, row: Row) -> None:
        data = b"\n" + data  # so that the first line is found like the others
        find = data.find
        for key, length, index, factor in plan:
            at = find(key)
            if at >= 0:
                at += length
                row[index] = int(data[at : find(b"\n", at)]) * factor

    return take


_USAGE: Final = schema.INDEX["memory.usage"]
_WORKING_SET: Final = schema.INDEX["memory.working_set"]


def memory_stat(columns: Mapping[str, str], inactive_file: str) -> Take:
    """Take a memory.stat's lines; the working set from it and the usage, which comes before."""
    take_keys = keys({**columns, inactive_file: "memory.working_set"})

    def take(data: bytes, row: Row) -> None:
        take_keys(data, row)
        usage, inactive = row[_USAGE], row[_WORKING_SET]
        # The two files are not read in one instant: the difference could come out below nothing.
        row[_WORKING_SET] = NA if NA in (usage, inactive) else max(0, usage - inactive)

    return take


class FileReader:
    """Reads a row from files that stay open: ``pread`` at 0 has the kernel write them anew.

    Parameters
    ----------
    sources
        In the order to be read. One that can't be opened or read now is left out: NA for good.
    events
        The path of a ``cgroup.events``, or None.
    """

    def __init__(self, sources: Iterable[Source], events: str | None) -> None:
        self._sources: list[tuple[int, int, Take]] = []
        self._events: int | None = None
        try:
            for file, size, take in sources:
                self._try(file, size, take)
            if events is not None:
                self._events = _open(events)
        except BaseException:
            self.close()
            raise
        if self._events is not None:
            os.pread(self._events, TEXT, 0)  # poll(2) tells changes since the last read

    def _try(self, file: str | int, size: int, take: Take) -> None:
        fd = file if isinstance(file, int) else _open(file)
        if fd is None:
            return
        try:
            take(os.pread(fd, size, 0), BLANK.copy())
        except (OSError, ValueError):
            os.close(fd)
        else:
            self._sources.append((fd, size, take))

    def read(self) -> Row:
        """Read the figures now, in the order of :data:`nscontainer.schema.COLUMNS`."""
        row = BLANK.copy()
        pread = os.pread
        try:
            for fd, size, take in self._sources:
                take(pread(fd, size, 0), row)
        except (OSError, ValueError):
            return self._read_each()
        return row

    def _read_each(self) -> Row:
        """Read what can still be read (PSI can be switched off meanwhile: ENODEV); the rest NA."""
        row = BLANK.copy()
        for fd, size, take in self._sources:
            with contextlib.suppress(OSError, ValueError):
                take(os.pread(fd, size, 0), row)
        return row

    def fileno_populated(self) -> int | None:
        """Give the fd of ``cgroup.events``: POLLPRI at a change; pread it at 0 to re-arm."""
        return self._events

    def close(self) -> None:
        """Close the files."""
        for fd, _, _ in self._sources:
            os.close(fd)
        self._sources = []
        if self._events is not None:
            os.close(self._events)
            self._events = None


def _open(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
