"""Several transfers at once, by a few threads; what they tell comes out in the caller's thread.

So a progress bar is drawn where it was made, and an interrupt (which Python gives to the main thread)
breaks all of it off at once.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from nscontainer.image.progress import Event, Progress
from nscontainer.image.registry.faults import StoppedError
from nscontainer.image.registry.transport import Transport

Tell = Callable[[Event], None]
Job = Callable[[Tell], None]

_JOIN_S: Final = 5.0
"""Threads that are broken off end within milliseconds; one that is still connecting, in ten seconds."""
_EVERY_S: Final = 0.05


def work(
    jobs: Iterable[Job], transport: Transport, progress: Progress | None, *, threads: int
) -> None:
    """Do all jobs, ``threads`` at a time, in order of their beginning; end with the first that fails.

    Raises
    ------
    Exception
        What a job or ``progress`` raised, or an interrupt; the other jobs are broken off then.
    """
    todo: queue.SimpleQueue[Job] = queue.SimpleQueue()
    told: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()
    left = 0
    for job in jobs:
        todo.put(job)
        left += 1
    crew = [
        threading.Thread(target=_labour, args=(todo, told, transport.stop), daemon=True)
        for _ in range(min(threads, left))
    ]
    try:
        for one in crew:
            one.start()
        while left:
            word = told.get()
            if isinstance(word, BaseException):
                raise word
            if word is None:
                left -= 1
            elif progress is not None:
                progress(word)
    except BaseException:
        transport.abort()
        raise
    finally:
        until = time.monotonic() + _JOIN_S
        for one in crew:
            if one.ident is not None:
                one.join(max(0.0, until - time.monotonic()))


def _labour(
    todo: queue.SimpleQueue[Job],
    told: queue.SimpleQueue[Event | BaseException | None],
    stop: threading.Event,
) -> None:
    while not stop.is_set():
        try:
            job = todo.get_nowait()
        except queue.Empty:
            return
        try:
            job(told.put)
        except StoppedError:
            return
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            told.put(error)
            return
        told.put(None)


class Thinned:
    """Tells of one layer's bytes, not more often than an eye can follow."""

    def __init__(self, tell: Tell, event: Event) -> None:
        self._tell = tell
        self._kind, self._layer, self._total = event.kind, event.layer, event.total_bytes
        self._next = 0.0

    def __call__(self, done_bytes: int) -> None:
        """Tell how many bytes are done, if it is time."""
        now = time.monotonic()
        if now >= self._next or done_bytes == self._total:
            self._next = now + _EVERY_S
            self._tell(Event(self._kind, self._layer, done_bytes, self._total))
