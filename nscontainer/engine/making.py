"""The making of a container from the owner's side: pipes, request, and the ends it holds."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nscontainer.engine import fewer, spawner_client, state, storage, wire
from nscontainer.engine.answers import exit_record, rebuild_error
from nscontainer.errors import EngineError, SetupError, SpecError
from nscontainer.image import host, running
from nscontainer.spec import ContainerSpec, check_id


@dataclass(eq=False)
class Made:
    """A container that this process made, by the ends it holds of it.

    Closing the control socket (or losing this object, or ending) ends a foreground container.
    """

    id: str
    name: str
    top: str
    detach: bool
    control: wire.Inbox
    stdout: int | None
    stderr: int | None
    channel: socket.socket | None
    samples_fd: int
    tty: int | None
    spec: ContainerSpec
    """As asked for, and what the image says."""
    stages: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._fds = [
            fd for fd in (self.stdout, self.stderr, self.samples_fd, self.tty) if fd is not None
        ]
        self._finalizer = weakref.finalize(
            self, _let_go, self._fds, self.control.sock, self.channel
        )
        self._samples: bytes | None = None

    def start(self, at_ns: int = 0) -> None:
        """Open the gate: at once, or at an instant of CLOCK_MONOTONIC."""
        wire.send(self.control.sock, {"op": "start", "seq": 0, "at_ns": at_ns})
        received = self.control.get()
        if received is None:
            message = "the monitor went away before the start"
            raise EngineError(message)
        if received[0].get("event") != "started":
            raise rebuild_error(received[0])

    def wait(self, timeout_s: float | None) -> dict[str, Any]:
        """Wait for the exit record; what comes out meanwhile is read, so that it ends, and dropped."""
        pipes = {fd for fd in (self.stdout, self.stderr, self.tty) if fd is not None}
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            watched: list[Any] = [self.control.sock, *pipes]
            ready = select.select(watched, [], [], left)[0]
            if not ready:
                message = f"container {self.name!r} has not ended in {timeout_s} s"
                raise TimeoutError(message)
            for fd in pipes.intersection(ready):
                with contextlib.suppress(OSError):  # EIO: a terminal's end
                    if os.read(fd, 65536):
                        continue
                pipes.discard(fd)
            if self.control.sock not in ready:
                continue
            self.control.fill()
            while (received := self.control.pop()) is not None:
                if received[0].get("event") == "exit":
                    self.close()
                    return exit_record(received[0])
            if self.control.closed:
                message = f"the monitor of container {self.name!r} went away"
                raise EngineError(message)

    def samples(self) -> bytes:
        """Read the sample log so far."""
        if self._samples is not None:
            return self._samples
        return read_all(self.samples_fd)

    def close(self) -> None:
        """Let go of every end; what was sampled is kept."""
        if self._samples is None:
            self._samples = read_all(self.samples_fd)
        self._finalizer()


def _let_go(fds: list[int], control: socket.socket, channel: socket.socket | None) -> None:
    control.close()
    _let_go_ends(fds, channel)


def _let_go_ends(fds: list[int], channel: socket.socket | None) -> None:
    if channel is not None:
        channel.close()
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
    fds.clear()


def read_all(fd: int) -> bytes:
    """Read a growing file from its beginning without moving its offset."""
    parts, offset = [], 0
    while part := os.pread(fd, 1 << 20, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


class _SpawnerDiedError(EngineError):
    """The spawner (or its spare monitor) was killed before any code was let go."""


def make(spec: ContainerSpec, **options: Any) -> Made:
    """Have a container made; it waits at the gate when this returns, or with ``start`` runs.

    Parameters
    ----------
    options
        name, detach, remove, stdin, start: as Container.create's.
    """
    if spec.unconfined:
        message = (
            "--unconfined makes no container: it is for a command or a cell that is waited for"
        )
        raise SpecError(message, hint="nscontainer.run(…), nscontainer run or %%container, with it")
    if not spec.best_effort:
        storage.check(spec.limits.to_dict())
    with running.resolved(spec) as (whole, image):
        try:
            return _made(whole, image, {}, **options)
        except SetupError as error:
            if not spec.best_effort:
                raise
            return fewer.with_fewer(
                whole, error, lambda less, missing: _made(less, image, missing, **options)
            )


def _made(
    spec: ContainerSpec, image: running.Resolved | None, missing: Mapping[str, str], **options: Any
) -> Made:
    try:
        return _make(spec, image, missing, **options)
    except _SpawnerDiedError:  # since the last container, perhaps: another is started, once
        return _make(spec, image, missing, **options)


def _make(
    spec: ContainerSpec,
    image: running.Resolved | None,
    missing: Mapping[str, str],
    *,
    name: str | None,
    detach: bool,
    remove: bool,
    stdin: int | None,
    start: bool = False,
) -> Made:
    container_id = state.new_id()
    name = container_id if name is None else check_id(name)
    cell = spec.command is None
    with contextlib.ExitStack() as ours:
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.callback(theirs.close)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        ours.callback(os.close, null)
        stdout = stderr = None
        out_w = err_w = null
        if (not detach or spec.session) and not spec.tty:
            stdout, out_w = os.pipe()
            stderr, err_w = os.pipe()
            ours.callback(os.close, out_w)
            ours.callback(os.close, err_w)
        # Not in the request: what the spawner reads stays in its memory, which is every cell's.
        private = os.memfd_create("env", os.MFD_CLOEXEC)
        ours.callback(os.close, private)
        os.write(private, json.dumps(spec.env).encode())
        fds = [theirs.fileno(), null if stdin is None else stdin, out_w, err_w, private]
        channel = None
        if cell:
            channel, channel_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            ours.callback(channel_theirs.close)
            fds.append(channel_theirs.fileno())
        request = _request(spec, image, container_id, name)
        request |= {"detach": detach, "remove": remove, "start": start, "missing": missing}
        on_host = image is None or image.on_host
        spawner = _ask(request, tuple(fds), cells=cell and not spec.cold and on_host)
    held = [fd for fd in (stdout, stderr) if fd is not None]
    inbox = wire.Inbox(control)
    try:
        received = inbox.get()
        if received is None:
            spawner_client.forget(spawner)
            message = "the spawner died before it made the container"
            raise _SpawnerDiedError(message, hint="set NSCONTAINER_DEBUG=1 to see why")
        answer, got = received
        if answer.get("event") != "created":
            raise rebuild_error(answer)
    except BaseException:
        _let_go(held, control, channel)
        raise
    if spec.session and channel is not None:
        _hand_over(inbox, channel, held, got)
        channel = stdout = stderr = None
    return Made(
        id=answer["id"],  # one that stood by has its own
        name=answer["name"],
        top=spawner.top,
        detach=detach,
        control=inbox,
        stdout=stdout,
        stderr=stderr,
        channel=channel,
        samples_fd=got[0],
        tty=got[1] if len(got) > 1 else None,
        spec=spec,
        stages=answer["stages"],
    )


def _hand_over(
    control: wire.Inbox, channel: socket.socket, pipes: list[int], got: list[int]
) -> None:
    """Give a session's ends to its monitor: whoever uses it is lent them, we too."""
    try:
        wire.send(control.sock, {"op": "keep", "seq": 0}, (channel.fileno(), *pipes))
        received = control.get()
        if received is None:
            message = "the monitor went away before the session began"
            raise EngineError(message)
        if received[0].get("event") == "failed":
            raise rebuild_error(received[0])
    except BaseException:
        _let_go([*pipes, *got], control.sock, channel)
        raise
    _let_go_ends(pipes, channel)


