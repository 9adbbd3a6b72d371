"""Block devices: which whole disk is behind a path (sysfs(5), proc_pid_mountinfo(5)).

Limits and accounts of I/O are kept by whole disks: a partition has no queue of its own, and what is
stacked (LVM, md, loop) hands its I/O on to disks below, in the name of the same cgroup.
"""

from __future__ import annotations

import functools
import os
import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from nscontainer.errors import HostError, SpecError

MOUNTINFO: Final = "/proc/self/mountinfo"
SYS: Final = "/sys/dev/block"

_OCTAL: Final = re.compile(r"\\([0-7]{3})")
_DEPTH: Final = 8


@dataclass(frozen=True, slots=True)
class Rule:
    """What a cgroup may do with one disk, a second; None is not asked for, -1 is lifted."""

    read_bps: int | None = None
    write_bps: int | None = None
    read_iops: int | None = None
    write_iops: int | None = None

    def items(self) -> list[tuple[str, int]]:
        """Give those that are asked for."""
        every = ((name, getattr(self, name)) for name in RATES)
        return [(name, value) for name, value in every if value is not None]

    @property
    def writes(self) -> bool:
        """Whether it holds writes."""
        return any(rate is not None and rate > 0 for rate in (self.write_bps, self.write_iops))


RATES: Final = ("read_bps", "write_bps", "read_iops", "write_iops")


@dataclass(frozen=True, slots=True)
class _Mount:
    target: str
    fstype: str
    source: str
    options: str


def name(number: str, sys: str = SYS) -> str:
    """Give a device's name, ``vda`` for ``254:0``; its number where it has none."""
    try:
        return os.path.basename(os.readlink(f"{sys}/{number}")).replace("!", "/")
    except OSError:
        return number


def is_stacked(name: str, sys_block: str = "/sys/block") -> bool:
    """Tell whether a device keeps nothing itself: it is in memory, in a file, or made of others."""
    if name.startswith(("loop", "ram", "zram")):
        return True
    slaves = f"{sys_block}/{name}/slaves"
    return os.path.isdir(slaves) and bool(os.listdir(slaves))


_LOOPS: Final = frozenset(b"7:%d" % number for number in range(256))
"""Loop devices come and go with containers: the first 256, whether they are there or not."""


@functools.cache
def stacked(sys_block: str = "/sys/block") -> frozenset[bytes]:
    """List the numbers of the devices that keep nothing themselves, as they were at the first call."""
    names = os.listdir(sys_block) if os.path.isdir(sys_block) else ()
    found = {
        _read(f"{sys_block}/{name}/dev").encode() for name in names if is_stacked(name, sys_block)
    }
    return _LOOPS | found - {b""}


def scheduler(number: str, sys: str = SYS) -> str | None:
    """Give a disk's I/O scheduler, as ``bfq``; None where that can't be told."""
    found = re.search(r"\[([\w-]+)\]", _read(f"{sys}/{number}/queue/scheduler"))
    return found[1] if found else None


def number_of(device: int) -> str:
    """Write a device number as cgroup files do: ``254:0``."""
    return f"{os.major(device)}:{os.minor(device)}"


def disk_of(number: str, sys: str = SYS) -> str:
    """Give the whole disk that a partition is part of; any other device is itself."""
    path = os.path.realpath(f"{sys}/{number}")
    if os.path.exists(f"{path}/partition"):
        return _read(f"{os.path.dirname(path)}/dev") or number
    return number


def disks_under(number: str, sys: str = SYS, mountinfo: str = MOUNTINFO) -> tuple[str, ...]:
    """List the disks that a device's I/O ends at: through partitions, LVM, md and loop.

    A loop device whose file is on no disk (a tmpfs) is its own end.
    """
    return tuple(dict.fromkeys(_under(number, sys, mountinfo, _DEPTH)))


def _under(number: str, sys: str, mountinfo: str, depth: int) -> Iterable[str]:
    number = disk_of(number, sys)
    path = f"{sys}/{number}"
    slaves = sorted(os.listdir(f"{path}/slaves")) if os.path.isdir(f"{path}/slaves") else []
    below = [dev for slave in slaves if (dev := _read(f"{path}/slaves/{slave}/dev"))]
    file = _read(f"{path}/loop/backing_file").removesuffix(" (deleted)")
    if file and os.path.exists(file):
        below += _on(file, sys, mountinfo, depth - 1)
    if not below or depth == 0:
        return [number]
    return [end for dev in below for end in _under(dev, sys, mountinfo, depth - 1)]


