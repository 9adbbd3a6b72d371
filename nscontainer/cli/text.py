"""Text for terminals: tables, ages, and container-controlled strings made harmless."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from nscontainer.errors import NsContainerError, one_line


def printable(text: str) -> str:
    r"""Escape what could steer a terminal: a control character becomes ``\x1b``, a newline ``\n``.

    Names and command lines are the container's to choose; it must not move the cursor, retitle the
    window or hide a row.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def error_line(error: NsContainerError) -> str:
    """Write an error as the one line a front end prints."""
    return f"nscontainer: {printable(one_line(error))}"


def for_each(references: Sequence[str], act: Callable[[str], object]) -> int:
    """Do something to each; an error is a line, and doesn't stop the others. Give the exit code."""
    failed = 0
    for reference in references:
        try:
            act(reference)
        except NsContainerError as error:
            print(error_line(error), file=sys.stderr)
            failed = 1
    return failed


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns as Docker's tables are, three spaces apart, every cell made printable."""
    cells = [list(header), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def shorten(text: str, width: int) -> str:
    """Cut a text to a width, an ellipsis at its end where it was longer."""
    return text if len(text) <= width else text[: width - 1] + "…"


def age(seconds: float) -> str:
    """Write how long ago, as Docker does: ``5 seconds``, ``About a minute``, ``3 hours``."""
    seconds = max(0, int(seconds))
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return f"{seconds} second{'s' * (seconds != 1)}"
    minutes = seconds // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 46:
        return f"{minutes} minutes"
    hours = round(seconds / 3600)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    return f"{hours // 24} days"


def columns() -> int:
    """Give the terminal's width, 100 where there is none."""
    try:
        return int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
    except (ValueError, OSError):
        return 100


def percent(share: float | None) -> str:
    """Write a share as Docker's tables do: ``12.34%``; ``--`` where it isn't known."""
    return "--" if share is None else f"{share * 100:.2f}%"
