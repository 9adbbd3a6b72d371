"""A session as the one process holds it that runs cells in it just now."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from nscontainer.engine import pump, wire
from nscontainer.engine.answers import rebuild_error
from nscontainer.engine.following import Follower, read_rows
from nscontainer.errors import EngineError, StateError

_MOST_READS: Final = 32  # of what a cell has printed at its end: more than two pipes hold
_HANDLER_S: Final = 60.0  # how long a widget's handlers are waited for, also by the next cell
_SEND_S: Final = 10.0  # the runner is idle, and reads at once
_LOOK_S: Final = 0.1

_CELLS_OWN: Final = (
    "start_mode", "released_unix", "released_ns", "wall_ns", "baseline", "final", "steal_ns", "missed_samples",
    "limits_asked", "limit_changes",
)  # fmt: skip
"""What of a cell's record holds where its container has ended with it; how, the container's says."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a widget is told, and who hears what its handlers say to it."""

    message: dict[str, Any]
    on_message: Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class _Between:
    """A session's ends between cells, when the pipes are the monitor's to read."""

    name: str
    control: wire.Inbox
    channel: socket.socket | None
    stdout: int | None = None
    stderr: int | None = None
    tty: int | None = None


@dataclass(frozen=True, slots=True)
class CellEnd:
    """How a cell in a session ended: an exit record of its own, its samples, and the session's state."""

    record: dict[str, Any]
    samples: bytes
    over: bool
    """Whether the session has ended with it."""


