"""An overlayfs upper or diff directory written as a layer's tar: the same tree, the same bytes.

Entries in the order of their names, whiteouts before their siblings, PAX only where a header can't
say it. What packs here and is unpacked by :mod:`nscontainer.image.extract` packs to equal bytes.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from typing import Final

from nscontainer.errors import LayerError
from nscontainer.image import tarheader
from nscontainer.image.compression import Writes
from nscontainer.image.extract import HOLE, OPAQUE, WHITEOUT
from nscontainer.image.tarheader import BLOCK, shown
from nscontainer.image.tarstream import padding
from nscontainer.image.tree import OPEN_DIRECTORY, is_opaque, is_whiteout

_CHUNK: Final = 1 << 20
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DEEPEST: Final = 400
_MOST_ZEROS: Final = 1 << 30
"""Up to so many bytes of holes are written as zeros: Docker (20.10; tar-split) loads and runs a layer with
a sparse entry, but can't save or push it: "could not verify layer data"."""
_ZEROS: Final = bytes(HOLE)
_IDS: Final = 65536
NOBODY: Final = 65534
"""Whose a file is that has no owner here: /proc/sys/kernel/overflowuid."""
_ELSEWHERE: Final = tuple(
    f"{space}.overlay.{name}".encode()
    for space in ("trusted", "user")
    for name in ("metacopy", "redirect")
)
"""Written only where the overlay was mounted with metacopy or redirect_dir."""
_KINDS: Final = {
    stat.S_IFREG: tarheader.FILE,
    stat.S_IFLNK: tarheader.SYMLINK,
    stat.S_IFCHR: tarheader.CHARACTER,
    stat.S_IFBLK: tarheader.BLOCK_DEVICE,
    stat.S_IFDIR: tarheader.DIRECTORY,
    stat.S_IFIFO: tarheader.FIFO,
}


def pack(
    top: str,
    sink: Writes,
    *,
    skip: Iterable[str | bytes] = (),
    id_shift: int = 0,
    prefix: str | bytes = b"",
) -> None:
    """Write a directory as a layer tar.

    Parameters
    ----------
    top
        The directory; itself only written where it isn't root's with mode 0755.
    sink
        Gets the tar, uncompressed.
    skip
        Paths relative to ``top`` that are left out, with all below them.
    id_shift
        Subtracted from every uid and gid; one outside of the 65536 from there on becomes nobody's.
    prefix
        Where in the tar ``top`` is; its parents are not written.

    Raises
    ------
    LayerError
        Something in it can't be in a layer.
    """
    packer = Packer(sink, id_shift=id_shift)
    packer.tree(top, prefix=prefix, skip=skip)
    packer.finish()


