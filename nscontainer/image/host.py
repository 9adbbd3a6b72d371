"""The built-in image ``host``: this machine's own system and Python environment.

A plan, made of names only: which directories of the host a container sees, which are hidden, and
where. :mod:`nscontainer.engine.rootfs` mounts it. The root filesystem is one *view*; a path that
must be seen although it lies on another filesystem is a view of its own mounted at the same path (a
submount does not come along in an overlay's lower layer).

For an ordinary user the root is *split*: mounts that are locked together can't be parted in a user
namespace (mount_namespaces(7)), and overlayfs takes no directory that has one in it
(fs/namespace.c, clone_private_mount, since Linux 5.14). The root view is bare then, and each directory
without a mount in it is a view of its own.
"""

from __future__ import annotations

import contextlib
import glob
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from nscontainer.linux.procfs import MountPoint, mountinfo

HIDDEN: Final = (  # names in a container: no temporary file is made of them
    "/boot", "/dev", "/home", "/lost+found", "/media", "/mnt", "/proc", "/root", "/run", "/snap",
    "/srv", "/sys", "/tmp", "/var/backups", "/var/crash", "/var/lib/AccountsService",  # noqa: S108
    "/var/lib/NetworkManager", "/var/lib/containerd", "/var/lib/containers", "/var/lib/docker",
    "/var/lib/kubelet", "/var/lib/libvirt", "/var/lib/lxc", "/var/lib/lxd", "/var/lib/machines",
    "/var/lib/mysql", "/var/lib/nscontainer", "/var/lib/postgresql", "/var/lib/private",
    "/var/lib/redis", "/var/lib/systemd", "/var/log", "/var/mail", "/var/spool",
    "/var/tmp",  # noqa: S108
)  # fmt: skip
"""Directories that a container sees empty: other people's, other services', and its own to have."""

OWN: Final = "/run/nscontainer"
"""Where a container has what the engine puts into it: name files, the runner. A mount point of the init
layer, or it would be one of the read-write layer, and be committed."""
SECRETS: Final = (
    "/etc/NetworkManager/system-connections", "/etc/docker", "/etc/gshadow", "/etc/gshadow-",
    "/etc/ipsec.secrets", "/etc/krb5.keytab", "/etc/kubernetes", "/etc/letsencrypt",
    "/etc/machine-id", "/etc/openvpn", "/etc/ppp", "/etc/rancher", "/etc/security/opasswd",
    "/etc/shadow", "/etc/shadow-", "/etc/ssh/ssh_host_*_key", "/etc/ssl/private", "/etc/sudoers",
    "/etc/sudoers.d", "/etc/wireguard", "/swapfile", "/swap.img",
)  # fmt: skip
"""What a container does not see at all."""

WORLD_WRITABLE: Final = frozenset({"/tmp", "/var/tmp"})  # noqa: S108 - names in a container

_DISK_FILESYSTEMS: Final = frozenset(
    "bcachefs btrfs erofs ext2 ext3 ext4 f2fs jfs squashfs xfs zfs".split()
)

NOBODY: Final = 65534
"""Whom an owner is shown as that a user namespace has no id for (/proc/sys/kernel/overflowuid)."""
_WRITTEN: Final = frozenset({"/etc", "/usr", "/var"})
"""Of a split root, what is written to although it is the machine's: at its top, for what is in it is nobody's."""
COPIED_BYTES: Final = 1 << 20
"""How large a file may be that stands beside mounts, as in a container's /etc, to be copied for each."""

_ENVIRONMENT: Final = (
    "CONDA_DEFAULT_ENV", "CONDA_PREFIX", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "PATH", "TZ",
    "VIRTUAL_ENV",
)  # fmt: skip
_ENVIRONMENT_PREFIXES: Final = ("LC_", "MKL_", "OMP_", "OPENBLAS_", "NUMBA_", "NUMEXPR_", "BLIS_")


