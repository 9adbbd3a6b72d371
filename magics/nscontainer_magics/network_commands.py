"""``%container network …`` and ``%container port``."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from nscontainer import networks, options
from nscontainer.cli import network_options
from nscontainer.errors import NsContainerError

if TYPE_CHECKING:
    from pandas import DataFrame

_PORTS: Final = ("port", "protocol", "host_ip", "host_port")


def network(words: list[str]) -> Any:
    """Make, list, remove, inspect networks."""
    action, rest = network_options.split(words, magic=True)
    if not action or rest[:1] in (["-h"], ["--help"]):
        print(
            network_options.parser(action, magic=True).format_help()
            if action
            else network_options.help_text(magic=True)
        )
        return None
    given = network_options.parser(action, magic=True).parse_args(rest)
    if action == "create":
        made = networks.create(
            given.name,
            subnet=given.subnet,
            gateway=given.gateway,
            internal=given.internal,
            labels=given.labels,
        )
        out = "no way out" if made.internal else f"gateway {made.gateway}"
        print(f"network {made.name}: {made.subnet}, {out}; join it with --network {made.name}")
        return None
    if action == "ls":
        rows = network_options.listed()
        return import_module("pandas").DataFrame(rows, columns=list(network_options.ROW))
    if action == "rm":
        _remove(given.names)
        return None
    found = [networks.inspect(name) for name in given.names]
    return found if len(found) > 1 else found[0]


def _remove(names: list[str]) -> None:
    """Remove each: all are tried; the first error is raised at the end, others printed."""
    first: NsContainerError | None = None
    for name in names:
        try:
            networks.remove(name)
        except NsContainerError as error:
            if first is not None:
                print(error, file=sys.stderr)
            first = first or error
    if first is not None:
        raise first


def port(words: list[str]) -> DataFrame:
    """Give a container's published ports."""
    from nscontainer.cli.engine import container_type

    parser = options.Parser(prog="%container port", add_help=False)
    parser.add_argument("name", metavar="NAME")
    found = network_options.ports(container_type().get(parser.parse_args(words).name).inspect())
    frame: DataFrame = import_module("pandas").DataFrame(found, columns=list(_PORTS))
    return frame
