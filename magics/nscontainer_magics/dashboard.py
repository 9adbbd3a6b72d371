"""The dashboard of a run in the background: a live plot, Stop, Pause, and a slider for its CPU quota.

The buttons and the slider are ipywidgets; the plot is a display of its own, which ends as a static
picture and is there in any viewer of the saved notebook.
"""

from __future__ import annotations

import contextvars
import os
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from IPython.display import display

from nscontainer import live, units
from nscontainer.errors import NsContainerError, one_line

if TYPE_CHECKING:
    from nscontainer.measure.result import RunResult
    from nscontainer_magics.background import BackgroundRun
    from nscontainer_magics.live import NotebookView

_LEAST_PERCENT: Final = 1
_MOST_PERCENT: Final = 100 * (os.cpu_count() or 1)
_OURS_S: Final = 1.0
"""How long after a move what was read before it may still come in."""


class Dashboard:
    """Shows a run in the background, and lets the person act on it: a view for :class:`Live`.

    Parameters
    ----------
    plot
        Where its plot is shown.
    """

    def __init__(self, plot: NotebookView) -> None:
        self._plot = plot
        self._controls: _Controls | None = None
        self._begun = threading.Event()

    def begin(self, run: BackgroundRun, quota: float | None) -> None:
        """Show the controls and the plot of a run that has begun; ``quota`` is its limit in CPUs."""
        self._show_controls(run, quota)
        self._plot.show(live.Progress(), "begins")
        self._begun.set()
        if run.done:
            self.end(run.result)
            self.finish(run)

    def _show_controls(self, run: BackgroundRun, quota: float | None) -> None:
        try:
            widgets: Any = import_module("ipywidgets")
        except ImportError:
            name = run.name
            print(
                f"{name} runs in the background. (With ipywidgets there would be buttons and a slider; "
                f"%container stop {name}, pause {name}, update {name} --cpu 50% do the same.)"
            )
            return
        self._controls = _Controls(widgets, run, quota)
        display(self._controls.box)

    def finish(self, run: BackgroundRun) -> None:
        """Take the controls out of use."""
        if self._controls is not None:
            self._controls.end(run.status)

    def show(self, now: live.Progress, state: str) -> None:
        """Show how it is getting on."""
        if not self._begun.is_set():  # the controls come first
            return
        _anywhere(lambda: self._plot.show(now, state))
        if self._controls is not None:
            self._controls.follow(now.quota, paused=state == "paused")

    def end(self, result: RunResult | None) -> None:
        """Show how it was in the end."""
        if self._begun.is_set():
            _anywhere(lambda: self._plot.end(result))


def _anywhere(publish: Callable[[], None]) -> None:
    """Renew a display as a later cell would: nbclient hears nothing more of the cell that has ended."""
    contextvars.Context().run(publish)


def _percent(quota: float | None) -> int:
    """Give where the slider stands for a quota; at its end where there is none."""
    if quota is None:
        return _MOST_PERCENT
    return max(_LEAST_PERCENT, min(_MOST_PERCENT, round(quota * 100)))


class _Controls:
    """Two buttons, a slider and a line. Handlers and :meth:`follow` may come in different threads."""

    def __init__(self, widgets: Any, run: BackgroundRun, quota: float | None) -> None:
        self._run = run
        self._lock = threading.RLock()
        self._moved_at = self._pressed_at = 0.0
        self._following = False
        self.stop = widgets.Button(
            description="Stop", icon="stop", tooltip="Interrupt the cell; again: kill it",
            layout=widgets.Layout(width="90px"),
        )  # fmt: skip
        self.pause = widgets.Button(
            description="Pause", icon="pause", tooltip="Freeze every process",
            layout=widgets.Layout(width="90px"),
        )  # fmt: skip
        self.quota = widgets.IntSlider(
            value=_percent(quota), min=_LEAST_PERCENT, max=_MOST_PERCENT, description="CPU quota",
            readout_format="d", continuous_update=False, layout=widgets.Layout(width="380px"),
        )  # fmt: skip
        self.unit = widgets.Label("% of a CPU" if quota is not None else "% (no limit yet)")
        self.line = widgets.Label(f"{run.name} runs", layout=widgets.Layout(height="28px"))
        self.stop.on_click(self._stop)
        self.pause.on_click(self._pause)
        self.quota.observe(self._change, names="value")
        row = widgets.HBox([self.stop, self.pause, self.quota, self.unit])
        self.box = widgets.VBox([row, self.line])

    # --- what the person does ------------------------------------------------------------------

    def _stop(self, _: Any) -> None:
        again = self.stop.description == "Kill"
        self._try(self._run.kill if again else self._run.stop)
        self.stop.description, self.stop.icon = "Kill", "times"

    def _pause(self, _: Any) -> None:
        frozen = self._run.status == "paused"
        if self._try(self._run.resume if frozen else self._run.pause):
            self._pressed_at = time.monotonic()
            self._name_pause(paused=not frozen)

    def _name_pause(self, *, paused: bool) -> None:
        word, icon = ("Resume", "play") if paused else ("Pause", "pause")
        if self.pause.description != word:
            self.pause.description, self.pause.icon = word, icon
            self.line.value = f"{self._run.name} is paused" if paused else f"{self._run.name} runs"

    def _change(self, change: Any) -> None:
        with self._lock:
            if self._following or self._run.done:
                return
            self._moved_at = time.monotonic()
        percent = int(change["new"])
        if self._try(lambda: self._run.update(cpu=f"{percent}%")):
            self.unit.value = "% of a CPU"
            self.line.value = f"{self._run.name}: CPU quota {percent} %"

    def _try(self, act: Any) -> bool:
        try:
            act()
        except NsContainerError as error:
            self.line.value = one_line(error)
            return False
        return True

    # --- what happens otherwise ----------------------------------------------------------------

    def follow(self, quota: float | None, *, paused: bool) -> None:
        """Show a quota that was changed elsewhere: by ``%container update``, say."""
        if time.monotonic() - self._pressed_at > _OURS_S:
            self._name_pause(paused=paused)
        with self._lock:
            if quota is None or time.monotonic() - self._moved_at < _OURS_S:
                return
            percent = _percent(quota)
            if percent != self.quota.value:
                self._following = True
                self.quota.value = percent
                self._following = False
                self.unit.value = f"% of a CPU ({units.format_cpu(quota)})"

    def end(self, how: str) -> None:
        """Take the controls out of use; a run that is soon over may tell of it twice."""
        with self._lock:
            if self.stop.disabled:
                return
            self.stop.disabled = True
        for one in (self.pause, self.quota):
            one.disabled = True
        # ipywidgets keeps every widget for ever: not with all that the run has.
        self.stop.on_click(self._stop, remove=True)
        self.pause.on_click(self._pause, remove=True)
        self.quota.unobserve(self._change, names="value")
        self.line.value = f"{self._run.name}: {how}"
