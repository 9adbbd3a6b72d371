"""Limits of disks as they are written and read back: trees that pose as cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from nscontainer.engine import diskrate, diskserver
from nscontainer.errors import HostError, SpecError
from nscontainer.limits import Limits, limits
from nscontainer.linux import blockdev, cgroup1, cgroup1_io, cgroup2, cgroup2_io
from nscontainer.linux.blockdev import Rule
from nscontainer.measure.limits import RunLimits
from nscontainer.schema import INDEX


def put(path: Path, names: list[str]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name in names:
        (path / name).write_text("")
    return path


V1_FILES = [f"blkio.throttle.{name}_device" for name in blockdev.RATES] + ["blkio.bfq.weight"]


def test_v1_rules_are_written_and_lifted(tmp_path: Path) -> None:
    """-1 lifts, which v1 writes as 0; what isn't asked for isn't written."""
    path = put(tmp_path, V1_FILES)
    group = cgroup1.Cgroup1({"blkio": str(path)}, ["c"])
    group.hold_disks({"254:0": Rule(write_bps=5 << 20, read_iops=-1)})
    assert (path / "blkio.throttle.write_bps_device").read_text() == "254:0 5242880"
    assert (path / "blkio.throttle.read_iops_device").read_text() == "254:0 0"
    assert (path / "blkio.throttle.read_bps_device").read_text() == ""


def test_v1_reads_back_by_disk(tmp_path: Path) -> None:
    path = put(tmp_path, V1_FILES)
    (path / "blkio.throttle.write_bps_device").write_text("254:0 5242880\n8:0 1000\n")
    (path / "blkio.bfq.weight").write_text("500\n")
    read = cgroup1_io.read_back(str(path))
    assert read["disk_write_bps"] == {"254:0": 5 << 20, "8:0": 1000}
    assert read["disk_read_bps"] == {}
    assert read["blkio_weight"] == 500


def test_v1_without_blkio(tmp_path: Path) -> None:
    group = cgroup1.Cgroup1({"cpu": str(tmp_path)}, ["c"])
    with pytest.raises(HostError, match="no cgroup v1 controller blkio"):
        group.hold_disks({"254:0": Rule(write_bps=5)})
    assert "disk_write_bps" not in group.read_back()


def test_v2_rules_are_a_line_a_disk(tmp_path: Path) -> None:
    path = put(tmp_path / "c", ["io.max"])
    group = cgroup2.Cgroup2(str(tmp_path), str(path), ["c"])
    group.hold_disks({"254:0": Rule(write_bps=5 << 20, read_iops=-1)})
    assert (path / "io.max").read_text() == "254:0 wbps=5242880 riops=max"
    (path / "io.max").write_text("254:0 rbps=max wbps=5242880 riops=max wiops=100\n")
    read = cgroup2_io.read_back(str(path))
    assert (read["disk_write_bps"], read["disk_write_iops"], read["disk_read_bps"]) == (
        {"254:0": 5242880}, {"254:0": 100}, {},
    )  # fmt: skip


def test_v2_takes_no_limit_of_one(tmp_path: Path) -> None:
    """Linux would answer EINVAL, which says nothing."""
    path = put(tmp_path / "c", ["io.max"])
    group = cgroup2.Cgroup2(str(tmp_path), str(path), ["c"])
    with pytest.raises(SpecError, match="cgroup v2 takes no limit of 1"):
        group.hold_disks({"254:0": Rule(write_iops=1)})


def test_v2_without_io_says_which_link_lacks_it(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory io\n")
    (tmp_path / "cgroup.subtree_control").write_text("cpu\n")
    path = put(tmp_path / "c", ["cgroup.controllers"])
    group = cgroup2.Cgroup2(str(tmp_path), str(path), ["c"])
    with pytest.raises(HostError, match="controller io is not enabled in") as told:
        group.hold_disks({"254:0": Rule(write_bps=5)})
    assert "+io" in str(told.value.hint)


def test_a_weight_that_nothing_heeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without bfq (or v2's iocost) the file takes the number and nobody reads it: an error."""
    path = put(tmp_path / "c", ["blkio.bfq.weight", "io.weight", "io.bfq.weight"])
    monkeypatch.setattr(blockdev, "scheduler", lambda _: "mq-deadline")
    monkeypatch.setattr(blockdev, "name", lambda _: "vda")
    for weigh in (
        lambda: cgroup1_io.weigh(str(path), 500, ("254:0",)),
        lambda: cgroup2_io.weigh(str(tmp_path), str(path), 500, ("254:0",)),
    ):
        with pytest.raises(HostError, match=r"would do nothing.*\(vda has mq-deadline\)") as told:
            weigh()
        assert told.value.hint == "echo bfq > /sys/block/vda/queue/scheduler"
    (tmp_path / "cgroup.controllers").touch()
    (tmp_path / "io.cost.qos").write_text("254:0 enable=1 ctrl=auto rpct=0.00\n")
    cgroup2_io.weigh(str(tmp_path), str(path), 500, ("254:0",))
    assert (path / "io.weight").read_text() == str(cgroup2_io.weight_of(500))
    monkeypatch.setattr(blockdev, "scheduler", lambda _: "bfq")
    cgroup1_io.weigh(str(path), 500, ("254:0",))
    cgroup2_io.weigh(str(tmp_path), str(path), 500, ("254:0",))
    assert (path / "blkio.bfq.weight").read_text() == "500"
    assert (path / "io.bfq.weight").read_text() == "500"


