"""The files and directories of a cgroup: read and written whole, made, removed.

A cgroup's file takes one value in one write(2) and refuses it with an errno; :func:`refusal` turns
that into the one line a user can act on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from nscontainer.errors import HostError, NsContainerError, SpecError, StateError
from nscontainer.linux.syscalls import KernelError

DENIED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
GONE: Final = frozenset({errno.ENOENT, errno.ENODEV})
"""No such file, or (of one still open) its cgroup has been removed."""
NOT_IN_FORCE: Final = GONE | {errno.EOPNOTSUPP}
"""What reading a file says that this Linux has but doesn't keep: psi=0 gives EOPNOTSUPP."""
IN_USE: Final = frozenset({errno.EBUSY, errno.EINTR})
"""What v1's memory controller says where usage can't be got below a limit."""
UNFIT: Final = frozenset({errno.EINVAL, errno.ERANGE, errno.EDOM, errno.EOVERFLOW})

_RACES: Final = 20
_RETRY_S: Final = 0.001


# --- whole files and directories -------------------------------------------------------------


def read(path: str) -> str:
    """Read a file whole.

    Raises
    ------
    KernelError
        With the path; ``op`` is ``read``.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            chunks = []
            while chunk := os.read(fd, 65536):
                chunks.append(chunk)
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError(error.errno or 0, "read", path) from None
    return b"".join(chunks).decode(errors="replace")


def read_or_none(path: str) -> str | None:
    """Read a file whole, stripped; None where the host has no such file."""
    try:
        return read(path).strip()
    except KernelError as error:
        if error.errno in NOT_IN_FORCE:
            return None
        raise


def write(path: str, text: str) -> None:
    """Write one value to a file that exists.

    Raises
    ------
    KernelError
        With the path; ``op`` is ``write``.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError(error.errno or 0, "write", path) from None


@contextlib.contextmanager
def gone_is_done() -> Iterator[None]:
    """Take it for done where the cgroup has been removed."""
    try:
        yield
    except KernelError as error:
        if error.errno not in GONE:
            raise


def mkdir(path: str) -> None:
    """Make a directory, mode 0755: mkdir(2)."""
    try:
        os.mkdir(path, 0o755)
    except OSError as error:
        raise KernelError(error.errno or 0, "mkdir", path) from None


def rmdir(path: str) -> None:
    """Remove a directory: rmdir(2). A cgroup's files don't hinder it, processes and children do."""
    try:
        os.rmdir(path)
    except OSError as error:
        raise KernelError(error.errno or 0, "rmdir", path) from None


def nothing(_path: str) -> None:
    """Do nothing to a directory."""


def make_path(
    base: str,
    parts: Sequence[str],
    *,
    before_child: Callable[[str], None] = nothing,
    after_mkdir: Callable[[str], None] = nothing,
) -> str:
    """Make ``base/parts…``: the inner directories where missing, the last one new.

    Parameters
    ----------
    before_child
        Called with each directory that is about to get a child (``base`` included).
    after_mkdir
        Called with each directory below ``base`` once it exists.

    Raises
    ------
    StateError
        The last directory exists already.
    HostError
        This user may not make it.
    """
    for last_try in (False,) * _RACES + (True,):
        try:
            return _make_path(base, parts, before_child, after_mkdir)
        except KernelError as error:
            # Another container's end may remove the empty parent between two of our steps.
            if error.errno in GONE and not last_try and os.path.isdir(base):
                continue
            remove_empty(base, parts[:-1])
            raise _no_mkdir(error) from None
    raise AssertionError


def _make_path(
    base: str,
    parts: Sequence[str],
    before_child: Callable[[str], None],
    after_mkdir: Callable[[str], None],
) -> str:
    path = base
    for depth, part in enumerate(parts, start=1):
        before_child(path)
        path = f"{path}/{part}"
        try:
            mkdir(path)
        except KernelError as error:
            if error.errno != errno.EEXIST or depth == len(parts):
                raise
        try:
            after_mkdir(path)
        except BaseException:
            if depth == len(parts):
                with contextlib.suppress(KernelError):
                    rmdir(path)
            raise
    return path


def _no_mkdir(error: KernelError) -> Exception:
    if error.op == "mkdir" and error.errno == errno.EEXIST:
        return StateError(
            f"cgroup {error.filename} exists already",
            hint="another container has this id, or a crash left it: nscontainer gc",
        )
    if error.errno in DENIED:
        return HostError(
            f"can't make a cgroup: {error.op} {error.filename}: {error.strerror}",
            hint="run as root, or where a cgroup is delegated to you: "
            "systemd-run --user --scope -p Delegate=yes COMMAND",
        )
    return error


