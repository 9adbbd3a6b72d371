"""A layer's tar unpacked into a directory as overlayfs has its layers; it never leaves that directory.

Whiteouts (``.wh.NAME``) become character devices 0/0, opaque directories get overlayfs' attribute
(Linux: Documentation/filesystems/overlayfs.rst; OCI image-spec: layer.md). Nothing is opened by a path
that could lead elsewhere (:mod:`nscontainer.image.tree`), and nothing a tar says becomes a whiteout
or an overlayfs attribute but by those two ways.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nscontainer.errors import LayerError
from nscontainer.image import files, tarheader, tarstream
from nscontainer.image.compression import Reads
from nscontainer.image.limits import Budget, Limits
from nscontainer.image.tarheader import MOST_IDS, Entry, shown
from nscontainer.image.tarstream import Reader, Source
from nscontainer.image.tree import OPEN_DIRECTORY, Parts, Tree, is_whiteout, opaque_mark, split
from nscontainer.linux import userns

WHITEOUT: Final = b".wh."
OPAQUE: Final = b".wh..wh..opq"
_AUFS: Final = (b".wh..wh.plnk", b".wh..wh.aufs", b".wh..wh.orph")
"""What aufs kept in a layer's top; Docker leaves it out as well."""
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OVERLAY: Final = (b"trusted.overlay.", b"user.overlay.")
HOLE: Final = 64 << 10
"""Zeros of at least so many bytes in a row, from a multiple of it on, become a hole."""
_ZEROS: Final = bytes(HOLE)
_MANY_IDS: Final = 65535
_NOBODY: Final = 65534
_NOTES: Final = 20


@dataclass(frozen=True, slots=True)
class Extracted:
    """What came of it: entries, bytes of data written, and remarks on what is not quite as in the tar."""

    entries: int
    bytes: int
    notes: tuple[str, ...] = ()


def extract(
    stream: Reads,
    into_dir: str,
    *,
    limits: Limits | None = None,
    owner_shift: int = 0,
    packed_bytes: Callable[[], int] | None = None,
) -> Extracted:
    """Unpack an uncompressed layer tar into an empty directory, in overlayfs' form.

    Parameters
    ----------
    owner_shift
        Added to every uid and gid. Who isn't root can't give files away: theirs stay their own. The root
        of a user namespace can give them to its ids alone; what is of others becomes nobody's.
    packed_bytes
        Tells how much of the compressed stream has been read, for the limit to the ratio.

    Raises
    ------
    LayerError
        The tar is broken, evil or too much; the entry and the reason are named. What has been
        unpacked by then is the caller's to remove.
    """
    top = os.open(into_dir, OPEN_DIRECTORY)
    try:
        limits = limits or Limits()
        budget = Budget(limits, top, packed_bytes)
        run = _Extraction(Source(stream), top, limits, budget, owner_shift)
        try:
            return run.all()
        finally:
            run.tree.close()
    finally:
        os.close(top)


