"""A build as lines of text, as it goes on: headings, what each step says, how long it took."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Final

from nscontainer.build.events import Done, Event, Note, Output, Step
from nscontainer.units import format_seconds, format_size

_LAYERED: Final = ("RUN", "COPY", "ADD", "WORKDIR")


class Report:
    """Writes what it is told.

    Parameters
    ----------
    write
        Takes text as it comes, not only whole lines.
    emphasis
        What a heading stands between: a terminal's codes for bold and plain, say.
    """

    def __init__(
        self, write: Callable[[str], None], *, emphasis: tuple[str, str] = ("", "")
    ) -> None:
        self._write = write
        self._begin, self._end = emphasis
        self._open = False
        """Whether the heading's line can still be gone on with."""
        self._at_line_start = True
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, Step):
            self._finish_line()
            self._write(f"{self._begin}{event.heading}{self._end}")
            self._open, self._at_line_start = True, False
        elif isinstance(event, Output):
            self._text(self._decoder.decode(event.data))
        elif isinstance(event, Note):
            self._finish_line()
            self._write(f"{event.text}\n")
        else:
            self._done(event)

    def _text(self, text: str) -> None:
        if not text:
            return
        if self._open:
            self._finish_line()
        self._write(text)
        self._at_line_start = text.endswith("\n")

    def _done(self, event: Done) -> None:
        self._text(self._decoder.decode(b"", final=True))
        self._decoder.reset()
        how = self._how(event)
        if self._open:
            self._write(f"  {how}\n" if how else "\n")
        elif how:
            self._finish_line()
            self._write(f"{event.step.place} done: {how}\n")
        self._open, self._at_line_start = False, True

    def _how(self, event: Done) -> str:
        keyword = event.step.text.split(None, 1)[0]
        if event.cached:
            return "" if keyword == "FROM" else "CACHED"
        if keyword not in _LAYERED:
            return ""
        size = "" if event.layer_bytes is None else f", {format_size(event.layer_bytes)}"
        return f"{format_seconds(event.wall_s)}{size}"

    def _finish_line(self) -> None:
        if not self._at_line_start:
            self._write("\n")
        self._open, self._at_line_start = False, True

    def close(self) -> None:
        """End a line that has begun: the build failed, or was interrupted."""
        self._finish_line()
