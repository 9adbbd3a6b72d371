"""The doctor's words: the table, the one error, and the mend for each kind of host."""

from __future__ import annotations

import ast
import contextlib
import os
import pickle
import tempfile
from pathlib import Path

import pytest

from nscontainer import doctor, rows
from nscontainer.doctor import Finding, kernel
from nscontainer.doctor.mend import MENDS, PLACES, mend, places
from nscontainer.doctor.table import ROWS
from nscontainer.engine import answers
from nscontainer.engine.stages import STAGES
from nscontainer.errors import HostError, SetupError, SpecError, one_line
from nscontainer.linux import loop

WORKS = Finding(name="Linux", status="works", detail="6.18", needed=True)
LIMITED = Finding(
    name="governor", status="limited", detail="powersave", why="the clock varies", mend="cpupower"
)
MISSING = Finding(
    name="cgroup", status="missing", detail="none mounted", why="limits are the cgroup's",
    mend="sudo mount -t cgroup2 none /sys/fs/cgroup", needed=True,
)  # fmt: skip


def test_report() -> None:
    """A line each, why and how to mend it below, and a verdict."""
    assert doctor.report([WORKS, LIMITED, MISSING]).split("\n") == [
        "✓  Linux     6.18",
        "!  governor  powersave",
        "             the clock varies",
        "             -> cpupower",
        "✗  cgroup    none mounted",
        "             limits are the cgroup's",
        "             -> sudo mount -t cgroup2 none /sys/fs/cgroup",
        "",
        "no container can run here: cgroup missing; only --unconfined works",
    ]


def test_report_says_a_mend_once() -> None:
    """What mends several things in a row is not repeated."""
    assert doctor.report([MISSING, MISSING]).count("sudo mount") == 1
    assert "-> as above" in doctor.report([MISSING, MISSING])


def test_report_in_ascii() -> None:
    """Where the terminal has no ✓ the marks are letters."""
    text = doctor.report([WORKS, LIMITED, MISSING], encoding="ascii")
    text.encode("ascii")
    assert [line[:2] for line in text.split("\n")[::2][:2]] == ["ok", "  "]


def test_report_escapes() -> None:
    """A path that came from the environment can't steer the terminal."""
    odd = Finding(name="disk", status="works", detail="\x1b[2J/x")
    assert "\x1b" not in doctor.report([odd])


def test_report_wraps() -> None:
    """A long text stays in its column."""
    long = Finding(name="x", status="limited", detail="word " * 60, why="because " * 30)
    assert max(map(len, doctor.report([long], width=60).split("\n"))) <= 60


def test_verdict() -> None:
    """Only what is needed decides."""
    assert doctor.verdict([WORKS]) == "containers run here"
    assert doctor.verdict([WORKS, LIMITED]) == "containers run here; 1 thing is limited or missing"
    assert doctor.verdict([MISSING]).startswith("no container can run here")


def test_verdict_says_the_rung() -> None:
    """With limits, without and why, or none at all."""
    limited = Finding(name="a limited container", status="works", detail="")
    assert doctor.verdict([WORKS, limited]) == "containers run here, with limits"
    without = Finding(name="a limited container", status="missing", detail="memory can't be set")
    assert doctor.verdict([WORKS, without]).startswith(
        "containers run here, without limits: memory can't be set; 1 thing"
    )
    none = Finding(name="cgroup", status="missing", detail="none is this user's to write")
    assert "without limits: no cgroup: none is this user's" in doctor.verdict([none, without])


def test_to_json_is_plain() -> None:
    """Every field by its name."""
    assert doctor.to_json([WORKS]) == [
        {
            "key": "linux",
            "name": "Linux",
            "status": "works",
            "detail": "6.18",
            "why": "",
            "mend": "",
            "needed": True,
            "cause": "",
        }
    ]


