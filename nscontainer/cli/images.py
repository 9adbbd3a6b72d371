"""The sub-commands that look at images and change them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from nscontainer import images
from nscontainer.cli import image_options, image_rows
from nscontainer.cli.text import age, for_each, printable, shorten, table
from nscontainer.errors import NotFoundError, SpecError
from nscontainer.units import format_size

_BY_WIDTH = 60


def arguments(name: str, argv: Sequence[str]) -> Any:
    """Parse a sub-command's arguments."""
    return image_options.parser(name, magic=False).parse_args(argv)


def print_json(rows: Any) -> int:
    """Print rows, times in ISO 8601."""
    print(json.dumps(rows, indent=2, default=lambda when: when.isoformat()))
    return 0


# --- looking -----------------------------------------------------------------------------------


def images_command(argv: Sequence[str]) -> int:
    """List images."""
    given = arguments("images", argv)
    rows = image_rows.listed(given.filter, nameless=given.all)
    if given.json:
        return print_json(rows)
    print(images_table(rows, now=time.time()))
    return 0


def images_table(rows: Sequence[image_rows.Row], *, now: float) -> str:
    """Lay out images as Docker does."""
    return table(
        ["NAME", "IMAGE ID", "CREATED", "SIZE", "LAYERS", "USED BY"],
        [
            [
                row["name"] or "<none>",
                row["id"],
                ago(row["created"], now),
                format_size(row["size_bytes"]),
                str(row["layers"]),
                ", ".join(row["used_by"]),
            ]
            for row in rows
        ],
    )


def ago(when: Any, now: float) -> str:
    """Say how long ago a time was; "-" where there is none, or it is the epoch of a reproducible build."""
    if when is None or when.timestamp() <= 0:
        return "-"
    return f"{age(now - when.timestamp())} ago"


def history_command(argv: Sequence[str]) -> int:
    """List what made an image."""
    given = arguments("history", argv)
    rows = images.history(given.image)
    if given.json:
        return print_json(rows)
    from nscontainer.layers_view import shortened

    now = time.time()
    print(
        table(
            ["LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"],
            [
                [
                    "" if row["layer"] is None else str(row["layer"]),
                    ago(row["created"], now),
                    shorten(shortened(row["created_by"]), _BY_WIDTH),
                    format_size(row["size_bytes"]),
                    shorten(row["comment"], _BY_WIDTH),
                ]
                for row in rows
            ],
        )
    )
    return 0


def layers_command(argv: Sequence[str]) -> int:
    """Show the layers; draw them into a file."""
    parser = image_options.parser("layers", magic=False)
    parser.add_argument("--plot", metavar="FILE", help="draw it: .png, .svg or .pdf")
    given = parser.parse_args(argv)
    stack = images.layers(given.name)
    print(stack)
    if given.plot is not None:
        stack.save_plot(given.plot)
    return 0


def df_command(argv: Sequence[str]) -> int:
    """Show what takes space."""
    given = arguments("df", argv)
    rows = images.usage()
    if given.json:
        return print_json(rows)
    print(
        table(
            ["TYPE", "COUNT", "IN USE", "SIZE", "RECLAIMABLE"],
            [
                [
                    row["type"],
                    str(row["count"]),
                    str(row["in_use"]),
                    format_size(row["size_bytes"]),
                    format_size(row["reclaimable_bytes"]),
                ]
                for row in rows
            ],
        )
    )
    return 0


# --- changing ----------------------------------------------------------------------------------


def tag_command(argv: Sequence[str]) -> int:
    """Give one more name."""
    given = arguments("tag", argv)
    images.tag(given.image, given.name)
    return 0


def rmi_command(argv: Sequence[str]) -> int:
    """Remove names and images."""
    given = arguments("rmi", argv)

    def remove(reference: str) -> None:
        for line in images.remove(reference, force=given.force):
            print(printable(line), flush=True)

    return for_each(given.images, remove)


def prune_command(argv: Sequence[str]) -> int:
    """Remove images that nothing needs."""
    given = arguments("prune", argv)
    if not given.force and sys.stdin.isatty() and not _agreed(all_=given.all):
        return 1
    for line in image_rows.pruned(images.prune(all=given.all)):
        print(printable(line))
    return 0


def _agreed(*, all_: bool) -> bool:
    what = "every image that no container uses" if all_ else "images without a name"
    print(f"This removes {what}. Go on? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def inspected(reference: str) -> dict[str, Any]:
    """Give all that is known of a container, else of an image.

    Raises
    ------
    NotFoundError
        There is neither.
    """
    from nscontainer.cli.engine import container_type
    from nscontainer.image import facts

    try:
        return container_type().get(reference).inspect()
    except NotFoundError:
        try:
            return images.inspect(reference)
        except (NotFoundError, SpecError) as no_image:
            raise facts.neither(reference, no_image) from None
