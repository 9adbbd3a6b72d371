"""The spawner: the small process from which containers are cloned.

The notebook's own process is multi-threaded and may hold gigabytes, so it never forks, clones or
unshares. It executes this once and speaks to it over a socketpair. The spawner keeps what containers
share (the image's read-only layers mounted, the id map, the compiled seccomp filter) and forks a
monitor for each. One for cells is a *zygote* as well: it has IPython loaded.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nscontainer.engine import answers, garbage, monitor, networking, rootfs, standby, state, wire
from nscontainer.engine.request import Request
from nscontainer.errors import EngineError, HostError, NsContainerError
from nscontainer.image import host
from nscontainer.linux import caps, cgroup, delegation, prctl, seccomp_profile, userns
from nscontainer.linux.procfs import mountinfo
from nscontainer.linux.seccomp_cache import compile_cached
from nscontainer.spec import ContainerSpec

PLAN_AGE_S: Final = 10.0
"""How long a plan of the host image stands before the host is looked at again."""
END_S: Final = 1.5
"""How long the spare has to remove what stands by, at the end."""
REST_S: Final = 0.003
"""How long nothing must have been asked or be running before a container is made to stand by."""
_FIRST_BASE, _LAST_BASE = 0x6000_0000, 0x6FFF_0000
"""Ids for containers: within the range that systemd leaves to them (systemd.io/UIDS-GIDS)."""


@dataclass(slots=True)
class Spawner:
    """What is kept between containers."""

    inbox: wire.Inbox
    cells: bool
    top: str
    sys_path: list[str]
    owner_pidfd: int | None
    images: rootfs.Images = field(init=False)
    layout: cgroup.Layout = field(init=False)
    trouble: NsContainerError | None = None
    stand_by: bool = True
    spare: socket.socket | None = None
    spare_generation: int = 0
    spare_kind: tuple[object, ...] | None = None
    """What the container that stands by in the spare is good for; None where none does."""
    busy: set[socket.socket] = field(default_factory=set)
    """The lines to monitors whose containers live; one ends with its monitor."""
    _latest: wire.Message | None = None
    """The last request that a container can stand by for, without anything that is private."""
    pid: int = field(default_factory=os.getpid)
    _ending: tuple[int, int] = field(default_factory=os.pipe)
    """A pipe that no byte goes through: its end tells the monitors that the spawner ends."""
    _programs: dict[tuple[str, ...], bytes] = field(default_factory=dict)
    _plans: dict[tuple[object, ...], tuple[float, int]] = field(default_factory=dict)
    """What asks for layers, when the host was looked at for it, and the layers' number."""

    def prepare(self) -> None:
        """Make ready what every container needs; trouble is told to whoever asks for one."""
        try:
            self.layout = delegation.prepare()
            ids = userns.enter()
            state.prepare(self.top)
            self._sweep_in_background()
            base = _FIRST_BASE + 65536 * int.from_bytes(os.urandom(2)) % (_LAST_BASE - _FIRST_BASE)
            if ids.kind != "initial":  # its ids are its containers'
                base = 0
            self.images = rootfs.Images(f"{self.top}/mnt", base, f"{self.top}/images/layers", ids)
            if ids.note is not None:
                self.images.notes.append(ids.note)
            try:
                rootfs.enter_private_namespace()
            except OSError as error:
                raise (userns.refused(error) if ids.entered else error) from None
            self.images.mount_scratch()
        except NsContainerError as error:
            self.trouble = error
        except OSError as error:
            self.trouble = HostError(f"this host can't make containers: {error}", row="a container")
        if self.cells:
            sys.path[:] = self.sys_path
            from nscontainer import runner

            runner.preload()
        else:
            self.seccomp_program({"seccomp": "default", "cap_add": (), "cap_drop": ()})
        caps.last_cap()  # found once, here, for every container

    def serve(self) -> None:
        """Answer requests until the owner closes its end or ends."""
        watched: list[Any] = [self.inbox.sock]
        if self.owner_pidfd is not None:
            watched.append(self.owner_pidfd)
        self._fork_spare()
        while not self.inbox.closed:
            while (received := self.inbox.pop()) is not None:
                self._spawn(*received)
                self._fork_spare()
            idle = self._latest is not None and self.spare is not None and not self.busy
            lines = [*self.busy, *([] if self.spare is None else [self.spare])]
            ready = select.select([*watched, *lines], [], [], REST_S if idle else None)[0]
            if self.owner_pidfd in ready:
                return
            if self.spare in ready:
                self._replace_spare()
            if not ready:
                self._make_standby()
            for line in self.busy.intersection(ready):
                line.close()
                self.busy.discard(line)
            if self.inbox.sock in ready:
                self.inbox.fill(wait=False)

    def _make_standby(self) -> None:
        """Have the spare make a container as the last was, while none of ours runs.

        So that it takes no CPU from anything that is being measured.
        """
        assert self._latest is not None
        if self.spare is not None and self.spare_generation == self.images.generation:
            own = state.new_id()
            with contextlib.suppress(OSError):  # it has been killed: serve() sees it
                wire.send(self.spare, {**self._latest, "id": own, "name": own})
                self.spare_kind = standby.kind(self._latest)
        self._latest = None

    def _replace_spare(self) -> None:
        """Fork another after the spare was killed, and remove what stood by with it."""
        self._drop_spare()
        self._sweep_in_background()
        self._fork_spare()

    def _sweep_in_background(self) -> None:
        """Remove what a crash left, in a process of its own: no start has to wait for it."""
        if os.fork() == 0:
            with contextlib.suppress(BaseException):
                os.close(self._ending[1])
                os.setsid()
                garbage.collect(self.top)
            os._exit(0)

    def _spawn(self, message: wire.Message, fds: list[int]) -> None:
        """Hand a request to the spare monitor, after mounting what it will need."""
        try:
            if self.trouble is not None:
                raise self.trouble
            self.seccomp_program(message["spec"])
            message["layers"] = self._layers(message)
            outdated = self.spare_generation != self.images.generation  # it lacks the newest mounts
            if outdated or self.spare_kind not in (None, standby.kind(message)):
                self._drop_spare()
            try:
                wire.send(self._ready_spare(), message, fds)
            except OSError:  # it has been killed
                self._replace_spare()
                wire.send(self._ready_spare(), message, fds)
            assert self.spare is not None
            if message["spec"]["session"]:  # idle between its cells, and those come one by one
                self.spare.close()
            else:
                self.busy.add(self.spare)
            self.spare = None
            self._latest = standby.request_for_next(message) if self.stand_by else None
        except (NsContainerError, OSError) as error:
            problem = error if isinstance(error, NsContainerError) else EngineError(str(error))
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fds[0])) as control:
                wire.send(control, answers.failure(problem))
        for fd in fds:
            os.close(fd)

    def _ready_spare(self) -> socket.socket:
        self._fork_spare()
        if self.spare is None:
            message = "no process can be made for the container's monitor"
            raise EngineError(message, hint="too many processes: see ulimit -u and pids.max")
        return self.spare

    def _fork_spare(self) -> None:
        """Keep one monitor forked and ready, so that no start has to wait for a fork."""
        if self.spare is not None or self.trouble is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.spare_kind = None
        self.spare_generation = self.images.generation
        try:
            pid = os.fork()
        except OSError:  # tried again when there is a container to be made
            ours.close()
        else:
            if pid == 0:
                ours.close()
                self._be_monitor(theirs)
            self.spare = ours
        theirs.close()

    def _drop_spare(self) -> None:
        if self.spare is not None:
            self.spare.close()
            self.spare = None

    def _be_monitor(self, line: socket.socket) -> None:
        code = 1
        control: socket.socket | None = None
        made_ahead: standby.StandBy | None = None
        try:
            self.inbox.close()
            os.close(self._ending[1])
            for other in self.busy:
                other.close()
            monitor.get_ready()
            inbox = wire.Inbox(line)
            received = inbox.get()
            if received is not None and received[0]["op"] == "stand by":
                made_ahead = standby.StandBy.make(self._standby_request(received[0], line))
                received = inbox.pop()  # it may have come along with "stand by"
                if received is None and made_ahead.lasts_until(line):
                    received = inbox.get()
            if received is not None:
                message, fds = received
                control = socket.socket(fileno=fds[0])
                monitor.main(self._request(message, fds, control), made_ahead)
                line.close()  # at once: a thread may still wait in Linux (attach.py, unplug)
            elif made_ahead is not None:
                made_ahead.cleanup.close()
            code = 0
        except BaseException as error:  # noqa: BLE001 - a forked copy must not go on as spawner
            problem = EngineError(f"the monitor failed: {type(error).__name__}: {error}")
            if os.environ.get("NSCONTAINER_DEBUG"):
                import traceback

                traceback.print_exc()
            if control is not None:
                with contextlib.suppress(OSError):
                    wire.send(control, answers.failure(problem))
        os._exit(code)

    def _layers(self, message: wire.Message) -> int:
        """Give the number of a request's layers; the host is looked at again after a while."""
        mapped = _is_mapped(message["spec"])
        image = message["image"]
        keys = () if image is None else tuple(image["layers"])
        if image is not None and not image["on_host"]:
            return self.images.number_of_stored(keys, tuple(image["volumes"]), mapped=mapped)
        needed, home = [str(path) for path in message["needed"]], str(message["home"])
        # A directory removed and made anew under the same path is another one: look again.
        places = (*map(rootfs.identity, needed), *self.images.seals(keys))
        key = (mapped, home, *needed, *places)
        now = time.monotonic()
        made, number = self._plans.get(key, (0.0, -1))
        if number < 0 or now - made > PLAN_AGE_S:
            # Our own mounts are no hindrance: only others', which are locked.
            points = [m for m in mountinfo() if not m.target.startswith(f"{self.images.scratch}/")]
            points = [m for m in points if m.target != self.images.scratch]
            split = self.images.rootless
            plan = host.plan(needed, home=home, hide=[self.top], mounts=points, split=split)
            number = self.images.number(plan, keys, mapped=mapped)
            self._plans[key] = (now, number)
        return number

    def _request(self, message: wire.Message, fds: list[int], control: socket.socket) -> Request:
        with open(fds[4], "rb") as private:
            private.seek(0)
            message["spec"]["env"] = json.loads(private.read())
        stdio = (fds[1], fds[2], fds[3])
        return self._built(message, control, stdio, fds[5] if len(fds) > 5 else None)

    def _standby_request(self, message: wire.Message, line: socket.socket) -> Request:
        """Build a request for nobody yet: its streams are the spawner's own, /dev/null."""
        return self._built(message, line, (0, 1, 2), None)

    def _built(
        self,
        message: wire.Message,
        control: socket.socket,
        stdio: tuple[int, int, int],
        channel: int | None,
    ) -> Request:
        spec = ContainerSpec.from_dict(message["spec"])
        mapped = _is_mapped(message["spec"])
        zygote = self.cells and spec.command is None and not spec.cold and mapped
        run_cell = None
        if zygote:
            from nscontainer import runner

            run_cell = _zygote_cell(runner.main)
        return Request(
            id=message["id"],
            name=message["name"],
            spec=spec,
            detach=message["detach"],
            remove=message["remove"],
            environment=message["environment"],
            control=control,
            stdio=stdio,
            channel=channel,
            top=self.top,
            images=self.images,
            lowers=self.images.layers[message["layers"]],
            mapped=mapped,
            layout=self.layout,
            start_mode="zygote" if zygote else "exec" if spec.command is not None else "cold",
            seccomp_program=self.seccomp_program(message["spec"]),
            owner_pidfd=self.owner_pidfd,
            run_cell=run_cell,
            image=message["image"],
            missing=message.get("missing") or {},
            halt_at=message.get("halt_at"),
            start=bool(message.get("start")),
            spawner_pid=self.pid,
            ending=self._ending[0],
        )

    def end(self) -> None:
        """Remove what containers share and none is left in: the cgroups' parents, the bridges."""
        os.close(self._ending[1])  # whoever gives back an address from now on removes the bridge
        if self.spare is not None:  # with it goes what stands by
            self.spare.shutdown(socket.SHUT_WR)
            select.select([self.spare], [], [], END_S)
        self._drop_spare()
        if self.trouble is None:
            with contextlib.suppress(OSError, NsContainerError):
                networking.release_unused(self.top)
            with contextlib.suppress(OSError, NsContainerError):
                cgroup.remove_parents(self.layout)

    def seccomp_program(self, spec: wire.Message) -> bytes | None:
        """Compile the default filter for a spec's capabilities, once for each set of them."""
        if spec["seccomp"] == "unconfined":
            return None
        capabilities = caps.parse_caps(spec["cap_add"], spec["cap_drop"])
        key = tuple(sorted(capabilities))
        if key not in self._programs:
            release = re.findall(r"\d+", os.uname().release)
            self._programs[key] = compile_cached(
                seccomp_profile.DEFAULT,
                caps=capabilities,
                kernel=(int(release[0]), int(release[1])),
                directory=Path(self.top, "cache"),
            )
        return self._programs[key]


def _is_mapped(spec: wire.Message) -> bool:
    return "user" not in spec["host_namespaces"]


def _zygote_cell(run: Any) -> Any:
    """Wrap the cell runner for a process that was cloned from this one."""

    def run_cell(channel: socket.socket) -> int:
        gc.enable()
        return int(run(channel))

    return run_cell


def main(fd: int) -> None:
    """Run a spawner on an inherited socket; its first message is the configuration."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # monitors are collected by Linux itself
    prctl.set_name("nsc-spawner")
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    inbox = wire.Inbox(sock)
    received = inbox.get()
    if received is None:
        return
    config = received[0]
    owner_pidfd = None
    with contextlib.suppress(OSError):
        owner_pidfd = os.pidfd_open(int(config["owner_pid"]))
    spawner = Spawner(
        inbox=inbox,
        cells=bool(config["cells"]),
        stand_by=bool(config["standby"]),
        top=str(config["top"]),
        sys_path=list(config["sys_path"]),
        owner_pidfd=owner_pidfd,
    )
    spawner.prepare()
    gc.collect()
    gc.freeze()  # so that a collection in a clone doesn't touch, and copy, every page
    gc.disable()
    try:
        spawner.serve()
    finally:
        spawner.end()
