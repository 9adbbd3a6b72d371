"""What results of all kinds share: frames, pictures and a card, that load only when they are looked at.

Those stand above this row and build on it. A result reaches up to them by name and only when asked, so
that a run costs no import of pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar

from nscontainer.errors import HostError


def above(module: str) -> Any:
    """Load a module of the rows above.

    Raises
    ------
    HostError
        What it builds on is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("nscontainer"):
            raise
        message = f"this needs {error.name}, which is not installed"
        raise HostError(message, hint=f"pip install {error.name}") from None


class Shown:
    """Is shown as its card: in a list, in a terminal, in a notebook."""

    _CARD: ClassVar[str]
    """The module that writes it: ``line``, ``text`` and ``html``."""

    def __repr__(self) -> str:
        return str(above(self._CARD).line(self))

    def __str__(self) -> str:
        return str(above(self._CARD).text(self))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: FBT001  # IPython's call
        printer.text(f"{type(self).__name__}(...)" if cycle else str(self))

    def _repr_html_(self) -> str:
        return str(above(self._CARD).html(self))
