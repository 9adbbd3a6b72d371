"""In a real Docker container: the most that it allows, and an exact word on the rest."""

from __future__ import annotations

import glob
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import roots
from nscontainer import doctor
from nscontainer.doctor import Finding
from tests.host import ROOT
from tests.integration import peers_images as peers
from tests.integration.peers_images import Daemon

pytestmark = [pytest.mark.root, pytest.mark.images, pytest.mark.once]

PROGRAMS = ["/usr/bin/dash", "/usr/bin/true", "/usr/bin/id"]
OPEN = [
    "--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined",
    "--security-opt", "apparmor=unconfined",
]  # fmt: skip
# Not --privileged: this machine's own root lacks capabilities that it asks for, and runc gives up.
CAPABLE = [
    *OPEN, *(word for name in ("SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE") for word in ("--cap-add", name)),
    "--cgroupns", "host", "-v", "/sys/fs/cgroup:/sys/fs/cgroup",
]  # fmt: skip


class Inside:
    """Commands of ours in containers of Docker's."""

    def __init__(self, daemon: Daemon) -> None:
        self._docker = daemon._docker

    def __call__(self, allowed: list[str], *words: str) -> subprocess.CompletedProcess[str]:
        """Run nscontainer in a container with such options of ``docker run``."""
        command = [
            *self._docker.client, "run", "--rm", "--network", "none", "-v", "/var/lib/nscontainer",
            "-e", f"PYTHONPATH={ROOT}", "-w", "/", *allowed, "nsc/python", roots.python_program(),
            "-m", "nscontainer", *words,
        ]  # fmt: skip
        return subprocess.run(
            command, env=self._docker.environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=False, timeout=120,
        )  # fmt: skip

    def doctor(self, allowed: list[str]) -> tuple[int, dict[str, Any], str]:
        """Give doctor's exit code, its rows by key, and its verdict."""
        done = self(allowed, "doctor", "--json")
        found = json.loads(done.stdout)
        assert not [row for row in found if "the trial itself failed" in row["detail"]]
        plain = [Finding(**{key: row[key] for key in row if key != "key"}) for row in found]
        return done.returncode, {row["key"]: row for row in found}, doctor.verdict(plain)


@pytest.fixture(scope="module")
def inside() -> Iterator[Inside]:
    """A daemon of the tests' own, with an image of this Python and of nscontainer."""
    top = Path(tempfile.mkdtemp(prefix="nsc-docker-", dir="/var/tmp"))
    files = [file for file in roots.python_files() if not file.endswith(".a")]
    files += [*PROGRAMS, *roots.libraries(*PROGRAMS), *glob.glob("/usr/lib/*/libseccomp.so.2")]
    files += [str(path) for path in (ROOT / "nscontainer").rglob("*.py")]
    try:
        with peers.docker_daemon(top / "docker") as daemon:
            daemon("import", "-", "nsc/python", data=roots.tar(files, {"/bin/sh": "/usr/bin/dash"}))
            yield Inside(daemon)
    finally:
        shutil.rmtree(top)


def test_as_docker_is(inside: Inside) -> None:
    """Its filter forbids namespaces: doctor names the options; a run is refused, or unconfined."""
    code, found, verdict = inside.doctor([])
    assert (code, verdict) == (
        1, "no container can run here: clone3 and pidfd missing; only --unconfined works",
    )  # fmt: skip
    assert "seccomp=unconfined" in found["clone3-and-pidfd"]["mend"]
    refused = inside([], "run", "--rm", "id")
    assert (refused.returncode, refused.stdout) == (125, "")
    assert refused.stderr.count("\n") == 1
    assert "--security-opt systempaths=unconfined" in refused.stderr
    assert inside([], "run", "--unconfined", "id").stdout.startswith("uid=0")


def test_as_doctor_says(inside: Inside) -> None:
    """With the options that it named there are containers, by a user namespace, without limits."""
    code, found, verdict = inside.doctor(OPEN)
    assert (code, found["cgroup"]["status"]) == (0, "missing")
    assert verdict.startswith("containers run here, without limits: no cgroup: ")
    assert "--privileged" in found["cgroup"]["mend"]
    assert inside(OPEN, "run", "--rm", "id").stdout.startswith("uid=0")
    limited = inside(OPEN, "run", "--rm", "--memory", "64M", "id")
    assert (limited.returncode, limited.stdout) == (125, "")
    assert "memory 67108864 can't be set" in limited.stderr


def test_as_good_as_privileged(inside: Inside) -> None:
    """With its capabilities and the host's cgroups there are limits too."""
    code, found, verdict = inside.doctor(CAPABLE)
    assert (code, found["a-limited-container"]["status"]) == (0, "works"), verdict
    assert verdict.startswith("containers run here, with limits")
    limits = ("--cpu", "20%", "--memory", "64M")
    assert inside(CAPABLE, "run", "--rm", *limits, "id").stdout.startswith("uid=0")
