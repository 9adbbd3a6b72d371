"""What a monitor is given to make a container of."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nscontainer.engine import rootfs
from nscontainer.linux import cgroup
from nscontainer.spec import ContainerSpec


@dataclass(slots=True)
class Request:
    """What the owner asked of the spawner, and what the spawner adds."""

    id: str
    name: str
    spec: ContainerSpec
    detach: bool
    remove: bool
    environment: dict[str, str]
    control: socket.socket
    stdio: tuple[int, int, int]
    channel: int | None
    top: str
    images: rootfs.Images
    lowers: tuple[rootfs.Lower, ...]
    mapped: bool
    layout: cgroup.Layout
    start_mode: str
    seccomp_program: bytes | None = None
    owner_pidfd: int | None = None
    run_cell: Callable[[socket.socket], int] | None = None
    image: Mapping[str, Any] | None = None
    """A stored image (:class:`nscontainer.image.running.Resolved`); None is ``host``."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Namespaces that this host refused, and why: they are shared, as --best-effort allows."""
    halt_at: str | None = None
    start: bool = False
    """Let the user's code go as soon as the container is made."""
    spawner_pid: int = 0
    ending: int | None = None
    """The end of a pipe whose other the spawner alone holds: at its end before the spawner tidies up."""
