"""``nscontainer create`` (and ``%container create``): a session to run cells in."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nscontainer import options, spec
from nscontainer.cli.engine import container_type, explained

GROUPS: tuple[options.Group, ...] = ("limits", "process", "filesystem", "isolation", "measuring")


def create_command(argv: Sequence[str]) -> int:
    """Make a detached session, and print its container's id."""
    given = parser("nscontainer create", magic=False).parse_args(argv)
    spec.build(None, session=True, **options.to_build_kwargs(given))  # refused before any start
    with explained():
        container_type(to_make=True)
        from nscontainer.sessions import Session

        made = Session.create(given.name, detach=True, **options.to_build_kwargs(given))
    made.detach()
    print(made.container.id)
    return 0


def parser(program: str, *, magic: bool) -> options.Parser:
    """Make the parser of ``create``'s arguments."""
    made = options.Parser(
        prog=program,
        usage=f"{program} [options] NAME".replace("%", "%%"),
        description="Make a session: a container with a live interpreter in it. In a notebook, "
        "cells that begin with %%container NAME run in it, one after another.",
        add_help=not magic,
    )
    made.add_argument("name", metavar="NAME", help="to find it by")
    made.add_argument(
        "-d",
        "--detach",
        action="store_true",
        help="let it outlive the kernel that made it"
        if magic
        else argparse.SUPPRESS,  # there is nobody here for it to end with
    )
    options.add_to(made, magic=magic, groups=GROUPS)
    return made
