"""Runs a cell where there is no IPython: plain Python, rich display by the ``_repr_*_`` methods."""

from __future__ import annotations
import __future__

import ast
import builtins
import inspect
import os
import sys
import types
from typing import TYPE_CHECKING, Any

from . import frames, mime
from .awaiting import CellLoop

if TYPE_CHECKING:
    from .wire import Outbox

_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


class PlainShell:
    """Executes a cell in a fresh ``__main__``."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.module = types.ModuleType("__main__")
        self.module.__dict__["__builtins__"] = builtins
        sys.modules["__main__"] = self.module
        self.loop = CellLoop()
        self.count = 1
        builtins.display = self.display  # type: ignore[attr-defined]

    @property
    def namespace(self) -> dict[str, Any]:
        """The cell's global variables."""
        return self.module.__dict__

    def prepare(self, *, colors: bool) -> None:
        """Make ready in the container's own process."""
        del colors  # there is nothing to colour with
        os.environ.setdefault("MPLBACKEND", "Agg")

    def run(self, code: str, filename: str, line_offset: int) -> BaseException | None:
        """Execute a cell and show what it gives; returns the exception that ended it, if one did."""
        frames.remember(filename, code, line_offset)
        error: BaseException | None = None
        try:
            self._execute("\n" * line_offset + code, filename)
        except BaseException as caught:  # noqa: BLE001  # every way a cell can end
            error = self.loop.interrupt_for(caught)
        if error is not None and not isinstance(error, SystemExit):
            error.__traceback__ = frames.from_cell(error.__traceback__, filename)
            self.show_error(error)
        self._flush_figures()
        return error

    def _execute(self, source: str, filename: str) -> None:
        tree = compile(source, filename, "exec", ast.PyCF_ONLY_AST | _AWAIT, dont_inherit=True)
        flags = _future_flags(tree) | _AWAIT
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        codes = [compile(tree, filename, "exec", flags, dont_inherit=True)]
        if isinstance(last, ast.Expr):
            expression = ast.Expression(last.value)
            codes.append(compile(expression, filename, "eval", flags, dont_inherit=True))
        if any(code.co_flags & inspect.CO_COROUTINE for code in codes):
            value = self._in_loop(codes)
        else:
            for code in codes:
                value = eval(code, self.namespace)  # noqa: S307  # the cell is what we are for
        if value is not None and not source.rstrip().endswith(";"):
            self._show_result(value)

    def _in_loop(self, codes: list[types.CodeType]) -> Any:
        """Evaluate what has a top-level ``await``; all of it, for ``create_task`` to find the loop."""

        async def evaluate() -> Any:
            for code in codes:
                value = eval(code, self.namespace)  # noqa: S307
                if code.co_flags & inspect.CO_COROUTINE:
                    value = await value
            return value

        return self.loop.run(evaluate())

    def _show_result(self, value: Any) -> None:
        self.namespace["_"] = value
        shown = mime.bundle(value)
        if shown is not None:
            self.outbox.send("execute_result", {**shown, "execution_count": self.count})

    def show_error(self, error: BaseException) -> None:
        """Send an error with its traceback."""
        if isinstance(error, SyntaxError) and (error.text or "").lstrip()[:1] in ("%", "!"):
            error.msg += " (magics and ! need IPython, which this python3 hasn't got)"
        traceback = frames.plain(error)
        if self.outbox.direct:
            sys.stderr.write("\n".join(traceback) + "\n")
            return
        name, text = type(error).__name__, mime.text_of(error)
        self.outbox.send("error", {"ename": name, "evalue": text, "traceback": traceback})

    def display(
        self,
        *values: Any,
        display_id: Any = None,
        raw: bool = False,
        update: bool = False,
        metadata: dict[str, Any] | None = None,
        **_: Any,
    ) -> DisplayHandle | None:
        """Show objects as rich as they can be, as IPython's ``display`` does."""
        handle = None
        if display_id is not None:
            handle = DisplayHandle(self, None if display_id is True else str(display_id))
        for value in values:
            self.publish(value, handle, raw=raw, update=update, metadata=metadata)
        return handle

    def publish(
        self,
        value: Any,
        handle: DisplayHandle | None,
        *,
        update: bool = False,
        raw: bool = False,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Send one object's representations."""
        shown = {"data": mime.clean(value), "metadata": {}} if raw else mime.bundle(value)
        if shown is None:
            return
        if self.outbox.direct:
            print(shown["data"].get("text/plain", ""))
            return
        shown["metadata"].update(mime.clean(metadata or {}))
        transient = {} if handle is None else {"display_id": handle.display_id}
        kind = "update_display_data" if update else "display_data"
        self.outbox.send(kind, {**shown, "transient": transient})

    def _flush_figures(self) -> None:
        """Show matplotlib's open figures, as the inline backend does after a cell."""
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is None:
            return
        try:
            for number in pyplot.get_fignums():
                self.publish(pyplot.figure(number), None)
            pyplot.close("all")
        except Exception as error:  # noqa: BLE001  # the cell itself went well
            self.show_error(error)


class DisplayHandle:
    """Something shown that can be changed."""

    def __init__(self, shell: PlainShell, display_id: str | None) -> None:
        self._shell = shell
        self.display_id = display_id or os.urandom(16).hex()

    def display(self, value: Any, **_: Any) -> None:
        """Show it once more."""
        self._shell.publish(value, self)

    def update(self, value: Any, **_: Any) -> None:
        """Show another object in its place."""
        self._shell.publish(value, self, update=True)


def _future_flags(tree: ast.Module) -> int:
    """Collect what ``from __future__`` imports ask of the compiler."""
    flags = 0
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            for name in node.names:
                feature = getattr(__future__, name.name, None)
                flags |= getattr(feature, "compiler_flag", 0)
    return flags
