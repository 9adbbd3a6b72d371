"""Runs one cell inside the container, as its first process.

It stands alone: only the standard library, and IPython where the interpreter has it. A container
whose interpreter is another one gets this directory mounted and runs ``python3 -I DIR FD``, so it
keeps to what Python 3.8 knows.

- :func:`preload` makes and warms a shell in a process whose forks will be containers,
- :func:`main` speaks with the owner over a socket, runs the cell, and returns its exit code.
"""

from __future__ import annotations

from .session import main, preload

__all__ = ["main", "preload"]
