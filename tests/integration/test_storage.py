"""A bounded read-write layer: where it ends, what reads it, and that nothing of it stays."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import nscontainer
from nscontainer import api, copying, disk_usage, images, spec
from nscontainer.doctor import storage as doctor_storage
from nscontainer.engine import garbage, storage
from nscontainer.engine.container import Container
from nscontainer.engine.stages import STAGES
from nscontainer.errors import HostError, SpecError
from nscontainer.linux import loop, mount
from tests import leaks
from tests.integration import rootfs_images
from tests.integration.inside import ROOT, SLEEP, Owner, ask, ask_cell, eventually

pytestmark = [pytest.mark.root, pytest.mark.loop, pytest.mark.userns]

MIB = 1 << 20
FILL = ["dd", "if=/dev/zero", "of=/var/tmp/x", "bs=1M"]


@pytest.fixture
def top(own_engine: Path) -> Path:
    return own_engine


@pytest.fixture(autouse=True)
def no_device_stays(top: Path) -> Iterator[None]:
    """Every loop device of ours, and every mount, is gone soon after each test."""
    yield
    assert eventually(lambda: not ours(top)), ours(top)
    assert not [path for path in leaks.mounts() if str(top) in path]


def ours(top: Path) -> list[str]:
    """The loop devices on files below a directory."""
    return [line for line in leaks.loops() if str(top) in line]


def written(stderr: bytes | str) -> int:
    """How much dd says it wrote."""
    text = stderr if isinstance(stderr, str) else stderr.decode()
    found = re.search(r"(\d+) bytes", text)
    assert found, text
    return int(found[1])


@pytest.mark.parametrize("size", ["8M", "64M", "300M"])
def test_dd_stops_at_the_size(top: Path, size: str) -> None:
    """ENOSPC comes within 2 % of what was asked for, and the result says so."""
    result = api.run(FILL, storage=size)
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    asked = int(size[:-1]) * MIB
    assert written(result.stderr) == pytest.approx(asked, rel=0.02)
    assert "storage-full" in [warning.code for warning in result.warnings]
    row = next(row for row in result.limits.rows() if row.name == "storage_bytes")
    assert row.asked == row.read_back == f"{size[:-1]} MiB"
    assert not row.differs


def test_a_program_sees_enospc_and_the_host_does_not(top: Path) -> None:
    """Python's write fails with errno 28; what is written outside, in a volume, is not held."""
    answer = ask(
        """
def fill(path):
    try:
        with open(path, "wb") as file:
            for _ in range(40):
                file.write(bytes(1 << 20))
    except OSError as error:
        return error.errno
tell([fill("/var/tmp/x"), fill("/outside/x"), os.statvfs("/var/tmp").f_bavail])
""",
        storage="16M",
        volumes=[f"{make(top / 'volume')}:/outside"],
    )
    assert answer[:2] == [28, None]
    assert answer[2] < 16
    assert (top / "volume" / "x").stat().st_size == 40 * MIB


def make(directory: Path) -> Path:
    directory.mkdir()
    directory.chmod(0o777)
    return directory


@pytest.mark.once
def test_many_small_files_fit(top: Path) -> None:
    """There are as many inodes as blocks: small files run out of room, and not of numbers."""
    script = (
        "mkdir /srv/d; cd /srv/d; i=0; while echo x >$i; do i=$((i+1)); done 2>/dev/null; echo $i"
    )
    result = api.run(["sh", "-c", script], storage="8M")
    assert int(result.stdout) > 0.9 * (8 * MIB / 4096)


def test_what_is_removed_can_be_written_again(top: Path) -> None:
    """The bound is on what is there, not on what was ever written."""
    script = (
        "for i in 1 2 3 4; do dd if=/dev/zero of=/srv/x bs=1M count=12 && rm /srv/x || exit 9; done"
    )
    result = api.run(["sh", "-c", script], storage="16M")
    assert result.exit_code == 0, result.stderr
    assert "storage-full" not in [warning.code for warning in result.warnings]
    assert result.record["storage"]["used_bytes"] < MIB


