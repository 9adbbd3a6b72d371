"""An exported sweep run again here: both side by side, and what differs between the two machines."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from nscontainer import history, sweeps
from nscontainer.card import CELL, TABLE, escaped
from nscontainer.errors import SpecError
from nscontainer.experiment import rows, statistics, words
from nscontainer.experiment.plan import Factor, Plan
from nscontainer.experiment.sweep import Sweep
from nscontainer.measure.provenance import Provenance
from nscontainer.measure.text import text_of

if TYPE_CHECKING:
    from pandas import DataFrame

_OF_PLAN: Final = ("repeat", "warmup", "until", "most_repeats", "metric", "seed", "parallel")
_OF_RUNNING: Final = (
    "executor", "resume", "check", "on_progress", "on_result", "store", "share_cpus", "cell",
)  # fmt: skip
REACHING: Final = ("volumes", "mounts", "cap_add", "share", "publish", "seccomp", "systempaths")
"""Options by which somebody's file would reach out of its container: they are yours to give."""
_FACTS: Final = {
    "host": "host",
    "system": "system",
    "linux": "Linux",
    "machine": "machine",
    "cpu_model": "CPU",
    "cpus": "CPUs",
    "cpus_allowed": "CPUs allowed",
    "governor": "governor",
    "memory_bytes": "memory (bytes)",
    "swap_total_bytes": "swap (bytes)",
    "transparent_hugepage": "transparent huge pages",
    "cgroup_version": "cgroup",
    "nscontainer": "nscontainer",
    "python": "Python",
}
_MOST_SHOWN: Final = 20


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Rerun:
    """A sweep of another time or machine, and the same one run here.

    Attributes
    ----------
    recorded
        As it was there.
    here
        As it is here.
    """

    recorded: Sweep
    here: Sweep

    def compare(self, by: str | None = None, metric: str | None = None) -> DataFrame:
        """Compare both, level by level.

        Parameters
        ----------
        by
            The factor; None is the first. Its other factors are compared within.
        metric
            A figure of the runs; None is the plan's.

        Returns
        -------
        DataFrame
            One row a level, indexed by it as a number: ``label``; ``n_there, there, there_low,
            there_high`` and the same of ``here`` (medians, 95 % bootstrap); ``ratio, ratio_low,
            ratio_high`` of here to there; ``p``, corrected for the number of levels; ``verdict``.

        Raises
        ------
        SpecError
            There is no such factor, or no run on either side has such a figure.
        """
        name = metric or self.recorded.plan.metric
        factor = rows.factor(self.recorded.plan, by)
        there, here = rows.by_point(self.recorded, name), rows.by_point(self.here, name)
        if not there and not here:
            raise SpecError(f"no run has a number {name!r}", hint="wall_s, or what both reported")
        found = [self._level(factor, i, there, here) for i in range(_count(factor))]
        self._judge(found, name)
        pandas = import_module("pandas")
        index = pandas.Index(
            [entry.pop("level") for entry in found], name="all" if factor is None else factor.name
        )
        frame: DataFrame = pandas.DataFrame(found, index=index).drop(columns="pairs")
        frame.attrs.update(metric=name, by=None if factor is None else factor.name)
        return frame

    def _level(
        self, factor: Factor | None, i: int, there: Mapping[int, Any], here: Mapping[int, Any]
    ) -> dict[str, Any]:
        plan, seed = self.recorded.plan, self.recorded.plan.seed
        level = None if factor is None else factor.levels[i]
        points = [
            point.index
            for point in plan.points()
            if factor is None or point.levels[factor.name] is level
        ]
        pairs = [
            ([v for _, v in here.get(point, ())], [v for _, v in there.get(point, ())])
            for point in points
        ]
        entry: dict[str, Any] = {
            "level": 0 if factor is None else rows.number(plan, factor.name, level),
            "label": "all runs" if factor is None else rows.label(plan, factor.name, level),
            "pairs": pairs,
        }
        for side, at in (("there", 1), ("here", 0)):
            values = [value for pair in pairs for value in pair[at]]
            low, high = statistics.interval(values, seed)
            entry |= {f"n_{side}": len(values), side: _median(values)}
            entry |= {f"{side}_low": low, f"{side}_high": high}
        ratio, low, high = statistics.ratio_within(pairs, seed)
        entry |= {"ratio": ratio, "ratio_low": low, "ratio_high": high}
        return entry | {"p": statistics.p_within(pairs, seed), "verdict": ""}

    def _judge(self, found: Sequence[dict[str, Any]], metric: str) -> None:
        """Put the corrected p and the verdict into each level's entry."""
        corrected = statistics.holm([entry["p"] for entry in found])
        tests = sum(not math.isnan(p) for p in corrected)
        unit = rows.units(self.recorded.plan).get(metric)
        for entry, p in zip(found, corrected, strict=True):
            counts = ((len(a), len(b)) for a, b in entry["pairs"])
            entry["p"] = p
            entry["verdict"] = statistics.verdict(
                p,
                (entry["ratio_low"], entry["ratio_high"]),
                entry["ratio"],
                enough=statistics.least_p(*counts) * tests < statistics.ALPHA,
                is_time=unit == "s",
            )

    @functools.cached_property
    def differs(self) -> DataFrame:
        """What differs between the two machines: ``fact, there, here, note``; no rows where nothing does."""
        there, here = _facts(self.recorded), _facts(self.here)
        found = [
            {"fact": fact, "there": there.get(fact), "here": here.get(fact), "note": _note(fact)}
            for fact in dict.fromkeys((*there, *here))
            if there.get(fact) != here.get(fact)
        ]
        frame: DataFrame = import_module("pandas").DataFrame(
            found, columns=["fact", "there", "here", "note"], dtype=object
        )
        return frame

    def plot(self, kind: str = "speed", ax: Any = None, **options: Any) -> Any:
        """Draw both beside each other, on the same scales; as :meth:`Sweep.plot`.

        Returns
        -------
        numpy.ndarray
            Both Axes.
        """
        drawing = import_module("nscontainer.sweep_plot")
        return drawing.side_by_side(self.recorded, self.here, kind, ax, **options)

    def _tables(self) -> list[list[Sequence[str]]]:
        """Give both tables, as cells fit to be shown."""
        by = [factor.name for factor in self.recorded.plan.factors if len(factor.levels) > 1]
        tables = [self._levels(name) for name in (by or (None,))]
        lines = [
            tuple(
                text_of(value, 60) for value in (row.fact, _or_dash(row.there), _or_dash(row.here))
            )
            for row in _rows(self.differs)
        ]
        more = len(lines) - _MOST_SHOWN
        if more > 0:
            lines = [*lines[:_MOST_SHOWN], (f"… {more} more in .differs", "", "")]
        return [*tables, [("differs", "there", "here"), *lines]] if lines else tables

    def _levels(self, by: str | None) -> list[Sequence[str]]:
        frame = self.compare(by)
        metric = str(frame.attrs["metric"])
        head = (by or "", f"{metric} there", "95 %", "here", "95 %", "here / there", "verdict")
        lines: list[Sequence[str]] = [head]
        for row in _rows(frame):
            ratio = _written(row.ratio, "{:.3g}")
            if not math.isnan(float(row.ratio_low)):
                ratio += f" ({row.ratio_low:.3g} – {row.ratio_high:.3g})"
            lines.append(
                (
                    text_of(row.label, 40),
                    words.figure(metric, row.there),
                    words.between(metric, row.there_low, row.there_high),
                    words.figure(metric, row.here),
                    words.between(metric, row.here_low, row.here_high),
                    ratio,
                    str(row.verdict),
                )
            )
        return lines

    def _line(self) -> str:
        there = self.recorded.recorded or f"there: sweep {self.recorded.id}"
        here = self.here.recorded or f"sweep {self.here.id}"  # shown where nothing can run
        return f"{text_of(there, 160)}; here: {text_of(here, 160)}"

    def __repr__(self) -> str:
        return f"<Rerun {self._line()}>"

    def __str__(self) -> str:
        lines = [self._line()]
        for table in self._tables():
            widths = [max(map(len, column)) for column in zip(*table, strict=True)]
            lines.append("")
            lines += [
                "  ".join(
                    f"{cell:<{wide}}" for cell, wide in zip(row, widths, strict=True)
                ).rstrip()
                for row in table
            ]
        notes = dict.fromkeys(note for note in self.differs["note"] if note)
        return "\n".join([*lines, *(f"warning: {note}" for note in notes)])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: FBT001  # IPython's call
        printer.text("Rerun(...)" if cycle else str(self))

    def _repr_html_(self) -> str:
        parts = [f"<div><strong>{escaped(self._line())}</strong></div>"]
        for table in self._tables():
            rows_ = [
                "".join(f'<td style="{CELL}">{escaped(cell)}</td>' for cell in row) for row in table
            ]
            body = "".join(f"<tr>{cells}</tr>" for cells in rows_)
            parts.append(f'<table style="{TABLE};margin-top:6px">{body}</table>')
        notes = dict.fromkeys(note for note in self.differs["note"] if note)
        parts += [f"<div>⚠ {escaped(note)}</div>" for note in notes]
        return f"<div>{''.join(parts)}</div>"


