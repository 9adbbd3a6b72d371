"""Runs a cell as the notebook itself would: an IPython shell that speaks to the owner.

It leaves no trace on the host: no history, no profile directory, no thread before the cell's own.
"""

# IPython is typed in part, and its attributes are Optional that never are None in a live shell.
# mypy: disable-error-code="no-untyped-call,union-attr"
from __future__ import annotations

import atexit
import builtins
import contextlib
import importlib.util
import linecache
import os
import sys
from typing import TYPE_CHECKING, Any, cast

from IPython.core import compilerop, interactiveshell, page
from IPython.core.autocall import IPyAutocall
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.profiledir import ProfileDir
from traitlets import Type
from traitlets.config import Config

from . import frames, mime
from .awaiting import CellLoop
from .shell_command import run_shell_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .comms import Kernel
    from .wire import Outbox


class _LeaveQuietly(BaseException):
    """Ends a cell after its SystemExit without IPython's advice on how to leave IPython."""


class CellCompiler(compilerop.CachingCompiler):
    """Compiles the cell under its own name, its lines numbered as in the notebook."""

    def __init__(self) -> None:
        super().__init__()
        self.next_name: str | None = None
        self.cell_name: str | None = None
        self.cell_names: set[str] = set()
        self.line_offset = 0

    def cache(self, transformed_code: str, number: int = 0, raw_code: str | None = None) -> str:
        """Name a piece of code and keep its lines for tracebacks."""
        if self.next_name is None:  # code that the cell itself runs through IPython
            return str(super().cache(transformed_code, number, raw_code))
        name = self.cell_name = self.next_name
        self.next_name = None
        self.cell_names.add(name)
        frames.remember(name, transformed_code, self.line_offset)
        return name

    def forget(self) -> None:
        """Drop the cells that were compiled."""
        for name in [*self.cell_names, *self._filename_map]:
            linecache.cache.pop(name, None)
        self.cell_names.clear()
        self._filename_map.clear()
        self.cell_name = self.next_name = None
        self.reset_compiler_flags()

    def ast_parse(self, source: str, filename: str = "<unknown>", symbol: str = "exec") -> Any:
        """Parse; the first line of the cell is line ``line_offset + 1``."""
        if filename == self.cell_name:
            source = "\n" * self.line_offset + source
        return super().ast_parse(source, filename, symbol)

    def format_code_name(self, name: str) -> tuple[str, str] | None:
        """Give IPython's ``Cell In[3], line 5`` for our name ``Cell In[3]``."""
        if name in self.cell_names and name.startswith("Cell "):
            return "Cell", name[len("Cell ") :]
        known: tuple[str, str] | None = super().format_code_name(name)
        return known


class CellDisplayHook(DisplayHook):
    """Sends the value of the cell's last expression."""

    def write_output_prompt(self) -> None:
        """Write none: the notebook does."""

    def write_format_data(
        self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None
    ) -> None:
        """Send the representations."""
        self.shell.show("execute_result", format_dict, md_dict, None)

    def log_output(self, format_dict: dict[str, Any]) -> None:
        """Keep no second copy."""

    def finish_displayhook(self) -> None:
        """Write nothing after it."""
        self._is_active = False


class CellDisplayPublisher(DisplayPublisher):
    """Sends what the cell displays."""

    def publish(
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        *_: Any,
        transient: dict[str, Any] | None = None,
        update: bool = False,
        **__: Any,
    ) -> None:
        """Send the representations, or new ones for a ``display_id`` that was shown."""
        kind = "update_display_data" if update else "display_data"
        self.shell.show(kind, data, metadata, transient)

    def clear_output(self, wait: bool = False) -> None:  # noqa: FBT001, FBT002  # IPython's own
        """Clear the cell's output."""
        self.shell.outbox.send("clear_output", {"wait": bool(wait)})


class _Exit(IPyAutocall):
    """``exit`` and ``quit``: leave the container, as they leave a script."""

    rewrite = False

    def __call__(self, code: Any = None) -> None:
        raise SystemExit(code)


