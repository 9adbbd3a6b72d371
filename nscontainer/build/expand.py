"""Variables in a Dockerfile's words: ``$NAME``, ``${NAME:-word}``, quotes and escapes.

The rules are Docker's shell lexer's, which are a POSIX shell's without commands, arithmetic and
field splitting (but for EXPOSE): https://docs.docker.com/reference/dockerfile/#environment-replacement.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from nscontainer.errors import SpecError

_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*|[0-9@*#?$!-]")


def word(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """Replace variables and take quotes and escapes away; the result is one word, spaces and all.

    Raises
    ------
    SpecError
        A quote or a brace isn't closed, ``${NAME?text}`` found nothing, or the form isn't known.
    """
    return "".join(part for part, _ in _Scanner(text, variables, escape).parts())


def words(text: str, variables: Mapping[str, str], escape: str = "\\") -> list[str]:
    """Do the same, then split at white space that wasn't quoted, also in variables' values."""
    found: list[str] = []
    current: str | None = None
    for part, quoted in _Scanner(text, variables, escape).parts():
        if quoted:
            current = (current or "") + part
            continue
        for piece in re.split(r"(\s+)", part):
            if piece.isspace():
                if current is not None:
                    found.append(current)
                current = None
            elif piece:
                current = (current or "") + piece
    return found if current is None else [*found, current]


def text(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """Replace variables in a here-document: quotes in it are only characters.

    Raises
    ------
    SpecError
        A brace isn't closed, or the form isn't known.
    """
    return _Scanner(text, variables, escape).text()


class _Scanner:
    """Reads a text from left to right."""

    def __init__(self, text: str, variables: Mapping[str, str], escape: str) -> None:
        self._text = text
        self._variables = variables
        self._escape = escape
        self._at = 0

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        self._at += 1
        return self._text[self._at - 1 : self._at]

    def parts(self, until: str = "") -> list[tuple[str, bool]]:
        """Give pieces of the result, and whether each was quoted; up to a closing character."""
        found: list[tuple[str, bool]] = []
        while (char := self._peek()) and char != until:
            if char == "'":
                found.append((self._single(), True))
            elif char == '"':
                found.append((self._double(), True))
            elif char == "$":
                found.append((self._variable(), False))
            elif char == self._escape:
                self._at += 1
                found.append((self._take() or self._escape, True))
            else:
                found.append((self._take(), False))
        return found

    def text(self) -> str:
        """Give the whole, as between double quotes; but a double quote is nothing special."""
        made = ""
        while char := self._peek():
            if char == "$":
                made += self._variable()
            elif char == self._escape:
                self._at += 1
                following = self._take()
                made += (
                    following
                    if following in ("$", self._escape) and following
                    else char + following
                )
            else:
                made += self._take()
        return made

    def _single(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise self._wrong("a ' isn't closed")
        inside = self._text[self._at + 1 : end]
        self._at = end + 1
        return inside

    def _double(self) -> str:
        self._at += 1
        inside = ""
        while (char := self._peek()) != '"':
            if not char:
                raise self._wrong("a \" isn't closed")
            if char == "$":
                inside += self._variable()
            elif char == self._escape:
                self._at += 1
                following = self._take()
                # As in a shell's double quotes: before anything else it stands for itself.
                inside += following if following in ('"', "$", self._escape) else char + following
            else:
                inside += self._take()
        self._at += 1
        return inside

    def _variable(self) -> str:
        self._at += 1
        if self._peek() == "{":
            self._at += 1
            return self._braced()
        found = _NAME.match(self._text, self._at)
        if found is None:
            return "$"
        self._at = found.end()
        return self._variables.get(found[0], "")

    def _braced(self) -> str:
        found = _NAME.match(self._text, self._at)
        if found is None:
            raise self._wrong("${ has no name after it")
        self._at = found.end()
        name, value = found[0], self._variables.get(found[0])
        operator = self._take()
        if operator == "}":
            return value or ""
        if operator == ":":
            operator = self._take()
            value = value or None
        if operator not in ("-", "+", "?") or not operator:
            raise self._wrong(f"${{{name}{operator}… can't be read")
        other = "".join(part for part, _ in self.parts("}"))
        if self._take() != "}":
            raise self._wrong(f"${{{name} isn't closed")
        if operator == "+":
            return "" if value is None else other
        if value is None and operator == "?":
            raise SpecError(f"{name}: {other or 'not set'}", hint=f"--build-arg {name}=VALUE")
        return other if value is None else value

    def _wrong(self, what: str) -> SpecError:
        hint = "$NAME, ${NAME}, ${NAME:-default} or ${NAME:+other}; \\$ is a dollar sign"
        return SpecError(f"{what} in {self._text!r}", hint=hint)
