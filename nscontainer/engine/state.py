"""Where the engine keeps a container on disk, and who may touch it when.

One directory a container, ``<state dir>/containers/<id>``, mode 0700: ``state.json``,
``monitor.sock``, the read-write layer (``upper0``, ``work0``; a pair for each view of the image), and
for a detached one its log and samples. The monitor holds a lock on the directory itself (flock) as
long as it lives: a container whose lock can be had has lost its monitor, whatever its state file
says, and pids are never trusted for that.

As few files as will do: ext4 does not give out again an inode freed in the last minute
(fs/ext4/ialloc.c, recently_deleted) but looks at it each time, so every one that comes and goes
makes the next start slower.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
from collections.abc import Iterator
from typing import Any, Final

from nscontainer import inside
from nscontainer.errors import HostError, NotFoundError, StateError
from nscontainer.linux import userns

State = dict[str, Any]


def state_dir() -> str:
    """Give the engine's directory: ``$NSCONTAINER_STATE_DIR``, or the place for this user."""
    given = os.environ.get("NSCONTAINER_STATE_DIR")
    if given:
        return os.path.abspath(given)
    if userns.privileged():
        return "/var/lib/nscontainer"
    data_home = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(data_home, "nscontainer")


CONTAINERS: Final = "containers"
STANDBY: Final = "standby"
"""Where a container is until it is asked for: ``ps`` and the like never see it."""


def prepare(top: str) -> None:
    """Make the engine's directories, and refuse ones that are somebody else's."""
    try:
        os.makedirs(top, mode=0o700, exist_ok=True)
        for name in (CONTAINERS, STANDBY, "names", "mnt"):
            with contextlib.suppress(FileExistsError):
                os.mkdir(f"{top}/{name}", 0o700)
    except OSError as error:
        message = f"the state directory {top} can't be made: {error.strerror}"
        raise HostError(message, hint="set NSCONTAINER_STATE_DIR to one that can") from None
    check_ours(top, "state directory")


def check_ours(directory: str, what: str) -> None:
    """Refuse a directory that somebody else owns or may write to."""
    facts = os.stat(directory)
    if facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
        message = f"the {what} {directory} is not ours alone"
        raise HostError(message, hint=f"chown it to you and chmod 700 {directory}")


def new_id() -> str:
    """Make an id for a container: 12 hexadecimal digits."""
    return os.urandom(6).hex()


@contextlib.contextmanager
def birth(top: str) -> Iterator[None]:
    """Hold gc off while a container's directory has no lock yet."""
    with _flock(f"{top}/lock", fcntl.LOCK_SH):
        yield


def take_up(top: str, container_id: str) -> str:
    """Move a container that stood by among those that are somebody's; give its directory."""
    directory = f"{top}/{CONTAINERS}/{container_id}"
    with birth(top):
        os.rename(f"{top}/{STANDBY}/{container_id}", directory)
    return directory


@contextlib.contextmanager
def collecting(top: str) -> Iterator[None]:
    """Hold births off while gc looks for what nobody owns."""
    with _flock(f"{top}/lock", fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def _flock(path: str, how: int) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, how)
        yield
    finally:
        os.close(fd)


def own(directory: str) -> int:
    """Take a container's lock for as long as the returned fd (or a copy of it) is open."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def is_owned(directory: str) -> bool:
    """Tell whether a monitor lives for the container of this directory."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    finally:
        os.close(fd)
    return False


def write(directory: str, state: State) -> None:
    """Replace ``state.json`` whole: a reader sees the old one or the new one."""
    path = f"{directory}/state.json"
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(state, file)
    os.rename(f"{path}.new", path)


def read(directory: str) -> State | None:
    """Read ``state.json``; None where there is none (being born, or half removed)."""
    try:
        with open(f"{directory}/state.json", encoding="utf-8") as file:
            state = json.load(file)
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) else None


