"""The channel to the owner: length-framed JSON messages, queued and sent in one order.

A message is ``{"msg_type": str, "content": {...}}`` with Jupyter's own message contents, after four
bytes of big-endian length. Everything a cell says, on whatever stream, goes through one queue, so
its order is the order in which it was said.

An interrupt may come between any two bytecodes of the main thread, a signal handler or a finalizer
may print in the middle of a ``print``: neither may break a frame. Hence the two habits here: a count
of sent bytes is stored by the same C call that sends them (:meth:`Outbox._pump`), and whoever finds
itself inside its own lock only queues.
"""

from __future__ import annotations

import _thread
import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Message = dict[str, Any]

CHUNK = 65536
"""Most UTF-8 bytes of text in one stream message."""
_BURST = 20  # messages that may go out at once, a line each, ...
_RATE = 2000  # ... and how many a second are earned back; beyond it, lines share messages
_TICK_S = 0.02  # how long a partial line, or a line of a flood, waits for company
_IDLE_TICKS = 10  # after so many without work the flusher ends

_ROOM = socket.CMSG_SPACE(4 * 4)  # for file descriptors: the owner sends two at most
_SIGNALS = [int(number) for number in signal.valid_signals()]
_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def frame(message: Message) -> bytes:
    """Give a message as it goes over the channel; lone surrogates arrive as they are."""
    body = _ENCODE(message).encode("utf-8", "backslashreplace")  # "\udc80" is JSON's escape too
    return len(body).to_bytes(4, "big") + body


class _Item:
    """A message in the queue; text grows until its frame is made."""

    __slots__ = ("data", "name", "parts", "sent", "weight")

    def __init__(self, data: bytes | None = None, name: str = "", text: str = "") -> None:
        self.data = data
        self.name = name
        self.parts = [text]
        self.weight = _weight(text)
        self.sent: list[int] = []

    def frame(self) -> bytes:
        if self.data is None:
            text = "".join(self.parts)
            if not text.isascii():  # lone surrogates, as in an undecodable file name
                text = text.encode("utf-8", "backslashreplace").decode()
            content = {"name": self.name, "text": text}
            self.data = frame({"msg_type": "stream", "content": content})
        return self.data


def _weight(text: str) -> int:
    """Bound the UTF-8 bytes of a text without encoding it."""
    return len(text) if text.isascii() else 4 * len(text)


class Outbox:
    """The messages on their way to the owner. Thread-safe, and safe to be interrupted anywhere.

    Parameters
    ----------
    sock
        A connected, blocking stream socket. A full one holds the writer back: nothing piles up.
    flusher
        Whether a thread may send what waits for company; else nothing waits.
    before_sending
        Called before messages are sent; it may wait.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        flusher: bool = True,
        before_sending: Callable[[], None] | None = None,
    ) -> None:
        self._sock = sock
        self._queue: deque[_Item] = deque()
        self._lock = threading.RLock()
        self._tokens = float(_BURST)
        self._refilled = time.monotonic()
        self._flushing = False
        self._stop_flusher = _thread.allocate_lock()
        self._gone = False
        self._may_flush = flusher
        self._before_sending = before_sending
        self.lasting = False
        """True in a session: whoever listens may go, and another come (:meth:`connect`)."""
        self.forked = False
        """True in a process that the cell forked: there the channel is closed."""

    @property
    def direct(self) -> bool:
        """Whether text goes to descriptors 1 and 2: nobody listens here who is to have it."""
        return self.forked or (self.lasting and self._gone)

    def close(self) -> None:
        """Let nothing go over the channel until :meth:`connect`."""
        with self._lock:
            self._gone = True

    def connect(self, sock: socket.socket) -> None:
        """Speak to the next owner of a session; what the last one missed is dropped."""
        with self._lock:
            self._queue.clear()
            self._sock = sock
            self._gone = False

    def send(self, msg_type: str, content: Message, **beside: Any) -> None:
        """Queue a message and send all there is."""
        if self._gone:
            return
        item = _Item(frame({"msg_type": msg_type, "content": content, **beside}))
        if self._inside():
            self._queue.append(item)
            self._arm()
            return
        with self._lock:
            self._queue.append(item)
            self._pump()

    def write(self, name: str, text: str) -> None:
        """Queue text of a stream; whole lines leave at once, short of a flood of them."""
        if len(text) <= CHUNK // 4:
            self._write(name, text)
            return
        step = CHUNK if text.isascii() else CHUNK // 4
        for begin in range(0, len(text), step):
            self._write(name, text[begin : begin + step])

    def flush(self) -> None:
        """Send all there is; waits for the owner where the socket is full."""
        if not self._gone and not self._inside():
            with self._lock:
                self._pump()

    def finish(self, msg_type: str, content: Message) -> None:
        """Send the last message, with all before it; what is said afterwards is dropped.

        Even if an interrupt left the lock with this thread. Afterwards nothing takes the lock any
        more: a thread that the interpreter ends at its own end may hold it for ever.
        """
        while self._inside():
            self._lock.release()
        if self._gone:
            return
        last = _Item(frame({"msg_type": msg_type, "content": content}))
        with self._lock:
            self._queue.append(last)
            self._pump()
            self._gone = True

    def _inside(self) -> bool:
        """Tell whether this is a signal handler's or finalizer's call inside one of ours."""
        return bool(self._lock._is_owned())  # type: ignore[attr-defined]  # noqa: SLF001

    def _write(self, name: str, text: str) -> None:
        if self._gone:
            return
        if self._inside():
            self._queue.append(_Item(name=name, text=text))
            self._arm()
            return
        with self._lock:
            last = self._queue[-1] if self._queue else None
            weight = _weight(text)
            if (
                last is not None
                and last.data is None
                and last.name == name
                and last.weight + weight <= CHUNK
            ):
                last.parts.append(text)
                last.weight += weight
            else:
                self._pump()
                last = _Item(name=name, text=text)
                self._queue.append(last)
            whole = "\n" in text and self._earned()
            if whole or last.weight >= CHUNK or not self._arm():
                self._pump()

    def _earned(self) -> bool:
        """Take a token for a message of its own, if there is one."""
        now = time.monotonic()
        self._tokens = min(_BURST, self._tokens + (now - self._refilled) * _RATE)
        self._refilled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _pump(self) -> None:
        """Send the whole queue. The caller holds the lock.

        ``extend(map(send, …))`` sends and keeps the count in one C call: a KeyboardInterrupt comes
        before or after it, never between, so an interrupted frame is gone on with where it stopped.
        """
        if self._queue and self._before_sending is not None:
            self._before_sending()
        while self._queue:
            item = self._queue[0]
            data = item.frame()
            while not self._gone and sum(item.sent) < len(data):
                rest = memoryview(data)[sum(item.sent) :]
                try:
                    item.sent.extend(map(self._sock.send, (rest,)))
                except OSError:  # the owner is gone, and with it soon this container
                    self._gone = True
                    if self.lasting:  # but a session
                        self._write_rest()
            self._queue.popleft()

    def _write_rest(self) -> None:
        """Write to descriptors 1 and 2 the text that an owner who went away did not take."""
        for item in self._queue:
            if item.name:
                text = "".join(item.parts).encode("utf-8", "backslashreplace")
                write_all(2 if item.name == "stderr" else 1, text)

    # --- the flusher: a bare thread that lives only while something waits -------------------

    def _arm(self) -> bool:
        """Have the queue sent soon; False where no thread is to be had. The caller has the lock."""
        if self._flushing or not self._may_flush:
            return self._flushing
        self._flushing = True
        self._stop_flusher.acquire(blocking=False)
        try:
            _thread.start_new_thread(self._flusher, ())
        except RuntimeError:  # the container's --pids-limit
            self._flushing = False
        return self._flushing

    def _flusher(self) -> None:
        """Send the queue every tick; end after some ticks without work, or when told to.

        A bare thread: it isn't in ``threading.enumerate()`` and nobody waits for it at exit.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        idle = 0
        while idle < _IDLE_TICKS and not self._stop_flusher.acquire(timeout=_TICK_S):
            idle = 0 if self._queue else idle + 1
            self.flush()
        with self._lock:
            self._flushing = False
            self._pump()

    # --- a process that the cell forks ------------------------------------------------------

    def before_fork(self) -> None:
        """Send all and hold the queue still. The flusher ends first: one thread less that forks."""
        inside = self._inside()
        with contextlib.suppress(RuntimeError):
            self._stop_flusher.release()
        patience = 0 if inside else 50
        while self._flushing and patience:
            time.sleep(0.001)
            patience -= 1
        self._lock.acquire()
        if not inside:
            self._pump()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Let go of the channel: two processes' frames would mix."""
        self._lock = threading.RLock()
        self._gone = self.forked = True
        self._may_flush = self._flushing = False
        self._queue.clear()
        self._sock.close()


