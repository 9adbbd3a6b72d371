"""Cells in other languages: ``--sh``, or a ``#!`` first line as in a script file.

What a shell can take as ``-c TEXT`` is given so: its messages then have the cell's name and line
numbers, and its standard input is free. Anything else reads the cell from a file that lives in memory.
It comes as the container's standard input, which a line of shell moves aside to a descriptor of its
own, so that the program's standard input is empty here too and not the rest of the cell.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from nscontainer.errors import SpecError

_SHELLS: Final = frozenset({"sh", "bash", "dash", "zsh", "ksh", "mksh", "ash"})
_HASH_COMMENTS: Final = re.compile(
    r"(sh|bash|dash|zsh|ksh|mksh|ash|fish|perl|ruby|python|pypy|awk|gawk|mawk|Rscript|tclsh|julia|"
    r"raku|elixir)[\d.]*"
)
MAX_ARGUMENT: Final = 96 * 1024
"""Well under Linux's MAX_ARG_STRLEN, 128 KiB for one string (execve(2))."""
_FILE: Final = "/proc/self/fd/3"
_ASIDE: Final = f'exec 3<&0 </dev/null; exec "$@" {_FILE}'


@dataclass(frozen=True, slots=True)
class Script:
    """How a cell in another language is run: an argument vector, and its standard input."""

    command: tuple[str, ...]
    stdin: bytes | None


def interpreter(cell: str) -> tuple[str, ...] | None:
    """Read a ``#!`` first line as Linux does: the program and at most one argument (execve(2)).

    Raises
    ------
    SpecError
        Nothing follows the ``#!``, or a path that isn't absolute.
    """
    first = cell.split("\n", 1)[0]
    if not first.startswith("#!"):
        return None
    parts = first[2:].strip().split(None, 1)
    if not parts or not parts[0].startswith("/"):
        message = f"{first!r} names no interpreter"
        raise SpecError(message, hint="as #!/usr/bin/perl -w, or #!/usr/bin/env NAME")
    return tuple(part.strip() for part in parts)


def make(cell: str, program: tuple[str, ...], *, name: str) -> Script:
    """Make the command that runs a cell.

    Parameters
    ----------
    cell
        The cell's text, a ``#!`` line included.
    program
        The interpreter, and perhaps an argument of it.
    name
        What the interpreter may call the cell in its messages.

    Raises
    ------
    SpecError
        The cell can't be passed on.
    """
    if "\0" in cell:
        message = "the cell has a NUL character in it"
        raise SpecError(message, hint="no interpreter could read it; delete it")
    base = _base(program)
    if _HASH_COMMENTS.fullmatch(base):
        # The line of the magic counts, as in the editor's margin.
        cell = "#\n" + cell
    data = cell.encode()
    if base in _SHELLS and len(data) <= MAX_ARGUMENT:
        return Script((*program, "-c", cell, name), None)
    return Script(("/bin/sh", "-c", _ASIDE, "sh", *program), data)


def _base(program: tuple[str, ...]) -> str:
    """Give the interpreter's name; of ``/usr/bin/env bash``, bash."""
    base = os.path.basename(program[0])
    if base == "env" and len(program) > 1:
        words = [
            word for word in program[1].split() if not word.startswith("-") and "=" not in word
        ]
        base = os.path.basename(words[0]) if words else base
    return base
