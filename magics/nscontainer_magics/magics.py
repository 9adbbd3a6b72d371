"""The magics themselves: ``%%container`` runs a cell, ``%container`` looks after containers."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from IPython.core.magic import Magics, cell_magic, line_magic, magics_class
from IPython.display import display

from nscontainer.errors import HostError, NsContainerError, SpecError
from nscontainer_magics import cell_line, commands, script, session_commands
from nscontainer_magics.display import Display
from nscontainer_magics.failure import ContainerFailed, Interrupted, in_one_line

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from nscontainer.measure.result import RunResult
    from nscontainer.sessions import Session
    from nscontainer_magics.cell_line import CellLine

Function = TypeVar("Function", bound=Callable[..., Any])


def _documented(text: str) -> Callable[[Function], Function]:
    """Give a magic the help that ``?`` shows."""

    def give(function: Function) -> Function:
        function.__doc__ = text
        return function

    return give


@magics_class
class ContainerMagics(Magics):
    """Run cells in containers."""

    last: RunResult | None = None
    """The result of the newest cell."""

    @property
    def _ip(self) -> InteractiveShell:
        assert self.shell is not None
        return self.shell

    @cell_magic("container")  # type: ignore[arg-type]  # its types don't know of decorated methods
    @_documented(cell_line.help_text())
    def run_cell(self, line: str, cell: str) -> None:  # noqa: D102  # the parser's help
        with _errors_in_one_line():
            asked = cell_line.parse(line)
            if asked.help:
                print(cell_line.help_text())
                return
            if not cell.strip():
                message = "the cell is empty"
                raise SpecError(message, hint="write code below the %%container line")
            held = None if asked.session is None else session_commands.find(asked.session)
            result = self._run(asked, cell) if held is None else self._run_in(held, cell)
        self.last = result
        if asked.output:
            self._ip.user_ns[asked.output] = result
        if not asked.quiet:
            self._show(result)
        over = None if held is None or held.over is None else held.name
        self._judge(result, asked, over)

    @line_magic("container")  # type: ignore[arg-type]
    @_documented(commands.help_text())
    def manage(self, line: str) -> Any:  # noqa: D102  # the sub-commands' help
        with _errors_in_one_line():
            words = cell_line.split(line)
            if words[:1] == ["last"]:
                return self._last(words)
            return commands.call(words)

    def _last(self, words: list[str]) -> RunResult:
        if len(words) > 1:
            message = f"{words[1]!r} is one argument too many"
            raise SpecError(message, hint="%container last")
        if self.last is None:
            message = "no cell has run in a container yet"
            raise SpecError(message, hint="begin a cell with %%container")
        return self.last

    def _run(self, asked: CellLine, cell: str) -> RunResult:
        from nscontainer import api

        shown = Display(self._ip)
        how_shown = self._how_shown(shown)
        program = ("/bin/sh",) if asked.sh else script.interpreter(cell)
        sinks: dict[str, Any] = {"on_stdout": shown.stdout, "on_stderr": shown.stderr}
        options = {**asked.build, **sinks, "name": asked.name, "on_interrupt": "return"}
        if program is None:
            result = api.run_cell(
                cell,
                on_start=shown.attach,
                **how_shown,
                **options,
            )
        else:
            how = script.make(cell, program, name=how_shown["filename"])
            options.setdefault("workdir", _working_directory())
            result = api.run(how.command, input=how.stdin, **options)
        stdout, stderr = shown.finish()
        return dataclasses.replace(result, stdout_bytes=stdout, stderr_bytes=stderr)

    def _run_in(self, session: Session, cell: str) -> RunResult:
        """Run a cell in a session."""
        if cell.startswith("#!"):
            message = "a session runs Python cells: #! is for a container of its own"
            raise SpecError(message, hint="leave the name of the session out, or the #! line")
        shown = Display(self._ip)
        shown.attach(session)
        result = session.run_cell(
            cell,
            **self._how_shown(shown),
            on_stdout=shown.stdout,
            on_stderr=shown.stderr,
            on_interrupt="return",
        )
        stdout, stderr = shown.finish()
        return dataclasses.replace(result, stdout_bytes=stdout, stderr_bytes=stderr)

    def _how_shown(self, shown: Display) -> dict[str, Any]:
        """Give the arguments about a Python cell's place and output."""
        return {
            # The count has gone up already when a magic runs (InteractiveShell.run_cell_async).
            "filename": f"Cell In[{self._ip.displayhook.prompt_count}]",
            "line_offset": 1,  # the magic's own line: line numbers are the editor's
            "on_message": shown.message,
            "colors": str(self._ip.colors).lower() != "nocolor",
            "width": shutil.get_terminal_size().columns,
        }

    def _show(self, result: RunResult) -> None:
        """Show the card, as ``display(result)`` would: without asking each of a dozen formatters."""
        shown = {"text/plain": str(result)}
        formatter = self._ip.display_formatter
        if formatter is not None and "text/html" in formatter.active_types:
            shown["text/html"] = result._repr_html_()
        display(shown, raw=True)

    def _judge(self, result: RunResult, asked: CellLine, over: str | None) -> None:
        """Fail as the container did; ``over`` is the session that has ended with it."""
        if result.ok:
            if over is not None:
                print(f"session {over!r} has ended", file=sys.stderr)
            return
        kind = Interrupted if result.interrupted else ContainerFailed
        error = kind(result, over)
        if asked.raise_error:
            raise error
        for line in error._render_traceback_():
            print(line, file=sys.stderr)


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        message = "the working directory no longer exists"
        raise HostError(message, hint="change to one that does") from None


@contextlib.contextmanager
def _errors_in_one_line() -> Any:
    """Have an error of ours shown as one line: what was wrong, and how to mend it."""
    try:
        yield
    except NsContainerError as error:
        raise in_one_line(error) from None
