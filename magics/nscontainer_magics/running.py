"""One cell on its way through a container: prepared in the shell's own thread, run there or in another."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from nscontainer.errors import HostError, SpecError, TransferError
from nscontainer_magics import script
from nscontainer_magics.display import Display
from nscontainer_magics.live import Live, NotebookView, TerminalView, shows_html, view_for

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from nscontainer.engine.container import Container
    from nscontainer.measure.result import RunResult
    from nscontainer.sessions import Session
    from nscontainer_magics.cell_line import CellLine


class CellRun:
    """A cell and all that it needs of the notebook.

    Parameters
    ----------
    shell
        The notebook's, or a terminal's.
    asked
        The ``%%container`` line.
    cell
        What is below it.
    session
        The session to run it in; None for a container of its own.
    background
        It runs in another thread: nobody can be asked, and where the screen is a terminal's prompt
        nothing is shown.
    live
        The view of one that runs in the background; others have the usual one, but for ``--quiet``.

    Raises
    ------
    SpecError
        What was asked can't be done; nothing has been made.
    """

    def __init__(
        self,
        shell: InteractiveShell,
        asked: CellLine,
        cell: str,
        session: Session | None,
        *,
        background: bool = False,
        live: Live | None = None,
    ) -> None:
        self.asked = asked
        self.session = session
        self._shell = shell
        self.shown = Display(
            shell, silent=background and not shows_html(shell), answers=not background
        )
        self.live = live if background else self._usual_view()
        program = ("/bin/sh",) if asked.sh else script.interpreter(cell)
        self._call = self._python(cell) if program is None else self._script(cell, program)

    def _usual_view(self) -> Live | None:
        view = None if self.asked.quiet else view_for(self._shell, self.shown.at_line_start)
        if isinstance(view, NotebookView):
            self.shown.on_clear = view.cleared
        elif isinstance(view, TerminalView):
            self.shown.before_write = view.rub_out
        return None if view is None else Live(view, self.session)

    def run(
        self, on_start: Callable[[Container], None] | None = None
    ) -> tuple[RunResult, TransferError | None]:
        """Run it; give its result, and what says which values it couldn't bring.

        Parameters
        ----------
        on_start
            Called once its code has been let go: what is wrong with the line was said before.
        """

        def started(container: Container) -> None:
            self.shown.attach(self.session or container)
            if on_start is not None:
                on_start(container)

        refusal: TransferError | None = None
        try:
            result = self._call(
                on_stdout=self.shown.stdout,
                on_stderr=self.shown.stderr,
                on_interrupt="return",
                on_start=started,
                on_tick=None if self.live is None else self.live.tick,
            )
        except TransferError as error:
            refusal, result = error, cast("RunResult", error.result)
        except BaseException:
            self.end(None)
            raise
        stdout, stderr = self.shown.finish()
        return dataclasses.replace(result, stdout_bytes=stdout, stderr_bytes=stderr), refusal

    def end(self, result: RunResult | None) -> None:
        """Let its view end, with a picture of its result. That takes a while, and may be interrupted."""
        if self.live is not None:
            self.live.end(result)

    def _python(self, cell: str) -> Callable[..., RunResult]:
        from nscontainer import api
        from nscontainer.values import inputs

        asked = self.asked
        how: dict[str, Any] = {
            "filename": self._place(),
            "line_offset": 1,  # the magic's own line: line numbers are the editor's
            "on_message": self.shown.message,
            "colors": str(self._shell.colors).lower() != "nocolor",
            "width": shutil.get_terminal_size().columns,
            "inputs": inputs.look_up(asked.inputs, self._shell.user_ns),
            "out": asked.out,
            "trust": asked.trust,
        }
        if self.session is not None:
            session = self.session
            return lambda **sinks: session.run_cell(cell, **how, **sinks)
        return lambda **sinks: api.run_cell(cell, name=asked.name, **how, **sinks, **asked.build)

    def _script(self, cell: str, program: tuple[str, ...]) -> Callable[..., RunResult]:
        from nscontainer import api

        asked = self.asked
        if asked.session is not None:
            message = "a session runs Python cells: #! is for a container of its own"
            raise SpecError(message, hint="leave the name of the session out, or the #! line")
        if asked.inputs or asked.out:
            message = f"variables go into Python cells only, and this is one of {program[0]}"
            raise SpecError(message, hint="-e NAME=$value gives a script a value")
        how = script.make(cell, program, name=self._place())
        options = {"workdir": _working_directory(), **asked.build}
        return lambda **sinks: api.run(
            how.command, input=how.stdin, name=asked.name, **options, **sinks
        )

    def _place(self) -> str:
        """Name the cell as tracebacks do."""
        # The count has gone up already when a magic runs (InteractiveShell.run_cell_async).
        return f"Cell In[{self._shell.displayhook.prompt_count}]"


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        message = "the working directory no longer exists"
        raise HostError(message, hint="change to one that does") from None
