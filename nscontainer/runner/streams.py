"""What ``sys.stdout``, ``sys.stderr``, ``input`` and ``getpass`` are inside a cell."""

from __future__ import annotations

import builtins
import codecs
import getpass
import io
import os
import sys
from typing import TYPE_CHECKING, Any

from . import wire

if TYPE_CHECKING:
    from collections.abc import Iterable


class CellStream(io.TextIOBase):
    """A text stream whose text goes to the notebook, in order with everything else.

    Parameters
    ----------
    outbox
        Where the text goes.
    name
        ``stdout`` or ``stderr``.
    fd
        The file descriptor that ``fileno()`` gives, for subprocesses; what is written to it directly
        goes through the container's pipe.
    """

    encoding = "utf-8"
    errors = "backslashreplace"
    newlines = None
    line_buffering = True
    write_through = False
    mode = "w"

    def __init__(self, outbox: wire.Outbox, name: str, fd: int) -> None:
        super().__init__()
        self._outbox = outbox
        self._channel = name
        self._fd = fd
        self._line: list[str] = []  # where the channel isn't ours: Outbox.direct
        self.name = f"<{name}>"
        self.buffer = _Bytes(self)

    def write(self, text: str) -> int:
        """Queue text; returns how many characters there were."""
        given: object = text  # the user may write anything
        if not isinstance(given, str):
            raise TypeError(f"write() argument must be str, not {type(given).__name__}")
        if self.closed:
            raise ValueError("I/O operation on closed file.")
        if self._outbox.direct:
            self._line.append(text)
            if "\n" in text or len(self._line) > 1000:
                self.flush()
        else:
            self._outbox.write(self._channel, text)
        return len(text)

    def flush(self) -> None:
        """Send what is queued."""
        if not self._outbox.direct:
            self._outbox.flush()
        elif self._line:
            self.flush_direct()

    def flush_direct(self) -> None:
        """Write to the descriptor what was said while nobody listened on the channel."""
        text, self._line = "".join(self._line), []
        if text:
            wire.write_all(self._fd, text.encode(errors="backslashreplace"))

    def fileno(self) -> int:
        """Give the descriptor, after sending what is queued: a subprocess may be about to write."""
        self.flush()
        return self._fd

    def isatty(self) -> bool:
        """Tell that this is no terminal."""
        return False

    def writable(self) -> bool:
        """Tell that one can write."""
        return True

    def reconfigure(self, **_settings: Any) -> None:
        """Accept and ignore what TextIOWrapper takes: the encoding is always UTF-8."""

    def close(self) -> None:
        """Only flush: the streams of a cell stay open, as a notebook's do."""
        self.flush()


class _Bytes(io.BufferedIOBase):
    """``sys.stdout.buffer``: UTF-8 bytes that become text of the stream, in order with the rest."""

    def __init__(self, stream: CellStream) -> None:
        super().__init__()
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.raw = self
        self.mode = "wb"
        self.name = stream.name

    def write(self, data: Any) -> int:
        """Write bytes; what isn't UTF-8 shows as U+FFFD."""
        view = memoryview(data)
        for begin in range(0, view.nbytes, 1 << 20):
            self._stream.write(self._decoder.decode(view.cast("B")[begin : begin + (1 << 20)]))
        return view.nbytes

    def writelines(self, lines: Iterable[Any]) -> None:
        """Write each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Send what is queued."""
        self._stream.flush()

    def fileno(self) -> int:
        """Give the stream's descriptor."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """Tell that one can write."""
        return True


class Questions:
    """``input()`` and ``getpass()``: asked of the notebook's user."""

    def __init__(self, outbox: wire.Outbox, inbox: wire.Inbox) -> None:
        self._outbox = outbox
        self._inbox = inbox

    def input(self, prompt: object = "", /) -> str:
        """Read a line from the person at the notebook, without the newline.

        Raises
        ------
        EOFError
            There is nobody to ask.
        """
        return self._ask(str(prompt), password=False)

    def getpass(self, prompt: str = "Password: ", stream: object = None, **_: Any) -> str:
        """Read a line that isn't shown."""
        del stream
        return self._ask(str(prompt), password=True)

    def _ask(self, prompt: str, *, password: bool) -> str:
        if self._outbox.direct:
            raise EOFError("there is nobody to ask: input() is for a cell's own process")
        self._inbox.forget("input_reply")
        self._outbox.send("input_request", {"prompt": prompt, "password": password})
        reply = self._inbox.get("input_reply")
        value = (reply or {}).get("content", {}).get("value")
        if value is None:
            message = (reply or {}).get("content", {}).get("evalue") or "EOF when reading a line"
            raise EOFError(message)
        return str(value)


def install(outbox: wire.Outbox, inbox: wire.Inbox) -> tuple[CellStream, CellStream]:
    """Replace the interpreter's standard streams, ``input`` and ``getpass``."""
    out, err = CellStream(outbox, "stdout", 1), CellStream(outbox, "stderr", 2)
    sys.stdout, sys.stderr = out, err
    questions = Questions(outbox, inbox)
    builtins.input = questions.input
    getpass.getpass = questions.getpass
    os.register_at_fork(
        before=outbox.before_fork,
        after_in_parent=outbox.after_fork_in_parent,
        after_in_child=outbox.after_fork_in_child,
    )
    return out, err
