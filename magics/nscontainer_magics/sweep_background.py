"""``--bg`` with a sweep: it goes on in a thread, as a cell's run does, and the notebook has it as far as it is."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nscontainer.errors import StateError
from nscontainer_magics.background import StillRunning
from nscontainer_magics.sweep_view import told

if TYPE_CHECKING:
    from nscontainer.experiment.progress import Progress
    from nscontainer.experiment.sweep import Sweep
    from nscontainer_magics.sweeping import SweepCell

Finished = Callable[["Sweep | None", "BaseException | None"], None]


class BackgroundSweep:
    """A sweep that runs in the background: ``%%container --bg --cpu 20%,50% --repeat 9 -o s`` puts it into ``s``.

    All that a :class:`~nscontainer.Sweep` has is had of it as well, from the beginning, of the runs that
    have ended: ``s.summary``, ``s.compare("cpu")``, ``s.plot()`` …

    Examples
    --------
    >>> s.stop()  # doctest: +SKIP
    >>> s.wait().compare("cpu")  # doctest: +SKIP
    """

    def __init__(self, run: SweepCell, finished: Finished) -> None:
        self._run = run
        self._finished = finished
        self._begun = threading.Event()
        self._over = threading.Event()
        self._stop = threading.Event()
        self._now: Progress | None = None
        self._sweep: Sweep | None = None
        self._error: BaseException | None = None

    def begin(self) -> None:
        """Let it run; return when its first run begins.

        Raises
        ------
        NsContainerError
            It can't be: nothing is left of it.
        """
        context = contextvars.copy_context()  # ipykernel: where output belongs
        self._thread = threading.Thread(
            target=context.run, args=(self._work,), name="nscontainer --bg", daemon=True
        )
        self._thread.start()
        try:
            self._begun.wait()
        except KeyboardInterrupt:
            self._stop.set()
            raise
        if self._error is not None and self._sweep is None:
            raise self._error

    def _work(self) -> None:
        sweep: Sweep | None = None
        try:
            sweep, self._error = self._run.run(self._heard)
            self._sweep = sweep
        except BaseException as error:  # noqa: BLE001  # told to whoever waits
            self._error = error
        raised = self._sweep is None  # by begin()
        self._over.set()
        self._begun.set()
        if not raised:
            self._finished(sweep, self._error)
        del self._run, self._finished  # what it took along may be large

    def _heard(self, now: Progress) -> None:
        """Note how far it is; a stop is heard here, four times a second."""
        self._now, self._sweep = now, now.sweep
        self._begun.set()
        if self._stop.is_set():
            raise KeyboardInterrupt  # as ■: the run in hand is ended, the others are kept

    # --- looking ---------------------------------------------------------------------------------

    @property
    def sweep(self) -> Sweep:
        """The sweep as far as it is."""
        assert self._sweep is not None  # nobody has this before it has begun
        return self._sweep

    @property
    def done(self) -> bool:
        """Whether it is over."""
        return self._over.is_set()

    @property
    def status(self) -> str:
        """``running``, ``complete`` or ``interrupted``."""
        if not self.done:
            return "running"
        return "interrupted" if self._error is not None else self.sweep.status

    def wait(self, timeout_s: float | None = None) -> Sweep:
        """Wait until it is over, and give it; one that was stopped as far as it had come.

        Raises
        ------
        TimeoutError
            It isn't, after ``timeout_s`` seconds.
        NsContainerError
            What the sweep failed with.
        """
        if not self._over.wait(timeout_s):
            message = f"sweep {self.sweep.id} still runs after {timeout_s} s"
            raise TimeoutError(message)
        if self._error is not None and not isinstance(self._error, KeyboardInterrupt):
            raise self._error
        return self.sweep

    # --- acting ----------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the run in hand; what is done is kept, and the same cell goes on from there.

        Raises
        ------
        StateError
            It is over.
        """
        if self.done:
            message = f"sweep {self.sweep.id} is over: {self.status}"
            raise StateError(message)
        self._stop.set()

    # --- as its sweep ----------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        """Give what the sweep has, as far as it is."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.sweep, name)

    def __len__(self) -> int:
        """Count the runs that have ended."""
        return len(self.sweep)

    def __dir__(self) -> list[str]:
        """Name what the sweep has too, for Tab."""
        return sorted({*super().__dir__(), *dir(self.sweep)})

    def __reduce__(self) -> tuple[Any, ...]:
        """Be copied and pickled as its sweep; one that runs is one only."""
        if not self.done:
            message = f"sweep {self.sweep.id} is running"
            raise StillRunning(message, hint="wait() gives the sweep, which can be copied")
        return _same, (self.sweep,)

    def __repr__(self) -> str:
        """Say how far it is."""
        if self.done:
            return str(self.sweep)
        how = "" if self._now is None else f": {told(self._now)}"
        return f"<BackgroundSweep {self.sweep.id}{how}>"

    def _repr_html_(self) -> str | None:
        return self.sweep._repr_html_() if self.done else None


def _same(sweep: Sweep) -> Sweep:
    return sweep
