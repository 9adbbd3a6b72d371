"""The image ``host``: what a container sees of this machine, and what it can't change."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nscontainer import api, spec
from nscontainer.engine.container import Container
from nscontainer.image import host
from tests.integration.inside import (
    PRELUDE,
    PYTHON,
    SLEEP,
    ask,
    ask_cell,
    eventually,
    private_engine,
)

pytestmark = [pytest.mark.root, pytest.mark.userns]

SECRET = "nsc-secret-" + "q" * 9  # in two pieces: this very file may be in a container's sight


@pytest.fixture(scope="module", autouse=True)
def engine() -> Iterator[Path]:
    """The module's own engine, started by an owner with a secret in its environment."""
    os.environ["SECRET_TOKEN"] = SECRET
    try:
        with private_engine() as top:
            yield top
    finally:
        del os.environ["SECRET_TOKEN"]


@contextlib.contextmanager
def file_of_the_host(path: str, mode: int, text: str = "x") -> Iterator[None]:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, text.encode())
        os.fchmod(fd, mode)
        os.close(fd)
        yield
    finally:
        os.unlink(path)


# --- the environment ---------------------------------------------------------------------------


def in_memory(pid: int, needle: bytes) -> list[bytes]:
    """Where a process's memory holds some bytes: read from outside, as root."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
            span, rights = line.split()[:2]
            begin, end = (int(part, 16) for part in span.split("-"))
            if "r" not in rights or begin >= 1 << 63:
                continue
            memory.seek(begin)
            try:
                data = memory.read(end - begin)
            except OSError:  # [vvar] and the like
                continue
            found += [data[max(0, m.start() - 40) : m.end()] for m in re.finditer(needle, data)]
    return found


@pytest.mark.once
@pytest.mark.parametrize("runner", [ask, ask_cell])
def test_the_owners_environment_stays_outside(runner: Callable[..., Any]) -> None:
    """A token in the owner's environment is in no variable inside, nor in /proc/1/environ."""
    variables, initial = runner("tell([dict(os.environ), open('/proc/1/environ').read()])")
    assert "SECRET_TOKEN" not in variables
    assert SECRET not in str(variables) + initial
    assert not {n for n in variables if n.startswith("NSCONTAINER")}
    assert {"PATH", "HOME", "LANG"} <= set(variables)


@pytest.mark.once
def test_no_secret_is_in_a_cells_memory() -> None:
    """A cell is the zygote's copy: no token of the owner's, no other cell's value is in it."""
    other = "nsc-other-" + "z" * 9
    api.run_cell(f"x = {other!r}", env={"TOKEN": other})
    found: list[list[bytes]] = []

    def look(container: Container) -> None:
        (pid,) = eventually(container.pids)
        assert eventually(lambda: in_memory(pid, b"MARKER" + b"-OF-THIS-CELL"))
        found.extend(in_memory(pid, s.encode()) for s in (SECRET, other, "SECRET_" + "TOKEN"))
        container.kill()

    api.run_cell("import time; x = 'MARKER-OF-THIS-CELL'; time.sleep(60)", on_start=look)
    assert found == [[], [], []]


@pytest.mark.once
def test_no_secret_is_in_a_commands_memory() -> None:
    """A command's memory holds nothing of the owner's environment either."""
    container = Container.create(spec.build(SLEEP), start=True)
    (pid,) = eventually(container.pids)
    assert eventually(lambda: b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes())
    found = in_memory(pid, SECRET.encode())
    container.kill()
    container.wait()
    assert found == []


@pytest.mark.once
def test_env_is_handed_on_and_wins() -> None:
    """What ``env`` names is set inside, over the engine's own choice, and for exec as well."""
    container = Container.create(
        spec.build(SLEEP, env={"A": "1", "PATH": "/usr/bin:/bin", "HOSTNAME": "x"}), start=True
    )
    done = container.exec(["env"], env={"B": "2"})
    container.kill()
    container.wait()
    lines = set(done.stdout.decode().splitlines())
    assert {"A=1", "B=2", "PATH=/usr/bin:/bin", "HOSTNAME=x"} <= lines


