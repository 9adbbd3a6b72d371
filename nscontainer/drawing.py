"""What all pictures of runs share: figures, limits as steps, legends, words beside a line."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nscontainer import curves
from nscontainer.errors import SpecError
from nscontainer.measure.rates import Stretch
from nscontainer.palette import VERMILLION

SMALL: Final = "small"
LEGEND: Final[dict[str, Any]] = {
    "ncols": 4,
    "fontsize": SMALL,
    "frameon": False,
    "borderaxespad": 0.1,
    "handlelength": 2.4,
    "columnspacing": 1.4,
}


def new_axes(ratios: Sequence[float]) -> list[Axes]:
    """Make a figure with Axes above one time axis, as high as ``ratios`` says (in inches)."""
    height = 1.2 + sum(ratios) * (1.0 if len(ratios) > 1 else 1.2)
    figure = new_figure(8, height)
    grid = figure.subplots(
        len(ratios), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": ratios}
    )
    return list(grid[:, 0])


def png(draw: Callable[[Axes], object], *, size: tuple[float, float] = (8, 4.2)) -> bytes:
    """Draw on Axes of a figure that no front end knows of, and give it as a PNG."""
    figure = Figure(figsize=size, layout="constrained")
    draw(figure.subplots())
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    return picture.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """Make a figure (in inches): pyplot's where it must be to be shown, else one that nothing else knows."""
    options: dict[str, Any] = {"figsize": (width, height), "layout": "constrained"}
    if shown_inline():
        import matplotlib.pyplot as plt  # only where a front end shows its figures

        return plt.figure(**options)
    return Figure(**options)


def shown_inline() -> bool:
    """Whether a figure must be pyplot's to be shown (as pandas' are), and may be.

    In a notebook the inline backend shows pyplot's figures at the end of the cell; who imported
    pyplot will call its ``show()``. Anyone else (a script, a server) gets a figure that pyplot knows
    nothing of and that goes when it is dropped. pyplot is for the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    ipython = sys.modules.get("IPython")
    in_ipython = ipython is not None and ipython.get_ipython() is not None
    return in_ipython or "matplotlib.pyplot" in sys.modules


def given_axes(ax: Any, count: int) -> list[Axes]:
    """Take the Axes that a caller gives, as many as there are to be.

    Raises
    ------
    SpecError
        They are more or less, or none.
    """
    axes = [ax] if isinstance(ax, Axes) else list(np.asarray(ax, dtype=object).flat)
    if len(axes) != count or not all(isinstance(a, Axes) for a in axes):
        many = "one Axes" if count == 1 else f"{count} Axes"
        message = f"this plot needs {many}, not {len(axes)}"
        raise SpecError(message, hint="kind='cpu' draws on one; the overview on three or more")
    return axes


def draw_limit(
    axis: Axes, stretches: Sequence[Stretch], label: str, colour: str = VERMILLION
) -> None:
    """Draw a limit as a dashed line that steps where it was changed; a gap where there was none."""
    x, y = curves.drawn_steps(stretches)
    if "off the scale" in label or not np.isnan(y).all():
        axis.plot(x, y, color=colour, linewidth=1.6, linestyle="--", label=label)


def label_steps(axis: Axes, steps: Sequence[tuple[float, float, str]]) -> None:
    """Write what a limit is at the beginning of each of its steps: when (s), where, what."""
    if len(steps) > 6:
        return  # they would lie over each other; the line is still there
    for begin, value, text in steps:
        axis.annotate(
            text,
            (begin, value),
            (4, 3),
            textcoords="offset points",
            color=VERMILLION,
            fontsize=SMALL,
            fontweight="bold",
            bbox={"facecolor": axis.get_facecolor(), "alpha": 0.75, "linewidth": 0, "pad": 1},
        )


def binary_unit(most: float) -> tuple[str, float]:
    """Give the unit that suits a size, and how many bytes it is."""
    for name, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if most >= 1 << shift:
            return name, float(1 << shift)
    return "bytes", 1.0


def legend(axis: Axes) -> None:
    """Put the legend above the panel, where it hides no data."""
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), **LEGEND)


def say(axis: Axes, text: str) -> None:
    """Say in a panel why it is empty."""
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color="0.45")
    axis.set_yticks([])


def beside(axis: Axes, at: float, text: str, *, right: bool, low: bool = False) -> None:
    """Write beside a vertical line what it is."""
    axis.annotate(
        text,
        (at, 0.05 if low else 0.97),
        (4 if right else -4, 0),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        va="bottom" if low else "top",
        ha="left" if right else "right",
        fontsize=SMALL,
        bbox={"facecolor": axis.get_facecolor(), "alpha": 0.75, "linewidth": 0, "pad": 1},
        parse_math=False,
    )
