"""What a picture and a text of a layer stack have room for: paths put together, the telling ones first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from nscontainer import units
from nscontainer.measure.text import plural, text_of

if TYPE_CHECKING:
    from nscontainer.layerstack import Entry, Kind, Layer, Stack

_MIXED: Final = ((-1, "visible"),)
_REMOVED: Final = ((-2, "deleted"),)
_MOST_PATHS: Final = 30
_BASE: Final = 3
_LEAST_OWN: Final = 2
_MOST_OF_BASE: Final = 2
"""What only the base has is told of by its size: a few of its directories are enough."""
Signature = tuple[tuple[int, str], ...]


@dataclass(slots=True)
class Cell:
    """What one layer has at a column."""

    kind: Kind
    files: int = 0
    size_bytes: int | None = 0


@dataclass(slots=True)
class Column:
    """A path, or a directory below which all files fare alike, or ("") everything else."""

    path: str
    cells: dict[int, Cell] = field(default_factory=dict)
    files: int = 0
    """How many paths it stands for."""

    @property
    def seen(self) -> int | None:
        """The layer that a container sees here; None where it sees nothing."""
        here = (n for n, cell in self.cells.items() if cell.kind in ("visible", "opaque"))
        return max(here, default=None)

    @property
    def size_bytes(self) -> int:
        """Of all its files in all layers."""
        return sum(cell.size_bytes or 0 for cell in self.cells.values())

    @property
    def telling(self) -> bool:
        """Whether layers lie over each other here."""
        return len(self.cells) > 1 or self.seen is None

    @property
    def label(self) -> str:
        """Its path, a directory's with a slash."""
        return f"{self.path}/" if self.files > 1 else self.path


def columns(stack: Stack, most: int) -> tuple[list[Column], int]:
    """Choose at most ``most`` columns, bottom layers first, and one for everything else before them.

    Returns
    -------
    tuple
        The columns, and how many paths where layers lie over each other found no room.
    """
    found = grouped(stack.entries)
    telling = sorted((c for c in found if c.telling), key=lambda c: (-max(c.cells), -c.size_bytes))
    plain = [c for c in found if not c.telling]
    plain.sort(key=lambda c: (_rank(stack, c), -c.size_bytes))
    of_base = [c for c in plain if _rank(stack, c) == _BASE]
    if len(found) > most:
        plain = [*plain[: len(plain) - len(of_base)], *of_base[:_MOST_OF_BASE]]
    # What the container itself has added is to be seen, however much lies over each other.
    own = sum(_rank(stack, c) == 0 for c in plain[:_LEAST_OWN])
    kept = telling[: max(0, most - own)]
    kept += plain[: max(0, most - len(kept))]
    rest = Column("")
    chosen = {id(column) for column in kept}
    left_out = sum(c.files for c in telling[max(0, most - own) :])
    for column in found:
        if id(column) not in chosen:
            _merge(rest, column)
    kept.sort(key=lambda c: (_begins(c, kept), max(c.cells), c.path))
    return ([rest] if rest.cells else []) + kept, left_out


def _rank(stack: Stack, column: Column) -> int:
    """Tell whose own files are shown first: the container's, then what layers added, then the base's."""
    (layer,) = column.cells
    kind = stack.layers[layer].kind
    return {"rw": 0, "init": 1, "image": 2, "base": _BASE}[kind]


def _begins(column: Column, columns: Iterable[Column]) -> int:
    """Give the lowest layer of a column; an opaque directory belongs to what it hides."""
    inside = [min(c.cells) for c in columns if c.path.startswith(f"{column.path}/")]
    opaque = any(cell.kind == "opaque" for cell in column.cells.values())
    return min([*column.cells, *(inside if opaque else [])])


def _merge(rest: Column, column: Column) -> None:
    rest.files += column.files
    for layer, cell in column.cells.items():
        if cell.kind == "visible":
            mine = rest.cells.setdefault(layer, Cell("visible"))
            mine.files += cell.files
            mine.size_bytes = (mine.size_bytes or 0) + (cell.size_bytes or 0)


def grouped(entries: Iterable[Entry]) -> list[Column]:
    """Put paths together that lie in one directory and fare alike in every layer.

    All that a removed directory had is one column, from however many layers it came.
    """
    by_path: dict[str, list[Entry]] = {}
    for entry in entries:
        by_path.setdefault(entry.path, []).append(entry)
    marks = {entry.path for entry in entries if entry.kind in ("whiteout", "opaque")}
    removed = {path: top for path, found in by_path.items() if (top := _removed_in(found, marks))}
    signatures = {p: _signature(found) for p, found in by_path.items() if p not in removed}
    below = _directories(signatures)
    by_key: dict[tuple[str, Signature], Column] = {}
    first: dict[int, str] = {}
    key: tuple[str, Signature]
    for path, found in by_path.items():
        if path in removed:
            key = removed[path], _REMOVED
        else:
            key = _highest(path, below), signatures[path]
        column = by_key.setdefault(key, Column(key[0]))
        if column.files == 0:
            first[id(column)] = path
        _add(column, found)
    for (node, signature), column in by_key.items():
        if column.files <= 1 and signature is not _REMOVED:
            column.path = first.get(id(column), node)
    return list(by_key.values())


