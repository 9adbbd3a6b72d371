"""Who runs in the container: ``--user`` looked up in the container's own /etc/passwd and group."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from nscontainer.errors import SpecError


@dataclass(frozen=True, slots=True)
class Account:
    """A user as the container's files know it."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def _records(path: str, word: str) -> list[list[str]]:
    """Read a passwd-like file's lines that have a word as a field, or in their last field.

    Plain text only, so that no library of the container is loaded.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    with open(fd, encoding="utf-8", errors="replace") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return []
        return [line.split(":") for line in file.read(1 << 20).split("\n") if word in line]


def resolve(user: str | None) -> Account:
    """Resolve ``USER[:GROUP]`` by name or number, inside the container's root.

    Raises
    ------
    SpecError
        A name that the container doesn't know.
    """
    name, _, group = (user or "0").partition(":")
    people = [p for p in _records("/etc/passwd", name) if len(p) >= 7 and p[2].isdigit()]
    person = next((p for p in people if p[0] == name or p[2] == name), None)
    if person is None and not name.isdigit():
        message = f"user {name!r} is not in the container's /etc/passwd"
        raise SpecError(message, hint="give a number, or a user the image has")
    uid = int(person[2]) if person else int(name)
    gid = int(person[3]) if person and person[3].isdigit() else 0
    login = person[0] if person else ""
    teams = [g for g in _records("/etc/group", group or login) if len(g) >= 4 and g[2].isdigit()]
    if group:
        team = next((g for g in teams if group in (g[0], g[2])), None)
        if team is None and not group.isdigit():
            message = f"group {group!r} is not in the container's /etc/group"
            raise SpecError(message, hint="give a number, or a group the image has")
        gid = int(team[2]) if team else int(group)
        groups: tuple[int, ...] = ()
    else:
        groups = tuple(int(g[2]) for g in teams if login and login in g[3].split(","))
    home = person[5] if person and person[5] else "/"
    return Account(uid, gid, groups, home)
