"""The magics themselves: ``%%container`` runs a cell, ``%container`` looks after containers."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from IPython.core.magic import cell_magic, line_magic, magics_class

from nscontainer.errors import NsContainerError, SpecError, one_line
from nscontainer_magics import cell_line, commands, comms, plot_command, session_commands, variables
from nscontainer_magics.background import BackgroundRun
from nscontainer_magics.dashboard import Dashboard
from nscontainer_magics.defaults import Settings
from nscontainer_magics.display import publish
from nscontainer_magics.failure import ContainerFailed, Interrupted, SweepStopped, in_one_line
from nscontainer_magics.live import Live, NotebookView, shows_html, view_for
from nscontainer_magics.running import CellRun

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from nscontainer.errors import TransferError
    from nscontainer.experiment.sweep import Sweep
    from nscontainer.measure.result import RunResult
    from nscontainer.sessions import Session
    from nscontainer_magics.cell_line import CellLine
    from nscontainer_magics.sweeping import SweepCell

Function = TypeVar("Function", bound=Callable[..., Any])


def _documented(text: str) -> Callable[[Function], Function]:
    """Give a magic the help that ``?`` shows."""

    def give(function: Function) -> Function:
        function.__doc__ = text
        return function

    return give


@magics_class
class ContainerMagics(Settings):
    """Run cells in containers."""

    last: RunResult | Sweep | None = None
    """The result of the newest cell."""

    @property
    def _ip(self) -> InteractiveShell:
        assert self.shell is not None
        return self.shell

    @cell_magic("container")  # type: ignore[arg-type]  # its types don't know of decorated methods
    @_documented(cell_line.help_text())
    def run_cell(self, line: str, cell: str) -> None:  # noqa: D102  # the parser's help
        with _errors_in_one_line():
            asked = cell_line.parse(line, self.fill)
            asked = dataclasses.replace(asked, quiet=asked.quiet or self.quiet)
            if asked.help:
                print(cell_line.help_text())
                return
            if not cell.strip():
                message = "the cell is empty"
                raise SpecError(message, hint="write code below the %%container line")
            if asked.sweep is not None:
                self._sweep(asked, cell)
                return
            held = None if asked.session is None else session_commands.find(asked.session)
            if asked.bg:
                self._begin(asked, cell, held)
                return
            run = CellRun(self, asked, cell, held)
            result, refusal = run.run()
        self._keep(result, asked)
        self._finish(run, result, refusal, asked)

    def _sweep(self, asked: CellLine, cell: str) -> None:
        """Let the cell run as often as its line asks."""
        from nscontainer_magics.sweeping import SweepCell

        run = SweepCell(self, asked, cell, background=asked.bg)
        if asked.bg:
            self._begin_sweep(asked, run)
            return
        sweep, error = run.run()
        self.last = sweep
        if asked.output:
            self._ip.user_ns[asked.output] = sweep
        run.end(sweep)  # this takes a while, and may be interrupted
        if error is not None:
            _raise(error, asked)

    def _begin_sweep(self, asked: CellLine, run: SweepCell) -> None:
        """Let a sweep run in the background, its bar below the cell where one can be shown."""
        from nscontainer_magics.sweep_background import BackgroundSweep

        waived = dataclasses.replace(asked, raise_error=False)

        def finished(sweep: Sweep | None, error: BaseException | None) -> None:
            if sweep is not None:
                self.last = sweep
                run.end(sweep)
            if isinstance(error, (ContainerFailed, SweepStopped)):
                _raise(error, waived, run.stderr)
            elif error is not None:
                said = one_line(error) if isinstance(error, NsContainerError) else str(error)
                print(f"{type(error).__name__}: {said}", file=run.stderr)

        begun = BackgroundSweep(run, finished)
        begun.begin()
        if asked.output:
            self._ip.user_ns[asked.output] = begun
        if asked.quiet or not shows_html(self._ip):
            print(f"sweep {begun.sweep.id} runs in the background")

    def _begin(self, asked: CellLine, cell: str, held: Session | None) -> None:
        """Let the cell run in the background, with its dashboard where one can be shown."""
        view = None if asked.quiet else view_for(self._ip)
        board = Dashboard(view) if isinstance(view, NotebookView) else None
        live = None if board is None else Live(board, held, after_s=0.0)
        run = CellRun(self, asked, cell, held, background=True, live=live)
        # Its failure fails no cell, and its variable has it from the beginning.
        quiet = asked.quiet or not shows_html(self._ip)
        waived = dataclasses.replace(asked, raise_error=False, output=None, quiet=quiet)

        def finished(ended: BackgroundRun) -> None:
            if board is not None:
                board.finish(ended)
            if ended.result is None:
                print(f"{ended.name}: {ended.status}", file=run.stderr)
            else:
                self._finish(run, ended.result, ended.refusal, waived)

        begun = BackgroundRun(run, lambda result: self._keep(result, waived), finished)
        begun.begin()
        if asked.output:
            self._ip.user_ns[asked.output] = begun
        if board is None:
            print(f"{begun.name} runs in the background")
        else:
            board.begin(begun, begun.container.spec.limits.cpus)

    def _keep(self, result: RunResult, asked: CellLine) -> None:
        """Keep what a run gave."""
        # Values belong to the variables: what a variable lets go of mustn't be kept here.
        self.last = dataclasses.replace(result, values={}) if result.values else result
        if asked.output:
            self._ip.user_ns[asked.output] = result
        self._ip.user_ns.update(result.values)

    def _finish(
        self, run: CellRun, result: RunResult, refusal: TransferError | None, asked: CellLine
    ) -> None:
        """Show a run's card, and fail where it failed."""
        run.end(result)
        if not asked.quiet:
            self._show(run, result)
        self._judge(run, result, refusal, asked)

    @line_magic("container")  # type: ignore[arg-type]
    @_documented(commands.help_text())
    def manage(self, line: str) -> Any:  # noqa: D102  # the sub-commands' help
        with _errors_in_one_line():
            words = cell_line.split(line)
            if words[:1] == ["last"]:
                return self._last(words)
            if words[:1] == ["plot"] and words[1:2] not in (["-h"], ["--help"]):
                plot_command.plot(words[1:], self._ip.user_ns)
                return None
            try:
                return commands.call(words)
            finally:
                comms.look()  # it may have ended a session

    def _last(self, words: list[str]) -> RunResult | Sweep:
        if len(words) > 1:
            message = f"{words[1]!r} is one argument too many"
            raise SpecError(message, hint="%container last")
        if self.last is None:
            message = "no cell has run in a container yet"
            raise SpecError(message, hint="begin a cell with %%container")
        return self.last

    def _show(self, run: CellRun, result: RunResult) -> None:
        """Show the card, as ``display(result)`` would: without asking each of a dozen formatters."""
        shown = {"text/plain": str(result)}
        if shows_html(self._ip):
            shown["text/html"] = result._repr_html_()
        publish(run.publisher, shown, metadata={})

    def _judge(
        self, run: CellRun, result: RunResult, refusal: TransferError | None, asked: CellLine
    ) -> None:
        """Fail as the container did, or since a value of it couldn't be had."""
        error: Any
        held = run.session
        over = None if held is None or held.over is None else held.name
        if result.ok and over is not None:
            print(f"session {over!r} has ended", file=run.stderr)
        if result.ok and refusal is None:
            return
        if refusal is not None:
            error = in_one_line(refusal)
        elif result.interrupted:
            error = Interrupted(result, over=over)
        else:
            hint = variables.missing(result, self._ip.user_ns)
            error = ContainerFailed(result, over=over, hint=hint)
        _raise(error, asked, run.stderr)


def _raise(error: Any, asked: CellLine, stderr: TextIO | None = None) -> None:
    """Have the cell fail; with ``--no-raise-error`` only say with what."""
    if asked.raise_error:
        raise error from None
    for line in error._render_traceback_():
        print(line, file=stderr or sys.stderr)


@contextlib.contextmanager
def _errors_in_one_line() -> Any:
    """Have an error of ours shown as one line: what was wrong, and how to mend it."""
    try:
        yield
    except NsContainerError as error:
        raise in_one_line(error) from None
