"""The user's process, from its fork to its code: session, limits, streams, and then execve(2)."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import resource
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from nscontainer.limits import Limits
from nscontainer.linux.accounts import LINUX

CHANNEL_FD: Final = 3
_ASIDE: Final = 10
"""Descriptors are moved up to here first: none of the places 0 to 3 may be another's source."""
_CPU_TIME_SPARE_S: Final = 1


@dataclass(slots=True, kw_only=True)
class Plan:
    """What the process becomes."""

    argv: list[str]
    environment: dict[str, str]
    workdir: str | None
    limits: Limits
    pids_besides: int
    """How many tasks its user has already, with which RLIMIT_NPROC counts its own."""
    fds: list[int]
    """Standard input, output and error, and a cell's channel."""
    sync: socket.socket
    parent: int


def main(plan: Plan) -> NoReturn:
    """Be that process; it never returns."""
    code = 125
    try:
        code = _become(plan)
    except OSError as error:
        where = f" {error.filename}" if error.filename is not None else ""
        _say(plan.sync, {"text": f"{error.strerror or error}{where}"})
    except BaseException as error:  # noqa: BLE001 - a forked copy must not go on as supervisor
        _say(plan.sync, {"text": f"{type(error).__name__}: {error}"})
    os._exit(code)


def _become(plan: Plan) -> int:
    os.setsid()  # a terminal's Ctrl-C is its owner's to pass on
    _reset_signals()
    if LINUX:
        from nscontainer.linux import prctl

        prctl.set_pdeathsig(signal.SIGKILL)
        if os.getppid() != plan.parent:
            return 137
        prctl.set_no_new_privs()  # nothing of it may become another user's, whom we couldn't kill
    _place_fds(plan.fds)
    if plan.workdir is not None:
        os.chdir(plan.workdir)
    held = hold(plan.limits, plan.pids_besides)
    used = resource.getrusage(resource.RUSAGE_SELF)
    _say(plan.sync, {"ready": list(used), "held": held})
    if plan.sync.recv(1) != b"G":
        return 137
    refused, code = execute(plan.argv, plan.environment)
    _say(plan.sync, {"exec_error": refused})
    return code


def _say(sync: socket.socket, message: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):
        sync.sendall(json.dumps(message).encode() + b"\n")


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _place_fds(fds: list[int]) -> None:
    aside = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ASIDE) for fd in fds]
    for place, fd in enumerate(aside):
        os.dup2(fd, place)


# --- limits ----------------------------------------------------------------------------------


def hold(limits: Limits, pids_besides: int) -> dict[str, Any]:
    """Set what holds a process and all that it starts; give what was then read back.

    Raises
    ------
    OSError
        The system refused.
    """
    held: dict[str, Any] = {}
    if limits.memory_bytes is not None and limits.memory_bytes >= 0:
        # Not RLIMIT_AS: what a process only reserves (thread stacks, a GPU's window) counts there.
        held["memory_bytes"] = _lower(resource.RLIMIT_DATA, limits.memory_bytes)
    if limits.pids is not None and limits.pids >= 0:
        most = _lower(resource.RLIMIT_NPROC, limits.pids + pids_besides)
        held["pids"] = most - pids_besides
    if limits.cpuset_cpus is not None:
        os.sched_setaffinity(0, _cpus(limits.cpuset_cpus))
        held["cpuset_cpus"] = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    for ulimit in limits.ulimits:
        _apply(ulimit.name, ulimit.soft, ulimit.hard)
    if limits.cpu_time_s is not None:
        # Should nobody be left to watch it: the supervisor is there first, and counts all processes.
        _lower(resource.RLIMIT_CPU, math.ceil(limits.cpu_time_s) + _CPU_TIME_SPARE_S)
    return held


def _lower(what: int, most: int) -> int:
    """Set a limit, hard and soft, unless a hard one is lower already; give what holds."""
    hard = resource.getrlimit(what)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(what, (most, most))
    return resource.getrlimit(what)[0]


def _apply(name: str, soft: int, hard: int) -> None:
    if LINUX:
        from nscontainer.linux import rlimits

        rlimits.apply(name, soft, hard)
        return
    number = getattr(resource, f"RLIMIT_{name.upper()}", None)
    if number is None:
        raise OSError(0, f"this system has no ulimit {name}")
    limit = [resource.RLIM_INFINITY if value == -1 else value for value in (soft, hard)]
    resource.setrlimit(number, (limit[0], limit[1]))


def _cpus(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        low, _, high = part.partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return found


# --- its code --------------------------------------------------------------------------------


def execute(argv: list[str], environment: dict[str, str]) -> tuple[str, int]:
    """Become a program, found in the environment's PATH; where it can't, say why, and Docker's exit code."""
    name = argv[0]
    path = environment.get("PATH", os.defpath)
    candidates = [name] if "/" in name else [f"{d or '.'}/{name}" for d in path.split(":")]
    refused: OSError | None = None
    for candidate in candidates:
        try:
            os.execve(candidate, argv, environment)  # noqa: S606 - what this process is for
        except (FileNotFoundError, NotADirectoryError) as error:
            if "/" in name and os.path.lexists(candidate):
                refused = error
        except OSError as error:
            refused = error
    if refused is None:
        return f"command {name!r} not found", 127
    reason = refused.strerror
    if isinstance(refused, FileNotFoundError):
        reason = "its interpreter is not there"
    return f"command {name!r} can't be executed: {reason}", 126
