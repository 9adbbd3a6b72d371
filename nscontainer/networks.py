"""Networks from Python: ``nscontainer.networks.create("lab")`` and its siblings.

A network is a bridge of its own with a subnet: containers on it reach each other by name, and the
outside through the host. Nothing of it is up while no container is on it.
"""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nscontainer.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nscontainer.network.records import Network


def create(
    name: str,
    *,
    subnet: str | None = None,
    gateway: str | None = None,
    internal: bool = False,
    labels: Mapping[str, str] | Iterable[str] | None = None,
) -> Network:
    """Make a network.

    Parameters
    ----------
    subnet
        As ``10.9.0.0/24``; by default a free one, which no route of the host uses.
    gateway
        The host's address on it; the subnet's first by default.
    internal
        Whether to have no way out: its containers reach each other and nobody else.
    labels
        A mapping, or ``KEY=VALUE`` texts.

    Raises
    ------
    SpecError
        The name, the subnet or the gateway can't be used.
    StateError
        The name is taken, or the subnet overlaps another network's or a route of the host's.
    """
    top = _top()
    from nscontainer.network import records

    pairs = labels.items() if isinstance(labels, Mapping) else map(_label, labels or ())
    return records.create(
        top, name, subnet=subnet, gateway=gateway, internal=internal, labels=dict(pairs)
    )


def list() -> builtins.list[Network]:  # noqa: A001 - docker-py's name
    """List the networks: the built-in ``bridge`` first, then by name."""
    top = _top()
    from nscontainer.network import records

    records.get(top, records.DEFAULT)  # it is there once somebody asks
    return records.listed(top)


def get(reference: str) -> Network:
    """Find a network by name, id, or the beginning of its id.

    Raises
    ------
    NotFoundError
        There is none, or several.
    """
    top = _top()
    from nscontainer.network import records

    return records.get(top, reference)


def inspect(reference: str) -> dict[str, Any]:
    """Give all that is known of a network.

    Returns
    -------
    dict
        Its record, ``up`` (whether its bridge is there), and ``containers``: name, id and address of
        those that are on it now.
    """
    network = get(reference)
    return {
        "name": network.name,
        "id": network.id,
        "subnet": network.subnet,
        "gateway": network.gateway,
        "internal": network.internal,
        "labels": dict(network.labels),
        "created_unix": network.created_unix,
        "bridge": network.bridge,
        "up": os.path.exists(f"/sys/class/net/{network.bridge}"),
        "containers": containers(network),
    }


def containers(network: Network) -> builtins.list[dict[str, str]]:
    """List who is on a network now: ``name``, ``id`` and ``ip`` of each container that lives."""
    top = _top()
    from nscontainer.engine import state
    from nscontainer.network import leases

    found = []
    for address, container_id in leases.held(top, network).items():
        directory = f"{top}/{state.CONTAINERS}/{container_id}"
        if state.is_owned(directory):  # else it stands by, or its monitor was killed
            name = (state.read(directory) or {}).get("name", container_id)
            found.append({"name": str(name), "id": container_id, "ip": address})
    return found


def remove(reference: str) -> None:
    """Remove a network.

    Raises
    ------
    NotFoundError
        There is none.
    StateError
        It is built in, or a container is on it.
    """
    top = _top()
    from nscontainer.linux.rtnetlink import RtNetlink
    from nscontainer.network import bridge, records

    def bring_down(network: Network) -> builtins.list[str]:
        users = [one["name"] for one in containers(network)]
        if not users and os.path.exists(f"/sys/class/net/{network.bridge}"):
            with RtNetlink() as route:
                bridge.remove(route, network)
        return users

    records.remove(top, reference, bring_down)


def _label(text: str) -> tuple[str, str]:
    key, _, value = str(text).partition("=")
    if not key:
        message = f"label {text!r} has no name"
        raise SpecError(message, hint="write KEY=VALUE")
    return key, value


def _top() -> str:
    if sys.platform != "linux":
        from nscontainer.doctor import explain_missing

        raise explain_missing()
    from nscontainer.engine import state

    top = state.state_dir()
    state.prepare(top)
    return top
