"""Which namespaces a container can be made without, where this host refuses some (``--best-effort``)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final, TypeVar

from nscontainer.errors import SetupError
from nscontainer.spec import ContainerSpec

Made = TypeVar("Made")

_SPARABLE: Final = ("time", "cgroup", "uts", "ipc", "net", "user", "pid")
"""What a container can share with the host, that which isolates least first."""
_CALLS: Final = ("clone3", "unshare")


def with_fewer(
    spec: ContainerSpec,
    refused: SetupError,
    make: Callable[[ContainerSpec, Mapping[str, str]], Made],
) -> Made:
    """Make a container without the fewest namespaces that let it be made; else raise ``refused``.

    Linux doesn't say which of them it refused: each is left out in turn, then each two, and so on.

    Parameters
    ----------
    make
        Makes it of a spec that shares those with the host, and why, by their names.
    """
    if not is_of_namespaces(refused):
        raise refused
    why = f"{refused.op}: {os.strerror(refused.errno)}"
    for fewer in _fewer(spec):
        try:
            return make(_sharing(spec, fewer), dict.fromkeys(fewer, why))
        except SetupError as error:
            if not is_of_namespaces(error):
                raise
    raise refused


def is_of_namespaces(error: SetupError) -> bool:
    """Tell whether a step failed that makes namespaces."""
    return error.op in _CALLS and error.stage in ("clone", "identity")


def _fewer(spec: ContainerSpec) -> Iterator[tuple[str, ...]]:
    own = [name for name in _SPARABLE if name not in spec.host_namespaces]
    for count in range(1, len(own) + 1):
        yield from itertools.combinations(own, count)


def _sharing(spec: ContainerSpec, names: tuple[str, ...]) -> ContainerSpec:
    shared = spec.host_namespaces | set(names)
    return replace(spec, host_namespaces=shared, network="host" if "net" in names else spec.network)
