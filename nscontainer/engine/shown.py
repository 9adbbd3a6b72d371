"""What of the host a container is shown: ``--volume`` paths, and the runner of its cell."""

from __future__ import annotations

import contextlib
import os
from typing import Final

from nscontainer.engine.rootfs import Images
from nscontainer.linux import mount
from nscontainer.linux.syscalls import KernelError
from nscontainer.spec import ContainerSpec

_RUNNER: Final = os.path.join(os.path.dirname(os.path.dirname(__file__)), "runner")


def bind_mounts(spec: ContainerSpec, images: Images, *, mapped: bool) -> list[tuple[int, str]]:
    """Clone the mounts behind ``--volume`` paths, ids mapped as the image's are.

    Returns
    -------
    list[tuple[int, str]]
        Each mount's fd and where it is to be.
    """
    trees = []
    for entry in spec.mounts:
        if entry.type != "bind":
            continue
        assert entry.source is not None
        tree = mount.open_tree(entry.source, recursive=True)
        attrs = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV
        if entry.read_only:
            attrs |= mount.MOUNT_ATTR_RDONLY
        mount.mount_setattr(tree, set_=attrs, recursive=True)
        if mapped and not images.rootless:
            try:
                mount.mount_setattr(tree, userns_fd=images.id_map_fd(), recursive=True)
            except KernelError:
                images.notes.append(f"{entry.source}: ids not mapped, files seen as nobody's")
        trees.append((tree, entry.target))
    return trees


def cell_runner(images: Images, *, mapped: bool) -> int:
    """Clone a mount of the package :mod:`nscontainer.runner`, read-only."""
    tree = mount.open_tree(_RUNNER)
    attrs = mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV
    mount.mount_setattr(tree, set_=attrs)
    if mapped and not images.rootless:
        with contextlib.suppress(KernelError):
            mount.mount_setattr(tree, userns_fd=images.id_map_fd())
    return tree
