"""The user namespace in which an ordinary user's containers are made (user_namespaces(7)).

Root of the machine makes containers as it is. Anybody else first enters a user namespace of their own,
in which they are root: with their subordinate ids (subuid(5)) by newuidmap(1) and newgidmap(1), else with
their own id alone, which takes no program and no administrator.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, NoReturn

from nscontainer.errors import HostError
from nscontainer.linux import caps, clone

IDS: Final = 65536
"""How many ids a container has, where there are so many."""
_WHOLE: Final = [(0, 0, 4294967295)]
_PATH: Final = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin"

Row = tuple[int, int, int]
"""First id inside, first id outside, how many."""


def privileged() -> bool:
    """Tell whether this process is root of the machine's own (initial) user namespace."""
    return os.geteuid() == 0 and _in_initial()


@functools.cache
def _in_initial() -> bool:
    try:
        return read_map("/proc/self/uid_map") == _WHOLE
    except OSError:  # a Linux without user namespaces
        return True


def read_map(path: str) -> list[Row]:
    """Read a ``uid_map`` or ``gid_map``; ids outside are as the reader's parent namespace has them."""
    with open(path, encoding="ascii") as file:
        rows = [line.split() for line in file]
    return [(int(inside), int(outside), int(count)) for inside, outside, count in rows]


def count(path: str = "/proc/self/uid_map") -> int:
    """Tell how many ids this user namespace has from 0 on, without a gap."""
    end = 0
    for inside, _, number in sorted(read_map(path)):
        if inside > end:
            break
        end = max(end, inside + number)
    return end


def outer_uid() -> int:
    """Give the user's id outside of the user namespace that this process has entered; its own where none."""
    if privileged():
        return 0
    me = os.geteuid()
    for inside, outside, number in read_map("/proc/self/uid_map"):
        if inside <= me < inside + number:
            return outside + me - inside
    return me


@dataclass(frozen=True, slots=True)
class Ids:
    """What ids a process has for its containers.

    Attributes
    ----------
    kind
        ``initial``: root of the machine; ``inherited``: root of a user namespace that others made;
        ``subordinate``: the user and their subordinate ids; ``single``: the user's own id alone.
    uid
        Who the root is, outside.
    count
        How many ids there are from 0 on.
    why
        Why there are no more, and how to mend that.
    """

    kind: Literal["initial", "inherited", "subordinate", "single"]
    uid: int
    count: int
    why: str | None = None

    @property
    def entered(self) -> bool:
        """Tell whether the namespace is the user's own."""
        return self.kind in ("subordinate", "single")

    @property
    def note(self) -> str | None:
        """One line on it for the reader of a result; None for root of the machine."""
        if self.kind == "initial":
            return None
        if self.kind == "single":
            return f"rootless, with one id: root inside is user {self.uid} outside ({self.why})"
        kind = f"{self.kind} ids"
        return f"rootless, with {kind}: root inside is user {self.uid} outside, {self.count} ids"


def enter() -> Ids:
    """Be root of a user namespace from now on: at once where this process is, else of a new one.

    For a process of one thread, at its beginning. Its mount namespace stays as it is: leave it next.

    Raises
    ------
    HostError
        This host lets no ordinary user have one; the hint names the mend.
    """
    if privileged() and _may_administer():
        return Ids("initial", 0, IDS)
    if os.geteuid() == 0 and _may_administer():  # in a container, say: nothing to enter
        return Ids("inherited", outer_uid(), _ids_here())
    uid, gid = os.geteuid(), os.getegid()
    rows = {name: _rows(name, own) for name, own in (("uid", uid), ("gid", gid))}
    with _mapper(os.getpid(), rows) as ask:
        _unshare()
        _in_initial.cache_clear()
        why = ask()
    if not read_map("/proc/self/uid_map"):
        _write_alone("uid", uid)
    if not read_map("/proc/self/gid_map"):
        _write_alone("gid", gid)
    held = _ids_here()
    if held > 1:
        return Ids("subordinate", uid, held, why)
    return Ids("single", uid, held, why)


def _may_administer() -> bool:
    return caps.NUMBERS["CAP_SYS_ADMIN"] in caps.capget().effective


def _ids_here() -> int:
    return min(IDS, count("/proc/self/uid_map"), count("/proc/self/gid_map"))


def share(pid: int) -> None:
    """Give the user namespace of a child the ids of this one, each by the same number.

    A range must lie within one line of the map above (kernel/user_namespace.c, map_id_range_down).

    Raises
    ------
    KernelError
        Linux refused; with the path.
    """
    for kind in ("uid", "gid"):
        rows = [
            (first, first, min(number, IDS - first))
            for first, _, number in read_map(f"/proc/self/{kind}_map")
            if first < IDS
        ]
        clone.write_id_map(f"/proc/{pid}/{kind}_map", rows)


# --- leaving for a new one -------------------------------------------------------------------


def _unshare() -> None:
    try:
        clone.unshare(clone.CLONE_NEWUSER)
    except OSError as error:
        message = f"this host gives an ordinary user no user namespace: unshare: {error.strerror}"
        raise HostError(message, hint=_mend(error.errno)) from None


