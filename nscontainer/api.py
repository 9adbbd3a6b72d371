"""The front door: run a command or a cell in a fresh container and get its result."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from nscontainer import ladder, nameless, spec
from nscontainer.bounded import KEPT_BYTES, Kept
from nscontainer.errors import CommandError, HostError, SetupError, TransferError

if TYPE_CHECKING:
    from nscontainer.engine.container import Container
    from nscontainer.measure.outputs import Outputs
    from nscontainer.measure.reported import Reported
    from nscontainer.measure.result import RunResult
    from nscontainer.values.transfer import Transfer

Sink = Callable[[bytes], None]
Message = dict[str, Any]


def maker(what: spec.ContainerSpec) -> Callable[..., Container]:
    """Load what makes a container; or, unconfined, a process that has those of its methods asked for here."""
    if not what.unconfined:
        try:
            return engine().create
        except HostError as error:
            raise ladder.naming_the_last_rung(error) from None
    from nscontainer import unconfined

    return cast("Callable[..., Container]", unconfined.create)


def engine() -> type[Container]:
    """Load the engine; where no container can run, say why in the doctor's words."""
    if sys.platform != "linux":
        from nscontainer import doctor

        doctor.require()
    from nscontainer.engine.container import Container

    return Container


@contextlib.contextmanager
def explained(*, rungs: bool = False) -> Iterator[None]:
    """Where this host refused something, raise the doctor's reason for it and how to mend that.

    Parameters
    ----------
    rungs
        Name ``--unconfined`` as well: it would do for what is run.
    """
    try:
        yield
    except (HostError, SetupError) as error:
        from nscontainer import doctor

        better = doctor.explain(error)
        if rungs and better is not error and isinstance(better, HostError):
            ladder.naming_the_last_rung(better)
        raise better from error


@overload
def run(
    command: Iterable[str],
    *,
    name: str | None = ...,
    detach: Literal[False] = ...,
    input: bytes | None = ...,
    on_stdout: Sink | None = ...,
    on_stderr: Sink | None = ...,
    on_tick: Callable[[Container], None] | None = ...,
    on_start: Callable[[Container], None] | None = ...,
    check: bool = ...,
    on_interrupt: Literal["raise", "return"] = ...,
    **options: Any,
) -> RunResult: ...


@overload
def run(
    command: Iterable[str],
    *,
    name: str | None = ...,
    detach: Literal[True],
    input: bytes | None = ...,
    **options: Any,
) -> Container: ...


def run(
    command: Iterable[str],
    *,
    name: str | None = None,
    detach: bool = False,
    input: bytes | None = None,  # noqa: A002 - subprocess's name
    on_stdout: Sink | None = None,
    on_stderr: Sink | None = None,
    on_tick: Callable[[Container], None] | None = None,
    on_start: Callable[[Container], None] | None = None,
    check: bool = False,
    on_interrupt: Literal["raise", "return"] = "raise",
    **options: Any,
) -> RunResult | Container:
    """Run a command in a fresh container.

    Parameters
    ----------
    command
        The program and its arguments, as for :func:`subprocess.run`; an empty list for the command
        that a stored ``image`` has.
    name
        A name for the container.
    detach
        Give the running :class:`Container` back at once; it outlives this process.
    input
        Bytes for its standard input, which is empty where none are given.
    on_stdout, on_stderr
        Take output as it comes. Without them it is kept: ``result.stdout``, ``result.stderr``.
    on_tick
        Called four times a second while it runs, with the container.
    on_start
        Called with the container when its code has been let go.
    check
        Raise where the exit code is not 0.
    on_interrupt
        After Ctrl-C has ended the container: raise KeyboardInterrupt, or return the result.
    options
        As :func:`nscontainer.spec.build` takes them: ``cpu="20%"``, ``image="python:3.12-slim"``, ...

    Raises
    ------
    SpecError, HostError, SetupError
        Before the command has run; nothing is left.
    CommandError
        With ``check``, where it failed; ``error.result`` has the result.
    KeyboardInterrupt
        The result is in its ``result`` attribute.

    Examples
    --------
    >>> r = nscontainer.run(["sha256sum", "/dev/zero"], cpu="20%", timeout="2s")
    >>> r.usage["cpuacct.usage"].iloc[-1] / 1e9  # CPU seconds
    0.4
    """
    what = spec.build(command, **options)
    create = maker(what)
    with as_stdin(input) as stdin, explained(rungs=True):
        container = create(
            what, name=name, detach=detach, remove=not detach, stdin=stdin, start=True
        )
    if detach:
        return container
    if on_start is not None:
        on_start(container)
    result = driven(container, Listener(on_stdout, on_stderr, whole=True), on_tick)
    return judged(result, None, check=check, on_interrupt=on_interrupt)


