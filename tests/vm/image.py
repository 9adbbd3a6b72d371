"""Build, keep and find the test VM's disk image: Debian 12 with the project's Python dependencies.

One image is a directory of the cache, named by a hash of all that goes into it and holding ``disk.img``
(a sparse, bare ext4 file system), ``vmlinuz`` and ``initrd.img``. Nothing is mounted on the host: mmdebstrap and
the chroots run in a mount and PID namespace of their own, and mke2fs fills the image from a directory.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.vm import guest, host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent.parent
CONSTRAINTS: Final = ROOT / "constraints.txt"
DEFAULT_CACHE: Final = Path("/var/tmp/nscontainer-vm")

# With the dependencies, all that an image is made from.
PARTS: Final = ("image.py", "host.py", "guest.py", "packages.txt")

SUITE: Final = "bookworm"
SOURCES: Final = (
    f"deb http://deb.debian.org/debian {SUITE} main",
    f"deb http://deb.debian.org/debian {SUITE}-updates main",
    f"deb http://deb.debian.org/debian-security {SUITE}-security main",
)
PYTHON_VERSION: Final = "3.11"
GLIBC_MINOR: Final = 36
DISK_SIZE: Final = "6G"
KEPT_IMAGES: Final = 2

# The extras of pyproject.toml that the tests need.
EXTRAS: Final = ("test", "parquet")

UNIT: Final = """\
[Unit]
Description=Run one command for the host
Wants=systemd-logind.service
After=dbus.service systemd-logind.service systemd-user-sessions.service

[Service]
Type=exec
ExecStart=/usr/bin/python3 /opt/nscontainer-vm/guest.py
StandardOutput=journal+console
# systemd stops a service of whose processes the kernel kills one for memory, which is what some tests are about.
OOMPolicy=continue

[Install]
WantedBy=multi-user.target
"""

# MODULES=list and these few make an initrd that an emulated processor unpacks in a blink.
INITRD_CONF: Final = "MODULES=list\nCOMPRESS=gzip\n"
INITRD_MODULES: Final = "virtio_pci\nvirtio_blk\nvirtio_console\n"

# What would use the (emulated) processor behind the tests' back, or wait for a console nobody sits at.
MASKED_UNITS: Final = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "systemd-tmpfiles-clean.timer",
)


@dataclass(frozen=True)
class Image:
    """A built image, kept from removal while it is held."""

    directory: Path

    @property
    def disk(self) -> Path:
        """The root file system, to be opened read-only."""
        return self.directory / "disk.img"

    @property
    def kernel(self) -> Path:
        """The Linux kernel that fits the root file system."""
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """Its initial RAM disk."""
        return self.directory / "initrd.img"


def requirements() -> list[str]:
    """Return the project's dependencies and its tests', as pyproject.toml has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return sorted({*project["dependencies"], *(item for name in EXTRAS for item in extras[name])})


def fingerprint() -> str:
    """Return the hash of all that an image is made from."""
    digest = hashlib.sha256("\n".join(requirements()).encode())
    for path in *(HERE / name for name in PARTS), CONSTRAINTS:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def cache_directory() -> Path:
    """Return the cache's directory, made if need be; never one that somebody else could have laid there."""
    given = os.environ.get("NSCONTAINER_VM_CACHE")
    path = Path(given).absolute() if given else DEFAULT_CACHE
    path.mkdir(mode=0o755, parents=True, exist_ok=True)
    if path.is_symlink() or path.stat().st_uid not in {0, os.geteuid()}:
        raise host.VmError(f"{path} belongs to another user; set NSCONTAINER_VM_CACHE")
    return path


def lock(path: Path, operation: int, *, create: bool = False) -> int:
    """Return a descriptor of `path` that holds a flock on it until it is closed."""
    flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(descriptor, operation)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def hold() -> Iterator[Image]:
    """Find this checkout's image, building it if there is none, and keep it from removal."""
    cache = cache_directory()
    image = Image(cache / fingerprint())
    while True:
        if not image.directory.exists():
            build_once(cache, image)
        try:
            held = lock(image.directory, fcntl.LOCK_SH)
        except FileNotFoundError:  # removed by another run just now
            continue
        try:
            if image.disk.exists():
                if os.access(image.directory, os.W_OK):
                    os.utime(image.directory)
                yield image
                return
        finally:
            os.close(held)