def test_a_cell_and_a_session_are_bounded(top: Path) -> None:
    """The same for Python cells; a session's every result says how full its layer is."""
    code = "open('/var/tmp/x', 'wb').write(bytes(5 << 20)); tell(os.statvfs('/var/tmp').f_bavail * 4096 >> 20)"
    assert ask_cell(code, storage="32M") == 27
    with nscontainer.session(storage="32M") as lab:
        used = [
            lab.run_cell(f"open('/var/tmp/{name}', 'wb').write(bytes(5 << 20))").record["storage"]
            for name in "ab"
        ]
    assert [facts["used_bytes"] >> 20 for facts in used] == [5, 10]


def test_read_only_and_another_user(top: Path) -> None:
    """With a read-only root there is nothing to write; a user of the image owns what he makes."""
    result = api.run(["touch", "/srv/x"], storage="8M", read_only=True)
    assert result.exit_code != 0
    made = api.run(
        ["sh", "-c", "touch /tmp/x && stat -c %u:%g /tmp/x /var"], storage="8M", user="7:8"
    )
    assert made.stdout.split() == ["7:8", "0:0"]


def test_without_a_user_namespace(top: Path) -> None:
    """Ids are then the host's own; the bound holds its root all the same."""
    result = api.run(FILL, storage="16M", share=["user"])
    assert written(result.stderr) == pytest.approx(16 * MIB, rel=0.02)


# --- what reads it --------------------------------------------------------------------------------

SCRIPT = "mkdir -p /data/d; echo hi >/data/d/f; chown 5:6 /data/d/f; rm -r /gone; dd if=/dev/zero of=/data/big bs=1M count=3"
CHANGES = ["A /data", "A /data/big", "A /data/d", "A /data/d/f", "D /gone"]


def image(name: str) -> None:
    tar = rootfs_images.busybox().directory("gone").file("gone/x", "x")
    rootfs_images.make(name, tar.bytes())


@pytest.mark.once
@pytest.mark.parametrize("lives", [True, False], ids=["running", "ended"])
def test_every_reader_reads_it(top: Path, *, lives: bool) -> None:
    """diff, layers, commit, export and df see a bounded layer, of a container that runs or has ended."""
    image("base:1")
    end = "; sync; echo done >/tmp/done; sleep 1000" if lives else ""
    one = Container.create(
        spec.build(["sh", "-c", SCRIPT + end], image="base:1", storage="32M"),
        detach=True,
        remove=False,
        start=True,
    )
    if lives:
        assert eventually(lambda: one.exec(["cat", "/tmp/done"]).exit_code == 0)
    else:
        one.wait()
        assert eventually(lambda: not ours(top)), "its device stays after its end"
    changes = [str(change) for change in images.diff(one)]
    assert [line for line in changes if "/tmp" not in line] == CHANGES
    stack = images.layers(one.name)
    assert stack.layers[-1].size_bytes == pytest.approx(3 * MIB, abs=100)
    row = next(row for row in disk_usage.rows() if row["type"] == "containers")
    # Set aside while it runs; at its end all is given back but ext4's own.
    low, high = (32, 40) if lives else (3, 10)
    assert low * MIB <= row["size_bytes"] <= high * MIB
    sink = io.BytesIO()
    images.export(one, sink)
    sink.seek(0)
    with tarfile.open(fileobj=sink) as tar:
        member = tar.getmember("data/d/f")
        assert (member.uid, member.gid) == (5, 6)
        assert "gone" not in tar.getnames()
    saved = images.commit(one, "saved:1")
    assert len(saved.layers) == 2
    said = api.run(["sh", "-c", "cat /data/d/f; ls /gone; stat -c %s /data/big"], image="saved:1")
    assert said.stdout.split() == ["hi", str(3 * MIB)]
    if lives:
        copying.copy_out(one, "/data/d/f", str(top / "out"))
        assert (top / "out").read_text() == "hi\n"
    one.remove(force=True)
    assert not os.path.exists(one.directory)


@pytest.mark.once
def test_readers_at_the_same_time_share_one_device(top: Path) -> None:
    """Of one file there is never more than one device: two would be two filesystems."""
    image("base:1")
    with rootfs_images.ended(SCRIPT, "base:1", storage="32M") as one:
        eventually(lambda: not ours(top))
        with storage.opened(one.directory) as first, storage.opened(one.directory) as second:
            assert len(ours(top)) == 1
            for place in (first, second):
                assert Path(place, "upper0/data/d/f").read_text() == "hi\n"
                with pytest.raises(OSError, match="Read-only"):
                    Path(place, "upper0/new").touch()


