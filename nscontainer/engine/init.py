"""The container's first process: from clone3's return to the user's code.

The steps of :func:`set_up`, in order, are what makes a process a container. Each runs in the new
namespaces, as root of the new user namespace, and before the gate: no limit holds yet and none of it
is in the accounts. A failing step is reported with its stage, operation, path and errno.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import socket
import struct
import termios
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from nscontainer.engine import devices, masks, users
from nscontainer.engine.places import Root
from nscontainer.engine.stages import Stages
from nscontainer.engine.usercode import CHANNEL_FD, RUNNER, become_user_code, check_python
from nscontainer.errors import CommandError, NsContainerError, SetupError
from nscontainer.image.host import OWN
from nscontainer.linux import caps, clone, mount, net, prctl, rlimits, seccomp
from nscontainer.linux.syscalls import (
    KernelError,
    close_range,
    kernel_error,
)
from nscontainer.mounts import Mount
from nscontainer.spec import ContainerSpec

SHM_BYTES: Final = 64 << 20
CGROUP2: Final = "unified"
TIOCSPTLCK: Final = 0x40045431
TIOCGPTPEER: Final = 0x5441


@dataclass(slots=True)
class InitPlan:
    """All that the first process needs, gathered by the monitor before the clone."""

    spec: ContainerSpec
    root: str
    pivot: str
    hostname: str
    name_files: dict[str, tuple[str, str]]
    """Where the image has /etc/hostname, hosts and resolv.conf, and their text; by their last name."""
    environment: dict[str, str]
    mapped: bool
    new_namespaces: frozenset[str]
    capabilities: frozenset[int]
    seccomp_program: bytes | None
    cgroup_paths: dict[str, str]
    """The container's cgroups to be seen inside, by the name of their hierarchy."""
    stdio: tuple[int, int, int]
    sync: socket.socket
    monitor_fds: tuple[int, ...]
    """The monitor's alone, to be closed: by those it is known to have ended."""
    channel: int | None = None
    views: tuple[str, ...] = ("/",)
    """Where the image's own mounts are."""
    volumes: list[tuple[int, str]] = field(default_factory=list)
    """Detached mounts and where they go in the container."""
    sysfs: int | None = None
    """A mount of the shared network namespace's sysfs."""
    runner_tree: int | None = None
    run_cell: Callable[[socket.socket], int] | None = None
    """The zygote's cell runner; None where a program is executed."""
    halt: Callable[[str], None] | None = None
    standby: bool = False
    """Wait for the request when all is made that doesn't depend on it."""
    made: list[str] = field(default_factory=list)
    """What was missing of the mount points of volumes: no part of what the user has written."""
    entry_fds: list[int] = field(default_factory=list)
    """Files of the v1 cgroups that a thread writes 0 to, to move in."""


def main(plan: InitPlan) -> NoReturn:
    """Be the container: set up, wait at the gate, become the user's code. Never returns."""
    code = 125
    try:
        times = set_up(plan)
        ready = {"ready": True, "stages": times, "made": plan.made}
        with Stages()("gate"):  # not by _send: where it can't be told, nobody opens the gate
            plan.sync.send(json.dumps(ready).encode())
        if plan.sync.recv(1) != b"G":
            os._exit(125)
        code = become_user_code(plan)
    except SetupError as error:
        _send(
            plan.sync,
            {
                "stage": error.stage,
                "op": error.op,
                "path": error.path,
                "errno": error.errno,
                "message": error.message,
                "hint": error.hint,
            },
        )
    except CommandError as error:
        _send(plan.sync, {"exec_error": error.message, "exit_code": error.exit_code})
        code = error.exit_code
    except NsContainerError as error:
        _send(
            plan.sync,
            {
                "kind": type(error).__name__,
                "message": error.message,
                "hint": error.hint,
                "row": getattr(error, "row", None),
            },
        )
    except BaseException as error:  # noqa: BLE001 - this process must never return to the monitor
        with contextlib.suppress(BaseException):
            _send(plan.sync, {"message": f"{type(error).__name__}: {error}"})
    os._exit(code)


