"""A read-write layer of a filesystem of its own: a file, a loop device, ext4 (docs/adr/0025).

What a container writes then ends where that file's filesystem ends (``--storage``), and goes through
one block device that is the container's alone. The file is in the container's directory; the device is
taken back by Linux with its last mount, and every mount is a monitor's own, or a reader's, that is
nowhere attached: nothing of it can be left behind.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from nscontainer.errors import HostError, StateError
from nscontainer.image import files
from nscontainer.linux import fallocate, loop, mount, userns
from nscontainer.linux.syscalls import KernelError

FILE: Final = "storage"
"""Its name in a container's directory."""
_BLOCK: Final = 4096
_SPARE_BLOCKS: Final = 16
"""For the directories of the layer, and an indirect block or two of the first large file."""
_RESERVED_SHARE, _RESERVED_MOST = 50, 4096
"""What ext4 keeps back of its blocks for its own trees (fs/ext4/super.c, ext4_calculate_resv_clusters)."""
_FEATURES: Final = (
    "none,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,"
    "dir_nlink,extra_isize,uninit_bg"
)
"""Said in full: /etc/mke2fs.conf differs from host to host. No journal: overlayfs syncs nothing of a
layer that is thrown away, and a kept one is unmounted, so whole, unless the machine itself falls."""
_MKFS_PATH: Final = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"
RESERVE_SHARE: Final = 4
"""A layer is set aside on the disk as a whole where it is no more than this part of what is free."""
FULL_BYTES: Final = 32 << 20
"""A disk with less free is full: it may have had no room for a larger write a moment ago."""
_LARGEST: Final = 8 << 40
_EXT4_IOC_SHUTDOWN: Final = 0x8004587D
_GOING_NOLOGFLUSH: Final = 2  # fs/ext4/ext4.h


@dataclass(frozen=True, slots=True)
class Storage:
    """One container's own filesystem, mounted.

    Attributes
    ----------
    mount_fd
        A detached mount of it; whoever has this attaches and closes it.
    fd
        Its top directory. The device is there as long as this is open, or a mount.
    number
        Of its loop device.
    device
        The same as cgroups name it: ``7:3``.
    size_bytes
        What was asked for; None where nothing was.
    host_free_bytes
        What the disk beneath had free at the beginning.
    reserved
        Whether the disk has set aside all that it can come to.
    direct
        Whether the device goes to its file past the page cache.
    """

    mount_fd: int
    fd: int
    number: int
    device: str
    size_bytes: int | None
    host_free_bytes: int
    reserved: bool
    direct: bool
    _empty: Usage
    _directory: str

    def to_dict(self) -> dict[str, Any]:
        """Return what the state file says of it."""
        names = ("number", "device", "size_bytes", "host_free_bytes", "reserved", "direct")
        return {name: getattr(self, name) for name in names}

    def measured(self) -> dict[str, Any]:
        """Return the same with what is used of it now, and how much could be in all.

        ``used_bytes`` is what the container has written, ``free_bytes`` and ``free_files`` what it still
        can; ``holds_bytes`` is how much can be written from empty to full; ``errors`` how often ext4
        could not write, as when the disk beneath is full.
        """
        now = Usage.of(self.fd)
        used = max(0, now.used_bytes - self._empty.used_bytes)
        holds = used + now.free_bytes - _SPARE_BLOCKS * _BLOCK
        return {
            **self.to_dict(),
            "used_bytes": used,
            "free_bytes": now.free_bytes,
            "free_files": now.free_files,
            "holds_bytes": holds,
            "errors": self._errors(),
        }

    def _errors(self) -> int:
        """Count what ext4 could not write: of its own, errors; of files, warnings (ext4_end_bio).

        It warns of harmless things as well, so warnings count only where the disk beneath is full.
        """
        count = _counted(self.number, "errors_count")
        with contextlib.suppress(OSError):
            if not self.reserved and Usage.of(self._directory).free_bytes < FULL_BYTES:
                count += _counted(self.number, "warning_count")
        return count

    def settle(self) -> None:
        """Write what is to be kept, and give back what the disk had set aside for more."""
        with contextlib.suppress(OSError):
            files.sync_filesystem(f"/proc/self/fd/{self.fd}")
            fallocate.trim(self.fd)

    def drop(self) -> None:
        """Let go of it for good: what is not yet on the disk never gets there.

        An unmount would write it all first, for nobody, and at the pace of a limit on the device.
        """
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.fd, _EXT4_IOC_SHUTDOWN, struct.pack("I", _GOING_NOLOGFLUSH))
        os.close(self.fd)


