"""Past escapes from containers, each tried here; and what a hostile container may send."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nscontainer import api, spec
from nscontainer.engine.container import Container
from nscontainer.errors import NotFoundError, NsContainerError, SetupError, SpecError
from tests.integration.inside import (
    PRELUDE,
    PYTHON,
    ROOT,
    SLEEP,
    ask,
    ask_cell,
    eventually,
    holdings,
)

pytestmark = [pytest.mark.root, pytest.mark.userns, pytest.mark.usefixtures("engine")]

# --- CVE-2019-5736, CVE-2016-9962: the engine's own program and process ------------------------


def test_the_zygotes_program_cannot_be_written(engine: Path) -> None:
    """CVE-2019-5736: a cell's /proc/self/exe, the host's python3, can't be opened for writing."""
    program = Path(os.path.realpath(sys.executable))
    before = (program.stat().st_mtime_ns, program.stat().st_mode, program.stat().st_uid)
    found = ask_cell("""
program = os.path.realpath("/proc/self/exe")
def reopened():
    fd = os.open("/proc/self/exe", os.O_PATH)
    os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
tell([answer(os.open, "/proc/self/exe", os.O_WRONLY), answer(os.open, "/proc/self/exe", os.O_RDWR),
      answer(os.chmod, "/proc/self/exe", 0o4777), answer(os.chown, "/proc/self/exe", 0, 0),
      answer(os.setxattr, "/proc/self/exe", "user.x", b"1"), answer(reopened),
      answer(os.open, "/proc/self/map_files/" + os.listdir("/proc/self/map_files")[0], os.O_RDONLY)])
""")
    assert all(said in {"EACCES", "EPERM", "EROFS", "ETXTBSY"} for said in found), found
    assert (program.stat().st_mtime_ns, program.stat().st_mode, program.stat().st_uid) == before


@pytest.mark.once
def test_without_a_user_namespace_a_cell_starts_cold() -> None:
    """CVE-2019-5736: root inside being root outside, no process of the zygote's is handed over."""
    result = api.run_cell("import os; os.open('/proc/self/exe', os.O_WRONLY)", share=["user"])
    assert result.start_mode == "cold"
    assert result.exit_code == 1
    mapped = api.run_cell("pass")
    assert mapped.start_mode == "zygote"


WATCHER = """
PROGRAMS = {"/usr/bin/sleep", "/usr/bin/touch", "/usr/bin/coreutils", "/usr/bin/busybox"}
seen, leaked = {}, []
print("ready", flush=True)
end = time.monotonic() + 60
while time.monotonic() < end and not os.path.exists("/tmp/stop"):
    for name in set(os.listdir("/proc")) - {"1"}:
        if not name.isdigit():
            continue
        for what, call in (
            ("exe", lambda: os.close(os.open(f"/proc/{name}/exe", os.O_RDONLY))),
            ("fd", lambda: os.readlink(f"/proc/{name}/fd/0")),
            ("mem", lambda: os.close(os.open(f"/proc/{name}/mem", os.O_RDONLY))),
            ("root", lambda: os.listdir(f"/proc/{name}/root/")),
            ("cwd", lambda: os.listdir(f"/proc/{name}/cwd/")),
            ("environ", lambda: open(f"/proc/{name}/environ", "rb").read(1)),
            ("ptrace", lambda: trace(int(name))),
        ):
            said = answer(call)
            try:
                program = os.readlink(f"/proc/{name}/exe")
            except OSError as error:
                program = errno.errorcode[error.errno]
            if said in ("EPERM", "EACCES"):
                seen[what] = seen.get(what, 0) + 1
            elif said is None and program not in PROGRAMS | {"ENOENT", "ESRCH"}:
                leaked.append([what, program])  # neither the command itself nor its end
tell([seen, leaked])
"""
TRACE = """
def trace(pid):
    "process_vm_readv: the check that ptrace makes, without stopping anything."
    number = 310 if os.uname().machine == "x86_64" else 270
    here = (ctypes.c_char * 1)()
    iov = (ctypes.c_long * 2)(ctypes.addressof(here), 1)
    if libc.syscall(number, pid, iov, 1, iov, 1, 0) < 0 and ctypes.get_errno() != errno.EFAULT:
        raise OSError(ctypes.get_errno(), "process_vm_readv")
"""


