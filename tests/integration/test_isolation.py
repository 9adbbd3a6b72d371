"""What a container is: what a process inside sees and may do, looked at from inside and outside."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from nscontainer import api, spec
from nscontainer.engine import devices
from nscontainer.engine.container import Container
from nscontainer.engine.masks import MASKED, READ_ONLY
from nscontainer.errors import NsContainerError
from nscontainer.linux.caps import DOCKER_DEFAULT, NUMBERS
from tests.integration.inside import PYTHON, SLEEP, ask, ask_cell, eventually

pytestmark = [pytest.mark.root, pytest.mark.userns, pytest.mark.usefixtures("engine")]

PROBE = f"MASKED = {MASKED!r}\n" + Path(__file__).with_name("probe.py").read_text()
NAMESPACES = ("mnt", "uts", "ipc", "pid", "net", "user", "cgroup", "time")
REFUSED = {"EPERM", "EACCES", "EROFS"}


@dataclasses.dataclass(frozen=True)
class Seen:
    """What one container's process saw of itself."""

    way: str
    facts: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        return self.facts[name]

    @property
    def mapped(self) -> bool:
        return self.way != "unmapped"


@pytest.fixture(scope="module", params=["command", "cell", "unmapped"])
def seen(request: pytest.FixtureRequest, engine: Path) -> Seen:
    """Look from a command, from a cell cloned from the zygote, and without a user namespace."""
    if request.param == "cell":
        return Seen("cell", ask_cell(PROBE))
    share = ["user"] if request.param == "unmapped" else []
    return Seen(request.param, ask(PROBE, share=share))


def host_namespaces() -> dict[str, int]:
    return {n: os.stat(f"/proc/self/ns/{n}").st_ino for n in NAMESPACES if hasns(n)}


def hasns(name: str) -> bool:
    return os.path.exists(f"/proc/self/ns/{name}")


# --- namespaces --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMESPACES)
def test_each_namespace_is_the_containers_own(seen: Seen, name: str) -> None:
    """None of the eight namespaces inside is the host's (but the user's where it is shared)."""
    if not hasns(name):
        pytest.skip("this Linux has no such namespace")
    same = seen.namespaces[name] == host_namespaces()[name]
    assert same == (name == "user" and not seen.mapped)


@pytest.mark.parametrize("name", [n for n in NAMESPACES if n != "mnt"])
def test_each_namespace_can_be_shared(name: str) -> None:
    """With ``share`` that namespace, and no other, is the host's, and the result says so."""
    if not hasns(name):
        pytest.skip("this Linux has no such namespace")
    source = "tell({n: os.stat(f'/proc/self/ns/{n}').st_ino for n in os.listdir('/proc/self/ns')})"
    result = api.run([*PYTHON, f"import json, os\ntell = lambda v: print(json.dumps(v))\n{source}"],
                     share=[name])  # fmt: skip
    inside = json.loads(result.stdout)
    assert {n for n, inode in host_namespaces().items() if inside[n] == inode} == {name}
    shared = {n for n, kind in result.isolation.namespaces.items() if kind == "host"}
    assert shared == {name}


def test_network_host_is_the_hosts_network() -> None:
    """``network="host"`` shares the network namespace: the same interfaces."""
    inside = ask("tell([os.stat('/proc/self/ns/net').st_ino, [n for _, n in socket.if_nameindex()]])",
                 network="host")  # fmt: skip
    host = [n for _, n in socket.if_nameindex()]
    assert inside == [os.stat("/proc/self/ns/net").st_ino, host]


def test_the_mount_namespace_cannot_be_shared() -> None:
    """Sharing ``mnt`` would be no container: an error, and not a silent choice."""
    with pytest.raises(NsContainerError, match="mount namespace"):
        api.run(["true"], share=["mnt"])