def build_once(cache: Path, image: Image) -> None:
    """Build `image` unless another run is doing so, in which case wait for it; then remove old ones."""
    if os.geteuid() != 0:
        raise host.VmError(
            f"no image in {cache} for this checkout, and only root can build one; as root: tests/vm/run --build"
        )
    try:
        held = lock(cache / "lock", fcntl.LOCK_EX | fcntl.LOCK_NB, create=True)
    except BlockingIOError:
        host.say("waiting for another run to build the VM's image")
        held = lock(cache / "lock", fcntl.LOCK_EX, create=True)
    try:
        if not image.directory.exists():
            build_now(cache, image)
            remove_old(cache, image)
    finally:
        os.close(held)


def build_now(cache: Path, image: Image) -> None:
    """Build `image`; a build that fails or is stopped leaves nothing behind."""
    for leftover in cache.glob("building-*"):  # of a build that was killed
        remove(leftover)
    host.install(host.BUILD_TOOLS)
    host.say(
        f"building the VM's image in {cache} (once for each set of dependencies; some minutes)"
    )
    start = time.monotonic()
    work = Path(tempfile.mkdtemp(prefix="building-", dir=cache))
    try:
        work.chmod(0o755)
        build(work)
        (work / "image").rename(image.directory)
    finally:
        remove(work)
    host.say(f"built in {time.monotonic() - start:.0f} s")


def remove(work: Path) -> None:
    """Remove a build directory in which killed processes may still be making files for a moment."""
    for _ in range(50):
        try:
            shutil.rmtree(work)
        except OSError:
            time.sleep(0.1)
        else:
            return
    shutil.rmtree(work)


def build(work: Path) -> None:
    """Build an image in the empty directory `work`, as its subdirectory ``image``."""
    tree, image = work / "tree", Image(work / "image")
    image.directory.mkdir()
    steps: list[tuple[str, Callable[[], None]]] = [
        ("Debian", lambda: bootstrap(tree)),
        ("Python packages", lambda: add_python_packages(work, tree)),
        ("configuration", lambda: configure(tree)),
        ("disk", lambda: make_disk(tree, image)),
    ]
    for name, step in steps:
        start = time.monotonic()
        step()
        host.say(f"  {name}: {time.monotonic() - start:.0f} s")


def bootstrap(tree: Path) -> None:
    """Unpack Debian into `tree`, from the signed archive."""
    lines = (HERE / "packages.txt").read_text(encoding="utf-8").splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    conf = tree.parent / "initrd"
    for name, text in (
        ("conf.d/nscontainer", INITRD_CONF),
        ("modules.d/nscontainer", INITRD_MODULES),
    ):
        path = conf / name
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    # The kernel's own installation makes the initrd, so its settings must be there before.
    quoted = shlex.quote(str(conf))
    copies = [
        'mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"',
        f'cp {quoted}/conf.d/nscontainer "$1/etc/initramfs-tools/conf.d/"',
        f'cp {quoted}/modules.d/nscontainer "$1/usr/share/initramfs-tools/modules.d/"',
    ]
    host.call_apart(
        [
            "mmdebstrap",
            "--mode=root",
            "--variant=minbase",
            "--architectures=amd64",
            f"--include={','.join(packages)}",
            "--dpkgopt=force-unsafe-io",
            *(
                f"--dpkgopt=path-exclude=/usr/share/{name}/*"
                for name in ("doc", "info", "locale", "man")
            ),
            *(f"--aptopt={line}" for line in apt_settings()),
            '--aptopt=APT::Sandbox::User "root"',
            f"--essential-hook={' && '.join(copies)}",
            SUITE,
            str(tree),
            *SOURCES,
        ],
        "mmdebstrap",
        {"TMPDIR": str(tree.parent)},
    )


