"""``--bg``: a cell runs in the background, and the notebook goes on.

It runs in a thread of the notebook's process, in the context of the cell that began it: what it says
appears below that cell, as if it still ran.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nscontainer.errors import NsContainerError, StateError

if TYPE_CHECKING:
    from nscontainer.engine.container import Container
    from nscontainer.errors import TransferError
    from nscontainer.measure.result import RunResult
    from nscontainer_magics.running import CellRun


class StillRunning(StateError, AttributeError):  # noqa: N818  # it reads as what is the matter
    """What is asked of a run that isn't over can't be said yet."""


class BackgroundRun:
    """A cell that runs in the background: ``%%container --bg -o r`` puts it into ``r``.

    When it is over, all that a :class:`~nscontainer.RunResult` has is had of it as well: ``r.usage``,
    ``r.plot()``, ``r.stdout`` …

    Attributes
    ----------
    container
        Its :class:`~nscontainer.Container`.

    Examples
    --------
    >>> r.update(cpu="50%")  # doctest: +SKIP
    >>> r.wait().cpu_s  # doctest: +SKIP
    2.01
    """

    container: Container

    def __init__(
        self,
        run: CellRun,
        ended: Callable[[RunResult], None],
        finished: Callable[[BackgroundRun], None],
    ) -> None:
        self._run = run
        self._ended = ended
        """Called before anybody who waits hears of its end, to set its variables."""
        self._finished = finished
        self._begun = threading.Event()
        self._over = threading.Event()
        self._error: BaseException | None = None
        self._stopped = 0
        self.result: RunResult | None = None
        """None until it is over, or where the engine failed."""
        self.refusal: TransferError | None = None
        """What says which values of ``--out`` could not be brought."""

    def begin(self) -> None:
        """Let it run; return once its code has been let go.

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
            self._begun.wait()
            if hasattr(self, "container"):
                with contextlib.suppress(NsContainerError):  # it is over already
                    self.kill()
            raise
        if self._error is not None and not hasattr(self, "container"):
            raise self._error

    def _work(self) -> None:
        def started(container: Container) -> None:
            self.container = container
            self._begun.set()

        try:
            result, self.refusal = self._run.run(started)
            stopped = max(self._stopped, int(result.record["interrupted"]))
            record = {**result.record, "interrupted": stopped}
            self.result = dataclasses.replace(result, record=record)
            self._ended(self.result)
        except BaseException as error:  # noqa: BLE001  # told to whoever waits
            self._error = error
        begun = self._begun.is_set()
        self._over.set()
        self._begun.set()
        if begun:
            self._finished(self)
        # What it took along may be large, and this object may be kept long.
        del self._run, self._ended, self._finished

    # --- looking ---------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The container's name."""
        return self.container.name

    @property
    def done(self) -> bool:
        """Whether it is over."""
        return self._over.is_set()

    @property
    def status(self) -> str:
        """``running``, ``paused``, or how it ended."""
        if self.result is not None:
            return self.result.describe_exit()
        if self._error is not None:
            return str(self._error)
        return "paused" if self.container.status == "paused" else "running"

    def wait(self, timeout_s: float | None = None) -> RunResult:
        """Wait until it is over, and give its result.

        Raises
        ------
        TimeoutError
            It isn't, after ``timeout_s`` seconds.
        """
        if not self._over.wait(timeout_s):
            message = f"{self.name} still runs after {timeout_s} s"
            raise TimeoutError(message)
        if self._error is not None:
            raise self._error
        assert self.result is not None
        return self.result

    # --- acting ----------------------------------------------------------------------------------

    def stop(self) -> None:
        """Interrupt it, as ■ does: the cell gets a KeyboardInterrupt."""
        self._stopped = 1
        self._act(self.container.interrupt)

    def kill(self) -> None:
        """Kill every process of it; of a session, the whole session."""
        self._act(self.container.kill)

    def pause(self) -> None:
        """Freeze it."""
        self._act(self.container.pause)

    def resume(self) -> None:
        """Let it go on."""
        self._act(self.container.resume)

    def update(self, **limits: Any) -> dict[str, Any]:
        """Change limits while it runs, as ``update(cpu="50%")``; gives them as read back."""
        self._alive()
        return self.container.update(**limits)

    def _alive(self) -> None:
        if self.done:
            message = f"{self.name} is over: {self.status}"
            raise StateError(message)

    def _act(self, act: Callable[[], None]) -> None:
        self._alive()
        try:
            act()
        except NsContainerError:
            with contextlib.suppress(TimeoutError):  # it ended just now: that is no error
                self.wait(1.0)
                return
            raise

    # --- as its result ---------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        """Give what its result has."""
        if name.startswith("_") or name == "container":
            raise AttributeError(name)
        if self.result is None:
            from nscontainer.measure.result import RunResult

            known = hasattr(RunResult, name) or name in RunResult.__dataclass_fields__
            if not known:
                message = f"a run in the background has no {name!r}"
                raise AttributeError(message)
            message = f"no {name!r} yet: {self.name} is {self.status}"
            raise StillRunning(message, hint="wait() waits until it is over")
        return getattr(self.result, name)

    def __dir__(self) -> list[str]:
        """Name what its result has too, once it is there, for Tab."""
        return sorted({*super().__dir__(), *(() if self.result is None else dir(self.result))})

    def __reduce__(self) -> tuple[Any, ...]:
        """Be copied and pickled as its result; one that runs is one only."""
        if self.result is None:
            message = f"{self.name} is {self.status}"
            raise StillRunning(message, hint="wait() gives its result, which can be copied")
        return _same, (self.result,)

    def __repr__(self) -> str:
        """Say how it is getting on."""
        if self.result is not None:
            return str(self.result)
        return f"<BackgroundRun {self.name}: {self.status}>"

    def _repr_html_(self) -> str | None:
        return None if self.result is None else self.result._repr_html_()


def _same(result: RunResult) -> RunResult:
    return result