def test_one_row_at_length() -> None:
    """All about it: what was seen, what is lost, the mend here, and what mends it on other hosts."""
    finding = Finding(
        name="user namespace", status="missing", detail="write uid_map: not permitted",
        why="AppArmor refuses it", mend="sudo sysctl here", needed=True, cause="libseccomp",
    )  # fmt: skip
    text = doctor.at_length(finding)
    for part in ("user namespace\n", "missing", "write uid_map", "sudo sysctl here", "no container",
                 "on fedora", "sudo dnf install libseccomp"):  # fmt: skip
        assert part in text
    assert "elsewhere" not in doctor.at_length(WORKS)


def test_a_row_is_chosen_by_name_key_or_beginning() -> None:
    """As an error names it; `controller` is all of them; what there isn't is refused with the list."""
    names = ("own /proc and /sys", "controller io", "controller cpu", "networks", "network speed")
    found = [Finding(name=name, status="works", detail="") for name in names]

    def chosen(word: str) -> list[str]:
        return [finding.name for finding in doctor.chosen(found, word)]

    assert chosen("own-proc-and-sys") == chosen("own /proc and /sys") == ["own /proc and /sys"]
    assert chosen("controller") == ["controller io", "controller cpu"]
    assert chosen("networks") == ["networks"]
    with pytest.raises(SpecError, match="no such row of the doctor: 'nonsense'"):
        doctor.chosen(found, "nonsense")
    with pytest.raises(SpecError, match="not tried here"):
        doctor.chosen(found, "disk size")


# --- every error's row -----------------------------------------------------------------------


