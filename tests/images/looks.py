"""What is on the disk, to be compared: every fact of a tree, or what a corpus case expects."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path


def everything(top: Path) -> dict[str, tuple[object, ...]]:
    """Every fact of each file below, that a change would change (ctime and access time apart)."""
    found: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}
    for directory, names, files in os.walk(top):
        for name in [".", *names, *files] if directory == str(top) else [*names, *files]:
            path = os.path.join(directory, name)
            facts = os.lstat(path)
            content: object = None
            if stat.S_ISLNK(facts.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(facts.st_mode):
                content = Path(path).read_bytes()
            xattrs = {}
            for key in os.listxattr(path, follow_symlinks=False):
                xattrs[key] = os.getxattr(path, key, follow_symlinks=False)
            where = os.path.relpath(path, top)
            same = first.setdefault(facts.st_ino, where) if facts.st_nlink > 1 else where
            same = where if stat.S_ISDIR(facts.st_mode) else same
            found[where] = (
                stat.S_IFMT(facts.st_mode), stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid,
                facts.st_mtime_ns, facts.st_rdev, content, tuple(sorted(xattrs.items())), same,
            )  # fmt: skip
    return found


def short(top: Path) -> dict[str, bytes | str]:
    """A tree in the words of :class:`tests.images.corpus.Case`."""
    found: dict[str, bytes | str] = {}
    first: dict[int, str] = {}
    for directory, names, files in os.walk(top):
        names.sort()
        for name in sorted([*names, *files]):
            path = os.path.join(directory, name)
            where = os.path.relpath(path, top)
            facts = os.lstat(path)
            kind = stat.S_IFMT(facts.st_mode)
            if kind == stat.S_IFDIR:
                found[where] = "opaque" if _opaque(path) else "dir"
            elif kind == stat.S_IFREG:
                found[where] = Path(path).read_bytes()
            elif kind == stat.S_IFLNK:
                found[where] = f"-> {os.readlink(path)}"
            elif kind == stat.S_IFIFO:
                found[where] = "fifo"
            elif facts.st_rdev == 0 and kind == stat.S_IFCHR:
                found[where] = "gone"
            else:
                letter = "c" if kind == stat.S_IFCHR else "b"
                found[where] = f"{letter} {os.major(facts.st_rdev)}:{os.minor(facts.st_rdev)}"
            # overlayfs links its whiteouts to one another
            if kind != stat.S_IFDIR and facts.st_nlink > 1 and found[where] != "gone":
                if facts.st_ino in first:
                    found[where] = f"= {first[facts.st_ino]}"
                first.setdefault(facts.st_ino, where)
    return found


def _opaque(path: str) -> bool:
    for space in ("trusted", "user"):
        with contextlib.suppress(OSError):
            if os.getxattr(path, f"{space}.overlay.opaque") == b"y":
                return True
    return False
