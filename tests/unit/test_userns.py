"""An ordinary user's ids, and how the image ``host`` is laid out for one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nscontainer.image import host
from nscontainer.linux import userns
from nscontainer.linux.procfs import MountPoint


def test_subordinate_ids_are_found_by_name_and_by_number(tmp_path: Path) -> None:
    """Every line of the user's counts (subuid(5)); those of others, and broken ones, don't."""
    uid = os.getuid()
    name = userns._name(uid)
    file = tmp_path / "subuid"
    file.write_text(f"{name}:100:10\n{uid}:500:65536\nelse:1:2\n{name}:x:1\n{name}:7:0\nodd\n")
    assert userns.subordinate(str(file), uid) == [(100, 10), (500, 65536)]
    assert userns.subordinate(str(tmp_path / "none"), uid) == []


def test_ids_are_counted_up_to_the_first_gap(tmp_path: Path) -> None:
    """Ranges join in any order; what is beyond a gap is not a container's."""
    file = tmp_path / "uid_map"
    file.write_text("1 100000 65536\n0 1000 1\n70000 5 5\n")
    assert userns.count(str(file)) == 65537
    file.write_text("")
    assert userns.count(str(file)) == 0


@pytest.mark.parametrize(
    ("code", "named"),
    [(errno.ENOSPC, "user.max_user_namespaces"), (errno.EUSERS, "32 deep"), (errno.EPERM, "")],
)
def test_a_refusal_names_its_mend(code: int, named: str) -> None:
    """Each errno that unshare has comes with what mends it."""
    assert named in userns._mend(code)
    assert userns._mend(code)


def _mount(target: str, fstype: str) -> MountPoint:
    return MountPoint(1, 0, "0:1", "/", target, fstype, "none")


def test_a_split_root_has_no_mount_in_any_view() -> None:
    """Directories on the way to a mount are made by hand, those beside it are shown each alone."""
    mounts = [_mount("/usr/share/doc", "tmpfs"), _mount("/proc", "proc")]
    plan = host.plan(["/usr/lib/python3"], home="/root", mounts=mounts, split=True)
    paths = [view.path for view in plan.views]
    assert plan.views[0].bare
    assert "/usr" not in paths
    assert "/usr/share" not in paths
    assert {"/usr/bin", "/usr/lib", "/usr/share/misc", "/etc"} <= set(paths)
    assert "/usr/share/doc" in plan.views[0].directories
    assert plan.view_at("/usr/bin/env").plain
    assert not plan.view_at("/etc/passwd").plain
    assert not plan.view_at("/usr/lib/python3/x").plain  # asked for: it may be written to
    assert plan.shows("/usr/bin/env")
    assert not plan.shows("/usr/share/doc/x")
    assert not plan.shows("/home/x")


def test_a_root_without_mounts_is_a_view_for_each_directory() -> None:
    """What the ordinary user of an ordinary machine gets; hidden ones are made empty."""
    plan = host.plan([], home="/root", mounts=[], split=True)
    paths = {view.path for view in plan.views}
    assert {"/", "/usr", "/etc"} <= paths
    assert not paths & {"/home", "/root", "/tmp", "/proc", "/dev", "/run"}
    assert {"/home", "/tmp"} <= plan.views[0].directories
    assert not any(view.shown for view in plan.views[1:])
