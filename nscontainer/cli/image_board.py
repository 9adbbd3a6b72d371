"""How far a pull, push or load has come: kept as events come from any thread, drawn by a thread of its own."""

from __future__ import annotations

import contextvars
import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, Self, TextIO

from nscontainer.cli.text import columns, printable, shorten
from nscontainer.units import format_size

if TYPE_CHECKING:
    from nscontainer.image.progress import Event

_EVERY_S: Final = 0.15
_BAR: Final = 24
_WORDS: Final = {
    "download": "downloading",
    "unpack": "unpacking",
    "upload": "uploading",
    "done": "done",
}


@dataclass(slots=True)
class Line:
    """One blob; without a layer what is being done with the whole, in the note."""

    layer: str
    kind: str
    done_bytes: int = 0
    total_bytes: int | None = None
    note: str = ""

    @property
    def share(self) -> float | None:
        """How much of it is done, 0 to 1; None where nobody knows how much there is."""
        if self.kind == "done":
            return 1.0
        if not self.total_bytes:
            return None
        return min(1.0, self.done_bytes / self.total_bytes)

    @property
    def state(self) -> str:
        """What is done with it, in words."""
        if self.note and (self.kind == "done" or not self.layer):
            return self.note
        return _WORDS.get(self.kind, self.kind)

    @property
    def amount(self) -> str:
        """How much of how much."""
        if not self.layer and not self.total_bytes:
            return ""
        if self.kind == "done":
            return format_size(self.total_bytes or self.done_bytes or None).replace("-", "")
        done = format_size(self.done_bytes)
        return f"{done} of {format_size(self.total_bytes)}" if self.total_bytes else done


class Draw(Protocol):
    """Shows the lines; the last time as they are to stay."""

    def __call__(self, lines: list[Line], *, last: bool) -> None:
        """Draw them."""


class Board:
    """Keeps the newest event of each layer.

    As a context it draws them every 0.15 s where something has changed, and once more at the end.

    Parameters
    ----------
    draw
        Called in a thread of its own with the lines, and whether it is the last time.
    """

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._lines: dict[str, Line] = {}
        self.note = ""
        """What was said of the whole, as where it came from."""
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._over = threading.Event()
        # A notebook's output belongs to a cell by a context variable.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._loop,), daemon=True)
        self.begin_s = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if not event.layer and event.kind == "done":
            self.note = event.note or self.note
            return
        with self._lock:
            line = self._lines.setdefault(event.layer, Line(event.layer, event.kind))
            line.kind, line.note = event.kind, event.note
            line.done_bytes = event.done_bytes
            if event.total_bytes is not None or event.kind != "done":
                line.total_bytes = event.total_bytes
        self._changed.set()

    def lines(self) -> list[Line]:
        """Give a copy of what there is, in the order in which it came."""
        with self._lock:
            return [
                Line(one.layer, one.kind, one.done_bytes, one.total_bytes, one.note)
                for one in self._lines.values()
            ]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._changed.set()
        self._thread.join()
        with self._lock:
            self._lines.pop("", None)
        self._draw(self.lines(), last=True)

    def _loop(self) -> None:
        while not self._over.is_set():
            self._changed.wait()
            self._changed.clear()
            if not self._over.is_set():
                self._draw(self.lines(), last=False)
                self._over.wait(_EVERY_S)


class Terminal:
    """Draws on a terminal: a line a layer, each renewed in its place."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._drawn = 0

    def __call__(self, lines: list[Line], *, last: bool) -> None:
        """Draw; those that are done go first where there are more than the screen has."""
        room = _height() - 2
        shown = lines if len(lines) <= room else _foremost(lines, room)
        width = (columns() or 80) - 1  # 0: a terminal that doesn't say
        texts = [_text(line, width) for line in shown]
        if len(shown) < len(lines):
            texts.append(f"… and {len(lines) - len(shown)} more")
        back = f"\x1b[{self._drawn}A\r\x1b[J" if self._drawn else ""
        self._stream.write(back + "".join(f"{text}\n" for text in texts))
        self._stream.flush()
        self._drawn = 0 if last else len(texts)


def _foremost(lines: list[Line], room: int) -> list[Line]:
    busy = [line for line in lines if line.kind != "done"]
    rest = [line for line in lines if line.kind == "done"]
    return (busy + rest)[: room - 1]


def _text(line: Line, width: int) -> str:
    if not line.layer:
        return shorten(f"{printable(line.state)} {line.amount}".rstrip(), width)
    share = line.share
    bar = ""
    if line.kind != "done" and share is not None:
        full = round(share * _BAR)
        bar = f"[{'=' * full}{'>' * (full < _BAR)}{' ' * (_BAR - full - 1)}] "
    return shorten(
        f"{printable(line.layer)}  {printable(line.state):<11} {bar}{line.amount}", width
    ).rstrip()


class Plain:
    """Prints a line when a layer is done or something else is begun: for a file, a pipe, a log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._told: set[str] = set()

    def __call__(self, lines: list[Line], *, last: bool) -> None:  # noqa: ARG002 - Draw's
        """Tell of those that are done since the last time."""
        for line in lines:
            if not line.layer:
                self._tell(line.note, line.note)
            elif line.kind == "done":
                self._tell(line.layer, f"{line.layer}: {line.state} {line.amount}")

    def _tell(self, what: str, text: str) -> None:
        if what and what not in self._told:
            self._told.add(what)
            print(printable(text.rstrip()), file=self._stream, flush=True)


def for_stream(stream: TextIO | None = None) -> Board:
    """Make the board that suits a stream: standard error by default."""
    stream = sys.stderr if stream is None else stream
    return Board(Terminal(stream) if stream.isatty() else Plain(stream))


def _height() -> int:
    try:
        return int(os.environ.get("LINES") or os.get_terminal_size(2).lines) or 24
    except (ValueError, OSError):
        return 24
