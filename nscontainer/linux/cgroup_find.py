"""Where a container's cgroups may go: the hierarchies' mounts, and what of them is this user's.

Root takes the hierarchies' own roots. An ordinary user needs a cgroup that is theirs: on v2 one that
systemd or somebody else delegated to them ("Delegation" in Documentation/admin-guide/cgroup-v2.rst), on
v1 a directory in each hierarchy that an administrator gave them (``nscontainer setup``).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from nscontainer.errors import HostError
from nscontainer.linux import cgroup1, userns
from nscontainer.linux import cgroup_files as files

ENGINE: Final = "nscontainer-engine"
"""The directory for the engine's own processes, beside the containers', in a delegated cgroup."""
NAMED: Final = "NSCONTAINER_CGROUP_PARENT"
"""The environment's name of a cgroup that is to be used, as /proc/self/cgroup would write it."""

_OCTAL: Final = re.compile(r"\\([0-7]{3})")
_NONE_MOUNTED: Final = "no cgroup hierarchy is mounted"


@dataclass(frozen=True)
class Layout:
    """Where this host's hierarchies are, and which of them.

    ``hybrid`` is v1 controllers with a cgroup2 mount beside them; ``none``: there is no cgroup that
    this user may make others in, so that containers have no limits and no accounts.
    """

    version: Literal["v1", "v2", "hybrid", "none"]
    controllers: Mapping[str, str]
    """Controller to the directory under which our cgroups go: v1, its mount point (co-mounted
    ``cpu,cpuacct`` have the same) or this user's own; v2, one for all: the mount point or a cgroup
    delegated to us."""
    unified: str | None
    """The cgroup2 mount's directory under which ours go, if there is one."""
    disks: tuple[str, ...] = ()
    """v1: the ``MAJOR:MINOR`` of the disks whose use is to be accounted."""
    barred: Mapping[str, str] = field(default_factory=dict)
    """Controllers that the host has and this user hasn't, and the mount where that is."""
    cause: str | None = None
    """Why there is none."""
    hint: str | None = None
    """How to have what is barred, or any."""


class CgroupMount(NamedTuple):
    """A mount of a hierarchy, or of a part of it."""

    fstype: str
    root: str
    target: str
    options: list[str]

    def rank(self) -> tuple[bool, int, bool, str]:
        """Order the mounts of one hierarchy, the best first.

        A root of ``/`` is the whole of what our cgroup namespace may see; ``/..`` reaches above it
        (a mount made outside; cgroup_namespaces(7)), ``/docker/x`` shows only a part.
        """
        return (
            ".." in self.root,
            self.root.count("/") + (self.root != "/"),
            not self.target.startswith("/sys/fs/cgroup"),
            self.target,
        )

    def place(self, path: str) -> str | None:
        """Give the directory of a cgroup, named as in /proc/self/cgroup; None where it isn't to be seen."""
        if ".." in path + self.root:
            return None
        below = os.path.relpath(path, self.root)
        return None if below.startswith("..") else os.path.normpath(f"{self.target}/{below}")


def detect(
    mountinfo: str = "/proc/self/mountinfo",
    self_cgroup: str = "/proc/self/cgroup",
    sys_block: str = "/sys/block",
) -> Layout:
    """Find the cgroups that containers may be put into, by this user and in this mount namespace.

    Where there are none, the layout's ``cause`` and ``hint`` say why, and how to mend it.

    Parameters
    ----------
    mountinfo, self_cgroup, sys_block
        What to read (proc(5), cgroups(7), sysfs(5)).

    Raises
    ------
    HostError
        :data:`NAMED` names a cgroup that can't be used.
    """
    mounts = cgroup_mounts(mountinfo)
    own = own_paths(self_cgroup)
    v1: dict[str, CgroupMount] = {}
    for mount in mounts:
        if mount.fstype == "cgroup":
            for option in mount.options:
                if option in cgroup1.V1_NAMES:
                    v1.setdefault(option, mount)
    unified = next((m for m in mounts if m.fstype == "cgroup2"), None)
    if v1:
        return _v1(v1, unified, own, sys_block)
    if unified is not None:
        return _v2(unified, own.get("", "/"))
    hint = "mount -t cgroup2 none /sys/fs/cgroup; in a container, ask its operator for one"
    return Layout("none", {}, None, cause=_NONE_MOUNTED, hint=hint)