def host_errors() -> list[tuple[str, int, str | None]]:
    """Where the engine says that it is the host: module, line, and the row if it names one."""
    top = Path(doctor.__file__).parent.parent
    found = []
    for path in sorted(
        it for name in ("engine", "linux", "network") for it in (top / name).rglob("*.py")
    ):
        module = ".".join(("nscontainer", *path.relative_to(top).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("HostError"):
                row = next((word.value for word in node.keywords if word.arg == "row"), None)
                named = row.value if isinstance(row, ast.Constant) else None
                found.append((module, node.lineno, named if isinstance(named, str) else None))
    return found


def test_every_error_about_the_host_has_a_row() -> None:
    """Each HostError of the engine's leads to a row that doctor has, and that its page explains."""
    found = host_errors()
    assert len(found) > 30
    for module, line, named in found:
        row = named or rows.of_module(module)
        assert row in ROWS, f"{module}:{line}: {row}"
    assert set(rows.BY_MODULE.values()) | set(rows.BY_OPERATION.values()) <= set(ROWS)


def test_every_stage_of_the_set_up_has_a_row() -> None:
    """A refused step leads to a row, whatever stage it is of."""
    assert set(rows.BY_STAGE) == {*STAGES, "adopt"}
    assert set(rows.BY_STAGE.values()) <= set(ROWS)
    error = SetupError("identity", "unshare", None, 1)
    assert error.row == "namespace cgroup"
    assert one_line(error).endswith("(nscontainer doctor namespace-cgroup)")


def test_an_error_says_its_row_last() -> None:
    """By the module that raised it, or as it was told; what comes over the wire keeps it."""
    with pytest.raises(HostError) as caught:
        loop._open(10**9, 0)
    assert caught.value.row == "disk size"
    assert one_line(caught.value).endswith("; nscontainer doctor disk-size)")
    sent = answers.failure(caught.value)
    assert answers.rebuild_error(sent).__dict__ == caught.value.__dict__ | {"_row": "disk size"}
    assert one_line(HostError("full", hint="prune")) == "full (prune)"
    assert one_line(HostError("x", row="seccomp")) == "x (nscontainer doctor seccomp)"
    copied = pickle.loads(pickle.dumps(HostError("x", row="seccomp")))
    assert copied.row == "seccomp"


def test_explain_missing() -> None:
    """One error: what is missing, why it matters, how to get it."""
    error = doctor.explain_missing([WORKS, LIMITED, MISSING])
    assert str(error) == (
        "no container can run here: cgroup: none mounted; limits are the cgroup's"
    )
    assert error.hint == "sudo mount -t cgroup2 none /sys/fs/cgroup"
    error = doctor.explain_missing([MISSING, MISSING])
    assert error.hint is not None
    assert error.hint.endswith("nscontainer doctor shows 1 more")
    assert "nothing missing" in str(doctor.explain_missing([WORKS]))


def test_explain_asks_only_about_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the user's own is left alone; the engine's is replaced where the host is at fault."""
    calls: list[bool] = []

    def found(*, python: bool = True) -> list[Finding]:
        calls.append(python)
        return [MISSING]

    monkeypatch.setattr(doctor, "examine", found)
    mistake = SpecError("x")
    assert doctor.explain(mistake) is mistake
    assert calls == []
    refused = SetupError("rootfs", "mount", "/", 1)
    explained = doctor.explain(refused)
    assert isinstance(explained, HostError)
    assert explained.__cause__ is refused
    monkeypatch.setattr(doctor, "examine", lambda *, python=True: [WORKS])
    assert doctor.explain(refused) is refused


@pytest.mark.parametrize("platform", ["darwin", "win32", "freebsd14"])
def test_no_linux(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    """Elsewhere there is one finding, and nothing is tried."""
    monkeypatch.setattr("sys.platform", platform)
    (finding,) = doctor.examine()
    assert (finding.name, finding.status, finding.needed) == ("Linux", "missing", True)
    assert finding.mend
    with pytest.raises(HostError, match="no container can run here: Linux: this is"):
        doctor.require()


def test_a_probe_that_dies_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was seen before is kept, and how it ended is said."""
    script = (
        'import sys; print(\'{"name": "Linux", "status": "works", "detail": "x"}\', flush=True); '
        "sys.stderr.write('boom'); sys.exit(3)"
    )
    monkeypatch.setattr(doctor, "_CHILD", script)
    first, second = doctor.examine(python=False)
    assert (first.name, first.status) == ("Linux", "works")
    assert second.detail == "the doctor's own process ended with 3: boom"


def test_a_probe_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor never hangs."""
    monkeypatch.setattr(doctor, "_CHILD", "import time; time.sleep(60)")
    monkeypatch.setattr(doctor, "TIMEOUT_S", 0.5)
    (finding,) = doctor.examine(python=False)
    assert "took over" in finding.detail


# --- mends -----------------------------------------------------------------------------------


def causes() -> set[str]:
    """Every cause that the trials name as a literal: the fifth argument of Seen."""
    found = set()
    folder = Path(doctor.__file__).parent
    for path in (
        folder / "kernel.py",
        folder / "host.py",
        folder / "network.py",
        folder / "storage.py",
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Seen":
                found |= {
                    argument.value
                    for argument in node.args[4:5]
                    if isinstance(argument, ast.Constant)
                }
    return {cause for cause in found if isinstance(cause, str)}


def test_every_cause_has_a_mend_everywhere() -> None:
    """Whatever is missing, and wherever, there is something to do."""
    named = causes()
    assert {"root", "caps", "libseccomp", "delegation", "disk", "bridge", "netem", "loop"} <= named
    for cause in (named - {""}) | set(MENDS):
        for place in PLACES:
            assert mend(cause, (place,)), (cause, place)


@pytest.mark.parametrize(
    ("cause", "place", "part"),
    [
        ("libseccomp", "debian", "sudo apt install libseccomp2"),
        ("libseccomp", "fedora", "sudo dnf install libseccomp"),
        ("libseccomp", "arch", "sudo pacman -S libseccomp"),
        ("userns-apparmor", "ubuntu", "kernel.apparmor_restrict_unprivileged_userns=0"),
        ("delegation", "wsl2", "systemd=true"),
        ("caps", "docker", "docker run --privileged"),
        ("caps", "kubernetes", "privileged: true"),
        ("caps", "binder", "a Linux machine of your own"),
        ("platform", "macos", "brew install lima"),
        ("platform", "windows", "wsl --install"),
        ("psi", "fedora", "grubby"),
        ("python:pandas", "debian", "-m pip install pandas"),
        ("controller:memory", "docker", "docker run --privileged"),
    ],
)
def test_mend_by_place(cause: str, place: str, part: str) -> None:
    """Each host has its own way."""
    assert part in mend(cause, (place, "linux"))


def test_the_most_telling_place_wins() -> None:
    """In a pod on Ubuntu it is the pod that must change."""
    assert "pod" in mend("caps", ("kubernetes", "docker", "ubuntu", "debian", "linux"))
    assert "apt" in mend("libseccomp", ("kubernetes", "ubuntu", "debian", "linux"))


def fake_root(top: Path, release: str = "", **files: str) -> str:
    for name, content in {"etc/os-release": release, **files}.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return str(top)


@pytest.mark.parametrize(
    ("environ", "release", "files", "expected"),
    [
        ({}, "ID=ubuntu\nID_LIKE=debian\n", {}, ("ubuntu", "debian", "linux")),
        ({}, 'ID="linuxmint"\nID_LIKE="ubuntu debian"\n', {}, ("ubuntu", "debian", "linux")),
        ({}, "ID=fedora\n", {}, ("fedora", "linux")),
        ({}, 'ID="rocky"\nID_LIKE="rhel centos fedora"\n', {}, ("fedora", "linux")),
        ({}, "ID=arch\n", {}, ("arch", "linux")),
        ({}, "", {}, ("linux",)),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "ID=debian\n", {}, ("kubernetes", "debian", "linux")),
        (
            {"BINDER_REPO_URL": "x", "KUBERNETES_SERVICE_HOST": "y"}, "ID=ubuntu\n", {},
            ("binder", "kubernetes", "ubuntu", "linux"),
        ),
        (
            {}, "ID=debian\n",
            {"proc/sys/kernel/osrelease": "5.15.1-microsoft-standard-WSL2\n"},
            ("wsl2", "debian", "linux"),
        ),
        (
            {}, "ID=debian\n",
            {".dockerenv": "", "proc/self/mountinfo": "1 2 8:1 /x /etc/hosts rw - ext4 /dev/x rw\n"},
            ("docker", "debian", "linux"),
        ),
        ({}, "ID=debian\n", {".dockerenv": ""}, ("debian", "linux")),
        ({}, "ID=debian\n", {"run/.containerenv": ""}, ("docker", "debian", "linux")),
        ({}, "ID=debian\n", {".nscontainerenv": ""}, ("nscontainer", "debian", "linux")),
    ],
)  # fmt: skip
def test_places(
    environ: dict[str, str], release: str, files: dict[str, str], expected: tuple[str, ...],
    tmp_path: Path,
) -> None:  # fmt: skip
    """What kind of host it is, by its own files; a marker left in a VM image doesn't mislead."""
    root = fake_root(tmp_path, release, **files)
    assert places(environ, platform="linux", root=root) == expected


def test_places_elsewhere() -> None:
    """Not Linux at all."""
    assert places({}, platform="darwin") == ("macos",)
    assert places({}, platform="win32") == ("windows",)


def test_what_an_overlay_leaves_is_removed_without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ``work/work`` has mode 000, which stops whoever isn't root until it is given another."""
    with tempfile.TemporaryDirectory(dir="/tmp") as top:
        os.chmod(top, 0o777)
        monkeypatch.setattr(kernel, "storage_directory", lambda: top)
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                if os.geteuid() == 0:
                    os.setgroups([])
                    os.setresgid(65534, 65534, 65534)
                    os.setresuid(65534, 65534, 65534)
                with kernel.scratch() as path:
                    os.makedirs(f"{path}/rw/work/work")
                    os.chmod(f"{path}/rw/work/work", 0)
            os._exit(0)
        os.waitpid(child, 0)
        assert os.listdir(top) == []