def _send(sync: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        sync.send(json.dumps(message).encode())


def set_up(plan: InitPlan) -> list[tuple[str, int]]:
    """Build the container around this process, step by step; give each step's time in ns."""
    stage = Stages(plan.halt)
    for fd in plan.monitor_fds:
        os.close(fd)
    with stage("join"):
        for fd in plan.entry_fds:
            os.write(fd, b"0")
            os.close(fd)
    with stage("identity"):
        _expect(plan.sync, b"M")
        # While still the host's root by id: the state directory lets nobody else through.
        root = mount.open_tree(plan.root, recursive=True)
        mount.move_mount(root, plan.pivot)
        _become_root_inside(plan)
    with stage("mounts"):
        trees, cgroups = _detached_filesystems(plan), _own_cgroups(plan)
    stage.own_files = False
    with stage("pivot"):
        _pivot(root)
    with stage("filesystems"):
        _attach_filesystems(trees, cgroups)
        _attach_files(plan)
        _attach_volumes(plan)
    with stage("masks"):
        if plan.spec.systempaths != "unconfined":
            masks.hide()
    with stage("system"):
        _name_and_network(plan)
    with stage("filter"):  # what is left to do is nothing that it forbids
        prctl.set_no_new_privs()
        if plan.seccomp_program is not None:
            seccomp.install(plan.seccomp_program)
    if plan.standby:
        _stand_by(plan)
        stage.times.clear()
    with stage("confine"):
        _confine(plan)
    return stage.times


def _stand_by(plan: InitPlan) -> None:
    """Wait until the container is asked for, and take what it is to run (birth.py, _hand_over)."""
    _send(plan.sync, {"standby": True, "stages": []})
    data, fds, _, _ = socket.recv_fds(plan.sync, 1, 5)
    if data != b"A":
        os._exit(125)
    payload, stdin, stdout, stderr, *channel = fds
    with open(payload, "rb") as file:
        file.seek(0)
        body = json.load(file)
    plan.spec = ContainerSpec.from_dict(body["spec"])
    plan.environment = body["environment"]
    plan.stdio = stdin, stdout, stderr
    plan.channel = channel[0] if channel else None


def _expect(sync: socket.socket, wanted: bytes) -> None:
    if sync.recv(1) != wanted:  # the monitor is gone: so is this container
        os._exit(125)


def _become_root_inside(plan: InitPlan) -> None:
    signal.set_wakeup_fd(-1)
    default_signals()
    with contextlib.suppress(PermissionError):
        os.setgroups([])
    if plan.mapped:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    os.setsid()
    # After the ids: a change of credentials clears it (prctl(2)).
    prctl.set_pdeathsig(signal.SIGKILL)
    prctl.set_name("nsc-init")
    os.umask(0o022)
    if select.select([plan.sync], [], [], 0)[0] and not plan.sync.recv(1, socket.MSG_PEEK):
        os._exit(125)  # it died before the line above took effect
    if "cgroup" in plan.new_namespaces:
        # Only now: the cgroup the process is in when it unshares is the namespace's root.
        clone.unshare(clone.CLONE_NEWCGROUP)


def default_signals() -> None:
    """Undo what the monitor, and Python itself, ignore: it would last over the execve(2)."""
    for number in signal.valid_signals():
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)


def _detached_filesystems(plan: InitPlan) -> dict[str, int]:
    """Make the kernel's own filesystems, while the host's /proc is still in sight.

    A user namespace may mount procfs and sysfs only where a full one is visible
    (fs/namespace.c, mount_too_revealing).
    """
    nosuid = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV
    strict = nosuid | mount.MOUNT_ATTR_NOEXEC
    trees = {}
    if "pid" in plan.new_namespaces:
        trees["/proc"] = mount.new_filesystem("proc", attrs=strict, source="proc")
    else:
        trees["/proc"] = mount.open_tree("/proc", recursive=True)
    if plan.sysfs is not None:
        trees["/sys"] = plan.sysfs
    elif "net" in plan.new_namespaces or not plan.mapped:
        trees["/sys"] = mount.new_filesystem(
            "sysfs", attrs=strict | mount.MOUNT_ATTR_RDONLY, source="sysfs"
        )
    else:  # the network namespace isn't ours: sysfs can only be borrowed
        trees["/sys"] = mount.open_tree("/sys", recursive=True)
        mount.mount_setattr(trees["/sys"], set_=mount.MOUNT_ATTR_RDONLY | strict, recursive=True)
    trees["/dev"] = mount.new_filesystem(
        "tmpfs",
        {"mode": "0755", "size": "64k", "nr_inodes": "4k"},
        attrs=nosuid | mount.MOUNT_ATTR_NOEXEC,
        source="dev",
    )
    trees["/dev/pts"] = mount.new_filesystem(
        "devpts",
        {"newinstance": None, "ptmxmode": "0666", "mode": "0620"},
        attrs=mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC,
        source="devpts",
    )
    trees["/dev/shm"] = mount.new_filesystem(  # noqa: S108 - the container's own
        "tmpfs", {"mode": "1777", "size": str(SHM_BYTES)}, attrs=strict, source="shm"
    )
    if "ipc" in plan.new_namespaces:
        with contextlib.suppress(KernelError):  # CONFIG_POSIX_MQUEUE is not everywhere
            trees["/dev/mqueue"] = mount.new_filesystem("mqueue", attrs=strict, source="mqueue")
    for name in devices.NODES:
        trees[f"/dev/{name}"] = devices.checked_node(name)
    return trees


