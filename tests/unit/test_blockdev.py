"""Which disk is behind a path: trees that pose as /sys/dev/block and /proc/self/mountinfo."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nscontainer.errors import HostError, SpecError
from nscontainer.linux import blockdev


@pytest.fixture
def sys_block(tmp_path: Path) -> str:
    """A disk of two partitions, one of them under LVM, and a loop device of a file on the volume."""
    devices, index = tmp_path / "devices", tmp_path / "dev"
    index.mkdir()
    for path, number in (
        ("sda", "8:0"),
        ("sda/sda1", "8:1"),
        ("sda/sda2", "8:2"),
        ("sdb", "8:16"),
        ("dm-0", "252:0"),
        ("loop3", "7:3"),
    ):
        directory = devices / path
        directory.mkdir(parents=True)
        (directory / "dev").write_text(f"{number}\n")
        (index / number).symlink_to(directory)
        (directory / "slaves").mkdir()
        if "/" in path:
            (directory / "partition").write_text("1\n")
    for slave in ("sda/sda2", "sdb"):
        name = os.path.basename(slave)
        (devices / "dm-0/slaves" / name).symlink_to(devices / slave)
    (devices / "sda/queue").mkdir()
    (devices / "sda/queue/scheduler").write_text("none [mq-deadline] bfq\n")
    return str(index)


def test_partition_is_its_disk(sys_block: str) -> None:
    assert blockdev.disk_of("8:2", sys_block) == "8:0"
    assert blockdev.disk_of("8:16", sys_block) == "8:16"


def test_volume_of_two_disks(sys_block: str) -> None:
    """LVM over a partition and a whole disk ends at both disks."""
    assert blockdev.disks_under("252:0", sys_block) == ("8:0", "8:16")


def test_loop_over_a_file(sys_block: str, tmp_path: Path) -> None:
    """A loop device ends where its file is: here on this test's own disk."""
    file = tmp_path / "image"
    file.touch()
    number = blockdev.number_of(file.stat().st_dev)
    (Path(sys_block) / number).symlink_to(Path(sys_block).parent / "devices/sdb")
    (Path(sys_block) / "7:3/loop").mkdir()
    (Path(sys_block) / "7:3/loop/backing_file").write_text(f"{file}\n")
    assert blockdev.disks_under("7:3", sys_block) == (number,)
    file.unlink()  # "… (deleted)": nobody can tell any more
    assert blockdev.disks_under("7:3", sys_block) == ("7:3",)


def test_names_and_scheduler(sys_block: str) -> None:
    assert blockdev.name("8:0", sys_block) == "sda"
    assert blockdev.name("9:9", sys_block) == "9:9"
    assert blockdev.scheduler("8:0", sys_block) == "mq-deadline"
    assert blockdev.scheduler("8:16", sys_block) is None


def test_what_keeps_nothing_itself(sys_block: str) -> None:
    devices = str(Path(sys_block).parent / "devices")
    assert [name for name in sorted(os.listdir(devices)) if blockdev.is_stacked(name, devices)] == [
        "dm-0",
        "loop3",
    ]
    assert {b"252:0", b"7:3", b"7:0"} <= blockdev.stacked(devices)
    assert b"8:0" not in blockdev.stacked(devices)


def mountinfo(tmp_path: Path, *lines: str) -> str:
    file = tmp_path / "mountinfo"
    file.write_text("\n".join(lines) + "\n")
    return str(file)


@pytest.fixture
def shm() -> Path:
    """A place that no block device is behind."""
    path = Path("/dev/shm")
    if not path.is_dir() or os.major(path.stat().st_dev):
        pytest.skip("no /dev/shm in memory")
    return path


def test_in_memory_is_on_no_disk(sys_block: str, tmp_path: Path, shm: Path) -> None:
    found = mountinfo(tmp_path, f"1 0 0:9 / {shm} rw - tmpfs tmpfs rw")
    assert blockdev.behind(str(shm), sys_block, found) == ()


def test_overlay_is_on_its_layers_disks(sys_block: str, tmp_path: Path, shm: Path) -> None:
    """Through upperdir and lowerdir, an escaped colon included; what is gone is passed over."""
    layer = tmp_path / "a:b"
    layer.mkdir()
    number = blockdev.number_of(layer.stat().st_dev)
    (Path(sys_block) / number).symlink_to(Path(sys_block).parent / "devices/sda/sda1")
    options = f"rw,lowerdir=/gone:{str(layer).replace(':', chr(92) + '134:')}"
    found = mountinfo(tmp_path, f"1 0 0:9 / {shm} rw - overlay overlay {options}")
    assert blockdev.behind(str(shm), sys_block, found) in {("8:0",), (number,)}


def test_what_does_not_say_its_disk(sys_block: str, tmp_path: Path, shm: Path) -> None:
    found = mountinfo(tmp_path, f"1 0 0:9 / {shm} rw - nfs4 server:/export rw")
    with pytest.raises(HostError, match=r"can't be told: it is nfs4 \(server:/export\)") as told:
        blockdev.behind(str(shm), sys_block, found)
    assert "--device-write-bps" in str(told.value.hint)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/dev/nosuch", "device-write-bps /dev/nosuch: no such file or directory"),
        ("/dev/null", "device-write-bps /dev/null is not a block device, and no disk is behind it"),
    ],
)
def test_a_device_that_is_none(path: str, words: str) -> None:
    with pytest.raises(SpecError) as told:
        blockdev.named(path, "device-write-bps", print)
    assert told.value.message == words
    assert told.value.hint == "lsblk -p lists the disks of this machine"


def test_rules() -> None:
    rule = blockdev.Rule(write_bps=5, read_iops=-1)
    assert rule.items() == [("write_bps", 5), ("read_iops", -1)]
    assert rule.writes
    assert not blockdev.Rule(write_bps=-1).writes
