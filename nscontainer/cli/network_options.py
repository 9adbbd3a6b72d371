"""The arguments of ``network create`` and its siblings: the same on the command line and in the magic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from nscontainer import networks, options
from nscontainer.errors import SpecError


@dataclass(frozen=True, slots=True)
class Arguments:
    """What one of them takes."""

    usage: str
    summary: str
    add: Callable[[options.Parser], None]
    names: bool = False
    """Whether Tab completes networks' names."""


def parser(action: str, *, magic: bool) -> options.Parser:
    """Make the parser of one of them."""
    arguments = ACTIONS[action]
    program = f"{'%container' if magic else 'nscontainer'} network {action}"
    made = options.subparser(program, arguments.usage, arguments.summary, magic=magic)
    arguments.add(made)
    if action == "ls" and not magic:
        made.add_argument("-q", "--quiet", action="store_true", help="ids only")
        made.add_argument("--json", action="store_true", help="an array of objects")
    return made


def _create(made: options.Parser) -> None:
    made.add_argument("name", metavar="NAME", help="letters, digits, _ . and -")
    made.add_argument("--subnet", metavar="CIDR", help="as 10.9.0.0/24 (default: a free one)")
    made.add_argument("--gateway", metavar="ADDRESS", help="the host's (default: its first)")
    made.add_argument("--internal", action="store_true", help="without a way out")
    made.add_argument(
        "--label", dest="labels", metavar="KEY=VALUE", action="append", default=[],
        help="may be repeated",
    )  # fmt: skip


def _ls(made: options.Parser) -> None:
    del made


def _names(made: options.Parser) -> None:
    made.add_argument("names", metavar="NAME", nargs="+", help="name, id or its start")


ACTIONS: Final[dict[str, Arguments]] = {
    "create": Arguments(
        "[--subnet CIDR] [--gateway ADDRESS] [--internal] [--label K=V] NAME",
        "make a network, for containers to reach each other by name",
        _create,
    ),
    "ls": Arguments("", "list networks, and who is on them", _ls),
    "rm": Arguments("NAME…", "remove networks that no container is on", _names, names=True),
    "inspect": Arguments("NAME…", "give all that is known of networks", _names, names=True),
}
_ALIASES: Final = {"list": "ls", "remove": "rm"}
ROW: Final = ("name", "id", "subnet", "gateway", "internal", "containers")
"""The columns of a listing."""


def split(words: list[str], *, magic: bool) -> tuple[str, list[str]]:
    """Give the action and its own arguments; an empty action where the help is wanted.

    Raises
    ------
    SpecError
        There is no such action.
    """
    program = f"{'%container' if magic else 'nscontainer'} network"
    if not words or words[0] in ("-h", "--help", "help"):
        return "", []
    action = _ALIASES.get(words[0], words[0])
    if action not in ACTIONS:
        message = f"{words[0]!r} is no sub-command of {program}"
        raise SpecError(message, hint=f"one of {', '.join(ACTIONS)}")
    return action, words[1:]


def help_text(*, magic: bool) -> str:
    """Give the help that names the actions."""
    program = f"{'%container' if magic else 'nscontainer'} network"
    lefts = [f"{name} {one.usage}".rstrip() for name, one in ACTIONS.items()]
    width = max(map(len, lefts))
    rows = zip(lefts, ACTIONS.values(), strict=True)
    lines = [f"  {left:<{width}}  {one.summary}" for left, one in rows]
    return "\n".join([f"usage: {program} SUB-COMMAND [arguments]", "", *lines])


def listed() -> list[dict[str, Any]]:
    """Give the rows of a listing; ``containers`` are the names of who is on it now."""
    return [
        {
            **{name: getattr(network, name) for name in ROW[:-1]},
            "containers": [one["name"] for one in networks.containers(network)],
        }
        for network in networks.list()
    ]


def ports(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the published ports of a container from what `inspect` says of it."""
    found: list[dict[str, Any]] = (facts.get("network") or {}).get("ports") or []
    return found


def ports_text(found: list[dict[str, Any]]) -> str:
    """Write ports as Docker does: ``127.0.0.1:8080->80/tcp, …``."""
    return ", ".join(
        f"{port['host_ip']}:{port['host_port']}->{port['port']}/{port['protocol']}"
        for port in found
    )
