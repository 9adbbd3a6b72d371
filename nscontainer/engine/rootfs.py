"""A container's root filesystem: the image's layers united by overlayfs, in a private namespace.

Every mount here is made in the spawner's or a monitor's own mount namespace, so none can be left
behind on the host: the namespace goes with its last process.

The layers of one view, top first: the container's read-write layer (on disk, under the state
directory), the init layer (on the spawner's tmpfs: what hides, what is empty, mount points), and,
read-only, the host's own directory or a stored image's layers. With a user namespace these and the
read-write layer are idmapped mounts, so that root in the container owns what root owns, and is
nobody outside.

An ordinary user's are united in a user namespace of theirs (linux/userns.py): ids are the same in it and in
its containers, so nothing is idmapped, and overlayfs keeps its marks in ``user.*`` attributes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from nscontainer.engine import initlayer, overlay
from nscontainer.errors import EngineError
from nscontainer.image.host import Plan, View
from nscontainer.linux import caps, clone, mount, syscalls, userns
from nscontainer.linux.syscalls import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    KernelError,
    openat2,
)

IDS: Final = userns.IDS
"""How many user and group ids a container's user namespace has: root's, and at most an ordinary user's."""

UPPER: Final = "upper"
WORK: Final = "work"
"""What a container's directory has for each view, with the view's number: its read-write layer."""


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
    lowerdirs: tuple[str, ...]
    """All of them, top first; relative ones begin at ``base``."""
    base: str
    redirect: Literal["follow", "nofollow"]
    """Whether a layer may say that a directory stands elsewhere: the engine's own may."""
    idmapped: bool
    name_files: Mapping[str, str]
    """Where each of :data:`INIT_FILES` is to be mounted."""
    volumes: tuple[str, ...] = ()
    """Directories that belong to no image."""

    def to_dict(self) -> dict[str, Any]:
        """Return what a diff needs to know of it, as plain JSON types."""
        parts = ("hidden", "shown", "removed", "directories")
        sets = {name: sorted(getattr(self.view, name)) for name in parts}
        kept = {name: paths for name, paths in sets.items() if paths}
        return {"path": self.view.path, **kept, "links": self.view.links}


_ROOTS: Final = userns.Ids("initial", 0, IDS)