@dataclass(slots=True)
class View:
    """One directory of the host as the container sees it, by a path absolute on both sides."""

    path: str
    hidden: set[str] = field(default_factory=set)
    """Directories seen empty."""
    shown: set[str] = field(default_factory=set)
    """Directories of the same filesystem that are seen although they lie in hidden ones."""
    removed: set[str] = field(default_factory=set)
    """Files and directories not seen at all."""
    directories: set[str] = field(default_factory=set)
    """Directories to be made where the view has none: mount points of other views."""
    plain: bool = False
    """Read-only as it is, at the price of no overlay: nobody inside could write deeper in it anyway."""
    links: dict[str, str] = field(default_factory=dict)
    """Symbolic links to be made in hidden directories, so that a path keeps its spelling."""

    @property
    def bare(self) -> bool:
        """Tell whether all that it has is the engine's: directories, links, and copies of ``shown`` files."""
        return self.path in self.hidden

    def shows(self, path: str) -> bool:
        """Tell whether this view shows the host's file at ``path``."""
        hides = [len(top) for top in (*self.hidden, *self.removed) if _under(path, top)]
        shows = [len(top) for top in self.shown if _under(path, top)]
        # The nearest rule holds; with none, what the view has is seen.
        return _under(path, self.path) and max(shows, default=0) >= max(hides, default=0)


@dataclass(frozen=True, slots=True)
class Plan:
    """The views of one container's root, the root first, a mount point always before its mount."""

    views: tuple[View, ...]

    def shows(self, path: str) -> bool:
        """Tell whether the container sees the host's file at a real path."""
        return self.view_at(path).shows(path)

    def view_at(self, path: str) -> View:
        """Give the view that a real path is in."""
        return _enclosing(list(self.views), path)


