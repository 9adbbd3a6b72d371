"""The supervisor of an unconfined run: a small process that starts it, accounts it, and ends all of it.

It is what a monitor is to a container, without anything that takes privileges. Linux hands it what its
descendants orphan (PR_SET_CHILD_SUBREAPER, prctl(2)), so that it can wait for, count and kill every process
of the run, whatever sessions and groups those make. Elsewhere there is the process group only.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import Any, Final

from nscontainer.engine import wire
from nscontainer.engine.answers import failure
from nscontainer.engine.samplelog import SampleLog
from nscontainer.errors import EngineError, NsContainerError, SpecError
from nscontainer.ladder import unheld_by_a_process
from nscontainer.linux.accounts import LINUX, Accounts
from nscontainer.schema import INDEX
from nscontainer.spec import NAMESPACES, ContainerSpec
from nscontainer.unconfined import child

_USAGE: Final = INDEX["cpuacct.usage"]
_NEVER: Final = 1 << 63
_KILL_PATIENCE_S: Final = 5.0
"""How long killed processes have to go: one in an uninterruptible sleep may take a while."""


def main(fd: int) -> None:
    """Be the supervisor of one run; its first message is the request."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    inbox = wire.Inbox(socket.socket(fileno=fd))
    inbox.sock.set_inheritable(False)
    received = inbox.get()
    if received is None:
        return
    if LINUX:
        from nscontainer.linux import prctl

        prctl.set_name("nsc-supervisor")
        prctl.set_child_subreaper(True)
    supervisor = Supervisor(inbox, *received)
    try:
        supervisor.start()
        supervisor.watch()
    except NsContainerError as error:
        supervisor.kill_all()
        with contextlib.suppress(OSError):
            wire.send(inbox.sock, failure(error))
    finally:
        supervisor.kill_all()


