"""Trying a thing for real in a child process, so that nothing of it is left in this one."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from collections.abc import Callable
from typing import Any, Final, NoReturn

from nscontainer.linux import clone, prctl

TIMEOUT_S: Final = 10.0
"""A trial that takes longer has failed; a namespace takes a few milliseconds, on a busy machine many."""


class TrialError(OSError):
    """A trial's failure, brought home from the child: the operation, and the kernel's answer."""

    def __init__(self, errno: int, op: str, text: str) -> None:
        super().__init__(errno, text)
        self.op = op

    def __str__(self) -> str:
        """Say it as ``mount: Operation not permitted``."""
        return f"{self.op}: {self.strerror}" if self.op else str(self.strerror)


IdMaps = tuple[str, str]
"""What to write to uid_map and gid_map."""


def own_id_maps() -> IdMaps:
    """Map root inside to the caller alone: all that an ordinary user may write."""
    return f"0 {os.geteuid()} 1\n", f"0 {os.getegid()} 1\n"


def run(
    work: Callable[[], Any],
    *,
    flags: int = 0,
    maps: IdMaps | None = None,
    timeout_s: float | None = None,
) -> Any:
    """Clone a child into new namespaces, run ``work`` there and give what it returned.

    Parameters
    ----------
    work
        Returns plain JSON types.
    flags
        ``CLONE_NEW…``.
    maps
        Written to the child's uid_map and gid_map before ``work`` begins.
    timeout_s
        A trial that takes longer has failed; by default :data:`TIMEOUT_S`.

    Raises
    ------
    TrialError
        The clone, the maps or the work failed, or took too long.
    """
    result_r, result_w = os.pipe()
    gate_r, gate_w = os.pipe()
    try:
        pid, pidfd = clone.clone3(flags, exit_signal=signal.SIGCHLD)
    except OSError as error:
        for fd in (result_r, result_w, gate_r, gate_w):
            os.close(fd)
        raise _brought_home(error) from None
    if pid == 0:
        os.close(gate_w)
        _child(work, gate_r, result_w)
    os.close(result_w)
    os.close(gate_r)
    try:
        try:
            if maps is not None:
                _write_maps(pid, maps)
        except OSError as error:
            raise _brought_home(error) from None
        os.write(gate_w, b"G")
        return _result(result_r, TIMEOUT_S if timeout_s is None else timeout_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitpid(pid, 0)
        for fd in (gate_w, result_r, pidfd):
            os.close(fd)


def _child(work: Callable[[], Any], gate: int, result: int) -> NoReturn:
    answer: dict[str, Any]
    try:
        prctl.set_pdeathsig(signal.SIGKILL)
        if os.read(gate, 1) != b"G":
            os._exit(1)
        answer = {"value": work()}
    except OSError as error:
        answer = {
            "errno": error.errno or 0,
            "op": getattr(error, "op", ""),
            "text": _text(error),
        }
    except BaseException as error:  # noqa: BLE001 - this process must never return
        answer = {"errno": 0, "op": type(error).__name__, "text": str(error)}
    with contextlib.suppress(BaseException):
        os.write(result, json.dumps(answer).encode())
    os._exit(0)


def _write_maps(pid: int, maps: IdMaps) -> None:
    uid_map, gid_map = maps
    if os.geteuid() != 0:  # user_namespaces(7): gid_map only after setgroups is given up
        _write(f"/proc/{pid}/setgroups", "deny")
    _write(f"/proc/{pid}/uid_map", uid_map)
    _write(f"/proc/{pid}/gid_map", gid_map)


def _write(path: str, text: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        what = os.path.basename(path)
        raise TrialError(error.errno or 0, f"write {what}", os.strerror(error.errno or 0)) from None


def _result(fd: int, timeout_s: float) -> Any:
    data = b""
    while select.select([fd], [], [], timeout_s)[0]:
        part = os.read(fd, 65536)
        if not part:
            break
        data += part
        with contextlib.suppress(ValueError):
            answer = json.loads(data)
            if "value" in answer:
                return answer["value"]
            raise TrialError(answer["errno"], answer["op"], answer["text"])
    raise TrialError(0, "", "the trial was killed" if not data else "the trial didn't end")


def _text(error: OSError) -> str:
    text = error.strerror or str(error)
    return f"{text} ({error.filename})" if error.filename else text


def _brought_home(error: OSError) -> TrialError:
    if isinstance(error, TrialError):
        return error
    return TrialError(error.errno or 0, getattr(error, "op", ""), _text(error))