@pytest.mark.parametrize("share", [[], ["user"]], ids=["mapped", "unmapped"])
def test_a_process_being_executed_cannot_be_looked_into(share: list[str]) -> None:
    """CVE-2016-9962, 2019-5736: before its execve, exec's process can't be looked into."""
    said: list[bytes] = []
    container = Container.create(
        spec.build([*PYTHON, PRELUDE + TRACE + WATCHER], share=share), start=True
    )
    driver = threading.Thread(target=lambda: container.drive(on_stdout=said.append), daemon=True)
    driver.start()
    try:
        assert eventually(lambda: b"ready" in b"".join(said))
        for _ in range(40):
            assert container.exec(["sleep", "0"]).exit_code == 0
    finally:
        container.exec(["touch", "/tmp/stop"])
        driver.join(30)
    seen, leaked = json.loads(b"".join(said).split(b"\n", 1)[1])
    assert seen, "the watcher was never quick enough to see one: the test saw nothing"
    assert leaked == []


# --- CVE-2024-21626: a working directory or an fd outside --------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("number", [*range(3, 26), 64, 65, 66])
def test_a_working_directory_through_an_fd_is_refused(number: int) -> None:
    """CVE-2024-21626: ``workdir="/proc/self/fd/N"`` never ends in a directory of the host."""
    with pytest.raises(SetupError, match=f"/proc/self/fd/{number}: ") as caught:
        Container.create(spec.build(["true"], workdir=f"/proc/self/fd/{number}"))
    assert caught.value.stage == "confine"


def test_a_working_directory_behind_a_link_of_the_images_stays_inside(tmp_path: Path) -> None:
    """CVE-2024-21626 by an image: a link to the engine's fds, or up and out, leads nowhere."""
    (tmp_path / "fd").symlink_to("/proc/self/fd/7")
    (tmp_path / "up").symlink_to("../" * 30 + "etc")
    with pytest.raises(SetupError, match="confine"):
        Container.create(spec.build(["true"], workdir="/v/fd", volumes=[f"{tmp_path}:/v"]))
    result = api.run(["sh", "-c", "pwd -P; ls -d /etc/shadow"], workdir="/v/up",
                     volumes=[f"{tmp_path}:/v"])  # fmt: skip
    assert result.stdout.split() == ["/etc"]  # the container's own, without the host's shadow


@pytest.mark.once
@pytest.mark.parametrize("number", [0, 3, 4, 7, 8, 9])
def test_an_executed_commands_working_directory_stays_inside(number: int) -> None:
    """CVE-2024-21626 by exec: the joining process has no fd that a workdir could name."""
    container = Container.create(spec.build(SLEEP), start=True)
    try:
        done = container.exec(["pwd", "-P"], workdir=f"/proc/self/fd/{number}")
        assert done.exit_code != 0, done
    finally:
        container.kill()
        container.wait()


def test_executed_commands_get_no_file_of_the_engines() -> None:
    """What exec starts has 0, 1, 2 open and nothing besides; its directory is the container's."""
    container = Container.create(spec.build(SLEEP), start=True)
    source = "tell([[n for n in range(99) if answer(os.fstat, n) is None], os.getcwd()])"
    try:
        done = container.exec([*PYTHON, PRELUDE + source])
    finally:
        container.kill()
        container.wait()
    assert json.loads(done.stdout) == [[0, 1, 2], "/"]


# --- CVE-2025-31133 and its like: what is mounted, and where -----------------------------------

FALSE_NULL = """
import os, sys
from nscontainer.engine import devices
from nscontainer.linux import clone, mount
clone.unshare(clone.CLONE_NEWNS)
mount.make_private()
devices.checked_node("null")
print("as it should be")
mount.move_mount(mount.open_tree(sys.argv[1]), "/dev/null")
try:
    devices.checked_node("null")
except OSError as error:
    print(error.errno, error.filename)
"""


