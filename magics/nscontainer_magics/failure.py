"""What a failed cell raises: one line, since all else has been shown, and Run-All stops at it.

IPython prints the lines of ``_render_traceback_()`` in place of a traceback. None of these derives
from UsageError, which ipykernel doesn't report to the front end as an error (ipython #14024).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from nscontainer.errors import CommandError, NsContainerError, one_line

if TYPE_CHECKING:
    from nscontainer.experiment.sweep import Sweep
    from nscontainer.measure.result import RunResult

Error = TypeVar("Error", bound=NsContainerError)


class ContainerFailed(CommandError):  # noqa: N818  # it reads as what happened
    """The container's code failed, or the container was ended.

    Attributes
    ----------
    result
        The :class:`~nscontainer.RunResult`, whole.
    """

    def __init__(
        self,
        result: RunResult,
        *,
        over: str | None = None,
        hint: str | None = None,
        more: str = "",
    ) -> None:
        super().__init__(_how(result, over) + more, exit_code=result.exit_code, hint=hint)
        self.result = result

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {one_line(self)}"]


class SweepStopped(KeyboardInterrupt):
    """The person at the notebook interrupted a sweep.

    Attributes
    ----------
    sweep
        The :class:`~nscontainer.Sweep`, as far as it has come.
    """

    def __init__(self, sweep: Sweep, text: str) -> None:
        super().__init__(text)
        self.sweep = sweep

    def _render_traceback_(self) -> list[str]:
        return [f"KeyboardInterrupt: {self}"]


class Interrupted(KeyboardInterrupt):
    """The person at the notebook interrupted the container."""

    def __init__(self, result: RunResult, over: str | None = None) -> None:
        super().__init__(_how(result, over))
        self.result = result

    def _render_traceback_(self) -> list[str]:
        return [f"KeyboardInterrupt: {self}"]


def _how(result: RunResult, over: str | None) -> str:
    """Say how it ended, and which session has ended with it."""
    return result.describe_exit() + (f"; session {over!r} is gone" if over else "")


def in_one_line(error: Error) -> Error:
    """Have IPython render an error of ours as one line."""
    line = f"{type(error).__name__}: {one_line(error)}"
    error._render_traceback_ = lambda: [line]  # type: ignore[attr-defined]
    return error
