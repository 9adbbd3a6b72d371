"""``--chown``: names are looked up in the image, not on this machine."""

from __future__ import annotations

from nscontainer.build import trees
from nscontainer.build.newlayer import Owner
from nscontainer.build.trees import Tree
from nscontainer.errors import SpecError

_MAX_ID = (1 << 32) - 2


def parse(text: str, image: Tree) -> Owner:
    """Read ``USER[:GROUP]``, each a name or a number.

    A number alone is the group's as well; a name alone has the group that the image's /etc/passwd
    gives it.

    Raises
    ------
    SpecError
        The image doesn't know the name.
    """
    user, colon, group = text.partition(":")
    row = _row(image, "etc/passwd", user)
    uid = _number(user) if row is None else _number(row[2])
    if uid is None:
        raise SpecError(f"user {user!r} isn't in the image's /etc/passwd", hint="or give a number")
    if not colon or not group:
        gid = uid if row is None or user.isdigit() else _number(row[3])
        return Owner(uid, uid if gid is None else gid)
    found = _row(image, "etc/group", group)
    gid = _number(group) if found is None else _number(found[2])
    if gid is None:
        raise SpecError(f"group {group!r} isn't in the image's /etc/group", hint="or give a number")
    return Owner(uid, gid)


def _row(image: Tree, file: str, name: str) -> list[str] | None:
    """Give a line of passwd or group by its name, in fields."""
    for line in trees.read(image, file).decode("utf-8", "surrogateescape").splitlines():
        fields = line.split(":")
        if fields[0] == name and len(fields) >= 4:
            return fields
    return None


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()):
        return None
    if int(text) > _MAX_ID:
        raise SpecError(f"id {text} is out of range", hint=f"up to {_MAX_ID}")
    return int(text)
