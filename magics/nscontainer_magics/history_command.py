"""``%container history``: the sweeps that are kept, and one of them again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from nscontainer import options
from nscontainer.errors import NotFoundError, SpecError
from nscontainer_magics import image_commands

if TYPE_CHECKING:
    from nscontainer.experiment.plan import Plan

USAGE: Final = "[ID | rm ID… | IMAGE]"
SUMMARY: Final = "the sweeps that are kept, or one; what made an image"


def history(words: list[str]) -> Any:
    """List the sweeps, give one, or forget some; with an image's name, list what made it.

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
        try:
            return store.load(given.words[0])
        except NotFoundError:
            return image_commands.CALLS["history"](words)
    return import_module("pandas").DataFrame([_row(row) for row in store.list()], columns=_COLUMNS)


_COLUMNS: Final = ["id", "created", "status", "what", "varied", "runs", "host"]


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    plan: Plan = row["plan"]
    work = plan.work
    text = work.name or work.code or " ".join(work.command or ())
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return {
        "id": row["id"],
        "created": datetime.fromtimestamp(row["created_unix"], tz=UTC).replace(microsecond=0),
        "status": row["status"],
        "what": (lines or [""])[0][:60],
        "varied": " × ".join(f"{f.name} ({len(f.levels)})" for f in plan.factors),
        "runs": row["runs"],
        "host": row["host"],
    }


def ids() -> list[str]:
    """List the ids, for Tab."""
    from nscontainer.experiment.store import Store

    return [str(row["id"]) for row in Store().list()]
