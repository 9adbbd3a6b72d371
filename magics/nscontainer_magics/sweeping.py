"""A ``%%container`` cell whose line makes it a sweep: many runs, one display, one result."""

from __future__ import annotations

import ast
import base64
import builtins
import copy
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from nscontainer import recordings
from nscontainer.errors import CommandError, SpecError
from nscontainer.experiment.plan import Work
from nscontainer.measure.text import plural
from nscontainer.values import inputs
from nscontainer_magics import script, variables
from nscontainer_magics.display import Display, replies, say_recorded
from nscontainer_magics.failure import ContainerFailed, SweepStopped
from nscontainer_magics.live import shows_html
from nscontainer_magics.sweep_view import Shown, board_for, card_of

if TYPE_CHECKING:
    from nscontainer.experiment.plan import Plan
    from nscontainer.experiment.progress import Progress
    from nscontainer.experiment.sweep import Run, Sweep
    from nscontainer.measure.result import RunResult
    from nscontainer_magics.cell_line import CellLine
    from nscontainer_magics.defaults import Settings

_BY_CPU: Final = frozenset({"cpu", "cpu_quota"})


class SweepCell:
    """A cell and how often, under which limits, it is to run.

    Parameters
    ----------
    settings
        The magics: their shell, and how much is shown.
    asked
        The ``%%container`` line; its ``sweep`` is set.
    cell
        What is below it.
    background
        It runs in another thread: where the screen is a terminal's prompt nothing is shown.

    Attributes
    ----------
    stderr
        Where lines about it are shown.

    Raises
    ------
    SpecError
        What was asked can't be done; nothing has been made.
    """

    def __init__(
        self, settings: Settings, asked: CellLine, cell: str, *, background: bool = False
    ) -> None:
        assert settings.shell is not None
        self.asked = asked
        self._shell = settings.shell
        self._most = settings.shown_bytes
        self._fresh = asked.fresh
        self._inputs: dict[str, Any] = {}
        self.plan = self._prepare(cell)
        # What they are now: another thread mustn't write into another cell's %%capture.
        self._publisher = self._shell.display_pub
        self.stderr = sys.stderr
        self._silent = background and not shows_html(self._shell)
        shown = not (asked.quiet or self._silent)
        self._view = Shown(board_for(self._shell)) if shown else None
        if background:  # the notebook may change what it took along while later runs are to come
            self._inputs = copy.deepcopy(self._inputs)
        self._heard: Callable[[Progress], None] | None = None
        self._total = len(self.plan.points()) * self.plan.repeat
        self._seen: set[int] | None = None
        self._failure_shown = False

    def _prepare(self, cell: str) -> Plan:
        from nscontainer import sweeps

        how = dict(self.asked.sweep or {})
        program = ("/bin/sh",) if self.asked.sh else script.interpreter(cell)
        if program is None:
            self._inputs = inputs.look_up(self.asked.inputs, self._shell.user_ns)
            _refuse_unset(cell, {*(how.get("params") or ()), *self._inputs})
            work = Work(kind="cell", code=cell, name=_named(self._inputs))
        else:
            if self.asked.inputs:
                message = f"variables go into Python cells only, and this is one of {program[0]}"
                raise SpecError(message, hint="--param NAME=VALUE,… gives a script values")
            # No number of the cell's: it would be another sweep each time it is run.
            made = script.make(cell, program, name="cell")
            stdin = None if made.stdin is None else made.stdin.decode()
            work = Work(kind="script", code=cell, command=made.command, stdin=stdin)
        return sweeps.prepare(work, **how)

    # --- running -------------------------------------------------------------------------------

    def run(
        self, heard: Callable[[Progress], None] | None = None
    ) -> tuple[Sweep, BaseException | None]:
        """Run it; give what there is of it, and what the cell is to fail with.

        Parameters
        ----------
        heard
            Called each time it tells how far it is; a KeyboardInterrupt from it stops the sweep.

        Raises
        ------
        NsContainerError
            The engine's, as of a single run.
        """
        sweep: Any
        error: BaseException | None = None
        self._heard = heard
        try:
            sweep = self._run()
        except KeyboardInterrupt as interrupt:
            sweep = getattr(interrupt, "sweep", None)
            if sweep is None:
                self._leave("stopped before it began")
                raise
            error = SweepStopped(sweep, self._stopped(sweep))
        except CommandError as failed:
            sweep, result = failed.sweep, failed.result  # type: ignore[attr-defined]
            if not self._failure_shown:  # it may be among the runs
                self._show_output(result)
            error = self._failed(result)
        except BaseException:
            self._leave("no run has ended")
            raise
        if not sweep.runs:
            self._leave("no run has ended well")
        return sweep, error

    def _leave(self, text: str) -> None:
        if self._view is not None:
            self._view.board.leave(text)

    def _run(self) -> Sweep:
        """Let it run: the one place where that is done."""
        from nscontainer import sweeps

        sweep = sweeps.run_plan(
            self.plan,
            resume=not self._fresh,
            check=self.asked.raise_error,
            on_progress=self._progress,
            cell={
                "inputs": self._inputs,
                "filename": f"Cell In[{self._shell.displayhook.prompt_count}]",
                "line_offset": 1,  # the magic's own line
                "colors": str(self._shell.colors).lower() != "nocolor",
                "width": shutil.get_terminal_size().columns,
            },
        )
        if sweep.recorded is not None:
            say_recorded(self._publisher, recordings.line(sweep.recorded))
        return sweep

    def _progress(self, now: Progress) -> None:
        self._total = now.total
        if self._seen is None:
            self._seen = set()
            if now.done and not (self.asked.quiet or self._silent):
                print(f"going on after {now.done} of {plural(now.total, 'run')}")
        if self._view is not None:
            self._view(now)
        for run in now.sweep.runs:
            if run.turn.number not in self._seen:
                self._ended(run)
        if self._heard is not None:
            self._heard(now)

    def _ended(self, run: Run) -> None:
        """Show what the first run said, and of the first that failed the error."""
        assert self._seen is not None
        first = not self._seen
        self._seen.add(run.turn.number)
        if first or not (self._failure_shown or run.result.ok):
            self._show_output(run.result, whole=first)

    def _show_output(self, result: RunResult, *, whole: bool = True) -> None:
        """Show all that a run said, or only its error."""
        shown = Display(self._shell, self._most, silent=self._silent, answers=False)
        shown.before_write = None if self._view is None else self._view.board.make_way
        for message in replies(result.outputs):
            if whole or message["msg_type"] == "error":
                shown.message(message)
        if whole:
            shown.stdout(result.stdout_bytes)
        if whole or not result.outputs:  # a script's errors are there
            shown.stderr(result.stderr_bytes)
        self._failure_shown |= not result.ok
        shown.finish()

    def _stopped(self, sweep: Sweep) -> str:
        done, total = len(sweep.runs), plural(self._total, "run")
        if not done:
            return f"stopped before the first of {total} had ended"
        again = "the cell again without --fresh" if self._fresh else "the cell again"
        return f"stopped after {done} of {total}; run {again} to go on from there"

    def _failed(self, result: RunResult) -> ContainerFailed:
        hint = variables.missing(result, self._shell.user_ns)
        more = "; the sweep was not gone on with: --no-raise-error would"
        return ContainerFailed(result, hint=hint, more=more)

    # --- in the end ----------------------------------------------------------------------------

    def end(self, sweep: Sweep) -> None:
        """Show the card in the place of the progress, and the picture below."""
        if self._seen is None:  # it was there already
            self._seen = set()
        for run in sweep.runs:
            if run.turn.number not in self._seen:
                self._ended(run)
        if self._view is None or not sweep.runs:
            return
        notebook = shows_html(self._shell)
        self._view.board.end(card_of(sweep, as_html=notebook))
        picture = _picture(sweep) if notebook else None
        if picture is not None:
            data = {"image/png": picture, "text/plain": repr(sweep)}
            self._publisher.publish(data=data, metadata={})


