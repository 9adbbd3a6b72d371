"""``nscontainer cp`` (and ``%container cp``): files into and out of a running container."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from nscontainer import options
from nscontainer.cli.engine import container_type
from nscontainer.cli.text import printable
from nscontainer.errors import SpecError

_SHOWN = 10


def cp_command(argv: Sequence[str]) -> int:
    """Copy, and say what was left out."""
    given = parser("nscontainer cp", magic=False).parse_args(argv)
    for line in copy(given.source, given.target):
        print(f"nscontainer: {line}", file=sys.stderr)
    return 0


def parser(program: str, *, magic: bool) -> options.Parser:
    """Make the parser of ``cp``'s arguments."""
    made = options.Parser(
        prog=program,
        usage=f"{program} CONTAINER:PATH PATH\n       {program} PATH CONTAINER:PATH".replace(
            "%", "%%"
        ),
        description="Copy a file or directory out of a running container, or into it.",
        add_help=not magic,
    )
    made.add_argument("source", metavar="SOURCE", help="CONTAINER:PATH, or a path of this machine")
    made.add_argument("target", metavar="TARGET", help="the other of the two")
    return made


def copy(source: str, target: str) -> list[str]:
    """Copy one way or the other; give lines about what was left out.

    Raises
    ------
    SpecError
        Neither or both are a container's.
    """
    from nscontainer import copying

    from_name, from_path = copying.split(source)
    to_name, to_path = copying.split(target)
    if (from_name is None) == (to_name is None):
        message = f"one of {source!r} and {target!r} must be a container's"
        raise SpecError(message, hint="as cp lab:/tmp/results ., or cp data.csv lab:/tmp")
    if from_name is None:
        assert to_name is not None
        copying.copy_in(container_type().get(to_name), from_path, to_path)
        return []
    left_out = copying.copy_out(container_type().get(from_name), from_path, to_path)
    lines = [f"left out, as it leads elsewhere: {printable(name)}" for name in left_out[:_SHOWN]]
    if len(left_out) > _SHOWN:
        lines.append(f"… and {len(left_out) - _SHOWN} more")
    return lines
