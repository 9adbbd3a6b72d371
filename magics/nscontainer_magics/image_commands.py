"""``%container``: the sub-commands about images. Tables are DataFrames, their units in ``attrs``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from nscontainer import images
from nscontainer.cli import image_options, image_rows
from nscontainer.cli.images import inspected
from nscontainer.errors import NsContainerError

if TYPE_CHECKING:
    from pandas import DataFrame

    from nscontainer.layerstack import Stack

_UNITS: Final = {"size_bytes": "bytes", "reclaimable_bytes": "bytes"}


def arguments(name: str, words: Sequence[str]) -> Any:
    """Parse a sub-command's arguments."""
    return image_options.parser(name, magic=True).parse_args(words)


def frame(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> DataFrame:
    """Lay rows out; times are datetime64 in UTC, what nobody knows is NA."""
    pandas = import_module("pandas")
    made: DataFrame = pandas.DataFrame(list(rows), columns=list(columns))
    if "created" in made:
        # Out of bounds: a time that no image was made at, as year 1 of Go.
        made["created"] = pandas.to_datetime(made["created"], utc=True, errors="coerce")
    if "layer" in made:
        made["layer"] = made["layer"].astype("Int64")
    made.attrs["units"] = {name: unit for name, unit in _UNITS.items() if name in made}
    return made


# --- looking -----------------------------------------------------------------------------------


def _images(words: list[str]) -> DataFrame:
    given = arguments("images", words)
    return frame(image_rows.listed(given.filter, nameless=given.all), image_rows.IMAGES)


def _history(words: list[str]) -> DataFrame:
    return frame(images.history(arguments("history", words).image), image_rows.HISTORY)


def _layers(words: list[str]) -> Stack:
    return images.layers(arguments("layers", words).name)


def _df(words: list[str]) -> DataFrame:
    arguments("df", words)
    return frame(images.usage(), image_rows.DF)


def inspect(words: list[str]) -> dict[str, Any]:
    """Give all that is known of a container, else of an image."""
    from nscontainer import options

    parser = options.Parser(prog="%container inspect", add_help=False)
    parser.add_argument("name", metavar="NAME")
    return inspected(parser.parse_args(words).name)


# --- changing ----------------------------------------------------------------------------------


def _tag(words: list[str]) -> None:
    given = arguments("tag", words)
    images.tag(given.image, given.name)


def _rmi(words: list[str]) -> None:
    given = arguments("rmi", words)
    first: NsContainerError | None = None
    for name in given.images:
        try:
            print("\n".join(images.remove(name, force=given.force)))
        except NsContainerError as error:
            if first is not None:
                print(first, file=sys.stderr)
            first = error
    if first is not None:
        raise first


def _prune(words: list[str]) -> None:
    given = arguments("prune", words)
    print("\n".join(image_rows.pruned(images.prune(all=given.all))))


CALLS: Final = {
    "images": _images,
    "layers": _layers,
    "history": _history,
    "tag": _tag,
    "rmi": _rmi,
    "prune": _prune,
    "df": _df,
}
"""By name; usage and summary are in :data:`nscontainer.cli.image_options.COMMANDS`."""
