"""Finding the hierarchies, from the mountinfo of real kinds of hosts; names that become paths."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from nscontainer.errors import HostError, NotFoundError, SpecError, StateError
from nscontainer.limits import Limits
from nscontainer.linux import cgroup, cgroup_files, cgroup_find, userns
from nscontainer.linux.syscalls import KernelError
from nscontainer.schema import NA

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


@pytest.fixture(autouse=True)
def unwritable(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Directories that this user may not write to (root may write to all), none at first."""
    names: set[str] = set()
    monkeypatch.setattr(cgroup_find.os, "access", lambda path, mode: path not in names)  # type: ignore[attr-defined]
    return names


@pytest.fixture
def ann(monkeypatch: pytest.MonkeyPatch) -> int:
    """An ordinary user, though the tests may be root's; whoever owns the test's files is that user."""
    monkeypatch.setattr(userns, "privileged", lambda: False)
    monkeypatch.setattr(userns, "outer_uid", lambda: 1000)
    return 1000


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
        ("/", "0::/\n", None),  # a private cgroup namespace: we are at its root
        ("/docker/x", "0::/docker/x/app\n", "/app"),  # the mount shows a part, we are in it
        ("/docker/x", "0::/other\n", None),  # we are outside of what the mount shows
        ("/../..", "0::/\n", None),  # the mount reaches above our namespace: the way is unknown
    ],
)
def test_v2_own_cgroup_is_found_through_the_mounts_root(
    tmp_path: Path, unwritable: set[str], root: str, own: str, below: str | None
) -> None:
    """/proc/self/cgroup is relative to the namespace, the mount's root field says where it begins."""
    (tmp_path / "cg/app").mkdir(parents=True)
    unwritable |= {f"{tmp_path}/cg", f"{tmp_path}/cg/cgroup.procs"}
    text = PURE_V2.replace(" / {cg}", f" {root} {{cg}}")
    found = detect(tmp_path, text, own)
    assert found.unified == (f"{tmp_path}/cg{below}" if below else None)
    assert (found.version == "none") == (below is None)


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


def test_no_hierarchy_says_what_to_mount(tmp_path: Path) -> None:
    found = detect(tmp_path, ROOT + "40 31 0:37 / /x rw - cgroup cgroup rw,name=systemd\n")
    assert found.version == "none"
    assert found.cause == "no cgroup hierarchy is mounted"
    assert "mount -t cgroup2" in (found.hint or "")


# --- an ordinary user's ----------------------------------------------------------------------


def given(tmp_path: Path, *paths: str) -> list[str]:
    """Directories that an administrator gave a user: theirs, and nobody else's to write to."""
    for path in paths:
        (tmp_path / "cg" / path).mkdir(parents=True)
        (tmp_path / "cg" / path).chmod(0o755)
    return [f"{tmp_path}/cg/{path}" for path in paths]


def test_v1_takes_what_an_administrator_gave_the_user(
    tmp_path: Path, unwritable: set[str], ann: int
) -> None:
    """Each hierarchy's nscontainer-UID where it is; what isn't there is barred, and says what mends it."""
    text = SEPARATE_V1 + UNIFIED
    unwritable |= {line.split()[4].replace("{cg}", f"{tmp_path}/cg") for line in text.splitlines()}
    memory, pids = given(tmp_path, f"memory/nscontainer-{ann}", f"pids/nscontainer-{ann}")
    given(tmp_path, f"unified/nscontainer-{ann}")
    layout = detect(tmp_path, text, "4:memory:/\n1:cpu:/\n0::/\n")
    assert dict(layout.controllers) == {"memory": memory, "pids": pids}
    assert layout.version == "v1", "who is outside of a v2 subtree can't get into it"
    assert layout.barred["cpu"] == f"{tmp_path}/cg/cpu"
    assert "sudo nscontainer setup" in (layout.hint or "")


def test_v1_takes_its_own_cgroup_where_that_is_the_users(
    tmp_path: Path, unwritable: set[str], ann: int
) -> None:
    """A batch system's cgroup that was given to the user holds its containers too: they stay below it."""
    unwritable |= {f"{tmp_path}/cg/{name}" for name in ("cpu", "memory")}
    own, _ = given(tmp_path, "memory/job/7", f"memory/nscontainer-{ann}")
    layout = detect(tmp_path, SEPARATE_V1, "4:memory:/job/7\n1:cpu:/job/7\n")
    assert layout.controllers["memory"] == own
    assert "cpu" not in layout.controllers


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_no_cgroup_that_others_may_write_to(
    tmp_path: Path, unwritable: set[str], ann: int, mode: int
) -> None:
    unwritable.add(f"{tmp_path}/cg/memory")
    (theirs,) = given(tmp_path, f"memory/nscontainer-{ann}")
    Path(theirs).chmod(mode)
    assert "memory" not in detect(tmp_path, SEPARATE_V1).controllers


