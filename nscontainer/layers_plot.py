"""A picture of a layer stack: which layer each file comes from, what is shadowed, what is deleted.

As Docker's own drawings have it: the layers lie on each other, the base at the bottom, and one looks
down on them from above. A column is a path, or a directory whose files fare alike.
"""

from __future__ import annotations

import io
import os
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from matplotlib import colormaps, colors
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from nscontainer import layers_view, units
from nscontainer.errors import SpecError
from nscontainer.measure.result_file import replacing
from nscontainer.measure.text import plural, text_of
from nscontainer.palette import ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nscontainer.layers_view import Cell, Column
    from nscontainer.layerstack import Stack

_DPI: Final = 144
_NAMES, _WIDTH, _GAP = 3.5, 0.62, 0.12
"""In inches: the names at the left, a column, between both."""
_HEAD, _FOOT = 1.45, 0.75
_INIT: Final = "#8C8C8C"
_INK: Final = "#222222"
_FAINT: Final = "#6A6A6A"
Colour = tuple[float, float, float]


def draw(stack: Stack, *, most_paths: int = 12) -> Figure:
    """Draw a stack.

    Parameters
    ----------
    stack
        What :func:`nscontainer.images.layers` gives.
    most_paths
        How many columns there may be; what finds no room is put together in the first.

    Returns
    -------
    matplotlib.figure.Figure
        It is no pyplot figure: it goes when it is dropped.
    """
    return _Drawing(stack, most_paths).figure


def png(stack: Stack) -> tuple[bytes, dict[str, int]]:
    """Draw it for a notebook: the picture, and the size to show it in, in CSS pixels."""
    figure = draw(stack)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=_DPI, facecolor="white")
    width, height = (round(inches * 80) for inches in figure.get_size_inches())
    return picture.getvalue(), {"width": width, "height": height}


def save(stack: Stack, path: str | os.PathLike[str], *, most_paths: int = 12) -> None:
    """Draw it into a file; see :meth:`nscontainer.layerstack.Stack.save_plot`."""
    suffix = PurePath(path).suffix.lower()
    if suffix not in (".png", ".svg", ".pdf"):
        message = f"{os.fspath(path)!r} says no format for the picture"
        raise SpecError(message, hint="end it in .png, .svg or .pdf")
    try:
        with replacing(path) as file:
            draw(stack, most_paths=most_paths).savefig(
                file, format=suffix[1:], dpi=_DPI, facecolor="white"
            )
    except OSError as error:
        message = f"{os.fspath(path)!r} can't be written: {error.strerror}"
        raise SpecError(message, hint="name a place that can") from None


