"""Files copied into and out of a running container, as a tar stream through a process inside.

Paths of the container are followed by a process in it, so they can lead nowhere else, whatever links
the container has made. What comes out is hostile: it is unpacked into a directory that is made for
it, links last and only those that stay inside, and then moved into place as one.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Final

from nscontainer.errors import CommandError, HostError, SpecError

if TYPE_CHECKING:
    from nscontainer.engine.container import Container

_TAR_FAILED: Final = 2
Sink = Callable[[bytes], None]


def split(text: str) -> tuple[str | None, str]:
    """Read Docker's ``CONTAINER:PATH``; a path of this machine has no colon before its first slash."""
    name, colon, path = text.partition(":")
    if not colon or "/" in name or not name:
        return None, text
    return name, path


def copy_out(container: Container, source: str, target: str) -> list[str]:
    """Copy a file or directory of the container to this machine.

    Parameters
    ----------
    source
        A path in the container; a relative one starts at its working directory.
    target
        A directory that is there gets it inside; otherwise this is its new name.

    Returns
    -------
    list[str]
        What was left out: links that lead out of what is copied, devices, sockets.

    Raises
    ------
    SpecError
        The target can't be: its directory is missing, or it is there already.
    CommandError
        The container says no: there is no such path.
    """
    directory, base = posixpath.split(_inside(container, source))
    if base in ("", "..", "."):
        message = f"{source!r} has no name that its copy could have"
        raise SpecError(message, hint="as lab:/tmp/results")
    place = _place(target, base)
    with tempfile.TemporaryFile() as stream:
        _run(container, ["tar", "-C", directory, "-cf", "-", "--", f"./{base}"], source, out=stream)
        stream.seek(0)
        with _fresh_directory(os.path.dirname(place)) as fresh:
            try:
                left_out = _unpack(stream, fresh)
            except (tarfile.TarError, EOFError, OSError, ArithmeticError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                message = f"{source} can't be copied: {reason}"
                raise CommandError(message, exit_code=1) from None
            _move_in(fresh, place, source, left_out)
    return left_out


def copy_in(container: Container, source: str, target: str) -> None:
    """Copy a file or directory of this machine into the container; there it is root's.

    Parameters
    ----------
    source
        A path on this machine; links in it are copied as links.
    target
        A directory that is there gets it inside; otherwise this is its new name.

    Raises
    ------
    SpecError
        There is no such source.
    CommandError
        The container says no: the target's directory is missing, or can't be written.
    """
    name = os.path.basename(os.path.abspath(source))
    path = _inside(container, target)
    if container.exec(["test", "-d", path]).exit_code == 0:
        directory = path
    else:
        directory, name = posixpath.dirname(path), posixpath.basename(path)
    with tempfile.TemporaryFile() as stream:
        try:
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
                tar.add(source, arcname=f"./{name}", filter=_roots)
        except OSError as error:
            message = f"{error.filename or source} can't be read: {error.strerror}"
            raise SpecError(message, hint="name a file or directory that is there") from None
        stream.seek(0)
        words = ["tar", "-C", directory, "--no-same-owner", "-xf", "-"]
        _run(container, words, target, stdin=stream)


def _roots(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Give a member to root; what is neither file, directory nor link stays here."""
    if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _inside(container: Container, path: str) -> str:
    """Make a container's path absolute; ``..`` stays in it, since it is the container's to follow."""
    if not path or "\0" in path:
        message = f"{path!r} can't be a path in the container"
        raise SpecError(message, hint="as lab:/tmp/file")
    joined = posixpath.join("/", container.spec.workdir or "/", path)
    return joined.rstrip("/") or "/"


def _run(
    container: Container,
    words: list[str],
    path: str,
    *,
    stdin: IO[bytes] | None = None,
    out: IO[bytes] | None = None,
) -> None:
    """Run tar in the container; its complaint becomes ours."""
    result = container.exec(
        words,
        workdir="/",
        stdin=None if stdin is None else stdin.fileno(),
        on_stdout=None if out is None else _writer(out),
    )
    if result.exit_code == 127:
        message = f"container {container.name!r} has no tar"
        raise HostError(message, hint="cp needs one inside")
    if result.exit_code >= _TAR_FAILED:
        said = result.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = said[0].removeprefix("tar: ") if said else f"exit code {result.exit_code}"
        message = f"{container.name}:{path} can't be copied: {reason[:200]}"
        raise CommandError(message, exit_code=1)


def _writer(stream: IO[bytes]) -> Sink:
    def write(data: bytes) -> None:
        stream.write(data)

    return write


# --- unpacking what a container sends --------------------------------------------------------------


def _place(target: str, base: str) -> str:
    """Settle where it goes; an error before anything is copied."""
    place = os.path.abspath(target)
    if os.path.isdir(place):
        place = os.path.join(place, base)
    elif target.endswith("/") or not os.path.isdir(os.path.dirname(place)):
        message = (
            f"there is no directory {target if target.endswith('/') else os.path.dirname(place)}"
        )
        raise SpecError(message, hint="make it first")
    if os.path.isdir(place) and not os.path.islink(place):
        message = f"{place} is there already"
        raise SpecError(message, hint="remove it, or give another name")
    return place


@contextlib.contextmanager
def _fresh_directory(beside: str) -> Iterator[str]:
    """Make a directory for one copy, on the filesystem of its target and nobody's but ours."""
    try:
        fresh = os.path.realpath(tempfile.mkdtemp(prefix=".nscontainer-cp-", dir=beside))
    except OSError as error:
        message = f"{beside} can't be written: {error.strerror}"
        raise SpecError(message) from None
    try:
        yield fresh
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _unpack(stream: IO[bytes], fresh: str) -> list[str]:
    """Unpack a container's tar stream into an empty directory; give what was left out.

    tarfile only reads: its own extraction has followed links (CVE-2025-4517) and written what its filter
    never saw (CVE-2025-4330), and Python 3.11.2 has no filter. Links come last, so that none is there to
    be followed while files are written.
    """
    left_out: list[str] = []
    links: list[tarfile.TarInfo] = []
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        for member in tar:
            if member.issym():
                links.append(member)
            elif not _written(tar, member, fresh):
                left_out.append(member.name)
    made = {path: link for link in links if (path := _linked(link, fresh)) is not None}
    # What a link leads to depends on the others: only all of them tell.
    while astray := [path for path in made if not _stays(path, fresh)]:
        for path in astray:
            os.unlink(path)
            del made[path]
    kept = {id(link) for link in made.values()}
    return left_out + [f"{one.name} -> {one.linkname}" for one in links if id(one) not in kept]


def _path(name: str, fresh: str) -> str | None:
    """Give where a member of this name goes; None where that is not in the directory."""
    path = os.path.normpath(os.path.join(fresh, name.lstrip("/")))
    return path if path == fresh or path.startswith(fresh + "/") else None


def _stays(path: str, fresh: str) -> bool:
    """Tell whether a link leads to what is copied with it: below the one thing in ``fresh``."""
    top = os.path.join(fresh, os.path.relpath(path, fresh).split("/")[0])
    target = os.path.realpath(path)
    return target == top or target.startswith(top + "/")


def _written(tar: tarfile.TarFile, member: tarfile.TarInfo, fresh: str) -> bool:
    """Write a file, a directory, or another name of a file that has come; False for all else."""
    path = _path(member.name, fresh)
    plain = member.isreg() and not member.issparse()  # its holes could fill a disk
    if path is None or not (member.isdir() or member.islnk() or plain):
        return False
    if member.isdir():
        os.makedirs(path, exist_ok=True)
        return True
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if member.islnk():
        first = _path(member.linkname, fresh)
        if first is None or not os.path.isfile(first):
            return False
        os.link(first, path)
        return True
    content = tar.extractfile(member)
    if content is None:
        return False
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, _mode(member)), "wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)
        os.utime(file.fileno(), (member.mtime, member.mtime))
    return True


def _mode(member: tarfile.TarInfo) -> int:
    """Give a file's mode: its owner may read and write it, nobody else write it, no set-id bits."""
    mode = member.mode & 0o755 | 0o600
    return mode if mode & 0o100 else mode & ~0o111


def _linked(member: tarfile.TarInfo, fresh: str) -> str | None:
    """Make a symbolic link, in a directory that no other link leads to; give its path."""
    path = _path(member.name, fresh)
    if path is None or path == fresh or os.path.isabs(member.linkname):
        return None
    parent = os.path.dirname(path)
    if os.path.realpath(parent) != parent or os.path.lexists(path):
        return None
    os.makedirs(parent, exist_ok=True)
    os.symlink(member.linkname, path)
    return path


def _move_in(fresh: str, place: str, source: str, left_out: list[str]) -> None:
    names = os.listdir(fresh)
    if len(names) != 1:
        reason = f"all of it leads elsewhere: {left_out[0]}" if left_out else "it is no one thing"
        message = f"{source} can't be copied: {reason[:200]}"
        raise CommandError(message, exit_code=1)
    try:
        os.rename(os.path.join(fresh, names[0]), place)
    except OSError as error:
        message = f"{place} can't be written: {error.strerror}"
        raise SpecError(message) from None