def remove_tree(path: str, deadline: float) -> None:
    """Remove a cgroup and those below it, trying again while its last processes go.

    Raises
    ------
    KernelError
        EBUSY: processes are still there at ``deadline`` (of :func:`time.monotonic`).
    """
    while True:
        try:
            rmdir(path)
        except KernelError as error:
            if error.errno in GONE:
                return
            # EBUSY stands for processes and for child cgroups alike (rmdir in cgroups(7)).
            below = subdirectories(path)
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY) or (
                not below and time.monotonic() >= deadline
            ):
                raise
            for name in below:
                remove_tree(f"{path}/{name}", deadline)
            if not below:
                time.sleep(_RETRY_S)
        else:
            return


def remove_empty(base: str, parts: Sequence[str]) -> None:
    """Remove ``base/parts…`` from the inside out, as far as the directories are empty."""
    for depth in range(len(parts), 0, -1):
        try:
            rmdir("/".join((base, *parts[:depth])))
        except KernelError as error:
            if error.errno not in GONE:
                return


def subdirectories(path: str) -> list[str]:
    """List the names of the directories in a directory; none where it is gone."""
    try:
        with os.scandir(path) as entries:
            return sorted(e.name for e in entries if e.is_dir(follow_symlinks=False))
    except OSError:
        return []


def tree_pids(path: str) -> list[int]:
    """List the processes of a cgroup and of those below it."""
    text = read_or_none(f"{path}/cgroup.procs") or ""
    # A process outside the reader's pid namespace is listed as 0, which kill(2) takes for us.
    found = {int(word) for word in text.split()} - {0}
    for name in subdirectories(path):
        found.update(tree_pids(f"{path}/{name}"))
    return sorted(found)


def remove_all(paths: Iterable[str], timeout_s: float) -> None:
    """Remove a container's directories, whatever is below them too; those gone are no error.

    Raises
    ------
    StateError
        Processes are still in one of them after ``timeout_s``; the others are removed.
    """
    deadline = time.monotonic() + timeout_s
    busy = None
    for path in dict.fromkeys(paths):
        try:
            remove_tree(path, deadline)
        except KernelError as error:
            busy = error
    if busy is not None:
        message = f"cgroup {busy.filename} can't be removed: {busy.strerror}"
        raise StateError(message, hint="a process is still in it: kill it first")


# --- values and their refusal ----------------------------------------------------------------


def integer(text: str | None) -> int | None:
    """Read a limit: a number, ``max`` (-1), or None where there is no file."""
    if text is None or text == "":
        return None
    return -1 if text == "max" else int(text)


def keyed(text: str | None) -> dict[str, str]:
    """Read a flat keyed file (``cgroup.events``): one ``key value`` a line."""
    pairs = (line.partition(" ") for line in (text or "").splitlines())
    return {key: value for key, _, value in pairs}


def id_set(text: str) -> frozenset[int]:
    """Read a list of CPUs or nodes, as ``0-2,5``."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def check_burst(quota: int | None, burst: int | None, now_burst: int | None) -> None:
    """Refuse a quota below the burst: EINVAL of either file, which says neither which nor why.

    Parameters
    ----------
    quota, burst
        As asked; None is untouched.
    now_burst
        The burst in force.
    """
    stays = now_burst if burst is None else burst
    if quota is not None and 0 <= quota < (stays or 0):
        message = f"a cpu quota of {quota} µs is less than the burst of {stays} µs"
        raise SpecError(message, hint="give --cpu-burst as well, no larger than the quota")


def refusal(
    error: OSError, what: str, missing: Callable[[str], NsContainerError]
) -> NsContainerError:
    """Say in one line why a limit could not be set.

    Parameters
    ----------
    error
        The write's error; its ``filename`` is the file's path.
    what
        The limit and its value, as ``cpu-shares 5``.
    missing
        Called with the path where there is no such file: diagnoses which controller isn't there.
    """
    path = str(error.filename)
    if error.errno in GONE:
        if not os.path.isdir(os.path.dirname(path)):
            return StateError(f"{what} can't be set: the container's cgroup is gone")
        return missing(path)
    if error.errno in DENIED:
        return HostError(
            f"{what} can't be set: {path}: {error.strerror}",
            hint="run as root, or where the cgroup is delegated to you",
        )
    if error.errno in UNFIT:
        return SpecError(
            f"{what} was refused: {path}: {error.strerror}", hint="choose another value"
        )
    return HostError(f"{what} can't be set: {path}: {error.strerror}")


def set_value(path: str, text: str, what: str, missing: Callable[[str], NsContainerError]) -> None:
    """Write one limit; a refusal becomes one line (see :func:`refusal`)."""
    try:
        write(path, text)
    except OSError as error:
        raise refusal(error, what, missing) from None