# --- secrets on disk ---------------------------------------------------------------------------


def test_secrets_of_the_system_are_left_out() -> None:
    """Password hashes and private keys that the host has don't exist inside."""
    there = [path for path in host.SECRETS if os.path.lexists(path)]
    assert "/etc/shadow" in there
    assert ask(f"tell([p for p in {there!r} if os.path.lexists(p)])") == []
    assert ask("tell(os.path.exists('/etc/passwd'))") is True


def test_what_not_everybody_may_read_in_etc_is_left_out() -> None:
    """A service's password file in /etc that no list knows isn't inside; a public file is."""
    with (
        file_of_the_host("/etc/nsc-test-private", 0o600),
        file_of_the_host("/etc/nsc-test-group", 0o640),
        file_of_the_host("/etc/nsc-test-public", 0o644),
        private_engine(),
    ):
        names = ask("tell([n for n in os.listdir('/etc') if n.startswith('nsc-test')])")
    assert names == ["nsc-test-public"]


def test_other_peoples_directories_are_empty() -> None:
    """/home, /root, /run, /tmp, /var/log … are there, with nothing of the host's in them."""
    source = f"""
tell({{p: os.listdir(p) for p in {[p for p in host.HIDDEN if p not in ("/dev", "/proc", "/sys")]!r}
      if os.path.isdir(p)}})
"""
    with file_of_the_host("/tmp/nsc-test-file", 0o644), file_of_the_host("/root/.nsc-test", 0o644):
        found = ask(source, workdir="/usr")
    shown = {name for names in found.values() for name in names}
    assert {"/home", "/root", "/tmp", "/var/log"} <= set(found)
    assert not shown & {"nsc-test-file", ".nsc-test"}
    assert found["/home"] == found["/var/log"] == []


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with keys, a project, and somebody in it."""
    top = tmp_path / "home"
    for path in (".ssh/id_ed25519", ".config/token", "project/data.csv", "other/diary.txt"):
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(SECRET)
    (top / ".netrc").write_text(SECRET)
    (top / "notebook.ipynb").write_text("{}")
    monkeypatch.setenv("HOME", str(top))
    return top


TREE = """
tell(sorted(os.path.relpath(os.path.join(d, n), {top!r}) for d, _, names in os.walk({top!r})
            for n in names))
"""


@pytest.mark.once
def test_a_project_in_the_home_shows_the_project_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook in ~/project: its own files are seen; ~/.ssh and the rest of the home aren't."""
    monkeypatch.chdir(home / "project")
    assert ask_cell(TREE.format(top=str(home))) == ["project/data.csv"]


