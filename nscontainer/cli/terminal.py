"""Our terminal lent to the container's: raw keys in, its window size along."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import termios
import threading
import tty
from collections.abc import Iterator


@contextlib.contextmanager
def session(tty_fd: int, *, interactive: bool) -> Iterator[None]:
    """Join our terminal and the container's for as long as it runs.

    Parameters
    ----------
    tty_fd
        The master side of the container's terminal.
    interactive
        Hand our keys on. Ctrl-C is then a key like others: the container's terminal makes a SIGINT
        of it, as ours would have.
    """
    master = os.dup(tty_fd)  # ours to the end: the engine closes its own when the container ends
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, master)
        stack.enter_context(_window_size(master))
        if interactive:
            stack.enter_context(_raw(0))
            stack.enter_context(_keys(0, master))
        yield


@contextlib.contextmanager
def _window_size(master: int) -> Iterator[None]:
    def copy(*_: object) -> None:
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(1)
            fcntl.ioctl(
                master, termios.TIOCSWINSZ, struct.pack("4H", size.lines, size.columns, 0, 0)
            )

    copy()
    before = signal.signal(signal.SIGWINCH, copy)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


@contextlib.contextmanager
def _raw(fd: int) -> Iterator[None]:
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _keys(source: int, master: int) -> Iterator[None]:
    """Copy what is typed, in a thread: the main one relays the output."""
    stop_r, stop_w = os.pipe()
    thread = threading.Thread(target=_copy, args=(source, master, stop_r), daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.close(stop_w)
        thread.join()
        os.close(stop_r)


def _copy(source: int, master: int, stop: int) -> None:
    poll = select.poll()
    poll.register(source, select.POLLIN)
    poll.register(stop, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if stop in ready:
            return
        try:
            data = os.read(source, 4096)
            if not data:
                return
            while data:
                data = data[os.write(master, data) :]
        except OSError:  # the container's terminal is gone, or ours
            return
