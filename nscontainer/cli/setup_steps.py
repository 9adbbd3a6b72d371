"""What ``nscontainer setup`` can do, step by step: each knows whether it is done, and how it is undone."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from nscontainer.errors import HostError, StateError
from nscontainer.linux import cgroup1, cgroup_find, systemd, userns
from nscontainer.linux import cgroup_files as files

DROP_IN: Final = "systemd/system/user@.service.d/nscontainer.conf"
DROP_IN_TEXT: Final = """\
# Made by nscontainer setup, removed by nscontainer setup --undo.
[Service]
Delegate=cpu cpuset io memory pids
"""
SYSCTLS: Final = "sysctl.d/60-nscontainer.conf"
WANTED: Final = {
    "kernel.unprivileged_userns_clone": ("0", "1"),
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
    "user.max_user_namespaces": ("0", "15000"),
}
"""Settings that keep user namespaces from ordinary users: the value that does, and one that doesn't."""
RECORD: Final = "nscontainer/setup.json"
"""What was done, for it to be undone."""
_FIRST_SUBID: Final = 100_000
_LAST_SUBID: Final = 1 << 31


@dataclass(frozen=True)
class Step:
    """One thing to be done, or done already.

    Attributes
    ----------
    verb
        ``write``, ``run``, ``make``, ``remove``.
    how
        What will be written or run, line by line.
    do
        Does it; gives notes for who asked.
    """

    verb: str
    what: str
    how: list[str]
    done: bool
    do: Callable[[], Iterable[str]]


@dataclass(frozen=True)
class Host:
    """Where a host keeps what is set up."""

    etc: str = "/etc"
    sys: str = "/proc/sys"
    mountinfo: str = "/proc/self/mountinfo"
    has_systemd: Callable[[], bool] = systemd.is_running
    which: Callable[[str], str | None] = shutil.which

    def run(self, command: list[str]) -> None:
        """Run a program of the system.

        Raises
        ------
        HostError
            It failed: its last words.
        """
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            message = f"{command[0]} can't be run: {error.strerror}"
            raise HostError(message) from None
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
            message = f"{' '.join(command)} failed: {said[-1]}"
            raise HostError(message)

    def record(self) -> dict[str, Any]:
        """Read what was done."""
        with contextlib.suppress(OSError, ValueError), open(f"{self.etc}/{RECORD}") as file:
            found = json.load(file)
            if isinstance(found, dict):
                return found
        return {}

    def keep(self, record: dict[str, Any]) -> None:
        """Write what was done; nothing leaves no file."""
        path = f"{self.etc}/{RECORD}"
        if any(record.values()):
            self.write(RECORD, json.dumps(record, indent=2) + "\n")
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
            os.rmdir(os.path.dirname(path))

    def write(self, name: str, text: str) -> None:
        """Write a file below /etc, in one stroke."""
        path = f"{self.etc}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(f"{path}.new", path)

    def text(self, name: str) -> str | None:
        """Read a file below /etc."""
        try:
            with open(f"{self.etc}/{name}", encoding="utf-8") as file:
                return file.read()
        except OSError:
            return None


def plan(
    person: pwd.struct_passwd, *, undo: bool = False, host: Host | None = None
) -> tuple[list[Step], list[str]]:
    """List what there is to do for a user (or to undo), and what else to tell."""
    host = host or Host()
    mounts = cgroup_find.cgroup_mounts(host.mountinfo)
    v1 = sorted(
        {
            mount.target
            for mount in mounts
            if mount.fstype == "cgroup" and cgroup1.V1_NAMES.keys() & set(mount.options)
        }
    )
    notes: list[str] = []
    steps = []
    if v1:
        steps += [_subtree(person, target, undo=undo) for target in v1]
        if not undo and any(not step.done for step in steps):
            notes.append("cgroup directories are gone after a reboot: run setup again then")
    elif host.has_systemd() or host.text(DROP_IN) is not None:
        steps.append(_drop_in(host, person, undo=undo))
    elif not undo:
        notes.append(
            "no systemd runs this host: start their notebook in a cgroup that is theirs "
            "(docs/limits.md, As an ordinary user)"
        )
    steps.append(_subids(host, person, undo=undo))
    steps += _sysctls(host, undo=undo)
    if not undo and host.which("newuidmap") is None:
        notes.append(
            "newuidmap is missing: apt-get install uidmap (Fedora: dnf install shadow-utils)"
        )
    return [step for step in steps if not (undo and step.done)], notes


# --- cgroups ---------------------------------------------------------------------------------


def _drop_in(host: Host, person: pwd.struct_passwd, *, undo: bool) -> Step:
    path = f"{host.etc}/{DROP_IN}"
    now = host.text(DROP_IN)

    def do() -> Iterable[str]:
        if undo:
            os.unlink(path)
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(path))
        else:
            host.write(DROP_IN, DROP_IN_TEXT)
        if host.has_systemd():
            host.run(["systemctl", "daemon-reload"])
        yield (
            f"it holds once {person.pw_name} has logged out of all sessions and in again "
            f"(or: systemctl restart user@{person.pw_uid}, which ends what runs there)"
        )

    if undo:
        return Step("remove", path, ["systemctl daemon-reload"], now is None, do)
    how = [*DROP_IN_TEXT.splitlines()[1:], "and run systemctl daemon-reload"]
    return Step("write", f"{path} (for all users)", how, now == DROP_IN_TEXT, do)


