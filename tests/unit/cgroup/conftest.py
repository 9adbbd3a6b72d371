"""Temporary trees that pose as /sys/fs/cgroup, with the rules of Linux that matter to the writer.

Only making and removing directories and writing files is faked; reading reads the tree.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nscontainer.linux import cgroup, cgroup_files
from nscontainer.linux.syscalls import KernelError

NO_LIMIT = "9223372036854771712"

V1_FILES = {
    "cpu": {
        "cpu.cfs_burst_us": "0",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "-1",
        "cpu.shares": "1024",
    },
    "cpuacct": {"cpuacct.usage": "0"},
    "cpuset": {"cpuset.cpus": "", "cpuset.mems": "", "cgroup.clone_children": "0"},
    "memory": {
        "memory.limit_in_bytes": NO_LIMIT,
        "memory.memsw.limit_in_bytes": NO_LIMIT,
        "memory.usage_in_bytes": "4096",
        "memory.max_usage_in_bytes": "8192",
    },
    "pids": {"pids.max": "max", "pids.current": "0"},
    "freezer": {"freezer.state": "THAWED"},
    "blkio": {"blkio.throttle.read_bps_device": ""},
    "devices": {},
}
V2_CORE = {
    "cgroup.controllers": "",
    "cgroup.subtree_control": "",
    "cgroup.events": "populated 0\nfrozen 0",
    "cgroup.freeze": "0",
    "cgroup.kill": "",
    "cgroup.type": "domain",
}
V2_FILES = {
    "cpu": {"cpu.max": "max 100000", "cpu.max.burst": "0", "cpu.weight": "100"},
    "cpuset": {
        "cpuset.cpus": "",
        "cpuset.cpus.effective": "0-1",
        "cpuset.mems": "",
        "cpuset.mems.effective": "0",
    },
    "memory": {"memory.max": "max", "memory.swap.max": "max", "memory.current": "4096"},
    "pids": {"pids.max": "max", "pids.current": "0"},
    "io": {},
}

Rule = Callable[[Path, str], int | None]


class FakeKernel:
    """Makes, removes and writes in a tree as Linux does in a cgroup filesystem.

    ``writes`` records each write tried: (file's name, text). ``rules`` may refuse one with an errno.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.writes: list[tuple[str, str]] = []
        self.rules: list[Rule] = [_memsw, _burst, _bandwidth, _internal_processes]
        self.without: set[str] = set()
        """Names of files that this Linux doesn't have."""

    def mkdir(self, path: str) -> None:
        try:
            Path(path).mkdir()
        except OSError as error:
            raise KernelError(error.errno or 0, "mkdir", path) from None
        self.populate(Path(path))

    def populate(self, path: Path) -> None:
        hierarchy = path.relative_to(self.root).parts[0]
        put = {"cgroup.procs": "", "tasks": ""}
        for controller in hierarchy.split(","):
            put |= V1_FILES.get(controller, {})
        if hierarchy in ("unified", "v2"):
            put |= V2_CORE
            above = (path.parent / "cgroup.subtree_control").read_text().split()
            put["cgroup.controllers"] = " ".join(above)
            for controller in above:
                put |= V2_FILES[controller]
        for name, text in put.items():
            if name not in self.without:
                (path / name).write_text(f"{text}\n" if text else "")

    def rmdir(self, path: str) -> None:
        here = Path(path)
        if not here.is_dir():
            raise KernelError(errno.ENOENT, "rmdir", path)
        procs = here / "cgroup.procs"
        if any(p.is_dir() for p in here.iterdir()) or (procs.exists() and procs.read_text()):
            raise KernelError(errno.EBUSY, "rmdir", path)
        for file in here.iterdir():
            file.unlink()
        here.rmdir()

    def write(self, path: str, text: str) -> None:
        file = Path(path)
        self.writes.append((file.name, text))
        if not file.is_file():
            raise KernelError(errno.ENOENT, "write", path)
        for rule in self.rules:
            refused = rule(file, text)
            if refused:
                raise KernelError(refused, "write", path)
        self._take(file, text)

    def _take(self, file: Path, text: str) -> None:
        here = file.parent
        if file.name == "cgroup.procs":
            text = file.read_text() + text
        elif file.name == "cgroup.subtree_control":
            if text[1:] not in (here / "cgroup.controllers").read_text().split():
                raise KernelError(errno.ENOENT, "write", str(file))
            self._enable(here, text[1:])
            text = " ".join([*file.read_text().split(), text[1:]])
        elif file.name == "cgroup.kill":
            (here / "cgroup.procs").write_text("")
            return
        elif file.name == "cgroup.freeze":
            (here / "cgroup.events").write_text(f"populated 1\nfrozen {text}\n")
        elif file.name.startswith("memory.") and text == "-1":
            text = NO_LIMIT
        elif file.name == "cpu.max" and " " not in text:
            text = f"{text} {file.read_text().split()[1]}"
        elif file.name in ("cpuset.cpus", "cpuset.mems") and file.name + ".effective" in {
            p.name for p in here.iterdir()
        }:
            there = cgroup_files.id_set((here.parent / f"{file.name}.effective").read_text())
            can = sorted(cgroup_files.id_set(text) & there) or sorted(there)
            (here / f"{file.name}.effective").write_text(",".join(map(str, can)))
        file.write_text(f"{text}\n")

    def _enable(self, here: Path, controller: str) -> None:
        """A controller's files appear in the children that there are already, too."""
        for child in (entry for entry in here.iterdir() if entry.is_dir()):
            there = child / "cgroup.controllers"
            there.write_text(f"{there.read_text().strip()} {controller}\n")
            for name, text in V2_FILES[controller].items():
                if name not in self.without:
                    (child / name).write_text(f"{text}\n" if text else "")


def _number(file: Path) -> int:
    text = file.read_text().strip() if file.exists() else "-1"
    return -1 if text in ("max", NO_LIMIT) else int(text)


def _over(a: int, b: int) -> bool:
    return b >= 0 and (a < 0 or a > b)


def _memsw(file: Path, text: str) -> int | None:
    """Memory <= memory+swap, always (mem_cgroup_resize_max)."""
    memory, both = (file.with_name(f"memory.{n}limit_in_bytes") for n in ("", "memsw."))
    if file == memory and both.exists() and _over(int(text), _number(both)):
        return errno.EINVAL
    if file == both and _over(_number(memory), int(text)):
        return errno.EINVAL
    return None


def _burst(file: Path, text: str) -> int | None:
    """Burst <= quota, unless there is no quota (tg_set_cfs_bandwidth)."""
    quota, burst = None, None
    if file.name == "cpu.cfs_quota_us":
        quota, burst = int(text), _number(file.with_name("cpu.cfs_burst_us"))
    elif file.name == "cpu.cfs_burst_us":
        quota, burst = _number(file.with_name("cpu.cfs_quota_us")), int(text)
    elif file.name == "cpu.max" and not text.startswith("max"):
        quota, burst = int(text.partition(" ")[0]), _number(file.with_name("cpu.max.burst"))
    elif file.name == "cpu.max.burst":
        now = file.with_name("cpu.max").read_text().partition(" ")[0]
        quota, burst = (-1 if now == "max" else int(now)), int(text)
    if quota is not None and burst is not None and 0 <= quota < burst:
        return errno.EINVAL
    return None


def _bandwidth(file: Path, text: str) -> int | None:
    """v1: quota / period <= the parent's (tg_cfs_schedulable_down)."""
    if not file.name.startswith("cpu.cfs_") or file.name == "cpu.cfs_burst_us":
        return None
    values = []
    for where in (file.parent, file.parent.parent):
        for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"):
            path = where / name
            values.append(int(text) if path == file else _number(path))
    quota, period, above_quota, above_period = values
    if quota >= 0 and above_quota >= 0 and quota * above_period > above_quota * period:
        return errno.EINVAL
    return None


def _internal_processes(file: Path, text: str) -> int | None:
    """v2: a cgroup with processes can't enable a controller for its children."""
    inner = file.name == "cgroup.subtree_control" and (file.parent / "cgroup.type").exists()
    return errno.EBUSY if inner and (file.parent / "cgroup.procs").read_text() else None


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKernel]:
    """A kernel over an empty tree."""
    fake = FakeKernel(tmp_path)
    for name in ("mkdir", "rmdir", "write"):
        monkeypatch.setattr(cgroup_files, name, getattr(fake, name))
    before = set(os.listdir("/proc/self/fd"))
    yield fake
    assert set(os.listdir("/proc/self/fd")) <= before, "the test left fds open"


