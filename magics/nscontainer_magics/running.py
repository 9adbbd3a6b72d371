"""One cell on its way through a container: prepared in the shell's own thread, run there or in another."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

from nscontainer import recordings
from nscontainer.errors import SpecError, TransferError
from nscontainer_magics import capture, script
from nscontainer_magics.display import Display, replies, say_recorded
from nscontainer_magics.live import Live, shows_html, view_for

if TYPE_CHECKING:
    from nscontainer.engine.container import Container
    from nscontainer.measure.result import RunResult
    from nscontainer.sessions import Session
    from nscontainer_magics.cell_line import CellLine
    from nscontainer_magics.defaults import Settings


class CellRun:
    """A cell and all that it needs of the notebook.

    Parameters
    ----------
    settings
        The magics: their shell, and how much is shown.
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

    Attributes
    ----------
    publisher, stderr
        Where its card, and lines about it, are shown.

    Raises
    ------
    SpecError
        What was asked can't be done; nothing has been made.
    """

    def __init__(
        self,
        settings: Settings,
        asked: CellLine,
        cell: str,
        session: Session | None,
        *,
        background: bool = False,
        live: Live | None = None,
    ) -> None:
        self.asked = asked
        self.session = session
        assert settings.shell is not None
        self._shell = settings.shell
        self._settings = settings
        # What they are now: a run in the background mustn't write into another cell's %%capture.
        self.publisher = settings.shell.display_pub
        self.stderr = sys.stderr
        self._background = background
        self._view = None
        if not background and settings.live and not asked.quiet:
            self._view = view_for(self._shell)
            live = None if self._view is None else Live(self._view, session)
        self.live = live
        program = ("/bin/sh",) if asked.sh else script.interpreter(cell)
        self._call = self._python(cell) if program is None else self._script(cell, program)
        self._plan = recordings.cell(cell, asked.build, program=program, variables=asked.inputs)

    @contextlib.contextmanager
    def _output(self) -> Iterator[Display]:
        """Give what shows its output, or captures it."""
        shell, most = self._shell, self._settings.shown_bytes
        if self._background:
            # A terminal's prompt has the screen; and nobody is there to be asked.
            yield Display(shell, most, silent=not shows_html(shell), answers=False)
            return
        with capture.output(shell, self.asked.capture, most) as shown:
            if self._view is not None:
                self._view.keep_clear_of(shown)
            yield shown

    def run(
        self, on_start: Callable[[Container], None] | None = None
    ) -> tuple[RunResult, TransferError | None]:
        """Run it; give its result, and what says which values it couldn't bring.

        Parameters
        ----------
        on_start
            Called once its code has been let go: what is wrong with the line was said before.
        """
        recorded = self._recorded()
        if recorded is not None:
            return self._replay(recorded), None
        refusal: TransferError | None = None
        try:
            with self._output() as shown:

                def started(container: Container) -> None:
                    shown.attach(self.session or container)
                    if on_start is not None:
                        on_start(container)

                try:
                    result = self._call(
                        on_message=shown.message,
                        on_stdout=shown.stdout,
                        on_stderr=shown.stderr,
                        on_interrupt="return",
                        on_start=started,
                        on_tick=None if self.live is None else self.live.tick,
                    )
                except TransferError as error:
                    refusal, result = error, cast("RunResult", error.result)
                stdout, stderr = shown.finish()
        except BaseException:
            self.end(None)
            raise
        result = dataclasses.replace(result, stdout_bytes=stdout, stderr_bytes=stderr)
        if self.session is None and not self._background:
            recordings.keep_cell(result, self._plan)
        return result, refusal

    def _recorded(self) -> RunResult | None:
        """Give what is shown in place of a run, where no container can run and recordings are named."""
        if self.asked.build.get("unconfined"):
            return None  # that can be had anywhere
        for what, asked in (
            ("a session", self.session is not None),
            ("a run in the background", self._background),
            ("a value that --out brings", bool(self.asked.out)),
        ):
            if asked:
                recordings.missing(what)
        return recordings.find_cell(self._plan)

    def _replay(self, recorded: RunResult) -> RunResult:
        """Show a recorded run as if it ran, and say first that it doesn't."""
        assert recorded.recorded is not None
        say_recorded(self.publisher, recordings.line(recorded.recorded))
        with self._output() as shown:
            for message in replies(recorded.outputs):
                shown.message(message)
            shown.stdout(recorded.stdout_bytes)
            shown.stderr(recorded.stderr_bytes)
            shown.finish()
        if self.live is not None:
            self.live.recorded(recorded)
        return recorded

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
        options = api.script_options(asked.build)
        return lambda *, on_message, **sinks: api.run(  # noqa: ARG005  # a script sends none
            how.command, input=how.stdin, name=asked.name, **options, **sinks
        )

    def _place(self) -> str:
        """Name the cell as tracebacks do."""
        # The count has gone up already when a magic runs (InteractiveShell.run_cell_async).
        return f"Cell In[{self._shell.displayhook.prompt_count}]"
