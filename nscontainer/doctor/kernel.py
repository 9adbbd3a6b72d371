"""The doctor's trials of the Linux kernel itself. Runs in a process of its own, see `probe`."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
from collections.abc import Callable, Iterator
from typing import Final

from nscontainer.doctor import trial
from nscontainer.doctor.seen import Seen
from nscontainer.engine import rootfs, state
from nscontainer.errors import HostError
from nscontainer.linux import caps, clone, mount, net, prctl, seccomp, seccomp_profile, userns
from nscontainer.linux.procfs import mountinfo
from nscontainer.linux.syscalls import libc

ID_BASE: Final = 1_000_000
"""Where a trial maps ids to; any range does, for root may write any (user_namespaces(7))."""

_FEATURES: Final = (
    ((5, 12), "idmapped mounts"),
    ((5, 14), "cgroup.kill"),
    ((5, 19), "overlay on idmapped layers, memory.peak"),
    ((6, 3), "idmapped tmpfs"),
)
CLONE3: Final = "clone3 and pidfd"
NEEDED_CAPS: Final = (
    "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETPCAP SETUID SYS_ADMIN SYS_CHROOT".split()
)
_WHY_NAMESPACE: Final = {
    "mnt": "its files are apart from the host's",
    "uts": "it has a host name of its own",
    "ipc": "its shared memory and queues are apart from the host's",
    "pid": "it can't see or signal the host's processes",
    "net": "it is cut off from the network",
    "cgroup": "it doesn't see where it stands in the host's cgroup tree",
    "time": "its monotonic and boot clocks are not tied to the host's",
}


def version() -> tuple[int, int]:
    """Give the running Linux's version, as (6, 18)."""
    numbers = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def is_root() -> bool:
    """Tell whether the engine goes the way of the machine's root; else it enters a user namespace."""
    return userns.privileged() and caps.NUMBERS["CAP_SYS_ADMIN"] in caps.capget().effective


def linux() -> Iterator[Seen]:
    """Look at the version of Linux."""
    release, now = os.uname().release, version()
    later = [f"{a}.{b}: {what}" for (a, b), what in _FEATURES if now < (a, b)]
    if now >= (5, 19):
        yield Seen("Linux", "works", release, needed=True)
    elif now >= (5, 12):
        why = f"what came later is missing ({'; '.join(later)})"
        yield Seen("Linux", "limited", release, why, "linux-old", needed=True)
    else:
        why = "the engine's mounts need Linux 5.12, and 5.19 for all of it"
        yield Seen("Linux", "missing", release, why, "linux-old", needed=True)


def privileges() -> Iterator[Seen]:
    """Look at who we are and what we may do."""
    if os.geteuid() != 0:
        detail = (
            f"user id {os.geteuid()}: containers are made in a user namespace of this user's own"
        )
        yield Seen("privileges", "works", detail, needed=True)
        return
    effective = caps.capget().effective
    lacking = [c for c in NEEDED_CAPS if caps.NUMBERS[f"CAP_{c}"] not in effective]
    why = "this root is itself confined (a container), and goes the way of an ordinary user"
    if lacking:
        detail = f"root without CAP_{', CAP_'.join(lacking)}"
        yield Seen("privileges", "limited", detail, why, "caps", needed=True)
    elif not userns.privileged():
        detail = "root of a user namespace, not of the machine"
        yield Seen("privileges", "limited", detail, why, "caps", needed=True)
    elif caps.NUMBERS["CAP_SYS_RESOURCE"] not in effective:
        why = "--ulimit can't raise a hard limit over the one this process has"
        detail = "root without CAP_SYS_RESOURCE"
        yield Seen("privileges", "limited", detail, why, "sys-resource", needed=True)
    else:
        yield Seen("privileges", "works", "root, with every capability needed", needed=True)


def clone3() -> Iterator[Seen]:
    """Clone a child and wait for it by its pidfd."""
    try:
        pid, pidfd = clone.clone3(0, exit_signal=signal.SIGCHLD)
        if pid == 0:
            os._exit(0)
        ended = bool(select.select([pidfd], [], [], trial.TIMEOUT_S)[0])
        os.waitpid(pid, 0)
        os.close(pidfd)
    except OSError as error:
        why = "no process can be put into namespaces; a seccomp filter may forbid the call"
        yield Seen(CLONE3, "missing", error.strerror or str(error), why, "clone", needed=True)
        return
    detail = "a child was cloned, and its end seen by its pidfd"
    yield Seen(CLONE3, "works" if ended else "limited", detail, needed=True)