def _mend(code: int | None) -> str:
    """Name the cause of a refusal, and what mends it, as far as /proc tells."""
    if code == errno.ENOSPC or _sysctl("user/max_user_namespaces") == "0":
        return "sudo sysctl user.max_user_namespaces=15000"
    if _sysctl("kernel/unprivileged_userns_clone") == "0":  # Debian's and Arch's patch
        return "sudo sysctl kernel.unprivileged_userns_clone=1"
    if _sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":  # Ubuntu 23.10 and later
        return "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    if code == errno.EINVAL:
        return "a Linux with CONFIG_USER_NS, and a process of one thread"
    if code == errno.EUSERS:
        return "user namespaces nest 32 deep and no deeper"
    return "in a container, have its seccomp filter allow unshare and mount"


def refused(error: OSError) -> HostError:
    """Explain that the new namespace's root may not mount: Ubuntu's AppArmor takes its capabilities."""
    message = f"root of the user's own namespace may not mount: {error}"
    return HostError(message, hint=_mend(error.errno))


def _sysctl(name: str) -> str | None:
    try:
        with open(f"/proc/sys/{name}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def _write_alone(kind: str, own: int) -> None:
    """Map root inside to the user alone: what anybody may write, groups given up."""
    try:
        if kind == "gid":
            _write("/proc/self/setgroups", "deny")
        _write(f"/proc/self/{kind}_map", f"0 {own} 1\n")
    except OSError as error:
        message = f"this host refuses an ordinary user's id map: {kind}_map: {error.strerror}"
        raise HostError(message, hint=_mend(error.errno)) from None


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


# --- subordinate ids -------------------------------------------------------------------------


def _rows(kind: str, own: int) -> list[Row] | str:
    """Give the map that a user may have written, or why it is but one id."""
    if os.geteuid() == 0:  # without CAP_SYS_ADMIN: it writes the map itself
        return [(0, 0, min(IDS, count(f"/proc/self/{kind}_map")))]
    ranges = subordinate(f"/etc/sub{kind}", os.geteuid())
    if not ranges:
        return f"no line in /etc/sub{kind}: sudo usermod --add-sub{kind}s 100000-165535 {_name()}"
    rows, inside = [(0, own, 1)], 1
    for first, number in ranges:
        rows.append((inside, first, number))
        inside += number
    return rows


def subordinate(path: str, uid: int) -> list[tuple[int, int]]:
    """Read a user's ranges from /etc/subuid or subgid (subuid(5)): first id, how many."""
    names = {str(uid), _name(uid)}
    found = []
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, numbers = line.strip().partition(":")
            first, _, number = numbers.partition(":")
            if name in names and first.isdigit() and number.isdigit() and int(number):
                found.append((int(first), int(number)))
    return found


def _name(uid: int | None = None) -> str:
    import pwd

    number = os.geteuid() if uid is None else uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


@contextlib.contextmanager
def _mapper(pid: int, rows: dict[str, list[Row] | str]) -> Iterator[Callable[[], str | None]]:
    """Have a child outside of the new namespace write its maps: who is inside may not (newuidmap(1)).

    Gives what asks for it, and returns why there is but one id, or None.
    """
    go_r, go_w = os.pipe()
    told_r, told_w = os.pipe()
    child = os.fork()
    if child == 0:
        _be_mapper(pid, rows, go_r, told_w, (go_w, told_r))
    os.close(go_r)
    os.close(told_w)

    def ask() -> str | None:
        os.write(go_w, b"G")
        data = b"".join(iter(lambda: os.read(told_r, 65536), b""))
        return str(json.loads(data)) if data else None

    try:
        yield ask
    finally:
        os.close(go_w)
        os.close(told_r)
        with contextlib.suppress(ChildProcessError):  # where SIGCHLD is ignored
            os.waitpid(child, 0)


def _be_mapper(
    pid: int, rows: dict[str, list[Row] | str], go: int, told: int, others: tuple[int, int]
) -> NoReturn:
    try:
        for fd in others:
            os.close(fd)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if os.read(go, 1) == b"G":
            reasons = [text for text in rows.values() if isinstance(text, str)]
            if not reasons:
                reasons = list(filter(None, (_map(pid, kind, rows[kind]) for kind in rows)))
            if reasons:
                os.write(told, json.dumps(reasons[0]).encode())
    finally:
        os._exit(0)


def _map(pid: int, kind: str, rows: list[Row] | str) -> str | None:
    assert not isinstance(rows, str)
    try:
        if os.geteuid() == 0:
            clone.write_id_map(f"/proc/{pid}/{kind}_map", rows)
            return None
        return _run(f"new{kind}map", [str(pid), *(str(n) for row in rows for n in row)])
    except OSError as error:
        return f"{kind}_map: {error.strerror}"


def _run(program: str, arguments: list[str]) -> str | None:
    """Run newuidmap or newgidmap; give why it didn't work."""
    import shutil

    path = shutil.which(program, path=_PATH)
    if path is None:
        return f"no {program}: sudo apt-get install uidmap"
    said = os.memfd_create(program, os.MFD_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, said, 1), (os.POSIX_SPAWN_DUP2, said, 2)]
    child = os.posix_spawn(path, [program, *arguments], {}, file_actions=actions)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        return None
    text = os.pread(said, 1024, 0).decode(errors="replace").strip().splitlines()
    return f"{program} failed: {text[-1] if text else 'it said nothing'}"
