"""A container's birth: from a request to a first process waiting at the gate.

Every resource is registered for removal the moment it exists; when a later step fails, or at the end
of the container's life, the same list is unwound.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from dataclasses import dataclass, field, replace
from typing import Any

from nscontainer import errors
from nscontainer.engine import rootfs, state, wire
from nscontainer.engine.controls import Controls
from nscontainer.engine.init import CGROUP2, InitPlan
from nscontainer.engine.init import main as init_main
from nscontainer.engine.networking import Networking
from nscontainer.engine.request import Request
from nscontainer.engine.samplelog import SampleLog
from nscontainer.engine.shown import bind_mounts, cell_runner
from nscontainer.engine.stages import Stages
from nscontainer.errors import EngineError, SetupError
from nscontainer.ladder import NETWORK, asked, without
from nscontainer.linux import caps, cgroup, clone, procfs
from nscontainer.netspec import OTHERS
from nscontainer.network import names
from nscontainer.spec import NAMESPACES, ContainerSpec


class InitDiedError(EngineError):
    """The first process was killed before it came to the gate."""


@dataclass(slots=True)
class Birth:
    """Makes a container, and holds what it is made of."""

    request: Request
    cleanup: contextlib.ExitStack
    stage: Stages = field(init=False)
    spec: ContainerSpec = field(init=False)
    standby: bool = False
    """Stop before what only a request says, and wait for it: :meth:`adopt`."""
    pooled: bool = field(init=False, default=False)
    """It stood by before it was asked for."""
    directory: str = field(init=False)
    state: dict[str, Any] = field(init=False)
    controls: Controls = field(init=False)
    """Its cgroup, its disks and its read-write layer's own filesystem: what the limits hold by."""
    root: rootfs.Root = field(init=False)
    net: Networking = field(init=False)
    listener: socket.socket = field(init=False)
    samples_fd: int = field(init=False)
    log: SampleLog = field(init=False)
    pid: int = field(init=False, default=0)
    pidfd: int = field(init=False, default=-1)
    sync: socket.socket | None = field(init=False, default=None)
    tty: int | None = field(init=False, default=None)
    wait_status: int | None = field(init=False, default=None)
    namespaces: dict[str, str] = field(init=False)
    environment: dict[str, str] = field(init=False)
    _lock_fd: int = field(init=False, default=-1)
    _halted_fd: int = field(init=False, default=-1)

    def __post_init__(self) -> None:
        self.spec = self.request.spec
        where = state.STANDBY if self.standby else state.CONTAINERS
        self.directory = f"{self.request.top}/{where}/{self.request.id}"
        self.stage = Stages(self._halt if self.request.halt_at else None)
        if self.request.halt_at:  # by fd: the first process will be somebody else, somewhere else
            halted = f"{self.request.top}/halted"
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._halted_fd = os.open(halted, flags, 0o600)
            self.cleanup.callback(os.unlink, halted)
        self.namespaces = {
            name: "host" if name in self.spec.host_namespaces else "private" for name in NAMESPACES
        }
        if not os.path.exists("/proc/self/ns/time"):
            self.namespaces["time"] = "unavailable"
        if not self.request.mapped:
            self.namespaces["user"] = "host"
        self.namespaces |= dict.fromkeys(self.request.missing, "unavailable")
        if self.spec.network.startswith(OTHERS):
            self.namespaces["net"] = self.spec.network

    def _halt(self, name: str) -> None:
        """Stand still at a stage until the owner has gone: a test's way to kill it there.

        With ``*`` only say where it is, by the file, and after a stage a dot: a test's way to refuse
        a system call there (tests/refusals.py).
        """
        if self.request.halt_at == "*":
            with contextlib.suppress(OSError):  # `confine` closes it
                os.write(self._halted_fd, name.encode())
            return
        if name != self.request.halt_at:
            return
        watched: list[Any] = [self.request.control]
        if self.request.owner_pidfd is not None:
            watched.append(self.request.owner_pidfd)
        os.write(self._halted_fd, name.encode())
        select.select(watched, [], [])

    # --- steps -------------------------------------------------------------------------------

    def run(self) -> None:
        """Make the container; it waits at the gate when this returns."""
        self.controls = Controls(self.request, self.directory)
        with self.stage("state"):
            bridges = not self.request.images.ids.entered
            self.net = self._network(self.spec, bridges=bridges)  # first: it may not be there
            self._make_state()
        with self.stage("cgroup"):
            self.state["cgroup"] = self.controls.make_cgroup(self.cleanup)
            self.cleanup.callback(self._remove_cgroup)
            self.controls.limit(self.controls.limits)
        with self.stage("rootfs"):
            self.state |= self.controls.make_storage(self.cleanup)
            self.root = rootfs.assemble(
                self.request.images,
                self.request.lowers,
                self.directory,
                mapped=self.request.mapped,
                volatile=self.request.remove,
                own=self.controls.layer_fd,
            )
            if self.root.upper_shift:
                self.state["upper_shift"] = self.root.upper_shift
            volumes = bind_mounts(self.spec, self.request.images, mapped=self.request.mapped)
        with self.stage("network"):
            self.cleanup.callback(lambda: self.net.leave(alone=self._alone))
            self._reserve_network()
        with self.stage("clone"), self.net.joined() as sysfs:
            self._clone(volumes, sysfs)
        try:
            self._meet_init()
        except SetupError as error:
            raise self._last_words() or error from None

    def _meet_init(self) -> None:
        """Do the monitor's part of what the first process needs, which goes on at the same time."""
        with self.stage("id-map"):
            if self.request.mapped:
                self.request.images.map_ids(self.pid)
            assert self.sync is not None
            self.sync.send(b"M")
        with self.stage("interface"):  # while the first process sets itself up
            self.net.plug(self.pid, mapped=self.request.mapped)
        with self.stage("monitor"):
            self._make_monitor_ends()
        if self.standby:
            self._await("standby")
        else:
            self._come_to_gate()

    def _last_words(self) -> errors.NsContainerError | None:
        """Give what the first process said went wrong: the cause of what goes wrong with it then."""
        assert self.sync is not None
        if not select.select([self.sync], [], [], 0)[0]:
            return None
        answer = self.receive()
        return _setup_error(answer) if answer is not None and "message" in answer else None

    def _network(self, spec: ContainerSpec, *, bridges: bool) -> Networking:
        """Look up its network; with --best-effort there may be none."""
        ladder, limits = self.controls.ladder, spec.limits
        own = spec.network not in ("none", "host")
        with ladder.without(*(("network",) if own else ())):
            if not ladder.allowed:
                return Networking(self.request.top, spec, bridges=bridges)
            still = replace(spec, limits=without(limits, NETWORK))
            net = Networking(self.request.top, still, bridges=bridges)
            with ladder.without(*asked(limits, NETWORK)):
                net.check(limits)
            return net
        return self._no_network()

    def _no_network(self) -> Networking:
        unheld = self.controls.ladder.unheld
        for name in asked(self.spec.limits, NETWORK):
            unheld[name] = f"there is no network: {unheld['network']}"
        none = replace(
            self.spec, network="none", ip=None, dns=(), publish=(), limits=self.controls.limits
        )
        return Networking(self.request.top, none)

    def _reserve_network(self) -> None:
        with self.controls.ladder.without(*(("network",) if self.net.network else ())):
            self.net.reserve(self.request.id)
            return
        self.net.leave(alone=self._alone)
        self.net = self._no_network()

    def _come_to_gate(self) -> None:
        with self.stage("gate"):
            self.save("running" if self.request.start else "created")
            self._await("ready")

    def adopt(self, request: Request) -> None:
        """Give a container that stands by to a request of its kind; it waits at the gate then.

        Its id stays its own. What the first process gets comes in a memfd: arguments and environment
        may be larger than a message.
        """
        if request.name == request.id:
            request.name = self.request.id
        request.id = self.request.id
        self.request, self.spec, self.pooled = request, request.spec, True
        self.controls.adopt(request)
        self.standby = False
        self.stage.times.clear()
        with self.stage("adopt"):
            self._claim_name()
            self.directory = state.take_up(request.top, request.id)
            self.state |= self._facts()
            self.controls.limit(self.spec.limits)
            self.environment = self._environment()
            self._hand_over()
        self._come_to_gate()

    def _hand_over(self) -> None:
        """Send the first process what it has been waiting for, and let go of our copies."""
        assert self.sync is not None
        body = {"spec": self.spec.to_dict(), "environment": self.environment}
        payload = os.memfd_create("request", os.MFD_CLOEXEC)
        os.write(payload, json.dumps(body).encode())
        channel = self.request.channel
        fds = [payload, *self.request.stdio, *(() if channel is None else (channel,))]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # found at the gate
            socket.send_fds(self.sync, [b"A"], fds)
        for fd in {*fds} - {0, 1, 2}:
            os.close(fd)

    def _make_state(self) -> None:
        top = self.request.top
        with state.birth(top):
            os.mkdir(self.directory, 0o700)
            self.cleanup.callback(lambda: state.remove(self.directory))
            self._lock_fd = state.own(self.directory)
        self._claim_name()
        self.cleanup.callback(lambda: state.release_name(top, self.request.name, self.request.id))
        if self.request.detach and not self.spec.session:
            self._log_to_file()
        self.state = self._facts()

    def _claim_name(self) -> None:
        if self.request.name != self.request.id:
            state.claim_name(self.request.top, self.request.name, self.request.id)

    def _facts(self) -> dict[str, Any]:
        return {
            "id": self.request.id,
            "name": self.request.name,
            "spec": self._asked().to_dict(),
            "image": self.spec.image,
            **_of_image(self.request),
            "detach": self.request.detach,
            "remove": self.request.remove,
            "views": [lower.to_dict() for lower in self.request.lowers],
            "created_unix": time.time(),
            "monitor_pid": os.getpid(),
            "start_mode": self.request.start_mode,
            "pooled": self.pooled,
        }

    def _asked(self) -> ContainerSpec:
        """Give the spec as it was asked for: what is shared for want of better isn't in it."""
        missing = frozenset(self.request.missing)
        if not missing:
            return self.spec
        network = "none" if "net" in missing else self.spec.network
        shared = self.spec.host_namespaces - missing
        return replace(self.spec, host_namespaces=shared, network=network)

    def _make_monitor_ends(self) -> None:
        """Make what only the monitor and its clients need."""
        self.state["init_pid"] = self.pid
        self.state |= self.net.facts()
        self.state["init_start"] = procfs.start_time(self.pid)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        with wire.short(self.directory, "monitor.sock") as path:
            self.listener.bind(path)
        self.listener.listen(16)
        if self.request.remove:
            self.samples_fd = os.memfd_create("samples", os.MFD_CLOEXEC)
        else:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self.samples_fd = os.open(f"{self.directory}/samples", flags, 0o600)
        self.log = SampleLog(self.samples_fd, self.controls.reader(self.pid), self.net.stats())

    def save(self, status: str) -> None:
        """Write the state file: who else looks for the container finds it by that."""
        self.state |= {"status": status, "name": self.request.name}
        if status == "running":
            self.state.setdefault("released_unix", time.time())
        with contextlib.suppress(OSError):
            state.write(self.directory, self.state)

    def _log_to_file(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        log = os.open(f"{self.directory}/log", flags, 0o600)
        base = self.request.images.id_base if self.request.mapped else 0
        os.fchown(log, base, base)  # so that the container can open /dev/stdout again
        self.request.stdio = (self.request.stdio[0], log, log)

    @property
    def cgroup(self) -> cgroup.Cgroup:
        """The container's cgroup."""
        return self.controls.cgroup

    def _remove_cgroup(self) -> None:
        self.controls.remove_cgroup(parents=self._alone())

    def _alone(self) -> bool:
        """Tell whether nobody comes after: then what containers share goes with this one.

        The spawner removes that when it ends; without one, or about to be, the last container does.
        """
        if os.getppid() != self.request.spawner_pid or self._owner_has_ended():
            return True
        ending = self.request.ending
        return ending is not None and bool(select.select([ending], [], [], 0)[0])

    def _owner_has_ended(self) -> bool:
        pidfd = self.request.owner_pidfd
        return pidfd is not None and bool(select.select([pidfd], [], [], 0)[0])

    def _clone(self, volumes: list[tuple[int, str]], sysfs: int | None) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        new = frozenset(name for name, kind in self.namespaces.items() if kind == "private")
        flags = 0
        for name in new - {"cgroup"}:  # that one is unshared once it has joined its cgroup
            flags |= clone.FLAGS[name]
        plan = self._init_plan(theirs, new, volumes)
        plan.sysfs = sysfs
        self.pid, self.pidfd = clone.clone3(
            flags,
            exit_signal=signal.SIGCHLD,
            cgroup_fd=self.cgroup.fd(),
        )
        if self.pid == 0:
            ours.close()
            init_main(plan)
        theirs.close()
        for fd in plan.entry_fds:
            os.close(fd)
        self.sync = ours
        self.cleanup.callback(self._kill_and_reap)
        for tree in (*(tree for tree, _ in volumes), *(() if sysfs is None else (sysfs,))):
            os.close(tree)
        for fd in {*self.request.stdio} - {0, 1, 2}:
            os.close(fd)  # the pipes end when the container's own ends close
        if self.request.channel is not None:
            os.close(self.request.channel)

    def _init_plan(
        self, sync: socket.socket, new: frozenset[str], volumes: list[tuple[int, str]]
    ) -> InitPlan:
        spec, request = self.spec, self.request
        capabilities = caps.numbers(caps.parse_caps(spec.cap_add, spec.cap_drop))
        hostname = self._hostname()
        self.environment = self._environment()
        runner_tree = None
        if spec.command is None and request.run_cell is None:
            runner_tree = cell_runner(request.images, mapped=request.mapped)
        return InitPlan(
            spec=spec,
            root=self.root.path,
            pivot=f"{request.images.scratch}/pivot",
            hostname=hostname,
            name_files=self._name_files(hostname),
            environment=self.environment,
            mapped=request.mapped,
            new_namespaces=new,
            capabilities=capabilities,
            seccomp_program=request.seccomp_program,
            cgroup_paths=_hierarchies(self.cgroup.paths)
            if self.cgroup.version != "v2"
            else {CGROUP2: next(iter(self.cgroup.paths.values()))},
            stdio=request.stdio,
            sync=sync,
            monitor_fds=self._monitor_fds(),
            channel=request.channel,
            views=tuple(lower.view.path for lower in request.lowers),
            volumes=volumes,
            runner_tree=runner_tree,
            run_cell=request.run_cell,
            halt=self._halt if request.halt_at else None,
            standby=self.standby,
            entry_fds=self.cgroup.entry_fds(),
        )

    def _name_files(self, hostname: str) -> dict[str, tuple[str, str]]:
        """Give the name files' places and texts, those that the image has a place for."""
        places = self.request.lowers[0].name_files
        texts = names.files(
            hostname,
            host=self.namespaces["net"] in ("host", "unavailable"),
            place=self.net.place,
            add_hosts=self.spec.add_hosts,
        )
        return {
            os.path.basename(path): (places[path], text)
            for path, text in texts.items()
            if path in places
        }

    def _monitor_fds(self) -> tuple[int, ...]:
        if self.request.halt_at:  # init, too, watches for the owner's end then
            return (self._lock_fd,)
        return self._lock_fd, self.request.control.fileno()

    def _hostname(self) -> str:
        own = self.namespaces["uts"] == "private"
        return self.spec.hostname or (self.request.id if own else os.uname().nodename)

    def _environment(self) -> dict[str, str]:
        environment = {"HOSTNAME": self._hostname()}
        if self.spec.tty:
            environment["TERM"] = "xterm"
        return {**environment, **self.request.environment, **dict(self.spec.env)}

    def _await(self, point: str) -> None:
        """Wait until the first process is there, or says what went wrong, or the owner is gone."""
        assert self.sync is not None
        watched: list[Any] = [self.sync]
        if self.request.owner_pidfd is not None and not self.request.detach:
            watched.append(self.request.owner_pidfd)
        if self.sync not in select.select(watched, [], [])[0]:
            message = "the owner went away during the set-up"
            raise EngineError(message)
        answer = self.receive()
        if answer is not None and "tty" in answer:
            answer = self.receive()
        if answer is None:
            self.reap(wait=True)
            message = f"the first process died during the set-up (status {self.wait_status})"
            raise InitDiedError(message)
        if not answer.get(point):
            raise _setup_error(answer)
        self.stage.times += [(str(name), int(ns)) for name, ns in answer["stages"]]
        if answer.get("made"):  # volumes whose mount points the image lacks: seldom
            self.state["made"] = [str(path) for path in answer["made"]]
            self.save(self.state["status"])

    # --- used by the monitor -----------------------------------------------------------------

    def receive(self) -> dict[str, Any] | None:
        """Read a message of the first process; None when it has closed its end."""
        assert self.sync is not None
        try:
            try:
                data, fds, _, _ = socket.recv_fds(self.sync, 65536, 1)
            except (
                ConnectionResetError
            ):  # it hasn't read all that we said: its last words come after
                data, fds, _, _ = socket.recv_fds(self.sync, 65536, 1)
        except ConnectionResetError:
            return None
        if fds:
            self.tty = fds[0]
        if not data:
            return None
        answer: dict[str, Any] = json.loads(data)
        return answer

    def reap(self, *, wait: bool = False) -> bool:
        """Collect the first process if it has ended."""
        if self.wait_status is None and self.pid:
            pid, status, used = os.wait4(self.pid, 0 if wait else os.WNOHANG)
            if pid:
                self.controls.waited_for(used)
                self.wait_status = status
        return self.wait_status is not None

    def _kill_and_reap(self) -> None:
        if self.wait_status is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            self.reap(wait=True)

    def read_back(self) -> dict[str, Any]:
        """Give the limits as Linux has them."""
        return self.controls.read_back() | self.net.limits()

    def release_processes(self) -> None:
        """Let go of everything but the state on disk: a kept container has ended."""
        with contextlib.suppress(OSError, errors.NsContainerError):
            self._remove_cgroup()
        with contextlib.suppress(OSError, errors.NsContainerError):
            self.net.leave(alone=self._alone)
        with contextlib.suppress(OSError):
            os.unlink(f"{self.directory}/monitor.sock")
        os.close(self._lock_fd)  # whoever is told that it has ended may remove it

    def describe(self) -> dict[str, Any]:
        """Say what the container is and how isolated it really is: part of the exit record."""
        capabilities = caps.parse_caps(self.spec.cap_add, self.spec.cap_drop)
        program = self.request.seccomp_program
        return {
            "id": self.request.id,
            "name": self.request.name,
            "image": self.spec.image,
            **{name: self.state.get(name) for name in ("image_id", "diff_ids", "on_host")},
            "spec": self.state["spec"],
            "start_mode": self.request.start_mode,
            "pooled": self.pooled,
            "cgroup": self.state["cgroup"],
            "escaped_writes": self.controls.escaped_writes(),
            "unheld": dict(self.controls.ladder.unheld),
            "network": self.state.get("network"),
            "isolation": {
                "namespaces": dict(self.namespaces),
                "user_map": self._user_map(),
                "rootfs": self.root.description,
                "capabilities": sorted(capabilities),
                "seccomp": "unconfined"
                if program is None
                else f"default ({len(program) // 8} instructions)",
                "no_new_privs": True,
                "network": self.net.mode,
                "notes": [
                    *self.request.images.notes,
                    *(f"no {name} namespace: {why}" for name, why in self.request.missing.items()),
                    *(
                        ["all of /proc and /sys is shown"]
                        if self.spec.systempaths != "default"
                        else []
                    ),
                ],
            },
        }

    def _user_map(self) -> list[int] | None:
        """Give the id inside, the id outside, and how many; of an ordinary user's, the first of them."""
        images = self.request.images
        if not self.request.mapped:
            return None
        return [0, images.ids.uid, 1] if images.rootless else [0, images.id_base, images.ids.count]


def _of_image(request: Request) -> dict[str, Any]:
    """Give what the state file says of a stored image: its layers can't be removed as long as it does."""
    image = request.image
    if image is None:
        return {}
    kept = {name: image[name] for name in ("image_id", "layers", "diff_ids", "on_host")}
    return {**kept, "volumes": list(request.lowers[0].volumes)}


def _setup_error(answer: dict[str, Any]) -> errors.NsContainerError:
    if "stage" in answer:
        error = SetupError(
            answer["stage"], answer["op"], answer["path"], answer["errno"], hint=answer["hint"]
        )
        error.args = (answer["message"],)
        error.message = answer["message"]
        return error
    kind = getattr(errors, str(answer.get("kind")), EngineError)
    made: errors.NsContainerError = kind(answer["message"], hint=answer.get("hint"))
    if isinstance(made, errors.HostError):
        made.row = answer.get("row")
    return made


def _hierarchies(paths: dict[str, str]) -> dict[str, str]:
    """Name each hierarchy by its controllers, co-mounted ones as one: ``cpu,cpuacct``."""
    by_directory: dict[str, list[str]] = {}
    for controller, directory in paths.items():
        by_directory.setdefault(directory, []).append(controller)
    return {",".join(names): directory for directory, names in sorted(by_directory.items())}