@pytest.mark.once
def test_a_reader_that_is_killed_leaves_nothing(top: Path) -> None:
    """The mount of an ended container's layer goes with the process that looks at it."""
    image("base:1")
    with rootfs_images.ended(SCRIPT, "base:1", storage="32M") as one:
        eventually(lambda: not ours(top))
        source = f"""
import time
from nscontainer.engine import storage
with storage.opened({one.directory!r}) as place:
    print(place, flush=True)
    time.sleep(1000)
"""
        reader = subprocess.Popen(
            [sys.executable, "-c", source],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert reader.stdout is not None
        assert reader.stdout.readline().startswith("/proc/self/fd/")
        assert len(ours(top)) == 1
        reader.kill()
        reader.communicate()
        assert eventually(lambda: not ours(top)), ours(top)


@pytest.mark.cgroup1
def test_a_layer_whose_writes_are_held_is_read_as_it_is(top: Path) -> None:
    """On v1 --disk-write's device goes through a process: readers find it, and see what waits in memory."""
    image("base:1")
    what = spec.build(
        ["sh", "-c", "echo hi >/f; echo done >/done; sleep 1000"],
        image="base:1",
        storage="32M",
        disk_write="50M",
    )
    one = Container.create(what, detach=True, remove=False, start=True)
    assert eventually(lambda: one.exec(["cat", "/done"]).exit_code == 0)
    with storage.opened(one.directory) as place:
        assert ours(top) == []  # a device of the file itself would be a second filesystem
        assert Path(place, "upper0/f").read_text() == "hi\n"
    one.kill()
    one.wait()
    assert "A /f" in [str(change) for change in images.diff(one)]
    one.remove()


# --- nothing stays --------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in ("state", "cgroup")])
def test_the_owner_is_killed_during_the_set_up(top: Path, stage: str) -> None:
    """SIGKILL at every stage that there is a device in: it goes, and its file."""
    owner = Owner(top, "api.run(['sleep', '1000'], storage='16M')", NSCONTAINER_HALT_AT=stage)
    halted = top / "halted"
    assert eventually(lambda: halted.exists() and halted.read_text() == stage), owner.wait(0.1)
    assert bool(ours(top)) == (stage != "rootfs")
    owner.kill()
    assert eventually(lambda: not ours(top) and not os.listdir(top / "containers")), ours(top)


@pytest.mark.parametrize("kept", [False, True])
def test_the_monitor_is_killed(top: Path, *, kept: bool) -> None:
    """SIGKILL of the monitor at work: the device goes with its mounts, gc removes the file."""
    script = "dd if=/dev/zero of=/srv/x bs=1M count=3; sync; touch /srv/done; sleep 1000"
    one = Container.create(
        spec.build(["sh", "-c", script], storage="16M"), detach=kept, remove=not kept, start=True
    )
    assert eventually(lambda: one.exec(["test", "-e", "/srv/done"]).exit_code == 0)
    assert len(ours(top)) == 1
    os.kill(int(one.inspect()["monitor_pid"]), signal.SIGKILL)
    assert eventually(lambda: not ours(top)), ours(top)
    garbage.collect(str(top))
    if kept:
        assert "A /srv/x" in [str(change) for change in images.diff(one)]
        one.remove()
    assert os.listdir(top / "containers") == []


@pytest.mark.once
def test_one_after_another_leave_nothing(top: Path) -> None:
    """Thirty in a row, each with its own device, and one device at the end is none."""
    for _ in range(30):
        assert api.run(["true"], storage="16M").exit_code == 0
    assert eventually(lambda: not ours(top))


@pytest.mark.once
def test_what_is_thrown_away_is_not_written_first(top: Path) -> None:
    """A container's unwritten megabytes don't hold up its end: none of them reaches the disk."""
    one = Container.create(spec.build(SLEEP, storage="256M"), start=True)
    one.exec(["dd", "if=/dev/zero", "of=/srv/x", "bs=1M", "count=100"])
    device = storage_device(one)
    before = sectors_written(device)
    file = os.open(f"{one.directory}/{storage.FILE}", os.O_RDONLY)
    try:
        one.kill()
        one.wait()
        time.sleep(0.3)
        held = loop.find(file)
        after = before if held is None else sectors_written(device)
        if held is not None:
            os.close(held.fd)
    finally:
        os.close(file)
    assert after - before < 100 * MIB / 512 / 2


def storage_device(one: Container) -> int:
    return int(one.inspect()["storage"]["number"])


def sectors_written(number: int) -> int:
    return int(Path(f"/sys/block/loop{number}/stat").read_text().split()[6])


# --- a disk that is too small ---------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk of 100 MB, mounted nowhere."""
    file = os.open(tmp_path / "disk", os.O_RDWR | os.O_CREAT)
    os.ftruncate(file, 100 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", str(tmp_path / "disk")], check=True)
    device = loop.attach(file)
    fd = mount.new_filesystem("ext4", source=device.path)
    os.close(device.fd)
    os.close(file)
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


@pytest.mark.once
def test_what_fits_easily_is_set_aside(small_disk: Path, tmp_path: Path) -> None:
    """A layer of up to a quarter of the disk's free space has its blocks from the first instant."""
    for number, (size, reserved) in enumerate(
        [(16 * MIB, True), (60 * MIB, False), (300 * MIB, False)]
    ):
        directory = small_disk / str(number)
        directory.mkdir()
        made = storage.make(str(directory), size, cache=str(tmp_path / "cache"))
        os.close(made.mount_fd)
        taken = storage.disk_bytes(str(directory))
        assert (made.reserved, taken >= size) == (reserved, reserved)
        assert made.measured()["holds_bytes"] == pytest.approx(size, rel=0.02)
        made.drop()


@pytest.mark.once
def test_a_full_disk_is_told_of(small_disk: Path, tmp_path: Path) -> None:
    """Where the disk beneath is full the layer's writes are lost; that is counted."""
    directory = small_disk / "one"
    directory.mkdir()
    made = storage.make(str(directory), 300 * MIB, cache=str(tmp_path / "cache"))
    assert made.measured()["errors"] == 0
    with open(f"/proc/self/fd/{made.mount_fd}/x", "wb") as file:
        file.writelines(os.urandom(MIB) for _ in range(150))
        file.flush()
        with pytest.raises(OSError, match=r"No space left|Input/output"):
            os.fsync(file.fileno())
    assert made.measured()["errors"] > 0
    os.close(made.mount_fd)
    made.drop()


# --- refused --------------------------------------------------------------------------------------


def test_too_little_is_refused(top: Path) -> None:
    """Less than a filesystem takes is a SpecError, before anything is made."""
    with pytest.raises(SpecError, match="too little"):
        api.run(["true"], storage="4M")
    with pytest.raises(SpecError, match="storage"):
        Container.create(spec.build(SLEEP)).update(storage="1G")
    assert not (top / "cache").exists() or not list((top / "cache").glob("ext4-*"))


@pytest.mark.once
@pytest.mark.parametrize(("what", "where"), [("mkfs.ext4", "_MKFS_PATH"), ("loop", "CONTROL")])
def test_what_the_host_lacks_is_named(
    top: Path, monkeypatch: pytest.MonkeyPatch, what: str, where: str
) -> None:
    """No mkfs.ext4, no loop devices: a HostError that names the package or the module."""
    monkeypatch.setattr(storage if where == "_MKFS_PATH" else loop, where, "/nowhere")
    with pytest.raises(HostError, match=what) as caught:
        api.run(["true"], storage="16M")
    assert caught.value.hint in ("apt-get install e2fsprogs", "modprobe loop")
    assert not (top / "containers").exists() or os.listdir(top / "containers") == []


@pytest.mark.once
def test_the_doctor_tries_one() -> None:
    """The smallest is made, told of, and gone."""
    assert [(one.name, one.status) for one in doctor_storage.bounded()] == [("disk size", "works")]
    assert eventually(lambda: not ours(Path(".nscontainer-doctor-")))