@pytest.mark.once
def test_a_notebook_in_the_home_itself_hides_the_dot_files(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook started in ~: what is visible there is seen, keys and histories aren't."""
    monkeypatch.chdir(home)
    found = ask_cell(TREE.format(top=str(home)))
    assert found == ["notebook.ipynb", "other/diary.txt", "project/data.csv"]


@pytest.mark.once
def test_a_link_to_the_working_directory_keeps_its_spelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A working directory reached by a symbolic link is there under both its names."""
    real = tmp_path / "real"
    real.mkdir()
    (real / "file").touch()
    (tmp_path / "link").symlink_to(real)
    assert ask("tell(os.listdir('.'))", workdir=str(tmp_path / "link")) == ["file"]
    paths = [str(tmp_path / "link" / "file"), str(real / "file")]
    assert ask(f"tell([os.path.exists(p) for p in {paths!r}])", workdir=paths[0][:-5]) == [
        True,
        True,
    ]


@pytest.mark.once
def test_a_directory_made_anew_is_seen_as_it_is_now(tmp_path: Path) -> None:
    """A directory removed and made again between two runs: the second sees the new one."""
    project = tmp_path / "project"
    for name in ("first", "second"):
        project.mkdir()
        (project / name).touch()
        assert ask("tell(os.listdir('.'))", workdir=str(project)) == [name]
        (project / name).unlink()
        project.rmdir()


# --- whose files they are ----------------------------------------------------------------------


def test_ids_are_those_of_the_host_inside(tmp_path: Path) -> None:
    """A file shows its owner as on the host; one beyond the mapped ids is nobody's, and shut."""
    for name, uid, mode in (("a", 0, 0o600), ("b", 1000, 0o644), ("c", 3_000_000_000, 0o600)):
        (tmp_path / name).write_text("x")
        os.chown(tmp_path / name, uid, uid)
        os.chmod(tmp_path / name, mode)
    found = ask(
        "tell([[os.stat(n).st_uid, answer(open, n)] for n in 'abc'])", workdir=str(tmp_path)
    )
    assert found == [[0, None], [1000, None], [65534, "EACCES"]]


def test_files_in_a_volume_are_the_callers(tmp_path: Path) -> None:
    """What root inside writes to a volume is root's outside, and what a user, that user's."""
    os.chmod(tmp_path, 0o777)
    ask("open('/v/root', 'w').close(); os.setuid(1000); open('/v/user', 'w').close(); tell(1)",
        volumes=[f"{tmp_path}:/v"])  # fmt: skip
    assert (tmp_path / "root").stat().st_uid == 0
    assert (tmp_path / "user").stat().st_uid == 1000


def test_a_volume_lets_no_device_and_no_set_uid_program_work(tmp_path: Path) -> None:
    """Volumes are ``nodev`` and ``nosuid``: a node or set-uid file of the host's gives nothing."""
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    source = """
options = [l.split()[5] for l in open("/proc/self/mountinfo") if l.split()[4] == "/v"]
tell([answer(open, "/v/null"), sorted(set(options[0].split(",")) & {"nodev", "nosuid", "ro"})])
"""
    assert ask(source, volumes=[f"{tmp_path}:/v"]) == ["EACCES", ["nodev", "nosuid"]]
    assert ask(source, volumes=[f"{tmp_path}:/v:ro"]) == ["EACCES", ["nodev", "nosuid", "ro"]]


def test_a_read_only_volume_cannot_be_written(tmp_path: Path) -> None:
    """``:ro`` holds for the volume and for what is mounted below it."""
    assert ask("tell(answer(open, '/v/x', 'w'))", volumes=[f"{tmp_path}:/v:ro"]) == "EROFS"
    assert list(tmp_path.iterdir()) == []


# --- writes ------------------------------------------------------------------------------------


def snapshot(top: Path) -> dict[str, Any]:
    """Everything about a tree that a container could change."""
    found: dict[str, Any] = {}
    for path in sorted([top, *top.rglob("*")]):
        facts = path.lstat()
        found[str(path)] = (
            facts.st_mode, facts.st_uid, facts.st_gid, facts.st_nlink, facts.st_mtime_ns, facts.st_ino,
            path.read_bytes() if path.is_file() else None,
            {name: os.getxattr(path, name, follow_symlinks=False)
             for name in os.listxattr(path, follow_symlinks=False)},
        )  # fmt: skip
    return found


CHANGES = """
import mmap
open("made", "w").write("x")
open("modify", "w").write("changed")
open("append", "a").write("more")
os.remove("delete")
os.rename("rename", "renamed")
os.rename("move", "folder/moved")
os.chmod("mode", 0o777)
os.chown("owner", 12, 34)
os.link("link", "linked")
os.setxattr("xattr", "user.mine", b"1")
os.truncate("truncate", 1)
os.utime("touch", (1, 1))
os.symlink("/etc/passwd", "symlink")
os.mkfifo("fifo")
os.remove("folder/inner")
os.mkdir("folder/new")
os.chmod(".", 0o700)
with open("mmap", "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
    view[0:1] = b"M"
os.remove("full/inner")
os.rmdir("full")
for top in ("/usr/share", "/etc", "/usr/local", "/opt", "/srv", "/"):
    open(f"{top}/nsc-test-made", "w").close()
os.remove("/etc/passwd")
open("/usr/bin/env", "a").write("spoilt")
tell(sorted(os.listdir(".")))
"""


@pytest.mark.parametrize("runner", [ask, ask_cell])
def test_writes_stay_in_the_container(tmp_path: Path, runner: Callable[..., Any]) -> None:
    """Create, modify, delete, rename, chmod, link, xattr, mmap …: none reaches the host."""
    names = "modify append delete rename move mode owner link xattr truncate touch mmap".split()
    for name in names:
        (tmp_path / name).write_text(name)
    for folder in ("folder", "full"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "inner").touch()
    before = snapshot(tmp_path)
    system = [Path(p).read_bytes() for p in ("/etc/passwd", "/usr/bin/env")]
    inside = runner(CHANGES, workdir=str(tmp_path))
    assert {"made", "renamed", "linked", "symlink", "fifo"} <= set(inside)
    assert not {"delete", "rename", "move", "full"} & set(inside)
    assert snapshot(tmp_path) == before
    assert [Path(p).read_bytes() for p in ("/etc/passwd", "/usr/bin/env")] == system
    for top in ("/usr/share", "/etc", "/usr/local", "/opt", "/srv", "/"):
        assert not Path(top, "nsc-test-made").exists()


@pytest.mark.once
def test_two_containers_do_not_see_each_others_writes(tmp_path: Path) -> None:
    """Each has a read-write layer of its own over the same directory."""
    first = Container.create(
        spec.build(["sh", "-c", "touch mine /usr/mine; exec sleep 1000"], workdir=str(tmp_path)),
        start=True,
    )
    assert eventually(lambda: b"sleep" in first.exec(["ls", "mine"]).stdout + b"sleep")
    assert ask("tell([os.listdir('.'), os.path.exists('/usr/mine')])", workdir=str(tmp_path)) == [
        [],
        False,
    ]
    first.kill()
    first.wait()


def test_a_read_only_container_can_write_nowhere_but_its_tmpfs(tmp_path: Path) -> None:
    """``read_only``: the root and the working directory alike; a tmpfs asked for is writable."""
    source = (
        f"tell([answer(open, p + '/x', 'w') for p in ('/', '/usr', {str(tmp_path)!r}, '/scratch')])"
    )
    found = ask(source, workdir=str(tmp_path), read_only=True, tmpfs=["/scratch:size=1M"])
    assert found == ["EROFS", "EROFS", "EROFS", None]


def test_a_tmpfs_keeps_to_its_size() -> None:
    """``tmpfs`` with a size is full when it is full."""
    source = """
answer(open("/scratch/x", "wb", 0).write, b"x" * (1 << 22))
tell(os.stat("/scratch/x").st_size)
"""
    assert ask(source, tmpfs=["/scratch:size=1M"]) == 1 << 20


def test_the_read_write_layer_is_roots_alone(engine: Path) -> None:
    """What a container writes lies where nobody else on the host can reach it."""
    container = Container.create(spec.build(SLEEP), start=True)
    done = container.exec(
        [*PYTHON, PRELUDE + "open('/tmp/x', 'w').close(); os.chmod('/tmp/x', 0o4755); tell(1)"]
    )
    assert json.loads(done.stdout) == 1
    (written,) = (
        p for p in engine.glob(f"containers/{container.id}/**/x") if p.parent.name == "tmp"
    )
    above = [stat.S_IMODE(p.stat().st_mode) for p in (engine, engine / "containers" / container.id)]
    mode = written.stat().st_mode
    container.kill()
    container.wait()
    assert mode & stat.S_ISUID
    assert above == [0o700] * 2
