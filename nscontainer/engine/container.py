"""A container as its user holds it: made, started, driven, asked, removed.

Nothing here touches the host itself. Everything is asked of the container's monitor, over the control
socket of the one that made it, or over the socket in its state directory for anybody else of the same
user.
"""

from __future__ import annotations

import builtins
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nscontainer import errors, spec
from nscontainer.engine import answers, making, pump, state, wire
from nscontainer.engine.attached import Attached
from nscontainer.engine.following import Follower
from nscontainer.errors import EngineError, NotFoundError, SpecError, StateError
from nscontainer.limits import LASTING, Limits
from nscontainer.linux import procfs
from nscontainer.schema import NA, NAMES
from nscontainer.spec import ContainerSpec

Record = dict[str, Any]
Sink = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What an executed command gave: as docker-py's, and what it printed."""

    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def output(self) -> bytes:
        """Everything printed, standard output first."""
        return self.stdout + self.stderr


class Container:
    """One container. Made by :meth:`create`, found by :meth:`get` and :meth:`list`.

    A foreground container (``detach=False``) lives at most as long as the process that made it. Its
    methods keep docker-py's names.
    """

    def __init__(self, container_id: str, name: str, spec_: ContainerSpec, top: str) -> None:
        self.id = container_id
        self.name = name
        self.spec = spec_
        self._top = top
        self._made: making.Made | None = None
        self._record: Record | None = None

    def __repr__(self) -> str:
        return f"<Container {self.name}: {self.status}>"

    @property
    def short_id(self) -> str:
        """The id (it is short already); for docker-py's sake."""
        return self.id

    @property
    def directory(self) -> str:
        """The container's directory under the state directory."""
        return f"{self._top}/containers/{self.id}"

    # --- making and finding ------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        spec: ContainerSpec,
        *,
        name: str | None = None,
        detach: bool = False,
        remove: bool = True,
        stdin: int | None = None,
        start: bool = False,
    ) -> Container:
        """Make a container, all set up and waiting for :meth:`start`.

        Parameters
        ----------
        spec
            As :func:`nscontainer.spec.build` makes it.
        name
            A name to find it by; its id where none is given.
        detach
            Let it outlive this process; its output goes to :meth:`logs`.
        remove
            Remove it when it has ended; otherwise it stays until :meth:`remove`.
        stdin
            A file descriptor for its standard input; /dev/null where none is given.
        start
            Don't wait for :meth:`start`: let the code go as soon as all is set up.

        Raises
        ------
        SetupError
            A step of the set-up was refused: stage, operation, path, errno.
        HostError, SpecError, StateError
            This host can't; a value can't; the name is taken.
        """
        made = making.make(spec, name=name, detach=detach, remove=remove, stdin=stdin, start=start)
        container = cls(made.id, made.name, made.spec, made.top)
        container._made = made
        return container

    @classmethod
    def get(cls, ref: str) -> Container:
        """Find a container by name, id or the beginning of an id.

        Raises
        ------
        NotFoundError
            None has it.
        """
        top = state.state_dir()
        container_id = state.find(top, ref)
        facts = state.read(f"{top}/containers/{container_id}")
        if facts is None:
            message = f"no container {ref!r}"
            raise NotFoundError(message, hint="nscontainer ps -a lists them")
        return cls._from_state(facts, top)

    @classmethod
    def list(cls, *, all: bool = False) -> list[Container]:  # noqa: A002 - docker-py's name
        """List the containers that live, or with ``all`` the ended ones as well, oldest first."""
        top = state.state_dir()
        found = []
        for container_id in state.ids(top):
            facts = state.read(f"{top}/containers/{container_id}")
            if facts is not None:
                container = cls._from_state(facts, top)
                if all or container.status in ("created", "running", "paused"):
                    found.append(container)
        return found

    @classmethod
    def _from_state(cls, facts: state.State, top: str) -> Container:
        return cls(facts["id"], facts["name"], ContainerSpec.from_dict(facts["spec"]), top)

    # --- the one that made it ----------------------------------------------------------------

    def start(self, at_ns: int = 0) -> None:
        """Let the user's code go: the limits are armed, the clock starts.

        Parameters
        ----------
        at_ns
            When, less than a second ahead: an instant of :func:`time.monotonic_ns`, so that several
            containers begin together. At once where none is given.
        """
        if self._made is None:
            self._call("start", at_ns=at_ns)
        else:
            self._made.start(at_ns)

    def drive(
        self,
        *,
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
        on_message: Callable[[dict[str, Any]], None] | None = None,
        on_tick: Callable[[Container], None] | None = None,
        tick_s: float = 0.25,
    ) -> Record:
        """Relay output in the calling thread until the container has ended and is removed.

        The first KeyboardInterrupt sends SIGINT into the container, the second kills it; this
        returns normally either way, with ``record["interrupted"]`` 1 or 2. A third, should it not
        have ended by then, is raised here.

        Returns
        -------
        dict
            The exit record (see :mod:`nscontainer.measure.result`).
        """
        if self._made is None:
            message = "only the process that made a container can drive it"
            raise StateError(message, hint="wait() and logs() work for others")
        tick = None if on_tick is None else (lambda: on_tick(self))
        sinks = pump.Sinks(on_stdout, on_stderr, on_message, tick, tick_s)
        try:
            record = pump.drive(self._made, sinks, self.press)
        except BaseException:  # a sink's own, perhaps: with nobody to relay, it ends
            self._made.close()
            raise
        self._record = record
        self._made.close()
        return record

    def press(self, times: int) -> None:
        """Do what the first (1) and the second (2) Ctrl-C do: SIGINT into the container, then kill it."""
        # OSError: the monitor doesn't answer. A third interrupt then gets the caller out of here.
        with contextlib.suppress(errors.NsContainerError, OSError):
            how: dict[str, Any] = {"signal": int(signal.SIGINT), "group": True}
            if times > 1:
                how = {"signal": int(signal.SIGKILL), "by": "interrupt"}
            self._call("signal", patience_s=1.0, **how)

    def attach(self) -> Attached:
        """Take a session for this process to run cells in, until that lets go of it or ends.

        Raises
        ------
        StateError
            Another process has it, or it is no session that lives.
        """
        if not self.spec.session:
            message = f"container {self.name!r} is no session"
            raise StateError(message, hint="create makes sessions; exec runs commands in any")
        return Attached(self.name, self._connect(), self.press)

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send a message to the cell's runner, and file descriptors with it."""
        if self._made is None or self._made.channel is None:
            message_ = "this container runs no cell of ours"
            raise StateError(message_)
        pump.send_frame(self._made.channel, message, fds)

    @property
    def tty_fd(self) -> int | None:
        """The master side of the container's terminal, where it has one."""
        return None if self._made is None else self._made.tty

    # --- anybody -----------------------------------------------------------------------------

    def _facts(self) -> state.State:
        facts = state.read(self.directory)
        if facts is None:
            message = f"no container {self.name!r}: it is gone"
            raise NotFoundError(message)
        return facts

    @property
    def status(self) -> str:
        """``created``, ``running``, ``paused``, ``exited``, or ``removed``."""
        facts = state.read(self.directory)
        if facts is None:
            return "removed"
        if not state.is_owned(self.directory):
            return "exited"
        return str(facts["status"])

    def has_name(self, name: str) -> bool:
        """Tell whether a name is this container's now: it may be removed, or renamed, by others."""
        return state.has_name(self._top, name, self.id)

    @property
    def detached(self) -> bool:
        """Whether it outlives the process that made it."""
        return self._made.detach if self._made is not None else bool(self._facts()["detach"])

    @property
    def attrs(self) -> dict[str, Any]:
        """Docker-py's name for :meth:`inspect`."""
        return self.inspect()

    def reload(self) -> None:
        """Do nothing: every property is read afresh. For docker-py's sake."""

    def _call(self, op: str, *, patience_s: float | None = None, **arguments: Any) -> wire.Message:
        """Ask the monitor for something and wait for its reply."""
        with self._connect() as sock:
            sock.settimeout(patience_s)
            inbox = wire.Inbox(sock)
            received = None
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                wire.send(sock, {"op": op, "seq": 1, **arguments})
                received = inbox.get()
        if received is None:
            message = f"container {self.name!r} ended before it answered"
            raise StateError(message)
        reply, fds = received
        if reply.get("event") == "failed":
            raise answers.rebuild_error(reply)
        if fds:
            reply["fds"] = fds
        return reply

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            with wire.short(self.directory, "monitor.sock") as path:
                sock.connect(path)
        except OSError:
            sock.close()
            message = f"container {self.name!r} is {self.status}"
            raise StateError(message, hint="only a living container can do that") from None
        return sock

    def signal(self, sig: str | int) -> None:
        """Send a signal to the container's first process.

        One that it has no handler for gets the default action, though Linux would drop it.
        """
        self._call("signal", signal=spec.parse_signal(sig))

    def interrupt(self) -> None:
        """Do as a terminal's Ctrl-C does: SIGINT to the first process and its process group."""
        self._call("signal", signal=int(signal.SIGINT), group=True)

    def kill(self, sig: str | int = "KILL") -> None:
        """Kill the container (every process of it), or send another signal to its first."""
        self.signal(sig)

    def stop(self, timeout_s: float = 10.0) -> None:
        """Ask the container to end by its stop signal; kill it after ``timeout_s`` seconds."""
        self.signal(self.stop_signal)
        deadline = time.monotonic() + timeout_s
        while state.is_owned(self.directory):
            if time.monotonic() > deadline:
                with contextlib.suppress(StateError):
                    self.kill()
                deadline += timeout_s
            time.sleep(0.01)

    @property
    def stop_signal(self) -> int:
        """What :meth:`stop` sends first."""
        return self.spec.stop_signal or int(signal.SIGTERM)

    def pause(self) -> None:
        """Freeze every process of the container."""
        self._call("pause")

    def resume(self) -> None:
        """Let a paused container go on."""
        self._call("resume")

    unpause = resume

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep every process of the container frozen for this block, if it runs.

        However this process ends, the container goes on.

        Raises
        ------
        StateError
            It was killed meanwhile.
        """
        try:
            sock = self._connect()
        except StateError:  # it has ended: nothing moves
            yield
            return
        remove = bool(self._facts()["remove"])
        with sock:
            inbox = wire.Inbox(sock)
            held = _asked(inbox, "hold")
            try:
                yield
            finally:
                released = _asked(inbox, "release")
        if remove and not (held and released):  # its files went away while they were looked at
            message = f"container {self.name!r} ended meanwhile"
            raise StateError(message)

    def update(self, **limit_options: Any) -> dict[str, Any]:
        """Change limits while it runs: options as :func:`nscontainer.spec.limits` takes them.

        Returns
        -------
        dict
            The limits as read back from the cgroup afterwards.
        """
        spec.limits(**limit_options)  # a clear error here, before anything is asked
        for name in LASTING:
            if limit_options.get(name) not in (None, ()):
                raise SpecError(LASTING[name], hint="give it to run")
        if all(value is None for value in limit_options.values()):
            message = "update was given no limit to change"
            raise SpecError(message, hint='as update(cpu="50%")')
        reply = self._call("update", limits=_plain(limit_options))
        return dict(reply["read_back"])

    def limits(self) -> Limits:
        """Give the limits as asked so far, every update made to them."""
        return Limits.from_dict(self._call("limits")["asked"])

    def stats(self) -> dict[str, int | None]:
        """Take a reading now.

        Returns
        -------
        dict
            ``elapsed_ns`` since the code was let go, ``took_ns`` of this reading, and a value by
            schema column; counters since the code was let go; None where the host can't say.
        """
        row = self._call("stats")["row"]
        values = [None if value == NA else int(value) for value in row]
        return dict(zip(("elapsed_ns", "took_ns", *NAMES), values, strict=True))

    def samples(self) -> bytes:
        """Give the rows of the sample log so far: :data:`nscontainer.schema.ROW_BYTES` each."""
        if self._made is not None:
            return self._made.samples()
        if os.path.exists(f"{self.directory}/samples"):
            with open(f"{self.directory}/samples", "rb") as file:
                return file.read()
        fd = self._call("samples")["fds"][0]
        try:
            return making.read_all(fd)
        finally:
            os.close(fd)

    def follow(self) -> Follower:
        """Read its sample log while that grows."""
        if self._made is not None and self._record is None:
            return Follower(self._made.samples_fd)
        fd = self._call("samples")["fds"][0]
        try:
            return Follower(fd)
        finally:
            os.close(fd)

    def pids(self) -> builtins.list[int]:
        """List the container's processes by their ids on the host."""
        facts = self._facts()
        if not state.is_owned(self.directory):
            return []
        found: set[int] = set()
        paths = facts["cgroup"]["paths"]
        for directory in [paths[k] for k in ("memory", "pids", "cpu", "", "unified") if k in paths]:
            with contextlib.suppress(OSError):
                with open(f"{directory}/cgroup.procs", encoding="ascii") as file:
                    found.update(int(line) for line in file)
                break
        return sorted(found)

    def top(self) -> builtins.list[dict[str, Any]]:
        """List the container's processes with what /proc says of each."""
        return list(procfs.processes(self.pids()))

    def exec(
        self,
        command: Iterable[str],
        *,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        stdin: int | None = None,
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
    ) -> ExecResult:
        """Run another command in the running container (setns) and wait for it.

        Returns
        -------
        ExecResult
            Exit code as Docker's, and what was printed where no sink took it.
        """
        argv = [str(part) for part in command]
        if not argv or isinstance(command, str):
            message = f"command {command!r} can't be run"
            raise errors.SpecError(message, hint="give a list: the program and its arguments")
        request = {
            "op": "exec",
            "seq": 1,
            "command": argv,
            "env": dict(env or {}),
            "workdir": workdir,
            "user": user,
        }
        with self._connect() as sock:
            told, out, err = pump.execute(sock, request, stdin, on_stdout, on_stderr)
        return ExecResult(told, out, err)

    exec_run = exec  # noqa: A003 - docker-py's names, both

    def wait(self, timeout_s: float | None = None) -> Record:
        """Wait until the container has ended.

        Returns
        -------
        dict
            The exit record; ``StatusCode`` in it is the exit code, for docker-py's sake.

        Raises
        ------
        TimeoutError
            It hasn't ended in ``timeout_s`` seconds.
        """
        if self._record is None and self._made is not None:
            self._record = self._made.wait(timeout_s)
        elif self._record is None:
            self._record = self._wait_for_other(timeout_s)
        return {**self._record, "StatusCode": self._record.get("exit_code")}

    def _wait_for_other(self, timeout_s: float | None) -> Record:
        try:
            sock = self._connect()
        except StateError:
            record = self._facts().get("record")
            return dict(record) if record else {}
        with sock:
            sock.settimeout(timeout_s)
            wire.send(sock, {"op": "wait"})
            received = wire.Inbox(sock).get()
        if received is None:
            record = self._facts().get("record")  # it had ended, and asked nobody any more
            if record:
                return dict(record)
            message = f"the monitor of container {self.name!r} went away"
            raise EngineError(message)
        return dict(received[0].get("record") or {})

    def logs(self) -> bytes:
        """Give what a detached container has printed."""
        try:
            with open(f"{self.directory}/log", "rb") as file:
                return file.read()
        except FileNotFoundError:
            self._facts()
            message = f"container {self.name!r} was not detached: its output went to its owner"
            raise StateError(message) from None

    def inspect(self) -> dict[str, Any]:
        """Give all that is known of the container, as plain types."""
        facts = self._facts()
        facts["status"] = self.status
        facts["directory"] = self.directory
        return facts

    def rename(self, name: str) -> None:
        """Give the container another name."""
        spec.check_id(name)
        state.claim_name(self._top, name, self.id)
        old, self.name = self.name, name
        if state.is_owned(self.directory):
            self._call("rename", name=name)
        else:
            state.write(self.directory, {**self._facts(), "name": name})
        state.release_name(self._top, old, self.id)

    def remove(self, *, force: bool = False) -> None:
        """Remove the container and everything it has written; with ``force``, kill it first.

        Raises
        ------
        StateError
            It lives, and ``force`` was not given.
        """
        facts = self._facts()
        if state.is_owned(self.directory):
            if not force:
                message = f"container {self.name!r} is {self.status}"
                raise StateError(message, hint="stop it first, or remove it with force (rm -f)")
            with contextlib.suppress(StateError):
                self.kill()
            while state.is_owned(self.directory):
                time.sleep(0.005)
        if os.path.isdir(self.directory):
            state.remove(self.directory)
        state.release_name(self._top, str(facts["name"]), self.id)


def _asked(inbox: wire.Inbox, op: str) -> bool:
    """Ask a monitor for something; False where it has gone."""
    try:
        wire.send(inbox.sock, {"op": op, "seq": 1})
        received = inbox.get()
    except OSError:
        return False
    if received is not None and received[0].get("event") == "failed":
        raise answers.rebuild_error(received[0])
    return received is not None


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Make options fit JSON: what is no plain value goes as its text."""
    return {
        key: value if isinstance(value, (str, int, float, type(None))) else _listed(value)
        for key, value in options.items()
    }


def _listed(value: Any) -> Any:
    return [str(item) for item in value] if isinstance(value, Iterable) else str(value)