def run_cell(
    code: str,
    *,
    name: str | None = None,
    filename: str | None = None,
    line_offset: int = 0,
    on_message: Callable[[Message], None] | None = None,
    on_stdout: Sink | None = None,
    on_stderr: Sink | None = None,
    on_tick: Callable[[Container], None] | None = None,
    on_start: Callable[[Container], None] | None = None,
    check: bool = False,
    on_interrupt: Literal["raise", "return"] = "raise",
    colors: bool = False,
    width: int = 80,
    inputs: Mapping[str, Any] | None = None,
    out: Mapping[str, str] | None = None,
    trust: bool = False,
    **options: Any,
) -> RunResult:
    """Run Python code in a fresh container, as ``%%container`` does.

    Parameters
    ----------
    code
        The cell's source.
    inputs
        Variables that it finds, by name. They are pickled; large arrays are in memory that is shared
        until the code writes to it.
    out
        Expressions that are evaluated at its end, where it succeeded, by the name under which their
        values are in ``result.values``. Plain data, NumPy arrays and pandas tables come out.
    trust
        Unpickle what comes out, whatever it is. The container can then run code here.
    filename
        What tracebacks call it.
    line_offset
        How many lines of the notebook's cell come before the code: tracebacks count on from them.
    on_message
        Takes Jupyter's messages as the cell sends them (``msg_type``, ``content``).
    on_start
        Called with the container when its code has been let go.
    options
        As :func:`nscontainer.spec.build` takes them. The working directory is this process's own
        where none is given, ``sys.path`` as well.

    Returns
    -------
    RunResult
        With ``outputs``, the messages kept in Jupyter's form. Of a stream or a descriptor that says
        more than 16 MiB, the beginning and the end, with a line between that says what was dropped.

    Raises
    ------
    SpecError
        Also where one of ``inputs`` can't be pickled, or one of ``out`` is no expression.
    TransferError
        The code succeeded, and a value that was asked for can't come out. ``error.result`` has the
        result with the others. Other errors are those of :func:`run`.

    Examples
    --------
    >>> r = nscontainer.run_cell("y = x.sum()", inputs={"x": x}, out={"total": "y"})
    >>> r.values["total"]
    45
    """
    what = spec.build(None, **as_here(options))
    create = maker(what)
    from nscontainer.values.transfer import Transfer

    with Transfer(inputs, out, trust=trust) as transfer:
        with explained(rungs=True):
            container = create(what, name=name, start=True)
        request = cell_request(code, filename, line_offset, what, colors=colors, width=width)
        request |= transfer.request
        container.send({"msg_type": "execute_request", "content": request}, transfer.fds)
        if on_start is not None:
            on_start(container)
        listener = Listener(on_stdout, on_stderr, transfer.watch(on_message))
        result = driven(container, listener, on_tick, code)
        return judged(result, transfer, check=check, on_interrupt=on_interrupt)


def as_here(options: dict[str, Any]) -> dict[str, Any]:
    """Have a cell run where this process does and find the same modules, unless it is to be otherwise.

    An image that isn't this machine's own system has neither.
    """
    if not _is_here(options):
        return options
    here: dict[str, Any] = {}
    if "workdir" not in options:
        here["workdir"] = working_directory()
    if "python_path" not in options:
        here["python_path"] = [path or os.getcwd() for path in sys.path]
    return here | options


def script_options(options: dict[str, Any]) -> dict[str, Any]:
    """Have a script run where this process does, or by itself in an image that is another system."""
    if _is_here(options):
        return {"workdir": working_directory(), **options}
    return {"entrypoint": (), **options}


def _is_here(options: Mapping[str, Any]) -> bool:
    image = str(options.get("image", "host"))
    if image == "host":
        return True
    from nscontainer.image import running

    return running.stands_on_host(image)


