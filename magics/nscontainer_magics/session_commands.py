"""``%container create`` and its kin: sessions, which cells name to run in."""

from __future__ import annotations

import sys
from typing import Final

from nscontainer import options
from nscontainer.cli import copy as copying
from nscontainer.cli import create as creating
from nscontainer.sessions import Session
from nscontainer_magics import defaults

_held: Final[dict[str, Session]] = {}
"""This kernel's sessions by their container's id: a foreground one lives as long as it is here."""


def create(words: list[str]) -> None:
    """Make a session of this kernel."""
    given = creating.parser("%container create", magic=True).parse_args(words)
    settings = defaults.active()
    if settings is not None:
        settings.fill(given, session=True)
    _forget_ended()
    made = Session.create(given.name, detach=given.detach, **options.to_build_kwargs(given))
    _held[made.container.id] = made
    how = "until it is removed" if given.detach else "as long as this kernel"
    print(f"session {made.name}: lives {how}; run cells in it with %%container {made.name}")


def copy(words: list[str]) -> None:
    """Copy files between a container and this machine, and say what was left out."""
    given = copying.parser("%container cp", magic=True).parse_args(words)
    for line in copying.copy(given.source, given.target):
        print(line, file=sys.stderr)


def find(name: str) -> Session:
    """Give the session that a cell names, attached to this kernel.

    Raises
    ------
    NotFoundError, StateError
        There is none, it has ended, or another kernel has it.
    """
    found = Session.find(name)
    found.attach()
    _held[found.container.id] = found
    return found


def _forget_ended() -> None:
    for container_id, one in list(_held.items()):
        if not one.lives:
            del _held[container_id]