class Attached:
    """The ends of a session, lent by its monitor for as long as the connection to it is open.

    Parameters
    ----------
    name
        What to call it in errors.
    sock
        A connection to its monitor.
    interrupted
        Called with 1 and 2 at the first and second SIGINT while a cell runs.

    Raises
    ------
    StateError
        Somebody else is attached, or it is ending.
    """

    def __init__(self, name: str, sock: socket.socket, interrupted: Callable[[int], None]) -> None:
        self.name = name
        self._interrupted = interrupted
        self._running = threading.Lock()
        self._delivering = False
        self._sent = self._answered = 0
        self._told: Told | None = None
        self.tty: int | None = None
        self.control = wire.Inbox(sock)
        fds: list[int] = []
        self._finalizer = weakref.finalize(self, _let_go, self.control, fds)
        try:
            fds += self._ask("attach")[1]
        except BaseException:
            self.close()
            raise
        self.channel: socket.socket | None = socket.socket(fileno=fds.pop(0))
        self.stdout: int | None
        self.stderr: int | None
        self.stdout, self.stderr, self._samples_fd = fds
        self._finalizer.detach()
        self._finalizer = weakref.finalize(self, _let_go, self.control, fds, self.channel)
        self._frames = pump.Frames()
        self._begun: dict[str, int] = {}
        """Where the sample log stood when the newest cell began."""

    @property
    def open(self) -> bool:
        """Whether the session is still ours."""
        return self._finalizer.alive

    @property
    def alive(self) -> bool:
        """Whether it is ours, and nothing has come that tells of its end."""
        return self.open and not select.select([self.control.sock], (), (), 0)[0]

    def close(self) -> None:
        """Leave the session to others; a cell that runs goes on."""
        self._finalizer()

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send the runner a message, and file descriptors with it."""
        assert self.channel is not None
        pump.send_frame(self.channel, message, fds)

    def follow(self) -> Follower:
        """Read the samples of the cell that runs, while they come."""
        begun = self._begun
        return Follower(self._samples_fd, first_row=begun["row"], offset_ns=begun["offset_ns"])

    def run(
        self,
        request: dict[str, Any],
        sinks: pump.Sinks,
        *,
        fds: Sequence[int] = (),
        meanwhile: Callable[[], object] = lambda: None,
    ) -> CellEnd:
        """Run one cell; whatever breaks this off lets go of the session.

        Parameters
        ----------
        request
            The content of the ``execute_request``.
        fds
            What goes with it.
        meanwhile
            Called once the cell is on its way: what takes a fraction of a millisecond is free then.

        Raises
        ------
        StateError
            It is paused, busy with a cell whose owner went away, or has ended.
        """
        if not self._running.acquire(timeout=_HANDLER_S if self._delivering else 0):
            message = f"session {self.name!r} runs another cell of this process"
            raise StateError(message, hint="wait until that has ended")
        try:
            with pump.interrupts() as caught:
                told, _ = self._ask("cell_begin")
                self._begun = {name: told[name] for name in ("row", "offset_ns")}
                try:
                    times, end = self._relay(request, fds, sinks, caught, meanwhile)
                except BaseException:  # a sink's own, perhaps
                    self.close()
                    raise
        finally:
            self._running.release()
        end.record["interrupted"] = min(times + caught.late, 2)
        return end

    def _relay(
        self,
        request: dict[str, Any],
        fds: Sequence[int],
        sinks: pump.Sinks,
        caught: pump.Interrupts,
        meanwhile: Callable[[], object],
    ) -> tuple[int, CellEnd]:
        reply: dict[str, Any] = {}

        def take(message: dict[str, Any]) -> None:
            if message.get("msg_type") == "execute_reply":
                reply.update(message["content"])
            elif sinks.message is not None and not self._notes_answer(message):
                sinks.message(message)

        relay = pump.Relay(self, replace(sinks, message=take))
        relay.frames = self._frames
        self.send({"msg_type": "execute_request", "content": request}, fds)
        meanwhile()
        times = relay.run(caught, self._interrupted, lambda: _done(relay, reply))
        self._drain(relay)
        return times, self._ended(relay, reply)

    # --- between cells: what widgets are told ----------------------------------------------------

    def deliver(self, queue: deque[Told]) -> dict[str, Any] | None:
        """Give the runner what waits in a queue, one by one, and relay what its handlers say.

        While a cell runs, another thread does the same or a handler still goes on, all stays there.

        Returns
        -------
        dict or None
            The container's exit record, where it ended with a handler.

        Raises
        ------
        StateError
            A handler takes long: it goes on, and what it says comes with what is next.
        """
        record = None
        while queue and self.open and self._running.acquire(blocking=False):
            self._delivering, sent = True, self._sent
            try:
                with pump.interrupts() as caught:
                    record = self._exchange(queue, caught)
            except BaseException:
                self.close()
                raise
            finally:
                self._delivering = False
                self._running.release()
            if self._behind and record is None:
                if self._sent == sent:
                    break
                message = f"session {self.name!r}: a widget's handler takes long and goes on"
                raise StateError(message, hint="what it prints comes with the next cell")
        return record

    @property
    def _behind(self) -> bool:
        return self._answered < self._sent

    def _exchange(self, queue: deque[Told], caught: pump.Interrupts) -> dict[str, Any] | None:
        """Deliver one message, once those before it have been answered."""

        def take(answer: dict[str, Any]) -> None:
            if not self._notes_answer(answer) and self._told is not None:
                self._told.on_message(answer)

        def wait(patience_s: float) -> None:
            until = time.monotonic() + patience_s

            def done() -> bool:
                over = relay.record is not None or time.monotonic() > until
                return over or not self._behind

            relay.run(caught, self._interrupted, done)

        assert self.channel is not None
        sinks = pump.Sinks(message=take, tick=lambda: None, tick_s=_LOOK_S)
        relay = pump.Relay(_Between(self.name, self.control, self.channel), sinks)
        relay.frames = self._frames
        wait(_LOOK_S)
        if queue and relay.record is None and not self._behind:
            self._told = queue.popleft()
            self._sent += 1
            self.channel.settimeout(_SEND_S)
            self.send({**self._told.message, "seq": self._sent})
            self.channel.settimeout(None)
            wait(_HANDLER_S)
        if relay.record is not None:
            self.close()
        return relay.record

    def _notes_answer(self, message: dict[str, Any]) -> bool:
        """Take note of a message that says how far the runner has come; tell whether it is one."""
        if message.get("msg_type") != "comm_done":
            return False
        seq = message["content"].get("seq")
        if isinstance(seq, int) and self._answered < seq <= self._sent:
            self._answered = seq
        return True

    def _ended(self, relay: pump.Relay, reply: dict[str, Any]) -> CellEnd:
        """Take the cell's record from the monitor, and how it ended from the runner."""
        if relay.record is None:
            told, _ = self._ask("cell_end")
            record = told["record"] | {"exit_code": _exit_code(reply)}
        elif relay.cell is not None:
            told = relay.cell
            record = relay.record | {name: told["record"][name] for name in _CELLS_OWN}
        else:
            message = f"session {self.name!r} ended before the cell began"
            raise EngineError(message)
        first, end = told["rows"]
        samples = read_rows(self._samples_fd, first, end, told["offset_ns"]).tobytes()
        if relay.record is not None:
            self.close()
        return CellEnd(record, samples, over=relay.record is not None)

    def _drain(self, relay: pump.Relay) -> None:
        """Take what the pipes hold at the cell's end; what comes later is the log's."""
        if relay.record is not None:
            return
        pipes = [fd for fd in (self.stdout, self.stderr) if fd in relay.open]
        for _ in range(_MOST_READS):
            ready = select.select(pipes, (), (), 0)[0]
            if not ready:
                return
            for fd in ready:
                relay.serve(fd)
            pipes = [fd for fd in pipes if fd in relay.open]

    def _ask(self, op: str) -> tuple[wire.Message, list[int]]:
        """Ask the monitor; an event of the container's end may come instead of the answer."""
        received = None
        try:
            wire.send(self.control.sock, {"op": op, "seq": 1})
            received = self.control.get()
        except (BrokenPipeError, ConnectionResetError):
            pass
        if received is None or received[0].get("event") == "exit":
            self.close()
            raise ended(self.name)
        if received[0].get("event") == "failed":
            raise rebuild_error(received[0])
        return received


def ended(name: str, how: str | None = None) -> StateError:
    """Make the error for a session that isn't there any more."""
    message = f"session {name!r} has ended" + (f": {how}" if how else "")
    return StateError(message, hint=f"%container create {name} makes another")


def _let_go(control: wire.Inbox, fds: list[int], channel: socket.socket | None = None) -> None:
    control.close()
    if channel is not None:
        channel.close()
    for fd in fds:
        os.close(fd)


def _done(relay: pump.Relay, reply: dict[str, Any]) -> bool:
    """Tell whether a cell has ended: by its reply, or with the whole container."""
    if relay.record is not None:
        return not relay.open
    return bool(reply) and not reply.get("ended")


def _exit_code(reply: dict[str, Any]) -> int:
    code = reply.get("exit_code")
    return code & 0xFF if isinstance(code, int) and not isinstance(code, bool) else 1