def rerun(
    what: str | os.PathLike[str] | Sweep, *, trust: Iterable[str] = (), **overrides: Any
) -> Rerun:
    """Run a sweep of another machine or time again here.

    Parameters
    ----------
    what
        An exported file, a kept sweep's id, or a sweep.
    trust
        Options by which the file reaches out of its containers (:data:`REACHING`) and that are taken as
        they stand in it: ``("volumes",)``.
    overrides
        What is to be otherwise: ``repeat``, ``until``, ``seed`` …, options of a run that aren't
        varied, and those of running (``executor``, ``on_progress`` …) as :func:`nscontainer.sweep` has
        them.

    Raises
    ------
    SpecError
        It is no sweep, an override is what is varied, or the file reaches out of its containers
        (``volumes`` …) and you neither say how it may nor trust it in that.
    NotFoundError
        There is no such sweep, or its image is not here; the hint says how to pull it.
    KeyboardInterrupt, CommandError
        As :func:`nscontainer.sweep`.
    """
    recorded = what if isinstance(what, Sweep) else history.load(what)
    if not isinstance(recorded, Sweep):
        message = f"{os.fspath(what)!r} is the result of one run, and no sweep"  # type: ignore[arg-type]
        raise SpecError(message, hint="Sweep.export writes those")
    running: dict[str, Any] = {
        name: overrides.pop(name) for name in _OF_RUNNING if name in overrides
    }
    plan = _plan(recorded, overrides, running, trusted(trust))
    if recorded.status != "complete":
        running["resume"] = False  # it would go on with that very sweep
    return Rerun(recorded=recorded, here=sweeps.run_plan(plan, **running))


