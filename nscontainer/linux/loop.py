"""Loop devices: a file as a block device (loop(4), drivers/block/loop.c).

Every one is made with autoclear: Linux takes it back when the last that has it open, or mounted, lets
go, however that ends. Nothing here is ever left to be removed by somebody.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from nscontainer.errors import HostError
from nscontainer.linux.syscalls import kernel_error

CONTROL: Final = "/dev/loop-control"
MAJOR: Final = 7

LOOP_CTL_GET_FREE: Final = 0x4C82
LOOP_CONFIGURE: Final = 0x4C0A  # Linux 5.8: device, file and flags at one stroke
LOOP_GET_STATUS64: Final = 0x4C05
LO_FLAGS_READ_ONLY: Final = 1
LO_FLAGS_AUTOCLEAR: Final = 4
LO_FLAGS_DIRECT_IO: Final = 16

_CONFIG: Final = struct.Struct("=II 5Q 4I 64s 64s 32s 2Q 8Q")
"""struct loop_config: fd, block size, struct loop_info64, reserved (linux/loop.h)."""
_STATUS: Final = struct.Struct("=5Q 4I 64s 64s 32s 2Q")
BLOCK_BYTES: Final = 4096
"""The device's block: no direct I/O to its file is smaller, so none is unaligned there."""
_TRIES: Final = 64


class Device(NamedTuple):
    """An attached loop device, held by an open descriptor of it."""

    number: int
    fd: int

    @property
    def path(self) -> str:
        """Its node."""
        return f"/dev/loop{self.number}"

    @property
    def name(self) -> str:
        """As cgroups and /sys/dev/block name it: ``7:3``."""
        facts = os.fstat(self.fd)
        return f"{os.major(facts.st_rdev)}:{os.minor(facts.st_rdev)}"

    @property
    def direct(self) -> bool:
        """Whether it goes to its file without the page cache."""
        flags: int = _status(self.fd)[8]
        return bool(flags & LO_FLAGS_DIRECT_IO)


def check() -> None:
    """Say whether there can be loop devices here.

    Raises
    ------
    HostError
        There are none, or they are not for this user.
    """
    os.close(_control())


def _control() -> int:
    try:
        return os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        message = f"this host has no loop devices for us: {CONTROL}: {error.strerror}"
        if error.errno in (errno.EACCES, errno.EPERM):
            hint = "they take root, and in a container --device /dev/loop-control"
        else:
            hint = "modprobe loop"
        raise HostError(message, hint=hint) from None


def attach(file: int, *, read_only: bool = False, stands_for: int | None = None) -> Device:
    """Make a free loop device of an open file, with direct I/O where the file allows it.

    It is gone when the descriptor is closed and nothing has it mounted.

    Parameters
    ----------
    stands_for
        The file whose bytes they are, where ``file`` only leads to it (:mod:`.fusefile`): by that it
        can be found.

    Raises
    ------
    HostError
        There is none, or none free.
    KernelError
        The file can't be one.
    """
    control = _control()
    try:
        for _ in range(_TRIES):
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
            fd = _open(number, os.O_RDONLY if read_only else os.O_RDWR)
            try:
                name = _name(file if stands_for is None else stands_for)
                _configure(fd, file, name, read_only=read_only)
            except OSError as error:
                os.close(fd)
                if error.errno == errno.EBUSY:  # somebody else was given the same one
                    continue
                raise kernel_error(
                    error.errno or 0, "ioctl LOOP_CONFIGURE", f"/dev/loop{number}"
                ) from None
            return Device(number, fd)
    except OSError as error:
        if isinstance(error, HostError) or error.errno != errno.ENOSPC:
            raise
    finally:
        os.close(control)
    message = "no loop device is free"
    raise HostError(message, hint="losetup -a lists who has them")


def _open(number: int, flags: int) -> int:
    try:
        return os.open(f"/dev/loop{number}", flags | os.O_CLOEXEC)
    except FileNotFoundError:
        message = f"there is no /dev/loop{number}, though Linux has made the device"
        hint = f"mknod /dev/loop{number} b {MAJOR} {number}: /dev here is no devtmpfs"
        raise HostError(message, hint=hint) from None


def _name(file: int) -> bytes:
    """Give what a device keeps of its file's path: the end."""
    return os.readlink(f"/proc/self/fd/{file}").encode()[-63:]


def _configure(fd: int, file: int, name: bytes, *, read_only: bool) -> None:
    flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO | (LO_FLAGS_READ_ONLY if read_only else 0)
    numbers = (0, 0, 0, 0, 0, 0, 0, 0, flags)
    config = _CONFIG.pack(file, BLOCK_BYTES, *numbers, name, b"", b"", 0, 0, *(0,) * 8)
    fcntl.ioctl(fd, LOOP_CONFIGURE, config)


def _status(fd: int) -> tuple[Any, ...]:
    return _STATUS.unpack(fcntl.ioctl(fd, LOOP_GET_STATUS64, bytes(_STATUS.size)))


def find(file: int) -> Device | None:
    """Find the device that an open file is attached as, and hold it; None where it is none."""
    wanted = os.fstat(file)
    for number in _attached():
        with contextlib.suppress(OSError, HostError):
            fd = _open(number, os.O_RDONLY)
            try:
                # As long as our descriptor is open it stays what it is now.
                status = _status(fd)
            except OSError:
                os.close(fd)  # taken back meanwhile
                continue
            device, inode, name = status[0], status[1], status[9].rstrip(b"\0")
            same = _kernels(wanted.st_dev) == device or name == _name(file)
            if inode == wanted.st_ino and same:
                return Device(number, fd)
            os.close(fd)
    return None


def _kernels(device: int) -> int:
    """Write a device's number as loop tells it: huge_encode_dev, as stat(2) does on 64 bits."""
    return os.minor(device) & 0xFF | os.major(device) << 8 | (os.minor(device) & ~0xFF) << 12


def _attached() -> Iterator[int]:
    for name in os.listdir("/sys/block"):
        if name.startswith("loop") and os.path.exists(f"/sys/block/{name}/loop"):
            yield int(name[4:])