def _pivot(root: int) -> None:
    mount.pivot_root(root)
    os.close(root)
    if not os.getcwd().startswith("/"):  # CVE-2024-21626: "(unreachable)" would be the host's
        raise kernel_error(errno.EXDEV, "getcwd")


def _attach_filesystems(trees: dict[str, int], cgroups: dict[str, int]) -> None:
    root = Root()
    for path in ("/proc", "/sys", "/dev"):
        root.attach(trees.pop(path), path)
    for path, tree in trees.items():
        root.attach(tree, path, directory=path.rpartition("/")[2] not in devices.NODES)
    for name, target in devices.LINKS.items():
        os.symlink(target, f"/dev/{name}")
    _attach_cgroups(cgroups, root)
    os.close(root.fd)


def _own_cgroups(plan: InitPlan) -> dict[str, int]:
    """Clone the mounts of the container's own cgroups, read-only (CVE-2022-0492: never writable).

    The directories themselves and not new mounts of cgroupfs: a quarter of the calls, and nothing
    above them can be reached whatever the namespace says.
    """
    if "cgroup" not in plan.new_namespaces:
        return {}  # the host's whole tree is not the container's to see
    return {name: mount.open_tree(path) for name, path in plan.cgroup_paths.items()}


def _attach_cgroups(own: dict[str, int], root: Root) -> None:
    """Put the container's cgroups where a program looks for them."""
    attrs = (
        mount.MOUNT_ATTR_RDONLY
        | mount.MOUNT_ATTR_NOSUID
        | mount.MOUNT_ATTR_NODEV
        | mount.MOUNT_ATTR_NOEXEC
    )
    if not own:
        return
    if set(own) == {CGROUP2}:
        mount.mount_setattr(own[CGROUP2], set_=attrs)
        root.attach(own[CGROUP2], "/sys/fs/cgroup")
        return
    top = mount.new_filesystem("tmpfs", {"mode": "0755", "size": "64k"}, source="cgroup")
    root.attach(os.dup(top), "/sys/fs/cgroup")
    for name, tree in own.items():
        os.mkdir(f"/sys/fs/cgroup/{name}")
        mount.move_mount(tree, f"/sys/fs/cgroup/{name}")
        os.close(tree)
        for alias in name.split(",") if "," in name else ():
            os.symlink(name, f"/sys/fs/cgroup/{alias}")
    mount.mount_setattr(top, set_=attrs, recursive=True)
    os.close(top)


def _attach_files(plan: InitPlan) -> None:
    """Put the container's own name files over the init layer's empty ones: never committed."""
    tree = mount.new_filesystem(
        "tmpfs",
        {"mode": "0755", "size": "64k"},
        attrs=mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC,
        source="nscontainer",
    )
    root = Root()
    root.attach(os.dup(tree), OWN)
    # By the tree's fd: what the image has at a path of this name may be a link to anywhere.
    for own, (path, text) in plan.name_files.items():
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(own, flags, 0o644, dir_fd=tree)
        os.write(fd, text.encode())
        os.close(fd)
        with contextlib.suppress(FileNotFoundError):
            root.attach(mount.open_tree(own, dirfd=tree), path, directory=False)
    os.close(tree)
    os.close(root.fd)


def _attach_volumes(plan: InitPlan) -> None:
    root = Root(plan.made)
    # By fd, and before a volume may lie over one: the image's views, not what is mounted on them.
    frozen = [root.open(path) for path in plan.views] if plan.spec.read_only else []
    for tree, target in plan.volumes:
        is_directory = os.stat(tree).st_mode & 0o170000 == 0o040000
        root.attach(tree, target, directory=is_directory)
    for entry in plan.spec.mounts:
        if entry.type == "tmpfs":
            root.attach(_tmpfs(entry), entry.target)
    if plan.runner_tree is not None:
        root.attach(plan.runner_tree, RUNNER)
    os.close(root.fd)
    for fd in frozen:
        mount.mount_setattr(fd, set_=mount.MOUNT_ATTR_RDONLY)
        os.close(fd)


