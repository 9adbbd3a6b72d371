"""A sampler's side of a cgroup: its accounting files, kept open, read into a row of the schema.

This is the hot path of every measurement: a row is some twenty preads and little else. What of the
text hasn't changed since the last row isn't read again, numbers go straight into their column.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from nscontainer import schema
from nscontainer.schema import NA

Row = list[int]
Take = Callable[[bytes, Row], None]
"""Puts the figures of one file's text into a row."""
Number = tuple[str | int, int]
"""A file of one number: its path (or an fd to keep), and where in the row the number goes."""
Text = tuple[str, int, Take]
"""A file of several: its path, the bytes to read of it (more if it fills them), what takes them."""

COLUMNS: Final = len(schema.COLUMNS)
# Behind the columns a row has what a column is computed from, until it is given out.
QUOTA, PERIOD, INACTIVE_FILE, MEMORY_LIMIT, MEMSW_LIMIT, MEMSW_FAILCNT = range(COLUMNS, COLUMNS + 6)
OWN_DEVICE: Final = {
    name: COLUMNS + 6 + at
    for at, name in enumerate(
        ("blkio.read_bytes", "blkio.write_bytes", "blkio.reads", "blkio.writes")
    )
}
"""What the container's own device counts, to be added to what its cgroup does."""
_OWN_READS: Final = OWN_DEVICE["blkio.read_bytes"]

SMALL: Final = 479
"""The most that CPython's small-object allocator serves (512 with the header of bytes)."""
LARGE: Final = 4096
_WORD: Final = 64

_BLANK: Final[Row] = [NA] * (COLUMNS + 6 + len(OWN_DEVICE))
_CPU_QUOTA: Final = schema.INDEX["cpu.quota"]
_USAGE: Final = schema.INDEX["memory.usage"]
_WORKING_SET: Final = schema.INDEX["memory.working_set"]
_FAILCNT: Final = schema.INDEX["memory.failcnt"]

_BRISK_NUMBERS: Final = frozenset(
    schema.INDEX[name]
    for name in (
        "cpuacct.usage", "cpuacct.usage_user", "cpuacct.usage_sys", "memory.usage", "pids.current",
    )
)  # fmt: skip
_BRISK_TEXT: Final = "cpu.stat"
"""What is read each time. The rest moves slowly, or costs the kernel more than all of these: memory.stat
sums up every CPU's counters, the pressure files bring their averages up to date."""


def number(path: str | int, column: str) -> Number:
    """Name a file of one number and its column."""
    return path, schema.INDEX[column]


def keys(places: Mapping[bytes, str | int], factors: Mapping[str, int] | None = None) -> Take:
    r"""Take lines ``key value`` of a text; what isn't there stays NA.

    Parameters
    ----------
    places
        What stands before the value, up to and with the blank (begin with ``\n`` where another key
        ends in this one), and its column or place.
    factors
        Column to factor, where it isn't 1.
    """
    plan = [
        (
            key,
            len(key),
            schema.INDEX[place] if isinstance(place, str) else place,
            (factors or {}).get(str(place), 1),
        )
        for key, place in places.items()
    ]

    def take(data: bytes, row: Row) -> None:
        find = data.find
        for key, length, place, factor in plan:
            at = find(key)
            if at >= 0:
                at += length
                row[place] = int(data[at : find(b"\n", at)]) * factor

    return take


def _given_out(row: Row) -> Row:
    """Compute the columns that come of several files, and cut the row to its columns."""
    # NA is negative, and no figure is: ">= 0" is "known".
    quota, period, inactive, limit, memsw_limit, memsw_failcnt = row[COLUMNS : COLUMNS + 6]
    if quota >= 0 and period > 0:
        row[_CPU_QUOTA] = quota * 1_000_000 // period  # the column's scale is 1e-6
    if inactive >= 0 and row[_USAGE] >= 0:
        # The two are not read in one instant: the difference could come out below nothing.
        row[_WORKING_SET] = max(0, row[_USAGE] - inactive)
    if memsw_failcnt >= 0 and row[_FAILCNT] >= 0:
        row[_FAILCNT] += memsw_failcnt
    if limit == memsw_limit and 0 <= limit < 1 << 62:
        row[_FAILCNT] = NA  # see cgroup_figures.v1
    if row[_OWN_READS] >= 0:
        for name, place in OWN_DEVICE.items():
            column = schema.INDEX[name]
            if row[column] != NA:
                row[column] += row[place]
    del row[COLUMNS:]
    return row


