"""The helper's side: root of the user's own user namespace, for one call."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

from nscontainer import inside
from nscontainer.errors import EngineError, NsContainerError
from nscontainer.inside.messages import Receiving, Stood, send
from nscontainer.linux import prctl, userns


def main(fd: int) -> None:
    """Be the helper: enter the user namespace, do what is asked, answer, end."""
    inside.is_helper = True
    sock = socket.socket(fileno=fd)
    os.set_inheritable(fd, False)  # noqa: FBT003 - os's own
    owner = os.getppid()
    with contextlib.suppress(NsContainerError, OSError):
        # Without a namespace it goes on as the user it is: then all files are the user's own.
        userns.enter()
    prctl.prctl(prctl.PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of ids, which clears it
    if os.getppid() != owner:
        return
    message = Receiving(sock).all()
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
            send(sock, answer)
        except (pickle.PicklingError, TypeError, AttributeError):
            send(sock, ("raised", EngineError(f"{type(answer[1]).__name__}: {answer[1]}")))
    sock.close()


def _done(message: Any, sock: socket.socket, lock: threading.Lock) -> Any:
    paths, module, name, args, kwargs = message
    sys.path[:] = paths
    function: Any = importlib.import_module(module)
    for part in name.split("."):
        function = getattr(function, part)

    def arg(given: Any) -> Any:
        if not isinstance(given, Stood):
            return given
        if given.kind == "callback":

            def tell(*args: Any) -> None:
                with lock:
                    send(sock, ("call", (given.number, args)))

            return tell
        return stack.enter_context(_stream(given))

    with contextlib.ExitStack() as stack:
        whole = [arg(given) for given in args]
        return function(*whole, **{key: arg(given) for key, given in kwargs.items()})


@contextlib.contextmanager
def _stream(given: Stood) -> Iterator[Any]:
    os.set_inheritable(given.number, False)  # noqa: FBT003 - os's own
    with open(given.number, "rb" if given.kind == "read" else "wb") as stream:
        yield stream