@pytest.mark.parametrize("false", ["/etc/hostname", "/dev/zero", "/dev/full"])
def test_a_false_dev_null_is_not_taken(false: str) -> None:
    """CVE-2025-31133: what stands at /dev/null is checked by the fd that is then mounted."""
    done = subprocess.run([sys.executable, "-c", FALSE_NULL, false], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)  # fmt: skip
    assert done.stdout.splitlines() == ["as it should be", f"{errno.ENODEV} /dev/null"], done.stderr


@pytest.mark.once
@pytest.mark.parametrize("link", ["/nsc-escape", "../../../../../../nsc-escape"])
def test_a_mount_point_behind_a_link_to_nothing_is_made_inside(tmp_path: Path, link: str) -> None:
    """CVE-2019-19921: what a link under a mount point names is made in the container, as runc does."""
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    outer.mkdir()
    inner.mkdir()
    (inner / "mine").touch()
    (outer / "link").symlink_to(link)
    volumes = [f"{outer}:/outer", f"{inner}:/outer/link"]
    assert api.run(["ls", "/nsc-escape"], volumes=volumes).stdout == "mine\n"
    assert not Path("/nsc-escape").exists()
    assert [path.name for path in outer.iterdir()] == ["link"]


@pytest.mark.once
@pytest.mark.parametrize(
    "link", ["/proc/self/root", "/proc/1/root/nsc-escape", "/proc/self/cwd", "/proc/self/fd/5/x"]
)
def test_a_mount_point_behind_a_link_is_never_outside(tmp_path: Path, link: str) -> None:
    """CVE-2019-19921, 2023-27561: a link under a mount point leads to no place of the host's."""
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    outer.mkdir()
    inner.mkdir()
    (outer / "link").symlink_to(link)
    with pytest.raises(SetupError, match="filesystems"):
        Container.create(spec.build(["true"], volumes=[f"{outer}:/outer", f"{inner}:/outer/link"]))
    assert not Path("/nsc-escape").exists()
    assert str(inner) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")


def test_a_mount_point_behind_a_link_is_found_inside(tmp_path: Path) -> None:
    """An absolute link in a volume is a path of the container's: the mount lands there alone."""
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    outer.mkdir()
    inner.mkdir()
    (inner / "mine").touch()
    (outer / "link").symlink_to("/usr/share")
    result = api.run(["ls", "/usr/share"], volumes=[f"{outer}:/outer", f"{inner}:/outer/link"])
    assert result.stdout.split() == ["mine"]
    assert not Path("/usr/share/mine").exists()


def test_a_mount_over_proc_through_a_link_leaves_nothing_unmasked(tmp_path: Path) -> None:
    """CVE-2019-16884: a volume put over /proc by a link brings no other procfs to light."""
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    outer.mkdir()
    (inner / "sys").mkdir(parents=True)
    (outer / "link").symlink_to("/proc")
    source = "cat /proc/sys/kernel/core_pattern /proc/1/status; echo x > /proc/sys/x; ls /proc"
    try:
        result = api.run(["sh", "-c", source], volumes=[f"{outer}:/outer", f"{inner}:/outer/link"])
    except NsContainerError:
        return  # refused: as good
    assert set(result.stdout.split()) <= {"sys"}


@pytest.mark.once
@pytest.mark.parametrize("target", ["/", "/..", "/tmp/link/..", "relative", "/proc", "/proc/sys",
                                    "/sys", "/sys/fs/cgroup", "/dev", "/dev/null"])  # fmt: skip
def test_where_nothing_may_be_mounted(tmp_path: Path, target: str) -> None:
    """A volume can't be the root or go up, nor replace what the engine makes and masks."""
    with pytest.raises(SpecError, match=r"mount point|volume"):
        api.run(["true"], volumes=[f"{tmp_path}:{target}"])
    with pytest.raises(SpecError, match="mount point"):
        api.run(["true"], tmpfs=[target])


# --- CVE-2022-0492: cgroups --------------------------------------------------------------------


