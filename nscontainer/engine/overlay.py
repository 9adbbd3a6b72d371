"""Layers united by overlayfs, however many there are (Documentation/filesystems/overlayfs.rst)."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
from collections.abc import Iterator, Sequence
from typing import Final

from nscontainer.errors import HostError
from nscontainer.linux import mount
from nscontainer.linux.procfs import mountinfo
from nscontainer.linux.syscalls import KernelError, kernel_error

_STRING: Final = 255
"""How long a value may be that fsconfig(2) takes (fs/fsopen.c)."""
_PAGE: Final = 4095


def unite(
    lowerdirs: Sequence[str],
    base: str,
    options: dict[str, str | None],
    *,
    attrs: int,
    scratch: str,
) -> int:
    """Unite directories; give a detached mount.

    Parameters
    ----------
    lowerdirs
        Top first; absolute, or relative to ``base``.
    options
        The other mount options; a value of None is a flag.
    attrs
        ``MOUNT_ATTR_*``; of these only RDONLY and NODEV where there are many layers on an old Linux.
    scratch
        A directory of this process's own mount namespace, to mount on for a moment.
    """
    # The same layer twice (two that are empty, say) is ELOOP; the upper one has all of the lower.
    lowerdirs = tuple(dict.fromkeys(lowerdirs))
    whole = ":".join(_escaped(path) for path in lowerdirs)
    with _standing_in(base):
        if len(whole) <= _STRING:
            pairs = [("lowerdir", whole), *options.items()]
        elif _release() >= (6, 7):  # which brought "lowerdir+": one layer each
            pairs = [*(("lowerdir+", path) for path in lowerdirs), *options.items()]
        else:
            return _by_mount(whole, options, attrs, scratch)
        try:
            return mount.new_filesystem("overlay", pairs, attrs=attrs, source="nscontainer")
        except KernelError as error:
            if error.errno == errno.EINVAL and any(map(_is_overlay, lowerdirs)):
                raise _too_deep() from None
            raise


def _is_overlay(path: str) -> bool:
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    return any(m.fstype == "overlay" and m.device == wanted for m in mountinfo())


def _too_deep() -> HostError:
    """Say what Linux only writes to its log (FILESYSTEM_MAX_STACK_DEPTH, include/linux/fs.h)."""
    message = (
        "overlayfs goes two deep and no deeper: this root filesystem is an overlay on an overlay"
    )
    hint = "run a stored image, whose layers lie in NSCONTAINER_STATE_DIR: nscontainer import"
    return HostError(message, hint=hint, row="overlay")


def _by_mount(lowerdir: str, options: dict[str, str | None], attrs: int, scratch: str) -> int:
    """Mount by mount(2), whose options may fill a page: 150 layers, by their short names."""
    words = [f"lowerdir={lowerdir}".replace(",", "\\,")]
    words += [
        key if value is None else f"{key}={_escaped(value)}".replace(",", "\\,")
        for key, value in options.items()
    ]
    data = ",".join(words)
    if len(data) > _PAGE:
        # What the kernel would say of a string that is too long, in words.
        raise kernel_error(errno.E2BIG, "mount", "overlay", "too many layers for this Linux")
    flags = attrs & (mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NODEV)  # MS_* have the same bits
    mount.mount("nscontainer", scratch, "overlay", flags, data)
    try:
        return mount.open_tree(scratch)
    finally:
        mount.umount2(scratch)


@contextlib.contextmanager
def _standing_in(base: str) -> Iterator[None]:
    """Make relative names begin there; overlayfs looks them up from the working directory."""
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(base)
        yield
    finally:
        os.fchdir(before)
        os.close(before)


@functools.cache
def _release() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:")