class Packer:
    """A layer tar in the making: one or more trees, then :meth:`finish`."""

    def __init__(self, sink: Writes, *, id_shift: int = 0) -> None:
        self._write = sink.write
        self._shift = id_shift
        self._skip: frozenset[bytes] = frozenset()
        self._links: dict[tuple[int, int], bytes] = {}

    def tree(
        self, top: str, *, prefix: str | bytes = b"", skip: Iterable[str | bytes] = ()
    ) -> None:
        """Write one tree; see :func:`pack`."""
        lead = os.fsencode(prefix).strip(b"/")
        lead = lead + b"/" if lead else b""
        self._skip = frozenset(lead + os.fsencode(path).strip(b"/") for path in skip)
        self._links.clear()
        fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._root(fd, lead)
            self._inside(fd, lead, 0)
        finally:
            os.close(fd)

    def finish(self) -> None:
        """Write the end of the archive."""
        self._write(bytes(2 * BLOCK))

    def _root(self, fd: int, lead: bytes) -> None:
        facts = os.fstat(fd)
        xattrs = xattrs_of(fd)
        owner = self._id(facts.st_uid), self._id(facts.st_gid)
        plain = stat.S_IMODE(facts.st_mode) == 0o755 and owner == (0, 0)
        if not plain or any(not _is_overlay(name) for name in xattrs):
            self._entry(lead or b"./", tarheader.DIRECTORY, facts, xattrs=xattrs)

    def _inside(self, fd: int, lead: bytes, depth: int) -> None:
        """Write what is in a directory: first what is no more there, then what is."""
        if depth > _DEEPEST:
            message = f"{shown(lead)}: nested deeper than {_DEEPEST} directories"
            raise LayerError(message, entry=shown(lead))
        names = sorted(os.fsencode(name) for name in os.listdir(fd))
        found: list[tuple[bytes, os.stat_result]] = []
        gone: list[tuple[bytes, os.stat_result]] = []
        for name in names:
            if lead + name in self._skip:
                continue
            try:
                facts = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue  # a container is running and has removed it
            if name.startswith(WHITEOUT):
                message = f"{shown(lead + name)}: a layer takes names with .wh. for deletions"
                raise LayerError(message, entry=shown(lead + name), hint="rename or remove it")
            (gone if is_whiteout(facts) else found).append((name, facts))
        if is_opaque(fd):
            self._mark(lead + OPAQUE)
        for name, _ in gone:
            self._mark(lead + WHITEOUT + name)
        for name, facts in found:
            self._one(fd, name, lead + name, facts, depth)

    def _mark(self, path: bytes) -> None:
        self._header(path, tarheader.FILE, mode=0, records=[])

    def _one(self, fd: int, name: bytes, path: bytes, facts: os.stat_result, depth: int) -> None:
        kind = _KINDS.get(stat.S_IFMT(facts.st_mode))
        if kind is None:
            return  # a socket: of no use without who listens, and tar has no kind for it
        if kind == tarheader.DIRECTORY:
            try:
                inner = os.open(name, OPEN_DIRECTORY, dir_fd=fd)
            except (FileNotFoundError, NotADirectoryError):
                return
            try:
                self._entry(path + b"/", kind, os.fstat(inner), xattrs=xattrs_of(inner))
                self._inside(inner, path + b"/", depth + 1)
            finally:
                os.close(inner)
            return
        if facts.st_nlink > 1:
            first = self._links.setdefault((facts.st_dev, facts.st_ino), path)
            if first != path:
                self._entry(path, tarheader.HARD_LINK, facts, link=first)
                return
        if kind == tarheader.FILE:
            self._file(fd, name, path, facts)
            return
        link = os.readlink(name, dir_fd=fd) if kind == tarheader.SYMLINK else b""
        xattrs = xattrs_of(b"/proc/self/fd/%d/%s" % (fd, name))
        self._entry(path, kind, facts, link=link, xattrs=xattrs)

    def _file(self, fd: int, name: bytes, path: bytes, known: os.stat_result) -> None:
        try:
            file = os.open(name, _OPEN_FILE, dir_fd=fd)
        except FileNotFoundError:
            return
        try:
            facts = os.fstat(file)
            if not os.path.samestat(facts, known):
                return  # replaced between two looks: the next commit has it
            size = facts.st_size
            pieces = _pieces(file, size) if size > _MOST_ZEROS else [(0, size)]
            if size - sum(length for _, length in pieces) <= _MOST_ZEROS:
                self._entry(path, tarheader.FILE, facts, size=size, xattrs=xattrs_of(file))
                self._data(file, [(0, size)])
            else:
                self._sparse(file, path, facts, pieces)
        finally:
            os.close(file)

    def _sparse(
        self, file: int, path: bytes, facts: os.stat_result, pieces: list[tuple[int, int]]
    ) -> None:
        """GNU's PAX format 1.0: the map before the data, in whole blocks."""
        numbers = [len(pieces), *(number for piece in pieces for number in piece)]
        table = b"".join(b"%d\n" % number for number in numbers)
        table += bytes(padding(len(table)))
        stored = len(table) + sum(length for _, length in pieces)
        records = [
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", path),
            (b"GNU.sparse.realsize", b"%d" % facts.st_size),
        ]
        inner = b"GNUSparseFile.0/" + path.rpartition(b"/")[2][:80]
        if not inner.isascii():
            inner = b"GNUSparseFile.0/file"
        self._entry(
            inner, tarheader.FILE, facts, size=stored, xattrs=xattrs_of(file), records=records
        )
        self._write(table)
        self._data(file, pieces)

    def _data(self, file: int, pieces: list[tuple[int, int]]) -> None:
        total = 0
        for offset, length in pieces:
            os.lseek(file, offset, os.SEEK_SET)
            left = length
            while left:
                data = os.read(file, min(left, _CHUNK)) or bytes(min(left, _CHUNK))
                self._write(data)
                left -= len(data)
            total += length
        if pad := padding(total):
            self._write(bytes(pad))

    def _id(self, number: int) -> int:
        if not self._shift:
            return number
        return number - self._shift if 0 <= number - self._shift < _IDS else NOBODY

    def _entry(
        self,
        path: bytes,
        kind: bytes,
        facts: os.stat_result,
        *,
        size: int = 0,
        link: bytes = b"",
        xattrs: dict[bytes, bytes] | None = None,
        records: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        records = list(records or ())
        for name in sorted(xattrs or ()):
            if name in _ELSEWHERE:
                message = f"{shown(path)}: its data is in a layer below ({shown(name)})"
                raise LayerError(message, entry=shown(path), hint="mount overlays without it")
            if not _is_overlay(name):
                records.append((b"SCHILY.xattr." + name, (xattrs or {})[name]))
        device = kind in (tarheader.CHARACTER, tarheader.BLOCK_DEVICE)
        self._header(
            path,
            kind,
            mode=stat.S_IMODE(facts.st_mode),
            uid=self._id(facts.st_uid),
            gid=self._id(facts.st_gid),
            size=size,
            mtime_ns=facts.st_mtime_ns,
            link=link,
            major=os.major(facts.st_rdev) if device else 0,
            minor=os.minor(facts.st_rdev) if device else 0,
            records=records,
        )

    def _header(
        self,
        path: bytes,
        kind: bytes,
        *,
        mode: int,
        records: list[tuple[bytes, bytes]],
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        mtime_ns: int = 0,
        link: bytes = b"",
        major: int = 0,
        minor: int = 0,
    ) -> None:
        """Write an entry's header, with a PAX one before it where it takes that."""
        seconds, nanoseconds = divmod(mtime_ns, 1_000_000_000)
        extra = []
        if _is_long(path):
            extra.append((b"path", path))
        if _is_long(link):
            extra.append((b"linkpath", link))
        if nanoseconds or not 0 <= seconds < 8**11:
            extra.append((b"mtime", _decimal_time(mtime_ns)))
        if size >= 8**11:
            extra.append((b"size", b"%d" % size))
        for key, number in ((b"uid", uid), (b"gid", gid)):
            if number >= 8**7:
                extra.append((key, b"%d" % number))
        if extra := extra + records:
            data = b"".join(_record(key, value) for key, value in extra)
            name = b"PaxHeaders.0/" + path.rstrip(b"/").rpartition(b"/")[2][:80]
            name = name if name.isascii() else b"PaxHeaders.0/file"
            self._write(
                _block(name, b"x", 0o644, 0, 0, len(data), 0, b"", 0, 0)
                + data
                + bytes(padding(len(data)))
            )
        name = path if path.isascii() else b"file"
        target = link if link.isascii() else b"file"
        self._write(
            _block(
                name[:100], kind, mode, uid if uid < 8**7 else 0, gid if gid < 8**7 else 0,
                size if size < 8**11 else 0, seconds if 0 <= seconds < 8**11 else 0,
                target[:100], major, minor,
            )
        )  # fmt: skip


def _is_long(name: bytes) -> bool:
    return len(name) > 100 or not name.isascii()


def _block(
    name: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, mtime: int,
    link: bytes, major: int, minor: int,
) -> bytes:  # fmt: skip
    block = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0        %b%bustar\0%b%b%07o\0%07o\0" % (
        name.ljust(100, b"\0"), mode, uid, gid, size, mtime, kind, link.ljust(100, b"\0"),
        b"00", bytes(64), major, minor,
    )  # fmt: skip
    block = block.ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _record(key: bytes, value: bytes) -> bytes:
    """Write ``length key=value`` and a line's end; the length counts its own digits too."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _decimal_time(nanoseconds: int) -> bytes:
    seconds, fraction = divmod(abs(nanoseconds), 1_000_000_000)
    sign = "-" if nanoseconds < 0 else ""
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{sign}{seconds}{digits}".encode()


def _pieces(file: int, size: int) -> list[tuple[int, int]]:
    """Find where a large file has more than zeros, in whole blocks: by its holes, and by reading the rest.

    Not by the holes alone: where those are is the filesystem's to say, and would change the digest.
    """
    pieces: list[tuple[int, int]] = []
    at = 0
    with contextlib.suppress(OSError):  # ENXIO: no data from there to the end
        while at < size:
            at = os.lseek(file, at, os.SEEK_DATA) // HOLE * HOLE
            block = os.pread(file, HOLE, at)
            if block != _ZEROS[: len(block)]:
                length = min(len(block), size - at)
                if pieces and sum(pieces[-1]) == at:
                    pieces[-1] = (pieces[-1][0], pieces[-1][1] + length)
                else:
                    pieces.append((at, length))
            at += HOLE
    if not pieces or sum(pieces[-1]) < size:
        pieces.append((size, 0))  # GNU tar ends a map whose file ends in a hole so
    return pieces


def xattrs_of(target: int | bytes) -> dict[bytes, bytes]:
    """Read the extended attributes of a file; none where its filesystem has none."""
    follow = isinstance(target, int)
    found = {}
    try:
        for name in os.listxattr(target, follow_symlinks=follow):
            found[os.fsencode(name)] = os.getxattr(target, name, follow_symlinks=follow)
    except OSError:  # none on this filesystem, or gone meanwhile
        return found
    return found


def _is_overlay(name: bytes) -> bool:
    return name.startswith((b"trusted.overlay.", b"user.overlay."))
