"""Limits of disks in real containers: what is asked is what is had, and what is counted."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nscontainer import api, spec
from nscontainer.engine import diskserver, garbage
from nscontainer.engine.container import Container
from nscontainer.errors import HostError, SpecError
from nscontainer.linux import blockdev, loop
from nscontainer.measure.result import RunResult
from tests.integration.inside import PYTHON, Owner, eventually

pytestmark = [pytest.mark.root, pytest.mark.userns, pytest.mark.usefixtures("engine")]

MB = 1_000_000
RATE = 5 * MB
V2 = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
DIRECT = """
import mmap, os, sys
size, count, how = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
block = mmap.mmap(-1, size)
flags = os.O_DIRECT | (os.O_RDONLY if how == "read" else os.O_WRONLY | os.O_CREAT)
fd = os.open(sys.argv[1], flags, 0o600)
for number in range(count):
    done = os.preadv(fd, [block], number * size) if how == "read" else os.pwrite(fd, block, number * size)
    assert done == size
"""
"""Whole blocks, past the page cache, one after another."""


def direct(path: str, size: int, count: int, how: str, **options: Any) -> RunResult:
    result: RunResult = api.run([*PYTHON, DIRECT, path, str(size), str(count), how], **options)
    assert result.exit_code == 0, result.stderr
    return result


def written(r: RunResult) -> float:
    count = r.totals["blkio.write_bytes"]
    assert count is not None
    return count


@pytest.fixture
def place(engine: Path) -> Iterator[Path]:
    """A directory on a disk that containers can write to, as a volume."""
    directory = engine / "place"
    directory.mkdir()
    directory.chmod(0o777)
    yield directory
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()


@pytest.fixture(scope="module")
def disk(engine: Path) -> str:
    """The path of the disk that the state directory is on."""
    (number,) = blockdev.behind(str(engine))
    return f"/dev/{blockdev.name(number)}"


def known_answer(run: Any, seconds: float) -> RunResult:
    """Run until it took what it must, ± 5 %: never quicker, and slower only if the machine was busy.

    blk-throttle grants no time back in which a busy machine asked for nothing.
    """
    for _ in range(5):
        result: RunResult = run()
        assert result.wall_s > seconds * 0.95
        if result.wall_s < seconds * 1.05:
            return result
    message = f"{result.wall_s} s instead of {seconds}"
    raise AssertionError(message)


# --- known answers ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.cgroup1
@pytest.mark.parametrize("way", ["disk", "device"])
def test_direct_write_takes_its_time(place: Path, disk: str, way: str) -> None:
    """50 MB at 5 MB/s take 10 s ± 5 %, and 50 MB are counted, ± 1 %."""
    options: dict[str, Any] = {"volumes": [f"{place}:/place"]}
    if way == "disk":
        options["disk_write"] = RATE
    else:
        options["device_write_bps"] = [f"{disk}:{RATE}"]
    r = known_answer(lambda: direct("/place/file", 409600, 122, "write", **options), 10)
    assert r.totals["blkio.write_bytes"] == pytest.approx(409600 * 122, rel=0.01)
    assert not r.limits.differs
    assert [row.read_back for row in r.limits.rows()] == ["4.8 MiB/s"]


@pytest.mark.slow
@pytest.mark.cgroup1
def test_direct_read_takes_its_time(place: Path) -> None:
    """50 MB at 5 MB/s take 10 s ± 5 %, and 50 MB are counted, ± 1 %."""
    (place / "file").write_bytes(os.urandom(MB) * 50)
    os.sync()
    run = lambda: direct(  # noqa: E731
        "/place/file", 409600, 122, "read", volumes=[f"{place}:/place"], disk_read=RATE
    )
    r = known_answer(run, 10)
    assert r.totals["blkio.read_bytes"] == pytest.approx(409600 * 122, rel=0.01)


@pytest.mark.slow
@pytest.mark.cgroup1
@pytest.mark.parametrize("how", ["read", "write"])
def test_operations_take_their_time(place: Path, how: str) -> None:
    """500 operations at 100 a second take 5 s ± 5 %, and 500 are counted, ± 1 %."""
    (place / "file").write_bytes(os.urandom(4096) * 500)
    os.sync()
    options: dict[str, Any] = {"volumes": [f"{place}:/place"]}
    # The interpreter's own files, where they are in no cache yet, would be read and counted as well.
    direct("/place/file", 4096, 500, how, **options)
    options[f"disk_{how}_iops"] = 100
    r = known_answer(lambda: direct("/place/file", 4096, 500, how, **options), 5)
    assert r.totals[f"blkio.{how}s"] == pytest.approx(500, rel=0.01)


# --- what holds everywhere -------------------------------------------------------------------


def test_limits_slow_down_and_are_read_back(place: Path) -> None:
    """With a limit it takes about its time, without it doesn't; both count the same bytes."""
    options: dict[str, Any] = {"volumes": [f"{place}:/place"]}
    free = direct("/place/file", 65536, 32, "write", **options)
    held = direct("/place/file", 65536, 32, "write", disk_write=MB, **options)
    assert held.wall_s > 1.8
    assert free.totals["blkio.write_bytes"] == 65536 * 32
    # On v1 it has a filesystem of its own: a superblock and the like are the container's, too.
    assert 0 <= written(held) - 65536 * 32 < 65536
    assert free.totals["blkio.writes"] == 32
    (row,) = held.limits.rows()
    assert (row.label, row.asked, row.differs) == ("disk write", row.read_back, False)