def trusted(names: Iterable[str]) -> tuple[str, ...]:
    """Take the names of what is trusted, as flags too.

    Raises
    ------
    SpecError
        One isn't of :data:`REACHING`.
    """
    found = [name.strip().lstrip("-").replace("-", "_") for name in names]
    for name in found:
        if name not in REACHING:
            message = f"{name!r} is nothing by which a file reaches out of its containers"
            raise SpecError(message, hint=f"one of {', '.join(REACHING)}")
    return tuple(found)


def reaching(recorded: Sweep) -> dict[str, Any]:
    """Give by what somebody's file reaches out of its containers, as it stands there; of one kept here nothing."""
    if recorded.recorded is None:
        return {}
    fixed = {name: recorded.plan.options.get(name) for name in REACHING}
    return {name: value for name, value in fixed.items() if value}


def _plan(
    recorded: Sweep, overrides: Mapping[str, Any], running: Mapping[str, Any], trust: Sequence[str]
) -> Plan:
    """Make the plan for here, checked as a new one is."""
    plan = recorded.plan
    varied = [factor.name for factor in plan.factors if factor.name in overrides]
    if varied:
        message = f"{varied[0]} is varied in this sweep: both sides need the same levels"
        raise SpecError(message, hint="nscontainer.sweep runs others")
    if " (sha256 " in (plan.work.name or "") and "cell" not in running:
        message = f"the cell took variables of its notebook: {text_of(plan.work.name, 80)}"
        raise SpecError(message, hint="give them: rerun(…, cell={'inputs': {…}})")
    how = {name: getattr(plan, name) for name in _OF_PLAN} | {
        name: value for name, value in overrides.items() if name in _OF_PLAN
    }
    options: dict[str, Any] = {f.name: f.levels for f in plan.factors if not f.free}
    options |= _options(recorded, {k: v for k, v in overrides.items() if k not in _OF_PLAN}, trust)
    free = {factor.name: factor.levels for factor in plan.factors if factor.free}
    made = sweeps.prepare(plan.work, zip=plan.mode == "zip", params=free, **how, **options)
    return dataclasses.replace(made, factors=plan.factors)  # in its order, as points are counted


def _options(recorded: Sweep, given: Mapping[str, Any], trust: Sequence[str]) -> dict[str, Any]:
    options = dict(recorded.plan.options)
    if recorded.recorded is not None:  # from a file: its folders are another machine's
        left = {n: v for n, v in reaching(recorded).items() if n not in given and n not in trust}
        if left:
            said = " and ".join(f"{name} {text_of(value, 80)}" for name, value in left.items())
            may = ", ".join(f"{name}=…" for name in left)
            raise SpecError(
                f"the sweep was run with {said}, of another machine",
                hint=f"say what it may have here: rerun(…, {may}), or --trust {','.join(left)}",
            )
        options.pop("python_path", None)
        if not os.path.isdir(options.get("workdir") or os.curdir) and _on_host(recorded.plan):
            options["workdir"] = os.getcwd()
    return options | dict(given)


def _on_host(plan: Plan) -> bool:
    named = [factor for factor in plan.factors if factor.name == "image"]
    return not named and plan.options.get("image", "host") == "host"


# --- small things ----------------------------------------------------------------------------


def _facts(sweep: Sweep) -> dict[str, Any]:
    """Give the facts that may differ, by what they are called."""
    first = sweep.runs[0].result.provenance if sweep.runs else Provenance.from_dict(sweep.facts)
    found = {label: getattr(first, name) for name, label in _FACTS.items()}
    for run in sweep.runs:
        told = run.result.provenance
        if told.image_digest is not None:
            found.setdefault(f"image {told.image}", told.image_digest)
    return found | {f"package {name}": version for name, version in first.packages.items()}


def _rows(frame: DataFrame) -> list[Any]:
    return list(frame.itertuples())


def _note(fact: str) -> str | None:
    if not fact.startswith("image "):
        return None
    name = text_of(fact.removeprefix("image "), 80)
    return (
        f"image {name} is another one here: pull the one of that digest to compare like with like"
    )


def _count(factor: Factor | None) -> int:
    return 1 if factor is None else len(factor.levels)


def _median(values: Sequence[float]) -> float:
    return median(values) if values else math.nan


def _or_dash(value: Any) -> Any:
    return "–" if value is None or value != value else value  # noqa: PLR0124 - NaN


def _written(value: float, form: str) -> str:
    return "–" if math.isnan(value) else form.format(value)
