"""The programs to compare with: found, or installed from Debian or Ubuntu.

Installing docker.io would start a Docker daemon on this machine, and at every boot. Nobody who runs
a benchmark asked for that, so it is kept from starting; the one that is measured is our own
(:mod:`benchmarks.docker`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGES: Mapping[str, str] = {
    "crun": "crun",
    "runc": "runc",
    "bwrap": "bubblewrap",
    "dockerd": "docker.io",
    "docker": "docker.io",
    "skopeo": "skopeo",
    "umoci": "umoci",
    "docker-registry": "docker-registry",
    "unshare": "util-linux",
    "setpriv": "util-linux",
}
"""Debian's package of each program."""
UNITS = ("docker.socket", "docker.service", "containerd.service")
POLICY = Path("/usr/sbin/policy-rc.d")
PATH = ":".join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


class PeerError(Exception):
    """A peer can't be had or doesn't work; the text says why."""


def find(program: str) -> str | None:
    """Give a peer's path; root's directories are looked through for everybody."""
    # The distribution's own docker beside its dockerd, before a newer client from elsewhere.
    daemon = shutil.which("dockerd", path=PATH) if program == "docker" else None
    if daemon is not None and daemon.startswith("/usr/sbin/"):
        return shutil.which("docker", path="/usr/bin") or shutil.which("docker", path=PATH)
    return shutil.which(program, path=PATH)


def need(program: str) -> str:
    """Give a peer's path, or say why it isn't to be had.

    Raises
    ------
    PeerError
        It isn't installed.
    """
    found = find(program)
    if found is None:
        message = f"{program} is not installed (as root: apt-get install {PACKAGES[program]})"
        raise PeerError(message)
    return found


def install() -> None:
    """Install what is missing; without root or apt-get, do nothing: :func:`need` will say."""
    packages = sorted({package for program, package in PACKAGES.items() if find(program) is None})
    if not packages or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    print(f"installing {' '.join(packages)}", flush=True)
    with _no_service_starts():
        for attempt in range(2):
            done = _apt("install", "--no-install-recommends", *packages)
            if done.returncode == 0:
                break
            if attempt == 0:  # most likely the lists are old, or there are none
                _apt("update")
        else:
            print(done.stdout[-2000:])
    if "docker.io" in packages and Path("/run/systemd/system").is_dir():
        subprocess.run(
            ["systemctl", "--quiet", "disable", *UNITS], check=False, capture_output=True
        )


def _apt(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", "-y", "-qq", "-o", "DPkg::Lock::Timeout=300", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@contextlib.contextmanager
def _no_service_starts() -> Iterator[None]:
    """Refuse service starts while packages are installed (invoke-rc.d(8)); a policy there stands."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def versions() -> dict[str, str]:
    """Say which peers there are."""
    found = {}
    for program in (
        "crun",
        "runc",
        "bwrap",
        "dockerd",
        "skopeo",
        "umoci",
        "docker-registry",
        "unshare",
    ):
        path = find(program)
        if path is None:
            continue
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        found[program] = (done.stdout or done.stderr).strip().partition("\n")[0]
    return found
