"""``%container history``: the sweeps that are kept, and one of them again."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from nscontainer import options
from nscontainer.errors import NotFoundError, SpecError
from nscontainer_magics import image_commands

USAGE: Final = "[--what TEXT | ID | rm ID… | IMAGE]"
SUMMARY: Final = "the sweeps that are kept, or one; what made an image"


def history(words: list[str]) -> Any:
    """List the sweeps, give one, or forget some; with an image's name, list what made it.

    Raises
    ------
    SpecError, NotFoundError
        An id is missing or unknown.
    """
    store, kept = (
        import_module("nscontainer.experiment.store").Store(),
        import_module("nscontainer.history"),
    )
    parser = options.Parser(prog="%container history", add_help=False)
    parser.add_argument("words", metavar="ID", nargs="*")
    kept.add_filters_to(parser)
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
        if given.status is not None or given.what is not None:
            message = "--status and --what choose from the list of sweeps"
            raise SpecError(message, hint="leave the id out")
        try:
            return store.load(given.words[0])
        except NotFoundError:
            return image_commands.CALLS["history"](words)
    return kept.table(given.status, given.what)


def ids() -> list[str]:
    """List the ids, for Tab."""
    from nscontainer.experiment.store import Store

    return [str(row["id"]) for row in Store().list()]