def _under(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/") or top == "/"


def _enclosing(views: list[View], path: str) -> View:
    return max((v for v in views if _under(path, v.path)), key=lambda v: len(v.path))


def plan(
    needed: Iterable[str],
    *,
    home: str,
    hide: Iterable[str] = (),
    mounts: list[MountPoint] | None = None,
    split: bool = False,
) -> Plan:
    """Decide what a container of the image ``host`` sees.

    Parameters
    ----------
    needed
        Paths that must be seen: the working directory, the interpreter's prefixes, ``sys.path``.
        One that doesn't exist is passed over.
    home
        The caller's home directory: of it, only what is needed is shown; where it is itself needed
        (a notebook started there), all but its dot files, where keys and histories live.
    hide
        More directories to hide: the engine's own.
    mounts
        This namespace's mounts; read from /proc when not given.
    split
        Have no view with a mount in it: what an ordinary user's container takes.
    """
    mounts = mountinfo() if mounts is None else mounts
    home = os.path.realpath(home)
    root = View("/", hidden={os.path.realpath(p) for p in (*HIDDEN, *hide) if os.path.isdir(p)})
    root.hidden.discard("/")
    root.removed = {p for pattern in SECRETS for p in glob.glob(pattern)} | set(_private("/etc"))
    if home not in ("/", "") and os.path.isdir(home) and root.shows(home):
        root.hidden.add(home)
    points = {m.target: m for m in mounts if m.target != "/"}
    if split:
        views = [View("/", hidden={"/"})]
        _lay_out(views, "/", root, points)
    else:
        views = [root]
        for target, point in points.items():
            if point.fstype in _DISK_FILESYSTEMS and os.path.isdir(target) and root.shows(target):
                _add_view(views, target, home)
    for path in sorted({p for p in needed if p and os.path.isabs(p)}):
        real = None if _of_kernel(path) else _reach(views, path)
        if real is None or _of_kernel(real) or real in ("/home", os.path.dirname(home)):
            continue  # a directory of everybody's homes is not one to show
        directory = real if os.path.isdir(real) else os.path.dirname(real)
        view = _enclosing(views, directory)
        if split:
            ours = os.stat(directory).st_uid != NOBODY
            view.plain = view.plain and not ours
            if not view.shows(directory) and directory != view.path:
                rules = View("/")
                _hide_home(rules, directory, home)
                _lay_out(views, directory, rules, points, ours=ours)
        elif _mount_between(points, view.path, directory):
            _add_view(views, directory, home)
        elif not view.shows(directory):
            view.hidden.discard(directory)
            view.shown.add(directory)
            _hide_home(view, directory, home)
    _enclosing(views, OWN).directories.add(OWN)
    return Plan(tuple(views))


def _private(top: str) -> Iterator[str]:
    """Find what not everybody may read: passwords of services, of which no list is ever complete.

    The container's root could: by the id map it is the owner of what root (or a service) owns.
    """
    with contextlib.suppress(OSError), os.scandir(top) as entries:
        for entry in entries:
            mode = entry.stat(follow_symlinks=False).st_mode
            if not stat.S_ISLNK(mode) and not mode & stat.S_IROTH:
                yield entry.path
            elif stat.S_ISDIR(mode):
                yield from _private(entry.path)


def _of_kernel(path: str) -> bool:
    """Tell whether a path lies where the container has its own: /proc/self/fd would be *ours*."""
    return any(_under(path, top) for top in ("/dev", "/proc", "/sys"))


def _mount_between(points: Mapping[str, MountPoint], top: str, path: str) -> bool:
    """Tell whether a mount point lies below ``top`` on the way to ``path``."""
    while path not in (top, "/"):
        if path in points:
            return True
        path = os.path.dirname(path)
    return False


def _add_view(views: list[View], path: str, home: str) -> None:
    outer = _enclosing(views, path)
    view = View(path)
    _hide_home(view, path, home)
    outer.directories.add(path)
    views.append(view)


def _lay_out(
    views: list[View],
    path: str,
    rules: View,
    points: Mapping[str, MountPoint],
    *,
    ours: bool = False,
) -> None:
    """Show a directory as one view, or entry by entry where it has a mount in it.

    Parameters
    ----------
    views
        Are added to; the first is the bare root.
    rules
        What of the directory is hidden or removed.
    ours
        It is asked for by name (the working directory, a virtual environment), and root inside owns it.
    """
    bare = views[0]
    if path != "/":
        _enclosing(views, path).directories.add(path)
        if not any(_under(point, path) and point != path for point in points):
            hidden = {one for one in rules.hidden if _under(one, path) and one != path}
            removed = {one for one in rules.removed if _under(one, path)}
            plain = path not in _WRITTEN and not hidden and not removed and not ours
            views.append(View(path, hidden=hidden, removed=removed, plain=plain))
            return
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            here = entry.path
            if here in rules.removed or any(view.path == here for view in views):
                continue
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                bare.links[here] = os.readlink(here)
            elif stat.S_ISREG(mode) and entry.stat().st_size <= COPIED_BYTES:
                bare.shown.add(here)
            elif stat.S_ISDIR(mode):
                point = points.get(here)
                foreign = point is not None and point.fstype not in _DISK_FILESYSTEMS
                if foreign or here in rules.hidden:
                    bare.directories.add(here)
                else:
                    _lay_out(views, here, rules, points)


def _hide_home(view: View, shown: str, home: str) -> None:
    """Keep private what a directory to be shown has of the caller's home."""
    if shown == home:
        with os.scandir(home) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    is_dir = entry.is_dir(follow_symlinks=False)
                    (view.hidden if is_dir else view.removed).add(entry.path)
    elif _under(home, shown):
        view.hidden.add(home)


def _reach(views: list[View], path: str) -> str | None:
    """Walk to a path; keep each symbolic link that lies in a hidden place; give the real path."""
    done, rest, hops = "/", [p for p in path.split("/") if p], 0
    while rest:
        part = rest.pop(0)
        if part == "..":
            done = os.path.dirname(done)
            continue
        here = os.path.join(done, part)
        try:
            mode = os.lstat(here).st_mode
        except OSError:
            return None
        if not stat.S_ISLNK(mode):
            done = here
            continue
        hops += 1
        if hops > 40:
            return None
        target = os.readlink(here)
        view = _enclosing(views, done)
        if not view.shows(here) and here not in view.removed:
            view.links[here] = target
        if target.startswith("/"):
            done = "/"
        rest = [p for p in target.split("/") if p not in ("", ".")] + rest
    return done


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Choose what of the caller's environment a container of this image gets: no secrets.

    Only what makes the same programs found and numbers computed alike: the path, the locale, the
    time zone, the virtual environment, the numeric libraries' settings.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)
    }
    kept.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    kept.setdefault("LANG", "C.UTF-8")
    return kept