def behind(path: str, sys: str = SYS, mountinfo: str = MOUNTINFO) -> tuple[str, ...]:
    """List the disks that files at a path are on, through overlays; none for one in memory.

    Raises
    ------
    SpecError
        There is no such path.
    HostError
        The filesystem doesn't say which disks it is on: btrfs of several, ZFS, NFS, FUSE.
    """
    if not os.path.exists(path):
        message = f"there is no {path}"
        raise SpecError(message)
    return tuple(dict.fromkeys(_on(path, sys, mountinfo, _DEPTH)))


def _on(path: str, sys: str, mountinfo: str, depth: int) -> list[str]:
    device = os.stat(path).st_dev
    number = number_of(device)
    if os.major(device) or os.path.exists(f"{sys}/{number}"):
        return list(disks_under(number, sys, mountinfo))
    mount = _mount_at(path, mountinfo)
    if mount is None or mount.fstype in ("tmpfs", "ramfs", "devtmpfs", "proc", "sysfs", "cgroup"):
        return []
    if mount.fstype == "overlay" and depth:
        layers = [p for p in _layers(mount.options) if os.path.isdir(p)]
        found = [disk for layer in layers for disk in _on(layer, sys, mountinfo, depth - 1)]
        if found:
            return found
    if mount.source.startswith("/") and os.path.exists(mount.source):  # btrfs of one disk
        facts = os.stat(mount.source)
        if stat.S_ISBLK(facts.st_mode):
            return list(disks_under(number_of(facts.st_rdev), sys, mountinfo))
    message = f"which disk {path} is on can't be told: it is {mount.fstype} ({mount.source})"
    raise HostError(message, hint="name the disk: --device-write-bps /dev/sda:5M")


def _mount_at(path: str, mountinfo: str) -> _Mount | None:
    """Find the mount that a path is in: the last one of those whose target is the longest."""
    path = os.path.realpath(path)
    best: _Mount | None = None
    with open(mountinfo, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            target = _unescape(before.split()[4])
            fstype, source, options = after.rstrip("\n").split(" ", 2)
            inside = path == target or path.startswith(target.rstrip("/") + "/")
            if inside and (best is None or len(target) >= len(best.target)):
                best = _Mount(target, fstype, _unescape(source), options)
    return best


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def _layers(options: str) -> list[str]:
    """List the directories of an overlay, upper first, as its options name them."""
    pairs = [option.partition("=") for option in options.split(",")]  # a comma of a name is \\054
    upper = [_unescape(value) for key, _, value in pairs if key == "upperdir"]
    lowers = [_unescape(value) for key, _, value in pairs if key in ("lowerdir", "lowerdir+")]
    parts = [part for lower in lowers for part in re.split(r"(?<!\\):+", lower)]
    return [re.sub(r"\\([:\\,])", r"\1", part) for part in (*upper, *parts)]


def named(
    path: str, option: str, note: Callable[[str], None], sys: str = SYS, mountinfo: str = MOUNTINFO
) -> tuple[str, ...]:
    """Find what a limit's PATH means: a block device, its disk, or the disks behind a directory.

    Parameters
    ----------
    option
        What asked for it, for the error.
    note
        Called with a line where the disk is another than the device named.

    Raises
    ------
    SpecError
        It isn't there, or has no disk.
    """
    try:
        facts = os.stat(path)
    except OSError as error:
        message = f"{option} {path}: {(error.strerror or '').lower()}"
        raise SpecError(message, hint="lsblk -p lists the disks of this machine") from None
    if stat.S_ISBLK(facts.st_mode):
        number = number_of(facts.st_rdev)
        disk = disk_of(number, sys)
        if disk != number:
            note(f"{option} {path}: a limit is a whole disk's: /dev/{name(disk, sys)}")
        return (disk,)
    found = behind(path, sys, mountinfo) if _is_storage(facts.st_mode) else ()
    if not found:
        message = f"{option} {path} is not a block device, and no disk is behind it"
        raise SpecError(message, hint="lsblk -p lists the disks of this machine")
    note(f"{option} {path}: on {', '.join(f'/dev/{name(disk, sys)}' for disk in found)}")
    return found


def _is_storage(mode: int) -> bool:
    return stat.S_ISDIR(mode) or stat.S_ISREG(mode)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