def test_root_inside_is_nobody_outside() -> None:
    """The host sees the container's root as an id without account, in every id of the process."""
    container = Container.create(spec.build(SLEEP), start=True)
    (pid,) = eventually(container.pids)
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    ids = {line.split()[0]: {int(i) for i in line.split()[1:]} for line in status
           if line.startswith(("Uid:", "Gid:"))}  # fmt: skip
    uid_map = Path(f"/proc/{pid}/uid_map").read_text(encoding="ascii").split()
    container.kill()
    base = int(uid_map[1])
    assert ids == {"Uid:": {base}, "Gid:": {base}}
    assert base >= 1 << 16
    assert uid_map[0] == "0"
    assert container.wait()["isolation"]["user_map"] == [0, base, int(uid_map[2])]


def test_every_spawner_has_ids_of_its_own(engine: Path) -> None:
    """Two notebooks' containers have no id in common: one can't so much as signal the other's."""
    from nscontainer.engine import spawner_client

    maps = []
    for _ in range(2):
        maps.append(int(ask("tell(open('/proc/self/uid_map').read().split())")[1]))
        spawner_client.shutdown()
    assert abs(maps[0] - maps[1]) >= 1 << 16


def test_the_time_namespace_shows_the_hosts_clocks(seen: Seen) -> None:
    """The time namespace is there, with its offsets at nought."""
    if not hasns("time"):
        pytest.skip("this Linux has no such namespace")
    assert set(seen.timens_offsets.split()) == {"monotonic", "boottime", "0"}


# --- the root filesystem and the kernel's own ---------------------------------------------------


def test_the_old_root_is_out_of_reach(seen: Seen) -> None:
    """After pivot_root the root has nothing above it, and /proc/1/root is that root."""
    assert seen.same_root
    assert seen.cwd.startswith("/")
    targets = [line.split()[4] for line in seen.mounts]
    assert targets.count("/") == 1


def test_no_mount_of_the_hosts_is_there(seen: Seen) -> None:
    """Every mount inside is an overlay or one of the kernel's own, but for the six device nodes."""
    kinds = {(line.partition(" - ")[2].split()[0], line.split()[4]) for line in seen.mounts}
    ours = {"overlay", "proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"}
    foreign = {target for kind, target in kinds if kind not in ours}
    assert foreign <= {f"/dev/{name}" for name in devices.NODES} | set(MASKED)
    assert ("tmpfs", "/dev") in kinds


def test_every_mount_refuses_devices(seen: Seen) -> None:
    """``nodev`` is on every mount but the nodes, devpts and the masks of /dev/null."""
    bare = {line.split()[4] for line in seen.mounts if "nodev" not in line.split()[5].split(",")}
    assert bare <= {f"/dev/{n}" for n in (*devices.NODES, "pts")} | set(MASKED)


def test_only_own_processes_are_seen(seen: Seen) -> None:
    """/proc shows this container's processes and none besides: one, itself the first."""
    assert seen.pids == [seen.pid] == [1]


def test_dev_is_minimal(seen: Seen) -> None:
    """/dev has exactly the six nodes, the links and the three filesystems of a container."""
    nodes = {n: ["c", *number] for n, number in devices.NODES.items()}
    folders = {"pts", "shm", "mqueue"} if "mqueue" in seen.nodes else {"pts", "shm"}
    assert {n: v for n, v in seen.nodes.items() if n not in folders} == nodes | devices.LINKS
    assert set(seen.nodes) == set(devices.NODES) | set(devices.LINKS) | folders
    assert seen.nodes["pts"] == ["ptmx"]


def test_each_device_works(seen: Seen) -> None:
    """The nodes do what they are for; there is no terminal, and a pty is the container's own."""
    did = seen.devices
    zeros = "00" * 16
    assert (did["null"], did["zero"], did["full"]) == (["", 1], zeros, [zeros, "ENOSPC"])
    assert did["random"] > 4
    assert did["urandom"] > 4
    assert did["tty"] == "ENXIO"
    assert did["stdout"] is True
    assert did["pty"] == "/dev/pts/0"


def test_a_node_made_inside_opens_nothing(seen: Seen) -> None:
    """mknod is refused in a user namespace; without one the node is made but ``nodev`` shuts it."""
    wanted = "EPERM" if seen.mapped else "EACCES"
    assert set(seen.made_nodes.values()) == {wanted}


