"""Tracebacks as the cell's author should see them: without the runner's own frames."""

from __future__ import annotations

import linecache
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_KEEP = "NSCONTAINER_RUNNER_FRAMES"
"""Set in the environment, this variable keeps the frames: for whoever mends the runner."""


def remember(filename: str, code: str, line_offset: int) -> None:
    """Let tracebacks find a cell's source lines; the first is line ``line_offset + 1``."""
    lines = ["\n"] * line_offset + [line + "\n" for line in code.splitlines()]
    # An mtime of None keeps linecache.checkcache from dropping what is no file (Lib/linecache.py).
    linecache.cache[filename] = (len(code), None, lines, filename)


def hide_runner(error: BaseException) -> None:
    """Cut the runner's frames out of an error's traceback and those of what it came from."""
    if os.environ.get(_KEEP):
        return
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = _without(one.__traceback__)
        todo += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


def from_cell(tb: TracebackType | None, filename: str | None) -> TracebackType | None:
    """Cut a traceback's frames before the cell's first: what ran the cell (an event loop's, say)."""
    while tb is not None and tb.tb_frame.f_code.co_filename != filename:
        tb = tb.tb_next
    return tb


def _without(tb: TracebackType | None) -> TracebackType | None:
    """Relink a traceback past the runner's frames."""
    while tb is not None and _ours(tb):
        tb = tb.tb_next
    at = tb
    while at is not None:
        after = at.tb_next
        while after is not None and _ours(after):
            after = after.tb_next
        if after is not at.tb_next:
            at.tb_next = after
        at = after
    return tb


def _ours(tb: TracebackType) -> bool:
    return tb.tb_frame.f_code.co_filename.startswith(_HERE)


def plain(error: BaseException) -> list[str]:
    """Format an error as the interpreter itself would, a string a piece."""
    import traceback

    hide_runner(error)
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    return [line.rstrip("\n") for line in lines]


def forget_last() -> None:
    """Let go of the frames that ``sys.last_traceback`` and its kin keep alive."""
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):
        if hasattr(sys, name):
            delattr(sys, name)