@dataclass(slots=True)
class Images:
    """The images' layers as this spawner has them mounted, one set for each plan asked for.

    Parameters
    ----------
    scratch
        A directory of the host, over which the spawner's private tmpfs is mounted.
    id_base
        The host's id for the container's root.
    store
        Where the unpacked layers of stored images are, each by its key.
    ids
        What ids there are: other than root's, and ``id_base`` is 0 and nothing idmapped.
    """

    scratch: str
    id_base: int
    store: str
    ids: userns.Ids = _ROOTS
    notes: list[str] = field(default_factory=list)
    layers: list[tuple[Lower, ...]] = field(default_factory=list)
    _numbers: dict[tuple[object, ...], int] = field(default_factory=dict)
    _id_map_fd: int | None = None
    _stores: dict[bool, tuple[str, bool]] = field(default_factory=dict)
    generation: int = 0
    """How often something was mounted: a copy of the namespace from before lacks the newest."""

    def mount_scratch(self) -> None:
        """Mount the private tmpfs; the caller is in its own mount namespace."""
        fd = mount.new_filesystem("tmpfs", {"mode": "0755", "size": "64m"}, source="nscontainer")
        mount.move_mount(fd, self.scratch)
        os.close(fd)
        for name in ("rw", "root", "pivot", "empty", "moment"):
            os.mkdir(f"{self.scratch}/{name}")

    @property
    def rootless(self) -> bool:
        """Tell whether this is done by anybody but root of the machine."""
        return self.ids.kind != "initial"

    def map_ids(self, pid: int) -> None:
        """Write the id maps of a container's first process."""
        if self.rootless:
            userns.share(pid)
        else:
            clone.write_id_maps(pid, self.id_base, IDS)

    def id_map_fd(self) -> int:
        """Give the user namespace whose map shifts ids by ``id_base``."""
        if self._id_map_fd is None:
            self._id_map_fd = make_id_map_namespace(self.id_base)
        return self._id_map_fd

    # --- the image host, and what stands on it ------------------------------------------------

    def number(self, plan: Plan, keys: tuple[str, ...] = (), *, mapped: bool) -> int:
        """Give a plan's place in ``layers``, mounting its layers at the first call.

        Parameters
        ----------
        keys
            Of committed layers that stand on the host, base first.
        """
        key = (repr(plan), mapped, *(identity(view.path) for view in plan.views), *self.seals(keys))
        if key not in self._numbers:
            lowers = tuple(self._on_host(plan, view, keys, mapped=mapped) for view in plan.views)
            self.layers.append(lowers)
            self._numbers[key] = len(self.layers) - 1
        return self._numbers[key]

    def _on_host(self, plan: Plan, view: View, keys: tuple[str, ...], *, mapped: bool) -> Lower:
        store, own_mapped = self._mounted_store(mapped=mapped) if keys else ("/", True)
        self.generation += 1
        init_layer = f"{self.scratch}/i{self.generation}"
        covers = f"{self.scratch}/c{self.generation}"
        covered = self.rootless and view.hidden and not view.bare
        marks = (*initlayer.INIT_FILES, initlayer.MARKER)
        initlayer.make_init_layer(
            init_layer,
            view,
            owner=None if self.rootless else self.id_base if mapped else 0,
            files=[path for path in marks if plan.view_at(path) is view],
            covers=covers if covered else None,
        )
        plain = (init_layer, covers) if covered else (init_layer,)
        idmapped = not self.rootless
        if not view.bare:
            host_layer = f"{self.scratch}/l{self.generation}"
            os.mkdir(host_layer)
            idmapped = self._show(view.path, host_layer, mapped=mapped)
            plain = (*plain, host_layer)
        names = {path: path for path in initlayer.INIT_FILES}
        whole = [f"{key}{view.path}".rstrip("/") for key in reversed(keys)]
        parts = tuple(filter(self._has_directory, whole))
        if not parts:
            return Lower(view, init_layer, plain, "/", self._redirect, idmapped, names)
        # The store may lie on the host's own filesystem, and overlayfs takes no layer that is inside
        # of another (ELOOP). An overlay of its own is another filesystem.
        beneath = f"{self.scratch}/h{self.generation}"
        os.mkdir(beneath)
        empty = f"{self.scratch}/empty"  # it takes two where nothing is written
        fd = self._read_only((*plain, empty) if len(plain) < 2 else plain, "/", self._redirect)
        mount.move_mount(fd, beneath)
        os.close(fd)
        dirs = (*parts, beneath)
        return Lower(view, init_layer, dirs, store, "nofollow", idmapped and own_mapped, names)

    @property
    def _redirect(self) -> Literal["follow", "nofollow"]:
        """Whether the engine's own layers redirect: no user.* attribute can."""
        return "nofollow" if self.rootless else "follow"

    def _has_directory(self, path: str) -> bool:
        """Tell whether a layer has a directory there, and no link on the way to it."""
        try:
            top = os.open(self.store, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            flags, how = os.O_PATH | os.O_DIRECTORY, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
            os.close(openat2(top, path, flags, how))
        except OSError:
            return False
        finally:
            os.close(top)
        return True

    def _show(self, path: str, place: str, *, mapped: bool) -> bool:
        """Mount a directory of the host read-only; tell whether its ids are mapped."""
        fd = mount.open_tree(path)
        try:
            idmapped = mapped and not self.rootless and self._shift_ids(fd, path)
            mount.mount_setattr(fd, set_=mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NODEV)
            mount.move_mount(fd, place)
        finally:
            os.close(fd)
        return idmapped

    def _shift_ids(self, fd: int, path: str) -> bool:
        try:
            mount.mount_setattr(fd, userns_fd=self.id_map_fd())
        except KernelError as error:
            # Not every filesystem can (9p, NFS, tmpfs before Linux 6.3): its files are shown as
            # nobody's, readable where all may read. Said in the result's isolation.
            self.notes.append(f"{path}: ids not mapped, files seen as nobody's ({error.strerror})")
            return False
        return True

    # --- stored images ------------------------------------------------------------------------

    def number_of_stored(
        self, keys: tuple[str, ...], volumes: tuple[str, ...], *, mapped: bool
    ) -> int:
        """Give a stored image's place in ``layers``, making it ready at the first call.

        Parameters
        ----------
        keys
            Of its layers, base first.
        volumes
            The paths that it declares as no part of it.
        """
        key = ("stored", mapped, volumes, *self.seals(keys))
        if key not in self._numbers:
            store, idmapped = self._mounted_store(mapped=mapped)
            self.generation += 1
            init_layer = f"{self.scratch}/i{self.generation}"
            fd = self._united(keys)
            try:
                owner = self.id_base if mapped else 0
                found = initlayer.make_image_init_layer(
                    init_layer, initlayer.Tree(fd), volumes, owner=owner
                )
            finally:
                os.close(fd)
            dirs = (init_layer, *reversed(keys))
            root = View("/")
            lower = Lower(
                root, init_layer, dirs, store, "nofollow", idmapped, found.name_files, found.volumes
            )
            self.layers.append((lower,))
            self._numbers[key] = len(self.layers) - 1
        return self._numbers[key]

    def _united(self, keys: tuple[str, ...]) -> int:
        """Unite an image's layers to look into: with ids as they are on disk, and nowhere attached."""
        dirs = (*reversed(keys), f"{self.scratch}/empty")  # it takes two where nothing is written
        if len(dirs) == 1:
            dirs = (f"{self.scratch}/empty", f"{self.scratch}/pivot")
        return self._read_only(dirs, self.store, "nofollow")

    def _read_only(self, dirs: tuple[str, ...], base: str, redirect: str) -> int:
        options = self.overlay_options(redirect)
        attrs = mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NODEV
        return overlay.unite(dirs, base, options, attrs=attrs, scratch=f"{self.scratch}/moment")

    def overlay_options(self, redirect: str) -> dict[str, str | None]:
        """Give what every overlay is mounted with, whatever the host's defaults are.

        A layer to be committed must be plain files: a redirect is followed in the engine's own alone.
        """
        options: dict[str, str | None] = {
            "redirect_dir": redirect, "metacopy": "off", "index": "off",
        }  # fmt: skip
        return options | {"userxattr": None} if self.rootless else options

    def _mounted_store(self, *, mapped: bool) -> tuple[str, bool]:
        """Mount the store's layers, all at once: one that comes later is seen there by itself."""
        if mapped not in self._stores:
            self.generation += 1
            place = f"{self.scratch}/s{self.generation}"
            os.mkdir(place)
            self._stores[mapped] = place, self._show(self.store, place, mapped=mapped)
        return self._stores[mapped]

    def seals(self, keys: tuple[str, ...]) -> tuple[object, ...]:
        """Tell one unpacking of a layer from another: what was mounted before it is no good any more.

        Raises
        ------
        EngineError
            One isn't there.
        """
        seals = []
        for key in keys:
            try:
                facts = os.stat(f"{self.store}/{key}")
            except OSError as error:
                message = f"layer {key} of the image is not unpacked: {error.strerror}"
                raise EngineError(
                    message, hint="nscontainer pull or load the image again"
                ) from None
            seals.append((key, facts.st_dev, facts.st_ino, facts.st_ctime_ns))
        return tuple(seals)


def identity(path: str) -> tuple[int, int] | None:
    """Tell which file stands at a path now; None where none does."""
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


@dataclass(frozen=True, slots=True)
class Root:
    """A container's root, mounted in the monitor's namespace at ``path``."""

    path: str
    description: str
    upper_shift: int
    """By how much ids are higher in the read-write layer on disk than in the container."""


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
    images: Images,
    lowers: tuple[Lower, ...],
    data_dir: str,
    *,
    mapped: bool,
    volatile: bool,
    own: int | None = None,
) -> Root:
    """Unite the layers at ``scratch/root``; the caller is in its own mount namespace.

    Parameters
    ----------
    data_dir
        Where the read-write layer is made, but for one with a filesystem of its own.
    volatile
        Let overlayfs skip syncing the read-write layer: right where it is thrown away anyway.
    own
        A detached mount of that filesystem, which is attached and closed.
    """
    fd = mount.open_tree(data_dir) if own is None else own
    rw = f"{images.scratch}/rw"
    try:
        if own is not None:
            data_dir = f"/proc/self/fd/{own}"
        make_upper(data_dir, lowers)
        shifted = mapped and not images.rootless
        if shifted:
            try:
                mount.mount_setattr(fd, userns_fd=images.id_map_fd())
            except KernelError:
                shifted = False
        if mapped and not shifted and not images.rootless:
            _own(data_dir, lowers, images.id_base)
        mount.move_mount(fd, rw)
    finally:
        os.close(fd)
    top = f"{images.scratch}/root"
    for index, lower in enumerate(lowers):
        if lower.view.plain:
            united = mount.open_tree(lower.lowerdirs[-1])
            _attach(united, top, lower.view.path)
            os.close(united)
            continue
        with _acting_as(images.id_base if shifted else 0):
            united = _overlay(lower, rw, index, images, volatile=volatile)
        try:
            if index == 0:
                mount.move_mount(united, top)
            else:
                _attach(united, top, lower.view.path)
        finally:
            os.close(united)
    kind = "overlay on idmapped layers" if all(low.idmapped for low in lowers) else "overlay"
    if images.rootless:
        kind = "overlay in the user's namespace (userxattr)"
    return Root(top, kind, 0 if shifted or not mapped else images.id_base)


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


def _overlay(lower: Lower, rw: str, index: int, images: Images, *, volatile: bool) -> int:
    options: dict[str, str | None] = {
        "upperdir": f"{rw}/{UPPER}{index}",
        "workdir": f"{rw}/{WORK}{index}",
        **images.overlay_options(lower.redirect),
    }
    if volatile:
        options["volatile"] = None
    fd = overlay.unite(
        lower.lowerdirs,
        lower.base,
        options,
        attrs=mount.MOUNT_ATTR_NODEV,
        scratch=f"{images.scratch}/moment",
    )
    if os.fstatvfs(fd).f_flag & os.ST_RDONLY:  # overlayfs' answer to a work directory it can't use
        os.close(fd)
        raise syscalls.kernel_error(
            errno.EROFS, "fsmount", lower.view.path, "overlayfs can't write to the state directory"
        )
    return fd


def _attach(united: int, top: str, path: str) -> None:
    """Mount onto a path of the new root, found beneath its fd and not from outside."""
    root = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        target = openat2(
            root, path, os.O_PATH | os.O_DIRECTORY, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
        )
        try:
            mount.move_mount(united, target)
        finally:
            os.close(target)
    finally:
        os.close(root)