def _removed_in(found: list[Entry], marks: set[str]) -> str | None:
    """Give the topmost directory with whose removal a path went, or that is removed here; else None."""
    if any(entry.kind == "visible" for entry in found):
        return None
    path = found[0].path
    top = path if path in marks else None
    parent = path.rpartition("/")[0]
    while parent:
        if parent in marks:
            top = parent
        parent = parent.rpartition("/")[0]
    return top


def _signature(found: list[Entry]) -> Signature:
    return tuple((entry.layer, entry.kind) for entry in found)


def _directories(signatures: Mapping[str, Signature]) -> dict[str, Signature]:
    """Give each directory the signature that all below it have, or ``_MIXED``."""
    below: dict[str, Signature] = {}
    for path, signature in signatures.items():
        parent = path.rpartition("/")[0]
        while parent:
            known = below.setdefault(parent, signature)
            if known != signature:
                below[parent] = _MIXED
            parent = parent.rpartition("/")[0]
    return below


def _highest(path: str, below: Mapping[str, Signature]) -> str:
    """Give the highest directory above a path whose files all fare alike, or the path."""
    node, parent = path, path.rpartition("/")[0]
    while parent and below[parent] is not _MIXED:
        node, parent = parent, parent.rpartition("/")[0]
    return node


def _add(column: Column, found: list[Entry]) -> None:
    counted = False
    for entry in found:
        if entry.kind in ("whiteout", "opaque") and entry.path != column.path and column.cells:
            continue  # a mark inside of what was removed as a whole
        cell = column.cells.setdefault(entry.layer, Cell(entry.kind))
        if _WEIGHT[entry.kind] > _WEIGHT[cell.kind]:
            cell.kind = entry.kind
        if entry.kind in ("whiteout", "opaque"):
            cell.size_bytes = None
            continue
        counted = True
        cell.files += 1
        if entry.size_bytes is None:
            cell.size_bytes = None
        elif cell.size_bytes is not None:
            cell.size_bytes += entry.size_bytes
    column.files += counted


_WEIGHT: Final = {"visible": 0, "shadowed": 1, "deleted": 2, "opaque": 3, "whiteout": 4}
"""What a cell is said to be where a layer has several kinds at a removed directory."""


# --- as text -----------------------------------------------------------------------------------


def facts(layer: Layer) -> str:
    """Say how much a layer has: ``1234 files · 45.6 MiB``."""
    if layer.kind == "init":
        return "what the engine mounts files over; never committed"
    if layer.files is None:
        return "this machine's own files, not counted"
    said = [plural(layer.files, "file"), units.format_size(layer.size_bytes)]
    if marks := layer.counts.get("whiteout", 0):
        said.append(plural(marks, "whiteout"))
    if hidden := layer.counts.get("shadowed", 0) + layer.counts.get("deleted", 0):
        said.append(f"{hidden} hidden")
    return " · ".join(said)


def title(stack: Stack, number: int, width: int) -> str:
    """Name a layer: what it is, or what made it."""
    layer = stack.layers[number]
    return text_of(shortened(layer.name), width)


def shortened(created_by: str) -> str:
    """Take the machinery out of a history line: ``/bin/sh -c #(nop)``, ``# buildkit``."""
    text = " ".join(created_by.split())
    text = text.removeprefix("/bin/sh -c #(nop)").strip()
    if text.startswith("/bin/sh -c "):
        text = "RUN " + text.removeprefix("/bin/sh -c ")
    text = text.replace("RUN /bin/sh -c ", "RUN ").removesuffix("# buildkit").strip()
    return text or "(nothing is known of it)"


def text(stack: Stack, *, most: int = _MOST_PATHS) -> str:
    """Write the stack as one would draw it, the top first, then the paths where layers lie over each other."""
    width = max((len(title(stack, n, 60)) for n in range(len(stack.layers))), default=0)
    lines = [f"layers of {text_of(stack.name)}, the top one first"]
    for number in reversed(range(len(stack.layers))):
        layer = stack.layers[number]
        lines.append(f"{number:>3}  {title(stack, number, 60):<{width}}  {facts(layer)}")
    telling = [c for c in grouped(stack.entries) if c.telling]
    telling.sort(key=lambda c: c.path)
    if telling:
        lines += ["", "where layers lie over each other"]
        lines += [f"  {line}" for line in _told(telling[:most])]
    if len(telling) > most:
        lines.append(f"  … and {len(telling) - most} more: .frame has them all")
    lines += [f"note: {note}" for note in stack.notes]
    return "\n".join(lines)


def _told(telling: list[Column]) -> list[str]:
    rows = []
    for column in telling:
        seen = column.seen
        kinds = [
            f"{cell.kind} in {number}"
            for number, cell in sorted(column.cells.items(), reverse=True)
            if cell.kind != "visible"
        ]
        what = "gone" if seen is None else f"from {seen}"
        many = f" ({column.files} files)" if column.files > 1 else ""
        rows.append((f"{text_of(column.label)}{many}", what, ", ".join(kinds)))
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    return [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in rows]