def _counted(number: int, name: str) -> int:
    try:
        with open(f"/sys/fs/ext4/loop{number}/{name}", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


class Usage(NamedTuple):
    """What statvfs(3) says of a filesystem."""

    used_bytes: int
    free_bytes: int
    free_files: int

    @classmethod
    def of(cls, place: int | str) -> Usage:
        """Ask the filesystem that an open file, or a path, is on."""
        facts = os.statvfs(place)
        size = facts.f_frsize
        return cls((facts.f_blocks - facts.f_bfree) * size, facts.f_bavail * size, facts.f_favail)


def needed(limits: Mapping[str, Any]) -> bool:
    """Tell whether a container with these limits (as plain types) gets a filesystem of its own."""
    return limits["storage_bytes"] is not None


def check(limits: Mapping[str, Any]) -> None:
    """Say whether this host can do it, before anything is made.

    Raises
    ------
    HostError
        No loop device, or no mkfs.ext4.
    """
    if needed(limits):
        check_host()


def check_host() -> None:
    """Say whether this host can do it; HostError as :func:`check`."""
    if (
        not userns.privileged()
    ):  # no user namespace may mount ext4 (FS_USERNS_MOUNT), or make a device
        message = "a bounded read-write layer takes a loop device and ext4, and those take root"
        raise HostError(message, hint="--tmpfs PATH:size=SIZE bounds one directory, in memory")
    loop.check()
    _mkfs()


def _mkfs() -> str:
    found = shutil.which("mkfs.ext4", path=_MKFS_PATH)
    if found is None:
        message = "this host has no mkfs.ext4, which a bounded read-write layer takes"
        raise HostError(message, hint="apt-get install e2fsprogs")
    return found


def make(
    directory: str,
    size_bytes: int | None,
    *,
    cache: str,
    through: Callable[[int], int] | None = None,
) -> Storage:
    """Make a container's filesystem and mount it, nowhere attached.

    Parameters
    ----------
    directory
        The container's; the file comes to be there.
    size_bytes
        How much can be written; None is no less than the disk has free.
    cache
        A directory for an empty filesystem of each size, to be copied.
    through
        Gives another file to have the device read and write, which leads to the one given.

    Raises
    ------
    HostError
        The host can't: no loop device, no mkfs.ext4, no place on the disk.
    """
    facts = os.statvfs(directory)
    host_free = facts.f_bavail * facts.f_frsize
    if size_bytes is None:  # few sizes, so that one template serves
        bound = min(1 << max(30, host_free.bit_length()), _LARGEST)
    template = _template(cache, bound if size_bytes is None else size_bytes)
    path = f"{directory}/{FILE}"
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _copy_sparse(template, file)
        reserved = size_bytes is not None and _reserve(file, host_free)
        device = _attach(file, through)
        try:
            options = {"noinit_itable": None}  # they are zero: the file is sparse
            mount_fd = mount.new_filesystem("ext4", options, source=device.path)
            fd = os.open(f"/proc/self/fd/{mount_fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            return Storage(
                mount_fd, fd, device.number, device.name, size_bytes, host_free, reserved,
                device.direct, Usage.of(fd), directory,
            )  # fmt: skip
        finally:
            os.close(device.fd)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            message = f"no space left on the disk for the container's layer in {directory}"
            raise HostError(message, hint="nscontainer prune frees what is unused") from None
        raise
    finally:
        os.close(file)


def _reserve(file: int, host_free: int) -> bool:
    """Set aside what the file can come to, unless that is much of the disk: others need it as well.

    On a full disk the container's own writes would seem to succeed, and be lost: the page cache takes
    them, and the device fails later.
    """
    size = os.fstat(file).st_size
    if size > host_free // RESERVE_SHARE:
        return False
    try:
        fallocate.fallocate(file, size)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOSPC, errno.ENOSYS):
            return False
        raise
    return True


def _attach(file: int, through: Callable[[int], int] | None) -> loop.Device:
    if through is None:
        return loop.attach(file)
    other = through(file)
    try:
        return loop.attach(other, stands_for=file)
    finally:
        os.close(other)


