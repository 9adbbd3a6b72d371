"""``-i x,df`` and ``--out name=expr``: which of the notebook's variables, and what of the cell's."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from nscontainer.errors import SpecError
from nscontainer.values.inputs import check_name
from nscontainer.values.transfer import check_expression, fault_of

if TYPE_CHECKING:
    from nscontainer.measure.result import RunResult

_NOT_DEFINED: Final = re.compile(r"name '(\w+)' is not defined")


def parse_inputs(texts: Iterable[str]) -> dict[str, str]:
    """Read ``x,df`` and ``inside=outside``.

    Returns
    -------
    dict
        The name of a variable of the notebook, by the name that it gets in the cell.

    Raises
    ------
    SpecError
        One line.
    """
    found: dict[str, str] = {}
    for text in texts:
        for piece in text.split(","):
            inside, equals, outside = (part.strip() for part in piece.partition("="))
            for name in (inside, outside) if equals else (inside,):
                check_name(name, "-i x,df or -i inside=outside")
            _add(found, inside, outside if equals else inside, "-i")
    return found


def parse_out(texts: Iterable[str]) -> dict[str, str]:
    """Read ``a,b=expression``.

    Returns
    -------
    dict
        An expression, by the name of the notebook's variable that is to have its value.

    Raises
    ------
    SpecError
        One line.
    """
    found: dict[str, str] = {}
    for text in texts:
        for piece in _pieces(text):
            name, equals, expression = (part.strip() for part in piece.partition("="))
            check_name(name, "--out NAME, or --out NAME=EXPRESSION")
            check_expression(name, expression if equals else name)
            _add(found, name, expression if equals else name, "--out")
    return found


def _pieces(text: str) -> list[str]:
    """Split at the commas between items, not at those within an expression: ``m=max(a,b),c``."""
    pieces: list[str] = []
    begun: str | None = None
    for part in text.split(","):
        begun = part if begun is None else f"{begun},{part}"
        if _is_whole(begun):
            pieces.append(begun)
            begun = None
    return pieces if begun is None else [*pieces, begun]


def _is_whole(piece: str) -> bool:
    name, equals, expression = piece.partition("=")
    return fault_of(expression if equals else name) is None


def _add(found: dict[str, str], name: str, what: str, option: str) -> None:
    if found.setdefault(name, what) != what:
        message = f"{option} has {name!r} twice: {found[name]!r} and {what!r}"
        raise SpecError(message, hint="give each a name of its own")


def missing(result: RunResult, namespace: Mapping[str, Any]) -> str | None:
    """Say how a cell gets at a name that it lacked and the notebook has; None where it isn't that."""
    errors = [output for output in result.outputs if output.get("output_type") == "error"]
    if not errors or errors[-1].get("ename") != "NameError":
        return None
    found = _NOT_DEFINED.match(str(errors[-1].get("evalue")))
    if found is None or found[1] not in namespace:
        return None
    name, value = found[1], namespace[found[1]]
    if isinstance(value, types.ModuleType):
        alias = "" if value.__name__ == name else f" as {name}"
        return f"{name} is the notebook's: import {value.__name__}{alias} in the cell"
    if isinstance(value, (types.FunctionType, type)):
        return f"{name} is the notebook's: define it in the cell, or import it there"
    return f"{name} is a variable of the notebook: -i {name} takes it along"


def to_take(namespace: Mapping[str, Any], hidden: Iterable[str]) -> list[str]:
    """Give the names of variables that may be taken into a container, for Tab."""
    kinds = (types.ModuleType, types.FunctionType, type)
    shown = [name for name in namespace if not name.startswith("_") and name not in set(hidden)]
    return [name for name in shown if not isinstance(namespace[name], kinds)]