def user_namespace() -> Iterator[Seen]:
    """Make a user namespace and write its id map: where AppArmor says no, only the write fails."""
    if not is_root():
        yield from _own_user_namespace()
        return
    maps = f"0 {ID_BASE} {userns.IDS}\n"
    try:
        trial.run(os.getuid, flags=clone.CLONE_NEWUSER, maps=(maps, maps))
    except OSError as error:
        why, cause = _why_no_user_namespace()
        yield Seen("user namespace", "missing", str(error), why, cause, needed=True)
        return
    detail = f"made, its id map written ({userns.IDS} ids)"
    yield Seen("user namespace", "works", detail, needed=True)


def _own_user_namespace() -> Iterator[Seen]:
    """Enter one as an ordinary user's engine does, and mount in it: Ubuntu's AppArmor forbids only that."""
    try:
        ids = trial.run(_enter)
        if "error" in ids:
            raise trial.TrialError(0, "", ids["error"])
    except OSError as error:
        why, cause = _why_no_user_namespace()
        yield Seen("user namespace", "missing", str(error), why, cause, needed=True)
        return
    detail = f"entered, its id map written ({ids['count']} ids), a mount namespace made in it"
    yield Seen("user namespace", "works", detail, needed=True)
    if ids["kind"] == "single":
        why = "root inside is this user, and there is nobody else: files of others are nobody's"
        detail = ids["why"] or "one id alone"
        yield Seen("subordinate ids", "limited", detail, why, "subids")
    else:
        how = "by newuidmap and newgidmap" if ids["kind"] == "subordinate" else "of this namespace"
        yield Seen("subordinate ids", "works", f"{ids['count']} ids, {how}")


def _enter() -> dict[str, object]:
    try:
        ids = userns.enter()
    except HostError as error:
        return {"error": error.message}
    clone.unshare(clone.CLONE_NEWNS)
    mount.make_private()
    return {"kind": ids.kind, "count": ids.count, "why": ids.why}


def _why_no_user_namespace() -> tuple[str, str]:
    lost = "without it root inside is root outside"
    for path, bad, what, cause in (
        ("user/max_user_namespaces", "0", "user.max_user_namespaces is 0", "userns-max"),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone is 0",
         "userns-clone"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1",
         "AppArmor refuses it to programs without a profile", "userns-apparmor"),
    ):  # fmt: skip
        if read(f"/proc/sys/{path}") == bad and (cause == "userns-max" or not is_root()):
            return f"{lost}; {what}", cause
    return f"{lost}; this process is confined itself", "userns-confined"


def namespaces() -> Iterator[Seen]:
    """Make a namespace of each type."""
    for name, lost in _WHY_NAMESPACE.items():
        label = f"namespace {name}"
        needed = name in ("mnt", "pid")
        if not os.path.exists(f"/proc/self/ns/{name}"):
            why = f"with it, {lost}; this Linux is built without"
            yield Seen(label, "missing", "not in /proc/self/ns", why, "namespace", needed=needed)
            continue
        try:
            detail = _in_namespaces(_NAMESPACE_WORK.get(name, _nothing), clone.FLAGS[name])
        except OSError as error:
            why = f"with it, {lost}"
            yield Seen(label, "missing", str(error), why, f"namespace-{name}", needed=needed)
        else:
            yield Seen(label, "works", str(detail), needed=needed)


def _in_namespaces(work: Callable[[], object], flags: int) -> object:
    """Run in new namespaces: as root directly, else with a user namespace around."""
    if is_root():
        return trial.run(work, flags=flags)
    return trial.run(work, flags=flags | clone.CLONE_NEWUSER, maps=trial.own_id_maps())


def _nothing() -> str:
    return "made"


def _uts() -> str:
    import socket

    socket.sethostname("nscontainer-doctor")
    return "made, a host name set"


def _pid() -> str:
    if os.getpid() != 1:
        return "made, but not as pid 1"
    return "made, pid 1"


