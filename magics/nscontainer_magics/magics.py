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
from nscontainer_magics import cell_line, commands, script, variables
from nscontainer_magics.display import Display
from nscontainer_magics.failure import ContainerFailed, Interrupted, in_one_line

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from nscontainer.measure.result import RunResult
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
            result, refusal = self._run(asked, cell)
        # Values belong to the variables: what a variable lets go of mustn't be kept here.
        self.last = dataclasses.replace(result, values={}) if result.values else result
        if asked.output:
            self._ip.user_ns[asked.output] = result
        self._ip.user_ns.update(result.values)
        if not asked.quiet:
            display(result)
        self._judge(result, refusal, asked)

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

    def _run(self, asked: CellLine, cell: str) -> tuple[RunResult, TransferError | None]:
        """Run the cell; give its result, and what says which values it couldn't bring."""
        from nscontainer import api
        from nscontainer.values import inputs

        refusal: TransferError | None = None
        shown = Display(self._ip)
        # The count has gone up already when a magic runs (InteractiveShell.run_cell_async).
        filename = f"Cell In[{self._ip.displayhook.prompt_count}]"
        program = ("/bin/sh",) if asked.sh else script.interpreter(cell)
        sinks: dict[str, Any] = {"on_stdout": shown.stdout, "on_stderr": shown.stderr}
        options = {**asked.build, **sinks, "name": asked.name, "on_interrupt": "return"}
        if program is None:
            try:
                result = api.run_cell(
                    cell,
                    filename=filename,
                    line_offset=1,  # the magic's own line: line numbers are the editor's
                    on_message=shown.message,
                    on_start=shown.attach,
                    colors=str(self._ip.colors).lower() != "nocolor",
                    width=shutil.get_terminal_size().columns,
                    inputs=inputs.look_up(asked.inputs, self._ip.user_ns),
                    out=asked.out,
                    trust=asked.trust,
                    **options,
                )
            except TransferError as error:
                refusal, result = error, cast("RunResult", error.result)
        else:
            if asked.inputs or asked.out:
                message = f"variables go into Python cells only, and this is one of {program[0]}"
                raise SpecError(message, hint="-e NAME=$value gives a script a value")
            how = script.make(cell, program, name=filename)
            options.setdefault("workdir", _working_directory())
            result = api.run(how.command, input=how.stdin, **options)
        stdout, stderr = shown.finish()
        return dataclasses.replace(result, stdout_bytes=stdout, stderr_bytes=stderr), refusal

    def _judge(self, result: RunResult, refusal: TransferError | None, asked: CellLine) -> None:
        """Fail as the container did, or since a value of it couldn't be had."""
        error: Any
        if result.ok and refusal is None:
            return
        if refusal is not None:
            error = in_one_line(refusal)
        elif result.interrupted:
            error = Interrupted(result)
        else:
            hint = variables.missing(result, self._ip.user_ns)
            error = ContainerFailed(result, hint=hint)
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