class ZMQInteractiveShell(InteractiveShell):
    """The shell of a cell.

    It bears the class name of a notebook's shell since that is what libraries (pandas, rich, …)
    look at to find out whether rich output is shown.
    """

    displayhook_class = Type(CellDisplayHook)
    display_pub_class = Type(CellDisplayPublisher)
    compiler_class = Type(CellCompiler)
    outbox: Outbox
    loop: CellLoop
    kernel: Kernel | None = None
    inline_figures = False

    # --- nothing on the host ---------------------------------------------------------------

    def init_ipython_dir(self, ipython_dir: Any) -> None:
        """Make no ~/.ipython."""

    def init_profile_dir(self, profile_dir: Any) -> None:
        """Make no profile: one without a location makes no directory."""
        del profile_dir
        self.profile_dir = ProfileDir()

    @property
    def db(self) -> dict[str, Any]:
        """What magics keep (``%bookmark``), for as long as the cell runs."""
        kept: dict[str, Any] = self.__dict__.setdefault("_kept_values", {})
        return kept

    @db.setter
    def db(self, value: Any) -> None:
        """Keep ours."""

    def init_virtualenv(self) -> None:
        """Leave sys.path alone: the owner says what it is."""

    def init_hooks(self) -> None:
        """Show help (``name?``) as output rather than in a pager."""
        super().init_hooks()
        self.set_hook("show_in_pager", page.as_hook(page.display_page), 99)

    def init_user_ns(self) -> None:
        """Let ``exit(3)`` end the container with 3."""
        super().init_user_ns()
        leave = {"exit": _Exit(), "quit": _Exit()}
        self.user_ns_hidden.update(leave)
        self.user_ns.update(leave)

    def enable_gui(self, gui: Any = None) -> None:
        """There is no display: ``%matplotlib inline`` needs nothing, and others get nothing."""

    def ask_exit(self) -> None:
        """End the cell."""
        raise SystemExit

    @contextlib.contextmanager
    def _tee(self, channel: str) -> Iterator[None]:
        """Keep no copy of the output, as IPython >= 9 does for its history."""
        del channel
        yield

    def _format_exception_for_storage(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Keep no copy of tracebacks either; formatting one takes milliseconds."""
        return {}

    # --- what it says ------------------------------------------------------------------------

    def show(
        self, kind: str, data: dict[str, Any], metadata: Any, transient: dict[str, Any] | None
    ) -> None:
        """Send representations of an object, or print its text in a process the cell forked."""
        if self.outbox.direct:
            print(data.get("text/plain", ""))
            return
        content = {"data": data, "metadata": metadata or {}}
        if kind == "execute_result":
            content["execution_count"] = self.displayhook.prompt_count
        else:
            content["transient"] = transient or {}
        self.outbox.send(kind, mime.clean(content))

    def showtraceback(self, exc_tuple: Any = None, *args: Any, **kwargs: Any) -> None:
        """Show an error without the runner's frames; a SystemExit is no error to show."""
        caught = sys.exc_info()[1] if exc_tuple is None else exc_tuple[1]
        error = self.loop.interrupt_for(caught)
        if isinstance(error, _LeaveQuietly):
            return
        if isinstance(error, SystemExit) and kwargs.get("exception_only"):
            raise _LeaveQuietly from None
        if error is not None:
            frames.hide_runner(error)
            exc_tuple = (type(error), error, error.__traceback__)
            if _has_group(error):  # ultratb leaves groups to traceback.print_exc
                error.__traceback__ = frames.from_cell(
                    error.__traceback__, self.cell_compiler.cell_name
                )
                self._showtraceback(type(error), error, frames.plain(error))
                return
        super().showtraceback(exc_tuple, *args, **kwargs)

    def _showtraceback(self, etype: type, evalue: Any, stb: list[str]) -> None:
        if self.outbox.direct:
            sys.stderr.write(self.InteractiveTB.stb2text(stb) + "\n")
            return
        name, text = etype.__name__, mime.text_of(evalue)
        self.outbox.send("error", {"ename": name, "evalue": text, "traceback": list(stb)})

    # --- what it runs ------------------------------------------------------------------------

    def system_piped(self, cmd: str) -> None:
        """Run ``!cmd``, its output in order with the cell's own."""
        if cmd.rstrip().endswith("&"):
            message = "Background processes not supported."
            raise OSError(message)
        code = run_shell_command(self.var_expand(cmd, depth=1))
        self.user_ns["_exit_code"] = code
        if getattr(self, "system_raise_on_error", False) and code != 0:
            from subprocess import CalledProcessError

            raise CalledProcessError(code, cmd)

    system = system_piped

    @property
    def namespace(self) -> dict[str, Any]:
        """The cell's global variables."""
        return cast("dict[str, Any]", self.user_module.__dict__)

    @property
    def cell_compiler(self) -> CellCompiler:
        """What compiles the cell."""
        return cast("CellCompiler", self.compile)

    @property
    def count(self) -> int:
        """The next cell's number."""
        return int(self.execution_count)

    @count.setter
    def count(self, value: int) -> None:
        self.execution_count = value
        for inputs in (self.history_manager.input_hist_parsed, self.history_manager.input_hist_raw):
            inputs.extend([""] * (value - len(inputs)))

    def prepare(self, *, colors: bool) -> None:
        """Make ready in the container's own process."""
        self.colors = "neutral" if colors else "nocolor"
        for formatter in (self.InteractiveTB, self.SyntaxTB):
            if not hasattr(formatter, "set_theme_name"):  # IPython < 9 doesn't do it itself
                formatter.set_colors("Neutral" if colors else "NoColor")
        if self.inline_figures:
            os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        with contextlib.suppress(OSError):  # a working directory that is gone
            self.starting_dir = os.getcwd()
            self.history_manager.dir_hist[:] = [os.getcwd()]

    def run(self, code: str, filename: str, line_offset: int) -> BaseException | None:
        """Execute a cell and show what it gives; returns the exception that ended it, if one did."""
        compiler = self.cell_compiler
        compiler.next_name, compiler.line_offset = filename, line_offset
        result = self.run_cell(code, store_history=True)
        compiler.next_name = None
        error: BaseException | None = result.error_before_exec or result.error_in_exec
        if isinstance(error, _LeaveQuietly):
            error = result.error_in_exec
        return self.loop.interrupt_for(error)


def _has_group(error: BaseException | None) -> bool:
    """Tell whether an exception group is in what an error came from."""
    group = getattr(builtins, "BaseExceptionGroup", None)  # Python >= 3.11
    seen: set[int] = set()
    while group is not None and error is not None and id(error) not in seen:
        if isinstance(error, group):
            return True
        seen.add(id(error))
        error = error.__context__
    return False


@contextlib.contextmanager
def _no_database() -> Iterator[None]:
    """Keep IPython < 9 from making a database in the profile's directory, which we haven't got."""
    names = vars(interactiveshell)
    original = names.get("PickleShareDB")
    if original is None:
        yield
        return
    names["PickleShareDB"] = lambda _path: {}
    try:
        yield
    finally:
        names["PickleShareDB"] = original


def make(outbox: Outbox) -> ZMQInteractiveShell:
    """Build the shell; it becomes IPython's one instance."""
    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    config.IPKernelApp.connection_file = ""  # how libraries know a notebook
    with _no_database():
        shell = ZMQInteractiveShell.instance(config=config)
    atexit.unregister(shell.atexit_operations)  # process.leave() does what is needed of it
    shell.outbox = outbox
    shell.loop = CellLoop()
    shell.loop_runner = shell.loop.run
    with contextlib.suppress(ImportError):  # the package comm may be missing, and so are widgets
        from . import comms

        shell.kernel = comms.install(shell)
    shell.inline_figures = importlib.util.find_spec("matplotlib_inline") is not None
    return shell
