"""A container of nscontainer in a container of nscontainer, and one in that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.host import ROOT

pytestmark = [pytest.mark.root, pytest.mark.userns, pytest.mark.once]

PLAIN = [
    *(sys.executable, "-m", "nscontainer", "run", "--rm", "-q", "-w", str(ROOT)),
    *("-v", f"{ROOT}:{ROOT}:ro", "-e", f"PYTHONPATH={ROOT}", "-e", "PYTHONDONTWRITEBYTECODE=1"),
]
OPEN = [
    *PLAIN, "--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined",
    "--tmpfs", "/state:mode=700", "-e", "NSCONTAINER_STATE_DIR=/state",
]  # fmt: skip


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command line."""
    return subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=100
    )


def test_in_a_container_as_it_is(own_engine: Path) -> None:
    """Its filter forbids another: one line, with what the outer one must be given."""
    done = run(*PLAIN, *PLAIN, "id")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1), done.stderr
    assert "--security-opt systempaths=unconfined" in done.stderr


def test_two_deep(own_engine: Path) -> None:
    """With what that error says there is a container in a container, with a pid namespace of its own."""
    done = run(*OPEN, *PLAIN, "sh", "-c", "echo $$ $(id -u); cat /proc/1/comm")
    assert (done.returncode, done.stdout) == (0, "1 0\nsh\n"), done.stderr


def test_three_deep(own_engine: Path) -> None:
    """overlayfs goes two deep: the image host doesn't run, in words; doctor says so as well."""
    done = run(*OPEN, *OPEN, *PLAIN, "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert "overlayfs goes two deep and no deeper" in done.stderr, done.stderr
    assert "nscontainer import" in done.stderr
