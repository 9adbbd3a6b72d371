"""What a run reported of itself (``nscontainer.report``): it comes from inside, so it is checked here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nscontainer.measure.text import text_of
from nscontainer.runner.reporting import MOST_NAMES, refusal

Value = int | float | str | bool
MOST_REFUSED: Final = 10


class Reported:
    """Takes reports as they come; the last value of a name counts.

    Attributes
    ----------
    kept
        What can be believed to be plain values, by name.
    refused
        Why others are left out, a line each, :data:`MOST_REFUSED` at most.
    """

    def __init__(self) -> None:
        self.kept: dict[str, Value] = {}
        self.refused: list[str] = []

    def add(self, values: Any) -> None:
        """Take the values of one report, whatever it is."""
        if not isinstance(values, Mapping):
            self.refuse("a report without values")
            return
        for name, value in values.items():
            why = refusal(name, value)
            if why is None and name not in self.kept and len(self.kept) >= MOST_NAMES:
                why = f"{text_of(name, 40)} is one name too many; at most {MOST_NAMES} are kept"
            if why is not None:
                self.refuse(why)
            else:
                self.kept[name] = value

    def refuse(self, why: str) -> None:
        """Note why something is left out."""
        line = text_of(why, 200)
        if len(self.refused) < MOST_REFUSED and line not in self.refused:
            self.refused.append(line)


def line(values: Mapping[str, Value], limit: int) -> str:
    """Write reported values in a line: ``items 123 · rate 4.5``."""
    return text_of(" · ".join(f"{name} {written(value)}" for name, value in values.items()), limit)


def written(value: Value) -> str:
    """Write one: a float with six digits, as they are shown everywhere."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
