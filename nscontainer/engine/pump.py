"""Relaying: from a container's pipes and channel to sinks, until it has ended.

One poll loop in the caller's thread. While it runs in the main thread, SIGINT is taken by a handler that
only writes to a pipe: an exception in the middle of reading a message would lose part of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from nscontainer.engine import wire
from nscontainer.engine.answers import exit_record, rebuild_error
from nscontainer.errors import EngineError

CHUNK: Final = 65536
_FRAME: Final = struct.Struct("!I")
_MAX_FRAME: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class Sinks:
    """Where what comes out of a container goes; None drops it."""

    stdout: Callable[[bytes], None] | None = None
    stderr: Callable[[bytes], None] | None = None
    message: Callable[[dict[str, Any]], None] | None = None
    tick: Callable[[], None] | None = None
    tick_s: float = 0.25


def send_frame(channel: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message to the cell's runner, and file descriptors with its first byte.

    None ever comes the other way: what is read from the channel is read without room for any, so
    Linux closes those that a container sends (unix(7)).
    """
    body = json.dumps(message).encode()
    data = _FRAME.pack(len(body)) + body
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        sent = socket.send_fds(channel, [data], list(fds)) if fds else 0
        channel.sendall(memoryview(data)[sent:])


class Frames:
    """Takes a runner's messages apart. What it sends is hostile: sizes and types are checked."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Add bytes; give every message that is whole."""
        self._data += data
        while len(self._data) >= _FRAME.size:
            (size,) = _FRAME.unpack_from(self._data)
            if size > _MAX_FRAME:
                message = f"the cell sent a message of {size} bytes"
                raise EngineError(message)
            end = _FRAME.size + size
            if len(self._data) < end:
                return
            body = bytes(self._data[_FRAME.size : end])
            del self._data[:end]
            with contextlib.suppress(ValueError, RecursionError):
                parsed = json.loads(body)
                if isinstance(parsed, dict) and isinstance(parsed.get("content"), dict):
                    yield parsed


@dataclass(slots=True)
class Interrupts:
    """Where SIGINTs come as bytes, and how many came when nobody read any more."""

    fd: int | None = None
    late: int = 0


@contextlib.contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Turn SIGINT into bytes on a pipe, where this is the main thread."""
    caught = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    caught.fd = reader

    def note(_number: int, _frame: object) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(writer, b"i")

    before = signal.signal(signal.SIGINT, note)
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, before)
        with contextlib.suppress(BlockingIOError):
            caught.late = len(os.read(reader, 64))
        os.close(reader)
        os.close(writer)


def drive(made: Ends, sinks: Sinks, interrupted: Callable[[int], None]) -> dict[str, Any]:
    """Relay until the exit record has come and every pipe is at its end."""
    relay = Relay(made, sinks)
    with interrupts() as caught:
        times = relay.run(caught, interrupted, lambda: relay.record is not None and not relay.open)
    assert relay.record is not None
    # One that came as the container ended is the caller's all the same: a loop of runs must stop.
    relay.record["interrupted"] = min(times + caught.late, 2)
    return relay.record


class Ends(Protocol):
    """What is relayed from: a container's ends, as this process holds them."""

    name: str
    control: wire.Inbox
    stdout: int | None
    stderr: int | None
    channel: socket.socket | None
    tty: int | None


