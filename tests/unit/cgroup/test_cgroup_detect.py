"""Finding the hierarchies, from the mountinfo of real kinds of hosts; names that become paths."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from nscontainer.errors import HostError, NotFoundError, SpecError, StateError
from nscontainer.linux import cgroup, cgroup_files
from nscontainer.linux.syscalls import KernelError

ROOT = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n"

SEPARATE_V1 = (
    ROOT
    + """\
31 23 0:28 / {cg} rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / {cg}/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / {cg}/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
34 31 0:31 / {cg}/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:32 / {cg}/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / {cg}/devices rw,relatime - cgroup cgroup rw,devices
37 31 0:34 / {cg}/freezer rw,relatime - cgroup cgroup rw,freezer
38 31 0:35 / {cg}/blkio rw,relatime - cgroup cgroup rw,blkio
39 31 0:36 / {cg}/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / {cg}/systemd rw,relatime - cgroup cgroup rw,name=systemd
"""
)
UNIFIED = "41 31 0:38 / {cg}/unified rw,relatime - cgroup2 cgroup2 rw\n"

# Ubuntu 20.04 (systemd, hybrid); the optional field "shared:N" stands before the dash.
COMOUNTED = (
    ROOT
    + """\
31 23 0:25 / {cg} ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
32 31 0:26 / {cg}/unified rw,nosuid,nodev,noexec,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate
33 31 0:27 / {cg}/systemd rw,nosuid shared:11 - cgroup cgroup rw,xattr,name=systemd
36 31 0:30 / {cg}/net_cls,net_prio rw,nosuid shared:15 - cgroup cgroup rw,net_cls,net_prio
37 31 0:31 / {cg}/cpu,cpuacct rw,nosuid shared:16 - cgroup cgroup rw,cpu,cpuacct
38 31 0:32 / {cg}/memory rw,nosuid shared:17 - cgroup cgroup rw,memory
"""
)

# Debian 12.
PURE_V2 = (
    ROOT
    + """\
30 23 0:26 / {cg} rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
"""
)


def detect(tmp_path: Path, text: str, own: str = "0::/\n") -> cgroup.Layout:
    mountinfo, self_cgroup = tmp_path / "mountinfo", tmp_path / "self_cgroup"
    mountinfo.write_text(text.replace("{cg}", str(tmp_path / "cg")))
    self_cgroup.write_text(own)
    return cgroup.detect(str(mountinfo), str(self_cgroup), str(tmp_path / "block"))


def test_v1_each_controller_on_its_own_mount(tmp_path: Path) -> None:
    """A hierarchy without cgroup2 is v1; named hierarchies and devices are none of ours."""
    layout = detect(tmp_path, SEPARATE_V1)
    assert layout.version == "v1"
    assert layout.unified is None
    assert set(layout.controllers) == {
        "cpu",
        "cpuacct",
        "cpuset",
        "memory",
        "freezer",
        "blkio",
        "pids",
    }
    assert layout.controllers["cpuset"] == f"{tmp_path}/cg/cpuset"
    assert "freezer" in cgroup.default_want(layout)


def test_hybrid_is_v1_with_cgroup2_beside(tmp_path: Path) -> None:
    """v1 controllers with a cgroup2 mount are a hybrid host, which needs no freezer."""
    layout = detect(tmp_path, SEPARATE_V1 + UNIFIED)
    assert layout.version == "hybrid"
    assert layout.unified == f"{tmp_path}/cg/unified"
    assert layout.controllers["memory"] == f"{tmp_path}/cg/memory"
    assert "freezer" not in cgroup.default_want(layout)


def test_comounted_controllers_share_a_directory(tmp_path: Path) -> None:
    """cpu and cpuacct in one hierarchy give one directory for both."""
    layout = detect(tmp_path, COMOUNTED)
    assert layout.controllers["cpu"] == layout.controllers["cpuacct"]
    assert layout.controllers["cpu"].endswith("/cpu,cpuacct")
    assert layout.version == "hybrid"


def test_v2_names_what_the_root_has(tmp_path: Path) -> None:
    """On v2 every controller of cgroup.controllers has the same directory."""
    (tmp_path / "cg").mkdir()
    (tmp_path / "cg/cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids\n")
    layout = detect(tmp_path, PURE_V2)
    assert layout.version == "v2"
    assert layout.unified == f"{tmp_path}/cg"
    assert dict(layout.controllers) == dict.fromkeys(
        ("cpuset", "cpu", "io", "memory", "hugetlb", "pids"), f"{tmp_path}/cg"
    )


@pytest.fixture
def unwritable(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Directories that this user may not write to (root may write to all)."""
    names: set[str] = set()
    monkeypatch.setattr(cgroup.os, "access", lambda path, mode: path not in names)  # type: ignore[attr-defined]
    return names


