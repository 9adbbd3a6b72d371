"""``nscontainer exec``: another command in a running container."""

from __future__ import annotations

from collections.abc import Sequence

from nscontainer import options
from nscontainer.cli.engine import container_type
from nscontainer.cli.output import Outlet
from nscontainer.errors import SpecError

_OPTIONS = ("env", "env_file", "workdir", "user")


def exec_command(argv: Sequence[str]) -> int:
    """Parse, enter the container, relay until the command has ended."""
    parser = options.Parser(
        prog="nscontainer exec",
        usage="nscontainer exec [options] CONTAINER COMMAND [ARGUMENT…]",
        description="Run another command in a running container, under the same limits. "
        "Exit codes as of nscontainer run.",
    )
    parser.add_argument("-i", "--interactive", action="store_true", help="connect standard input")
    parser.add_argument("-t", "--tty", action="store_true", help="not supported by exec")
    for option in options.OPTIONS:
        if option.dest in _OPTIONS:
            parser.add_argument(
                *option.flags,
                dest=option.dest,
                metavar=option.metavar,
                action=option.action,
                help=option.help,
            )
    before, rest = parser.split_command(argv)
    given = parser.parse_args(before)
    if given.tty:
        message = "exec gives no terminal"
        raise SpecError(message, hint="leave -t out; -i connects standard input")
    if rest[1:2] == ["--"]:
        del rest[1]
    if len(rest) < 2:
        message = "exec needs a container and a command"
        raise SpecError(message, hint="nscontainer exec [options] CONTAINER COMMAND [ARGUMENT…]")
    if given.workdir is not None and not given.workdir.startswith("/"):
        message = f"workdir {given.workdir!r} is not absolute"
        raise SpecError(message, hint="begin it with /")
    container = container_type().get(rest[0])
    outlets = Outlet(1, _nobody_reads), Outlet(2, _nobody_reads)
    result = container.exec(
        rest[1:],
        env=options.to_build_kwargs(given).get("env"),
        workdir=given.workdir,
        user=given.user,
        stdin=0 if given.interactive else None,
        on_stdout=outlets[0],
        on_stderr=outlets[1],
    )
    return result.exit_code


def _nobody_reads() -> None:
    """Leave: closing the connection to the monitor ends the command."""
    raise BrokenPipeError