def test_sys_is_read_only(seen: Seen) -> None:
    """Everything at and below /sys is mounted read-only."""
    below = [line.split() for line in seen.mounts if line.split()[4].startswith("/sys")]
    writable = [f[4] for f in below if "ro" not in f[5].split(",") and f[4] not in MASKED]
    assert writable == []
    assert any(f[4] == "/sys" for f in below)


def test_masked_paths_are_empty(seen: Seen) -> None:
    """What Docker masks reads as nothing or not at all."""
    assert seen.masked, "this Linux has none of the masked paths: the test sees nothing"
    assert all(value in ("", [], "!EACCES") for value in seen.masked.values()), seen.masked


def test_the_kernels_settings_cannot_be_written(seen: Seen) -> None:
    """core_pattern, sysctls, IRQs and /sys: read-only, even for the host's own root inside."""
    assert "/proc/sys/kernel/core_pattern" in seen.writes
    allowed = REFUSED if seen.mapped else {"EROFS"}
    assert set(seen.writes.values()) <= allowed, seen.writes
    options = {line.split()[4]: line.split()[5].split(",") for line in seen.mounts}
    assert all("ro" in options[path] for path in READ_ONLY if os.path.exists(path))


def test_cgroups_are_its_own_and_read_only(seen: Seen) -> None:
    """CVE-2022-0492: no directory can be made and no file written below /sys/fs/cgroup."""
    assert {line.split(":", 2)[2] for line in seen.cgroup} == {"/"}
    assert len(seen.cgroup_files) > 3
    allowed = REFUSED if seen.mapped else {"EROFS"}
    assert set(seen.cgroup_files.values()) <= allowed, seen.cgroup_files


def test_shm_is_private_and_bounded(seen: Seen) -> None:
    """/dev/shm is empty and holds 64 MiB, as Docker's."""
    assert seen.shm == [64 << 20, []]


def test_the_host_name_is_the_containers(seen: Seen) -> None:
    """The UTS name, /etc/hostname and /etc/hosts agree, and aren't the host's."""
    name, in_file = seen.hostname
    assert name == in_file != socket.gethostname()
    assert name in seen.hosts


def test_runtime_sockets_of_the_host_are_not_there(seen: Seen) -> None:
    """/run (docker.sock, D-Bus) is the container's own, with nothing of the host's in it."""
    assert set(seen.run) <= {"nscontainer", "lock", "shm"}


# --- network -----------------------------------------------------------------------------------


def test_network_none_is_loopback_alone(seen: Seen) -> None:
    """Only ``lo``, up; 127.0.0.1 carries; there is no route out."""
    network = seen.network
    assert list(network["flags"]) == ["lo"]
    assert network["flags"]["lo"] & 1
    assert network["said"] == "word"
    assert network["routes"] == 0
    assert network["outside"] == "ENETUNREACH"


def test_abstract_sockets_of_the_host_are_out_of_reach(seen: Seen) -> None:
    """An abstract Unix socket listening outside isn't there inside, as it is with network=host."""
    assert seen.network["abstract"] == 0
    name = f"\0nsc-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        source = f"tell(answer(socket.socket(socket.AF_UNIX).connect, {name!r}))"
        assert ask(source) == "ECONNREFUSED"
        assert ask(source, network="host") is None


# --- privileges --------------------------------------------------------------------------------


