"""How far a sweep has come: a bar, what runs now, and the levels so far; in a terminal one line.

It is drawn twice a second at most, and its figures anew only when a run has ended: while it is drawn
a run goes on, perhaps on the same CPU.
"""

from __future__ import annotations

import contextlib
import html
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nscontainer import units
from nscontainer.experiment import rows as experiment_rows
from nscontainer.experiment import words
from nscontainer.measure.text import plural
from nscontainer.palette import BLUE
from nscontainer_magics.display import Place, encodable
from nscontainer_magics.live import NotebookView, view_for

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from nscontainer.experiment.plan import Plan
    from nscontainer.experiment.progress import Progress
    from nscontainer.experiment.sweep import Sweep

_EVERY_S: Final = 0.5
_MOST_ROWS: Final = 12


@dataclass(frozen=True, slots=True)
class Row:
    """A point so far: its levels in words, how many runs, and the median of the plan's metric."""

    label: str
    n: int
    median: str
    interval: str


# --- words -----------------------------------------------------------------------------------


def told(now: Progress) -> str:
    """Say how far it is: ``7 of 20 runs · 12 s left``."""
    said = [f"{now.done} of {plural(now.total, 'run')}"]
    if now.left_s is not None:
        said.append(f"{units.format_seconds(float(max(1, round(now.left_s))))} left")
    return " · ".join(said)


def doing(now: Progress) -> str:
    """Say what it does at the moment: the levels of the run, or what it waits for."""
    if now.what:
        return now.what
    if now.point is None:
        return ""
    warming = "warming up: " if now.turn is not None and now.turn.warmup else ""
    return warming + experiment_rows.named(now.sweep.plan, now.point.index)


# --- figures ---------------------------------------------------------------------------------


def rows(sweep: Sweep) -> list[Row]:
    """Give a row for each point that has run, in the order of the plan."""
    metric = sweep.plan.metric
    found: dict[int, list[float | None]] = {}
    for run in sweep.runs:
        found.setdefault(run.turn.point, []).append(experiment_rows.figure(run, metric))
    return [
        _row(sweep.plan, point.index, found[point.index])
        for point in sweep.plan.points()
        if point.index in found
    ]


def _row(plan: Plan, point: int, values: Sequence[float | None]) -> Row:
    known = [one for one in values if one is not None]
    label = experiment_rows.named(plan, point)
    if not known:
        return Row(label, len(values), "failed", "")
    median, interval = words.figure(plan.metric, statistics.median(known)), ""
    if len(known) > 2:
        with contextlib.suppress(ImportError):  # without numpy there is no interval
            from nscontainer.experiment.statistics import interval as interval_of

            interval = words.between(plan.metric, *interval_of(known))
    return Row(label, len(values), median, interval)


# --- in a notebook ---------------------------------------------------------------------------


def drawn(now: Progress, so_far: Sequence[Row], metric: str) -> str:
    """Draw it: no script, no style sheet, every string escaped."""
    full = 0.0 if now.total <= 0 else min(1.0, now.done / now.total) * 100
    return (
        '<div style="font-family:system-ui,sans-serif;font-size:13px;line-height:1.6;'
        'font-variant-numeric:tabular-nums">'
        '<div style="display:flex;align-items:center;gap:10px">'
        '<span role="progressbar" style="width:220px;height:9px;border-radius:4px;overflow:hidden;'
        'background:rgba(128,128,128,.25)">'
        f'<span style="display:block;height:100%;width:{full:.1f}%;background:{BLUE}"></span></span>'
        f"<span>{html.escape(told(now))}</span>"
        f'<span style="opacity:.75">{html.escape(doing(now))}</span></div>'
        f"{_table(so_far, metric)}</div>"
    )