def working_directory() -> str:
    """Give this process's working directory.

    Raises
    ------
    HostError
        It no longer exists.
    """
    try:
        return os.getcwd()
    except FileNotFoundError:
        message = "the working directory no longer exists"
        raise HostError(message, hint="change to one that does") from None


@contextlib.contextmanager
def as_stdin(data: bytes | None) -> Iterator[int | None]:
    """Give bytes as a file to read from: however long, nobody has to write while it is read."""
    if data is None:
        yield None
        return
    fd = nameless.new("stdin")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def cell_request(
    code: str,
    filename: str | None,
    line_offset: int,
    what: spec.ContainerSpec,
    *,
    colors: bool,
    width: int,
) -> Message:
    """Make the content of an ``execute_request`` for a container's runner."""
    return {
        "code": code,
        "filename": filename,
        "line_offset": line_offset,
        "sys_path": list(what.python_path),
        "colors": colors,
        "width": width,
    }


class Listener:
    """Hears a run: hands on what somebody takes, and keeps the rest, and what its messages show.

    Parameters
    ----------
    whole
        Keep all, however much it is; else what a result has is bounded (:mod:`nscontainer.bounded`).
    """

    def __init__(
        self,
        on_stdout: Sink | None,
        on_stderr: Sink | None,
        on_message: Callable[[Message], None] | None = None,
        *,
        whole: bool = False,
    ) -> None:
        self._out, self._err = (Kept(None if whole else KEPT_BYTES) for _ in range(2))
        self._outputs: Outputs | None = None
        self._reported: Reported | None = None
        self._on_message = on_message
        self.stdout: Sink = on_stdout or self._out.add
        self.stderr: Sink = on_stderr or self._err.add

    def message(self, message: Message) -> None:
        """Take a cell's message; what widgets say is no output, and a progress bar says much."""
        if message.get("msg_type") == "report":  # for the result, and no notebook's
            self._report(message.get("content"))
            return
        if not str(message.get("msg_type")).startswith("comm_"):
            self._keep(message)
        if self._on_message is not None:
            self._on_message(message)

    def _report(self, content: Any) -> None:
        if self._reported is None:
            from nscontainer.measure.reported import Reported

            self._reported = Reported()
        self._reported.add(content.get("values") if isinstance(content, dict) else None)

    def _keep(self, message: Message) -> None:
        if self._outputs is None:
            from nscontainer.measure.outputs import DISPLAY_BYTES, Outputs

            self._outputs = Outputs(KEPT_BYTES, DISPLAY_BYTES)
        self._outputs.add(message)

    def result(
        self, record: dict[str, Any], samples: bytes, code: str | None, **more: Any
    ) -> RunResult:
        """Make the result of an exit record and what was heard; ``code`` is None for a command."""
        from nscontainer.measure.result import RunResult

        return RunResult.from_record(
            record,
            samples,
            stdout=self._out.value(),
            stderr=self._err.value(),
            outputs=None if self._outputs is None else self._outputs.all(),
            code=code,
            reported=self._reported,
            **more,
        )


def driven(
    container: Container,
    listener: Listener,
    on_tick: Callable[[Container], None] | None,
    code: str | None = None,
) -> RunResult:
    """Relay a container's output to a listener until it has ended; give its result."""
    record = container.drive(
        on_stdout=listener.stdout,
        on_stderr=listener.stderr,
        on_message=listener.message,
        on_tick=on_tick,
    )
    return listener.result(record, container.samples(), code)


def judged(
    result: RunResult, transfer: Transfer | None, *, check: bool, on_interrupt: str
) -> RunResult:
    """Give a result back with the values it brought, or raise what the caller wants raised for it."""
    refused: dict[str, str] = {}
    if transfer is not None and result.ok:
        try:
            values, refused = transfer.read()
        except KeyboardInterrupt as interrupt:  # a million texts take a while
            interrupt.result = result  # type: ignore[attr-defined]
            raise
        result = dataclasses.replace(result, values=values)
    if result.interrupted and on_interrupt == "raise":
        interrupted = KeyboardInterrupt()
        interrupted.result = result  # type: ignore[attr-defined]
        raise interrupted
    if check and not result.ok:
        error = CommandError(result.describe_exit(), exit_code=result.exit_code)
        error.result = result  # type: ignore[attr-defined]
        raise error
    if refused:
        failure = TransferError(refused)
        failure.result = result
        raise failure
    return result
