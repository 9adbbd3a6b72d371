"""Two factors in one picture: a cell each combination, its figure in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.patches import Rectangle

from nscontainer import drawing
from nscontainer.errors import SpecError
from nscontainer.experiment import levels
from nscontainer.measure.text import text_of
from nscontainer.sweep_plot import groups
from nscontainer.sweep_plot.over_time import NO_RUN

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nscontainer.experiment.plan import Factor
    from nscontainer.experiment.sweep import Sweep
    from nscontainer.sweep_plot.groups import Metric

_MOST_WRITTEN: Final = 14
"""With more columns than this no figure fits into a cell."""


def factors(sweep: Sweep, by: Any) -> tuple[Factor, Factor]:
    """Give the factors of the columns and of the rows: ``by`` is one, or both.

    Raises
    ------
    SpecError
        There are no two.
    """
    given = [by] if isinstance(by, str) else list(by or ())
    chosen = [found for name in given if (found := groups.factor(sweep, name)) is not None]
    chosen += [f for f in sweep.plan.factors if f not in chosen]
    if len(chosen) < 2 or len(given) > 2:
        names = ", ".join(f.name for f in sweep.plan.factors) or "nothing"
        message = f"a heatmap needs two factors, and this sweep varies {names}"
        raise SpecError(message, hint="vary another limit or parameter, or plot('speed')")
    return chosen[0], chosen[1]


def draw(axis: Axes, sweep: Sweep, columns: Factor, rows: Factor, metric: Metric) -> str:
    """Draw the median of a figure at each combination of two factors' levels; say what is seen."""
    said = f"Median {metric.name} by {groups.name(columns.name)} and {groups.name(rows.name)}"
    cells: dict[tuple[int, int], tuple[float, str]] = {}
    for i, column in enumerate(columns.levels):
        for j, row in enumerate(rows.levels):
            cells[j, i] = _cell(sweep, {columns.name: column, rows.name: row}, metric)
    grid = np.full((len(rows.levels), len(columns.levels)), np.nan)
    for where, (value, _) in cells.items():
        grid[where] = value
    _axes(axis, columns, rows)
    known = grid[np.isfinite(grid)]
    if not len(known) and not sweep.runs:
        drawing.say(axis, NO_RUN)
        return said
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    log = low > 0 and high > 10 * low
    norm = (LogNorm if log else Normalize)(low, high if high > low else low + (abs(low) or 1.0))
    image = axis.imshow(grid, cmap="cividis", norm=norm, aspect="auto", origin="lower")
    bar = axis.get_figure(root=True).colorbar(image, ax=axis, pad=0.02)  # type: ignore[union-attr]  # drawn on a figure
    bar.set_label(metric.axis_label + (", logarithmic" if log else ""))
    if log:
        from nscontainer.sweep_plot import labels

        labels.plain_log(bar.ax.yaxis)
    for (j, i), (value, word) in cells.items():
        _write(axis, i, j, value, word, norm, room=len(columns.levels) <= _MOST_WRITTEN)
    return said


def _cell(sweep: Sweep, wanted: dict[str, Any], metric: Metric) -> tuple[float, str]:
    """Give the median of a cell's runs that went well, or NaN and why there is none."""
    points = [
        p.index for p in sweep.plan.points() if all(p.levels[n] == v for n, v in wanted.items())
    ]
    runs = [run for run in sweep.runs if run.turn.point in points]
    good = [run for run in runs if run.result.ok]
    if not points:
        return np.nan, ""  # levels that a zip does not bring together
    if not runs:
        return np.nan, "no run yet"
    if not good:
        return np.nan, groups.failure(runs[0])
    values = groups.figures(sweep, good, metric)
    return (float(np.median(values)), "") if len(values) else (np.nan, "no figure")


def _axes(axis: Axes, columns: Factor, rows: Factor) -> None:
    for factor, one in ((columns, axis.xaxis), (rows, axis.yaxis)):
        texts = [text_of(levels.label(factor.name, value), 20) for value in factor.levels]
        shown = groups.sample(texts)
        one.set_ticks(shown, labels=[texts[i] for i in shown], parse_math=False)
        one.set_label_text(groups.name(factor.name))
    if len(columns.levels) > 8:
        axis.tick_params(axis="x", labelrotation=30)
    axis.set_xlim(-0.5, len(columns.levels) - 0.5)
    axis.set_ylim(-0.5, len(rows.levels) - 0.5)


def _write(axis: Axes, i: int, j: int, value: float, word: str, norm: Any, *, room: bool) -> None:
    """Write a cell's figure, in black or white as its ground is light or dark; hatch it where it has none."""
    if not np.isfinite(value):
        if not word:
            return
        box = Rectangle(
            (i - 0.5, j - 0.5), 1, 1, facecolor="0.93", edgecolor="0.6", hatch="///", linewidth=0.5
        )
        axis.add_patch(box)
        colour, text = "black", word.replace(" ", "\n")
    else:
        colour, text = text_colour(mpl.colormaps["cividis"](norm(value))), groups.written(value)
    if room:
        ground = (
            {"facecolor": "white", "linewidth": 0, "pad": 1} if not np.isfinite(value) else None
        )
        axis.text(
            i,
            j,
            text,
            ha="center",
            va="center",
            color=colour,
            fontsize=drawing.SMALL,
            bbox=ground,
            parse_math=False,
        )


def text_colour(ground: Sequence[float]) -> str:
    """Give black or white, whichever stands out more: by WCAG 2's relative luminance."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in ground[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if luminance > 0.179 else "white"
