"""Patterns of file names: COPY's wildcards, and ``.dockerignore``."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass

from nscontainer.errors import SpecError


def has_wildcard(text: str) -> bool:
    """Tell whether a source is a pattern."""
    return any(char in text for char in "*?[")


def compiled(pattern: str) -> re.Pattern[str]:
    r"""Make a pattern of Go's ``filepath.Match``, with ``**``: ``*`` and ``?`` don't match a slash.

    Raises
    ------
    SpecError
        A bracket isn't closed.
    """
    made, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**", at):
            at += 2
            if pattern.startswith("/", at):
                at += 1
                made += "(?:.*/)?"
            else:
                made += ".*"
            continue
        if char == "*":
            made += "[^/]*"
        elif char == "?":
            made += "[^/]"
        elif char == "[":
            end = pattern.find("]", at + 2)
            if end < 0:
                raise SpecError(f"pattern {pattern!r} can't be read", hint="a [ isn't closed")
            made += _any_of(pattern[at + 1 : end])
            at = end
        elif char == "\\" and at + 1 < len(pattern):
            at += 1
            made += re.escape(pattern[at])
        else:
            made += re.escape(char)
        at += 1
    try:
        return re.compile(made, re.DOTALL)
    except re.error as error:
        raise SpecError(f"pattern {pattern!r} can't be read", hint=str(error)) from None


def _any_of(inside: str) -> str:
    """Make the class of a bracket's characters and ranges."""
    negated = "^" if inside.startswith("^") else ""
    members = re.findall(r"(\\.|.)(?:-(\\.|.))?", inside.removeprefix("^"), re.DOTALL)
    parts = [
        re.escape(low[-1]) + (f"-{re.escape(high[-1])}" if high else "") for low, high in members
    ]
    return f"[{negated}{''.join(parts)}]" if parts else "(?!)"


@dataclass(frozen=True, slots=True)
class Ignored:
    """What ``.dockerignore`` leaves out: the last pattern that matches a path, or a parent, decides."""

    rules: tuple[tuple[re.Pattern[str], bool], ...] = ()
    """Pattern, and whether what it matches is left out (else it is taken after all)."""

    @classmethod
    def parse(cls, lines: Iterable[str]) -> Ignored:
        """Read the lines of a ``.dockerignore``."""
        rules = []
        for line in lines:
            text = line.removeprefix("\ufeff").strip()
            if not text or text.startswith("#"):
                continue
            leaves_out = not text.startswith("!")
            path = posixpath.normpath(text.removeprefix("!").strip()).lstrip("/")
            if path not in ("", "."):
                rules.append((compiled(path), leaves_out))
        return cls(tuple(rules))

    def __call__(self, path: str) -> bool:
        """Tell whether a path, relative to the context, is left out."""
        left_out = False
        parts = path.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        for pattern, leaves_out in self.rules:
            if left_out != leaves_out and any(pattern.fullmatch(one) for one in above):
                left_out = leaves_out
        return left_out

    @property
    def has_exceptions(self) -> bool:
        """Whether something in a directory that is left out may be taken after all."""
        return any(not leaves_out for _, leaves_out in self.rules)