def test_weights_scale() -> None:
    assert [cgroup2_io.weight_of(w) for w in (10, 1000)] == [1, 10000]


# --- which disks limits mean -----------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """/data is on sda, /more on sda and sdb, /mem on none; /dev/sda is itself, /dev/sda1 its part."""
    behind = {"/data": ("8:0",), "/more": ("8:0", "8:16"), "/mem": ()}
    named = {"/dev/sda": "8:0", "/dev/sda1": "8:0", "/dev/sdb": "8:16"}
    monkeypatch.setattr(blockdev, "behind", lambda path: behind[path])
    monkeypatch.setattr(blockdev, "named", lambda path, *_: (named[path],))
    monkeypatch.setattr(blockdev, "name", {"8:0": "sda", "8:16": "sdb"}.__getitem__)


@pytest.mark.usefixtures("machine")
def test_short_forms_hold_every_disk() -> None:
    made = diskrate.plan(limits(disk_write="5M", disk_read_iops=100), ["/data", "/more", "/mem"])
    rule = Rule(write_bps=5 << 20, read_iops=100)
    assert made.rules == {"8:0": rule, "8:16": rule}
    assert made.facts()["disk_names"] == {"8:0": "sda", "8:16": "sdb"}


@pytest.mark.usefixtures("machine")
def test_named_and_short_together() -> None:
    """They may be of different kinds, or of different disks, but not say one thing twice."""
    made = diskrate.plan(limits(disk_read="1M", device_write_bps=["/dev/sdb:2M"]), ["/data"])
    assert made.rules == {"8:0": Rule(read_bps=1 << 20), "8:16": Rule(write_bps=2 << 20)}
    for options in (
        {"disk_write": "5M", "device_write_bps": ["/dev/sda:5M"]},
        {"device_write_bps": ["/dev/sda:5M", "/dev/sda1:5M"]},
    ):
        with pytest.raises(SpecError, match="sets a second limit for /dev/sda"):
            diskrate.plan(limits(**options), ["/data"])


@pytest.mark.usefixtures("machine")
def test_no_disk_at_all() -> None:
    with pytest.raises(HostError, match=r"disk-write 5242880 would hold nothing: .* /mem"):
        diskrate.plan(limits(disk_write="5M"), ["/mem"])


def run_limits(asked: Limits, **read: object) -> RunLimits:
    nothing: dict[str, object] = {"limit_changes": (), "unheld": {}}
    record = nothing | {"limits_asked": asked.to_dict(), "limits_read_back": read}
    return RunLimits.from_record(record)


