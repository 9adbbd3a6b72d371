"""An unconfined run as its owner holds it: what :class:`nscontainer.engine.container.Container` is to others."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from nscontainer import nameless, spec
from nscontainer.engine import pump, wire
from nscontainer.engine.answers import rebuild_error
from nscontainer.engine.following import Follower
from nscontainer.errors import EngineError, SpecError, StateError
from nscontainer.limits import Limits
from nscontainer.spec import ContainerSpec
from nscontainer.unconfined.child import CHANNEL_FD

Sink = Callable[[bytes], None]
Record = dict[str, Any]

_START: Final = (
    "import sys; sys.path.insert(0, {root!r}); "
    "from nscontainer.unconfined.supervisor import main; main({fd})"
)
_ROOT: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@dataclass(slots=True)
class _Ends:
    """What this process holds of it: a :class:`nscontainer.engine.pump.Ends`."""

    name: str
    control: wire.Inbox
    stdout: int | None
    stderr: int | None
    channel: socket.socket | None
    tty: int | None = None


class Process:
    """One command or cell as a plain process; made by :func:`create`.

    It has those of a container's methods that a run in the foreground, a live view and a background
    run's buttons ask for. It ends with the process that made it, at the latest.
    """

    tty_fd = None
    detached = False

    def __init__(
        self,
        process_id: str,
        spec_: ContainerSpec,
        ends: _Ends,
        samples_fd: int,
        supervisor: subprocess.Popen[bytes],
    ) -> None:
        self.id = self.name = self.short_id = process_id
        self.spec = spec_
        self._ends = ends
        self._samples_fd = samples_fd
        self._supervisor = supervisor
        self._record: Record | None = None
        self._samples: bytes | None = None
        self._finalizer = weakref.finalize(self, _let_go, ends, samples_fd, supervisor)

    def __repr__(self) -> str:
        return f"<Process {self.name}: {self.status}>"

    @property
    def status(self) -> str:
        """``running``, or ``exited``."""
        return "running" if self._record is None else "exited"

    def start(self, at_ns: int = 0) -> None:
        """Do nothing: it runs since it was made."""

    def drive(
        self,
        *,
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
        on_message: Callable[[dict[str, Any]], None] | None = None,
        on_tick: Callable[[Any], None] | None = None,
        tick_s: float = 0.25,
    ) -> Record:
        """Relay output in the calling thread until it has ended; as a container's ``drive``."""
        tick = None if on_tick is None else (lambda: on_tick(self))
        sinks = pump.Sinks(on_stdout, on_stderr, on_message, tick, tick_s)
        try:
            self._record = pump.drive(self._ends, sinks, self.press)
        finally:
            self.close()
        return self._record

    def close(self) -> None:
        """Let go of it, which ends it; what was sampled is kept."""
        if self._samples is None:
            self._samples = _read_all(self._samples_fd)
        self._finalizer()

    def samples(self) -> bytes:
        """Give the rows sampled so far."""
        return _read_all(self._samples_fd) if self._samples is None else self._samples

    def follow(self) -> Follower:
        """Read the samples while it runs."""
        return Follower(self._samples_fd)

    def limits(self) -> Limits:
        """Give the limits as asked."""
        return self.spec.limits

    # --- what is asked of it ---------------------------------------------------------------------

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send a message to the cell's runner, and file descriptors with it."""
        if self._ends.channel is None:
            message_ = "this process runs no cell of ours"
            raise StateError(message_)
        pump.send_frame(self._ends.channel, message, fds)

    def press(self, times: int) -> None:
        """Do what the first (1) and the second (2) Ctrl-C do: SIGINT to its process group, then kill all."""
        with contextlib.suppress(OSError):
            if times > 1:
                self._ask(signal=int(signal.SIGKILL), by="interrupt")
            else:
                self._ask(signal=int(signal.SIGINT), group=True)

    def interrupt(self) -> None:
        """Do as a terminal's Ctrl-C does: SIGINT to its process group."""
        self._tell(signal=int(signal.SIGINT), group=True)

    def signal(self, sig: str | int) -> None:
        """Send a signal to its first process."""
        self._tell(signal=spec.parse_signal(sig))

    def kill(self, sig: str | int = "KILL") -> None:
        """Kill every process of it, or send another signal to its first."""
        self.signal(sig)

    @property
    def stop_signal(self) -> int:
        """What a gentle end begins with."""
        return self.spec.stop_signal or int(signal.SIGTERM)

    def pause(self) -> NoReturn:
        """Refuse: that takes a cgroup.

        Raises
        ------
        StateError
            Always.
        """
        raise _refused("paused")

    resume = pause

    def update(self, **_: Any) -> NoReturn:
        """Refuse: its limits are its own since it began.

        Raises
        ------
        StateError
            Always.
        """
        raise _refused("given other limits")

    def _tell(self, **what: Any) -> None:
        try:
            self._ask(**what)
        except OSError:
            message = f"process {self.name!r} is exited"
            raise StateError(message) from None

    def _ask(self, **what: Any) -> None:
        wire.send(self._ends.control.sock, what)