def _net() -> str:
    net.loopback_up()
    return "made, loopback up"


_NAMESPACE_WORK: Final[dict[str, Callable[[], object]]] = {"uts": _uts, "pid": _pid, "net": _net}


def own_proc() -> Iterator[Seen]:
    """Mount a procfs of a new pid namespace inside a user namespace, as every container does."""
    root = is_root()
    maps = (f"0 {ID_BASE} {userns.IDS}\n",) * 2 if root else trial.own_id_maps()
    flags = clone.CLONE_NEWUSER | clone.CLONE_NEWNS | clone.CLONE_NEWPID | clone.CLONE_NEWNET
    try:
        detail = trial.run(_mount_proc, flags=flags, maps=(maps[0], maps[1]))
    except OSError as error:
        why = "a container needs them; here something is mounted over the host's own /proc or /sys"
        yield Seen("own /proc and /sys", "missing", str(error), why, "proc", needed=True)
    else:
        yield Seen("own /proc and /sys", "works", str(detail), needed=True)


def _mount_proc() -> str:
    strict = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC
    # As the engine mounts them: where the host's own is read-only, a writable one is too revealing.
    for fstype, attrs in (("proc", strict), ("sysfs", strict | mount.MOUNT_ATTR_RDONLY)):
        os.close(mount.new_filesystem(fstype, attrs=attrs, source=fstype))
    return "mounted in a user namespace"


def storage_directory() -> str:
    """Give the state directory, or its nearest ancestor that there is."""
    path = state.state_dir()
    while not os.path.isdir(path):
        path = os.path.dirname(path) or "/"
    return path


