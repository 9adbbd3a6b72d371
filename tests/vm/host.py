"""What the test VM needs of the host: Debian packages, and programs run so that nothing of them stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

# The Debian package of each program that a build needs; a run from the cache needs only the first.
QEMU: Final = ("qemu-system-x86_64", "qemu-system-x86")
BUILD_TOOLS: Final = (QEMU, ("mmdebstrap", "mmdebstrap"), ("mke2fs", "e2fsprogs"))
KEYRING: Final = (Path("/usr/share/keyrings/debian-archive-keyring.gpg"), "debian-archive-keyring")


class VmError(Exception):
    """The VM can't be built or run: a line for a person to read."""


def say(text: str) -> None:
    """Tell the person at the terminal what is going on."""
    sys.stderr.write(f"tests/vm/run: {text}\n")
    sys.stderr.flush()


def call(
    argv: Sequence[str], what: str, env: dict[str, str] | None = None, *, to_its_end: bool = False
) -> None:
    """Run a program quietly, in a session of its own; the end of its output is the error when it fails.

    It is started so that a Ctrl-C reaches us alone, and can't outlive us; with `to_its_end` it is let
    finish when we are stopped.
    """
    environ = {**os.environ, "PATH": program_path(), "LC_ALL": "C.UTF-8"}
    environ.pop("PYTHONPATH", None)  # ours, set by `run`
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            [*([] if to_its_end else ["setpriv", "--pdeathsig", "KILL", "--"]), *argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**environ, **(env or {})},
            start_new_session=True,
        ) as process,
    ):
        try:
            code = process.wait()
        except BaseException:
            if not to_its_end:
                process.kill()
            raise
        if code != 0:
            log.seek(0)
            lines = log.read().decode(errors="replace").splitlines()[-20:]
            raise VmError(
                "\n  ".join([f"{what} failed with exit code {code}; its last lines:", *lines])
            )


def call_apart(argv: Sequence[str], what: str, env: dict[str, str] | None = None) -> None:
    """Run a program in a mount and PID namespace of its own, which go away with all in them when it ends."""
    call(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--", *argv],
        what,
        env,
    )


def call_in(tree: Path, argv: Sequence[str], what: str, at_mnt: Path | None = None) -> None:
    """Run a program in the directory `tree` as its root, with /proc, /dev and, if asked, a directory at /mnt."""
    script = (
        'mount --bind /dev "$1/dev" && mount -t proc proc "$1/proc" && '
        '{ [ -z "$2" ] || mount --bind "$2" "$1/mnt"; } && tree=$1 && shift 2 && exec chroot "$tree" "$@"'
    )
    call_apart(["sh", "-c", script, "sh", str(tree), str(at_mnt or ""), *argv], what)


def program_path() -> str:
    """Return a PATH on which the administrator's programs are, too."""
    return f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"


def have(program: str) -> bool:
    """Whether `program` can be run."""
    return shutil.which(program, path=program_path()) is not None


def install(tools: Sequence[tuple[str, str]]) -> None:
    """Install the Debian packages of the `tools` (program, package) that aren't here."""
    packages = [package for program, package in tools if not have(program)]
    if tools is BUILD_TOOLS and not KEYRING[0].exists():
        packages.append(KEYRING[1])
    if packages:
        apt_install(packages)


def apt_install(packages: Sequence[str]) -> None:
    """Install Debian packages on the host."""
    names = " ".join(packages)
    if os.geteuid() != 0 or not have("apt-get"):
        raise VmError(f"missing Debian packages: {names}; as root: apt-get install {names}")
    say(f"installing {names}")
    options = ["-q", "-y", "-o", "DPkg::Lock::Timeout=300", "--no-install-recommends"]
    try:
        apt_get("install", *options, *packages)
    except VmError:  # on a fresh machine there are no package lists yet, or old ones
        apt_get("update")
        apt_get("install", *options, *packages)


def apt_get(*argv: str) -> None:
    """Run apt-get, never stopped half-way: dpkg would have to be mended by hand."""
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    call(["apt-get", *argv], f"apt-get {argv[0]}", env, to_its_end=True)