def _tmpfs(entry: Mount) -> int:
    options: dict[str, str | None] = {"mode": f"{0o1777 if entry.mode is None else entry.mode:o}"}
    if entry.size_bytes is not None:
        options["size"] = str(entry.size_bytes)
    options |= {
        name: str(number) for name in ("uid", "gid") if (number := getattr(entry, name)) is not None
    }
    attrs = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV
    attrs |= mount.MOUNT_ATTR_RDONLY if entry.read_only else 0
    attrs |= 0 if entry.exec else mount.MOUNT_ATTR_NOEXEC
    return mount.new_filesystem("tmpfs", options, attrs=attrs, source="tmpfs")


def _name_and_network(plan: InitPlan) -> None:
    if "uts" in plan.new_namespaces:
        try:
            socket.sethostname(plan.hostname)
        except OSError as error:
            raise kernel_error(error.errno or 0, "sethostname", plan.hostname) from None
    if "net" in plan.new_namespaces:
        net.loopback_up()


def _resource_limits(plan: InitPlan) -> None:
    for limit in plan.spec.limits.ulimits:
        rlimits.apply(limit.name, limit.soft, limit.hard)


def _confine(plan: InitPlan) -> None:
    """Give up everything the container is not to have. Nothing after this needs privilege."""
    account = users.resolve(plan.spec.user)
    plan.environment.setdefault("HOME", account.home)
    if plan.spec.tty:
        plan.stdio = _terminal(plan.sync)
    _standard_streams(plan)  # before the next line: no fd of the host is left to get out by
    _enter(plan.spec.workdir or "/")
    if plan.runner_tree is not None and "NSCONTAINER_PYTHON" not in plan.environment:
        check_python(plan.spec.image, plan.environment)
    _resource_limits(plan)  # after the set-up's own need of file descriptors
    become(account, plan.capabilities)


def _enter(workdir: str) -> None:
    """Go to the working directory, made where it is missing, by no magic link (CVE-2024-21626)."""
    root = Root()
    place = root.make(workdir, directory=True)
    os.close(root.fd)
    try:
        os.fchdir(place)
    except OSError as error:
        raise kernel_error(error.errno or 0, "fchdir", workdir) from None
    os.close(place)
    if not os.getcwd().startswith("/"):
        raise kernel_error(errno.EXDEV, "getcwd", workdir)


def become(account: users.Account, capabilities: frozenset[int]) -> None:
    """Become a user with at most these capabilities; a user other than root has none, as Docker."""
    if account.uid or account.gid or account.groups:
        caps.drop_bounding(capabilities)
        try:
            os.setgroups(list(account.groups))
            os.setresgid(account.gid, account.gid, account.gid)
            os.setresuid(account.uid, account.uid, account.uid)
        except OSError as error:  # an id that the user namespace doesn't have
            ids = ":".join(map(str, (account.uid, account.gid, *account.groups)))
            raise kernel_error(error.errno or 0, "setresuid", ids) from None
    caps.apply(capabilities if account.uid == 0 else frozenset(), capabilities)
    prctl.set_pdeathsig(signal.SIGKILL)
    prctl.set_no_new_privs()


def _terminal(sync: socket.socket) -> tuple[int, int, int]:
    """Make the container's own terminal; its master goes to the owner, by fd (pty(7)).

    The container never holds a terminal of the host's, so it can't push keys into it (TIOCSTI).
    """
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    socket.send_fds(sync, [json.dumps({"tty": True}).encode()], [master])
    os.close(master)
    return slave, slave, slave


def _standard_streams(plan: InitPlan) -> None:
    """Leave fds 0, 1, 2, the channel on 3, and the sync socket; nothing of the host's."""
    fds = [*plan.stdio, *(() if plan.channel is None else (plan.channel,)), plan.sync.fileno()]
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in fds]
    plan.sync.detach()
    try:
        for number, fd in enumerate(high):
            kept_over_exec = number < 3 or (number == CHANNEL_FD and plan.run_cell is None)
            last = number == len(high) - 1
            os.dup2(fd, number, inheritable=kept_over_exec and not last)
    except OSError:
        plan.sync = socket.socket(fileno=high[-1])  # to tell of it
        raise
    plan.channel = None if plan.channel is None else CHANNEL_FD
    plan.sync = socket.socket(fileno=len(high) - 1)
    close_range(len(high))
