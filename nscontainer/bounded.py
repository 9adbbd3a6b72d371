"""Output with a bound: the beginning and the end are kept, and a line between says what was dropped."""

from __future__ import annotations

from typing import Final

from nscontainer import units

KEPT_BYTES: Final = 16 << 20
"""How much of each stream, and of each descriptor, the result of a cell keeps."""
TAIL_BYTES: Final = 64 << 10
"""How much of the end is kept besides where more came."""


class Bounded:
    r"""Lets the beginning of a stream through, and keeps the end of what comes after it.

    Nothing is cut within a UTF-8 character; nor within a line, unless it is very long or had its
    beginning in a piece that went through before.

    Parameters
    ----------
    most
        How many bytes go through; None lets everything through.
    tail
        How many of the last bytes are kept of what didn't.

    Examples
    --------
    >>> stream = Bounded(4, tail=4)
    >>> stream.add(b"one\ntwo\n"), stream.add(b"three\nsix\n"), stream.rest()
    (b'one\n', b'', b'[nscontainer: 10 B of output dropped here]\nsix\n')
    """

    def __init__(self, most: int | None, *, tail: int = TAIL_BYTES) -> None:
        self._room = most
        self._most_tail = tail
        self._tail = bytearray()
        self._dropped = 0
        self._full = False
        self._at_line_start = True

    def add(self, data: bytes, cost: int = 0) -> bytes:
        """Take bytes; give those of them that go through.

        ``cost`` counts besides the bytes themselves: what it takes to keep them as a piece apart.
        """
        if self._room is None:
            return data
        through = b""
        self._room = max(0, self._room - cost)
        if not self._full:
            if len(data) <= self._room:
                through = data
            else:
                through = data[: _cut_before(data, self._room)]
                self._full = True
            self._room -= len(through)
            if through:
                self._at_line_start = through.endswith(b"\n")
        if self._full:
            self._keep(data[len(through) :])
        return through

    def _keep(self, data: bytes) -> None:
        self._tail += data
        if len(self._tail) > 2 * self._most_tail:  # now and then: each time moves all that is kept
            self._shorten()

    def _shorten(self) -> None:
        over = len(self._tail) - self._most_tail
        if over > 0:
            del self._tail[:over]
            self._dropped += over

    @property
    def full(self) -> bool:
        """Whether something didn't go through."""
        return self._full

    def rest(self) -> bytes:
        """Give what is to follow at the end: the line about what was dropped, and the last bytes."""
        self._shorten()
        if not self._dropped:
            return bytes(self._tail)
        begin = _cut_after(self._tail)
        line = dropped(f"{units.format_size(self._dropped + begin)} of output").encode()
        return (b"" if self._at_line_start else b"\n") + line + bytes(self._tail[begin:])


class Kept:
    """All of a stream that is kept.

    Parameters
    ----------
    most
        As :class:`Bounded` takes it.
    """

    def __init__(self, most: int | None = KEPT_BYTES) -> None:
        self._bounded = Bounded(most)
        self._head = bytearray()

    def add(self, data: bytes) -> None:
        """Take bytes."""
        self._head += self._bounded.add(data)

    def value(self) -> bytes:
        """Give what there is of it. Nothing can be added afterwards."""
        return b"".join((self._head, self._bounded.rest()))


def dropped(what: str) -> str:
    """Give the line that stands where something is missing."""
    return f"[nscontainer: {what} dropped here]\n"


def encode(text: str) -> bytes:
    """Give a text's UTF-8; lone surrogates (an undecodable file name) come back by :func:`decode`."""
    return text.encode("utf-8", "surrogatepass")


def decode(data: bytes | bytearray) -> str:
    """Give the text of bytes that :func:`encode` made."""
    return data.decode("utf-8", "surrogatepass")


def _cut_before(data: bytes, end: int) -> int:
    """Find where to cut at ``end`` at the latest: after a line, or else before a character."""
    newline = data.rfind(b"\n", 0, end)
    if newline >= 0:
        return newline + 1
    begin = max(0, end - 3)
    while end > begin and data[end] & 0xC0 == 0x80:  # in the middle of a character
        end -= 1
    return end


def _cut_after(data: bytes | bytearray) -> int:
    """Find where the first whole line begins, or else the first whole character."""
    newline = data.find(b"\n", 0, len(data) // 2)
    if newline >= 0:
        return newline + 1
    begin = 0
    while begin < min(4, len(data)) and data[begin] & 0xC0 == 0x80:
        begin += 1
    return begin
