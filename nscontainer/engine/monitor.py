"""The monitor: one process a container, outside it, that owns, samples and removes it.

It is what conmon or a containerd shim is, and the only process that knows the container's whole life:
it makes the cgroups and the root, clones the first process, lets it go, reads the accounts, answers
its owner and other clients, and removes everything at the end. When its owner vanishes it kills and
removes a foreground container; a detached one lives on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from dataclasses import replace
from typing import Any

from nscontainer.engine import diskrate, rootfs, wire
from nscontainer.engine.answers import failure
from nscontainer.engine.birth import Birth, InitDiedError
from nscontainer.engine.joiner import Joiners
from nscontainer.engine.request import Request
from nscontainer.engine.sessionhost import SessionHost
from nscontainer.engine.standby import StandBy
from nscontainer.errors import NsContainerError, SpecError, StateError
from nscontainer.ladder import NETWORK, asked
from nscontainer.linux import prctl, procfs
from nscontainer.schema import COLUMNS, INDEX, NA
from nscontainer.spec import PERIOD_US, check_id
from nscontainer.spec import limits as make_limits

_USAGE = INDEX["cpuacct.usage"]
_OOM_KILL = INDEX["memory.oom_kill"]
_PIDS, _PIDS_PEAK = INDEX["pids.current"], INDEX["pids.peak"]
_NEVER = 1 << 63
MOST_AHEAD_S = 1.0
"""How long a start may be put off: a monitor that waits hears nothing."""
INTERRUPT_GRACE_S = 0.1
"""How long a first process without a handler has to end after a signal before it is killed."""


def get_ready() -> None:
    """Do all that a monitor can do before it knows which container it is for."""
    prctl.set_name("nsc-monitor")
    prctl.prctl(prctl.PR_SET_TIMERSLACK, 1)  # wake on the beat, not up to 50 µs late
    os.setsid()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    procfs.boot_id()  # kept: every record has it
    rootfs.enter_private_namespace()


def main(request: Request, standby: StandBy | None) -> None:
    """Be the monitor of one container, from request to removal."""
    inbox = wire.Inbox(request.control)
    with contextlib.ExitStack() if standby is None else standby.cleanup as cleanup:
        birth = Birth(request, cleanup) if standby is None else standby.birth
        try:
            if standby is None:
                birth.run()
            else:
                birth.adopt(request)
        except NsContainerError as error:
            cleanup.close()
            if standby is None or not isinstance(error, InitDiedError):
                _send(request.control, failure(error))
            return  # one that died while it stood by is no answer: the owner asks again
        Monitor(birth, inbox, cleanup).run()


def _send(sock: socket.socket, message: wire.Message, fds: tuple[int, ...] = ()) -> bool:
    try:
        wire.send(sock, message, fds)
    except OSError:
        return False
    return True


class Monitor:
    """The life of one container after its birth."""

    def __init__(self, birth: Birth, inbox: wire.Inbox, cleanup: contextlib.ExitStack) -> None:
        self.birth = birth
        self.request = birth.request
        self.spec = birth.spec
        self.controls = birth.controls
        self.cgroup = birth.cgroup
        self.cleanup = cleanup
        self.owner: wire.Inbox | None = inbox
        self.clients: dict[int, wire.Inbox] = {}
        self.waiting: list[socket.socket] = []
        self.holders: list[socket.socket] = []
        """Who has it frozen while looking at its files."""
        self.joiners = Joiners(birth)
        self.log = birth.log
        self.status = "created"
        self.released_unix = 0.0
        self.baseline: list[int] = []
        self.deadline_ns: int | None = None
        self.cpu_limit_ns: int | None = None
        self.kill_at_ns: int | None = None
        self.exit_as: int | None = None
        self.killed_by: str | None = None
        self.timed_out: str | None = None
        self.exec_error: dict[str, Any] | None = None
        self.changes: list[dict[str, Any]] = []
        self.asked = self.spec.limits
        self.steal_at_release = 0
        self.read_back: dict[str, Any] | None = None
        self.parents_quota: float | None = None
        self.session = SessionHost(self) if self.spec.session else None
        self.wake_r, wake_w = os.pipe()
        os.set_blocking(wake_w, False)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)

    # --- the loop ----------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the container has ended, then remove it."""
        fds = (self.birth.samples_fd, *((self.birth.tty,) if self.birth.tty is not None else ()))
        try:
            if self.request.start:
                self._start()
        except NsContainerError as error:
            self._push(failure(error))
            self._kill(None)
        else:
            made = {"id": self.request.id, "name": self.request.name}
            self._push({"event": "created", **made, "stages": self.birth.stage.times}, fds)
        while not self._ended():
            for source in self._next_events():
                self._serve(source)
        self._finish()

    def _watched(self) -> list[int]:
        watched = [self.birth.pidfd, self.wake_r, self.birth.listener.fileno(), *self.clients]
        if self.owner is not None:
            watched.append(self.owner.sock.fileno())
            if self.request.owner_pidfd is not None and not self.request.detach:
                watched.append(self.request.owner_pidfd)
        if self.birth.sync is not None:
            watched.append(self.birth.sync.fileno())
        if self.session is not None:
            watched += self.session.filenos()
        if self.birth.net.resolver is not None:
            watched.append(self.birth.net.resolver.fileno())
        return watched + self.joiners.filenos()

    def _ended(self) -> bool:
        return self.birth.wait_status is not None

    def _next_events(self) -> list[int]:
        """Sample and keep the limits of time until something else is to be done.

        The way of every sample: what it costs, a CPU is without for as long as the container runs.
        """
        watched, log = self._watched(), self.log
        while True:  # by select(2): it alone waits to the microsecond
            ready = select.select(watched, (), (), self._timeout_s())[0]
            if self.status == "running" and time.monotonic_ns() >= log.next_ns:
                log.take()
            self._enforce()
            if ready:
                return ready
            if self.session is not None:
                watched = self._watched()  # it may read again what it had enough of

    def _timeout_s(self) -> float | None:
        due = self.log.next_ns if self.status == "running" else _NEVER
        if self.deadline_ns is not None:
            due = min(due, self.deadline_ns)  # a pause doesn't stop the clock on the wall
        if self.kill_at_ns is not None:
            due = min(due, self.kill_at_ns)
        if self.cpu_limit_ns is not None and self.status == "running":
            due = min(due, self._cpu_check_ns())
        return None if due == _NEVER else max(0, due - time.monotonic_ns()) / 1e9

    def _serve(self, source: int) -> None:
        if source == self.birth.pidfd:
            self.birth.reap()
        elif source == self.request.owner_pidfd:
            self._owner_gone()
        elif self.owner is not None and source == self.owner.sock.fileno():
            self._read(self.owner)
            if self.owner.closed:
                self._owner_gone()
        elif source == self.birth.listener.fileno():
            client = wire.Inbox(self.birth.listener.accept()[0])
            client.sock.setblocking(False)  # noqa: FBT003 - socket's own signature
            self.clients[client.sock.fileno()] = client
        elif source == self.wake_r:
            if signal.SIGTERM in os.read(self.wake_r, 64):
                self._kill("user")
        elif self.birth.sync is not None and source == self.birth.sync.fileno():
            self._read_init()
        elif source in self.clients:
            self._serve_client(self.clients[source])
        else:
            self._serve_part(source)

    def _serve_part(self, source: int) -> None:
        """Let that part of the monitor go on whose fd this is."""
        resolver = self.birth.net.resolver
        if source in self.joiners.filenos():
            self.joiners.serve(source)
        elif self.session is not None and source in self.session.filenos():
            self.session.serve(source)
        elif resolver is not None and source == resolver.fileno():
            resolver.serve()

    def _serve_client(self, client: wire.Inbox) -> None:
        self._read(client)
        if client.closed:
            self.joiners.forget(client.sock)
            self._let_go(client.sock)
            if self.session is not None:
                self.session.forget(client.sock)
            del self.clients[client.sock.fileno()]
            client.close()

    def _owner_gone(self) -> None:
        if self.owner is not None:
            self.owner.close()
            self.owner = None
        if not self.request.detach:
            self._kill("owner")

    def _read_init(self) -> None:
        """Take what the first process says after the gate: nothing, or why it could not execute."""
        message = self.birth.receive()
        if message is None:
            assert self.birth.sync is not None
            self.birth.sync.close()
            self.birth.sync = None
        else:
            self.exec_error = message

    # --- requests ----------------------------------------------------------------------------

    def _read(self, inbox: wire.Inbox) -> None:
        inbox.fill(wait=False)
        while (received := self._next(inbox)) is not None:
            message, fds = received
            try:
                reply = self._do(message, fds, inbox.sock)
            except NsContainerError as error:
                reply = failure(error)
            except (OSError, KeyError, TypeError, ValueError) as error:
                reply = failure(StateError(f"{message.get('op')}: {error}"))
            for fd in fds:
                os.close(fd)
            if reply is not None:
                attached = reply.pop("fds", ())
                if not _send(inbox.sock, {"reply": message.get("seq"), **reply}, attached):
                    inbox.closed = True  # it doesn't read: nobody waits for it
                    return

    @staticmethod
    def _next(inbox: wire.Inbox) -> tuple[wire.Message, list[int]] | None:
        """Give the next request; a client that sends none of ours is hung up on."""
        try:
            return inbox.pop()
        except wire.WireError:
            inbox.closed = True
            return None

    def _do(
        self, message: wire.Message, fds: list[int], sock: socket.socket
    ) -> wire.Message | None:
        op = str(message.get("op"))
        if op == "exec":
            if self.status not in ("running", "created"):
                message_ = f"the container is {self.status}: nothing can be executed in it"
                raise StateError(message_, hint="resume it first")
            self.joiners.start(message, fds, sock)
            return None
        if op == "wait":
            self.waiting.append(sock)
            return None
        if op == "hold":
            return self._hold(sock)
        if op == "release":
            self._let_go(sock)
            return {}
        if self.session is not None and op in SessionHost.OPS:
            return self.session.do(op, message, fds, sock)
        handler = getattr(self, f"_op_{op}", None)
        if handler is None:
            message_ = f"the monitor knows no operation {op!r}"
            raise SpecError(message_)
        reply: wire.Message = handler(message)
        return reply

    def _op_start(self, message: wire.Message) -> wire.Message:
        if self.status != "created":
            message_ = f"the container is {self.status}: it can't be started"
            raise StateError(message_, hint="a container starts once")
        self._start(int(message.get("at_ns", 0)))
        self._save_state()
        return {"event": "started"}

    def _start(self, at_ns: int = 0) -> None:
        with self.birth.stage("release"):
            self._release(at_ns)

    def _release(self, at_ns: int) -> None:
        """Arm the limits, take the baseline, open the gate: in this order, with nothing between.

        Where others are to begin at the same instant, ``at_ns`` of CLOCK_MONOTONIC, it is waited for.
        """
        ladder, limits = self.controls.ladder, self.controls.limits
        if limits.cpus is not None and limits.cpu_period_us is None:
            limits = replace(limits, cpu_period_us=PERIOD_US)  # it was 1 ms during the set-up
        self.parents_quota = self.cgroup.parents_quota()
        self.controls.arm(limits)
        self.controls.hold_disks(ladder.held(limits))
        with ladder.without(*asked(limits, NETWORK)):
            self.birth.net.shape(ladder.held(limits))
        self.asked = self.controls.limits
        self.cgroup.reset_peak()
        self.steal_at_release = procfs.steal_ns()
        if at_ns:
            time.sleep(min(MOST_AHEAD_S, max(0, at_ns - time.monotonic_ns()) / 1e9))
        self.released_unix = time.time()
        self.baseline = self.log.begin(self.spec.sample_s)
        assert self.birth.sync is not None
        self.birth.sync.send(b"G")
        self.controls.let_go()
        self._set_deadlines()
        self.status = "running"

    def _set_deadlines(self) -> None:
        limits = self.asked
        if limits.timeout_s is not None:
            self.deadline_ns = self.log.begin_ns + round(limits.timeout_s * 1e9)
        if limits.cpu_time_s is not None:
            self.cpu_limit_ns = self.baseline[_USAGE] + round(limits.cpu_time_s * 1e9)

    def _op_update(self, message: wire.Message) -> wire.Message:
        options = dict(message["limits"])
        if "cpu" in options and self.asked.cpu_period_us is not None:
            options.setdefault("cpu_period", self.asked.cpu_period_us)
        change = make_limits(**options)
        disks = diskrate.plan(change, self.controls.places())
        self.birth.net.check(change)
        self.cgroup.place(change)
        self.cgroup.arm(change)
        self.controls.disks.update(disks)
        self.controls.hold_disks(change, disks)
        fields = {
            name: value
            for name in change.__dataclass_fields__
            if (value := getattr(change, name)) not in (None, ())
        }
        in_force = replace(self.asked, **fields)
        self.birth.net.shape(in_force)
        self.asked = in_force
        read_back = self.birth.read_back()
        if self.status in ("running", "paused"):
            elapsed = time.monotonic_ns() - self.log.begin_ns
            asked = {name: plain for name, plain in change.to_dict().items() if name in fields}
            self.changes.append({"elapsed_ns": elapsed, "asked": asked, "read_back": read_back})
            self._set_deadlines()
        return {"read_back": read_back}

    def _op_signal(self, message: wire.Message) -> wire.Message:
        number = int(message["signal"])
        if number == signal.SIGKILL:
            self._kill(str(message.get("by", "user")))
            return {}
        if message.get("group"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.birth.pid, number)
        else:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.birth.pidfd, number)
        fatal = number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
        if fatal and not procfs.handles_signal(self.birth.pid, number):
            # Linux drops a signal that a namespace's first process has no handler for
            # (pid_namespaces(7)). Its user expects the default action, so give it that.
            self.kill_at_ns = time.monotonic_ns() + round(INTERRUPT_GRACE_S * 1e9)
            self.exit_as = number
        return {}

    def _op_pause(self, _: wire.Message) -> wire.Message:
        self._need("running")
        self.cgroup.freeze()
        self.status = "paused"
        self._save_state()
        return {}

    def _hold(self, sock: socket.socket) -> wire.Message:
        """Freeze it for as long as a client's connection lasts, so that a killed one can't leave it so."""
        if self.status == "running":
            self._op_pause({})
            self.holders.append(sock)
        elif self.holders:
            self.holders.append(sock)
        return {}  # paused by somebody, or not begun: it stands still anyway

    def _let_go(self, sock: socket.socket) -> None:
        if sock in self.holders:
            self.holders.remove(sock)
            if not self.holders and self.status == "paused":
                self._op_resume({})

    def _op_resume(self, _: wire.Message) -> wire.Message:
        self._need("paused")
        if self.holders:
            message = "the container is being committed"
            raise StateError(message, hint="it goes on by itself afterwards")
        self.cgroup.thaw()
        self.status = "running"
        self._save_state()
        return {}

    def _need(self, status: str) -> None:
        if self.status != status:
            message = f"the container is {self.status}, not {status}"
            raise StateError(message)

    def _op_stats(self, _: wire.Message) -> wire.Message:
        row = self.log.row_now()
        if self.session is not None:
            self.session.highest(row, len(row) - len(COLUMNS))
        return {"row": row}

    def _op_limits(self, _: wire.Message) -> wire.Message:
        return {"asked": self.asked.to_dict()}

    def _op_samples(self, _: wire.Message) -> wire.Message:
        return {"fds": (self.birth.samples_fd,)}

    def _op_status(self, _: wire.Message) -> wire.Message:
        return {"status": self.status, "read_back": self.birth.read_back()}

    def _op_rename(self, message: wire.Message) -> wire.Message:
        self.request.name = check_id(str(message["name"]))
        self._save_state()
        return {}

    # --- limits of time, and the end ---------------------------------------------------------

    def _cpu_check_ns(self) -> int:
        """When the CPU-time limit can be reached at the earliest."""
        assert self.cpu_limit_ns is not None
        left = self.cpu_limit_ns - self.log.last[_USAGE]
        # Every CPU may be burning at once; half a millisecond is the least worth waking for.
        return self.log.last_ns + max(left // (os.cpu_count() or 1), 500_000)

    def _enforce(self) -> None:
        now = time.monotonic_ns()
        if self.deadline_ns is not None and now >= self.deadline_ns:
            self._time_out("wall", "timeout")
        elif self.cpu_limit_ns is not None and now >= self._cpu_check_ns():
            self.log.look()
            if self.log.last[_USAGE] >= self.cpu_limit_ns:
                self._time_out("cpu", "cpu-time")
        if self.kill_at_ns is not None and now >= self.kill_at_ns:
            self._kill(None)  # the signal itself has ended it, as far as anybody can tell

    def _time_out(self, what: str, by: str) -> None:
        self.timed_out = self.timed_out or what
        self._kill(by)

    def _kill(self, by: str | None) -> None:
        """Kill every process of the container; ``by`` is who or what wanted it."""
        self.killed_by = self.killed_by or by
        self.kill_at_ns = self.deadline_ns = self.cpu_limit_ns = None
        with contextlib.suppress(OSError, NsContainerError):
            self.read_back = self.read_back or self.birth.read_back()
            self.cgroup.disarm_cpu()  # a throttled process dies only when it may run
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.birth.pidfd, signal.SIGKILL)
        with contextlib.suppress(OSError, NsContainerError):
            self.cgroup.kill()
        if self.status == "paused":
            with contextlib.suppress(OSError, NsContainerError):
                self.cgroup.thaw()

    def _finish(self) -> None:
        """Take the final reading, write the record, remove the container, tell who waits."""
        ended_ns = time.monotonic_ns()
        record = self._record(ended_ns) if self.baseline else None
        event: wire.Message = {"event": "exit", "record": record}
        if self.session is not None and record is not None:
            event["cell"] = self.session.ended(record, ended_ns)
        self.joiners.finish()
        self.log.close()
        self.birth.net.unplug()  # while the rest is being removed
        if self.request.remove:
            self.cleanup.close()
        else:
            self.status = "exited"
            self.birth.state["record"] = record
            self._save_state()
            self.cleanup.pop_all()  # what is on disk stays until it is removed by name
            self.birth.release_processes()
        self._push(event)
        for sock in self.waiting:
            _send(sock, event)
        if self.controls.storage is not None and not self.request.remove:
            self.controls.storage.settle()

    def _record(self, ended_ns: int) -> dict[str, Any]:
        if "pid" in self.spec.host_namespaces and self.cgroup.populated():
            self.cgroup.kill()  # without a pid namespace its children outlive the first process
        read_back = self.read_back or self.birth.read_back()
        self.controls.settle()
        final = self.log.end(ended_ns)
        code = os.waitstatus_to_exitcode(self.birth.wait_status or 0)
        number = -code if code < 0 else None
        oom = final[_OOM_KILL] not in (NA, self.baseline[_OOM_KILL])
        if self.exit_as is not None and number == signal.SIGKILL:
            number = self.exit_as
        if final[_PIDS_PEAK] == NA:
            final[_PIDS_PEAK] = self.log.most_pids
        return {
            **self.birth.describe(),
            "created_unix": self.birth.state["created_unix"],
            "released_unix": self.released_unix,
            "released_ns": self.log.begin_ns,
            "boot_id": procfs.boot_id(),
            "exit_code": code if number is None else 128 + number,
            "signal": number,
            "exec_error": (self.exec_error or {}).get("exec_error"),
            "oom_killed": oom and number == signal.SIGKILL and self.killed_by is None,
            "timed_out": self.timed_out,
            "killed_by": self.killed_by,
            "interrupted": 0,
            "wall_ns": ended_ns - self.log.begin_ns,
            "baseline": self.baseline,
            "final": final,
            "limits_asked": self.spec.limits.to_dict(),
            "limits_read_back": read_back,
            "limit_changes": self.changes,
            "network_shaping": self.birth.net.shaping_counts(),
            "storage": self.controls.measured_storage(),
            "steal_ns": procfs.steal_ns() - self.steal_at_release,
            "host_cpus": os.cpu_count() or 1,
            "stages": self.birth.stage.times,
            "setup_ns": sum(ns for _, ns in self.birth.stage.times),
            "missed_samples": self.log.missed,
            "parents_quota": self.parents_quota,
            "sample_s": self.spec.sample_s,
        }

    def _push(self, message: wire.Message, fds: tuple[int, ...] = ()) -> None:
        if self.owner is not None:
            _send(self.owner.sock, message, fds)

    def _save_state(self) -> None:
        self.birth.save(self.status)
