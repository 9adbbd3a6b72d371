"""A cell of shell lines as a Dockerfile: each command is a RUN, an instruction stands for itself."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from typing import Final

from nscontainer.build import dockerfile
from nscontainer.build.dockerfile import Dockerfile, Instruction
from nscontainer.errors import SpecError

NAME: Final = "cell"
"""What errors call it, before the line's number."""
_INSTRUCTION: Final = re.compile(r"([A-Z]{3,})(?=\s)")
_OTHERS: Final = ("HEALTHCHECK", "ONBUILD")
_GOES_ON: Final = re.compile(r"(?<!\\)(?:\\\\)*\\$")
_UNFINISHED: Final = re.compile(r"end of file|\bEOF\b|unterminated", re.IGNORECASE)


def parse(
    text: str,
    base: str,
    *,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
    workdir: str | None = None,
    first_line: int = 2,
) -> Dockerfile:
    """Read a cell.

    Parameters
    ----------
    base
        The image that it begins with.
    env, user, workdir
        As ENV, USER and WORKDIR lines before all others.
    first_line
        The number of its first line; the ``%%image`` line is 1.

    Raises
    ------
    SpecError
        A line can't be carried out.
    """
    instructions = [_made("FROM", base, 1)]
    instructions += [
        _made("ENV", f"{name}={_quoted(value)}", 1) for name, value in (env or {}).items()
    ]
    instructions += [_made("USER", _quoted(user), 1)] if user else []
    instructions += [_made("WORKDIR", _quoted(workdir), 1)] if workdir else []
    instructions += _instructions(text, first_line)
    if len(instructions) == 1:
        raise SpecError("the cell is empty", hint="write shell commands, one a line")
    return Dockerfile(NAME, tuple(instructions))


def _made(keyword: str, rest: str, line: int) -> Instruction:
    return Instruction(keyword, rest, f"{keyword} {rest}", f"{NAME}:{line}")


def _quoted(value: str) -> str:
    """Write a value so that nothing in it is replaced."""
    return '"' + re.sub(r'(["\\$])', r"\\\1", value) + '"'


def _instructions(text: str, first_line: int) -> Iterator[Instruction]:
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        begin = at
        line = lines[at].strip()
        at += 1
        if not line or line.startswith("#"):
            continue
        number = first_line + begin
        found = _INSTRUCTION.match(line)
        if found and found[1] in (*dockerfile.KEYWORDS, *_OTHERS):
            if found[1] == "FROM":
                message = f"{NAME}:{number}: a cell has no FROM"
                raise SpecError(message, hint="%%image NAME --from IMAGE; stages need a Dockerfile")
            at = _end_of_instruction(lines, begin)
            whole = "\n".join(lines[begin:at])
            yield from dockerfile.parse(whole, NAME, number).instructions
            continue
        at = _end_of_command(lines, begin)
        command = "\n".join(lines[begin:at]).strip()
        yield Instruction("RUN", command, f"RUN {command}", f"{NAME}:{number}")


def _end_of_instruction(lines: list[str], at: int) -> int:
    """Give the line after an instruction: those that go on, and here-documents."""
    whole = ""
    while at < len(lines):
        line = lines[at]
        at += 1
        if not (whole and line.strip().startswith("#")):
            whole += line.removesuffix("\\") if _GOES_ON.search(line) else line
            if not _GOES_ON.search(line):
                break
    return _after_heredocs(lines, at, whole)


def _after_heredocs(lines: list[str], at: int, command: str) -> int:
    for name, strips_tabs in dockerfile.heredoc_names(command):
        while at < len(lines):
            line = lines[at].lstrip("\t") if strips_tabs else lines[at]
            at += 1
            if line == name:
                break
    return at


def _end_of_command(lines: list[str], begin: int) -> int:
    """Give the line after a shell command: a shell says whether it is whole.

    One that can't be read at all counts as whole: the image's shell, another perhaps, is to say so.
    """
    at = begin
    while at < len(lines):
        line = lines[at]
        at = _after_heredocs(lines, at + 1, line)
        text = "\n".join(lines[begin:at])
        if not _GOES_ON.search(lines[at - 1]) and _is_whole(text):
            return at
    return at


def _is_whole(command: str) -> bool:
    done = subprocess.run(
        ["sh", "-n"],
        input=command.encode("utf-8", "surrogateescape"),
        capture_output=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    )
    said = done.stderr.decode(errors="replace")
    return done.returncode == 0 or _UNFINISHED.search(said) is None