@pytest.fixture
def v1(kernel: FakeKernel) -> cgroup.Layout:
    """A v1 host: each controller on its own mount."""
    for name in V1_FILES:
        (kernel.root / name).mkdir()
        kernel.populate(kernel.root / name)
    (kernel.root / "cpuset/cpuset.cpus").write_text("0-1\n")
    (kernel.root / "cpuset/cpuset.mems").write_text("0\n")
    mounts = {name: str(kernel.root / name) for name in V1_FILES}
    return cgroup.Layout("v1", mounts, None)


@pytest.fixture
def hybrid(kernel: FakeKernel, v1: cgroup.Layout) -> cgroup.Layout:
    """A v1 host with a cgroup2 mount that has no controller."""
    _v2_root(kernel, "unified", "")
    return cgroup.Layout("hybrid", v1.controllers, str(kernel.root / "unified"), ("254:0",))


@pytest.fixture
def v2(kernel: FakeKernel) -> cgroup.Layout:
    """A pure v2 host whose root is ours."""
    names = "cpuset cpu io memory pids"
    _v2_root(kernel, "v2", names)
    base = str(kernel.root / "v2")
    return cgroup.Layout("v2", dict.fromkeys(names.split(), base), base)


def _v2_root(kernel: FakeKernel, name: str, controllers: str) -> None:
    root = kernel.root / name
    root.mkdir()
    (root / "cgroup.controllers").write_text(f"{controllers}\n")
    (root / "cgroup.subtree_control").write_text("\n")
    (root / "cgroup.procs").write_text("1\n2\n")
    (root / "cpuset.cpus.effective").write_text("0-1\n")
    (root / "cpuset.mems.effective").write_text("0\n")
