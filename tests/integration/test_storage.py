"""A bounded read-write layer: where it ends, what reads it, and that nothing of it stays."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from nscontainer import api
from tests import leaks
from tests.integration.inside import eventually

pytestmark = [pytest.mark.root, pytest.mark.loop, pytest.mark.userns]

MIB = 1 << 20
FILL = ["dd", "if=/dev/zero", "of=/var/tmp/x", "bs=1M"]


@pytest.fixture
def top(own_engine: Path) -> Path:
    return own_engine


@pytest.fixture(autouse=True)
def no_device_stays(top: Path) -> Iterator[None]:
    """Every loop device of ours, and every mount, is gone soon after each test."""
    mounts = set(leaks.mounts())
    yield
    assert eventually(lambda: not ours(top)), ours(top)
    assert set(leaks.mounts()) <= mounts


def ours(top: Path) -> list[str]:
    """The loop devices on files below a state directory."""
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