class Inbox:
    """Reads the owner's messages, whole ones only, however they arrive; and file descriptors.

    Attributes
    ----------
    fds
        The descriptors that came and that nobody has taken yet, in order.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._chunks: list[tuple[bytes, list[tuple[int, int, bytes]], int, Any]] = []
        self._messages: deque[Message] = deque()
        self.fds: list[int] = []

    def connect(self, sock: socket.socket) -> None:
        """Read the messages of a session's next owner."""
        self._sock = sock
        self._chunks.clear()
        self._messages.clear()
        while self.fds:
            os.close(self.fds.pop())

    def get(self, *types: str) -> Message | None:
        """Wait for a message (of these types; others stay); None when the owner has closed."""
        while True:
            for message in self._messages:
                if not types or message.get("msg_type") in types:
                    self._messages.remove(message)
                    return message
            if not self._fill(0):
                return None

    def pending(self) -> bool:
        """Tell whether anything has come that was not taken. A signal handler may ask."""
        if self._messages or any(chunk[0] for chunk in self._chunks):
            return True
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def forget(self, msg_type: str) -> None:
        """Throw away what is there of a type: a late answer to an interrupted question."""
        while self._fill(socket.MSG_DONTWAIT):
            pass
        for message in [m for m in self._messages if m.get("msg_type") == msg_type]:
            self._messages.remove(message)

    def _fill(self, flags: int) -> bool:
        """Take in what there is; received and kept in one C call, as in :meth:`Outbox._pump`."""
        before = len(self._chunks)
        flags |= getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # Linux's
        try:
            self._chunks.extend(map(self._sock.recvmsg, (1 << 20,), (_ROOM,), (flags,)))
        except OSError:
            return False
        if len(self._chunks) == before or not self._chunks[-1][0]:
            del self._chunks[before:]
            return False
        data = b"".join([chunk[0] for chunk in self._chunks])
        rights = [sent for chunk in self._chunks for *_, sent in chunk[1]]
        while len(data) >= 4 and len(data) >= (end := 4 + int.from_bytes(data[:4], "big")):
            message = json.loads(data[4:end])
            if isinstance(message, dict):
                self._messages.append(message)
            data = data[end:]
        self.fds.extend(memoryview(b"".join(rights)).cast("i"))
        self._chunks[:] = [(data, [], 0, None)]
        return True


def write_all(fd: int, data: bytes) -> None:
    """Write to a file descriptor until all is written."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
