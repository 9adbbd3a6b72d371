"""``nscontainer network …`` and ``nscontainer port``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from nscontainer import networks, options
from nscontainer.cli import network_options
from nscontainer.cli.text import for_each, table


def network_command(argv: Sequence[str]) -> int:
    """Make, list, remove, inspect networks."""
    action, words = network_options.split(list(argv), magic=False)
    if not action:
        print(network_options.help_text(magic=False))
        return 0
    given = network_options.parser(action, magic=False).parse_args(words)
    calls: dict[str, Callable[[Any], int]] = {
        "create": _create,
        "ls": _list,
        "rm": _remove,
        "inspect": _inspect,
    }
    return calls[action](given)


def _create(given: Any) -> int:
    made = networks.create(
        given.name,
        subnet=given.subnet,
        gateway=given.gateway,
        internal=given.internal,
        labels=given.labels,
    )
    print(made.id)
    return 0


def _list(given: Any) -> int:
    rows = network_options.listed()
    if given.json:
        print(json.dumps(rows, indent=2))
    elif given.quiet:
        for row in rows:
            print(row["id"])
    else:
        print(networks_table(rows))
    return 0


def networks_table(rows: Sequence[dict[str, Any]]) -> str:
    """Lay networks out as a table."""
    return table(
        ["NETWORK ID", "NAME", "SUBNET", "GATEWAY", "INTERNAL", "CONTAINERS"],
        [
            [
                row["id"],
                row["name"],
                row["subnet"],
                row["gateway"],
                "yes" if row["internal"] else "no",
                ", ".join(row["containers"]),
            ]
            for row in rows
        ],
    )


def _remove(given: Any) -> int:
    def remove(name: str) -> None:
        networks.remove(name)
        print(name, flush=True)

    return for_each(given.names, remove)


def _inspect(given: Any) -> int:
    found: list[dict[str, Any]] = []
    failed = for_each(given.names, lambda name: found.append(networks.inspect(name)))
    print(json.dumps(found, indent=2))
    return failed


def port_command(argv: Sequence[str]) -> int:
    """Print a container's published ports."""
    from nscontainer.cli.engine import container_type

    parser = options.Parser(
        prog="nscontainer port", description="Print the ports of the host that lead to a container."
    )
    parser.add_argument("container", metavar="CONTAINER", help="name, id or its start")
    given = parser.parse_args(argv)
    for port in network_options.ports(container_type().get(given.container).inspect()):
        print(f"{port['port']}/{port['protocol']} -> {port['host_ip']}:{port['host_port']}")
    return 0