class _Drawing:
    """One picture; coordinates are inches from the lower left."""

    def __init__(self, stack: Stack, most_paths: int) -> None:
        self.stack = stack
        self.columns, left_out = layers_view.columns(stack, most_paths)
        count = len(stack.layers)
        self.row = 0.5 if count <= 12 else 0.36
        self.width = _NAMES + _GAP + max(3, len(self.columns)) * _WIDTH + 1.1
        self.height = _FOOT + (count + 1) * self.row + _GAP + _HEAD
        self.figure = Figure(figsize=(self.width, self.height))
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_xlim(0, self.width)
        self.axes.set_ylim(0, self.height)
        self.axes.set_axis_off()
        self.colours = _colours(stack)
        for number in range(count):
            self._slab(number)
        self._heading()
        for place, column in enumerate(self.columns):
            self._column(place, column)
        self._legend(left_out)

    # --- places ----------------------------------------------------------------------------

    def _bottom(self, number: int) -> float:
        """Give where a layer's row begins; one past the last is what the container sees."""
        gap = _GAP if number == len(self.stack.layers) else 0.0
        return _FOOT + number * self.row + gap

    def _left(self, place: int) -> float:
        return _NAMES + _GAP + place * _WIDTH

    # --- parts -----------------------------------------------------------------------------

    def _slab(self, number: int) -> None:
        layer, colour = self.stack.layers[number], self.colours[number]
        bottom, height = self._bottom(number) + 0.03, self.row - 0.06
        right = self._left(max(3, len(self.columns))) + 0.05
        self._box(0.1, bottom, right - 0.1, height, face=_tint(colour, 0.93), edge="none")
        share = _share(layer.size_bytes, [one.size_bytes for one in self.stack.layers])
        self._box(
            0.1, bottom, (_NAMES - 0.1) * share, height, face=_tint(colour, 0.68), edge="none"
        )
        self._box(0.1, bottom, 0.32, height, face=colour, edge="none")
        self._text(0.26, bottom + height / 2, str(number), color=_ink_on(colour), weight="bold")
        tall = self.row > 0.4
        middle = bottom + height / 2
        name = layers_view.title(self.stack, number, 43 if tall else 28)
        self._text(0.5, middle + (0.085 if tall else 0), name, ha="left", weight="bold", size=8)
        if tall:
            facts = layers_view.facts(layer)
            self._text(0.5, middle - 0.1, facts, ha="left", size=7, color=_FAINT)
        else:
            size = "" if layer.size_bytes is None else units.format_size(layer.size_bytes)
            self._text(_NAMES - 0.05, middle, size, ha="right", size=7, color=_FAINT)

    def _heading(self) -> None:
        top = len(self.stack.layers)
        middle = self._bottom(top) + self.row / 2
        what = "what a container sees"
        self._text(0.5, middle, what, ha="left", weight="bold", size=8)
        self._text(
            0.1, self.height - 0.22, f"layers of {text_of(self.stack.name, 60)}", ha="left",
            weight="bold", size=11,
        )  # fmt: skip
        counted = [n for n, layer in enumerate(self.stack.layers) if layer.size_bytes is not None]
        total = sum(self.stack.layers[n].size_bytes or 0 for n in counted)
        hidden = sum(
            entry.size_bytes or 0
            for entry in self.stack.entries
            if entry.kind in ("shadowed", "deleted") and entry.layer in counted
        )
        parts = [plural(top, "layer"), units.format_size(total)]
        if hidden:
            parts.append(f"{units.format_size(hidden)} of it hidden")
        self._text(0.1, self.height - 0.45, " · ".join(parts), ha="left", size=8, color=_FAINT)

    def _column(self, place: int, column: Column) -> None:
        left, top = self._left(place), len(self.stack.layers)
        over = self._bottom(top) + self.row
        label = _middle_cut(column.label, 27) if column.path else "everything else"
        self.axes.text(
            left + _WIDTH / 2 - 0.05, over + 0.02, text_of(label), rotation=40, ha="left", va="bottom",
            rotation_mode="anchor", fontsize=7.5, color=_INK, parse_math=False,
            style="normal" if column.path else "italic",
        )  # fmt: skip
        seen = column.seen
        if seen is not None and column.path:
            middle = left + _WIDTH / 2
            line = [self._bottom(seen) + self.row, self._bottom(top)]
            self.axes.plot([middle] * 2, line, color=self.colours[seen], linewidth=1.3, zorder=1.5)
        for number, cell in column.cells.items():
            self._cell(left, number, cell)
        self._seen(left, column)

    def _seen(self, left: float, column: Column) -> None:
        x, y, width, height = self._inner(left, len(self.stack.layers))
        if not column.path:
            self._box(x, y, width, height, face="white", edge="#999999")
            self._text(x + width / 2, y + height / 2, plural_short(column.files), size=6.5)
        elif column.seen is None:
            self._box(x, y, width, height, face="white", edge="#999999", linestyle=(0, (2, 2)))
            self._text(
                x + width / 2, y + height / 2, "gone", size=6.5, color=_FAINT, style="italic"
            )
        else:
            colour = self.colours[column.seen]
            self._box(x, y, width, height, face=colour, edge=colour)
            self._text(
                x + width / 2,
                y + height / 2,
                f"from {column.seen}",
                size=6.5,
                color=_ink_on(colour),
            )

    def _inner(self, left: float, number: int) -> tuple[float, float, float, float]:
        return left + 0.03, self._bottom(number) + 0.06, _WIDTH - 0.06, self.row - 0.12

    def _cell(self, left: float, number: int, cell: Cell) -> None:
        colour = self.colours[number]
        x, y, width, height = self._inner(left, number)
        middle = (x + width / 2, y + height / 2)
        if cell.kind == "visible":
            self._box(x, y, width, height, face=colour, edge=colour)
            init = self.stack.layers[number].kind == "init"
            amount = "mount\npoint" if init and cell.files == 1 else self._amount(cell)
            self._text(*middle, amount, size=6.5, color=_ink_on(colour))
        elif cell.kind == "shadowed":
            self._box(x, y, width, height, face="white", edge=colour, hatch="/////")
            self._boxed(*middle, self._amount(cell))
        elif cell.kind == "deleted":
            self._box(x, y, width, height, face=_tint(colour, 0.75), edge=colour)
            for ends in ([y, y + height], [y + height, y]):
                self.axes.plot([x, x + width], ends, color=colour, linewidth=1.2, zorder=2.5)
            self._boxed(*middle, self._amount(cell))
        else:
            self._box(x, y, width, height, face="white", edge=_INK, linewidth=1.4)
            text = "✕ white-\nout" if cell.kind == "whiteout" else "opaque"
            if self.row < 0.4 and cell.kind == "whiteout":
                text = "✕"
            self._text(*middle, text, size=6.5, weight="bold")

    def _amount(self, cell: Cell) -> str:
        size = "" if cell.size_bytes is None else units.format_size(cell.size_bytes)
        if cell.files <= 1:
            return size or "there"
        files = f"{plural_short(cell.files)}"
        return f"{files}\n{size}".strip() if self.row > 0.4 else files

    # --- the pencil ------------------------------------------------------------------------

    def _box(
        self, x: float, y: float, width: float, height: float, *, face: Any, edge: Any, **how: Any
    ) -> None:
        how.setdefault("linewidth", 0.9)
        if edge == "none":
            how["zorder"] = 1
        self.axes.add_patch(
            Rectangle((x, y), width, height, facecolor=face, edgecolor=edge, **{"zorder": 2, **how})
        )

    def _text(self, x: float, y: float, text: str, **how: Any) -> None:
        options: dict[str, Any] = {
            "ha": "center", "va": "center", "size": 8, "color": _INK, "zorder": 3, "linespacing": 1.05,
        }  # fmt: skip
        # Names are anyone's text: a dollar sign begins no formula.
        self.axes.text(x, y, text, parse_math=False, **(options | how))

    def _boxed(self, x: float, y: float, text: str) -> None:
        """Write over a pattern."""
        box = {"facecolor": "white", "alpha": 0.85, "linewidth": 0, "pad": 0.8}
        self._text(x, y, text, size=6.5, bbox=box)

    def _legend(self, left_out: int) -> None:
        y, x = 0.42, 0.1
        samples: list[tuple[dict[str, Any], str]] = [
            ({"face": "#7A7A7A", "edge": "#7A7A7A"}, "seen"),
            ({"face": "white", "edge": "#7A7A7A", "hatch": "//////"}, "shadowed by a layer above"),
            ({"face": "#E0E0E0", "edge": "#7A7A7A"}, "deleted by a layer above"),
            ({"face": "white", "edge": _INK, "linewidth": 1.4}, "the mark that deletes"),
        ]
        for how, text in samples:
            self._box(x, y, 0.3, 0.19, **how)
            if text.startswith("deleted"):
                for ends in ([y, y + 0.19], [y + 0.19, y]):
                    self.axes.plot([x, x + 0.3], ends, color="#7A7A7A", linewidth=1.2, zorder=2.5)
            if text.startswith("the mark"):
                self._text(x + 0.15, y + 0.09, "✕", size=7, weight="bold")
            self._text(x + 0.36, y + 0.09, text, ha="left", size=7)
            x += 0.6 + 0.058 * len(text)
        notes = ["shaded part of a layer: its size, on a log scale"]
        if left_out:
            notes.append(f"{plural(left_out, 'more path')} with hidden files: .frame has them")
        notes += self.stack.notes
        self._text(0.1, 0.2, " · ".join(notes), ha="left", size=7, color=_FAINT)