def test_release_agent_is_out_of_reach_even_of_sys_admin() -> None:
    """CVE-2022-0492: even CAP_SYS_ADMIN and no filter make release_agent no way out."""
    source = """
os.mkdir("/cg")
def mount(kind, data):
    if libc.mount(b"cgroup", b"/cg", kind, 0, data) < 0:
        raise OSError(ctypes.get_errno(), "mount")
def write(path, text):
    with open(path, "w") as file:
        file.write(text)
tell([[mounted := answer(mount, b"cgroup", name.encode()),
       mounted or answer(write, "/cg/release_agent", "/x") or "written",
       answer(os.mkdir, "/cg/sub") or "made"] for name in ("memory", "pids", "cpu")])
"""
    found = ask(source, cap_add=["SYS_ADMIN"], seccomp="unconfined")
    assert all((written in {"EPERM", "EACCES", "ENOENT", "EINVAL", "EBUSY", "ENODEV", "EROFS"}
               and made != "made") or mounted
               for mounted, written, made in found), found  # fmt: skip


# --- names that are paths ----------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("name", ["..", ".", ".hidden", "a/b", "/etc", "", "a\0b", "a b", "é", "-" * 129,
                                  "a\n"])  # fmt: skip
def test_a_name_is_never_a_path(engine: Path, name: str) -> None:
    """Container names go into paths and cgroups: nothing but ``[a-zA-Z0-9_+-][a-zA-Z0-9_+.-]*``."""
    with pytest.raises(SpecError, match="can't be a name"):
        api.run(["true"], name=name)
    with pytest.raises((SpecError, NotFoundError, ValueError)):
        Container.get(name or "..")
    assert holdings(engine) == []


# --- what a container sends --------------------------------------------------------------------


def test_the_monitors_socket_is_out_of_reach(engine: Path) -> None:
    """The control socket, and the whole state directory, don't exist inside."""
    source = f"""
tell([os.path.lexists({str(engine)!r}) and os.listdir({str(engine)!r}),
      answer(socket.socket(socket.AF_UNIX).connect, {str(engine)!r} + "/containers/x/monitor.sock")])
"""
    assert ask(source)[0] in (False, [])
    assert ask(source)[1] == "ENOENT"


@pytest.mark.once
@pytest.mark.parametrize(
    "hostile",
    [
        "b'\\xff' * 4096",
        "(2**28).to_bytes(4, 'big') + b'x' * 4096",
        "(8).to_bytes(4, 'big') + b'not json'",
        "(200000).to_bytes(4, 'big') + b'[' * 200000",
        "(4).to_bytes(4, 'big') + b'null' + (2).to_bytes(4, 'big') + b'{}'",
        '(44).to_bytes(4, \'big\') + b\'{"msg_type": "execute_reply", "content": {} }\'[:44]',
        '(45).to_bytes(4, \'big\') + b\'{"msg_type": [1], "content": {"status": 1e999}}\'[:45]',
    ],
)
def test_garbage_on_the_cells_channel_ends_well(engine: Path, hostile: str) -> None:
    """Whatever a cell writes to its channel, the owner gets a result or an error, and no hang."""
    code = f"import os\ndata = {hostile}\nwhile data:\n    data = data[os.write(3, data):]\nos._exit(3)"
    try:
        result = api.run_cell(code, timeout="20s")
    except NsContainerError as error:
        assert "cell" in str(error)  # noqa: PT017 - a result is as good
    else:
        assert result.exit_code == 3
    assert eventually(lambda: not holdings(engine) or holdings(engine) == ["mnt"], 5)


@pytest.mark.once
def test_binary_output_is_kept_as_it_is() -> None:
    """Output that is no text comes through byte by byte, and its text form doesn't fail."""
    result = api.run(["head", "-c", "65536", "/dev/urandom"])
    assert len(result.stdout_bytes) == 65536
    assert isinstance(result.stdout, str)
    assert api.run(["printf", r"\377\000\033[2J"]).stdout_bytes == b"\xff\0\x1b[2J"
