"""Root filesystems for the peers, made of this machine's own files: nothing is downloaded.

So a peer runs the very /bin/true and the very Python that we do.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

MOUNT_POINTS = ("proc", "sys", "dev", "etc", "tmp", "run")
TRUE = "/bin/true"


def libraries(*programs: str) -> Iterator[str]:
    """Give the paths of the shared libraries of programs, the dynamic loader with them."""
    done = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False)
    yield from sorted(set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", done.stdout, re.MULTILINE)))


def true_files() -> list[str]:
    """Give all that /bin/true needs."""
    return [TRUE, *libraries(TRUE)]


def python_program() -> str:
    """Give the path of this Python itself, not of a virtual environment's link to it."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def python_files() -> list[str]:
    """Give all that this Python needs to start.

    Of its standard library everything but its tests and installed packages, byte code included.
    """
    program = python_program()
    library = sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix})
    files = [program]
    extensions = []
    for directory, folders, names in os.walk(library):
        unwanted = {"test", "tests", "site-packages", "dist-packages", "idlelib", "ensurepip"}
        folders[:] = [folder for folder in folders if folder not in unwanted]
        files += [f"{directory}/{name}" for name in names]
        extensions += [f"{directory}/{name}" for name in names if name.endswith(".so")]
    files += libraries(program, *extensions)
    return files


def copy_tree(files: Iterable[str], top: Path, owner: int) -> None:
    """Make a root of these files at their own paths, all belonging to ``owner``."""
    for name in MOUNT_POINTS:
        (top / name).mkdir(parents=True, exist_ok=True)
    for file in files:
        target = top / file.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)  # through symbolic links: /lib is one on a merged /usr
    for directory, _, names in os.walk(top):
        for path in (directory, *(f"{directory}/{name}" for name in names)):
            os.chown(path, owner, owner)


def tar(files: Iterable[str], links: dict[str, str] | None = None) -> bytes:
    """Pack a root of these files, for ``docker import``."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in MOUNT_POINTS:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
        for file in dict.fromkeys(files):
            entry = archive.gettarinfo(os.path.realpath(file), arcname=file.lstrip("/"))
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.type = tarfile.REGTYPE  # a second name of one file would become a hard link
            with open(file, "rb") as content:
                entry.size = os.fstat(content.fileno()).st_size
                archive.addfile(entry, content)
        for name, target in (links or {}).items():
            link = tarfile.TarInfo(name.lstrip("/"))
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
    return packed.getvalue()
