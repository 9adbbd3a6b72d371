"""The live view: what a cell uses while it runs, from its third second on.

In a notebook it is one display, renewed as the engine ticks (four times a second), that ends as a
static picture which any viewer shows. In a terminal it is a line that is rubbed out again.
"""

from __future__ import annotations

import base64
import contextlib
import shutil
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from IPython.core.displaypub import CapturingDisplayPublisher

from nscontainer import live
from nscontainer.errors import NsContainerError
from nscontainer_magics.display import Place, encodable

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from nscontainer.engine.container import Container
    from nscontainer.engine.following import Follower
    from nscontainer.measure.result import RunResult
    from nscontainer.sessions import Session
    from nscontainer_magics.display import Display

AFTER_S: Final = 2.0
_LIMIT_EVERY_S: Final = 2.0
_CLEARED_S: Final = 2.0
"""A cell that clears its output draws something of its own there: the view waits so long each time."""


class View(Protocol):
    """Where the view is shown."""

    def show(self, now: live.Progress, state: str) -> None:
        """Show how it is getting on."""

    def end(self, result: RunResult | None) -> None:
        """Show how it was in the end; None where nobody knows."""


class Live:
    """Follows a run by its samples, and shows it.

    Parameters
    ----------
    view
        Where.
    session
        The session that the cell runs in; None where its container is its own.
    after_s
        From when on it is shown. A view of 0 is there from the beginning, and ends in any case.
    """

    def __init__(
        self, view: View, session: Session | None = None, *, after_s: float = AFTER_S
    ) -> None:
        self._view = view
        self._session = session
        self._after_s = after_s
        self._follower: Follower | None = None
        self._limit_at = 0.0
        self._shown = after_s <= 0
        self.progress = live.Progress()

    def tick(self, container: Container) -> None:
        """Show how the run is getting on; called while it lasts."""
        with contextlib.suppress(NsContainerError, OSError):  # it ends just now
            if self._follower is None:
                self._begin(container)
            assert self._follower is not None
            self.progress.add(self._follower.new())
        if self.progress.elapsed_s >= self._after_s:
            self._look_at_limit(container)
            self._shown = True
            self._view.show(self.progress, "paused" if container.status == "paused" else "runs")

    def _begin(self, container: Container) -> None:
        self._follower = (self._session or container).follow()
        self.progress = live.Progress(period_us=container.spec.limits.cpu_period_us)
        self.progress.flows.limit(container.spec.limits)

    def _look_at_limit(self, container: Container) -> None:
        """Read the other limits now and then: they aren't in the samples, and an update may change them."""
        if container.spec.unconfined:
            self.progress.memory_limit = container.spec.limits.memory_bytes
            return
        from nscontainer.cli.stats import memory_limit_in_force

        if time.monotonic() >= self._limit_at:
            self._limit_at = time.monotonic() + _LIMIT_EVERY_S
            with contextlib.suppress(
                NsContainerError, OSError
            ):  # it ends just now: what is known stays
                self.progress.memory_limit = memory_limit_in_force(container)
                self.progress.flows.limit(container.limits())

    def end(self, result: RunResult | None) -> None:
        """Show the run as it was in the end, if it was shown at all; None where nobody knows."""
        if self._follower is not None and self._follower.close.alive:
            with contextlib.suppress(OSError):
                self.progress.add(self._follower.new())
            self._follower.close()
        if self._shown:
            self._view.end(result)

    def recorded(self, result: RunResult) -> None:
        """Have one that is shown again end in its picture, as when it ran."""
        self._shown = result.wall_s >= self._after_s


class NotebookView:
    """One display, by its id."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._place = Place(shell.display_pub)  # --capture puts another there
        self._newest: live.Progress | None = None
        self._quiet_until = 0.0

    def show(self, now: live.Progress, state: str) -> None:
        """Show how it is getting on."""
        self._newest = now
        if time.monotonic() >= self._quiet_until:
            self._place.show({"text/html": live.html(now, state), "text/plain": live.text(now)})

    def end(self, result: RunResult | None) -> None:
        """Put a picture of the whole run in its place."""
        # There may be none: matplotlib is missing, or it is drawn when ■ is pressed.
        if self._place.taken and self._newest is not None:
            self.show(self._newest, "ended after")
        if result is None:
            return
        from nscontainer import plot
        from nscontainer.measure import headline

        try:
            picture = base64.b64encode(plot.strip(result)).decode()
        except Exception:  # noqa: BLE001  # what was shown last stays: a cell fails for no picture
            return
        self._place.show({"image/png": picture, "text/plain": " · ".join(headline.parts(result))})

    def keep_clear_of(self, shown: Display) -> None:
        """Hear of it when the cell clears its output, and the view with it."""
        shown.on_clear = self._cleared

    def _cleared(self) -> None:
        self._place.let_go()
        self._quiet_until = time.monotonic() + _CLEARED_S


class TerminalView:
    """The last line of a terminal, as long as nothing has been begun there."""

    def __init__(self) -> None:
        self._stream = sys.stdout
        self._at_line_start: Callable[[], bool] = lambda: True
        self._drawn = False

    def keep_clear_of(self, shown: Display) -> None:
        """Rub the line out before something is printed there."""
        if shown.writes_to(self._stream):
            self._at_line_start = shown.at_line_start
            shown.before_write = self._rub_out

    def show(self, now: live.Progress, state: str) -> None:
        """Show how it is getting on."""
        if not self._at_line_start():
            return
        line = f"[{state} {live.text(now)}]"[: shutil.get_terminal_size().columns - 1]
        self._stream.write(f"\r\x1b[K{encodable(line, self._stream)}")
        self._stream.flush()
        self._drawn = True

    def _rub_out(self) -> None:
        """Clear the line for what is to be printed."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._drawn = False

    def end(self, result: RunResult | None) -> None:
        """Rub it out: the card has a curve."""
        del result
        self._rub_out()


def shows_html(shell: InteractiveShell) -> bool:
    """Whether it is a notebook's, or a console's that shows what a notebook does."""
    formatter = shell.display_formatter
    return formatter is not None and "text/html" in formatter.active_types


def view_for(shell: InteractiveShell) -> NotebookView | TerminalView | None:
    """Give the view that suits where we are, or None: nothing that moves goes into a file or a pipe."""
    if isinstance(shell.display_pub, CapturingDisplayPublisher):
        return None
    if shows_html(shell):
        return NotebookView(shell)
    return TerminalView() if sys.stdout.isatty() else None