def claim_name(top: str, name: str, container_id: str) -> None:
    """Give a name to a container: a symbolic link made at one stroke, so two can't have it.

    Raises
    ------
    StateError
        Another container has it.
    """
    link = f"{top}/names/{name}"
    for _ in range(3):
        try:
            os.symlink(container_id, link)
        except FileExistsError:
            with contextlib.suppress(OSError):
                holder = os.readlink(link)
                if os.path.isdir(f"{top}/containers/{holder}"):
                    message = f"the name {name!r} is taken by container {holder}"
                    raise StateError(
                        message, hint=f"nscontainer rm {name}, or another name"
                    ) from None
                os.unlink(link)
        else:
            return
    message = f"the name {name!r} can't be had"
    raise StateError(message)


def has_name(top: str, name: str, container_id: str) -> bool:
    """Tell whether a name is this container's."""
    try:
        return os.readlink(f"{top}/names/{name}") == container_id
    except OSError:
        return False


def release_name(top: str, name: str, container_id: str) -> None:
    """Take a name back, if it is this container's."""
    if has_name(top, name, container_id):
        with contextlib.suppress(OSError):
            os.unlink(f"{top}/names/{name}")


def remove(directory: str) -> None:
    """Remove a container's directory: by fd, never following a link out of it.

    Directories move up into the top before their parent goes, so that it doesn't matter how deep a
    container has nested them: shutil.rmtree recurses and holds an fd for each level.
    """
    if _remove_untouched(directory):
        return
    if inside.needed():  # its files are owned by ids that aren't this user's
        inside.call(remove, directory)
        return
    try:
        top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    fresh = (f".{os.urandom(4).hex()}-{number}" for number in itertools.count())
    try:
        while names := os.listdir(top):
            for name in names:
                # FileNotFoundError: gc, or another rm, is at it as well.
                with contextlib.suppress(FileNotFoundError):
                    if not _unlinked(name, top):
                        _raise_directories(name, top, fresh)
    finally:
        os.close(top)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(directory)


def _remove_untouched(directory: str) -> bool:
    """Remove what every container has, in order, and say whether that was all.

    Most end before they have written anything, and this takes about half of the time.
    Every path is the engine's own: what the container made makes an rmdir fail, no more.
    """
    try:
        for name in os.listdir(directory):
            if name.startswith("upper"):
                os.rmdir(f"{directory}/{name}")
            elif name.startswith("work"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{directory}/{name}/work/incompat/volatile/dirty")
                for part in ("/work/incompat/volatile", "/work/incompat", "/work", ""):
                    with contextlib.suppress(FileNotFoundError):
                        os.rmdir(f"{directory}/{name}{part}")
        for name in ("state.json", "monitor.sock", "storage"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{directory}/{name}")
        os.rmdir(directory)
    except OSError:
        return False
    return True


def _unlinked(name: str, dirfd: int) -> bool:
    try:
        os.unlink(name, dir_fd=dirfd)
    except IsADirectoryError:
        return False
    return True


def _raise_directories(name: str, top: int, fresh: Iterator[str]) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        for inner in os.listdir(fd):
            if not _unlinked(inner, fd):
                os.rename(inner, next(fresh), src_dir_fd=fd, dst_dir_fd=top)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=top)


def ids(top: str, where: str = CONTAINERS) -> list[str]:
    """List the containers there are, oldest first."""
    try:
        with os.scandir(f"{top}/{where}") as entries:
            found = [(e.stat().st_ctime_ns, e.name) for e in entries if e.is_dir()]
    except FileNotFoundError:
        return []
    return [name for _, name in sorted(found)]


def find(top: str, ref: str) -> str:
    """Find a container's id by name, id, or the beginning of one.

    Raises
    ------
    NotFoundError
        None has it, or several have.
    """
    with contextlib.suppress(OSError, ValueError):
        if "/" not in ref:
            return os.readlink(f"{top}/names/{ref}")
    hits = [i for i in ids(top) if ref and i.startswith(ref)]
    if len(hits) == 1 or ref in hits:
        return ref if ref in hits else hits[0]
    message = f"several containers' ids begin with {ref!r}" if hits else f"no container {ref!r}"
    raise NotFoundError(message, hint="nscontainer ps -a lists them")
