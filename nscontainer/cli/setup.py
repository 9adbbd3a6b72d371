"""``nscontainer setup``: an administrator gives an ordinary user what only root can give.

Nothing of nscontainer runs as root afterwards: it is files of the system's own kind, shown before they are
written, and taken away again by ``--undo``.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Sequence

from nscontainer import options
from nscontainer.cli import setup_steps
from nscontainer.cli.setup_steps import Step
from nscontainer.cli.text import printable
from nscontainer.errors import HostError, SpecError


def setup_command(argv: Sequence[str]) -> int:
    """Show what a user lacks, ask, and do it; 0 where all is as it should be afterwards, else 1."""
    parser = options.Parser(
        prog="nscontainer setup",
        description="Give an ordinary user what containers with limits need of an administrator: "
        "the cgroup controllers by systemd (or, on cgroup v1, directories of their own), subordinate "
        "ids, user namespaces. Shows what it would do, and asks.",
    )
    parser.add_argument("user", nargs="?", help="who is to run containers (default: who ran sudo)")
    parser.add_argument("--yes", "-y", action="store_true", help="do it without asking")
    parser.add_argument("--dry-run", action="store_true", help="only show it")
    parser.add_argument("--undo", action="store_true", help="take away what setup made")
    given = parser.parse_args(argv)
    if sys.platform != "linux":
        message = f"containers need Linux, and this is {sys.platform}"
        raise HostError(message, hint="use a Linux machine, a VM or WSL2")
    person = _person(given.user or os.environ.get("SUDO_USER"))
    if os.geteuid() != 0 and not given.dry_run:
        message = "setup writes to /etc and /sys: only root may"
        hint = f"sudo nscontainer setup {person.pw_name}, or --dry-run to see what it would do"
        raise HostError(message, hint=hint)
    steps, notes = setup_steps.plan(person, undo=given.undo)
    print(printable(f"{person.pw_name} (uid {person.pw_uid}) on this host:"))
    _show(steps)
    todo = [step for step in steps if not step.done]
    if given.dry_run or not todo or not _agreed(yes=given.yes):
        _tell(notes)
        return 0 if given.dry_run or not todo else 1
    for step in todo:
        for line in step.do():
            notes.append(line)
    print("done")
    _tell(notes)
    return 0


def _person(name: str | None) -> pwd.struct_passwd:
    if not name:
        message = "who is to run containers?"
        raise SpecError(message, hint="name the user: sudo nscontainer setup USER")
    try:
        found = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        message = f"there is no user {name!r}"
        raise SpecError(message, hint="name one of this host's users") from None
    if found.pw_uid == 0:
        message = "root needs no set-up"
        raise SpecError(message, hint="name the user who is to run containers")
    return found


def _show(steps: list[Step]) -> None:
    if not steps:
        print("  nothing of setup's is there")
    for step in steps:
        mark = "already" if step.done else step.verb
        print(printable(f"  {mark:<8} {step.what}"))
        if not step.done:
            for line in step.how:
                print(printable(f"             {line}"))


def _agreed(*, yes: bool) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        print("nothing was done: --yes does it")
        return False
    return input("Do it? [y/N] ").strip().lower() in ("y", "yes")


def _tell(notes: list[str]) -> None:
    for note in notes:
        print(printable(f"  note: {note}"))