def masks(status: dict[str, str]) -> dict[str, int]:
    return {name: int(status[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")}


def bits(names: Iterable[str]) -> int:
    return sum(1 << NUMBERS[name] for name in names)


DOCKERS = bits(DOCKER_DEFAULT)
STATUS = "tell(dict(l.split(':\\t', 1) for l in open('/proc/self/status') if ':\\t' in l))"


def test_capabilities_are_dockers_fourteen(seen: Seen) -> None:
    """Docker's 14, and no more; none inheritable (CVE-2022-24769) or ambient."""
    assert len(DOCKER_DEFAULT) == 14
    assert masks(seen.status) == {
        "Inh": 0,
        "Prm": DOCKERS,
        "Eff": DOCKERS,
        "Bnd": DOCKERS,
        "Amb": 0,
    }


@pytest.mark.parametrize(
    ("options", "held"),
    [
        ({"cap_drop": ["ALL"]}, ()),
        ({"cap_drop": ["ALL"], "cap_add": ["CHOWN"]}, ("CAP_CHOWN",)),
        ({"cap_add": ["NET_ADMIN"]}, (*DOCKER_DEFAULT, "CAP_NET_ADMIN")),
        ({"cap_drop": ["cap_mknod"]}, tuple(c for c in DOCKER_DEFAULT if c != "CAP_MKNOD")),
    ],
)
def test_capabilities_follow_the_options(options: dict[str, Any], held: tuple[str, ...]) -> None:
    """--cap-add and --cap-drop give what is asked: in force, and as the ceiling."""
    found = masks(ask(STATUS, **options))
    assert found == {"Inh": 0, "Prm": bits(held), "Eff": bits(held), "Bnd": bits(held), "Amb": 0}


def test_an_ordinary_user_has_no_capabilities() -> None:
    """``user="nobody"``: its ids and groups are nobody's, and it holds nothing."""
    text = api.run(["cat", "/proc/self/status"], user="nobody").stdout
    status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    found = masks(status)
    assert (found["Prm"], found["Eff"], found["Amb"]) == (0, 0, 0)
    assert status["Uid"].split() == ["65534"] * 4
    assert set(status["Groups"].split()) <= {"65534"}


def test_nothing_new_can_be_gained(seen: Seen) -> None:
    """no_new_privs is set and a seccomp filter is in force, in cells and commands alike."""
    assert seen.status["NoNewPrivs"].strip() == "1"
    assert seen.status["Seccomp"].strip() == "2"


def test_a_set_uid_program_gains_nothing() -> None:
    """A set-uid root program that nobody executes still runs as nobody, with no capability."""
    source = """
import shutil
shutil.copy("/usr/bin/cat", "/usr/local/bin/rootcat")
os.chmod("/usr/local/bin/rootcat", 0o4755)
os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
r, w = os.pipe()
if os.fork() == 0:
    os.dup2(w, 1)
    os.execv("/usr/local/bin/rootcat", ["rootcat", "/proc/self/status"])
os.close(w)
text = open(r).read()
tell(dict(l.split(':\\t', 1) for l in text.splitlines() if ':\\t' in l))
"""
    status = ask(source)
    assert status["Uid"].split() == ["65534"] * 4
    assert masks(status)["Eff"] == 0


def test_dangerous_system_calls_are_refused(seen: Seen) -> None:
    """Mounts, namespaces, modules, keys, BPF, io_uring …: EPERM by the filter, clone3 ENOSYS."""
    expected = dict.fromkeys(seen.calls, "EPERM") | {"clone3": "ENOSYS"}
    assert seen.calls == expected
    assert seen.namespace_calls == {"unshare": "EPERM", "clone": "EPERM"}


def test_the_filter_is_what_refuses() -> None:
    """Without the filter the same calls fail otherwise or not at all: the test above sees it."""
    found = ask(
        "x86 = os.uname().machine == 'x86_64'\n"
        "tell([raw(272 if x86 else 97, 0), raw(250 if x86 else 219, 0, 0), raw(435, 0, 0)])",
        seccomp="unconfined",
    )
    assert found[0] == 0  # unshare of nothing
    assert found[1] != "EPERM"  # keyctl
    assert found[2] == "EINVAL"  # clone3


def test_another_containers_processes_are_out_of_reach() -> None:
    """Two containers run at once: neither sees the other, nor can signal it by any pid."""
    other = Container.create(spec.build(SLEEP), start=True)
    (pid,) = eventually(other.pids)
    source = f"tell([os.listdir('/proc').count('{pid}'), answer(os.kill, {pid}, 9)])"
    assert ask(source) == [0, "ESRCH"]
    other.kill()
    other.wait()


def test_the_hosts_processes_are_out_of_reach_even_in_its_pid_namespace() -> None:
    """With ``share=["pid"]`` the host's processes are seen, but not signalled, read or traced."""
    mine = os.getpid()
    source = f"""
tell([os.path.exists("/proc/{mine}"), answer(os.kill, {mine}, 0),
      answer(open, "/proc/{mine}/environ", "rb"), answer(os.listdir, "/proc/{mine}/fd"),
      answer(os.listdir, "/proc/{mine}/root"), answer(os.readlink, "/proc/{mine}/exe")])
"""
    assert ask(source, share=["pid"]) == [True, "EPERM", *["EACCES"] * 4]


# --- limits that are not the cgroup's, and standard streams ------------------------------------


def test_ulimits_hold() -> None:
    """``ulimits`` are the soft and hard limits inside."""
    source = "import resource; tell(resource.getrlimit(resource.RLIMIT_NOFILE))"
    assert ask(source, ulimits=["nofile=123:456"]) == [123, 456]


def test_signals_are_at_their_defaults() -> None:
    """A command starts with no signal ignored or blocked, whatever the engine had set."""
    result = api.run(["grep", "-E", "^Sig(Ign|Blk)|^ShdPnd", "/proc/self/status"])
    values = [int(line.split()[1], 16) for line in result.stdout.splitlines()]
    # glibc's own two, which posix_spawn leaves ignored and sigaction can't change (nptl, SIGCANCEL).
    internal = 1 << 31 | 1 << 32
    assert len(values) == 3
    assert not any(value & ~internal for value in values), result.stdout


def test_open_files_of_the_owner_stay_outside(seen: Seen) -> None:
    """Only 0, 1, 2 (and a cell's channel) are open, though the owner's files were inheritable."""
    allowed = {"0", "1", "2", "3"} if seen.way == "cell" else {"0", "1", "2"}
    assert set(seen.fds) <= allowed
    others = {target for target in seen.fds.values() if not target.startswith(("pipe:", "socket:"))}
    assert others <= {"/dev/null"}


@pytest.mark.parametrize("runner", [ask, ask_cell])
def test_inheritable_files_stay_outside(runner: Callable[..., Any], tmp_path: Path) -> None:
    """A file and a directory that the owner holds open, inheritable, are not open inside."""
    fds = [os.open(tmp_path, os.O_RDONLY), os.open("/etc/passwd", os.O_RDONLY)]
    for fd in fds:
        os.set_inheritable(fd, True)  # noqa: FBT003
    try:
        source = """
tell([os.readlink(f"/proc/self/fd/{n}") for n in "012"]
     + [n for n in range(3, 99) if answer(os.fstat, n) is None])
"""
        found = runner(source, share=["uts"])
    finally:
        for fd in fds:
            os.close(fd)
    assert found[3:] in ([], [3])
    assert str(tmp_path) not in str(found)


def test_no_controlling_terminal(engine: Path) -> None:
    """CVE-2017-5226: an owner in a terminal gives none to the container: TIOCSTI has no target."""
    import pty

    source = (
        "from nscontainer import api; import sys\n"
        "print(open('/dev/tty').fileno())\n"
        "r = api.run(['sh', '-c', '(exec 3<>/dev/tty) || echo none'])\n"
        "print(r.stdout, r.stderr)\n"
    )
    child, master = pty.fork()
    if child == 0:
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
        os.execv(PYTHON[0], [PYTHON[0], "-c", source])
    said = b""
    while True:
        try:
            data = os.read(master, 4096)
        except OSError:
            break
        if not data:
            break
        said += data
    os.close(master)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, said
    assert b"none" in said


def test_the_record_says_how_isolated_it_was() -> None:
    """``result.isolation`` names each namespace, the capabilities and the filter as they are."""
    isolation = api.run(["true"]).isolation
    assert {n for n, kind in isolation.namespaces.items() if kind == "private"} == {
        n for n in NAMESPACES if hasns(n)
    }
    assert set(isolation.capabilities or ()) == set(DOCKER_DEFAULT)
    assert isolation.no_new_privs
    assert "default" in (isolation.seccomp or "")
