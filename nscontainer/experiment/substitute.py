"""Free parameters put into what runs: ``{n}`` in its text, variables in a cell, the environment of a command."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

from nscontainer.errors import SpecError
from nscontainer.experiment.plan import Value, Work


def fill(work: Work, parameters: Mapping[str, Value]) -> Work:
    """Put the parameters' values where ``{name}`` stands.

    Only the exact ``{name}`` of a parameter is replaced, and once: other braces stay, as do a shell's
    ``${name}`` (it has them in its environment) and a value that looks like one more ``{name}``.

    Raises
    ------
    SpecError
        A parameter occurs nowhere in a command or a script.
    """
    check(work, parameters)
    if not parameters:
        return work
    python = work.kind == "cell"
    return dataclasses.replace(
        work,
        code=_filled(work.code, parameters, python=python),
        stdin=_filled(work.stdin, parameters, python=python),
        command=None
        if work.command is None
        else tuple(_filled(part, parameters, python=python) or "" for part in work.command),
    )


def _filled(text: str | None, parameters: Mapping[str, Value], *, python: bool) -> str | None:
    if text is None:
        return None
    pattern = rf"(?<!\$)\{{({'|'.join(map(re.escape, parameters))})\}}"
    return re.sub(pattern, lambda match: _text(parameters[match[1]], python=python), text)


def _text(value: Value, *, python: bool) -> str:
    if isinstance(value, bool) and not python:
        return str(value).lower()
    return str(value)


def check(work: Work, names: Iterable[str]) -> None:
    """Refuse a parameter that a command or a script can't know of: all its levels would be the same.

    A cell has it as a variable, and may hand it on unseen.

    Raises
    ------
    SpecError
        One line.
    """
    if work.kind == "cell":
        return
    text = "\n".join([*(work.command or ()), work.code or "", work.stdin or ""])
    # A script may read its environment in its language's way; a command's words are a program's.
    forms = r"\b{0}\b" if work.kind == "script" else r"\{{{0}\}}|\${0}\b|\$\{{{0}\b"
    for name in names:
        if re.search(forms.format(name), text) is None:
            message = f"parameter {name!r} occurs nowhere in the {work.kind}"
            raise SpecError(message, hint=f"write {{{name}}} where its value belongs")


def environment(parameters: Mapping[str, Value]) -> dict[str, str]:
    """Give the parameters as a command or a script has them in its environment."""
    return {name: _text(value, python=False) for name, value in parameters.items()}