def _picture(sweep: Sweep) -> str | None:
    """Draw what a sweep's own ``plot`` draws; None where it can't be."""
    by_cpu = any(factor.name in _BY_CPU for factor in sweep.plan.factors)
    for kind in ("quota", "speed") if by_cpu else ("speed", "quota"):
        try:
            from nscontainer import drawing

            picture = drawing.png(lambda axis, kind=kind: sweep.plot(kind, axis))  # type: ignore[misc]
            return base64.b64encode(picture).decode()
        except Exception:  # noqa: BLE001, S112  # matplotlib is missing, or all runs failed: no cell fails for a picture
            continue
    return None


# --- the cell's text -------------------------------------------------------------------------


def _named(taken: Mapping[str, Any]) -> str | None:
    """Name what a cell takes along, with a digest: with other values it is another sweep."""
    if not taken:
        return None
    with inputs.packed(taken) as packed:
        digest = hashlib.sha256()
        at = 0
        while data := os.pread(packed.fd, 1 << 20, at):
            digest.update(data)
            at += len(data)
    return f"cell with {', '.join(taken)} (sha256 {digest.hexdigest()[:12]})"


def _refuse_unset(cell: str, known: set[str]) -> None:
    """Refuse ``{n}`` where n is a name that nothing sets: it was to be a parameter.

    Raises
    ------
    SpecError
        One line.
    """
    try:
        tree = ast.parse(cell)
    except SyntaxError:  # a magic, or an error that the cell itself will show
        return
    nodes = list(ast.walk(tree))
    if any(isinstance(node, ast.alias) and node.name == "*" for node in nodes):
        return
    known = known | set(dir(builtins)) | set().union(*(_set_by(node) for node in nodes))
    for node in nodes:
        inner = node.elts[0] if isinstance(node, ast.Set) and len(node.elts) == 1 else None
        if isinstance(node, ast.FormattedValue):
            inner = node.value
        if isinstance(inner, ast.Name) and inner.id not in known:
            name = inner.id
            message = f"{{{name}}} stands in the cell, and there is no parameter {name!r}"
            raise SpecError(message, hint=f"--param {name}=1,10,100, or -i {name}")


def _set_by(node: ast.AST) -> set[str]:
    """Give the names that a node sets."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()):
            return {name}
        case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return {name}
        case ast.ClassDef(name=name):
            return {name}
        case ast.alias(name=name, asname=alias):
            return {alias or name.partition(".")[0]}
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
            return {name}
        case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
            return {name}
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            return set(names)
    return set()
