"""Which CPUs a run has for itself: whole cores, and never two runs on one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from nscontainer.errors import HostError, SpecError

_POLL_S: Final = 0.05
WAITING: Final = "waiting for another sweep"


def cores(allowed: Iterable[int] | None = None, sys: str = "/sys") -> list[tuple[int, ...]]:
    """Give the cores that this process may use, each as its CPUs: SMT siblings stand together.

    A core of which it may use one sibling only is that one.
    """
    mine = set(os.sched_getaffinity(0) if allowed is None else allowed)
    found = set()
    for cpu in mine:
        path = f"{sys}/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        try:
            with open(path, encoding="ascii") as file:
                siblings = parse(file.read())
        except OSError:  # no such file in some containers: a core each
            siblings = (cpu,)
        found.add(tuple(sorted(mine & {cpu, *siblings})))
    return sorted(found)


def slots(count: int, of: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Share cores out among ``count`` runs at once: as many whole cores each, the rest stay idle.

    Raises
    ------
    SpecError
        There are fewer cores than that.
    """
    if count > len(of):
        are = "is 1 core" if len(of) == 1 else f"are {len(of)} cores"
        message = f"parallel {count} wants a core for each run, and there {are}"
        raise SpecError(message, hint=f"parallel {len(of)} at most")
    each = len(of) // count
    return [
        tuple(sorted(cpu for core in of[i * each : (i + 1) * each] for cpu in core))
        for i in range(count)
    ]


def parse(text: str) -> tuple[int, ...]:
    """Read Linux's lists: ``0-1,4`` is 0, 1 and 4."""
    found: list[int] = []
    for part in text.strip().split(","):
        low, _, high = part.partition("-")
        found.extend(range(int(low), int(high or low) + 1))
    return tuple(found)


def written(cpus: Sequence[int]) -> str:
    """Write CPUs as ``cpuset_cpus`` takes them: ``0-1,4``."""
    parts: list[list[int]] = []
    for cpu in sorted(cpus):
        if parts and cpu == parts[-1][-1] + 1:
            parts[-1].append(cpu)
        else:
            parts.append([cpu])
    return ",".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


@contextlib.contextmanager
def held(
    directory: str, cpus: Iterable[int], on_wait: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold CPUs against all other sweeps on this machine that know of ``directory``.

    They are taken in ascending order, so that two who want some of the same can't wait for each other.
    Linux lets go of them when their holder dies.

    Parameters
    ----------
    on_wait
        Called again and again while another has one of them.

    Raises
    ------
    HostError
        The locks can't be made there.
    """
    taken: list[int] = []
    try:
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            for cpu in sorted(set(cpus)):
                path = f"{directory}/experiment-cpu{cpu}.lock"
                taken.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
                _wait(taken[-1], on_wait)
        except OSError as error:
            message = f"the CPUs can't be locked in {directory}: {error.strerror}"
            raise HostError(message, hint="share_cpus=True goes without") from None
        yield
    finally:
        for fd in taken:
            os.close(fd)


def _wait(fd: int, on_wait: Callable[[], None] | None) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is not None:
                on_wait()
            time.sleep(_POLL_S)
        else:
            return