def _template(cache: str, size_bytes: int) -> str:
    """Give the file of an empty filesystem in which so much can be written; made at the first call."""
    path = f"{cache}/ext4-{size_bytes}"
    if os.path.exists(path):
        return path
    os.makedirs(cache, mode=0o700, exist_ok=True)
    new = f"{cache}/.new-{os.urandom(8).hex()}"
    try:
        _make_filesystem(new, -(-size_bytes // _BLOCK) + _SPARE_BLOCKS)
        os.rename(new, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
    return path


def _make_filesystem(path: str, wanted: int) -> None:
    """Make a filesystem with so many blocks to write: what it needs itself is found by trying."""
    total = wanted + wanted // 12
    for _ in range(6):
        free = _free_blocks(path, total)
        left = free - min(total // _RESERVED_SHARE, _RESERVED_MOST) - wanted
        if 0 <= left <= wanted // 500:
            return
        total += -left + (0 if left > 0 else wanted // 1000)
    if left < 0:
        message = f"mkfs.ext4 makes no filesystem with {wanted * _BLOCK} bytes to write"
        raise HostError(message, hint="ask for another --storage")


def _free_blocks(path: str, total: int) -> int:
    import subprocess

    words = [
        _mkfs(), "-q", "-F", "-b", str(_BLOCK), "-I", "256", "-i", str(_BLOCK), "-m", "0",
        "-O", _FEATURES, "-E", "nodiscard,lazy_itable_init=1,packed_meta_blocks=1",
    ]  # fmt: skip
    with open(path, "wb") as file:
        file.truncate(total * _BLOCK)
    environment = {"PATH": _MKFS_PATH, "MKE2FS_CONFIG": "/dev/null", "LC_ALL": "C"}
    done = subprocess.run(
        [*words, path], env=environment, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        said = done.stderr.strip().splitlines()
        message = f"mkfs.ext4 failed: {said[-1] if said else done.returncode}"
        raise HostError(message)
    with open(path, "rb") as file:
        file.seek(1024)
        superblock = file.read(1024)
    low, high = superblock[0x0C:0x10], superblock[0x158:0x15C]  # s_free_blocks_count
    return int.from_bytes(low, "little") | int.from_bytes(high, "little") << 32


def _copy_sparse(source: str, target: int) -> None:
    """Copy the parts of a file that are there; what is a hole stays one."""
    with open(source, "rb") as file:
        fd = file.fileno()
        size = os.fstat(fd).st_size
        os.ftruncate(target, size)
        at = 0
        while at < size:
            try:
                begin = os.lseek(fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # the rest is a hole
                    return
                raise
            end = os.lseek(fd, begin, os.SEEK_HOLE)
            _copy(fd, target, begin, end)
            at = end


def _copy(source: int, target: int, begin: int, end: int) -> None:
    while begin < end:
        data = os.pread(source, min(end - begin, 1 << 20), begin)
        if not data:
            return
        begin += os.pwrite(target, data, begin)


# --- what others see of it --------------------------------------------------------------------------


@contextlib.contextmanager
def opened(directory: str) -> Iterator[str]:
    """Give the directory that has a container's read-write layer, one ``upper`` a view.

    Its own, or that of its filesystem: mounted for this block alone, read-only and nowhere attached,
    whether the container runs or has ended.

    Raises
    ------
    StateError
        The container was removed meanwhile, or its filesystem can't be read.
    """
    try:
        file = os.open(f"{directory}/{FILE}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield directory
        return
    try:
        fd = _mounted(file, directory)
    finally:
        os.close(file)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _mounted(file: int, directory: str) -> int:
    """Mount the filesystem of a file: by the device that it has, or one for us."""
    # Two devices of one file would be two filesystems. The lock is another opening's: the device keeps
    # the one that it is made of, and would keep its lock.
    lock = os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _mounted_alone(file, directory)
    finally:
        os.close(lock)


def _mounted_alone(file: int, directory: str) -> int:
    device = loop.find(file) or loop.attach(file, read_only=True)
    try:
        attrs = mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOSUID
        options: list[Mapping[str, str | None]] = [{}, {"ro": None}]
        for number, how in enumerate(options):
            try:
                return mount.new_filesystem("ext4", how, attrs=attrs, source=device.path)
            except KernelError as error:
                # EBUSY: it is mounted read-only already; EACCES, EROFS: the device is.
                if number or error.errno not in (errno.EBUSY, errno.EACCES, errno.EROFS):
                    message = f"the read-write layer in {directory} can't be mounted: {error}"
                    raise StateError(message) from None
        raise AssertionError
    finally:
        os.close(device.fd)


def disk_bytes(directory: str) -> int:
    """Give what a container's own filesystem takes of the disk; 0 where it has none."""
    try:
        return os.stat(f"{directory}/{FILE}").st_blocks * 512
    except FileNotFoundError:
        return 0