def _table(so_far: Sequence[Row], metric: str) -> str:
    if not so_far:
        return ""
    cell = "padding:0 14px 0 0;text-align:{};border:0"
    left, right = cell.format("left"), cell.format("right")
    heads = [("", left), ("n", right), (f"median {metric}", right), ("95 % interval", right)]
    lines = ["".join(f'<th style="{style};font-weight:500">{t}</th>' for t, style in heads)]
    for row in so_far[:_MOST_ROWS]:
        cells = ((row.label, left), (row.n, right), (row.median, right), (row.interval, right))
        lines.append(
            "".join(f'<td style="{style}">{html.escape(str(t))}</td>' for t, style in cells)
        )
    if len(so_far) > _MOST_ROWS:
        more = f"… and {len(so_far) - _MOST_ROWS} more"
        lines.append(f'<td style="{left}" colspan="4">{more}</td>')
    body = "".join(f'<tr style="background:none">{line}</tr>' for line in lines)
    return f'<table style="border:0;border-collapse:collapse;margin:4px 0">{body}</table>'


class Board:
    """One display of a notebook, renewed in its place; it ends as the sweep's card."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._place = Place(shell.display_pub)

    def show(self, now: Progress, so_far: Sequence[Row], plan: Plan) -> None:
        """Show how far it is."""
        said = f"{told(now)} · {doing(now)}".rstrip(" ·")
        self._place.show({"text/html": drawn(now, so_far, plan.metric), "text/plain": said})

    def make_way(self) -> None:
        """Stay: what is printed comes below."""

    def end(self, card: dict[str, str]) -> None:
        """Put the card in its place."""
        self._place.show(card)

    def leave(self, text: str) -> None:
        """Put a line in its place, where there is no card: a bar would look as if it still ran."""
        if self._place.taken:
            self._place.say(text)


class Line:
    """The last line of a terminal, rubbed out for whatever is printed there."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._stream = sys.stdout
        self._publisher = shell.display_pub
        self._drawn = False

    def show(self, now: Progress, so_far: Sequence[Row], plan: Plan) -> None:
        """Show how far it is."""
        del so_far, plan
        line = f"[{told(now)} · {doing(now)}".rstrip(" ·") + "]"
        line = line[: shutil.get_terminal_size().columns - 1]
        self._stream.write(f"\r\x1b[K{encodable(line, self._stream)}")
        self._stream.flush()
        self._drawn = True

    def make_way(self) -> None:
        """Rub it out."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False

    def leave(self, text: str) -> None:
        """Rub it out: the error that comes says it."""
        del text
        self.make_way()

    def end(self, card: dict[str, str]) -> None:
        """Print the card where it was."""
        self.make_way()
        self._publisher.publish(data=card, metadata={})


class Nothing(Line):
    """Nothing that moves: a file, a pipe, ``%%capture``; the card comes at the end all the same."""

    def show(self, now: Progress, so_far: Sequence[Row], plan: Plan) -> None:
        """Show nothing."""


def board_for(shell: InteractiveShell) -> Board | Line:
    """Give what suits where we are."""
    view = view_for(shell)
    if view is None:
        return Nothing(shell)
    return Board(shell) if isinstance(view, NotebookView) else Line(shell)


class Shown:
    """Draws on a board now and then, and works the figures out only when a run has ended."""

    def __init__(self, board: Board | Line) -> None:
        self.board = board
        self._next_at = 0.0
        self._ended = -1
        self._rows: list[Row] = []

    def __call__(self, now: Progress, *, at_once: bool = False) -> None:
        """Show how far it is, if it is time to."""
        ended = len(now.sweep.runs)
        if time.monotonic() < self._next_at and not at_once:
            return
        if ended != self._ended:
            self._rows, self._ended = rows(now.sweep), ended
        self.board.show(now, self._rows, now.sweep.plan)
        self._next_at = time.monotonic() + _EVERY_S


def card_of(sweep: Any, *, as_html: bool) -> dict[str, str]:
    """Give a sweep's card in the forms that are to be published."""
    card = {"text/plain": str(sweep)}
    if as_html:
        card["text/html"] = sweep._repr_html_()
    return card
