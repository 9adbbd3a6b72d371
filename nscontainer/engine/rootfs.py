"""A container's root filesystem: the image's layers united by overlayfs, in a private namespace.

Every mount here is made in the spawner's or a monitor's own mount namespace, so none can be left
behind on the host: the namespace goes with its last process.

The layers of one view, top first: the container's read-write layer (on disk, under the state
directory), the init layer (on the spawner's tmpfs: what hides, what is empty, mount points), and the
host's own directory, read-only. With a user namespace the host's directory and the read-write layer
are idmapped mounts, so that root in the container owns what root owns, and is nobody outside.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from nscontainer.image.host import WORLD_WRITABLE, Plan, View
from nscontainer.linux import caps, clone, mount, syscalls
from nscontainer.linux.syscalls import (
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    KernelError,
    openat2,
)

IDS: Final = 65536
"""How many user and group ids a container's user namespace has."""

INIT_FILES: Final = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
"""Empty in the init layer; the real ones are mounted over them and never committed."""
UPPER: Final = "upper"
WORK: Final = "work"
"""What a container's directory has for each view, with the view's number: its read-write layer."""
MARKER: Final = "/.nscontainerenv"


def enter_private_namespace() -> None:
    """Give this process a mount namespace of its own that follows the host's but never leads it.

    Slave and not private: when the host unmounts something, our copy lets go of it too.
    """
    clone.unshare(clone.CLONE_NEWNS)
    mount.make_private(mount.MS_SLAVE)


def make_id_map_namespace(base: int) -> int:
    """Make a user namespace that only serves as the id map of mounts; give its fd."""
    ready_r, ready_w = os.pipe()
    pid, pidfd = clone.clone3(clone.CLONE_NEWUSER, exit_signal=17)
    if pid == 0:  # the namespace's only process: wait until it has been opened
        os.close(ready_w)
        os.read(ready_r, 1)
        os._exit(0)
    os.close(ready_r)
    os.close(pidfd)
    try:
        clone.write_id_maps(pid, base, IDS)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_w)
        with contextlib.suppress(ChildProcessError):  # the spawner ignores SIGCHLD
            os.waitpid(pid, 0)


@dataclass(frozen=True, slots=True)
class Lower:
    """One view's read-only layers, prepared in the spawner and shared by its containers."""

    view: View
    init_layer: str
    host_layer: str
    idmapped: bool


@dataclass(slots=True)
class Images:
    """The host image's layers as this spawner has them mounted, one set for each plan asked for.

    Parameters
    ----------
    scratch
        A directory of the host, over which the spawner's private tmpfs is mounted.
    id_base
        The host's id for the container's root.
    """

    scratch: str
    id_base: int
    notes: list[str] = field(default_factory=list)
    layers: list[tuple[Lower, ...]] = field(default_factory=list)
    _numbers: dict[tuple[object, ...], int] = field(default_factory=dict)
    _id_map_fd: int | None = None
    generation: int = 0
    """How often something was mounted: a copy of the namespace from before lacks the newest."""

    def mount_scratch(self) -> None:
        """Mount the private tmpfs; the caller is in its own mount namespace."""
        fd = mount.new_filesystem("tmpfs", {"mode": "0755", "size": "64m"}, source="nscontainer")
        mount.move_mount(fd, self.scratch)
        os.close(fd)
        for name in ("rw", "root", "pivot"):
            os.mkdir(f"{self.scratch}/{name}")

    def id_map_fd(self) -> int:
        """Give the user namespace whose map shifts ids by ``id_base``."""
        if self._id_map_fd is None:
            self._id_map_fd = make_id_map_namespace(self.id_base)
        return self._id_map_fd

    def number(self, plan: Plan, *, mapped: bool) -> int:
        """Give a plan's place in ``layers``, mounting its layers at the first call."""
        key = (repr(plan), mapped, *(identity(view.path) for view in plan.views))
        if key not in self._numbers:
            self.layers.append(tuple(self._lower(view, mapped=mapped) for view in plan.views))
            self._numbers[key] = len(self.layers) - 1
        return self._numbers[key]

    def _lower(self, view: View, *, mapped: bool) -> Lower:
        self.generation += 1
        init_layer = f"{self.scratch}/i{self.generation}"
        host_layer = f"{self.scratch}/l{self.generation}"
        make_init_layer(init_layer, view, owner=self.id_base if mapped else 0)
        os.mkdir(host_layer)
        fd = mount.open_tree(view.path)
        try:
            idmapped = mapped
            if mapped:
                idmapped = self._shift_ids(fd, view.path)
            mount.mount_setattr(fd, set_=mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NODEV)
            mount.move_mount(fd, host_layer)
        finally:
            os.close(fd)
        return Lower(view, init_layer, host_layer, idmapped)

    def _shift_ids(self, fd: int, path: str) -> bool:
        try:
            mount.mount_setattr(fd, userns_fd=self.id_map_fd())
        except KernelError as error:
            # Not every filesystem can (9p, NFS, tmpfs before Linux 6.3): its files are shown as
            # nobody's, readable where all may read. Said in the result's isolation.
            self.notes.append(f"{path}: ids not mapped, files seen as nobody's ({error.strerror})")
            return False
        return True