def filesystem_of(path: str) -> str:
    """Name the type of the filesystem a path lies on."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    found = [m for m in mountinfo() if m.device == wanted]
    if not found:  # btrfs subvolumes show other device numbers: take the longest mount point
        found = [m for m in mountinfo() if (path + "/").startswith(m.target.rstrip("/") + "/")]
    return max(found, key=lambda m: len(m.target)).fstype if found else "unknown"


@contextlib.contextmanager
def scratch() -> Iterator[str]:
    """Make a directory beside where containers live, for as long as a trial takes."""
    path = f"{storage_directory()}/.nscontainer-doctor-{os.getpid()}"
    os.mkdir(path, 0o700)
    try:
        yield path
    finally:
        for directory, names, _ in os.walk(path):
            for name in names:  # before it is gone into: overlayfs makes work/work of mode 000
                with contextlib.suppress(OSError):
                    os.chmod(f"{directory}/{name}", 0o700)
        for _ in range(3):  # what is still being written to when it is removed needs another go
            shutil.rmtree(path, ignore_errors=True)


def layers() -> Iterator[Seen]:
    """Mount an overlay where containers live: plain, and on idmapped layers as the engine does."""
    where = storage_directory()
    kind = filesystem_of(where)
    try:
        with scratch() as path:
            yield from _overlays(path, kind)
    except OSError as error:
        why = "containers' writes go there"
        detail = f"{where} ({kind}): {error.strerror}"
        yield Seen("state directory", "missing", detail, why, "state-dir", needed=True)
    else:
        yield Seen("state directory", "works", f"{state.state_dir()} ({kind})", needed=True)


def _overlays(path: str, kind: str) -> Iterator[Seen]:
    for name in ("lower", "lower/dir", "rw", "rw/upper", "rw/work", "rw2", "rw2/upper", "rw2/work",
                 "top"):  # fmt: skip
        os.mkdir(f"{path}/{name}", 0o755)
    plain_works = False
    userxattr = not is_root()
    try:
        _in_namespaces(lambda: _overlay(path, "rw", None, userxattr=userxattr), clone.CLONE_NEWNS)
    except OSError as error:
        why = f"a container's root unites layers by overlayfs; {kind} may not serve as the upper"
        yield Seen("overlay", "missing", str(error), why, _overlay_cause(), needed=True)
    else:
        plain_works = True
        yield Seen("overlay", "works", f"mounted and written to, on {kind}", needed=True)
    name = "idmapped layers"
    if not is_root():
        yield Seen(name, "works", "not needed: files are owned by the user namespace's own ids")
        return
    try:
        id_map = rootfs.make_id_map_namespace(ID_BASE)
    except OSError as error:
        yield Seen(name, "missing", str(error), "they need a user namespace", "caps")
        return
    try:
        trial.run(lambda: _overlay(path, "rw2", id_map, userxattr=False), flags=clone.CLONE_NEWNS)
    except OSError as error:
        why = "without them files are seen as nobody's, or need a chowned copy"
        cause = "linux-old" if version() < (5, 19) else "state-dir"
        yield Seen(name, "missing" if plain_works else "limited", str(error), why, cause)
    else:
        yield Seen(name, "works", f"overlay mounted on them, on {kind}")
    finally:
        os.close(id_map)


def _overlay_cause() -> str:
    if "overlay" not in (read("/proc/filesystems") or ""):
        return "overlay-module"
    return "overlay-upper"


def _overlay(path: str, rw: str, id_map: int | None, *, userxattr: bool) -> str:
    """Mount, write through it, and see the file arrive in the upper layer, owned as it should be."""
    mount.make_private()
    if id_map is not None:
        for layer in ("lower", rw):
            fd = mount.open_tree(f"{path}/{layer}")
            mount.mount_setattr(fd, userns_fd=id_map)
            mount.move_mount(fd, f"{path}/{layer}")
            os.close(fd)
    options: dict[str, str | None] = {
        "lowerdir": f"{path}/lower",
        "upperdir": f"{path}/{rw}/upper",
        "workdir": f"{path}/{rw}/work",
    }
    if userxattr:
        options["userxattr"] = None
    with _file_owner(0 if id_map is None else ID_BASE):
        fd = mount.new_filesystem("overlay", options, source="nscontainer-doctor")
    root = _mount_top(fd, path)
    upper = os.open(f"{path}/{rw}/upper", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if id_map is not None:  # be who root inside is: outside of the map nobody can write
        os.setgroups([])
        os.setresgid(ID_BASE, ID_BASE, ID_BASE)
        os.setresuid(ID_BASE, ID_BASE, ID_BASE)
    os.mkdir("dir/new", dir_fd=root)
    owner = os.stat("dir/new", dir_fd=upper).st_uid
    if owner != os.geteuid():
        raise trial.TrialError(0, "overlay", f"what was written belongs to {owner}")
    return "mounted"


@contextlib.contextmanager
def _file_owner(uid: int) -> Iterator[None]:
    """Make what this thread makes somebody else's, its capabilities kept.

    overlayfs makes its work directory as who mounted it, and the host's root isn't in an id map
    (EOVERFLOW, and the overlay is read-only).
    """
    if uid == 0:
        yield
        return
    held = caps.capget()
    libc.setfsgid(uid)
    libc.setfsuid(uid)
    caps.capset(held)  # setfsuid took those away that are about files, see capabilities(7)
    try:
        yield
    finally:
        libc.setfsuid(0)
        libc.setfsgid(0)


def _mount_top(fd: int, path: str) -> int:
    """Attach a mount at ``top`` and give an fd of its root."""
    mount.move_mount(fd, f"{path}/top")
    os.close(fd)
    return os.open(f"{path}/top", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def system_call_filter() -> Iterator[Seen]:
    """Compile the default profile and install it in a child."""
    why = "system calls that a container has no business with can't be filtered"
    usual = frozenset(caps.DOCKER_DEFAULT)
    try:
        program = seccomp.compile_profile(seccomp_profile.DEFAULT, caps=usual, kernel=version())
    except OSError as error:
        detail = f"{error.strerror or error}"
        yield Seen("seccomp", "missing", detail, why, "libseccomp", needed=True)
        return
    try:
        trial.run(lambda: _filtered(program))
    except OSError as error:
        yield Seen("seccomp", "missing", str(error), why, "caps", needed=True)
    else:
        detail = f"the default filter ({len(program) // 8} instructions) holds a child"
        yield Seen("seccomp", "works", detail, needed=True)


def _filtered(program: bytes) -> str:
    prctl.set_no_new_privs()
    seccomp.install(program)
    try:
        clone.unshare(clone.CLONE_NEWUSER)
    except OSError:
        return "refused as it should be"
    raise trial.TrialError(0, "seccomp", "the filter let unshare through")


def read(path: str, default: str | None = None) -> str:
    """Read a small text file, stripped; the default (or "") where it can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return default or ""
