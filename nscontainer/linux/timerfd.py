"""Timers that are file descriptors: timerfd_create(2). Python has them from 3.13 on."""

from __future__ import annotations

import ctypes
import os
import time
from typing import Final

from nscontainer.linux.syscalls import check, libc

TFD_NONBLOCK: Final = os.O_NONBLOCK
TFD_CLOEXEC: Final = os.O_CLOEXEC


class _ITimerSpec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


def timerfd_create() -> int:
    """Make a timer of the monotonic clock, not armed; readable once it has expired."""
    flags = TFD_NONBLOCK | TFD_CLOEXEC
    return check(libc.timerfd_create(time.CLOCK_MONOTONIC, flags), "timerfd_create")


def timerfd_settime(fd: int, every_ns: int) -> None:
    """Have it expire again and again after so many nanoseconds; 0 stops it."""
    seconds, nanoseconds = divmod(every_ns, 1_000_000_000)
    spec = _ITimerSpec(seconds, nanoseconds, seconds, nanoseconds)
    check(libc.timerfd_settime(fd, 0, ctypes.byref(spec), None), "timerfd_settime")