def apt_settings() -> list[str]:
    """Return those settings of the host's apt without which its mirror or proxy may not be usable."""
    if not host.have("apt-config"):
        return []
    dump = subprocess.run(
        ["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True
    ).stdout
    wanted = ("Acquire::Check-", "Acquire::http::", "Acquire::https::", "Acquire::Retries")
    return [line for line in dump.splitlines() if line.startswith(wanted)]


def add_python_packages(work: Path, tree: Path) -> None:
    """Make the virtual environment /opt/venv in `tree`, which has no network, from wheels fetched here."""
    wheels = work / "wheels"
    wheels.mkdir()
    (wheels / "requirements.txt").write_text("\n".join(requirements()) + "\n", encoding="utf-8")
    platforms = [
        "manylinux2014_x86_64",
        *(f"manylinux_2_{minor}_x86_64" for minor in range(17, GLIBC_MINOR + 1)),
    ]
    host.call(
        [
            *pip(),
            "download",
            "--quiet",
            "--only-binary=:all:",
            "--implementation=cp",
            "--abi=cp" + PYTHON_VERSION.replace(".", ""),
            f"--python-version={PYTHON_VERSION}",
            *(f"--platform={platform}" for platform in platforms),
            f"--dest={wheels}",
            f"--requirement={wheels}/requirements.txt",
            f"--constraint={CONSTRAINTS}",
        ],
        "pip download",
    )
    host.call_in(tree, ["python3", "-m", "venv", "/opt/venv"], "python3 -m venv")
    offline = [
        "--no-index",
        "--find-links=/mnt",
        "--no-cache-dir",
        "--requirement=/mnt/requirements.txt",
    ]
    host.call_in(
        tree,
        ["/opt/venv/bin/pip", "install", "--quiet", *offline],
        "pip install in the image",
        at_mnt=wheels,
    )


def pip() -> list[str]:
    """Return how to run a pip: this interpreter's, else Debian's."""
    for python in sys.executable, "/usr/bin/python3":
        if (
            subprocess.run(
                [python, "-m", "pip", "--version"], capture_output=True, check=False
            ).returncode
            == 0
        ):
            return [python, "-m", "pip"]
    host.apt_install(["python3-pip"])
    return ["/usr/bin/python3", "-m", "pip"]


def configure(tree: Path) -> None:
    """Add the user, the unit that runs the command, and what makes the machine quiet and quick to boot."""
    user = guest.USER
    host.call_in(
        tree,
        ["useradd", "--create-home", f"--uid={guest.UID}", "--shell=/bin/bash", user],
        "useradd",
    )
    for name in "subuid", "subgid":
        (tree / "etc" / name).write_text(f"{user}:100000:65536\n", encoding="utf-8")
    (tree / "etc/hostname").write_text("nscontainer-vm\n", encoding="utf-8")
    (tree / "etc/hosts").write_text(
        "127.0.0.1 localhost\n127.0.1.1 nscontainer-vm\n", encoding="utf-8"
    )
    # A machine without an id takes each boot for its first and applies all presets.
    (tree / "etc/machine-id").write_text(
        hashlib.sha256(b"nscontainer-vm").hexdigest()[:32] + "\n", encoding="utf-8"
    )
    program = tree / "opt/nscontainer-vm/guest.py"
    program.parent.mkdir()
    shutil.copy(HERE / "guest.py", program)
    (tree / "etc/systemd/system/nscontainer-vm.service").write_text(UNIT, encoding="utf-8")
    host.call_in(
        tree, ["systemctl", "--quiet", "enable", "nscontainer-vm.service"], "systemctl enable"
    )
    host.call_in(tree, ["systemctl", "--quiet", "mask", *MASKED_UNITS], "systemctl mask")
    if list((tree / "opt/venv").glob("lib/*/site-packages/matplotlib")):
        # Its first import looks at each font, which takes an emulated processor most of a minute.
        home = f"/home/{user}/.cache"
        script = (
            f"/opt/venv/bin/python -c 'import matplotlib.font_manager' && mkdir -p {home} && "
            f"cp -r /root/.cache/matplotlib {home} && chown -R {user}: {home}"
        )
        host.call_in(
            tree, ["env", "HOME=/root", "sh", "-c", script], "making matplotlib's font cache"
        )


def make_disk(tree: Path, image: Image) -> None:
    """Turn `tree` into a disk image with its kernel and initrd beside it."""
    for name, target in ("vmlinuz", image.kernel), ("initrd.img", image.initrd):
        (found,) = (tree / "boot").glob(f"{name}-*")
        shutil.move(found, target)
    quick = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
    host.call(
        [
            "mke2fs",
            "-q",
            "-t",
            "ext4",
            "-m",
            "0",
            "-E",
            quick,
            "-d",
            str(tree),
            str(image.disk),
            DISK_SIZE,
        ],
        "mke2fs",
    )
    # Anybody may boot it.
    for path in image.disk, image.kernel, image.initrd:
        path.chmod(0o644)


def remove_old(cache: Path, current: Image) -> None:
    """Remove all but the last used images, and none that a run holds."""
    others = [
        path
        for path in cache.iterdir()
        if (path / "disk.img").exists() and path != current.directory
    ]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[KEPT_IMAGES - 1 :]:
        try:
            held = lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        try:
            shutil.rmtree(path)
        finally:
            os.close(held)
