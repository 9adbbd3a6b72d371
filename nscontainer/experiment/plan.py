"""What a sweep is to do: frozen values, the same in a notebook, a shell, a store and an exported file."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Value = str | int | float | bool | None
"""A level of a factor as somebody wrote it, or a value of a free parameter; None is "no limit"."""
DEFAULT_MOST_REPEATS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What each run does.

    ``{name}`` in it stands for a free parameter's value (:func:`nscontainer.experiment.substitute.fill`).

    Attributes
    ----------
    kind
        ``cell``: Python code; ``command``: an argument vector; ``script``: one that reads a cell's text.
    code
        The cell or the script as written, None for a command.
    command
        The argument vector, None for a cell.
    stdin
        What a script's interpreter reads, where that isn't in its command.
    name
        What it is called: a file, a function. None is nothing in particular.
    """

    kind: Literal["cell", "command", "script"]
    code: str | None = None
    command: tuple[str, ...] | None = None
    stdin: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One thing that is varied.

    Attributes
    ----------
    name
        An option of :func:`nscontainer.spec.build` (``cpu``, ``memory``), or a free parameter.
    levels
        Its values in the order given, as written: ``"20%"``; None is without that limit.
    free
        Whether it is a free parameter, of the work and not of the container.
    """

    name: str
    levels: tuple[Value, ...]
    free: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One combination of levels; ``index`` counts from 0 in the order of the plan."""

    index: int
    levels: Mapping[str, Value] = field(hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One run that is to be: its place in the order, its point, which repeat of it (from 0).

    Warm-ups come first: their numbers and repeats are negative.
    """

    number: int
    point: int
    repeat: int

    @property
    def warmup(self) -> bool:
        """Whether it only warms up: its figures are kept apart."""
        return self.number < 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole sweep: what is run, what is varied, how often, in which order.

    Attributes
    ----------
    options
        What is the same for all runs, as keyword arguments of :func:`nscontainer.spec.build` in plain
        JSON types.
    mode
        ``grid``: every combination; ``zip``: the first levels together, then the second, …
    repeat
        How many times each point runs.
    warmup
        How many times each point runs before, uncounted.
    until
        Go on repeating until the 95 % interval of the median wall time (or of ``metric``), from end to
        end, is no wider than this share of it, at every point: 0.02. None is: just ``repeat`` times.
    most_repeats
        Never more than so many.
    metric
        The column that is judged and drawn as the speed: ``wall_s``, or one that the work reports.
    seed
        Of the order, so that it can be had again.
    parallel
        How many runs at once, each on CPUs of its own.
    """

    work: Work
    factors: tuple[Factor, ...]
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    mode: Literal["grid", "zip"] = "grid"
    repeat: int = 1
    warmup: int = 0
    until: float | None = None
    most_repeats: int = DEFAULT_MOST_REPEATS
    metric: str = "wall_s"
    seed: int = 0
    parallel: int = 1

    def points(self) -> tuple[Point, ...]:
        """Give every point: in a grid the last factor varies quickest."""
        return self._points

    @functools.cached_property  # each row of each frame asks for one of them
    def _points(self) -> tuple[Point, ...]:
        names = [factor.name for factor in self.factors]
        levels = [factor.levels for factor in self.factors]
        combined: Iterator[tuple[Value, ...]] = (
            itertools.product(*levels) if self.mode == "grid" else zip(*levels, strict=True)
        )
        return tuple(
            Point(index=i, levels=dict(zip(names, values, strict=True)))
            for i, values in enumerate(combined)
        )

    def round(self, repeat: int) -> list[int]:
        """Give the points in the order of one repeat: each once, shuffled anew for each repeat.

        So a drift of the machine meets all points alike (a randomised block design), and a seed gives
        the same order again, however many repeats come of it.
        """
        order = list(range(len(self.points())))
        random.Random(f"{self.seed}:{repeat}").shuffle(order)  # noqa: S311  # no secret
        return order

    def turns(self, repeats: int | None = None) -> list[Turn]:
        """Give the runs in their order: warm-ups first, then repeat by repeat."""
        count = len(self.points())
        found = []
        for before in range(-self.warmup, 0):
            for at, point in enumerate(self.round(before)):
                found.append(Turn(number=before * count + at, point=point, repeat=before))
        for repeat in range(self.repeat if repeats is None else repeats):
            for at, point in enumerate(self.round(repeat)):
                found.append(Turn(number=repeat * count + at, point=point, repeat=repeat))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON types; :meth:`from_dict` reads it back."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Plan:
        """Rebuild a plan from what :meth:`to_dict` gave; what an untrusted file says is to be checked first."""
        values = dict(plain)
        work = dict(values["work"])
        command = work.get("command")
        work["command"] = None if command is None else tuple(command)
        values["work"] = Work(**work)
        values["factors"] = tuple(
            Factor(name=f["name"], levels=tuple(f["levels"]), free=f["free"])
            for f in values["factors"]
        )
        return cls(**values)

    @property
    def key(self) -> str:
        """A digest of all but the seed: the same call has the same, on every machine."""
        plain = self.to_dict()
        del plain["seed"]
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