def test_no_cgroup_that_is_somebody_elses(
    tmp_path: Path, unwritable: set[str], ann: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    unwritable.add(f"{tmp_path}/cg/memory")
    given(tmp_path, f"memory/nscontainer-{ann}")
    assert "memory" in detect(tmp_path, SEPARATE_V1).controllers
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert "memory" not in detect(tmp_path, SEPARATE_V1).controllers


def test_nothing_of_the_users_is_told_with_what_mends_it(
    tmp_path: Path, unwritable: set[str], ann: int
) -> None:
    """A container without limits can be made; one with limits is refused with cause and mend."""
    unwritable |= {
        line.split()[4].replace("{cg}", f"{tmp_path}/cg")
        for line in (SEPARATE_V1 + UNIFIED).splitlines()
    }
    layout = detect(tmp_path, SEPARATE_V1 + UNIFIED)
    assert (layout.version, dict(layout.controllers), layout.unified) == ("none", {}, None)
    group = cgroup.create(layout, "one", want=cgroup.default_want(layout))
    assert group.version == "none"
    assert group.fd() is None
    assert group.entry_fds() == []
    group.place(Limits(timeout_s=3))
    group.arm(Limits())
    for limits in (
        Limits(cpu_quota_us=20_000),
        Limits(memory_bytes=1 << 20),
        Limits(pids=3),
        Limits(cpuset_cpus="0"),
        Limits(disk_read_bps=1 << 20),
    ):
        with pytest.raises(HostError, match=f"can't be set: .*{tmp_path}/cg/") as caught:
            group.place(limits)
        assert "sudo nscontainer setup" in (caught.value.hint or "")
    assert set(group.reader().read()) == {NA}
    assert set(group.read_back().values()) == {None}
    with pytest.raises(HostError, match="can't be paused"):
        group.freeze()
    group.kill()
    group.remove()


def test_the_environment_names_a_cgroup(
    tmp_path: Path, unwritable: set[str], ann: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /proc/self/cgroup writes it or by its directory; a wrong one is an error and no silence."""
    unwritable.add(f"{tmp_path}/cg")
    (named,) = given(tmp_path, "jobs/ann")
    (tmp_path / "cg/jobs/ann/cgroup.controllers").write_text("memory\n")
    for name in ("/jobs/ann", "jobs/ann", named):
        monkeypatch.setenv(cgroup_find.NAMED, name)
        assert detect(tmp_path, PURE_V2).unified == named
    for name in ("/..", "/jobs/../..", "/"):
        monkeypatch.setenv(cgroup_find.NAMED, name)
        with pytest.raises(HostError, match="NSCONTAINER_CGROUP_PARENT"):
            detect(tmp_path, PURE_V2)
    monkeypatch.setenv(cgroup_find.NAMED, "/jobs/ann")
    Path(named).chmod(0o777)
    with pytest.raises(HostError, match="this user alone"):
        detect(tmp_path, PURE_V2)


def test_a_cgroup_is_found_again_where_it_was_made(
    v1: cgroup.Layout, v2: cgroup.Layout, hybrid: cgroup.Layout
) -> None:
    """Another process of the user's may be in another scope: the state file says where a cgroup is."""
    for layout in (v1, v2, hybrid):
        made = cgroup.create(layout, "one", want=cgroup.default_want(layout))
        again = cgroup.reopen_at(made.paths, "one")
        assert again.paths == made.paths
        assert again.version == made.version
        again.remove()
        assert cgroup.names(layout) == []
        with pytest.raises(NotFoundError):
            cgroup.reopen_at(made.paths, "one")


@pytest.mark.parametrize("paths", [{}, {"memory": "/sys/fs/cgroup/memory"}, {"cpu": "/x/two"}])
def test_no_other_directory_is_taken_for_a_containers(paths: dict[str, str]) -> None:
    with pytest.raises(NotFoundError):
        cgroup.reopen_at(paths, "one")


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