class FileReader:
    """Reads a row from files that stay open: ``pread`` at 0 has the kernel write them anew.

    Parameters
    ----------
    numbers, texts
        In the order to be read. One that can't be opened or read now is left out: NA for good.
    events
        The path of a ``cgroup.events``, or None.
    """

    def __init__(
        self, numbers: Iterable[Number], texts: Iterable[Text], events: str | None
    ) -> None:
        self._numbers: list[tuple[int, int]] = []
        self._texts: list[tuple[int, int, Take]] = []
        brisk = set()
        for file, place in numbers:
            fd = file if isinstance(file, int) else _open(file)
            if fd is not None:
                self._numbers.append((fd, place))
        for path, size, take in texts:
            fd = _open(path)
            if fd is not None:
                self._texts.append((fd, size, take))
                if os.path.basename(path) == _BRISK_TEXT:
                    brisk.add(fd)
        self._brisk_fds = brisk
        self._events = None if events is None else _open(events)
        self._row = _BLANK.copy()
        self._last: list[bytes | None] = []
        self._drop(self._read_each())
        if self._events is not None:
            os.pread(self._events, _WORD, 0)  # poll(2) tells changes since the last read

    def read(self, *, whole: bool = True) -> Row:
        """Read the figures now, in the order of :data:`nscontainer.schema.COLUMNS`.

        Parameters
        ----------
        whole
            All of them; otherwise CPU time, throttling, memory's usage and the number of processes,
            and the others as they were.
        """
        row, last, pread, texts = self._row, self._last, os.pread, self._texts
        try:
            for fd, place in self._numbers if whole else self._brisk_numbers:
                row[place] = int(pread(fd, _WORD, 0))
            for at in range(len(texts)) if whole else self._brisk_texts:
                fd, size, take = texts[at]
                data = pread(fd, size, 0)
                if data != last[at]:
                    if len(data) == size:
                        raise ValueError  # there is more
                    take(data, row)
                    last[at] = data
        except (OSError, ValueError):
            self._read_each()
        return _given_out(self._row.copy())

    def _read_each(self) -> list[int]:
        """Read what can be read into a new row, the rest NA; give the fds that could not be.

        A file may have grown, or PSI been switched off meanwhile (ENODEV).
        """
        row = self._row = _BLANK.copy()
        self._last = [None] * len(self._texts)
        failed = []
        for fd, place in self._numbers:
            try:
                row[place] = int(os.pread(fd, _WORD, 0))
            except (OSError, ValueError):
                failed.append(fd)
        for at, (fd, size, take) in enumerate(self._texts):
            try:
                data = os.pread(fd, size, 0)
                while len(data) == size:
                    size *= 2  # noqa: PLW2901 - it is kept below
                    data = os.pread(fd, size, 0)
                self._texts[at] = (fd, size, take)
                take(data, row)
            except (OSError, ValueError):
                failed.append(fd)
        return failed

    def _drop(self, fds: list[int]) -> None:
        """Do without files."""
        self._numbers = [entry for entry in self._numbers if entry[0] not in fds]
        self._texts = [entry for entry in self._texts if entry[0] not in fds]
        self._last = [None] * len(self._texts)
        self._brisk_numbers = [entry for entry in self._numbers if entry[1] in _BRISK_NUMBERS]
        self._brisk_texts = [
            at for at, entry in enumerate(self._texts) if entry[0] in self._brisk_fds
        ]
        for fd in fds:
            os.close(fd)

    def fileno_populated(self) -> int | None:
        """Give the fd of ``cgroup.events``: POLLPRI at a change; pread it at 0 to re-arm."""
        return self._events

    def close(self) -> None:
        """Close the files."""
        self._drop([*(entry[0] for entry in self._numbers), *(entry[0] for entry in self._texts)])
        if self._events is not None:
            os.close(self._events)
            self._events = None


def _open(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
