"""Who is on a network under which name: what a container's resolver is asked.

Looked up anew each time: a container's name is in ``names/``, its address in its state file, and that it
lives its lock says. So a renamed one has its new name at once, and one that ended has none.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from typing import Any, Final

from nscontainer.engine import state
from nscontainer.network import leases, records
from nscontainer.network.records import Network

_NAME: Final = re.compile(r"[a-zA-Z0-9_+-][a-zA-Z0-9_.+-]*")


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The containers of one network."""

    top: str
    network: Network

    def address(self, name: str) -> str | None:
        """Give the address of a container by its name or id, alone or before the network's name."""
        for candidate in (name, name.removesuffix(f".{self.network.name.lower()}")):
            if _NAME.fullmatch(candidate) is not None:
                for container_id in self._holders(candidate):
                    facts = self._living(container_id)
                    if facts is not None:
                        return str(facts["network"]["ip"])
        return None

    def name(self, address: str) -> str | None:
        """Give the name at an address of the network; "" if nobody has it, None if it is another's."""
        if not records.contains(self.network, address):
            return None
        container_id = leases.held(self.top, self.network).get(address)
        facts = None if container_id is None else self._living(container_id)
        return "" if facts is None else str(facts["name"])

    def _holders(self, name: str) -> list[str]:
        """Give the ids that a name may mean. Case is nothing in DNS, and something in our names."""
        directory = f"{self.top}/names"
        with contextlib.suppress(OSError):
            return [os.readlink(f"{directory}/{name}")]
        found = [name]  # an id
        with contextlib.suppress(OSError):
            alike = [entry for entry in os.listdir(directory) if entry.lower() == name.lower()]
            found += [os.readlink(f"{directory}/{entry}") for entry in alike]
        return found

    def _living(self, container_id: str) -> dict[str, Any] | None:
        directory = f"{self.top}/{state.CONTAINERS}/{container_id}"
        facts = state.read(directory)
        if facts is None or not state.is_owned(directory):
            return None
        here = (facts.get("network") or {}).get("network_id") == self.network.id
        return facts if here and facts.get("status") != "exited" else None
