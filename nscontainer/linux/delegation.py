"""How the engine's own process comes to cgroups that containers can be put into.

Root has them. On cgroup v2 an ordinary user's process goes into a scope of its own, which the user's
systemd delegates: it ends with the last process in it, and leaves nothing. Where that isn't to be had, the
cgroup that the process is in may be the user's (somebody else delegated it).
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace

from nscontainer.linux import cgroup, cgroup1, cgroup_find, userns
from nscontainer.linux.cgroup_find import NAMED, CgroupMount, Layout
from nscontainer.linux.syscalls import KernelError


def prepare() -> Layout:
    """Go where containers' cgroups can be made, and find out where that is.

    For a process of one thread, before it enters a user namespace: systemd would not know it there.

    Raises
    ------
    HostError
        As :func:`nscontainer.linux.cgroup_find.detect`.
    """
    trouble = None if userns.privileged() else enter_scope()
    layout = cgroup_find.detect()
    if layout.version == "v2" and layout.unified is not None:
        mount = _pure_v2()
        own = None if mount is None else _own(mount)
        if own == layout.unified and not _is_systemds(own):
            # Where it doesn't go, a limit that needs a controller is refused, with this as the cause.
            with contextlib.suppress(KernelError):
                cgroup.make_room(layout)
    if trouble is not None and layout.cause is not None:
        return replace(layout, cause=f"{layout.cause} ({trouble})")
    return layout


def enter_scope() -> str | None:
    """Have this process moved into a delegated scope, on cgroup v2; say why that didn't work.

    Nothing is done where cgroups can be made already: in the root, in the cgroup that the environment
    names, or in our own where it is marked as delegated.
    """
    mount = _pure_v2()
    if mount is None or os.environ.get(NAMED) or os.access(mount.target, os.W_OK):
        return None
    own = _own(mount)
    if own is not None and cgroup_find.is_ours(own) and cgroup_find.is_delegated(own):
        return None
    from nscontainer.linux import systemd  # nothing that root's spawner has to load

    pid = os.getpid()
    try:
        systemd.start_scope(
            f"nscontainer-{pid}-{os.urandom(3).hex()}.scope", pid, "nscontainer's containers"
        )
    except systemd.SystemdError as error:
        return str(error)
    return None


def _pure_v2() -> CgroupMount | None:
    """Give the cgroup2 mount of a host that has no v1 controller."""
    layout_v1 = False
    unified = None
    for mount in cgroup_find.cgroup_mounts():
        if mount.fstype == "cgroup2":
            unified = unified or mount
        elif any(option in cgroup1.V1_NAMES for option in mount.options):
            layout_v1 = True
    return None if layout_v1 else unified


def _is_systemds(path: str) -> bool:
    """Tell whether a cgroup is only ours as everything is: root without capabilities, in its own service."""
    return userns.outer_uid() == 0 and not cgroup_find.is_delegated(path)


def _own(mount: CgroupMount) -> str | None:
    return cgroup_find.own_v2(mount, cgroup_find.own_paths().get("", "/"))
