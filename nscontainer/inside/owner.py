"""The owner's side: a helper process started for one call, and what it asks for meanwhile relayed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any, Final, Self, cast

from nscontainer.errors import EngineError
from nscontainer.inside import Stream
from nscontainer.inside.messages import Receiving, Stood, send

_START: Final = (
    "import sys; sys.path.insert(0, {root!r}); "
    "from nscontainer.inside.helper import main; main({fd})"
)
_CHUNK: Final = 1 << 20
_LAST_WORDS: Final = 300


class Run:
    """One helper process, for one call."""

    def __init__(self) -> None:
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this
        self._fds: list[int] = [theirs.fileno()]
        self._theirs = theirs
        self._callbacks: list[Callable[..., object]] = []
        self._pumps: list[_Pump] = []
        self._stops: list[threading.Event] = []
        self._failure: BaseException | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._interrupts = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        self._sock.close()
        self._theirs.close()
        for pump in self._pumps:
            pump.close()
        if self._process is not None:
            self._process.wait()
        self._said.close()

    def result(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Start the helper, hand it the call, relay until it has ended."""
        request = (
            [path for path in sys.path if path],
            function.__module__,
            function.__qualname__,
            [self._stand_in(arg) for arg in args],
            {name: self._stand_in(arg) for name, arg in kwargs.items()},
        )
        self._start()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            send(self._sock, request)
        while (message := self._next()) is not None:
            kind, value = message
            if kind == "call":
                self._called(*value)
                continue
            for pump in self._pumps:
                pump.finish()
            self._echo()
            if self._failure is not None:
                raise self._failure
            if kind == "raised":
                raise value
            return value
        raise self._gone()

    def _start(self) -> None:
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        code = _START.format(root=root, fd=self._theirs.fileno())
        # -I: nothing of the working directory gets into it. What this process finds modules by follows.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code],
            pass_fds=(*self._fds,),
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
            start_new_session=True,  # an interrupt from the terminal is ours to hand on
        )
        self._theirs.close()
        for pump in self._pumps:
            pump.begin()

    def _stand_in(self, arg: Any) -> Any:
        if isinstance(arg, threading.Event):
            self._stops.append(arg)
            return None
        if isinstance(arg, Stream):
            pump = _Pump(arg.plain, reads=arg.way == "read")
            self._pumps.append(pump)
            self._fds.append(pump.theirs)
            return Stood(arg.way, pump.theirs)
        if callable(arg):
            self._callbacks.append(arg)
            return Stood("callback", len(self._callbacks) - 1)
        return arg

    def _next(self) -> tuple[str, Any] | None:
        """Wait for a message; hand interrupts on meanwhile."""
        receiving = Receiving(self._sock)
        while True:
            try:
                self._sock.settimeout(0.1 if self._stops and not self._interrupts else None)
                return cast("tuple[str, Any] | None", receiving.all())
            except TimeoutError:
                if any(stop.is_set() for stop in self._stops):
                    self._interrupt()
            except KeyboardInterrupt:
                self._interrupt()
            except ConnectionResetError:
                return None

    def _interrupt(self) -> None:
        assert self._process is not None
        self._interrupts += 1
        if self._interrupts > 1:
            self._process.kill()
            raise KeyboardInterrupt
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)

    def _called(self, number: int, args: tuple[Any, ...]) -> None:
        if self._failure is not None:
            return
        try:
            self._callbacks[number](*args)
        except BaseException as error:  # noqa: BLE001 - raised when the helper has broken off
            self._failure = error
            self._interrupt()

    def _echo(self) -> None:
        """Say what the helper said: warnings of Python, say."""
        self._said.seek(0)
        if text := self._said.read().decode("utf-8", "replace"):
            sys.stderr.write(text)

    def _gone(self) -> BaseException:
        assert self._process is not None
        code = self._process.wait()
        if self._interrupts:
            return self._failure or KeyboardInterrupt()
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        said = f": {lines[-1][:_LAST_WORDS]}" if lines else ""
        message = f"the helper in the user namespace ended with {how}{said}"
        return EngineError(message)


class _Pump:
    """A stream of the owner's at one end of a pipe, a thread between."""

    def __init__(self, stream: Any, *, reads: bool) -> None:
        self.reads = reads
        self._stream = stream
        out, into = os.pipe2(os.O_CLOEXEC)
        self.theirs, self._ours = (out, into) if reads else (into, out)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._all, daemon=True)

    def begin(self) -> None:
        """Let go of the helper's end, and start."""
        os.close(self.theirs)
        self.theirs = -1
        self._thread.start()

    def _all(self) -> None:
        with open(self._ours, "wb" if self.reads else "rb", buffering=0) as pipe:
            self._ours = -1
            try:
                if self.reads:
                    while data := self._stream.read(_CHUNK):
                        view = memoryview(data)
                        while view:
                            view = view[pipe.write(view) :]
                else:
                    while data := pipe.read(_CHUNK):
                        self._stream.write(data)
            except BrokenPipeError:
                pass  # the helper has read as much as it wanted
            except BaseException as error:  # noqa: BLE001 - raised in the owner's thread
                self._failure = error  # before the helper sees the end

    def finish(self) -> None:
        """Have all that the helper wrote written.

        Raises
        ------
        Exception
            What reading or writing the stream raised.
        """
        if not self.reads:
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Let go of what was not begun."""
        for fd in (self.theirs, self._ours):
            if fd >= 0 and not self._thread.is_alive():
                with contextlib.suppress(OSError):
                    os.close(fd)
