"""Which row of ``nscontainer doctor`` an error of the engine comes from.

An error may name its row. Otherwise it is told by the module that raised it, and a refused step of a
container's set-up by its stage and operation.
"""

from __future__ import annotations

import re
from types import TracebackType
from typing import Final

BY_MODULE: Final = {
    "nscontainer.engine.diskrate": "controller io",
    "nscontainer.engine.networking": "networks",
    "nscontainer.engine.spawner_client": "Linux",
    "nscontainer.engine.state": "state directory",
    "nscontainer.engine.storage": "disk size",
    "nscontainer.engine": "a container",
    "nscontainer.linux.blockdev": "controller io",
    "nscontainer.linux.caps": "privileges",
    "nscontainer.linux.cgroup1_io": "controller io",
    "nscontainer.linux.cgroup2_io": "controller io",
    "nscontainer.linux.cgroup": "cgroup",
    "nscontainer.linux.loop": "disk size",
    "nscontainer.linux.fusefile": "disk size",
    "nscontainer.linux.nftables": "networks",
    "nscontainer.linux.seccomp": "seccomp",
    "nscontainer.linux.tc": "network speed",
    "nscontainer.linux.userns": "user namespace",
    "nscontainer.network.shaping": "network speed",
    "nscontainer.network.usermode": "network user",
    "nscontainer.network": "networks",
    "nscontainer.rootless": "user namespace",
}
"""A module, or all whose names begin so: the longest that fits; a name goes on at any letter."""

BY_STAGE: Final = {
    "state": "state directory",
    "cgroup": "cgroup",
    "rootfs": "overlay",
    "network": "networks",
    "clone": "clone3 and pidfd",
    "id-map": "user namespace",
    "interface": "networks",
    "monitor": "state directory",
    "join": "cgroup",
    "identity": "user namespace",
    "mounts": "own /proc and /sys",
    "pivot": "namespace mnt",
    "filesystems": "namespace mnt",
    "masks": "namespace mnt",
    "system": "namespace net",
    "filter": "seccomp",
    "adopt": "cgroup",
    "confine": "privileges",
    "gate": "state directory",
    "release": "cgroup",
}
BY_OPERATION: Final = {
    ("rootfs", "mount_setattr"): "idmapped layers",
    ("rootfs", "mkdir"): "state directory",
    ("identity", "unshare"): "namespace cgroup",
    ("identity", "open_tree"): "namespace mnt",
    ("identity", "move_mount"): "namespace mnt",
    ("system", "sethostname"): "namespace uts",
    ("confine", "seccomp"): "seccomp",
}


def of_module(name: str) -> str | None:
    """Give the row of what a module raises; None where that isn't the host's matter."""
    fitting = [known for known in BY_MODULE if name.startswith(known)]
    return BY_MODULE[max(fitting, key=len)] if fitting else None


def of_step(stage: str, op: str) -> str | None:
    """Give the row of a refused step of the set-up."""
    if op.startswith("ioctl LOOP"):
        return "disk size"
    return BY_OPERATION.get((stage, op)) or BY_STAGE.get(stage)


def of_traceback(traceback: TracebackType | None) -> str | None:
    """Give the row of the module that raised, by the traceback of what it has raised."""
    name = ""
    while traceback is not None:
        name = str(traceback.tb_frame.f_globals.get("__name__", ""))
        traceback = traceback.tb_next
    return of_module(name)


def key(row: str) -> str:
    """Write a row's name as one word: ``own /proc and /sys`` is ``own-proc-and-sys``."""
    return re.sub(r"[^a-z0-9]+", "-", row.lower()).strip("-")