class Supervisor:
    """One run."""

    def __init__(self, inbox: wire.Inbox, request: wire.Message, fds: list[int]) -> None:
        self.inbox = inbox
        self.request = request
        self.spec = ContainerSpec.from_dict(request["spec"])
        self.limits = self.spec.limits
        self.unheld = unheld_by_a_process(self.limits)
        self.samples_fd, *self.fds = fds
        self.accounts = Accounts()
        self.log = SampleLog(self.samples_fd, self.accounts)
        self.pid = 0
        self.status: int | None = None
        self.sync: socket.socket | None = None
        self.said = b""
        self.held: dict[str, Any] = {}
        self.exec_error: str | None = None
        self.killed_by: str | None = None
        self.timed_out: str | None = None
        self.deadline_ns = self.cpu_limit_ns = _NEVER
        self.released_unix = 0.0
        self.steal_ns = 0
        self.wake_r, wake_w = os.pipe()
        os.set_blocking(self.wake_r, False)
        os.set_blocking(wake_w, False)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)

    # --- its beginning ---------------------------------------------------------------------------

    def start(self) -> None:
        """Make the process, and let its code go.

        Raises
        ------
        SpecError
            A limit was refused, or the working directory isn't there.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        plan = child.Plan(
            argv=self.request["argv"],
            environment=self.request["environment"],
            workdir=self.spec.workdir,
            limits=self._holdable(),
            pids_besides=self._pids_besides(),
            fds=self.fds,
            sync=theirs,
            parent=os.getpid(),
        )
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            child.main(plan)
        theirs.close()
        for fd in self.fds:
            os.close(fd)
        self.sync = ours
        ready = self._hear()
        if ready is None or "ready" not in ready:
            raise _refusal(ready)
        self.held = ready["held"]
        self._release(resource.struct_rusage(ready["ready"]))
        wire.send(self.inbox.sock, {"event": "created"})

    def _holdable(self) -> Any:
        from nscontainer.ladder import without

        return without(self.limits, self.unheld)

    def _pids_besides(self) -> int:
        if self.limits.pids is None or "pids" in self.unheld:
            return 0
        from nscontainer.linux import proctree

        return proctree.tasks_of_user(os.getuid())  # this process is one; the child is one more

    def _hear(self) -> dict[str, Any] | None:
        """Wait for a line of the child; None when it has closed its end."""
        assert self.sync is not None
        while b"\n" not in self.said:
            data = self.sync.recv(65536)
            if not data:
                return None
            self.said += data
        line, _, self.said = self.said.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def _release(self, used: resource.struct_rusage) -> None:
        """Take the baseline and open the gate, with nothing between."""
        assert self.sync is not None
        self.accounts.ended.add(used, -1)  # its set-up, up to here
        self.accounts.begin()
        if LINUX:
            from nscontainer.linux import procfs

            self.steal_ns = procfs.steal_ns()
        self.released_unix = time.time()
        self.log.begin(self.spec.sample_s)
        self.sync.send(b"G")
        if self.limits.timeout_s is not None:
            self.deadline_ns = self.log.begin_ns + round(self.limits.timeout_s * 1e9)
        if self.limits.cpu_time_s is not None:
            self.cpu_limit_ns = round(self.limits.cpu_time_s * 1e9)

    # --- its life --------------------------------------------------------------------------------

    def watch(self) -> None:
        """Sample, keep the limits of time and hear the owner, until the first process has ended."""
        while self.status is None:
            watched: list[Any] = [self.wake_r, self.inbox.sock]
            if self.sync is not None:
                watched.append(self.sync)
            ready = select.select(watched, (), (), self._timeout_s())[0]
            if self.sync in ready:
                self._listen()
            if time.monotonic_ns() >= self.log.next_ns:
                self.log.take()
            self._enforce()
            if self.wake_r in ready:
                if signal.SIGTERM in os.read(self.wake_r, 4096):
                    self._kill("user")
                self._reap()
            if self.inbox.sock in ready:
                self._serve()
        self._finish()

    def _timeout_s(self) -> float:
        due = min(self.log.next_ns, self.deadline_ns)
        if self.cpu_limit_ns != _NEVER:
            due = min(due, self._cpu_check_ns())
        return max(0, due - time.monotonic_ns()) / 1e9

    def _cpu_check_ns(self) -> int:
        """When the CPU time can be used up at the earliest: all CPUs may be burning."""
        used = max(0, self.log.last[_USAGE])
        return self.log.last_ns + max((self.cpu_limit_ns - used) // (os.cpu_count() or 1), 500_000)

    def _enforce(self) -> None:
        now = time.monotonic_ns()
        if now >= self.deadline_ns:
            self.timed_out = self.timed_out or "wall"
            self._kill("timeout")
        elif self.cpu_limit_ns != _NEVER and now >= self._cpu_check_ns():
            self.log.look()
            if self.log.last[_USAGE] >= self.cpu_limit_ns:
                self.timed_out = self.timed_out or "cpu"
                self._kill("cpu-time")

    def _listen(self) -> None:
        """Take why the program couldn't be executed; nothing, when it was: Linux has closed that end."""
        with contextlib.suppress(OSError):
            message = self._hear()
            if message is not None:
                self.exec_error = str(message.get("exec_error"))
                return
        assert self.sync is not None
        self.accounts.executed = True
        self.sync.close()
        self.sync = None

    def _serve(self) -> None:
        self.inbox.fill(wait=False)
        while (received := self.inbox.pop()) is not None:
            number = int(received[0]["signal"])
            if number == signal.SIGKILL:
                self._kill(str(received[0].get("by", "user")))
            else:
                send = os.killpg if received[0].get("group") else os.kill
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    send(self.pid, number)
        if self.inbox.closed:  # the owner is gone
            self._kill("owner")

    # --- its end ---------------------------------------------------------------------------------

    def _kill(self, by: str) -> None:
        self.killed_by = self.killed_by or by
        self.deadline_ns = self.cpu_limit_ns = _NEVER
        self.kill_all()

    def _reap(self) -> bool:
        """Wait for what has ended; False when there is no child left."""
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.accounts.ended.add(used)
            if pid == self.pid:
                self.status = status

    def kill_all(self) -> None:
        """Kill every process of the run, and wait until none is left; those made meanwhile too."""
        until = time.monotonic() + _KILL_PATIENCE_S
        while self.pid and time.monotonic() < until:
            # macOS says EPERM of a group in which nothing but a zombie is.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            for pid in self._descendants():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if not self._reap():
                return
            time.sleep(0.001)

    def _descendants(self) -> list[int]:
        if not self.accounts.sees_living:
            return []
        from nscontainer.linux import proctree

        return list(proctree.descendants(os.getpid()))

    def _finish(self) -> None:
        """Kill what the first process left behind, take the final reading, tell the owner."""
        ended_ns = time.monotonic_ns()
        if self.sync is not None:
            self._listen()
        self.kill_all()
        self.accounts.over = True
        final = self.log.end(ended_ns)
        with contextlib.suppress(OSError):
            wire.send(self.inbox.sock, {"event": "exit", "record": self._record(ended_ns, final)})

    def _record(self, ended_ns: int, final: list[int]) -> dict[str, Any]:
        code = os.waitstatus_to_exitcode(self.status or 0)
        number = -code if code < 0 else None
        timed_out, killed_by = self.timed_out, self.killed_by
        limit_s = self.limits.cpu_time_s
        if killed_by is None and limit_s is not None and number == signal.SIGKILL:
            used_up = final[_USAGE] >= limit_s * 1e9  # then RLIMIT_CPU was there first
            timed_out, killed_by = ("cpu", "cpu-time") if used_up else (None, None)
        return {
            "id": self.request["id"],
            "name": self.request["id"],
            "image": self.spec.image,
            "on_host": True,
            "spec": self.request["spec"],
            "start_mode": "unconfined",
            "pooled": False,
            "created_unix": self.request["created_unix"],
            "released_unix": self.released_unix,
            "released_ns": self.log.begin_ns,
            "boot_id": _boot_id(),
            "exit_code": code if number is None else 128 + number,
            "signal": number,
            "exec_error": self.exec_error,
            "oom_killed": False,
            "timed_out": timed_out,
            "killed_by": killed_by,
            "interrupted": 0,
            "wall_ns": ended_ns - self.log.begin_ns,
            "baseline": self.log.baseline,
            "final": final,
            "limits_asked": self.limits.to_dict(),
            "limits_read_back": self.held,
            "limit_changes": [],
            "unheld": self.unheld,
            "isolation": _isolation(),
            "steal_ns": _steal_ns(self.steal_ns),
            "host_cpus": os.cpu_count() or 1,
            "stages": [],
            "setup_ns": self.log.begin_ns - int(self.request["asked_ns"]),
            "missed_samples": self.log.missed,
            "sample_s": self.spec.sample_s,
        }


def _isolation() -> dict[str, Any]:
    return {
        "unconfined": True,
        "namespaces": dict.fromkeys(NAMESPACES, "host") if LINUX else {},
        "rootfs": "the host's own",
        "network": "host",
        "seccomp": "none",
        "no_new_privs": LINUX,
    }


def _refusal(answer: dict[str, Any] | None) -> NsContainerError:
    if answer is None:
        return EngineError("the process died during its set-up")
    message = f"the process can't be set up: {answer['text']}"
    return SpecError(message, hint="see its --workdir, --memory, --cpuset-cpus and --ulimit")


def _boot_id() -> str | None:
    if not LINUX:
        return None
    from nscontainer.linux import procfs

    with contextlib.suppress(OSError):
        return procfs.boot_id()
    return None


def _steal_ns(before: int) -> int | None:
    if not LINUX:
        return None
    from nscontainer.linux import procfs

    return procfs.steal_ns() - before


if __name__ == "__main__":
    main(int(sys.argv[1]))