def cgroup_mounts(mountinfo: str = "/proc/self/mountinfo") -> list[CgroupMount]:
    """Read the cgroup mounts that can be seen (not mounted over), the best of each kind first."""
    found: dict[str, CgroupMount] = {}
    covered = set()
    with open(mountinfo, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            ident, parent, _, root, target = before.split()[:5]
            covered.add((parent, target))
            fstype, _, options = after.split(" ", 2)
            if fstype in ("cgroup", "cgroup2"):
                found[ident] = CgroupMount(
                    fstype, _unescape(root), _unescape(target), options.strip().split(",")
                )
    seen = [mount for ident, mount in found.items() if (ident, mount.target) not in covered]
    return sorted(seen, key=CgroupMount.rank)


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def own_paths(self_cgroup: str = "/proc/self/cgroup") -> dict[str, str]:
    """Read in which cgroup this process is: by v1 controller, and by ``""`` on v2."""
    found = {}
    for line in (files.read_or_none(self_cgroup) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


# --- whose is it -----------------------------------------------------------------------------


def subtree(uid: int) -> str:
    """Name the directory that is a user's own, in each hierarchy's root (``nscontainer setup``)."""
    return f"nscontainer-{uid}"


def _uids() -> tuple[int, ...]:
    """Give the user's id, outside and inside of the user namespace that it may have entered."""
    return tuple(dict.fromkeys((userns.outer_uid(), os.geteuid())))


def is_ours(path: str) -> bool:
    """Tell whether a cgroup is this user's and nobody else's to make others in."""
    try:
        facts = os.stat(path)
    except OSError:
        return False
    own = facts.st_uid == os.geteuid() and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return own and os.access(path, os.W_OK) and os.access(f"{path}/cgroup.procs", os.W_OK)


def is_delegated(path: str) -> bool:
    """Tell whether systemd has marked a cgroup as one it keeps its hands off (since 251)."""
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(path, name) == b"1":
                return True
        except OSError:
            continue
    return False


def setup_hint(*, v2: bool) -> str:
    """Name the command by which an administrator gives this user what is missing."""
    import pwd

    if userns.privileged():
        return (
            "this host's cgroups are read-only here: have its operator give this container its own"
        )
    uid = _uids()[0]
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return f"sudo nscontainer setup {name}" + (", and log in again" if v2 else "")


def _named(mount: CgroupMount, name: str) -> str | None:
    """Give the cgroup that the environment names, in this mount; None where it is no good."""
    path = name if _is_below(name, mount.target) else mount.place(f"/{name.strip('/')}")
    if path is None or not os.access(path, os.W_OK) or os.stat(path).st_mode & stat.S_IWOTH:
        return None
    return path


def _not_named(name: str) -> HostError:
    message = f"{NAMED} {name}: there is no such cgroup that this user alone may make others in"
    return HostError(message, hint="name one as /proc/self/cgroup does, or unset it")


def _is_below(path: str, top: str) -> bool:
    return os.path.normpath(path) == path and path.startswith(f"{top}/")


# --- v1 --------------------------------------------------------------------------------------


def _v1(
    mounts: Mapping[str, CgroupMount],
    unified: CgroupMount | None,
    own: Mapping[str, str],
    sys_block: str,
) -> Layout:
    bases: dict[str, str] = {}
    barred: dict[str, str] = {}
    for controller, mount in mounts.items():
        base = _v1_base(mount, own.get(controller, "/"))
        if base is None:
            barred[controller] = mount.target
        else:
            bases[controller] = base
    if (name := os.environ.get(NAMED)) and not bases:
        raise _not_named(name)
    beside = None if unified is None else _beside(unified, own.get("", "/"))
    hint = setup_hint(v2=False) if barred else None
    if not bases and beside is None:
        where = ", ".join(sorted(set(barred.values()))[:2])
        cause = f"this user has no cgroup of their own in {where} (cgroup v1)"
        return Layout("none", {}, None, barred=barred, cause=cause, hint=hint)
    disks = cgroup1.disks(sys_block) if "blkio" in bases else ()
    version: Literal["v1", "hybrid"] = "v1" if beside is None else "hybrid"
    return Layout(version, bases, beside, disks, barred, hint=hint)


def _v1_base(mount: CgroupMount, own: str) -> str | None:
    """Choose where ours go in a hierarchy; None where this user may make none."""
    if name := os.environ.get(NAMED):
        return _named(mount, name)
    if os.access(mount.target, os.W_OK):
        return mount.target
    here = mount.place(own)
    candidates = [*([here] if here else []), *(f"{mount.target}/{subtree(u)}" for u in _uids())]
    return next(filter(is_ours, candidates), None)


def _beside(mount: CgroupMount, own: str) -> str | None:
    """Choose where ours go in a hybrid host's cgroup2: a process gets only where it could get out.

    To move one takes writing to ``cgroup.procs`` of the cgroup that old and new place have in common
    ("Delegation Containment" in cgroup-v2.rst), so a directory of ours elsewhere is of no use.
    """
    if os.access(mount.target, os.W_OK):
        return mount.target
    here = mount.place(own)
    return here if here is not None and is_ours(here) else None


# --- v2 --------------------------------------------------------------------------------------


def _v2(mount: CgroupMount, own: str) -> Layout:
    base = _v2_base(mount, own)
    if base is not None:
        controllers = (files.read_or_none(f"{base}/cgroup.controllers") or "").split()
        return Layout("v2", dict.fromkeys(controllers, base), base)
    if name := os.environ.get(NAMED):
        raise _not_named(name)
    there = (files.read_or_none(f"{mount.target}/cgroup.controllers") or "").split()
    return Layout(
        "none",
        {},
        None,
        barred=dict.fromkeys(there, mount.target),
        cause=f"no cgroup is delegated to this user in {mount.target}",
        hint=setup_hint(v2=True),
    )


def _v2_base(mount: CgroupMount, own: str) -> str | None:
    """Choose where ours go on v2: the mount's root, or our own cgroup where that is delegated."""
    if name := os.environ.get(NAMED):
        return _named(mount, name)
    if os.access(mount.target, os.W_OK):
        return mount.target
    here = own_v2(mount, own)
    return here if here is not None and is_ours(here) else None


def own_v2(mount: CgroupMount, own: str) -> str | None:
    """Give the directory of our own cgroup; of one that was made room in, the one above."""
    here = mount.place(own)
    return None if here is None else here.removesuffix(f"/{ENGINE}") or None
