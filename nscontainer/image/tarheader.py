"""One tar header: ustar's fields, PAX's records, GNU's numbers; read strictly.

Sources: POSIX pax(1), GNU tar's manual ("Basic Tar Format"), and Go's archive/tar for what Docker takes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from nscontainer.errors import LayerError

BLOCK: Final = 512
_HEADER: Final = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_XATTR: Final = b"SCHILY.xattr."
MOST_IDS: Final = 0xFFFFFFFE

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


class Extended:
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


def plain(block: bytes) -> Entry:
    """Read one header block."""
    fields = _HEADER.unpack(block)
    name, mode, uid, gid, size, mtime, check, flag, link, magic = fields[:10]
    major, minor, prefix, end = fields[12:16]
    name = name.partition(b"\0")[0]
    # 256: the checksum's own field counts as eight spaces. Old tars summed signed characters.
    total = sum(block) - sum(check) + 256
    if (asked := _checksum(check)) != total:
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
    length = number(size, "size", name)
    if length < 0:
        raise LayerError(f"{shown(name)}: a size of {length}", entry=shown(name))
    return Entry(
        name=name,
        kind=kind,
        link=link.partition(b"\0")[0],
        mode=number(mode, "mode", name) & 0o7777,
        uid=_id(number(uid, "uid", name), name),
        gid=_id(number(gid, "gid", name), name),
        size=length,
        stored=length,
        mtime_ns=_seconds(number(mtime, "time", name), name) * 1_000_000_000,
        major=number(major, "device", name) if device else 0,
        minor=number(minor, "device", name) if device else 0,
    )


def stored_size(block: bytes) -> int:
    """Read how long an extended header's data is."""
    total = sum(block) - sum(block[148:156]) + 256
    if _checksum(block[148:156]) != total:
        raise LayerError("a header's checksum is wrong: this is no tar, or a damaged one")
    size = number(block[124:136], "size", block[:100].partition(b"\0")[0])
    if size < 0:
        raise LayerError("an extended header of negative size")
    return size


def _checksum(field: bytes) -> int | None:
    """Read a header's checksum; where there is none, this is no header, and its text not ours to show."""
    try:
        return number(field, "checksum", b"")
    except LayerError:
        return None


def number(text: bytes, what: str, name: bytes) -> int:
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


def decimal(text: bytes, what: str, name: bytes) -> int:
    """Read decimal digits, nothing else."""
    if not text.isdigit() or len(text) > 19:
        message = f"{shown(name)}: its {what} {text[:24]!r} is no number"
        raise LayerError(message, entry=shown(name))
    return int(text)


def _seconds(value: int, name: bytes) -> int:
    if abs(value) >= 1 << 47:  # in some million years; filesystems end long before
        message = f"{shown(name)}: a time of {value} seconds"
        raise LayerError(message, entry=shown(name))
    return value


def _id(value: int, name: bytes) -> int:
    if not 0 <= value <= MOST_IDS:
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
            sparse_pairs.append(decimal(value, "sparse map", b"a PAX header"))
        elif value or key.startswith(_XATTR):
            into[key] = value
        else:
            into.pop(key, None)


def apply(pax: dict[bytes, bytes], entry: Entry) -> None:
    """Let PAX's values stand in place of the header's."""
    for key, value in pax.items():
        if key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.link = value
        elif key == b"size":
            entry.size = entry.stored = decimal(value, "size", entry.name)
        elif key == b"uid":
            entry.uid = _id(decimal(value, "uid", entry.name), entry.name)
        elif key == b"gid":
            entry.gid = _id(decimal(value, "gid", entry.name), entry.name)
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
    if not (digits + fraction).isdigit() or len(digits) > 15:
        message = f"{shown(name)}: its time {text[:40]!r} is none"
        raise LayerError(message, entry=shown(name))
    _seconds(int(digits or b"0"), name)
    return sign * (int(digits or b"0") * 1_000_000_000 + int(fraction[:9].ljust(9, b"0")))
