"""What the tables about images say, as rows: the command line lays them out, a notebook makes frames of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nscontainer import images as library
from nscontainer.image import facts
from nscontainer.units import format_size

if TYPE_CHECKING:
    from nscontainer.image.progress import Event
    from nscontainer.image.records import Image
    from nscontainer.image.store import Pruned

Row = dict[str, Any]

IMAGES = ("name", "id", "created", "size_bytes", "layers", "used_by")
HISTORY = ("layer", "created", "created_by", "size_bytes", "comment", "diff_id")
DIFF = ("change", "path")
DF = ("type", "count", "in_use", "size_bytes", "reclaimable_bytes")


def listed(pattern: str | None, *, nameless: bool) -> list[Row]:
    """List the store's images."""
    return images(library.list(), library.used_by(), pattern, nameless=nameless)


def images(
    found: Iterable[Image],
    used: Mapping[str, Sequence[str]],
    pattern: str | None,
    *,
    nameless: bool,
) -> list[Row]:
    """Give a row for each name of each image.

    Parameters
    ----------
    used
        By an image's id, the names of the containers made from it.
    pattern
        A name, a repository or a pattern of either; None for all.
    nameless
        Whether those without a name are listed, under None.
    """
    rows: list[Row] = []
    for image in found:
        names: list[str | None] = [
            n for n in image.names if pattern is None or facts.matches(n, pattern)
        ]
        if not image.names and nameless and pattern is None:
            names = [None]
        rows += [
            {
                "name": name,
                "id": short(image.id),
                "created": image.created,
                "size_bytes": image.size,
                "layers": len(image.layers),
                "used_by": list(used.get(image.id, ())),
            }
            for name in names
        ]
    return rows


def short(digest: str) -> str:
    """Shorten a digest as Docker does: twelve hexadecimal digits."""
    return digest.rpartition(":")[2][:12]


def one_line(image: Image, name: str | None = None, note: str = "") -> str:
    """Say in one line what has come of it: its name, what it is, how large."""
    called = name or (image.names[0] if image.names else "an image without a name")
    count = len(image.layers)
    layers = f"{count} layer{'s' * (count != 1)}"
    said = f"{called} · {short(image.id)} · {layers}, {format_size(image.size)}"
    return f"{said} · {note}" if note else said


def remarks(*taken: Image) -> list[str]:
    """Say what of images could not be unpacked as it was: owners, devices, attributes; each remark once."""
    from nscontainer.image.store import Store

    store = Store()
    layers = {layer.diff_id for image in taken for layer in image.layers}
    known = (store.layer_facts(diff_id) or {} for diff_id in sorted(layers))
    notes = dict.fromkeys(str(note) for one in known for note in one.get("notes", ()))
    return [f"warning: {note}" for note in notes]


def hearing(notes: list[str]) -> Callable[[Event], None]:
    """Give what hears the same of an import, whose layer is not the tar's own: as its last event says it."""

    def hear(event: Event) -> None:
        if event.kind == "done" and event.note:
            notes.extend(f"warning: {note}" for note in event.note.split("; "))

    return hear


def pruned(result: Pruned) -> list[str]:
    """Say what was removed and how much it was."""
    return [*result.removed, f"{format_size(result.freed_bytes)} freed"]
