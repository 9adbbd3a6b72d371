"""A container that stands by: made ahead of the request that will have it (docs/adr/0013)."""

from __future__ import annotations

import contextlib
import select
import socket
from dataclasses import dataclass
from typing import Any, Final

from nscontainer.engine import diskrate, storage, wire
from nscontainer.engine.birth import Birth
from nscontainer.engine.request import Request
from nscontainer.network.records import DEFAULT
from nscontainer.spec import ContainerSpec

_OF_A_KIND: Final = (
    "image", "hostname", "host_namespaces", "read_only", "cap_add", "cap_drop", "seccomp", "systempaths", "cold",
    "network", "add_hosts", "dns",
)  # fmt: skip
"""What must be the same in a spec for one container to stand by for another."""


def kind(message: wire.Message) -> tuple[object, ...] | None:
    """Say what a container standing by must have in common with the one asked for.

    None where none can stand in: volumes, and the host's name servers, are looked up when asked
    for, an address or a port may be somebody else's until then, disks that have limits are found
    when asked for, what is kept is synced to the disk, a filesystem of its own has its size from the
    request, and a test that halts at a stage wants to see
    every one. On a network that somebody made it would hold off that one's removal.
    """
    spec = message["spec"]
    own_network = spec["network"] not in ("none", DEFAULT) or spec["ip"] or spec["publish"]
    looked_up = spec["mounts"] or own_network or message.get("missing")
    if looked_up or message["detach"] or not message["remove"] or message["halt_at"]:
        return None
    if storage.needed(spec["limits"]) or diskrate.holds(spec["limits"]):
        return None
    own = message["image"] and (message["image"]["image_id"], message["image"]["name"])
    return (message["layers"], own, spec["command"] is None, *(spec[name] for name in _OF_A_KIND))


def request_for_next(message: wire.Message) -> wire.Message | None:
    """Make of a request what the next container may stand by for: nothing in it is private."""
    if kind(message) is None:
        return None
    spec = message["spec"]
    plain = ContainerSpec(command=None if spec["command"] is None else ("true",)).to_dict()
    plain |= {name: spec[name] for name in _OF_A_KIND}
    return {**message, "op": "stand by", "spec": plain, "start": False}


@dataclass(slots=True)
class StandBy:
    """A container made ahead, but for what only a request can say: code, limits, user, output.

    Its kernel objects are as fresh as any container's, and serve one request.
    """

    birth: Birth
    cleanup: contextlib.ExitStack

    @classmethod
    def make(cls, request: Request) -> StandBy:
        """Make one, or leave nothing behind."""
        with contextlib.ExitStack() as stack:
            birth = Birth(request, stack, standby=True)
            birth.run()
            return cls(birth, stack.pop_all())

    def lasts_until(self, line: socket.socket) -> bool:
        """Wait until there is something on a socket; False when the first process ends before."""
        watched: list[Any] = [line, self.birth.pidfd]
        return self.birth.pidfd not in select.select(watched, [], [])[0]
