"""``%container history``: the sweeps that are kept, and one of them again."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from nscontainer import options
from nscontainer.errors import SpecError

if TYPE_CHECKING:
    from pandas import DataFrame

    from nscontainer.experiment.sweep import Sweep

USAGE: Final = "[ID], or history rm ID…"
SUMMARY: Final = "the sweeps that are kept, as a DataFrame; or one of them, to use again"


def history(words: list[str]) -> DataFrame | Sweep | None:
    """List the sweeps, give one, or forget some.

    Raises
    ------
    SpecError, NotFoundError
        An id is missing or unknown.
    """
    store = import_module("nscontainer.experiment.store").Store()
    parser = options.Parser(prog="%container history", add_help=False)
    parser.add_argument("words", metavar="ID", nargs="*")
    given: Any = parser.parse_args(words)
    if given.words[:1] == ["rm"]:
        if not given.words[1:]:
            message = "history rm needs the id of a sweep"
            raise SpecError(message, hint="%container history shows them")
        for name in given.words[1:]:
            store.delete(name)
        return None
    if len(given.words) > 1:
        message = f"{given.words[1]!r} is one argument too many"
        raise SpecError(message, hint="%container history ID gives one sweep")
    if given.words:
        sweep: Sweep = store.load(given.words[0])
        return sweep
    table: DataFrame = import_module("nscontainer.history").table()
    return table


def ids() -> list[str]:
    """List the ids, for Tab."""
    store = import_module("nscontainer.experiment.store").Store()
    return [str(row["id"]) for row in store.list()]
