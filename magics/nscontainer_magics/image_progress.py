"""How far a pull, push or load has come, as one display of a notebook; it ends as one line."""

from __future__ import annotations

import contextlib
import html
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from IPython.core.getipython import get_ipython

from nscontainer.cli.image_board import Board, Line, Plain, Terminal
from nscontainer.palette import BLUE, GREEN
from nscontainer_magics.display import Place
from nscontainer_magics.live import NotebookView, TerminalView, view_for

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


_MOST_LINES = 40


class Bars:
    """One display, renewed in its place."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._place = Place(shell.display_pub)

    def __call__(self, lines: list[Line], *, last: bool) -> None:
        """Draw the bars; after the last time the display is :meth:`end`'s."""
        if lines and not last:
            said = "\n".join(f"{one.layer} {one.state} {one.amount}".strip() for one in lines)
            self._place.show({"text/html": bars(lines), "text/plain": said})

    def end(self, text: str) -> None:
        """Put a line in the place of the bars."""
        self._place.say(text)


def bars(lines: list[Line]) -> str:
    """Draw a bar a layer: no script, no style sheet, every string escaped."""
    rows = [_row(one) for one in lines[:_MOST_LINES]]
    if len(lines) > _MOST_LINES:
        rows.append(f"<div>… and {len(lines) - _MOST_LINES} more</div>")
    return (
        '<div style="font-family:system-ui,sans-serif;font-size:13px;line-height:1.6;'
        f'font-variant-numeric:tabular-nums">{"".join(rows)}</div>'
    )


def _row(line: Line) -> str:
    if not line.layer:
        return f"<div>{html.escape(line.state)} {html.escape(line.amount)}</div>"
    share = line.share
    full = 0.0 if share is None else share * 100
    colour = GREEN if line.kind in ("unpack", "done") else BLUE
    return (
        '<div style="display:flex;align-items:center;gap:10px">'
        f'<code style="width:8em">{html.escape(line.layer)}</code>'
        f'<span style="width:7.5em">{html.escape(line.state)}</span>'
        '<span style="width:220px;height:9px;border-radius:4px;overflow:hidden;'
        'background:rgba(128,128,128,.25)">'
        f'<span style="display:block;height:100%;width:{full:.1f}%;background:{colour}"></span></span>'
        f'<span style="opacity:.75">{html.escape(line.amount)}</span></div>'
    )


class Shown:
    """Where a transfer is shown, and what it says in the end."""

    def __init__(self, bars_: Bars | None, progress: Board | None) -> None:
        self._bars = bars_
        self.progress = progress

    @property
    def note(self) -> str:
        """What was said of the whole."""
        return self.progress.note if self.progress else ""

    def end(self, text: str) -> None:
        """Say what has come of it."""
        if self._bars is None:
            print(text)
        else:
            self._bars.end(text)


class Stopped(KeyboardInterrupt):
    """The person at the notebook interrupted a transfer."""

    def _render_traceback_(self) -> list[str]:
        return [f"KeyboardInterrupt: {self}"]


@contextlib.contextmanager
def showing(*, quiet: bool, interrupted: str = "nothing was kept") -> Iterator[Shown]:
    """Show how a transfer gets on, in the way that suits where we are.

    Parameters
    ----------
    interrupted
        What to say where the person interrupts it.
    """
    try:
        with _showing(quiet=quiet) as shown:
            yield shown
    except KeyboardInterrupt:
        raise Stopped(interrupted) from None


@contextlib.contextmanager
def _showing(*, quiet: bool) -> Iterator[Shown]:
    shell = get_ipython()
    view = None if quiet or shell is None else view_for(shell)
    if isinstance(view, NotebookView):
        assert shell is not None
        drawn = Bars(shell)
        shown = Shown(drawn, None)
        with Board(drawn) as board:
            shown.progress = board
            yield shown
    elif quiet:
        yield Shown(None, None)
    else:
        draw = Terminal(sys.stdout) if isinstance(view, TerminalView) else Plain(sys.stdout)
        with Board(draw) as board:
            yield Shown(None, board)