def test_v2_takes_the_delegated_cgroup_where_the_root_is_not_ours(
    tmp_path: Path, unwritable: set[str]
) -> None:
    """An ordinary user's containers go under the cgroup that systemd delegated."""
    own = tmp_path / "cg/user.slice/app.scope"
    own.mkdir(parents=True)
    (own / "cgroup.controllers").write_text("memory pids\n")
    unwritable.add(f"{tmp_path}/cg")
    layout = detect(tmp_path, PURE_V2, "0::/user.slice/app.scope\n")
    assert layout.unified == str(own)
    assert set(layout.controllers) == {"memory", "pids"}
    moved = detect(tmp_path, PURE_V2, f"0::/user.slice/app.scope/{cgroup.ENGINE}\n")
    assert moved == layout  # after make_room


@pytest.mark.parametrize(
    ("root", "own", "below"),
    [
        ("/", "0::/\n", ""),  # a private cgroup namespace: we are at its root
        ("/docker/x", "0::/docker/x/app\n", "/app"),  # the mount shows a part, we are in it
        ("/docker/x", "0::/other\n", ""),  # we are outside of what the mount shows
        ("/../..", "0::/\n", ""),  # the mount reaches above our namespace: the way is unknown
    ],
)
def test_v2_own_cgroup_is_found_through_the_mounts_root(
    tmp_path: Path, unwritable: set[str], root: str, own: str, below: str
) -> None:
    """/proc/self/cgroup is relative to the namespace, the mount's root field says where it begins."""
    (tmp_path / "cg/app").mkdir(parents=True)
    unwritable.add(f"{tmp_path}/cg")
    text = PURE_V2.replace(" / {cg}", f" {root} {{cg}}")
    assert detect(tmp_path, text, own).unified == f"{tmp_path}/cg{below}"


def test_the_mount_that_shows_the_whole_hierarchy_is_taken(tmp_path: Path) -> None:
    """Another container's bind mount of its own part, or one from above us, is not taken."""
    other = "50 27 0:32 /docker/x /var/x/memory rw - cgroup cgroup rw,memory\n"
    above = "51 27 0:32 /.. /mnt/memory rw - cgroup cgroup rw,memory\n"
    layout = detect(tmp_path, other + above + SEPARATE_V1)
    assert layout.controllers["memory"] == f"{tmp_path}/cg/memory"
    assert detect(tmp_path, above + other).controllers["memory"] == "/var/x/memory"


def test_a_mount_that_is_mounted_over_is_not_taken(tmp_path: Path) -> None:
    """A tmpfs on top of a cgroup mount hides it."""
    hidden = "60 35 0:50 / {cg}/memory rw - tmpfs tmpfs rw\n"
    assert "memory" not in detect(tmp_path, SEPARATE_V1 + hidden).controllers


def test_a_blank_in_a_mount_point_is_read(tmp_path: Path) -> None:
    """mountinfo writes a blank as an octal escape."""
    text = "32 31 0:29 / /my\\040cg rw,relatime - cgroup cgroup rw,cpu\n"
    assert detect(tmp_path, text).controllers == {"cpu": "/my cg"}


