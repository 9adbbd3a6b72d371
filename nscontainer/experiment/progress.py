"""How far a sweep is."""

from __future__ import annotations

from dataclasses import dataclass

from nscontainer.experiment.plan import Point, Turn
from nscontainer.experiment.sweep import Sweep


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What is told while a sweep runs, four times a second and whenever a run ends.

    Attributes
    ----------
    done, total
        Counted runs that have ended, and that there are to be as far as is known (``until`` adds).
    point, turn
        What runs, or ended last; None before the first.
    elapsed_s
        Since this call began, in s.
    left_s
        How long it will take yet, in s; None where nothing has ended that would tell.
    running
        Whether something runs at this moment.
    sweep
        The sweep so far.
    what
        What it waits for, in words; empty while it runs.
    """

    done: int
    total: int
    point: Point | None
    turn: Turn | None
    elapsed_s: float
    left_s: float | None
    running: bool
    sweep: Sweep
    what: str = ""
