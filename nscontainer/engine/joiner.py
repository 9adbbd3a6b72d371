"""``exec``: another process in a running container, by setns(2).

The monitor forks a *joiner*, which enters the container's namespaces and forks the process proper
(only a child is born into a joined pid namespace). That one waits until the monitor has put it into
the container's cgroup, so that the limits hold it from its first instruction. The joiner stays as its
parent and hands the exit status over.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

from nscontainer.engine import init, users, wire
from nscontainer.engine.usercode import execute
from nscontainer.errors import CommandError, NsContainerError
from nscontainer.linux import caps, clone, prctl, rlimits, seccomp
from nscontainer.linux.syscalls import close_range

if TYPE_CHECKING:
    from nscontainer.engine.birth import Birth

JOINED: Final = ("user", "mnt", "uts", "ipc", "net", "pid", "cgroup", "time")


@dataclass(frozen=True, slots=True)
class _Joined:
    """One executed process: its joiner, the line to it, and who asked."""

    joiner_pid: int
    line: socket.socket
    client: socket.socket
    seq: object


class Joiners:
    """The processes executed in one container, besides its first."""

    def __init__(self, birth: Birth) -> None:
        self._birth = birth
        self._running: dict[int, _Joined] = {}

    def filenos(self) -> list[int]:
        """Give the fds to watch: each is readable when its process has something to tell."""
        return list(self._running)

    def start(self, message: wire.Message, fds: list[int], client: socket.socket) -> None:
        """Execute a command in the container; the answers go to the client as events."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            ours.close()
            _joiner(self._birth, message, fds, theirs)
        theirs.close()
        self._running[ours.fileno()] = _Joined(pid, ours, client, message.get("seq"))

    def serve(self, fileno: int) -> None:
        """Take what one process tells: that it was born, could not be, or has ended."""
        joined = self._running[fileno]
        try:
            data = joined.line.recv(65536)
        except ConnectionResetError:
            data = b""
        told: dict[str, Any] = json.loads(data) if data else {"exit_code": 137, "signal": 9}
        if "born" in told:
            try:
                self._birth.cgroup.add(int(told["born"]))
                joined.line.send(b"G")
            except (OSError, NsContainerError) as error:
                self._end(fileno, {"exit_code": 126, "exec_error": str(error)})
            return
        self._end(fileno, told)

    def _end(self, fileno: int, told: dict[str, Any]) -> None:
        joined = self._running.pop(fileno)
        joined.line.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(joined.joiner_pid, 0)
        with contextlib.suppress(OSError):
            wire.send(joined.client, {"reply": joined.seq, "event": "exec-exit", **told})

    def forget(self, client: socket.socket) -> None:
        """Kill what a client that has gone had executed."""
        for fileno, joined in list(self._running.items()):
            if joined.client is client:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(joined.joiner_pid, signal.SIGKILL)
                self._running.pop(fileno)
                joined.line.close()
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(joined.joiner_pid, 0)

    def finish(self) -> None:
        """Collect every joiner: the container's end has killed their processes."""
        for fileno in list(self._running):
            while fileno in self._running:
                self.serve(fileno)


def _joiner(birth: Birth, message: wire.Message, fds: list[int], line: socket.socket) -> NoReturn:
    code = 126
    try:
        # CVE-2016-9962, CVE-2019-5736: nothing in the container may look into this process or open
        # its /proc/self/exe while it still has the host's program and fds.
        prctl.set_dumpable(False)
        signal.set_wakeup_fd(-1)
        init.default_signals()
        environment = {**birth.environment, **message.get("env", {})}
        environment.pop("NSCONTAINER_PYTHON", None)
        flags = 0
        for name in JOINED:
            if birth.namespaces[name] not in ("host", "unavailable"):  # "net" may be another's
                flags |= clone.FLAGS[name]
        keep = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in (*fds[:3], line.detach())]
        clone.setns(birth.pidfd, flags)
        if birth.request.mapped:
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        for place, fd in enumerate(keep):
            os.dup2(fd, place, inheritable=place < 3)
        close_range(len(keep))
        line = socket.socket(fileno=3)
        child = os.fork()
        if child == 0:
            _joined_process(birth, message, environment, line)
        line.send(json.dumps({"born": child}).encode())
        _, status = os.waitpid(child, 0)
        result = os.waitstatus_to_exitcode(status)
        told: dict[str, int] = {"exit_code": result if result >= 0 else 128 - result}
        if result < 0:
            told["signal"] = -result
        line.send(json.dumps(told).encode())
        code = 0
    except BaseException as error:  # noqa: BLE001 - this process must never return
        text = json.dumps({"exit_code": 126, "exec_error": str(error)})
        with contextlib.suppress(OSError):
            line.send(text.encode())
    os._exit(code)


def _joined_process(
    birth: Birth, message: wire.Message, environment: dict[str, str], line: socket.socket
) -> NoReturn:
    code = 126
    try:
        os.setsid()
        prctl.set_pdeathsig(signal.SIGKILL)
        if line.recv(1) != b"G":
            os._exit(125)
        spec = birth.spec
        account = users.resolve(message.get("user") or spec.user)
        environment.setdefault("HOME", account.home)
        os.chdir(message.get("workdir") or spec.workdir or "/")
        for limit in spec.limits.ulimits:
            rlimits.apply(limit.name, limit.soft, limit.hard)
        capabilities = caps.numbers(caps.parse_caps(spec.cap_add, spec.cap_drop))
        init.become(account, capabilities)
        if birth.request.seccomp_program is not None:
            seccomp.install(birth.request.seccomp_program)
        close_range(4)
        execute(list(message["command"]), environment)
    except CommandError as error:
        code = error.exit_code
        os.write(2, f"nscontainer: {error.message}\n".encode())
    except BaseException as error:  # noqa: BLE001 - this process must never return
        os.write(2, f"nscontainer: exec: {error}\n".encode())
    os._exit(code)