def identity(path: str) -> tuple[int, int] | None:
    """Tell which file stands at a path now; None where none does."""
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def make_init_layer(layer: str, view: View, *, owner: int) -> None:
    """Write a view's init layer: what hides the host's directories, and mount points."""
    os.mkdir(layer, 0o755)
    if view.path != "/":
        with contextlib.suppress(OSError):
            facts = os.stat(view.path)
            os.chmod(layer, stat.S_IMODE(facts.st_mode))
            os.chown(layer, owner + facts.st_uid, owner + facts.st_gid)
    else:
        os.chown(layer, owner, owner)
    inside = _Relative(layer, view.path, owner)
    for path in sorted(view.hidden):
        inside.directory(path, opaque=True)
    for path in sorted(view.directories | view.shown):
        inside.directory(path)
    for path in sorted(view.shown):
        inside.show(path)
    for path in sorted(view.removed):
        inside.whiteout(path)
    for path, target in sorted(view.links.items()):
        inside.link(path, target)
    if view.path == "/":
        for path in INIT_FILES:
            inside.file(path)
        inside.file(MARKER)


@dataclass(frozen=True, slots=True)
class _Relative:
    """Makes files of a layer by the container's absolute paths. The layer is nobody else's yet."""

    layer: str
    top: str
    owner: int

    def _place(self, path: str) -> str:
        relative = os.path.relpath(path, self.top)
        here = self.layer
        seen = self.top.rstrip("/")
        for part in os.path.dirname(relative).split("/"):
            if part:
                here, seen = f"{here}/{part}", f"{seen}/{part}"
                if not os.path.isdir(here):
                    self._mkdir(here, seen)
        return os.path.join(self.layer, relative)

    def _mkdir(self, here: str, path: str) -> None:
        """Make a directory with the host's mode and owner, as a merged directory shows the top's."""
        os.mkdir(here, 0o755)
        uid = gid = 0
        with contextlib.suppress(OSError):
            facts = os.stat(path)
            os.chmod(here, stat.S_IMODE(facts.st_mode))
            uid, gid = facts.st_uid, facts.st_gid
        if path in WORLD_WRITABLE:
            os.chmod(here, 0o1777)  # noqa: S103 - sticky, as /tmp is
        os.chown(here, self.owner + uid, self.owner + gid)

    def directory(self, path: str, *, opaque: bool = False) -> None:
        here = self._place(path)
        if not os.path.isdir(here):
            self._mkdir(here, path)
        if opaque:
            os.setxattr(here, "trusted.overlay.opaque", b"y")

    def show(self, path: str) -> None:
        """Let a directory below an opaque one be seen: overlayfs looks it up from the layers' roots.

        An absolute redirect leaves the opaque parent behind (fs/overlayfs/namei.c, ovl_lookup). A
        mount of its own would do as well, at the price of another read-write layer.
        """
        target = "/" + os.path.relpath(path, self.top)
        os.setxattr(f"{self.layer}{target}", "trusted.overlay.redirect", os.fsencode(target))

    def whiteout(self, path: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mknod(self._place(path), stat.S_IFCHR, os.makedev(0, 0))

    def link(self, path: str, target: str) -> None:
        here = self._place(path)
        with contextlib.suppress(FileExistsError):
            os.symlink(target, here)
            os.chown(here, self.owner, self.owner, follow_symlinks=False)

    def file(self, path: str) -> None:
        here = self._place(path)
        os.close(os.open(here, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
        os.chown(here, self.owner, self.owner)


@dataclass(frozen=True, slots=True)
class Root:
    """A container's root, mounted in the monitor's namespace at ``path``."""

    path: str
    description: str


def make_upper(data_dir: str, lowers: tuple[Lower, ...]) -> None:
    """Make the directories of the read-write layer, one pair a view."""
    for index, lower in enumerate(lowers):
        upper = f"{data_dir}/{UPPER}{index}"
        os.mkdir(upper, 0o755)
        mode = stat.S_IMODE(os.stat(lower.init_layer).st_mode)
        if mode != 0o755:
            os.chmod(upper, mode)
        os.mkdir(f"{data_dir}/{WORK}{index}", 0o700)


def assemble(
    images: Images, lowers: tuple[Lower, ...], data_dir: str, *, mapped: bool, volatile: bool
) -> Root:
    """Unite the layers at ``scratch/root``; the caller is in its own mount namespace.

    Parameters
    ----------
    volatile
        Let overlayfs skip syncing the read-write layer: right where it is thrown away anyway.
    """
    make_upper(data_dir, lowers)
    rw = f"{images.scratch}/rw"
    fd = mount.open_tree(data_dir)
    try:
        shifted = mapped
        if mapped:
            try:
                mount.mount_setattr(fd, userns_fd=images.id_map_fd())
            except KernelError:
                shifted = False
        if mapped and not shifted:
            _own(data_dir, lowers, images.id_base)
        mount.move_mount(fd, rw)
    finally:
        os.close(fd)
    top = f"{images.scratch}/root"
    for index, lower in enumerate(lowers):
        with _acting_as(images.id_base if shifted else 0):
            overlay = _overlay(lower, rw, index, volatile=volatile)
        try:
            if index == 0:
                mount.move_mount(overlay, top)
            else:
                _attach(overlay, top, lower.view.path)
        finally:
            os.close(overlay)
    kind = "overlay on idmapped layers" if all(low.idmapped for low in lowers) else "overlay"
    return Root(top, kind)


@contextlib.contextmanager
def _acting_as(uid: int) -> Iterator[None]:
    """Touch files as another user, with every capability kept.

    overlayfs makes its own files as whoever mounted it, and an idmapped mount has no place for an id
    outside its map: mounted as the host's root it would fail (EOVERFLOW) and fall back to read-only.
    Leaving uid 0 takes the file capabilities out of the effective set (capabilities(7)).
    """
    if not uid:
        yield
        return
    held = caps.capget()
    syscalls.libc.setfsgid(uid)
    syscalls.libc.setfsuid(uid)
    try:
        caps.capset(held)
        yield
    finally:
        syscalls.libc.setfsuid(0)
        syscalls.libc.setfsgid(0)


def _own(data_dir: str, lowers: tuple[Lower, ...], owner: int) -> None:
    for index, lower in enumerate(lowers):
        facts = os.stat(lower.init_layer)
        upper = f"{data_dir}/{UPPER}{index}"
        os.chown(upper, facts.st_uid or owner, facts.st_gid or owner)


def _overlay(lower: Lower, rw: str, index: int, *, volatile: bool) -> int:
    options: dict[str, str | None] = {
        "lowerdir": f"{lower.init_layer}:{lower.host_layer}",
        "upperdir": f"{rw}/{UPPER}{index}",
        "workdir": f"{rw}/{WORK}{index}",
        # Whatever the host's defaults are: a layer to be committed must be plain files. The init
        # layer's redirects are followed, none is made.
        "redirect_dir": "follow",
        "metacopy": "off",
        "index": "off",
    }
    if volatile:
        options["volatile"] = None
    fd = mount.new_filesystem(
        "overlay", options, attrs=mount.MOUNT_ATTR_NODEV, source="nscontainer"
    )
    if os.fstatvfs(fd).f_flag & os.ST_RDONLY:  # overlayfs' answer to a work directory it can't use
        os.close(fd)
        raise syscalls.kernel_error(
            errno.EROFS, "fsmount", lower.view.path, "overlayfs can't write to the state directory"
        )
    return fd


def _attach(overlay: int, top: str, path: str) -> None:
    """Mount onto a path of the new root, found beneath its fd and not from outside."""
    root = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        target = openat2(
            root, path, os.O_PATH | os.O_DIRECTORY, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
        )
        try:
            mount.move_mount(overlay, target)
        finally:
            os.close(target)
    finally:
        os.close(root)
