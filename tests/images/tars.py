"""A tar written by hand, with whatever headers one likes, right or wrong."""

from __future__ import annotations

BLOCK = 512


def octal(value: int, length: int) -> bytes:
    return b"%0*o\0" % (length - 1, value)


def binary(value: int, length: int) -> bytes:
    """GNU's binary numbers: the first bit set, big-endian."""
    if value < 0:
        return (value + (1 << 8 * length)).to_bytes(length, "big")
    return (value + (0x80 << 8 * (length - 1))).to_bytes(length, "big")


def pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def header(
    name: bytes, kind: bytes = b"0", *, size: int = 0, raw_size: bytes = b"", **fields: bytes
) -> bytes:
    """One header block; any field can be given as it is to stand there."""
    raw_size = raw_size or (octal(size, 12) if size < 8**11 else binary(size, 12))
    whole = {
        "name": name,
        "mode": octal(0o644, 8),
        "uid": octal(0, 8),
        "gid": octal(0, 8),
        "size": raw_size,
        "mtime": octal(1_700_000_000, 12),
        "check": b" " * 8,
        "kind": kind,
        "link": b"",
        "magic": b"ustar\x0000",
        "uname": b"",
        "gname": b"",
        "major": octal(0, 8),
        "minor": octal(0, 8),
        "prefix": b"",
        "rest": b"",
    } | fields
    lengths = (100, 8, 8, 8, 12, 12, 8, 1, 100, 8, 32, 32, 8, 8, 155, 12)
    parts = zip(whole.items(), lengths, strict=True)
    block = b"".join(value[:length].ljust(length, b"\0") for (_, value), length in parts)
    if "check" not in fields:
        block = block[:148] + b"%06o\0 " % sum(block) + block[156:]
    return block


def record(key: bytes, value: bytes) -> bytes:
    """One PAX record."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest + len(str(rest))))
    return b"%d %b=%b\n" % (length, key, value)


def pax(records: dict[bytes, bytes] | bytes, kind: bytes = b"x") -> bytes:
    """A PAX header before an entry: records, or what is to stand in place of them."""
    data = (
        records
        if isinstance(records, bytes)
        else b"".join(record(key, value) for key, value in records.items())
    )
    return header(b"PaxHeaders/x", kind, size=len(data)) + pad(data)


def file(name: bytes, data: bytes = b"", *, raw_size: bytes = b"", **fields: bytes) -> bytes:
    return _long(name, b"L") + header(name, size=len(data), raw_size=raw_size, **fields) + pad(data)


def directory(name: bytes, mode: int = 0o755, gid: int = 0) -> bytes:
    return header(name, b"5", mode=octal(mode, 8), gid=octal(gid, 8))


def symlink(name: bytes, target: bytes) -> bytes:
    return _long(target, b"K") + header(name, b"2", link=target)


def hard_link(name: bytes, target: bytes) -> bytes:
    return _long(target, b"K") + header(name, b"1", link=target)


def _long(text: bytes, kind: bytes) -> bytes:
    return long_name(text, kind) if len(text) > 100 else b""


def device(name: bytes, kind: bytes, major: int, minor: int) -> bytes:
    return header(name, kind, major=octal(major, 8), minor=octal(minor, 8))


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    """GNU's long name (L) or long link (K) for the entry that follows."""
    data = name + b"\0"
    return header(b"././@LongLink", kind, size=len(data)) + pad(data)


def whole(*parts: bytes) -> bytes:
    return b"".join(parts) + bytes(2 * BLOCK)
