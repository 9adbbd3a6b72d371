"""A sweep as it was, or as far as it has come: every run, with what the frames and pictures are made of."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from nscontainer.experiment.plan import Plan, Turn
from nscontainer.measure.conditions import Conditions
from nscontainer.measure.shown import Shown, above

if TYPE_CHECKING:
    import os

    from pandas import DataFrame

    from nscontainer.measure.result import RunResult
    from nscontainer.measure.run_warnings import RunWarning

_FRAMES, _PLOT = "nscontainer.sweep_frames", "nscontainer.sweep_plot"
_ARCHIVE = "nscontainer.sweep_archive"


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One run of a sweep.

    Attributes
    ----------
    turn
        Which one it was: its number in the order, its point, its repeat.
    conditions
        What the machine did beside it.
    host
        The machine it ran on.
    cpus
        The CPUs that were its own, as ``0-1``; None where it had no cpuset of the sweep's making.
    read
        Gives its result: from memory, a store, a file.
    """

    turn: Turn
    conditions: Conditions
    host: str
    cpus: str | None
    read: Callable[[], RunResult] = field(repr=False)

    @functools.cached_property
    def result(self) -> RunResult:
        """The whole result."""
        return self.read()


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Sweep(Shown):
    """The runs of a sweep: ``s.summary``, ``s.samples``, ``s.compare("cpu")``, ``s.plot()``.

    Attributes
    ----------
    id
        Its id in the store.
    plan
        What was to be done.
    runs
        The counted runs that have ended, by their number.
    warmups
        Those that only warmed up.
    status
        ``complete``; ``interrupted``: the same call goes on from here; ``running``.
    created_unix
        When it began.
    facts
        What is the same for all of it: host, Linux, packages, image digest
        (:class:`nscontainer.measure.provenance.Provenance` as a dict).
    recorded
        What says where and when it was recorded, if it was read from a file; None where it ran here.
    """

    _CARD: ClassVar = "nscontainer.sweep_card"

    id: str
    plan: Plan
    runs: tuple[Run, ...]
    warmups: tuple[Run, ...] = ()
    status: Literal["complete", "interrupted", "running"] = "complete"
    created_unix: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    recorded: str | None = None

    def __len__(self) -> int:
        return len(self.runs)

    @functools.cached_property
    def results(self) -> tuple[RunResult, ...]:
        """The result of each run, in the order in which they ran."""
        return tuple(run.result for run in self.runs)

    @functools.cached_property
    def summary(self) -> DataFrame:
        """One row a run, indexed by ``run_id``: parameters, wall and CPU time, shares, peak, exit, warnings.

        Units are in ``attrs["units"]``.
        """
        frame: DataFrame = above(_FRAMES).summary(self)
        return frame

    @functools.cached_property
    def samples(self) -> DataFrame:
        """Every sample of every run, long: ``run_id``, the parameters, ``elapsed_s``, the schema's columns."""
        frame: DataFrame = above(_FRAMES).samples(self)
        return frame

    def compare(
        self, by: str | None = None, metric: str | None = None, *, baseline: Any = None
    ) -> DataFrame:
        """Compare the levels of a factor: one row a level.

        Parameters
        ----------
        by
            The factor; None is the only one, or the first.
        metric
            A numeric column of :attr:`summary`; None is the plan's.
        baseline
            The level that the others are relative to, as written or as in the index; None is the last
            one.

        Returns
        -------
        DataFrame
            ``n, median, low, high`` (95 %, bootstrap), ``relative, relative_low, relative_high``, ``p``
            (permutation test) and a ``verdict``.

        Raises
        ------
        SpecError
            There is no such factor, metric or level.
        """
        frame: DataFrame = above(_FRAMES).compare(self, by, metric, baseline=baseline)
        return frame

    @functools.cached_property
    def warnings(self) -> tuple[RunWarning, ...]:
        """What to know before believing it, the gravest first."""
        found: tuple[RunWarning, ...] = above(_FRAMES).warnings(self)
        return found

    def plot(self, kind: str = "quota", ax: Any = None, **options: Any) -> Any:
        """Draw it.

        Parameters
        ----------
        kind
            ``quota``: CPU use over time by level, against each quota; ``speed``, ``throttling``,
            ``memory``, ``ecdf``, ``heatmap`` (two factors), ``scaling``.
        ax
            Axes to draw on; None makes a figure.
        options
            ``by`` (a factor) and ``metric`` (a column of the summary).

        Returns
        -------
        matplotlib.axes.Axes
            The Axes drawn on.
        """
        return above(_PLOT).plot(self, kind, ax, **options)

    def export(self, path: str | os.PathLike[str]) -> None:
        """Write all of it to one zip of Parquet and JSON; :func:`nscontainer.load` reads it back anywhere."""
        above(_ARCHIVE).export(self, path)