def _refused(what: str) -> StateError:
    return StateError(f"an unconfined run can't be {what}", hint="a container can")


def _let_go(ends: _Ends, samples_fd: int, supervisor: subprocess.Popen[bytes]) -> None:
    ends.control.close()
    if ends.channel is not None:
        ends.channel.close()
    for fd in (ends.stdout, ends.stderr, samples_fd):
        if fd is not None:
            os.close(fd)
    with contextlib.suppress(subprocess.TimeoutExpired):  # it kills what is left first
        supervisor.wait(timeout=10)
    if supervisor.stderr is not None:
        supervisor.stderr.close()


def _read_all(fd: int) -> bytes:
    parts, offset = [], 0
    while part := os.pread(fd, 1 << 20, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


# --- making ----------------------------------------------------------------------------------


def create(
    what: ContainerSpec,
    *,
    name: str | None = None,
    detach: bool = False,
    stdin: int | None = None,
    **_others: Any,
) -> Process:
    """Start a command, or the runner of a cell, as a plain process.

    Parameters
    ----------
    what
        With ``unconfined``; :func:`nscontainer.spec.build` has checked it.
    stdin
        A file descriptor for its standard input; /dev/null where none is given.

    Raises
    ------
    SpecError
        It was to have a name, or to outlive this process; a limit was refused, or its working
        directory isn't there.
    """
    for given, option in ((name is not None, "--name"), (detach, "--detach")):
        if given:
            message = f"{option} needs a container, and --unconfined makes none"
            raise SpecError(message, hint="leave one of the two out")
    asked_ns, process_id = time.monotonic_ns(), os.urandom(6).hex()
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as undo:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        theirs.callback(os.close, null)
        fds = [nameless.new("samples"), null if stdin is None else stdin]
        undo.callback(os.close, fds[0])
        readers: list[int] = []
        for _ in range(2):
            reader, writer = os.pipe()
            theirs.callback(os.close, writer)
            undo.callback(os.close, reader)
            readers.append(reader)
            fds.append(writer)
        channel = None
        if what.command is None:
            channel, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            theirs.callback(other.close)
            undo.callback(channel.close)
            fds.append(other.fileno())
        control, supervisor = _start_supervisor()
        undo.pop_all()
        ends = _Ends(process_id, wire.Inbox(control), readers[0], readers[1], channel)
        process = Process(process_id, what, ends, fds[0], supervisor)
        request: dict[str, Any] = {
            "id": process_id,
            "spec": what.to_dict(),
            "argv": _argv(what),
            "environment": {
                **os.environ,
                **dict(what.env),
            },  # all of it: it is a process as this one
            "created_unix": time.time(),
            "asked_ns": asked_ns,
        }
        try:
            _begin(ends.control, request, fds)
        except BaseException:
            process.close()
            raise
    return process


def _argv(what: ContainerSpec) -> list[str]:
    if what.command is not None:
        return list(what.command)
    runner = os.path.join(_ROOT, "nscontainer", "runner")
    return [sys.executable, "-I", runner, str(CHANNEL_FD)]


def _start_supervisor() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _START.format(root=_ROOT, fd=theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if os.environ.get("NSCONTAINER_DEBUG") else subprocess.DEVNULL,
            start_new_session=True,  # a signal to the notebook's process group isn't for it
        )
    except OSError as error:
        ours.close()
        message = f"the supervisor can't be started: {error}"
        raise EngineError(message) from None
    finally:
        theirs.close()
    return ours, supervisor


def _begin(control: wire.Inbox, request: dict[str, Any], fds: list[int]) -> None:
    received = None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        wire.send(control.sock, request, fds)
        received = control.get()
    if received is None:
        message = "the supervisor died before it started the process"
        raise EngineError(message, hint="set NSCONTAINER_DEBUG=1 to see why")
    if received[0].get("event") == "failed":
        raise rebuild_error(received[0])
