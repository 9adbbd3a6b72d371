"""The event loop of a cell's top-level ``await``, and how an interrupt reaches what it waits for."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Coroutine
    from types import FrameType


class CellLoop:
    """Runs coroutines on one event loop, made when it is first needed.

    Where the cell's own code runs, an interrupt is a KeyboardInterrupt there, as anywhere. Where the
    loop waits there is none of the cell's code to raise it in, so what the cell awaits is cancelled,
    and :meth:`interrupt_for` turns the CancelledError into a KeyboardInterrupt at the cell's
    ``await``. (asyncio.Runner cancels in both cases: a busy loop would need a second interrupt.)
    """

    def __init__(self) -> None:
        self._loop: AbstractEventLoop | None = None
        self._task: Task[Any] | None = None
        self._cancelled = False

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end, as ``asyncio.run`` but on the cell's loop."""
        import asyncio

        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        self._cancelled = False
        self._task = self._loop.create_task(coroutine)
        before = signal.getsignal(signal.SIGINT)
        ours = before is signal.default_int_handler
        if ours:
            with contextlib.suppress(ValueError):  # not the main thread
                signal.signal(signal.SIGINT, self._on_sigint)
        try:
            return self._loop.run_until_complete(self._task)
        finally:
            if ours and signal.getsignal(signal.SIGINT) == self._on_sigint:
                signal.signal(signal.SIGINT, before)

    def _on_sigint(self, signum: int, frame: FrameType | None) -> None:
        import asyncio

        idle = self._loop is None or asyncio.current_task(self._loop) is None
        if not idle or self._cancelled or self._task is None or self._loop is None:
            signal.default_int_handler(signum, frame)
        self._cancelled = True
        self._task.cancel()
        self._loop.call_soon_threadsafe(lambda: None)  # wakes the loop up

    def interrupt_for(self, error: BaseException | None) -> BaseException | None:
        """Give the KeyboardInterrupt that a CancelledError stands for; else the error itself."""
        if error is None or not self._cancelled:
            return error
        import asyncio

        if not isinstance(error, asyncio.CancelledError):
            return error
        interrupt = KeyboardInterrupt()
        interrupt.__suppress_context__ = True
        return interrupt.with_traceback(error.__traceback__)

    def close(self) -> None:
        """Cancel what still runs, as asyncio.run() does at its end."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        import asyncio

        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
