"""Pictures of a sweep: a person seeing one alone knows what ran, where, how often, and what came of it.

Colours are such as colour-blind people tell apart (Okabe and Ito's), and a marker, a line style or a word
says the same for a black and white printer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from nscontainer import drawing
from nscontainer.errors import SpecError
from nscontainer.sweep_plot import by_level, groups, heatmap, labels, over_time, scaling

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nscontainer.experiment.sweep import Sweep

KINDS: Final = ("quota", "speed", "throttling", "memory", "ecdf", "heatmap", "scaling")
_OF_A_METRIC: Final = ("speed", "ecdf", "heatmap", "scaling")
_WANTED: Final = {
    "quota": ("cpu", "cpu_quota"),
    "throttling": ("cpu", "cpu_quota", "cpu_period"),
    "memory": ("memory",),
    "scaling": scaling.WANTED,
}
"""The factor that a kind of picture is by, where there is one of these and no other is asked for."""
_SIZE: Final = (8.0, 4.6)


def plot(
    sweep: Sweep, kind: str = "quota", ax: Any = None, *, by: Any = None, metric: str | None = None
) -> Axes:
    """Draw a sweep; see :meth:`nscontainer.experiment.sweep.Sweep.plot`.

    Parameters
    ----------
    by
        A factor; for a heatmap that of the columns, or both.
    metric
        A column of the summary, for ``speed``, ``ecdf``, ``heatmap`` and ``scaling``; None is the plan's.

    Raises
    ------
    SpecError
        There is no such kind, factor or metric, or it can't be drawn of this sweep, or ``ax`` is no
        single Axes.
    """
    check(kind, metric)
    _refuse(sweep, kind, by, metric)
    if ax is None:
        axis: Axes = drawing.new_figure(*_SIZE).subplots()
    else:
        (axis,) = drawing.given_axes(ax, 1)
    axis.spines[["top", "right"]].set_visible(False)
    said, drawn = _draw(axis, sweep, kind, by, metric)
    labels.title(axis, sweep, said, drawn)
    return axis


def check(kind: str, metric: str | None = None) -> None:
    """Refuse a kind that there is not, and a metric where none is drawn.

    Raises
    ------
    SpecError
        One line, with the kinds that there are.
    """
    if kind not in KINDS:
        raise SpecError(f"plot kind {kind!r} is not known for a sweep", hint=", ".join(KINDS))
    if metric is not None and kind not in _OF_A_METRIC:
        raise SpecError(
            f"plot kind {kind!r} has no metric", hint=f"only {', '.join(_OF_A_METRIC)} have"
        )


def _refuse(sweep: Sweep, kind: str, by: Any, metric: str | None) -> None:
    """Raise what can be told before a figure is made: in a notebook an empty one would be shown."""
    if kind in _OF_A_METRIC and len(sweep):
        groups.metric(sweep, metric)
    if kind == "heatmap":
        heatmap.factors(sweep, by)
        return
    if by is not None and not isinstance(by, str):
        raise SpecError(
            f"plot kind {kind!r} is by one factor, not {by!r}", hint="heatmap takes two"
        )
    chosen = groups.factor(sweep, by, *_WANTED.get(kind, ()))
    if kind == "scaling":
        scaling.check(
            sweep, groups.of(sweep, chosen), None if chosen is None else chosen.name, metric
        )


def _draw(
    axis: Axes, sweep: Sweep, kind: str, by: Any, metric: str | None
) -> tuple[str, tuple[str, ...]]:
    """Draw it; what is seen, and the factors that are."""
    of_metric = groups.metric(sweep, metric) if kind in _OF_A_METRIC else None
    if kind == "heatmap" and of_metric is not None:
        columns, rows = heatmap.factors(sweep, by)
        return heatmap.draw(axis, sweep, columns, rows, of_metric), (columns.name, rows.name)
    chosen = groups.factor(sweep, by, *_WANTED.get(kind, ()))
    name = None if chosen is None else chosen.name
    found = groups.of(sweep, chosen)
    drawn = () if name is None else (name,)
    if of_metric is not None:
        each = {"speed": by_level.speed, "ecdf": by_level.ecdf, "scaling": scaling.draw}[kind]
        return each(axis, sweep, found, name, of_metric), drawn
    if kind == "throttling":
        if len(found) == 1 and found[0].runs:
            return over_time.saw_tooth(axis, found[0].runs), drawn
        return by_level.throttling(axis, sweep, found, name), drawn
    return (over_time.quota if kind == "quota" else over_time.memory)(axis, found, name), drawn


def side_by_side(
    recorded: Sweep, here: Sweep, kind: str = "speed", ax: Any = None, **options: Any
) -> Any:
    """Draw two sweeps of one plan beside each other, on the same scales: as it was recorded, and as it is here.

    Returns
    -------
    numpy.ndarray
        Both Axes.
    """
    check(kind, options.get("metric"))
    if ax is None:
        width, height = _SIZE
        axes = list(drawing.new_figure(1.6 * width, height).subplots(1, 2))
    else:
        axes = drawing.given_axes(ax, 2)
    for axis, sweep in zip(axes, (recorded, here), strict=True):
        plot(sweep, kind, axis, **options)
    if kind not in ("heatmap", "scaling"):
        _same_scale(axes)
    for axis, word in zip(axes, ("there", "here"), strict=True):
        axis.set_title(
            f"{word}: {axis.get_title(loc='left')}",
            loc="left",
            fontsize=drawing.SMALL,
            parse_math=False,
        )
    return np.array(axes, dtype=object)


def _same_scale(axes: list[Axes]) -> None:
    scales = {axis.get_yscale() for axis in axes}
    if len(scales) > 1:
        return
    limits = [axis.get_ylim() for axis in axes]
    for axis in axes:
        axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
