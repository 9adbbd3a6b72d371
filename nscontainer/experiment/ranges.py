"""Ranges of levels, ``10%..100%:10%`` and ``64M..1G:x2``, in exact decimals and the unit of the first."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Final

from nscontainer.errors import SpecError

MOST_LEVELS: Final = 1000
FORM: Final = "FIRST..LAST:STEP"

_RANGE = re.compile(r"(?P<first>.+?)\.\.(?P<last>.+?)(?::(?P<step>.+))?")
_QUANTITY = re.compile(r"([-+]?(?:\d+(?:\.\d*)?|\.\d+))\s*([a-zA-Zµμ%/]*)")
_PLAIN = re.compile(r"[-+.\d]+\.\.[-+.\d]+(?::x?[-+.\d]+)?")


def is_plain(text: str) -> bool:
    """Tell whether a text is a range of plain numbers: ``1..8:x2``."""
    return _PLAIN.fullmatch(text) is not None


def expand(
    text: str, size_of: Callable[[str], float | int | str | None]
) -> tuple[list[Decimal], str]:
    """Give the steps of a range, and the unit that they are in.

    Parameters
    ----------
    text
        ``FIRST..LAST:STEP`` or ``FIRST..LAST:xFACTOR``; between plain whole numbers the step may be
        left out, for 1. The last is among them where the steps meet it.
    size_of
        Gives the size of ``1G`` in the base unit; called where a range has two units.

    Raises
    ------
    SpecError
        What is wrong with it, without the name of the option.
    """
    match = _RANGE.fullmatch(text)
    if match is None:
        raise _bad(text, "can't be read")
    first, unit = _quantity(text, match["first"])
    last, last_unit = _quantity(text, match["last"])
    step_text = match["step"] or ""
    factor = step_text.lower().startswith("x")
    if step_text:
        step, step_unit = _quantity(text, step_text[1:] if factor else step_text)
    elif unit or last_unit or first % 1 or last % 1:
        raise _bad(text, "has no step")
    else:
        step, step_unit = Decimal(1), ""
    if factor and step_unit:
        raise _bad(text, "has a unit in its factor")
    if bool(unit) != bool(last_unit) or (not factor and bool(unit) != bool(step_unit)):
        raise _bad(text, "has a unit missing")
    last *= _ratio(text, last_unit, unit, size_of)
    if not factor:
        step *= _ratio(text, step_unit, unit, size_of)
    if last < first:
        raise _bad(text, "runs backward")
    if step <= (1 if factor else 0) or (factor and first <= 0):
        raise _bad(text, "never comes to its end")
    found = []
    while first <= last:
        found.append(first)
        if len(found) > MOST_LEVELS:
            raise _bad(text, f"has more than {MOST_LEVELS} levels")
        first = first * step if factor else first + step
    return found, unit


def _quantity(text: str, part: str) -> tuple[Decimal, str]:
    match = _QUANTITY.fullmatch(part.strip())
    if match is None:
        raise _bad(text, "can't be read")
    return Decimal(match[1]), match[2]


def _ratio(
    text: str, unit: str, base: str, size_of: Callable[[str], float | int | str | None]
) -> Decimal:
    """Tell how many of one unit another is: 1024 for G in M."""
    if unit == base:
        return Decimal(1)
    try:
        one, other = (Decimal(str(size_of(f"1{name}"))) for name in (unit, base))
    except SpecError:
        raise _bad(text, "can't be read") from None
    return one / other


def written(value: Decimal) -> str:
    """Write a decimal without an exponent and without zeros at its end."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _bad(text: str, what: str) -> SpecError:
    return SpecError(f"range {text!r} {what}", hint=FORM)
