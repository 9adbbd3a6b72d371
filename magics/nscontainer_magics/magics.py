"""The magics themselves: ``%%container`` runs a cell, ``%container`` looks after containers."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from IPython.core.magic import Magics, cell_magic, line_magic, magics_class
from IPython.display import display

from nscontainer.errors import HostError, NsContainerError, SpecError, TransferError
from nscontainer_magics import cell_line, commands, comms, script, session_commands, variables
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
            result, refusal = self._run(asked, cell, held)
        # Values belong to the variables: what a variable lets go of mustn't be kept here.
        self.last = dataclasses.replace(result, values={}) if result.values else result
        if asked.output:
            self._ip.user_ns[asked.output] = result
        self._ip.user_ns.update(result.values)
        if not asked.quiet:
            self._show(result)
        over = None if held is None or held.over is None else held.name
        self._judge(result, refusal, asked, over)

    @line_magic("container")  # type: ignore[arg-type]
    @_documented(commands.help_text())
    def manage(self, line: str) -> Any:  # noqa: D102  # the sub-commands' help
        with _errors_in_one_line():
            words = cell_line.split(line)
            if words[:1] == ["last"]:
                return self._last(words)
            try:
                return commands.call(words)
            finally:
                comms.look()  # it may have ended a session

    def _last(self, words: list[str]) -> RunResult:
        if len(words) > 1:
            message = f"{words[1]!r} is one argument too many"
            raise SpecError(message, hint="%container last")
        if self.last is None:
            message = "no cell has run in a container yet"
            raise SpecError(message, hint="begin a cell with %%container")
        return self.last

    def _run(
        self, asked: CellLine, cell: str, session: Session | None
    ) -> tuple[RunResult, TransferError | None]:
        """Run the cell; give its result, and what says which values it couldn't bring."""
        shown = Display(self._ip)
        program = ("/bin/sh",) if asked.sh else script.interpreter(cell)
        sinks: dict[str, Any] = {
            "on_stdout": shown.stdout,
            "on_stderr": shown.stderr,
            "on_interrupt": "return",
        }
        refusal: TransferError | None = None
        try:
            if program is not None:
                result = self._run_script(asked, cell, program, sinks)
            else:
                result = self._run_python(asked, cell, session, shown, sinks)
        except TransferError as error:
            refusal, result = error, cast("RunResult", error.result)
        stdout, stderr = shown.finish()
        return dataclasses.replace(result, stdout_bytes=stdout, stderr_bytes=stderr), refusal

    def _run_python(
        self,
        asked: CellLine,
        cell: str,
        session: Session | None,
        shown: Display,
        sinks: dict[str, Any],
    ) -> RunResult:
        from nscontainer import api
        from nscontainer.values import inputs

        how: dict[str, Any] = {
            "filename": self._place(),
            "line_offset": 1,  # the magic's own line: line numbers are the editor's
            "on_message": shown.message,
            "colors": str(self._ip.colors).lower() != "nocolor",
            "width": shutil.get_terminal_size().columns,
            "inputs": inputs.look_up(asked.inputs, self._ip.user_ns),
            "out": asked.out,
            "trust": asked.trust,
            **sinks,
        }
        result: RunResult
        if session is None:
            result = api.run_cell(
                cell, name=asked.name, on_start=shown.attach, **how, **asked.build
            )
        else:
            shown.attach(session)
            result = session.run_cell(cell, **how)
        return result

    def _run_script(
        self, asked: CellLine, cell: str, program: tuple[str, ...], sinks: dict[str, Any]
    ) -> RunResult:
        from nscontainer import api

        if asked.session is not None:
            message = "a session runs Python cells: #! is for a container of its own"
            raise SpecError(message, hint="leave the name of the session out, or the #! line")
        if asked.inputs or asked.out:
            message = f"variables go into Python cells only, and this is one of {program[0]}"
            raise SpecError(message, hint="-e NAME=$value gives a script a value")
        how = script.make(cell, program, name=self._place())
        options = {"workdir": _working_directory(), **asked.build}
        result: RunResult = api.run(
            how.command, input=how.stdin, name=asked.name, **options, **sinks
        )
        return result

    def _place(self) -> str:
        """Name the cell as tracebacks do."""
        # The count has gone up already when a magic runs (InteractiveShell.run_cell_async).
        return f"Cell In[{self._ip.displayhook.prompt_count}]"

    def _show(self, result: RunResult) -> None:
        """Show the card, as ``display(result)`` would: without asking each of a dozen formatters."""
        shown = {"text/plain": str(result)}
        formatter = self._ip.display_formatter
        if formatter is not None and "text/html" in formatter.active_types:
            shown["text/html"] = result._repr_html_()
        display(shown, raw=True)

    def _judge(
        self,
        result: RunResult,
        refusal: TransferError | None,
        asked: CellLine,
        over: str | None,
    ) -> None:
        """Fail as the container did, or since a value of it couldn't be had.

        ``over`` is the session that has ended with it.
        """
        error: Any
        if result.ok and over is not None:
            print(f"session {over!r} has ended", file=sys.stderr)
        if result.ok and refusal is None:
            return
        if refusal is not None:
            error = in_one_line(refusal)
        elif result.interrupted:
            error = Interrupted(result, over=over)
        else:
            hint = variables.missing(result, self._ip.user_ns)
            error = ContainerFailed(result, over=over, hint=hint)
        if asked.raise_error:
            raise error from None
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
