"""The sample log: rows of 64-bit integers in a file that others may read while it grows."""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from nscontainer.schema import COLUMNS, INDEX, MOST_ROWS, NA, ROW_FIELDS, WHOLE_NS

if TYPE_CHECKING:
    from nscontainer.linux.cgroup import Reader
    from nscontainer.linux.rtnetlink import LinkStats

_ROW: Final = struct.Struct(f"={ROW_FIELDS}q")
_PIDS: Final = INDEX["pids.current"]
_NET: Final = slice(INDEX["net.rx_bytes"], INDEX["net.tx_dropped"] + 1)
"""The columns of :class:`~nscontainer.linux.rtnetlink.LinkStats`, in its order."""
_COUNTERS: Final = tuple(i for i, column in enumerate(COLUMNS) if column.kind == "counter")
SLOW_NS: Final = 1_000_000_000


class SampleLog:
    """Reads a cgroup's figures on a fixed beat and writes each reading as a row.

    Parameters
    ----------
    fd
        Where the rows go; appended, never rewritten.
    reader
        The cgroup's open files.
    net
        Reads the counters of the container's interface, where it has one.
    """

    def __init__(self, fd: int, reader: Reader, net: Callable[[], LinkStats] | None = None) -> None:
        self._fd = fd
        self._reader = reader
        self._net = net
        self._net_row = [NA] * 4
        self._interval_ns = 0
        self.rows = 0
        self.begin_ns = 0
        self.next_ns = 0
        self.missed = 0
        self.most_pids = NA
        self.baseline: list[int] = []
        self.last: list[int] = []
        self.last_ns = 0
        self.last_took_ns = 0
        self.slow = False
        """Between a session's cells: a sample a second will do."""

    @property
    def _beat_ns(self) -> int:
        return max(self._interval_ns, SLOW_NS) if self.slow else self._interval_ns

    def begin(self, interval_s: float) -> list[int]:
        """Take the baseline, which is also the first row, at elapsed 0; ``interval_s`` is the beat."""
        self._interval_ns = round(interval_s * 1e9)
        self._read()
        self.baseline = self.last
        self.begin_ns = time.monotonic_ns()
        self._write(0)
        self.next_ns = self.begin_ns + self._interval_ns
        return self.baseline

    def take(self) -> None:
        """Take a sample and settle when the next is due; beats that were slept through count."""
        beat_ns = self._beat_ns
        self._read(whole=self.rows % max(1, WHOLE_NS // beat_ns) == 0)
        self._write(self.last_ns - self.begin_ns)
        self.next_ns += beat_ns
        late = self.last_ns - self.next_ns
        if late >= 0:
            skipped = late // beat_ns + 1
            self.missed += skipped
            self.next_ns += skipped * beat_ns
        if self.rows % MOST_ROWS == 0:
            self._interval_ns *= 2

    def mark(self, *, slow: bool) -> list[int]:
        """Take a sample now, and go on from here: where a session's cell begins or ends."""
        self._read()
        self._write(self.last_ns - self.begin_ns)
        self.slow = slow
        self.next_ns = self.last_ns + self._beat_ns
        return self.last

    def look(self) -> None:
        """Read the CPU time, without writing a row."""
        self._read(whole=False)

    def end(self, ended_ns: int) -> list[int]:
        """Take the final reading, the last row, at the time the container ended."""
        self._read()
        self._write(ended_ns - self.begin_ns)
        return list(self.last)

    def row_now(self) -> list[int]:
        """Read now, as a row with the counters since the baseline."""
        self._read()
        values = list(self.last)
        for i in _COUNTERS if self.baseline else ():
            if NA not in (values[i], self.baseline[i]):
                values[i] -= self.baseline[i]
        return [self.last_ns - self.begin_ns if self.baseline else 0, self.last_took_ns, *values]

    def close(self) -> None:
        """Close the cgroup's files; the log's own fd belongs to the monitor."""
        self._reader.close()

    def _read(self, *, whole: bool = True) -> None:
        begin = time.monotonic_ns()
        row = self._reader.read(whole=whole)
        if self._net is not None:
            if whole:  # 6 µs: as much as half of a brisk reading
                with contextlib.suppress(OSError):  # one with NET_ADMIN may have removed it
                    self._net_row = list(self._net())
            row[_NET] = self._net_row
        self.last = row
        self.last_ns = begin
        self.last_took_ns = time.monotonic_ns() - begin
        pids = self.last[_PIDS]
        self.most_pids = max(self.most_pids, pids)

    def _write(self, elapsed_ns: int) -> None:
        os.write(self._fd, _ROW.pack(elapsed_ns, self.last_took_ns, *self.last))
        self.rows += 1
