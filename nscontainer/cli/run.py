"""``nscontainer run``: a command in a fresh container, its output and its exit code ours."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from nscontainer import options, spec
from nscontainer.cli.engine import container_type, explained
from nscontainer.cli.output import Outlet
from nscontainer.errors import NsContainerError, SpecError

if TYPE_CHECKING:
    from nscontainer.engine.container import Container
    from nscontainer.measure.result import RunResult
    from nscontainer.measure.run_warnings import RunWarning

STOP_TIMEOUT_S: Final = 10.0
"""How long a container has to end after a SIGTERM to us, as ``docker stop`` gives it."""
OF_THE_LADDER: Final = frozenset({"best-effort", "not-isolated", "rlimit"})
"""Warnings of what was asked for and not had."""


def run_command(argv: Sequence[str]) -> int:
    """Parse, make the container, relay until it has ended."""
    given, command = parse(argv)
    what = spec.build(command, **build_options(given))
    with explained(rungs=True):
        container = maker(what)(
            what,
            name=given.name,
            detach=given.detach,
            remove=given.rm or not given.detach,
            stdin=0 if given.interactive and not given.tty else None,
        )
    if given.detach:
        container.start()
        print(container.id)
        return 0
    return foreground(container, given)


def maker(what: spec.ContainerSpec) -> Callable[..., Container]:
    """Load what makes a container; or, unconfined, a plain process in place of one."""
    if not what.unconfined:
        return container_type(to_make=True).create
    from nscontainer import unconfined

    return cast("Callable[..., Container]", unconfined.create)


# --- reading the arguments -------------------------------------------------------------------


def parser() -> options.Parser:
    """Make the parser of ``run``'s options; the command is split off before."""
    made = options.Parser(
        prog="nscontainer run",
        usage="nscontainer run [options] [--] COMMAND [ARGUMENT…]",
        description="Run a command in a fresh container; with --image, the image's own where none "
        "is given. Its exit code is ours: 128+n by signal n, "
        "126 not executable, 127 not found, 125 where nscontainer itself failed.",
    )
    options.add_to(made, magic=False)
    return made


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Split and parse the arguments, and refuse what can't work before anything is made.

    Raises
    ------
    SpecError
        One line.
    """
    made = parser()
    before, command = made.split_command(argv)
    given = made.parse_args(before)
    _refuse_lists(given)
    if not command and (given.image or "host") == "host" and not given.entrypoint:
        message = "there is no command to run"
        raise SpecError(message, hint="nscontainer run [options] -- COMMAND [ARGUMENT…]")
    if given.detach:
        for name in ("usage", "result", "card", "interactive"):
            if getattr(given, name):
                message = f"--{name} needs a container in the foreground"
                raise SpecError(message, hint="leave -d out")
    if given.tty and given.interactive and not os.isatty(0):
        message = "-t with -i needs a terminal as standard input"
        raise SpecError(message, hint="leave -t out")
    if given.usage:
        _check_usage_file(given.usage)
    for path in filter(None, (given.usage, given.result)):
        check_writable(path)
    return given, command


def _refuse_lists(given: argparse.Namespace) -> None:
    """Refuse a list in a limit: a sweep takes those. Nothing loads where no value looks like one."""
    marks = (",", "..", ";")
    if not any(isinstance(v, str) and any(m in v for m in marks) for v in vars(given).values()):
        return
    from nscontainer import sweep_options

    found = sweep_options.first_list(given)
    if found is not None:
        message = f"{found[0]} {found[1]} is more than one level"
        raise SpecError(message, hint="nscontainer sweep runs the command at each")


def build_options(given: argparse.Namespace) -> dict[str, Any]:
    """Give the keyword arguments for the spec; the working directory is ours unless another is given.

    The image ``host`` is this machine: a relative path in the command should mean what it means here.
    """
    kwargs = options.to_build_kwargs(given)
    if "workdir" not in kwargs and is_here(kwargs.get("image", "host")):
        with contextlib.suppress(FileNotFoundError):
            kwargs["workdir"] = os.getcwd()
    return kwargs


def is_here(image: str) -> bool:
    """Tell whether a relative path means inside what it means here."""
    if image == "host":
        return True
    from nscontainer.image import running

    return running.stands_on_host(image)


def _check_usage_file(path: str) -> None:
    from importlib.util import find_spec

    suffix = os.path.splitext(path)[1].lower()
    if suffix not in (".csv", ".json", ".parquet"):
        message = f"usage file {path!r} says no format"
        raise SpecError(message, hint="end it in .csv, .json or .parquet")
    needed = ["pandas", "pyarrow"] if suffix == ".parquet" else ["pandas"]
    for package in needed:
        if find_spec(package) is None:
            message = f"usage file {path!r} needs {package}, which is not installed"
            raise SpecError(message, hint=f"pip install {package}")


def check_writable(path: str) -> None:
    """Refuse a file that can't be written in the end, before anything runs.

    Raises
    ------
    SpecError
        One line.
    """
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory) or not os.access(directory, os.W_OK) or os.path.isdir(path):
        message = f"file {path!r} can't be written"
        raise SpecError(message, hint="name a file in a directory that is there and yours")


# --- a foreground container ------------------------------------------------------------------


def foreground(container: Container, given: argparse.Namespace) -> int:
    """Let the container go, relay its output, write what was asked for; give the exit code."""

    def kill() -> None:
        with contextlib.suppress(NsContainerError):
            container.kill()

    out, err = Outlet(1, kill), Outlet(2, kill)
    with contextlib.ExitStack() as stack:
        stack.enter_context(stopping(container))
        if container.tty_fd is not None:
            from nscontainer.cli.terminal import session

            stack.enter_context(session(container.tty_fd, interactive=given.interactive))
        container.start()
        record = container.drive(on_stdout=out, on_stderr=err)
    if record.get("exec_error"):
        from nscontainer.cli.text import printable

        print(f"nscontainer: {printable(record['exec_error'])}", file=sys.stderr)
    report(record, container, given)
    if out.broken or err.broken:
        return 128 + signal.SIGPIPE
    return int(record["exit_code"])


@contextlib.contextmanager
def stopping(container: Container) -> Iterator[None]:
    """On SIGTERM or SIGHUP stop the container: its stop signal, and after a while the kill.

    Ctrl-C is :meth:`Container.drive`'s. The handlers speak to the monitor over a connection of their
    own, so they may run while ``drive`` waits.
    """

    def stop(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, kill)
        signal.setitimer(signal.ITIMER_REAL, STOP_TIMEOUT_S)
        with contextlib.suppress(NsContainerError):
            container.signal(container.stop_signal)

    def kill(_number: int, _frame: object) -> None:
        with contextlib.suppress(NsContainerError):
            container.kill()

    handlers = {signal.SIGTERM: stop, signal.SIGHUP: stop, signal.SIGALRM: kill}
    before = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        if before[number] is not signal.SIG_IGN:  # nohup stays nohup
            signal.signal(number, handler)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, old in before.items():
            signal.signal(number, old)


def report(record: dict[str, Any], container: Container, given: argparse.Namespace) -> None:
    """Write the files that were asked for, and the summary where somebody reads it."""
    card = not record.get("exec_error") and (given.card or (not given.quiet and os.isatty(2)))
    less = (given.best_effort or given.unconfined) and not given.quiet
    if not (card or less or given.usage or given.result):
        return
    from nscontainer.measure.result import RunResult

    result = RunResult.from_record(record, container.samples())
    if card:
        print_summary(result)
    elif less:  # told to a log as well: what was asked for and not had must not go unsaid
        _print_warnings(w for w in result.warnings if w.code in OF_THE_LADDER)
    try:
        if given.result:
            result.save(given.result)
        if given.usage:
            from nscontainer.frames import usage_to_file

            usage_to_file(result.usage, given.usage)
    except OSError as error:
        message = f"file {error.filename or given.result or given.usage!r} can't be written"
        raise SpecError(f"{message}: {error.strerror}") from None


def print_summary(result: RunResult) -> None:
    """Print the one line on standard error, and what to know before believing it."""
    from nscontainer.measure import headline

    print(" · ".join(headline.parts(result)), file=sys.stderr)
    _print_warnings(result.warnings)


def _print_warnings(warnings: Iterable[RunWarning]) -> None:
    for warning in warnings:
        print(f"warning: {warning.message}", file=sys.stderr)
