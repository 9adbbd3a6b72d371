"""What makes a process, forked from one that many cells share, a cell's own; and how it ends."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from . import frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from .awaiting import CellLoop

_DEFAULT = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD, signal.SIGALRM)


def set_signals() -> None:
    """Have SIGINT raise KeyboardInterrupt and the others their defaults, whatever was inherited.

    (Of a process that ignores SIGCHLD, children leave no exit code: wait(2).) Linux drops signals to pid 1
    of a PID namespace that it has no handler for (pid_namespaces(7)), so the container's monitor
    acts for it; a handler here would be worse: a signal to a child of the cell between its fork and
    its clean-up of handlers would be lost.
    """
    for number in _DEFAULT:
        if signal.getsignal(number) is not signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


def _new_authkey(processes: Any) -> None:
    processes.current_process().authkey = os.urandom(32)


_RENEW: dict[str, Callable[[Any], None]] = {
    "random": lambda module: module.seed(),
    "numpy.random": lambda module: module.seed(),
    "tempfile": lambda module: setattr(module, "_name_sequence", None),
    "uuid": lambda module: setattr(module, "_last_timestamp", None),
    "multiprocessing.process": _new_authkey,
}
"""What in these modules two forks mustn't share, where they are loaded."""


def make_own() -> None:
    """Renew what two forks of one process mustn't share: random states, keys, cached ids.

    The fork is a bare clone3(2), so Python's own after-fork hooks may not have run.
    """
    for name, renew in _RENEW.items():
        module: Any = sys.modules.get(name)
        if module is not None:
            renew(module)
    main = threading.main_thread()
    if hasattr(main, "_set_native_id"):
        main._set_native_id()  # noqa: SLF001
    sys.argv[:] = [""]


def leave(namespace: dict[str, Any], loop: CellLoop) -> None:
    """Do what the interpreter does at the end of a script.

    Waits for threads that aren't daemons, runs the atexit handlers, lets go of the variables (so
    that files are written and ``__del__`` methods run).
    """
    loop.close()
    _join_threads()
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()  # noqa: SLF001
    frames.forget_last()
    namespace.clear()
    gc.collect()


def _join_threads() -> None:
    """Wait for the threads, where an interrupt can be told of.

    ``threading._shutdown()`` alone prints it and goes on (Python >= 3.13). The functions registered
    with threading, which end thread pools' workers, must run first.
    """
    for function in reversed(getattr(threading, "_threading_atexits", [])):
        function()
    ours = (threading.current_thread(), threading.main_thread())
    while waited_for := [t for t in threading.enumerate() if t not in ours and not t.daemon]:
        waited_for[0].join()
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001


def failed(error: BaseException | None) -> bool:
    """Tell whether a cell that ended with this exception failed."""
    return error is not None and not (isinstance(error, SystemExit) and error.code in (None, 0))


def exit_code(error: BaseException | None) -> int:
    """Give the exit code of a cell that ended with this exception: as a script's."""
    if error is None:
        return 0
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    if isinstance(error, SystemExit):
        if error.code is None:
            return 0
        if isinstance(error.code, int):
            return error.code & 0xFF
        print(error.code, file=sys.stderr)
    return 1
