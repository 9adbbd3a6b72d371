"""A tar stream's headers, read strictly: ustar, PAX, GNU's long names and sparse files, star.

Python's tarfile is not used: it gives times as floats, seeks, and answers a broken archive with
whatever exception its parser happens to hit. Sources: POSIX pax(1), GNU tar's manual ("Basic Tar
Format", "Storing Sparse Files"), and Go's archive/tar for what Docker takes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from nscontainer.errors import LayerError
from nscontainer.image.compression import Reads

BLOCK: Final = 512
_CHUNK: Final = 1 << 20
_ZEROS: Final = bytes(BLOCK)
_HEADER: Final = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_XATTR: Final = b"SCHILY.xattr."
_MOST_IDS: Final = 0xFFFFFFFE

FILE, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = (
    b"0", b"1", b"2", b"3", b"4", b"5", b"6",
)  # fmt: skip
_KINDS: Final = {
    b"0": FILE, b"\0": FILE, b"7": FILE, b"S": FILE, b"1": HARD_LINK, b"2": SYMLINK,
    b"3": CHARACTER, b"4": BLOCK_DEVICE, b"5": DIRECTORY, b"6": FIFO,
}  # fmt: skip


@dataclass(slots=True)
class Entry:
    """One entry: what its headers say.

    Parameters
    ----------
    size
        The file's length in bytes; of a sparse one with its holes.
    stored
        Bytes of its data in the archive.
    mtime_ns
        Since 1970, nanoseconds; may be negative.
    sparse
        Offset and length in bytes of each piece with data; None for a file that is not sparse.
    """

    name: bytes
    kind: bytes
    link: bytes
    mode: int
    uid: int
    gid: int
    size: int
    stored: int
    mtime_ns: int
    major: int
    minor: int
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    sparse: list[tuple[int, int]] | None = None

    @property
    def shown(self) -> str:
        """Its name for an error."""
        return shown(self.name)


def shown(name: bytes) -> str:
    """Give a name for an error: printable, not too long."""
    text = name.decode("utf-8", "backslashreplace")
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= 200 else f"{text[:200]}…"


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
        extended = _Extended(self._max_header)
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
            size = _stored_size(block)
            extended.room_for(size)
            data = self.source.exactly(size)
            self.source.skip(padding(size))
            extended.take(block[156:157], data)
        entry = _plain(block)
        if extended.name is not None:
            entry.name = extended.name
        if extended.link is not None:
            entry.link = extended.link
        if block[156:157] == b"S":
            self._old_sparse(block, entry)
        if extended.pax or extended.sparse_pairs:
            _apply(extended.pax, entry)
            self._pax_sparse(extended.pax, extended.sparse_pairs, entry)
        if entry.kind != FILE:
            entry.size = entry.stored = 0  # POSIX, and Go: nothing but a file has data
        return entry

    def _old_sparse(self, block: bytes, entry: Entry) -> None:
        """GNU's first way: four pieces in the header, 21 in each block that follows."""
        pairs: list[int] = []
        part, count, more = block[386:482], 4, block[482]
        real = _number(block[483:495], "size", entry.name)
        while True:
            for at in range(0, count * 24, 24):
                if not part[at] and not part[at + 12]:
                    break
                pairs += (
                    _number(part[at : at + 12], "sparse map", entry.name),
                    _number(part[at + 12 : at + 24], "sparse map", entry.name),
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
            pairs = [_decimal(t, "sparse map", entry.name) for t in text.split(b",") if text]
        size = entry.stored if real is None else _decimal(real, "sparse size", entry.name)
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
                wanted = 1 + 2 * _decimal(lines[0], "sparse map", entry.name)
                if wanted > self._max_header // 4:
                    raise LayerError(
                        f"{entry.shown}: its sparse map is too long", entry=entry.shown
                    )
        return [_decimal(line, "sparse map", entry.name) for line in lines[1:wanted]]


class _Extended:
    """What the headers before an entry say of it."""

    def __init__(self, most_bytes: int) -> None:
        self.pax: dict[bytes, bytes] = {}
        self.sparse_pairs: list[int] = []
        self.name: bytes | None = None
        self.link: bytes | None = None
        self.left = self._most = most_bytes

    def room_for(self, size: int) -> None:
        """Count a header's bytes."""
        self.left -= size + BLOCK
        if self.left < 0:
            message = f"an entry's extended headers have more than {self._most} bytes"
            raise LayerError(message)

    def take(self, kind: bytes, data: bytes) -> None:
        """Read one. ``g`` is of the archive as a whole (git's commit): left out, as Go and Docker do."""
        if kind == b"x":
            _pax_records(data, self.pax, self.sparse_pairs)
        elif kind == b"L":
            self.name = data.partition(b"\0")[0]
        elif kind == b"K":
            self.link = data.partition(b"\0")[0]


def _plain(block: bytes) -> Entry:
    """Read one header block."""
    fields = _HEADER.unpack(block)
    name, mode, uid, gid, size, mtime, check, flag, link, magic = fields[:10]
    major, minor, prefix, end = fields[12:16]
    name = name.partition(b"\0")[0]
    # 256: the checksum's own field counts as eight spaces. Old tars summed signed characters.
    total = sum(block) - sum(check) + 256
    if (asked := _number(check, "checksum", name)) != total:
        signed = total - 256 * sum(b > 127 for b in block[:148] + block[156:])
        if asked != signed:
            raise LayerError("a header's checksum is wrong: this is no tar, or a damaged one")
    if magic == b"ustar\x0000":
        if end[8:] == b"tar\0":  # star keeps times behind a shorter prefix
            prefix = prefix[:131]
        if prefix := prefix.partition(b"\0")[0]:
            name = prefix + b"/" + name
    kind = _KINDS.get(flag)
    if kind is None:
        message = f"{shown(name)}: an entry of a kind not known: {flag!r}"
        raise LayerError(message, entry=shown(name))
    if flag == b"\0" and name.endswith(b"/"):
        kind = DIRECTORY  # before ustar
    device = kind in (CHARACTER, BLOCK_DEVICE)
    length = _number(size, "size", name)
    if length < 0:
        raise LayerError(f"{shown(name)}: a size of {length}", entry=shown(name))
    return Entry(
        name=name,
        kind=kind,
        link=link.partition(b"\0")[0],
        mode=_number(mode, "mode", name) & 0o7777,
        uid=_id(_number(uid, "uid", name), name),
        gid=_id(_number(gid, "gid", name), name),
        size=length,
        stored=length,
        mtime_ns=_number(mtime, "time", name) * 1_000_000_000,
        major=_number(major, "device", name) if device else 0,
        minor=_number(minor, "device", name) if device else 0,
    )


def _stored_size(block: bytes) -> int:
    total = sum(block) - sum(block[148:156]) + 256
    if _number(block[148:156], "checksum", b"") != total:
        raise LayerError("a header's checksum is wrong: this is no tar, or a damaged one")
    size = _number(block[124:136], "size", block[:100].partition(b"\0")[0])
    if size < 0:
        raise LayerError("an extended header of negative size")
    return size


def _number(text: bytes, what: str, name: bytes) -> int:
    """Read octal digits, or GNU's binary numbers (first bit set, big-endian, two's complement)."""
    if text[0] & 0x80:
        value = int.from_bytes(text, "big")
        if text[0] & 0x40:
            return value - (1 << 8 * len(text))
        return value - (0x80 << 8 * (len(text) - 1))
    digits = text.strip(b" \0").partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    if digits.isdigit():
        try:
            return int(digits, 8)
        except ValueError:
            pass
    message = f"{shown(name)}: its {what} {digits[:24]!r} is no octal number"
    raise LayerError(message, entry=shown(name))


def _decimal(text: bytes, what: str, name: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        message = f"{shown(name)}: its {what} {text[:24]!r} is no number"
        raise LayerError(message, entry=shown(name))
    return int(text)


def _id(value: int, name: bytes) -> int:
    if not 0 <= value <= _MOST_IDS:
        message = f"{shown(name)}: there is no user or group {value}"
        raise LayerError(message, entry=shown(name))
    return value


def _pax_records(data: bytes, into: dict[bytes, bytes], sparse_pairs: list[int]) -> None:
    """Read records of ``length key=value`` and a line's end."""
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        digits = data[at:space] if space > at else b""
        end = at + int(digits) if digits.isdigit() else 0
        if end <= space + 2 or end > len(data) or data[end - 1] != 0x0A:
            raise LayerError("a PAX header is broken: a record's length is wrong")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        at = end
        if not equals or not key:
            raise LayerError("a PAX header is broken: a record without a key")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse_pairs.append(_decimal(value, "sparse map", b"a PAX header"))
        elif value or key.startswith(_XATTR):
            into[key] = value
        else:
            into.pop(key, None)


def _apply(pax: dict[bytes, bytes], entry: Entry) -> None:
    """Let PAX's values stand in place of the header's."""
    for key, value in pax.items():
        if key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.link = value
        elif key == b"size":
            entry.size = entry.stored = _decimal(value, "size", entry.name)
        elif key == b"uid":
            entry.uid = _id(_decimal(value, "uid", entry.name), entry.name)
        elif key == b"gid":
            entry.gid = _id(_decimal(value, "gid", entry.name), entry.name)
        elif key == b"mtime":
            entry.mtime_ns = _time(value, entry.name)
        elif key.startswith(_XATTR):
            entry.xattrs[key[len(_XATTR) :]] = value
    for text in (entry.name, entry.link):
        if b"\0" in text:
            raise LayerError(f"{shown(text)}: a NUL in a name", entry=shown(text))


def _time(text: bytes, name: bytes) -> int:
    """Read decimal seconds with any number of digits behind the point, to the nanosecond."""
    whole, _, fraction = text.partition(b".")
    sign = -1 if whole.startswith(b"-") else 1
    digits = whole[1:] if sign < 0 else whole
    if not (digits + fraction).isdigit() or len(digits) > 18:
        message = f"{shown(name)}: its time {text[:40]!r} is none"
        raise LayerError(message, entry=shown(name))
    return sign * (int(digits or b"0") * 1_000_000_000 + int(fraction[:9].ljust(9, b"0")))


def _set_sparse(entry: Entry, pairs: list[int], size: int) -> None:
    """Check a sparse map: in order, inside the file, and as long as the data."""
    pieces = list(zip(pairs[::2], pairs[1::2], strict=False))
    end = total = 0
    for offset, length in pieces:
        if offset < end or length < 0 or offset + length > size:
            raise LayerError(f"{entry.shown}: its sparse map is broken", entry=entry.shown)
        end = offset + length
        total += length
    if len(pairs) % 2 or total != entry.stored:
        raise LayerError(f"{entry.shown}: its sparse map is not its data's", entry=entry.shown)
    entry.size, entry.sparse = size, [piece for piece in pieces if piece[1]]
