"""A tar stream's entries, read strictly: ustar, PAX, GNU's long names and sparse files, star.

Python's tarfile is not used: it gives times as floats, seeks, and answers a broken archive with
whatever exception its parser happens to hit. Source of the sparse formats: GNU tar's manual
("Storing Sparse Files").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from nscontainer.errors import LayerError
from nscontainer.image.compression import Reads
from nscontainer.image.tarheader import (
    BLOCK,
    FILE,
    Entry,
    Extended,
    apply,
    decimal,
    number,
    plain,
    stored_size,
)

_CHUNK: Final = 1 << 20
_ZEROS: Final = bytes(BLOCK)
_LARGEST: Final = 1 << 62


class Source:
    """A stream read in large pieces and given out in small ones."""

    def __init__(self, stream: Reads) -> None:
        self._read = stream.read
        self._data = b""
        self._at = 0
        self.position = 0
        """Bytes given out so far."""

    def up_to(self, size: int) -> bytes:
        """Give up to so many bytes: fewer only at the end of the stream."""
        end = self._at + size
        if end > len(self._data):
            parts = [self._data[self._at :]]
            have = len(parts[0])
            while have < size and (more := self._read(_CHUNK)):
                parts.append(more)
                have += len(more)
            self._data, self._at, end = b"".join(parts), 0, min(size, have)
        data = self._data[self._at : end]
        self._at = end
        self.position += len(data)
        return data

    def exactly(self, size: int) -> bytes:
        """Give so many bytes.

        Raises
        ------
        LayerError
            The stream ends before.
        """
        data = self.up_to(size)
        if len(data) < size:
            raise LayerError("the tar ends in the middle of an entry")
        return data

    def pieces(self, size: int) -> Iterator[bytes]:
        """Give so many bytes in pieces as they come."""
        while size:
            piece = self.exactly(min(size, _CHUNK))
            yield piece
            size -= len(piece)

    def skip(self, size: int) -> None:
        """Let so many bytes go by."""
        for _ in self.pieces(size):
            pass


def padding(size: int) -> int:
    """Bytes from there to the next block."""
    return -size % BLOCK


class Reader:
    """The entries of a tar, one by one; the data of one is to be taken (or skipped) before the next.

    Parameters
    ----------
    source
        The uncompressed stream.
    max_header_bytes
        What the extended headers of one entry may have together.
    """

    def __init__(self, source: Source, *, max_header_bytes: int) -> None:
        self.source = source
        self._max_header = max_header_bytes

    def next(self) -> Entry | None:
        """Give the next entry, or None at the end of the archive.

        Raises
        ------
        LayerError
            What is there is no entry.
        """
        extended = Extended(self._max_header)
        while True:
            block = self.source.up_to(BLOCK)
            if not block or block == _ZEROS:
                if extended.left < self._max_header:
                    raise LayerError("the tar ends after an extended header")
                return None
            if len(block) < BLOCK:
                raise LayerError("the tar ends in the middle of a header")
            if block[156:157] not in b"xgLK":
                break
            size = stored_size(block)
            extended.room_for(size)
            data = self.source.exactly(size)
            self.source.skip(padding(size))
            extended.take(block[156:157], data)
        entry = plain(block)
        if extended.name is not None:
            entry.name = extended.name
        if extended.link is not None:
            entry.link = extended.link
        if block[156:157] == b"S":
            self._old_sparse(block, entry)
        if extended.pax or extended.sparse_pairs:
            apply(extended.pax, entry)
            self._pax_sparse(extended.pax, extended.sparse_pairs, entry)
        if entry.kind != FILE:
            entry.size = entry.stored = 0  # POSIX, and Go: nothing but a file has data
        return entry

    def _old_sparse(self, block: bytes, entry: Entry) -> None:
        """GNU's first way: four pieces in the header, 21 in each block that follows."""
        pairs: list[int] = []
        part, count, more = block[386:482], 4, block[482]
        real = number(block[483:495], "size", entry.name)
        while True:
            for at in range(0, count * 24, 24):
                if not part[at] and not part[at + 12]:
                    break
                pairs += (
                    number(part[at : at + 12], "sparse map", entry.name),
                    number(part[at + 12 : at + 24], "sparse map", entry.name),
                )
            if not more:
                break
            if len(pairs) > self._max_header // 8:
                raise LayerError(f"{entry.shown}: its sparse map is too long", entry=entry.shown)
            block = self.source.exactly(BLOCK)
            part, count, more = block, 21, block[504]
        _set_sparse(entry, pairs, real)

    def _pax_sparse(self, pax: dict[bytes, bytes], pairs: list[int], entry: Entry) -> None:
        """GNU's PAX ways 0.0 (pairs), 0.1 (one list) and 1.0 (a list before the data)."""
        real = pax.get(b"GNU.sparse.realsize", pax.get(b"GNU.sparse.size"))
        version = pax.get(b"GNU.sparse.major"), pax.get(b"GNU.sparse.minor")
        if entry.kind != FILE or (real is None and version == (None, None)):
            return
        entry.name = pax.get(b"GNU.sparse.name", entry.name)
        if version == (b"1", b"0"):
            pairs = self._map_before_data(entry)
        elif version not in ((None, None), (b"0", b"0"), (b"0", b"1")):
            raise LayerError(f"{entry.shown}: a sparse format not known", entry=entry.shown)
        elif b"GNU.sparse.map" in pax:
            text = pax[b"GNU.sparse.map"]
            pairs = [decimal(t, "sparse map", entry.name) for t in text.split(b",") if text]
        size = entry.stored if real is None else decimal(real, "sparse size", entry.name)
        _set_sparse(entry, pairs, size)

    def _map_before_data(self, entry: Entry) -> list[int]:
        """Read lines of decimal numbers, how many pairs first, in whole blocks."""
        lines: list[bytes] = []
        rest, wanted = b"", 1
        while len(lines) < wanted:
            if entry.stored < BLOCK:
                raise LayerError(f"{entry.shown}: its sparse map is cut off", entry=entry.shown)
            *new, rest = (rest + self.source.exactly(BLOCK)).split(b"\n")
            entry.stored -= BLOCK
            if len(rest) > BLOCK:
                raise LayerError(f"{entry.shown}: its sparse map is broken", entry=entry.shown)
            lines += new
            if wanted == 1 and lines:
                wanted = 1 + 2 * decimal(lines[0], "sparse map", entry.name)
                if wanted > self._max_header // 4:
                    raise LayerError(
                        f"{entry.shown}: its sparse map is too long", entry=entry.shown
                    )
        return [decimal(line, "sparse map", entry.name) for line in lines[1:wanted]]


def _set_sparse(entry: Entry, pairs: list[int], size: int) -> None:
    """Check a sparse map: in order, inside the file, and as long as the data."""
    pieces = list(zip(pairs[::2], pairs[1::2], strict=False))
    end = total = 0
    if size > _LARGEST:
        raise LayerError(f"{entry.shown}: a size of {size} bytes", entry=entry.shown)
    for offset, length in pieces:
        if offset < end or length < 0 or offset + length > size:
            raise LayerError(f"{entry.shown}: its sparse map is broken", entry=entry.shown)
        end = offset + length
        total += length
    if len(pairs) % 2 or total != entry.stored:
        raise LayerError(f"{entry.shown}: its sparse map is not its data's", entry=entry.shown)
    entry.size, entry.sparse = size, [piece for piece in pieces if piece[1]]