@pytest.mark.usefixtures("machine")
def test_asked_and_read_back_are_rows() -> None:
    asked = limits(disk_write="5M", device_read_iops=["/dev/sdb:100"])
    facts = diskrate.plan(asked, ["/more"]).facts()
    found = {"8:0": 5 << 20, "8:16": 5 << 20}
    good = run_limits(asked, disk_write_bps=found, disk_read_iops={"8:16": 100}, **facts)
    assert [(row.label, row.asked, row.read_back) for row in good.rows()] == [
        ("disk write", "5 MiB/s", "5 MiB/s"),
        ("disk read IOPS /dev/sdb", "100/s", "100/s"),
    ]
    assert not good.differs
    bad = run_limits(asked, disk_write_bps={"8:0": 5 << 20}, disk_read_iops={}, **facts)
    assert [(row.read_back, row.differs) for row in bad.rows()] == [
        ("sda 5 MiB/s, sdb no limit", True),
        ("no limit", True),
    ]
    assert [row.read_back for row in run_limits(asked, **facts).rows()] == [None, None]


# --- a device of its own, and what bounds it --------------------------------------------------


def test_v1_own_device_is_counted_whole_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that its device did, and what the cgroup did elsewhere; each again when only one changes."""
    device = put(tmp_path / "7:3", ["stat"])
    monkeypatch.setattr(blockdev, "SYS", str(tmp_path))
    names = ["blkio.throttle.io_service_bytes", "blkio.throttle.io_serviced"]
    path = put(tmp_path / "c", [*V1_FILES, *names])
    lines = "{0} Read {1}\n{0} Write {2}\n{0} Total 0\n"

    def stands(disk: tuple[int, int], own: tuple[int, int], whole: tuple[int, int]) -> None:
        text = lines.format("7:3", *own) + lines.format("254:0", *disk)
        for name in names:
            (path / name).write_text(text)
        reads, writes = whole
        (device / "stat").write_text(f"  {reads} 0 {reads} 5 {writes} 0 {writes} 9 0 1 2\n")

    def seen() -> tuple[int, int]:
        row = reader.read()
        return row[INDEX["blkio.read_bytes"]], row[INDEX["blkio.write_bytes"]]

    stands(disk=(5000, 9000), own=(1000, 4000), whole=(2, 10))
    reader = cgroup1.Cgroup1({"blkio": str(path)}, ["c"]).reader("7:3")
    assert (path / "blkio.throttle.read_bps_device").read_text() == "7:3 0"  # counted from now on
    assert seen() == (4000 + 2 * 512, 5000 + 10 * 512)
    stands(disk=(5000, 9000), own=(1000, 4000), whole=(2, 11))
    assert seen() == (4000 + 2 * 512, 5000 + 11 * 512)
    stands(disk=(6000, 9500), own=(1000, 4000), whole=(2, 11))
    assert seen() == (5000 + 2 * 512, 5500 + 11 * 512)
    reader.close()


def test_a_sweep_lifts_bounds_of_devices_that_nobody_has(tmp_path: Path) -> None:
    """Only of loop devices, only of those without a file, and only where there is one."""
    files = ["strict_limit", "max_ratio"]
    for name in ("7:0", "7:1", "7:2", "8:0"):
        (put(tmp_path / "bdi" / name, files) / "strict_limit").write_text("1\n")
    (tmp_path / "bdi/7:2/strict_limit").write_text("0\n")
    put(tmp_path / "block/loop1/loop", [])
    done = diskserver.sweep(str(tmp_path / "bdi"), str(tmp_path / "block"))
    assert done == ["loop0: its bound in the page cache lifted"]
    assert (tmp_path / "bdi/7:0/strict_limit").read_text() == "0"
    assert (tmp_path / "bdi/7:0/max_ratio").read_text() == "100"
    assert (tmp_path / "bdi/7:1/strict_limit").read_text() == "1\n"
    assert (tmp_path / "bdi/8:0/strict_limit").read_text() == "1\n"