class _Extraction:
    def __init__(
        self, source: Source, top: int, limits: Limits, budget: Budget, shift: int
    ) -> None:
        self.tree = Tree(top, limits.name_parts)
        self._top = top
        self._source = source
        self._reader = Reader(source, max_header_bytes=limits.header_bytes)
        self._limits = limits
        self._budget = budget
        self._shift = shift
        self._root = os.geteuid() == 0
        self._ids = MOST_IDS + 1, MOST_IDS + 1
        if not userns.privileged():
            self._ids = userns.count("/proc/self/uid_map"), userns.count("/proc/self/gid_map")
        self._opaque_name = opaque_mark()
        self._described: dict[Parts, Entry] = {}
        self._opaque: set[Parts] = set()
        self._notes: dict[str, None] = {}

    def all(self) -> Extracted:
        """Take every entry, and then the rest of the stream: it is part of the digest."""
        while entry := self._reader.next():
            self._budget.entry(entry, len(self.tree.made), self._source.position)
            self.tree.trim()
            try:
                self._one(entry)
            except OSError as error:
                raise _refused(entry, error) from None
        self._budget.made(len(self.tree.made))
        while self._source.up_to(1 << 20):
            self._budget.stream(self._source.position)
        self._finish_directories()
        return Extracted(self._budget.entries, self._budget.written, tuple(self._notes))

    def _one(self, entry: Entry) -> None:
        parts = self._split(entry.name)
        if not parts:
            if entry.kind != tarheader.DIRECTORY:
                raise _bad(entry, "an entry without a name")
            self._described[()] = entry
            return
        base = parts[-1]
        if any(part.startswith(WHITEOUT) for part in parts[:-1]):
            raise _bad(entry, "a directory with the name of a whiteout")
        fd, parent = self.tree.directory(parts[:-1])
        if base.startswith(WHITEOUT):
            self._whiteout(fd, parent, base, entry)
        elif entry.kind == tarheader.DIRECTORY:
            self._directory(fd, (*parent, base), entry)
        elif entry.kind == tarheader.FILE:
            self._file(fd, (*parent, base), entry)
            return
        else:
            self._other(fd, (*parent, base), entry)
        if entry.stored:
            self._source.skip(entry.stored + tarstream.padding(entry.stored))

    def _split(self, name: bytes) -> Parts:
        limits = self._limits
        return split(name, most_bytes=limits.name_bytes, most_parts=limits.name_parts)

    # --- kinds -----------------------------------------------------------------------------

    def _file(self, fd: int, path: Parts, entry: Entry) -> None:
        base = path[-1]
        try:
            file = os.open(base, _NEW_FILE, 0o600, dir_fd=fd)
        except FileExistsError:
            self._clear(fd, path)
            file = os.open(base, _NEW_FILE, 0o600, dir_fd=fd)
        try:
            if entry.sparse is not None:
                self._holes(file, entry)
            elif entry.stored:
                self._data(file, entry)
            self._source.skip(tarstream.padding(entry.stored))
            if self._root:
                os.fchown(file, *self._owner(entry))
            if entry.xattrs:
                self._xattrs(file, entry)
            os.fchmod(file, entry.mode)
            os.utime(file, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(file)
        if entry.uid > _MANY_IDS or entry.gid > _MANY_IDS:
            self._note_ids(entry)

    def _data(self, file: int, entry: Entry) -> None:
        """Write a file's data, leaving out longer runs of zeros: most tars have no other holes."""
        for piece in self._source.pieces(entry.stored):
            written = 0
            for at in range(0, len(piece), HOLE):
                if piece.startswith(_ZEROS, at):
                    self._write(file, memoryview(piece)[written:at], entry)
                    os.lseek(file, HOLE, os.SEEK_CUR)
                    written = at + HOLE
            self._write(file, memoryview(piece)[written:] if written else piece, entry)
        if written == len(piece):
            os.ftruncate(file, entry.size)  # it ends in a hole

    def _holes(self, file: int, entry: Entry) -> None:
        os.ftruncate(file, entry.size)
        for offset, length in entry.sparse or ():
            os.lseek(file, offset, os.SEEK_SET)
            for piece in self._source.pieces(length):
                self._write(file, piece, entry)

    def _write(self, file: int, data: bytes | memoryview, entry: Entry) -> None:
        self._budget.write(len(data), entry)
        files.write_all(file, data)

    def _directory(self, fd: int, path: Parts, entry: Entry) -> None:
        base = path[-1]
        try:
            os.mkdir(base, 0o700, dir_fd=fd)
        except FileExistsError:
            facts = os.stat(base, dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISDIR(facts.st_mode):
                self._clear(fd, path)
                os.mkdir(base, 0o700, dir_fd=fd)
                if is_whiteout(facts):  # "not there", and then there anew: nothing shines through
                    self._opaque.add(path)
        self.tree.made.discard(path)
        self._described[path] = entry

    def _other(self, fd: int, path: Parts, entry: Entry) -> None:
        """Links, devices, fifos."""
        base = path[-1]
        make = {
            tarheader.HARD_LINK: self._hard_link,
            tarheader.SYMLINK: self._symlink,
            tarheader.FIFO: self._node,
            tarheader.CHARACTER: self._node,
            tarheader.BLOCK_DEVICE: self._node,
        }[entry.kind]
        try:
            made = make(fd, base, entry)
        except FileExistsError:
            self._clear(fd, path)
            made = make(fd, base, entry)
        if made:
            self._named_attributes(fd, base, entry)

    def _hard_link(self, fd: int, base: bytes, entry: Entry) -> bool:
        target = self._split(entry.link)
        if not target:
            raise _bad(entry, "a hard link to nothing")
        try:
            other, _ = self.tree.directory(target[:-1], make=False)
            facts = os.stat(target[-1], dir_fd=other, follow_symlinks=False)
        except OSError:
            raise _bad(
                entry, f"a hard link to {shown(entry.link)}, which is not before it"
            ) from None
        if stat.S_ISDIR(facts.st_mode) or is_whiteout(facts):
            raise _bad(entry, f"a hard link to {shown(entry.link)}, which is no file")
        try:
            there = os.stat(base, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            pass
        else:
            if os.path.samestat(there, facts):
                return False  # to itself, or said twice
        # flags 0: a symbolic link is linked itself, not what it names
        os.link(target[-1], base, src_dir_fd=other, dst_dir_fd=fd, follow_symlinks=False)
        return False  # owner, mode and time are the file's, and have been set

    def _symlink(self, fd: int, base: bytes, entry: Entry) -> bool:
        if not entry.link:
            raise _bad(entry, "a symbolic link to nothing")
        os.symlink(entry.link, base, dir_fd=fd)
        return True

    def _node(self, fd: int, base: bytes, entry: Entry) -> bool:
        if entry.kind == tarheader.FIFO:
            os.mkfifo(base, 0o600, dir_fd=fd)
            return True
        if entry.major == entry.minor == 0 and entry.kind == tarheader.CHARACTER:
            raise _bad(entry, "a character device 0/0, which overlayfs would take for a whiteout")
        if not (0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20):
            raise _bad(entry, f"there is no device {entry.major}:{entry.minor}")
        kind = stat.S_IFCHR if entry.kind == tarheader.CHARACTER else stat.S_IFBLK
        try:
            os.mknod(base, kind | 0o600, os.makedev(entry.major, entry.minor), dir_fd=fd)
        except PermissionError:
            self._note("devices are left out: making them takes root")
            return False
        return True

    def _whiteout(self, fd: int, parent: Parts, base: bytes, entry: Entry) -> None:
        if base == OPAQUE:
            self._opaque.add(parent)
            return
        if base in _AUFS:
            return
        name = base[len(WHITEOUT) :]
        if not name or name in (b".", b"..") or base.startswith(WHITEOUT * 2):
            raise _bad(entry, "no whiteout that is known")
        try:
            os.mknod(name, stat.S_IFCHR | 0o600, 0, dir_fd=fd)
        except FileExistsError:
            # It is of lower layers only (layer.md): what this layer has of that name stays.
            if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                self._opaque.add((*parent, name))

    # --- attributes ------------------------------------------------------------------------

    def _named_attributes(self, fd: int, base: bytes, entry: Entry) -> None:
        """Owner, mode, attributes and time of what can't be opened."""
        if self._root:
            os.chown(base, *self._owner(entry), dir_fd=fd, follow_symlinks=False)
        if entry.kind != tarheader.SYMLINK:
            # No link, and nobody but us is here to make it one.
            os.chmod(base, entry.mode, dir_fd=fd)
        if entry.xattrs:
            self._xattrs(b"/proc/self/fd/%d/%s" % (fd, base), entry)
        times = (entry.mtime_ns, entry.mtime_ns)
        os.utime(base, ns=times, dir_fd=fd, follow_symlinks=False)
        self._note_ids(entry)

    def _xattrs(self, target: int | bytes, entry: Entry) -> None:
        for name, value in entry.xattrs.items():
            if name.startswith(_OVERLAY):
                self._note(f"attributes {shown(name)} are left out: they are overlayfs' own")
                continue
            if b"\0" in name or not name:
                raise _bad(entry, "an extended attribute without a proper name")
            try:
                os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
            except OSError as error:
                # ext4 says ENOSPC of one too large
                if error.errno in (errno.ENOSPC, errno.E2BIG, errno.ERANGE):
                    why = f"its attribute {shown(name)} of {len(value)} bytes is too large here"
                    raise _bad(entry, why) from None
                if error.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.EINVAL):
                    raise
                self._note(f"attributes {shown(name)} are left out: {error.strerror}")

    def _finish_directories(self) -> None:
        """Give directories their owner, mode and time, deepest first: nothing is made in them any more."""
        self.tree.forget()
        plain = Entry(b"", tarheader.DIRECTORY, b"", 0o755, 0, 0, 0, 0, 0, 0, 0)
        paths = self._described.keys() | self.tree.made | self._opaque | {()}
        for path in sorted(paths, reverse=True):
            entry = self._described.get(path, plain)
            self.tree.trim()
            try:
                fd = self._reopen(path)
            except (FileNotFoundError, NotADirectoryError):
                continue  # it has been replaced by something else since
            try:
                self._directory_attributes(fd, path, entry)
            except OSError as error:
                raise _refused(entry, error) from None
            finally:
                if fd != self._top:
                    os.close(fd)

    def _reopen(self, path: Parts) -> int:
        if not path:
            return self._top
        fd, _ = self.tree.directory(path[:-1], make=False)
        return os.open(path[-1], OPEN_DIRECTORY, dir_fd=fd)

    def _directory_attributes(self, fd: int, path: Parts, entry: Entry) -> None:
        if self._root:
            os.fchown(fd, *self._owner(entry))
        if entry.xattrs:
            self._xattrs(fd, entry)
        if path in self._opaque:
            os.setxattr(fd, self._opaque_name, b"y")
        os.fchmod(fd, entry.mode)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        self._note_ids(entry)

    # --- helpers ---------------------------------------------------------------------------

    def _clear(self, fd: int, path: Parts) -> None:
        """Make way for an entry of the same name: the last one counts."""
        if not self.tree.remove(fd, path):
            return
        self._budget.replace()
        depth = len(path)
        for known in (self._described, self._opaque, self.tree.made):
            for old in [p for p in known if p[:depth] == path]:
                known.pop(old) if isinstance(known, dict) else known.discard(old)

    def _owner(self, entry: Entry) -> tuple[int, int]:
        owner = entry.uid + self._shift, entry.gid + self._shift
        if not all(0 <= number <= MOST_IDS for number in owner):
            raise _bad(entry, f"there is no user or group {max(owner)}")
        if owner[0] < self._ids[0] and owner[1] < self._ids[1]:
            return owner
        return self._mapped(owner)

    def _mapped(self, owner: tuple[int, int]) -> tuple[int, int]:
        """Give whose a file is where its owner has no id in this user namespace."""
        most = min(self._ids)
        if most == 1:
            self._note("all files are root's: this user has no subordinate ids (/etc/subuid)")
            return 0, 0
        if most <= _MANY_IDS:
            self._note(f"owners above {most - 1} have no subordinate id: their files are nobody's")
        nobody = _NOBODY if most > _NOBODY else 0
        uid, gid = (i if i < n else nobody for i, n in zip(owner, self._ids, strict=True))
        return uid, gid

    def _note_ids(self, entry: Entry) -> None:
        if entry.uid > _MANY_IDS or entry.gid > _MANY_IDS:
            self._note(f"owners above {_MANY_IDS}: a container sees their files as nobody's")

    def _note(self, text: str) -> None:
        if len(self._notes) < _NOTES:
            self._notes[text] = None


def _bad(entry: Entry, why: str) -> LayerError:
    return LayerError(f"{entry.shown}: {why}", entry=entry.shown)


def _refused(entry: Entry, error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        message = f"no space left on the disk for {entry.shown}"
        return LayerError(message, entry=entry.shown, hint="prune frees some")
    return _bad(entry, str(error.strerror or error).lower())
