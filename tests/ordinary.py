"""Run a program as an ordinary user who leaves nothing on the machine.

``python -m tests.ordinary [--single] [--] COMMAND…`` (as root) forks a child that takes a mount
namespace of its own, where /etc/passwd, group, subuid and subgid have that user, and where the directories
on the way to this Python may be searched by all; then it becomes the user and executes the command.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NAME = "nsctester"
FIRST_UID = 20_000
SUBIDS = 700_000_000
"""Where the first user's subordinate ids begin; each has 65536 (none of the machine's are there)."""
_numbers = itertools.count()


@dataclass(frozen=True)
class Person:
    """An ordinary user with a home of their own."""

    uid: int
    home: Path
    single: bool
    """Without subordinate ids."""
    etc: Path
    """What the user sees as /etc."""

    @property
    def name(self) -> str:
        """Its login name."""
        return f"{NAME}{self.uid}"

    @property
    def subids(self) -> int:
        """The first of its subordinate ids."""
        return SUBIDS + (self.uid - FIRST_UID) * 65536

    @property
    def state_dir(self) -> Path:
        """Where the engine keeps its containers."""
        return self.home / ".local/share/nscontainer"

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 120,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as this user, and give what it said."""
        return subprocess.run(
            self.command(command, env), text=True, capture_output=True, check=False,
            stdin=subprocess.DEVNULL, timeout=timeout_s, cwd=ROOT, **options,
        )  # fmt: skip

    def start(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a command as this user; its process is the command's own."""
        return subprocess.Popen(self.command(command, env), text=True, cwd=ROOT, **options)

    def python(
        self, code: str, *, arguments: Sequence[str] = (), **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run Python code as this user, with nscontainer to import."""
        return self.run([sys.executable, "-c", code, *arguments], **options)

    def nscontainer(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the command line as this user."""
        return self.run([*self.module("nscontainer"), *words], **options)

    def module(self, name: str) -> list[str]:
        """Give the beginning of a command that runs a module."""
        return [sys.executable, "-m", name]

    def command(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> list[str]:
        """Give what root is to execute, so that it becomes this user and then the command."""
        facts = {
            "uid": self.uid, "name": self.name, "home": str(self.home), "etc": str(self.etc),
            "env": dict(env or {}), "command": list(command),
        }  # fmt: skip
        return [sys.executable, "-m", "tests.ordinary", "--become", json.dumps(facts)]

    def processes(self) -> list[int]:
        """List what runs as this user or one of its subordinate ids."""
        found = []
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    uid = os.stat(entry.path).st_uid
                    if uid == self.uid or self.subids <= uid < self.subids + 65536:
                        found.append(int(entry.name))
        return found


@contextlib.contextmanager
def person(uid: int | None = None, *, single: bool = False) -> Iterator[Person]:
    """Give a user for a block; afterwards nothing of theirs runs or is on the disk.

    Without an id it gets one that is this process's own: another's tests may run at the same time, and what
    runs as a user at the end is killed.

    Raises
    ------
    AssertionError
        Something ran on.
    """
    if uid is None:
        uid = FIRST_UID + (os.getpid() * 4 + next(_numbers)) % 10_000
    home = Path(tempfile.mkdtemp(prefix=f"{NAME}-", dir="/var/tmp"))
    home.chmod(0o700)
    os.chown(home, uid, uid)
    runtime = home / "run"
    runtime.mkdir(mode=0o700)
    os.chown(runtime, uid, uid)
    # A whole /etc, and not mounts in it: those would be locked in the user's own namespaces.
    apart = Path(tempfile.mkdtemp(prefix=f"{NAME}-etc-", dir="/var/tmp"))
    one = Person(uid, home, single, apart / "etc")
    try:
        subprocess.run(["cp", "--archive", "--no-dereference", "/etc", apart], check=True)
        subids = "" if single else f"{one.name}:{one.subids}:65536\n"
        added = {
            "passwd": f"{one.name}:x:{uid}:{uid}::{home}:/bin/sh\n",
            "group": f"{one.name}:x:{uid}:\n",
            "subuid": subids,
            "subgid": subids,
        }
        for name, text in added.items():
            with (one.etc / name).open("a", encoding="utf-8") as file:
                file.write(text)
        yield one
        left = _settled(one)
    finally:
        for pid in one.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _settled(one)
        try:
            shutil.rmtree(home)
        finally:
            shutil.rmtree(apart)
    assert not left, f"ran on: {left}"


def _settled(one: Person) -> list[int]:
    """Wait until nothing of theirs runs; give what does for good."""
    deadline = time.monotonic() + 10
    while (left := one.processes()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


# --- in the child ----------------------------------------------------------------------------


def _become(facts: dict[str, Any]) -> None:
    """Be that user, in a mount namespace of its own, and execute; never returns."""
    sys.path.insert(0, str(ROOT))
    from nscontainer.linux import clone, mount

    uid, name, home = int(facts["uid"]), str(facts["name"]), str(facts["home"])
    clone.unshare(clone.CLONE_NEWNS)
    mount.make_private()
    mount.move_mount(mount.open_tree(str(facts["etc"])), "/etc")
    for path in (sys.base_prefix, sys.prefix, str(ROOT)):
        _open_way(path)
    _open_device("/dev/net/tun")
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("NSCONTAINER_", "XDG_"))}
    environ |= {"HOME": home, "USER": name, "LOGNAME": name, "XDG_RUNTIME_DIR": f"{home}/run"}
    environ |= {"PYTHONPATH": f"{ROOT}:{ROOT}/magics", "PYTHONDONTWRITEBYTECODE": "1"}
    environ |= {"NSCONTAINER_RUNS": f"{home}/runs", "IPYTHONDIR": f"{home}/ipython"}
    environ |= {"TMPDIR": "/tmp"} | facts["env"]
    command = facts["command"]
    os.execvpe(command[0], command, environ)


def _open_way(path: str) -> None:
    """Make what only root may reach (a Python below /root) reachable, and nothing beside it."""
    from nscontainer.linux import mount

    for above in reversed(Path(path).parents):
        if not above.stat().st_mode & 0o001:
            own = mount.open_tree(path)
            cover = mount.new_filesystem("tmpfs", {"mode": "0755"}, source="ordinary")
            mount.move_mount(cover, str(above))
            os.makedirs(path)
            mount.move_mount(own, path)
            return


def _open_device(path: str) -> None:
    """Let everybody open a device that udev would give to everybody, in this namespace alone."""
    from nscontainer.linux import mount

    with contextlib.suppress(FileNotFoundError):
        facts = os.stat(path)
        if facts.st_mode & 0o006 != 0o006:
            tree = mount.new_filesystem("tmpfs", {"mode": "0755"}, source="ordinary")
            os.mknod("device", stat.S_IFCHR | 0o600, facts.st_rdev, dir_fd=tree)
            os.chmod(f"/proc/self/fd/{tree}/device", 0o666)
            mount.move_mount(mount.open_tree("device", dirfd=tree), path)


def main(arguments: Sequence[str]) -> int:
    """Run a command as a user, by hand."""
    if arguments[:1] == ["--become"]:
        _become(json.loads(arguments[1]))
    parser = argparse.ArgumentParser(prog="python -m tests.ordinary", description=__doc__)
    parser.add_argument("--single", action="store_true", help="without subordinate ids")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args(arguments)
    with person(single=given.single) as one:
        return one.start(given.command).wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