def _ask(
    request: wire.Message, fds: tuple[int, ...], *, cells: bool
) -> spawner_client.SpawnerClient:
    spawner = spawner_client.get(cells=cells)
    try:
        spawner.ask(request, fds)
    except OSError:  # it died since the last container: start another, once
        spawner_client.forget(spawner)
        spawner = spawner_client.get(cells=cells)
        spawner.ask(request, fds)
    return spawner


def _request(
    spec: ContainerSpec, image: running.Resolved | None, container_id: str, name: str
) -> wire.Message:
    request = {
        "op": "create",
        "id": container_id,
        "name": name,
        "spec": spec.to_dict() | {"env": []},
        "image": None if image is None else image.to_dict(),
        "home": os.path.expanduser("~"),
        "halt_at": os.environ.get("NSCONTAINER_HALT_AT"),
    }
    if image is not None and not image.on_host:  # nothing of this machine's own is any use in it
        return request | {"environment": dict(image.environment), "needed": []}
    environment = host.environment(os.environ)
    environment["NSCONTAINER_PYTHON"] = sys.executable
    if image is not None:  # its own come over the host's
        ours = {name: value for name, value in image.environment.items() if name != "PATH"}
        environment |= ours
    # A command's own interpreter has its own first entry: the directory of what it runs.
    paths = spec.python_path or sys.path[1:]
    needed = [
        path
        for path in (spec.workdir, sys.prefix, sys.base_prefix, sys.exec_prefix, *paths)
        if path and os.path.isabs(path)
    ]
    return request | {"environment": environment, "needed": needed}
