"""A bounded layer without a container: the filesystem's size, the copy, what is said of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from nscontainer import spec
from nscontainer.engine import standby, storage
from nscontainer.errors import SpecError
from nscontainer.linux import loop
from nscontainer.measure.result import RunResult
from tests.unit import factories

MIB = 1 << 20
mkfs = pytest.mark.skipif(
    shutil.which("mkfs.ext4", path=storage._MKFS_PATH) is None, reason="no mkfs.ext4"
)


@mkfs
@pytest.mark.parametrize(
    "size", [8 * MIB, 8 * MIB + 1, 64 * MIB, 100_000_000, 1 << 30, 37 << 30, 1 << 40]
)
def test_a_filesystem_has_what_was_asked_for(tmp_path: Path, size: int) -> None:
    """What mkfs leaves free, less what ext4 keeps back, is the size and at most half a percent more."""
    path = storage._template(str(tmp_path), size)
    total = os.stat(path).st_size // 4096
    with open(path, "rb") as file:
        file.seek(1024)
        block = file.read(1024)
    free = int.from_bytes(block[0x0C:0x10], "little") + (
        int.from_bytes(block[0x158:0x15C], "little") << 32
    )
    usable = (free - min(total // 50, 4096)) * 4096
    assert size <= usable - 16 * 4096 <= size * 1.005 + 8192
    assert os.stat(path).st_blocks * 512 < max(MIB, size // 10_000)  # nothing but what is needed
    assert storage._template(str(tmp_path), size) == path
    assert os.listdir(tmp_path) == [os.path.basename(path)]


def test_a_copy_has_the_holes(tmp_path: Path) -> None:
    """A sparse file's copy is the same to the byte, and as sparse."""
    source, target = tmp_path / "a", tmp_path / "b"
    with open(source, "wb") as file:
        file.write(b"x" * 5000)
        file.seek(40 * MIB)
        file.write(b"y" * 70_000)
        file.truncate(90 * MIB)
    fd = os.open(target, os.O_RDWR | os.O_CREAT)
    storage._copy_sparse(str(source), fd)
    os.close(fd)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks + 64


def test_the_structs_are_linuxes() -> None:
    """struct loop_config and loop_info64 have the sizes of linux/loop.h."""
    assert (loop._CONFIG.size, loop._STATUS.size) == (304, 232)


def test_it_has_no_standby() -> None:
    """A container with a filesystem of its own is made when it is asked for."""
    message = {"detach": False, "remove": True, "halt_at": None, "image": None, "layers": 0}
    plain = spec.build(["true"]).to_dict()
    bounded = spec.build(["true"], storage="8M").to_dict()
    assert standby.kind({**message, "spec": plain}) is not None
    assert standby.kind({**message, "spec": bounded}) is None


def test_the_least_is_8_mib() -> None:
    """Below that, and what is no size, is refused; Docker's form is taken."""
    assert spec.limits(storage="size=8M").storage_bytes == 8 * MIB
    for wrong in ("7M", "0", "-1", "much", ""):
        with pytest.raises(SpecError):
            spec.limits(storage=wrong)


def run(read_back: int | None = None, **facts: Any) -> RunResult:
    asked = spec.limits(storage="64M")
    known = {
        "number": 3, "device": "7:3", "size_bytes": 64 * MIB, "host_free_bytes": 1 << 40,
        "reserved": True, "direct": True, "used_bytes": 0, "free_bytes": 64 * MIB,
        "free_files": 1000, "holds_bytes": 64 * MIB, "errors": 0,
    }  # fmt: skip
    back = factories.read_back(asked) | {"storage_bytes": read_back}
    record = factories.record(asked=asked, storage=known | facts, limits_read_back=back)
    return RunResult.from_record(record, b"")


@pytest.mark.parametrize(
    ("facts", "code", "words"),
    [
        ({"free_bytes": 4096}, "storage-full", "its storage limit of 64 MiB was full:"),
        ({"free_files": 0}, "storage-full", "was full of files:"),
        ({"errors": 2}, "storage-lost", "in part lost"),
        ({"host_free_bytes": 32 * MIB}, "storage-beyond-disk", "had 32 MiB free"),
        ({"free_bytes": MIB}, None, ""),
        ({"size_bytes": None, "free_bytes": 0}, None, ""),
    ],
)
def test_warnings(facts: dict[str, Any], code: str | None, words: str) -> None:
    """Each by itself gives its line and no other."""
    found = [w for w in run(64 * MIB, **facts).warnings if w.code.startswith("storage")]
    assert [w.code for w in found] == ([code] if code else [])
    assert all(words in w.message for w in found)


@pytest.mark.parametrize(
    ("read_back", "text", "differs"),
    [
        (64 * MIB + 60_000, "64 MiB", False),
        (60 * MIB, "60 MiB", True),
        (None, None, True),
    ],
)
def test_asked_and_read_back(read_back: int | None, text: str | None, *, differs: bool) -> None:
    """Within 2 % a filesystem's size is what was asked for."""
    (row,) = [row for row in run(read_back).limits.rows() if row.name == "storage_bytes"]
    assert (row.asked, row.read_back, row.differs) == ("64 MiB", text, differs)
