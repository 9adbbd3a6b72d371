"""A function of ours run by a helper process that is root of the user's own user namespace.

What an ordinary user's containers and images have on the disk is owned by subordinate ids (subuid(5)):
only a process in the namespace that maps them sees who owns what, may read what a mode closes, and may
remove it. The owner is no such process and can't become one: it has threads, and unshare(CLONE_NEWUSER)
fails with them (unshare(2)). So the work is handed to a child, which ends with it.

Between the two go pickles: both ends are this program, started by this user, on a socketpair. Nothing
that a container or an archive says is unpickled.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, ParamSpec, Self, TypeVar, cast

from nscontainer.errors import EngineError, NsContainerError
from nscontainer.linux import prctl, userns

P = ParamSpec("P")
T = TypeVar("T")

_START: Final = (
    "import sys; sys.path.insert(0, {root!r}); from nscontainer.inside import main; main({fd})"
)
_SIZE: Final = struct.Struct("!Q")
_CHUNK: Final = 1 << 20
_LAST_WORDS: Final = 300
_is_helper = False


def needed() -> bool:
    """Tell whether this process isn't the one that sees files as containers do; root's always is.

    Where this user can't start this Python there is no other: what it can do itself is better than nothing.
    """
    return os.geteuid() != 0 and not _is_helper and os.access(sys.executable, os.X_OK)


def runs(function: Callable[P, T]) -> Callable[P, T]:
    """Have a function of a module run by :func:`call`; root calls it as it is."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        if not needed():
            return function(*args, **kwargs)
        return call(wrapper, *args, **kwargs)

    return wrapper


def call(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Run a module's function in the user namespace and give what it returns, or raise what it raised.

    Parameters
    ----------
    function
        Found by its module and name there.
    args, kwargs
        What can be pickled. Besides, as arguments themselves: callables that return nothing, which are
        called in this thread; :class:`Stream`, which is read or written here, and a plain one there; and
        events, which make the helper stop as by an interrupt.

    Raises
    ------
    EngineError
        The helper was killed, or could not be started.
    KeyboardInterrupt
        An interrupt goes to the helper, which breaks off as the function does; a second one kills it.
    """
    if not needed():
        args = tuple(arg.plain if isinstance(arg, Stream) else arg for arg in args)
        return function(*args, **kwargs)
    with _Run() as run:
        return cast("T", run.result(function, args, kwargs))


@dataclass(frozen=True, slots=True)
class Stream:
    """A binary stream among the arguments of :func:`call`, and what is done with it."""

    plain: Any
    way: Literal["read", "write"]


class _Stood:
    """An argument that stays with the owner: which one, and what it is."""

    def __init__(self, kind: str, number: int) -> None:
        self.kind = kind
        self.number = number


class _Run:
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
            _send(self._sock, request)
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
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
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
            return _Stood(arg.way, pump.theirs)
        if callable(arg):
            self._callbacks.append(arg)
            return _Stood("callback", len(self._callbacks) - 1)
        return arg

    def _next(self) -> tuple[str, Any] | None:
        """Wait for a message; hand interrupts on meanwhile."""
        receiving = _Receiving(self._sock)
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
        try:
            with open(self._ours, "wb" if self.reads else "rb", buffering=0) as pipe:
                self._ours = -1
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
            self._failure = error

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


# --- messages ------------------------------------------------------------------------------------


def _send(sock: socket.socket, message: object) -> None:
    data = pickle.dumps(message)
    sock.sendall(_SIZE.pack(len(data)) + data)


class _Receiving:
    """One message on its way in: what has come stays when the wait is broken off."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._data = bytearray()

    def all(self) -> Any:
        """Give the message; None where the other end has closed."""
        while (wanted := self._wanted()) > 0:
            data = self._sock.recv(min(wanted, _CHUNK))
            if not data:
                return None
            self._data += data
        return pickle.loads(memoryview(self._data)[_SIZE.size :])  # noqa: S301 - our own other half

    def _wanted(self) -> int:
        have = len(self._data)
        if have < _SIZE.size:
            return _SIZE.size - have
        return int(_SIZE.unpack_from(self._data)[0]) + _SIZE.size - have


# --- the helper ----------------------------------------------------------------------------------


def main(fd: int) -> None:
    """Be the helper: enter the user namespace, do what is asked, answer, end."""
    global _is_helper  # noqa: PLW0603 - there is one process, and it is one or the other
    _is_helper = True
    sock = socket.socket(fileno=fd)
    os.set_inheritable(fd, False)  # noqa: FBT003 - os's own
    owner = os.getppid()
    with contextlib.suppress(NsContainerError, OSError):
        # Without a namespace it goes on as the user it is: then all files are the user's own.
        userns.enter()
    prctl.prctl(prctl.PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of ids, which clears it
    if os.getppid() != owner:
        return
    message = _Receiving(sock).all()
    if message is None:
        return
    lock = threading.Lock()
    try:
        answer = ("returned", _done(message, sock, lock))
    except BaseException as error:  # noqa: BLE001 - raised by the owner
        answer = ("raised", error)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with lock, contextlib.suppress(BrokenPipeError):
        try:
            _send(sock, answer)
        except (pickle.PicklingError, TypeError, AttributeError):
            _send(sock, ("raised", EngineError(f"{type(answer[1]).__name__}: {answer[1]}")))
    sock.close()


def _done(message: Any, sock: socket.socket, lock: threading.Lock) -> Any:
    paths, module, name, args, kwargs = message
    sys.path[:] = paths
    function: Any = importlib.import_module(module)
    for part in name.split("."):
        function = getattr(function, part)

    def arg(given: Any) -> Any:
        if not isinstance(given, _Stood):
            return given
        if given.kind == "callback":

            def tell(*args: Any) -> None:
                with lock:
                    _send(sock, ("call", (given.number, args)))

            return tell
        return stack.enter_context(_stream(given))

    with contextlib.ExitStack() as stack:
        whole = [arg(given) for given in args]
        return function(*whole, **{key: arg(given) for key, given in kwargs.items()})


@contextlib.contextmanager
def _stream(given: _Stood) -> Iterator[Any]:
    os.set_inheritable(given.number, False)  # noqa: FBT003 - os's own
    with open(given.number, "rb" if given.kind == "read" else "wb") as stream:
        yield stream
