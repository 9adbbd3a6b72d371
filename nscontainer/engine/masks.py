"""What of the kernel's own filesystems a container doesn't see, or can't write to."""

from __future__ import annotations

import os
from typing import Final

from nscontainer.engine import devices
from nscontainer.linux import mount

MASKED: Final = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
    "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
    "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
    "/sys/kernel/debug", "/sys/kernel/security", "/sys/kernel/tracing",
)  # fmt: skip
"""Docker's masked paths (moby oci/defaults.go), and the kernel's debugging trees."""

READ_ONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def hide() -> None:
    """Hide the kernel's sensitive files and make others read-only, each by fd."""
    empty = mount.new_filesystem(
        "tmpfs", {"mode": "0755", "size": "0", "nr_inodes": "1"}, attrs=mount.MOUNT_ATTR_RDONLY
    )
    null = devices.open_node("null")
    empty_is_attached = False
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    for path in MASKED:
        try:
            target = os.open(path, flags)
        except OSError:
            continue  # not on this Linux
        is_directory = os.fstat(target).st_mode & 0o170000 == 0o040000
        if is_directory and not empty_is_attached:
            mount.move_mount(empty, target)  # only what is attached can be cloned before Linux 6.15
            empty_is_attached = True
        else:
            cover = mount.open_tree(empty if is_directory else null)
            mount.move_mount(cover, target)
            os.close(cover)
        os.close(target)
    for path in READ_ONLY:
        try:
            tree = mount.open_tree(path, recursive=True, follow=False)
        except FileNotFoundError:
            continue
        mount.mount_setattr(tree, set_=mount.MOUNT_ATTR_RDONLY, recursive=True)
        target = os.open(path, flags)
        mount.move_mount(tree, target)
        os.close(tree)
        os.close(target)
    os.close(empty)
    os.close(null)
