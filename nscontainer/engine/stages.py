"""The stages of a container's set-up: their names, their times, and where a test may halt one."""

from __future__ import annotations

import contextlib
import itertools
import re
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
        Called at the beginning of each stage with its name, and at its end with a dot: a test's way
        to stop there.
    """

    own_files: bool = True
    """Whether our own source is where this process sees it: not in a container, whose image may have
    anything there."""

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
                _operation(error, own_files=self.own_files),
                None if error.filename is None else str(error.filename),
                error.errno or 0,
                detail=error.strerror or str(error),
            ) from None
        self.times.append((name, time.monotonic_ns() - begin))
        if self._halt is not None:
            self._halt(".")


def _operation(error: OSError, *, own_files: bool) -> str:
    """Name what failed: the system call, or what was called on the line (or else in what function)."""
    op = getattr(error, "op", None)
    if op is not None:
        return str(op)
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return type(error).__name__
    code = last.tb_frame.f_code
    called = None
    if own_files:
        with contextlib.suppress(OSError), open(code.co_filename, encoding="utf-8") as file:
            line = next(itertools.islice(file, last.tb_lineno - 1, None), "")
            called = re.search(r"\w\.(\w+)\(|\b(open)\(", line)
    return (called[1] or called[2]) if called else code.co_name.strip("_")
