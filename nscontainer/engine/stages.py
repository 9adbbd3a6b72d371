"""The stages of a container's set-up: their names, their times, and where a test may halt one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final

from nscontainer.errors import SetupError

STAGES: Final = (
    "state",
    "cgroup",
    "rootfs",
    "network",
    "clone",
    "id-map",
    "interface",
    "monitor",
    "join",
    "identity",
    "mounts",
    "pivot",
    "filesystems",
    "masks",
    "system",
    "filter",
    "confine",
    "gate",
    "release",
)
"""In order. ``state`` to ``monitor``, ``gate`` and ``release`` are the monitor's, the others init's,
which go on at the same time as ``interface``, ``monitor`` and ``gate``."""


class Stages:
    """Times each stage and turns its failure into a :class:`SetupError` that names it.

    Parameters
    ----------
    halt
        Called at the beginning of each stage with its name: a test's way to stop there.
    """

    def __init__(self, halt: Callable[[str], None] | None = None) -> None:
        self.times: list[tuple[str, int]] = []
        self._halt = halt

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Run one stage."""
        if self._halt is not None:
            self._halt(name)
        begin = time.monotonic_ns()
        try:
            yield
        except OSError as error:
            raise SetupError(
                name,
                getattr(error, "op", type(error).__name__),
                None if error.filename is None else str(error.filename),
                error.errno or 0,
                detail=error.strerror,
            ) from None
        self.times.append((name, time.monotonic_ns() - begin))