class Relay:
    """One poll over a container's ends, and what came of it."""

    def __init__(self, made: Ends, sinks: Sinks) -> None:
        self.made = made
        self.sinks = sinks
        self.poll = select.poll()
        self.record: dict[str, Any] | None = None
        self.cell: dict[str, Any] | None = None
        """Of a session that ended: the record of the cell it was in."""
        self.frames = Frames()
        self.open: set[int] = set()
        self.control = made.control.sock.fileno()
        self.channel = None if made.channel is None else made.channel.fileno()
        for fd in (made.stdout, made.stderr, self.channel, made.tty):
            if fd is not None:
                self.open.add(fd)
                self.poll.register(fd, select.POLLIN)
        self.poll.register(self.control, select.POLLIN)
        self.next_tick = time.monotonic() + sinks.tick_s

    def run(
        self, caught: Interrupts, interrupted: Callable[[int], None], done: Callable[[], bool]
    ) -> int:
        """Relay until it is done; give how many interrupts came."""
        times = tried = 0
        if caught.fd is not None:
            self.poll.register(caught.fd, select.POLLIN)
        while not done():
            ready = self.poll.poll(self.timeout_ms())
            self.serve_channel()
            for fd, _ in ready:
                if fd == caught.fd:
                    times += len(os.read(fd, 64))
                    if tried == 2:  # and still no end: the caller is let go
                        raise KeyboardInterrupt
                    tried = min(times, 2)
                    interrupted(tried)
                elif fd != self.channel:
                    self.serve(fd)
            self.tick()
        return times

    def timeout_ms(self) -> float | None:
        """How long to wait at most: until the next tick, for ever where there is none."""
        if self.sinks.tick is None or self.record is not None:
            return None
        return max(0.0, self.next_tick - time.monotonic()) * 1e3

    def tick(self) -> None:
        """Call the tick's sink, if it is time."""
        if self.sinks.tick is None or self.record is not None:
            return
        if time.monotonic() >= self.next_tick:
            self.next_tick = time.monotonic() + self.sinks.tick_s
            self.sinks.tick()

    def serve_channel(self) -> None:
        """Take what the channel holds, before the pipes are looked at.

        The runner sends a message when the pipes are empty (nscontainer/runner/raw_output.py), so
        what a cell prints and what its subprocesses print keep their order.
        """
        for _ in range(16):  # more than a socket holds; a flood mustn't keep an interrupt waiting
            if self.channel not in self.open or self.made.channel is None:
                return
            try:
                data = self.made.channel.recv(CHUNK, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:  # of a killed cell: ECONNRESET
                data = b""
            if not data:
                self.open.discard(self.channel)
                self.poll.unregister(self.channel)
            for message in self.frames.feed(data):
                if self.sinks.message is not None:
                    self.sinks.message(message)

    def serve(self, fd: int) -> None:
        """Take what came on the control socket, a pipe or the terminal."""
        if fd == self.control:
            self._serve_control()
            return
        try:
            data = os.read(fd, CHUNK)
        except OSError:  # a terminal's master gives EIO at its end
            data = b""
        if not data:
            self.open.discard(fd)
            self.poll.unregister(fd)
        else:
            sink = self.sinks.stderr if fd == self.made.stderr else self.sinks.stdout
            if sink is not None:
                sink(data)

    def _serve_control(self) -> None:
        inbox = self.made.control
        inbox.fill(wait=False)
        while (received := inbox.pop()) is not None:
            event = received[0].get("event")
            if event == "exit":
                self.record, self.cell = exit_record(received[0]), received[0].get("cell")
            elif event == "failed":
                raise rebuild_error(received[0])
        if inbox.closed:
            if self.record is None:
                message = f"the monitor of container {self.made.name!r} went away"
                raise EngineError(message, hint="nscontainer gc removes what it left")
            self.poll.unregister(self.control)


def execute(
    sock: socket.socket,
    request: wire.Message,
    stdin: int | None,
    on_stdout: Callable[[bytes], None] | None,
    on_stderr: Callable[[bytes], None] | None,
) -> tuple[int, bytes, bytes]:
    """Have the monitor execute a command, and relay its output until it has ended.

    Returns
    -------
    tuple[int, bytes, bytes]
        The exit code, and what no sink took.
    """
    taken: dict[int, bytearray] = {}
    sinks: dict[int, Callable[[bytes], None]] = {}
    with contextlib.ExitStack() as stack:
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, null)
        readers, writers = [], []
        for sink in (on_stdout, on_stderr):
            reader, writer = os.pipe()
            stack.callback(os.close, reader)
            writers.append(writer)
            readers.append(reader)
            taken[reader] = bytearray()
            sinks[reader] = sink or taken[reader].extend
        try:
            wire.send(sock, request, (null if stdin is None else stdin, *writers))
        finally:
            for writer in writers:
                os.close(writer)
        code = _relay_exec(sock, readers, sinks)
    return code, bytes(taken[readers[0]]), bytes(taken[readers[1]])


def _relay_exec(
    sock: socket.socket, readers: list[int], sinks: dict[int, Callable[[bytes], None]]
) -> int:
    inbox, told = wire.Inbox(sock), None
    poll = select.poll()
    for fd in (sock.fileno(), *readers):
        poll.register(fd, select.POLLIN)
    open_ = set(readers)
    while told is None or open_:
        # A process it left in the background may hold the pipes: after the end, take what is there.
        ready = poll.poll(None if told is None else 50)
        if told is not None and not ready:
            break
        for fd, _ in ready:
            if fd != sock.fileno():
                data = os.read(fd, CHUNK)
                if data:
                    sinks[fd](data)
                else:
                    open_.discard(fd)
                    poll.unregister(fd)
                continue
            inbox.fill(wait=False)
            received = inbox.pop()
            if received is not None:
                told = received[0]
                poll.unregister(fd)
            elif inbox.closed:
                told = {"exit_code": 137}
                poll.unregister(fd)
    assert told is not None
    if told.get("event") == "failed":
        raise rebuild_error(told)
    return int(told["exit_code"])