def _subtree(person: pwd.struct_passwd, target: str, *, undo: bool) -> Step:
    path = f"{target}/{cgroup_find.subtree(person.pw_uid)}"
    facts = os.stat(path) if os.path.isdir(path) else None

    def make() -> Iterable[str]:
        give_subtree(target, person.pw_uid, person.pw_gid)
        return ()

    def remove() -> Iterable[str]:
        take_subtree(target, person.pw_uid)
        return ()

    if undo:
        return Step("remove", path, [], facts is None, remove)
    mine = facts is not None and facts.st_uid == person.pw_uid
    return Step("make", path, [f"owned by {person.pw_name}"], mine, make)


def give_subtree(target: str, uid: int, gid: int) -> str:
    """Make a directory of a v1 hierarchy that a user may make cgroups in; its own limits stay root's."""
    path = f"{target}/{cgroup_find.subtree(uid)}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o755)
    if os.path.exists(f"{path}/cpuset.cpus"):
        cgroup1.fill_cpuset(path)
    for name in ("", "/cgroup.procs", "/tasks"):
        os.chown(path + name, uid, gid)
    return path


def take_subtree(target: str, uid: int) -> None:
    """Remove it, with the empty directories in it.

    Raises
    ------
    StateError
        A container runs in it.
    """
    files.remove_all([f"{target}/{cgroup_find.subtree(uid)}"], 2.0)


# --- ids -------------------------------------------------------------------------------------


def _subids(host: Host, person: pwd.struct_passwd, *, undo: bool) -> Step:
    name = person.pw_name
    given = host.record().get("subids", {}).get(name)
    if undo:
        command = [] if given is None else _usermod("--del", given, name)
        do = functools.partial(_run_subids, host, command, name, None)
        return Step("run", " ".join(command), [], given is None, do)
    has = [
        sum(count for _, count in userns.subordinate(f"{host.etc}/{file}", person.pw_uid))
        for file in ("subuid", "subgid")
    ]
    if min(has) >= userns.IDS - 1:
        what = f"{name} has {min(has)} subordinate ids ({host.etc}/subuid, subgid)"
        return Step("run", what, [], True, lambda: ())  # noqa: FBT003 - done
    first = _free_ids(host)
    ids = {
        file: f"{first}-{first + userns.IDS - 1}"
        for file, count in zip(("subuids", "subgids"), has, strict=True)
        if count < userns.IDS - 1
    }
    command = _usermod("--add", ids, name)
    do = functools.partial(_run_subids, host, command, name, ids)
    return Step("run", " ".join(command), [], False, do)  # noqa: FBT003 - done


def _usermod(verb: str, ids: dict[str, str], name: str) -> list[str]:
    words = [word for file, range_ in ids.items() for word in (f"{verb}-{file}", range_)]
    return ["usermod", *words, name]


def _run_subids(
    host: Host, command: list[str], name: str, ids: dict[str, str] | None
) -> Iterable[str]:
    host.run(command)
    record = host.record()
    subids = record.setdefault("subids", {})
    subids.pop(name, None)
    if ids is not None:
        subids[name] = ids
    host.keep(record)
    return ()


def _free_ids(host: Host) -> int:
    """Find where ids begin that nobody has; those of systemd's containers are left out of it."""
    ends = [_FIRST_SUBID]
    for file in ("subuid", "subgid"):
        for line in (host.text(file) or "").splitlines():
            _, _, numbers = line.partition(":")
            first, _, count = numbers.partition(":")
            if first.isdigit() and count.isdigit() and int(first) + int(count) < _LAST_SUBID:
                ends.append(int(first) + int(count))
    return max(ends)


# --- user namespaces -------------------------------------------------------------------------


def _sysctls(host: Host, *, undo: bool) -> list[Step]:
    record = host.record().get("sysctls", {})
    if undo:
        how = [f"{key} = {value}" for key, value in record.items()]
        do = functools.partial(_set_sysctls, host, record, undo=True)
        return [Step("remove", f"{host.etc}/{SYSCTLS}", how, not record, do)] if record else []
    wrong = {
        key: wanted
        for key, (bad, wanted) in WANTED.items()
        if (files.read_or_none(_sysctl_path(host, key)) or "") == bad
    }
    if not wrong:
        return [Step("write", "an ordinary user may have user namespaces", [], True, lambda: ())]  # noqa: FBT003
    how = [f"{key} = {value}" for key, value in wrong.items()]
    do = functools.partial(_set_sysctls, host, wrong, undo=False)
    return [Step("write", f"{host.etc}/{SYSCTLS} (for all users)", how, False, do)]  # noqa: FBT003


def _sysctl_path(host: Host, key: str) -> str:
    return f"{host.sys}/{key.replace('.', '/')}"


def _set_sysctls(host: Host, values: dict[str, str], *, undo: bool) -> Iterable[str]:
    record = host.record()
    if undo:
        record["sysctls"] = {}
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{host.etc}/{SYSCTLS}")
    else:
        before = {key: files.read(_sysctl_path(host, key)).strip() for key in values}
        record["sysctls"] = {**record.get("sysctls", {}), **before}
        held = dict.fromkeys(record["sysctls"])
        lines = [f"{key} = {WANTED[key][1]}\n" for key in held]
        host.write(SYSCTLS, "# Made by nscontainer setup.\n" + "".join(lines))
    for key, value in values.items():
        try:
            files.write(_sysctl_path(host, key), value)
        except OSError as error:
            message = f"{key} can't be set: {error.strerror}"
            raise StateError(message, hint="in a container, set it on its host") from None
    host.keep(record)
    return ()
