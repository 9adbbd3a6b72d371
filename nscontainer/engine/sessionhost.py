"""The monitor's part in a session: who may run cells in it, and what each cell used.

The runner's channel and the ends of its pipes are kept here, so that a session outlives whoever uses
it. One client at a time is *attached*: it gets a fresh socket to the runner (nscontainer/runner/door.py)
and reads the pipes while a cell of its runs. All that is printed otherwise is taken to the log here,
so that nothing in the container ever waits for a reader.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nscontainer.engine import wire
from nscontainer.errors import StateError
from nscontainer.linux import procfs
from nscontainer.schema import INDEX, NA

if TYPE_CHECKING:
    from nscontainer.engine.monitor import Monitor

LOG_BYTES: Final = 1 << 20
"""How much of what is printed between cells is kept, at least; at most it is twice as much."""
_RATE, _BURST = 1 << 20, 4 << 20
"""Bytes that are read between cells, a second and at once: what floods us waits, and costs no more."""
_CHUNK: Final = 65536
_WAKING: Final = 4096  # bytes that a reading costs at least
_MOST_READS: Final = (
    32  # of a pipe at once, more than it holds: what never stops mustn't hold us up
)
# A peak, what it is the peak of, and how far the two may be apart: memory is counted in batches of 64
# pages a CPU (mm/memcontrol.c).
_PEAKS: Final = (
    (INDEX["memory.peak"], INDEX["memory.usage"], 256 << 10),
    (INDEX["pids.peak"], INDEX["pids.current"], 0),
)
_UCRED: Final = struct.Struct("3i")
_NO_RUNNER: Final = 126  # nscontainer/runner/__main__.py


@dataclass(frozen=True, slots=True)
class _Cell:
    """Where a cell began."""

    baseline: list[int]
    begin_ns: int
    begin_unix: float
    first_row: int
    steal_ns: int
    missed: int
    changes: int
    limits: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Client:
    """Who is attached, and what it was lent.

    A process that it forked has copies of all its ends. So its own end is what counts (pidfd), and the
    stream to the runner is shut down rather than closed.
    """

    sock: socket.socket
    stream: socket.socket
    pid: int
    pidfd: int | None

    def part(self) -> None:
        """Hang up on the runner, which goes on to wait for the next."""
        with contextlib.suppress(OSError):
            self.stream.shutdown(socket.SHUT_RDWR)
        self.stream.close()
        if self.pidfd is not None:
            os.close(self.pidfd)


class SessionHost:
    """Keeps a session's ends, lets one client in at a time, marks where its cells begin and end."""

    OPS: Final = frozenset({"keep", "attach", "cell_begin", "cell_end"})

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._door: socket.socket | None = None
        self._pipes: list[int] = []
        self._open: list[int] = []
        """Those of them that are not at their end."""
        self._client: _Client | None = None
        self._cell: _Cell | None = None
        self._busy = False
        self._allowed, self._allowed_at = float(_BURST), time.monotonic()
        self._peaks = dict.fromkeys((peak for peak, _, _ in _PEAKS), NA)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._log = os.open(f"{monitor.birth.directory}/log", flags, 0o600)

    # --- what comes out between cells ----------------------------------------------------------

    def filenos(self) -> list[int]:
        """Give the fds to watch; the pipes are the client's to read while its cell runs."""
        watched = []
        if self._client is not None and self._client.pidfd is not None:
            watched.append(self._client.pidfd)
        if self._spend(0) <= 0:
            return watched
        if self._door is not None:
            watched.append(self._door.fileno())
        return watched if self._cell is not None else watched + self._open

    def _spend(self, size: int) -> float:
        """Take a reading's cost from what may be read; give what is left."""
        now = time.monotonic()
        earned = (now - self._allowed_at) * _RATE
        self._allowed, self._allowed_at = min(_BURST, self._allowed + earned) - size, now
        return self._allowed

    def serve(self, source: int) -> None:
        """Take what came on one of them."""
        if self._door is not None and source == self._door.fileno():
            self._read_door()
        elif self._client is not None and source == self._client.pidfd:
            self.forget(self._client.sock)
        elif not self._log_from(source):
            self._open.remove(source)

    def _read_door(self) -> None:
        assert self._door is not None
        try:
            data = self._door.recv(_CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._spend(_WAKING)
        if data:
            self._busy = False  # a byte a cell; a container that lies harms its own cells only
        else:
            self._door.close()
            self._door = None

    def _log_from(self, pipe: int) -> bool:
        """Move what a pipe holds to the log; False at its end."""
        data = os.read(pipe, _CHUNK)
        self._spend(max(len(data), _WAKING))
        with contextlib.suppress(OSError):  # a full disk: what is printed is lost
            os.write(self._log, data)
            size = os.fstat(self._log).st_size
            if size > 2 * LOG_BYTES:
                newest = os.pread(self._log, LOG_BYTES, size - LOG_BYTES)
                os.ftruncate(self._log, 0)
                os.write(self._log, newest.partition(b"\n")[2])
        return bool(data)

    def _drain(self) -> None:
        """Empty the pipes into the log, before they become the client's."""
        for _ in range(_MOST_READS):
            ready = select.select(self._open, (), (), 0)[0]
            if not ready:
                return
            for pipe in ready:
                if not self._log_from(pipe):
                    self._open.remove(pipe)

    # --- requests ------------------------------------------------------------------------------

    def do(
        self, op: str, request: wire.Message, fds: list[int], sock: socket.socket
    ) -> wire.Message | None:
        """Carry out one of :attr:`OPS` for a client.

        Raises
        ------
        StateError
            Another is attached, a cell still runs, or the container is paused or ending.
        """
        if op == "keep":
            return self._keep(fds)
        if op == "attach":
            self._attach(request, sock)
            return None
        if self._client is None or sock is not self._client.sock:
            message = "only who is attached to a session can run cells in it"
            raise StateError(message)
        if op == "cell_begin":
            self._begin(request)
            return None
        return self._end()

    def _keep(self, fds: list[int]) -> wire.Message:
        """Take over the runner's channel and the pipes' ends from who had the session made."""
        if self._pipes or len(fds) != 3:
            message = "a session's ends are handed over once, all three"
            raise StateError(message)
        door_fd, *self._pipes = [os.dup(fd) for fd in fds]
        self._open = list(self._pipes)
        self._door = socket.socket(fileno=door_fd)
        self._monitor.log.slow = True
        return {}

    def _attach(self, request: wire.Message, sock: socket.socket) -> None:
        from nscontainer.runner import door  # of no use to containers that run a command

        name = self._monitor.request.name
        if self._client is not None:
            message = f"session {name!r} is in use by process {self._client.pid}"
            raise StateError(
                message, hint="one notebook at a time: restart that one's kernel first"
            )
        if self._door is None:
            message = f"session {name!r} is ending"
            raise StateError(message)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            try:
                socket.send_fds(self._door, [door.MARK], [theirs.fileno()], socket.MSG_DONTWAIT)
            except OSError as error:
                ours.close()
                message = f"session {name!r} takes nobody in: {error.strerror}"
                raise StateError(message, hint=f"remove it with rm -f {name}") from None
        self._client = _Client(sock, ours, *_peer(sock))
        self._monitor.waiting.append(sock)
        wire.send(
            sock,
            {"reply": request.get("seq")},
            (ours.fileno(), *self._pipes, self._monitor.birth.samples_fd),
        )

    def forget(self, sock: socket.socket) -> None:
        """Note that a client has gone; its cell goes on, and what it prints comes to the log."""
        if self._client is not None and sock is self._client.sock:
            self._client.part()
            self._client = None
            if self._cell is not None:
                self._cell = None
                self._monitor.log.slow = True

    # --- cells -----------------------------------------------------------------------------------

    def _begin(self, request: wire.Message) -> None:
        monitor = self._monitor
        name = monitor.request.name
        if monitor.status != "running":
            message = f"session {name!r} is {monitor.status}"
            raise StateError(message, hint=f"resume {name} lets it go on")
        if self._door is not None:
            self._read_door()
        if self._busy:
            message = f"session {name!r} still runs the cell of a notebook that went away"
            raise StateError(
                message, hint=f"kill -s INT {name} interrupts it; logs {name} shows more"
            )
        self._drain()
        monitor.log.row_now()  # all of them, for the peaks
        self._raise_peaks(monitor.log.last)
        monitor.cgroup.reset_peak()
        unix = time.time()
        baseline = list(monitor.log.mark(slow=False))
        assert self._client is not None
        begun = {
            "reply": request.get("seq"),
            "row": monitor.log.rows - 1,
            "offset_ns": monitor.log.last_ns - monitor.log.begin_ns,
        }
        # The cell may go: what follows takes as long as a reading, and nothing of it is the cell's.
        # One who went away without reading this is found out by its closed socket.
        with contextlib.suppress(OSError):
            wire.send(self._client.sock, begun)
        self._busy = True
        self._cell = _Cell(
            baseline=baseline,
            begin_ns=monitor.log.last_ns,
            begin_unix=unix,
            first_row=monitor.log.rows - 1,
            steal_ns=procfs.steal_ns(),  # in steps of 10 ms
            missed=monitor.log.missed,
            changes=len(monitor.changes),
            limits=monitor.asked.to_dict(),
        )

    def _end(self) -> wire.Message:
        if self._cell is None:
            message = "no cell has begun"
            raise StateError(message)
        log = self._monitor.log
        final = list(log.mark(slow=True))
        record = self._record(final, log.last_ns, self._monitor.birth.read_back())
        if self._door is not None:
            self._read_door()
        self._busy = False
        return record

    def ended(self, record: dict[str, Any], ended_ns: int) -> wire.Message | None:
        """Give the record of the cell that the container's end has cut short, if there was one.

        The container's own record gets the peaks of its whole life.
        """
        last = None
        if self._cell is None:
            self._drain()
            if record["exit_code"] == _NO_RUNNER:
                record["exec_error"] = self._why()
        else:
            last = self._record(list(record["final"]), ended_ns, record["limits_read_back"])
        self._raise_peaks(record["final"])
        self.highest(record["final"], 0)
        return last

    def _why(self) -> str | None:
        """Give the runner's own last words, where the image's Python is none that it can run under."""
        size = os.fstat(self._log).st_size
        text = os.pread(self._log, 1000, max(0, size - 1000)).decode("utf-8", "replace").strip()
        line = text.rpartition("\n")[2]
        return line.removeprefix("nscontainer: ") if line.startswith("nscontainer: ") else None

    def _record(self, final: list[int], end_ns: int, read_back: dict[str, Any]) -> wire.Message:
        """Give what a cell used, as an exit record has it; how it ended is the runner's to say."""
        cell, self._cell = self._cell, None
        assert cell is not None
        monitor, log = self._monitor, self._monitor.log
        offset = cell.begin_ns - log.begin_ns
        for peak, now, near in _PEAKS:
            final[peak] = _own_peak(cell.baseline[peak], cell.baseline[now] + near, final[peak])
        record = {
            **monitor.birth.describe(),
            "start_mode": "session",
            "created_unix": monitor.birth.state["created_unix"],
            "released_unix": cell.begin_unix,
            "released_ns": cell.begin_ns,
            "boot_id": procfs.boot_id(),
            "exit_code": 0,
            "wall_ns": end_ns - cell.begin_ns,
            "baseline": cell.baseline,
            "final": final,
            "limits_asked": cell.limits,
            "limits_read_back": read_back,
            "limit_changes": [
                {**change, "elapsed_ns": change["elapsed_ns"] - offset}
                for change in monitor.changes[cell.changes :]
            ],
            "steal_ns": procfs.steal_ns() - cell.steal_ns,
            "host_cpus": os.cpu_count() or 1,
            "missed_samples": log.missed - cell.missed,
            "parents_quota": monitor.parents_quota,
            "storage": monitor.controls.measured_storage(),
            "sample_s": monitor.spec.sample_s,
        }
        return {"record": record, "rows": [cell.first_row, log.rows], "offset_ns": offset}

    # --- peaks, which each cell begins anew --------------------------------------------------------

    def _raise_peaks(self, reading: list[int]) -> None:
        for peak in self._peaks:
            self._peaks[peak] = max(self._peaks[peak], reading[peak])

    def highest(self, row: list[int], at: int) -> None:
        """Put the highest peaks of all cells so far into a reading that begins at ``at`` of a row."""
        for peak, highest in self._peaks.items():
            row[at + peak] = max(row[at + peak], highest)


def _own_peak(before: int, used: int, after: int) -> int:
    """Give a cell's own peak, or NA where an older one hides it: not every Linux can reset them."""
    if NA in (before, used, after) or after > before or before <= used:
        return after
    return NA


def _peer(sock: socket.socket) -> tuple[int, int | None]:
    """Tell the process at the other end by pid and pidfd: unix(7), SO_PEERCRED."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid = int(_UCRED.unpack(data)[0])
    with contextlib.suppress(OSError):  # of another pid namespace: 0
        return pid, os.pidfd_open(pid)
    return pid, None