def _colours(stack: Stack) -> list[Colour]:
    """Give each layer its colour: the image's from dark to light as they lie, ours apart from them."""
    image = [n for n, layer in enumerate(stack.layers) if layer.kind in ("base", "image")]
    found: list[Colour] = []
    for number, layer in enumerate(stack.layers):
        if layer.kind == "init":
            found.append(colors.to_rgb(_INIT))
        elif layer.kind == "rw":
            found.append(colors.to_rgb(ORANGE))
        else:
            at = image.index(number) / max(1, len(image) - 1)
            red, green, blue, _ = colormaps["viridis"](0.22 + 0.5 * at)
            found.append((float(red), float(green), float(blue)))
    return found


def _tint(colour: Colour, white: float) -> Colour:
    red, green, blue = (part + (1 - part) * white for part in colour)
    return red, green, blue


def _ink_on(colour: Colour) -> str:
    red, green, blue = colour
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else _INK


def _share(size_bytes: int | None, all_bytes: list[int | None]) -> float:
    """Give a size's place between 1 byte and the greatest, on a log scale."""
    import math

    greatest = max((size or 0 for size in all_bytes), default=0)
    if not size_bytes or greatest <= 1:
        return 0.0
    return math.log(size_bytes + 1) / math.log(greatest + 1)


def plural_short(files: int) -> str:
    """Write a number of files that has little room."""
    return (
        "1 file"
        if files == 1
        else f"{files} files"
        if files < 10_000
        else f"{files // 1000}k files"
    )


def _middle_cut(path: str, most: int) -> str:
    """Shorten a path in its middle: its end says most."""
    if len(path) <= most:
        return path
    return f"{path[: most // 3]}…{path[-(most - most // 3 - 1) :]}"