def test_a_limit_changes_while_it_runs(place: Path, disk: str) -> None:
    """Set and lifted by ``update``, and the cgroup's own files say so."""
    (number,) = blockdev.behind(str(place))
    container = Container.create(spec.build(command=["sleep", "60"]))
    try:
        container.start()
        changed = container.update(disk_write="3M", device_read_iops=[f"{disk}:77"])
        assert changed["disk_write_bps"] == {number: 3 << 20}
        assert changed["disk_read_iops"] == {number: 77}
        lifted = container.update(disk_write="max")
        assert lifted["disk_write_bps"] == {}
        assert lifted["disk_read_iops"] == {number: 77}
    finally:
        container.kill()
        container.wait()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"device_write_bps": ["/dev/nosuch:5M"]}, SpecError, "no such file or directory"),
        ({"device_write_bps": ["/dev/null:5M"]}, SpecError, "is not a block device"),
        ({"device_write_bps": ["DISK:0"]}, SpecError, "0"),
        ({"device_write_bps": ["DISK:5X"]}, SpecError, "5X"),
        ({"disk_write": -5}, SpecError, "-5"),
        ({"disk_read_iops": 0}, SpecError, "0"),
        ({"device_read_bps": ["DISK:5M", "DISK:6M"]}, SpecError, "twice"),
        ({"disk_read": "5M", "device_read_bps": ["DISK:5M"]}, SpecError, "second limit"),
    ],
)
def test_nonsense_is_refused_in_a_line(
    disk: str, engine: Path, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    """Before anything is made, with the value in it and a hint."""
    asked: Any = {
        name: [v.replace("DISK", disk) for v in value] if isinstance(value, list) else value
        for name, value in options.items()
    }
    with pytest.raises(error) as told:
        api.run(["true"], **asked)
    assert words in str(told.value)
    assert "\n" not in str(told.value)
    assert getattr(told.value, "hint", None)
    assert os.listdir(engine / "containers") == []


def test_a_weight_is_heeded_or_refused(disk: str) -> None:
    """Where no disk has bfq it would do nothing, and that is an error that names the mend."""
    name = os.path.basename(disk)
    scheduler = Path(f"/sys/block/{name}/queue/scheduler").read_text(encoding="ascii")
    if "[bfq]" in scheduler:
        assert not api.run(["true"], blkio_weight=200).limits.differs
        return
    with pytest.raises(HostError, match="would do nothing") as told:
        api.run(["true"], blkio_weight=200)
    assert told.value.hint == f"echo bfq > /sys/block/{name}/queue/scheduler"


def test_a_directory_stands_for_its_disk(place: Path) -> None:
    """For kindness: the limit is the disk's, which a note of the run says."""
    r = api.run(["true"], device_read_bps=[f"{place}:7M"])
    (row,) = r.limits.rows()
    assert row.read_back == "7 MiB/s"
    notes = r.record["isolation"]["notes"]
    assert any(f"device-read-bps {place}: on /dev/" in note for note in notes)


def test_limits_leave_the_start_alone() -> None:
    """They hold from the gate on: the set-up isn't throttled, however low they are."""
    begin = time.monotonic()
    api.run(["true"], disk_write="4K", disk_write_iops=2)
    assert time.monotonic() - begin < 30


# --- what Linux writes back later ------------------------------------------------------------

BUFFERED = """
import os, sys
with open(sys.argv[1], "wb") as file:
    for _ in range(50):
        file.write(bytes(1000_000))
    if sys.argv[2] == "fsync":
        os.fsync(file.fileno())
"""
LAYER_FILE = "/var/tmp/nsc-buffered"


def buffered(how: str, **options: Any) -> RunResult:
    result: RunResult = api.run([*PYTHON, BUFFERED, LAYER_FILE, how], **options)
    assert result.exit_code == 0, result.stderr
    return result


def of_loops(engine: Path) -> list[str]:
    """The loop devices of this engine's containers, by the name that they have been given."""
    found = []
    for place in Path("/sys/block").glob("loop*/loop"):
        with contextlib.suppress(OSError), open(f"/dev/{place.parent.name}", "rb") as device:
            status = fcntl.ioctl(device, loop.LOOP_GET_STATUS64, bytes(232))
            name = status[56:120].rstrip(b"\0").decode()
            found += [name] if f"{engine.name}/containers" in name else []
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def servers() -> set[int]:
    """The processes that serve disks, of this test or of another."""
    return {
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/comm")
        if _text(path) == "nsc-disk\n" and " Z " not in _text(path.parent / "stat")
    }


@pytest.mark.slow
@pytest.mark.cgroup1
@pytest.mark.loop
@pytest.mark.parametrize("how", ["plain", "fsync"])
def test_buffered_writes_take_their_time(how: str) -> None:
    """On v1, too: 50 MB by plain write() at 5 MB/s take 10 s ± 5 %, and are counted.

    Counted is what is written to the disk: the filesystem's own blocks are up to 2 % more.
    """
    r = known_answer(lambda: buffered(how, disk_write=RATE), 10)
    assert 0.99 < written(r) / (50 * MB) < 1.03
    assert not [w for w in r.warnings if w.code == "writes-escape"]
    assert not r.limits.differs


@pytest.mark.slow
@pytest.mark.cgroup1
@pytest.mark.loop
def test_direct_io_is_not_held_twice() -> None:
    """Through the layer's own device 50 MB take the same 10 s, and are counted once; reads too."""
    options: dict[str, Any] = {"disk_write": RATE, "disk_read": 2 * RATE}
    r = known_answer(lambda: direct(LAYER_FILE, 409600, 122, "write", **options), 10)
    assert r.totals["blkio.write_bytes"] == pytest.approx(409600 * 122, rel=0.01)


@pytest.mark.cgroup1
@pytest.mark.loop
def test_nothing_of_a_server_is_left(engine: Path) -> None:
    """Its process ends with the container; the device's bound in the page cache is lifted."""
    before = servers()
    api.run(["true"], disk_write="1M")
    assert eventually(lambda: not servers() - before)
    assert eventually(lambda: of_loops(engine) == [])
    assert diskserver.sweep() == []


@pytest.mark.cgroup1
@pytest.mark.loop
def test_a_kept_layer_is_whole_and_soon(engine: Path) -> None:
    """What waited for the disk when it ended gets there, and at once: its limit has gone with it."""
    command = [
        "sh",
        "-c",
        f"dd if=/dev/urandom of={LAYER_FILE} bs=64k count=4 2>/dev/null; md5sum {LAYER_FILE}",
    ]
    container = Container.create(
        spec.build(command=command, disk_write="64K"), remove=False, start=True
    )
    said: list[bytes] = []
    container.drive(on_stdout=said.append)
    try:
        assert eventually(lambda: of_loops(engine) == [])
        image = engine / "containers" / container.id / "storage"
        dump = subprocess.run(
            ["/sbin/debugfs", "-R", f"dump upper0{LAYER_FILE} /dev/stdout", str(image)],
            capture_output=True, check=True,
        ).stdout  # fmt: skip
        assert hashlib.md5(dump).hexdigest() == b"".join(said).split()[0].decode()
    finally:
        container.remove()


@pytest.mark.cgroup1
@pytest.mark.loop
def test_a_killed_monitor_leaves_nothing(engine: Path) -> None:
    """The server sees the last mount go and ends; the bound is lifted by the next sweep."""
    before = servers()
    owner = Owner(engine, "api.run(['sleep', '1000'], disk_write='1M')")
    try:
        assert eventually(lambda: servers() - before and of_loops(engine))
        time.sleep(0.3)
        for path in (engine / "containers").iterdir():
            os.kill(json.loads((path / "state.json").read_text())["monitor_pid"], signal.SIGKILL)
        assert eventually(lambda: not servers() - before and not of_loops(engine))
    finally:
        owner.kill()
    garbage.collect(str(engine))
    assert diskserver.sweep() == []


@pytest.mark.cgroup1
@pytest.mark.loop
def test_a_limit_that_comes_later_tells_what_escapes(place: Path) -> None:
    """Without a layer of its own from the start, buffered writes aren't held: a warning says so."""
    container = Container.create(spec.build(command=["sleep", "0.5"]), start=True)
    container.update(disk_write="1M")
    r = RunResult.from_record(container.drive(), b"")
    assert [w.message for w in r.warnings if w.code == "writes-escape"]
    r = api.run(["true"], disk_write="1M", volumes=[f"{place}:/place"])
    (warning,) = (w for w in r.warnings if w.code == "writes-escape")
    assert "its volumes" in warning.message
    assert not [w for w in api.run(["true"], disk_read="1M").warnings if w.code == "writes-escape"]


@pytest.mark.loop
def test_a_bounded_layer_counts_what_is_written_back() -> None:
    """--storage alone, no limit of speed: counted once, direct or not; on v1 by its device's count."""
    code = BUFFERED.replace("range(50)", "range(20)") + "os.sync()"  # overlayfs skips its fsync
    r = api.run([*PYTHON, code, LAYER_FILE, "plain"], storage="64M")
    assert 0.99 < written(r) / (20 * MB) < 1.03
    r = direct(LAYER_FILE, 65536, 100, "write", storage="64M")
    assert r.totals["blkio.write_bytes"] == pytest.approx(6553600, rel=0.02)


@pytest.mark.cgroup1
@pytest.mark.loop
@pytest.mark.parametrize("stage", ["rootfs", "clone", "monitor", "masks", "gate", "release"])
def test_an_owner_killed_at_a_stage_leaves_nothing(own_engine: Path, stage: str) -> None:
    """Half made, too, the server sees its filesystem go, and its device is given back."""
    before = servers()
    owner = Owner(own_engine, "api.run(['true'], disk_write='1M')", NSCONTAINER_HALT_AT=stage)
    halted = own_engine / "halted"
    assert eventually(lambda: halted.exists() and halted.read_text() == stage)
    assert servers() - before or stage == "rootfs"
    owner.kill()
    assert eventually(lambda: not servers() - before and not of_loops(own_engine))
    assert eventually(lambda: not os.listdir(own_engine / "containers"))


@pytest.mark.cgroup1
@pytest.mark.loop
def test_a_killed_server_hangs_nobody() -> None:
    """Its container gets EIO and goes on; a warning says that writes are lost."""
    before = servers()
    code = f"""
import os, time
fd = os.open({LAYER_FILE!r}, os.O_WRONLY | os.O_CREAT)
print("ready", flush=True)
time.sleep(1)
os.write(fd, bytes(1000_000))
os.sync()
"""

    def on_stdout(_: bytes) -> None:
        for pid in servers() - before:
            os.kill(pid, signal.SIGKILL)

    r = api.run([*PYTHON, code], disk_write="10M", on_stdout=on_stdout)
    assert r.exit_code == 0, r.stderr
    assert "storage-lost" in [w.code for w in r.warnings]
