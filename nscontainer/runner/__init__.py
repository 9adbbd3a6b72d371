"""Runs one cell inside the container, as its first process.

It stands alone: only the standard library, and IPython where the interpreter has it. A container
whose interpreter is another one gets this directory mounted and runs ``python3 -I DIR FD``, so it
keeps to what Python 3.8 knows.

- :func:`preload` makes and warms a shell in a process whose forks will be containers,
- :func:`main` speaks with the owner over a socket, runs the cell, and returns its exit code.

:mod:`.reporting` is a cell's and the host's: it is to be had without the rest, on every platform.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .session import main, preload

__all__ = ["main", "preload"]


def __getattr__(name: str) -> Any:
    """Load what runs cells, which needs Linux, when it is asked for (PEP 562)."""
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from . import session

    return getattr(session, name)