def test_no_hierarchy_is_an_error_that_says_what_to_mount(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no cgroup hierarchy") as caught:
        detect(tmp_path, ROOT + "40 31 0:37 / /x rw - cgroup cgroup rw,name=systemd\n")
    assert "mount -t cgroup2" in (caught.value.hint or "")


def test_disks_are_those_with_a_size_and_a_platter(tmp_path: Path) -> None:
    """Loop and memory devices, and empty drives, are not accounted."""
    sizes = {"vda": 8, "sr0": 0, "loop1": 8, "zram0": 8, "nvme0n1": 8}
    for minor, (name, size) in enumerate(sizes.items()):
        (tmp_path / "block" / name).mkdir(parents=True)
        (tmp_path / "block" / name / "dev").write_text(f"254:{minor}\n")
        (tmp_path / "block" / name / "size").write_text(f"{size}\n")
    assert detect(tmp_path, SEPARATE_V1).disks == ("254:4", "254:0")


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../x", ".hidden", "x\n", "/x", "a" * 200])
def test_no_name_that_leaves_its_place(v2: cgroup.Layout, kernel: Any, name: str) -> None:
    """A container's id is one path component of harmless characters."""
    with pytest.raises(SpecError):
        cgroup.create(v2, name, want=frozenset())
    with pytest.raises(SpecError):
        cgroup.reopen(v2, name)
    assert not (kernel.root / "v2/nscontainer").exists()


@pytest.mark.parametrize("parent", ["..", "/abs", "a/../b", "", "a//b", "a/"])
def test_no_parent_that_leaves_its_place(v2: cgroup.Layout, parent: str) -> None:
    with pytest.raises(SpecError):
        cgroup.create(v2, "ok", parent=parent, want=frozenset())
    with pytest.raises(SpecError):
        cgroup.reopen(v2, "ok", parent)


def test_a_cgroup_that_is_there_already_is_not_taken_over(v2: cgroup.Layout) -> None:
    cgroup.create(v2, "one", want=frozenset({"memory"}))
    with pytest.raises(StateError, match="exists already"):
        cgroup.create(v2, "one", want=frozenset({"memory"}))


def test_reopening_what_is_gone_is_not_found(v1: cgroup.Layout, v2: cgroup.Layout) -> None:
    for layout in (v1, v2):
        with pytest.raises(NotFoundError):
            cgroup.reopen(layout, "never")


def test_names_lists_those_half_removed_too(v1: cgroup.Layout, kernel: Any) -> None:
    """What a crash left in a single hierarchy is found, reopened and removed."""
    whole = cgroup.create(v1, "whole", want=cgroup.default_want(v1))
    cgroup.create(v1, "half", want=frozenset({"memory"}))
    assert cgroup.names(v1) == ["half", "whole"]
    cgroup.reopen(v1, "half").remove()
    assert cgroup.names(v1) == ["whole"]
    whole.remove(parents=False)
    assert (kernel.root / "memory/nscontainer").is_dir()
    cgroup.remove_parents(v1)
    assert not (kernel.root / "memory/nscontainer").exists()


def test_a_denied_mkdir_says_who_may(
    v2: cgroup.Layout, kernel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: str) -> None:
        raise KernelError(errno.EACCES, "mkdir", path)

    monkeypatch.setattr(cgroup_files, "mkdir", denied)
    with pytest.raises(HostError, match="Permission denied") as caught:
        cgroup.create(v2, "one", want=frozenset())
    assert "Delegate=yes" in (caught.value.hint or "")


def test_a_parent_removed_by_another_container_meanwhile_is_made_again(
    v2: cgroup.Layout, kernel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last container's end removes the empty parent while the next one is being made."""
    raced: list[str] = []

    def mkdir(path: str) -> None:
        if path.endswith("/one") and not raced:
            raced.append(path)
            kernel.rmdir(str(Path(path).parent))
        kernel.mkdir(path)

    monkeypatch.setattr(cgroup_files, "mkdir", mkdir)
    made = cgroup.create(v2, "one", want=frozenset({"memory"}))
    assert raced
    assert made.paths["memory"].endswith("/v2/nscontainer/one")


def test_write_and_mkdir_name_the_path(tmp_path: Path) -> None:
    """The real ones: an error carries the path and the operation; write makes no file."""
    for do, args in (
        (cgroup_files.write, ("1",)),
        (cgroup_files.read, ()),
        (cgroup_files.rmdir, ()),
    ):
        with pytest.raises(KernelError) as caught:
            do(str(tmp_path / "none"), *args)
        assert caught.value.filename == str(tmp_path / "none")
        assert caught.value.errno == errno.ENOENT
    assert not (tmp_path / "none").exists()
