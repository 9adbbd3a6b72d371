"""Where a figure comes from."""

from __future__ import annotations

import os
import sys

from nscontainer.measure import Provenance, RunResult, provenance
from tests.unit import factories


def test_this_host():
    """What any Linux tells is told, in UTC; the host image has no digest."""
    found = RunResult.from_record(factories.record(), b"", code="1 + 1").provenance
    assert found.time_utc == "2025-06-15T15:06:40.010+00:00"
    assert found.host == os.uname().nodename
    assert found.linux is not None
    assert found.linux.startswith(os.uname().release)
    assert found.cpus == os.cpu_count()
    assert found.memory_bytes is not None
    assert found.memory_bytes > 1 << 20
    assert found.cgroup_version == "hybrid"
    assert found.image == "host"
    assert found.image_digest is None
    assert found.code == "1 + 1"
    assert found.spec["command"] == ["true"]
    assert found.packages["pytest"]


def test_it_comes_back_from_json():
    """to_dict and from_dict are each other's opposite; keys of another version do no harm."""
    host = factories.host()
    assert Provenance.from_dict(host.to_dict() | {"of the future": 1}) == host


def test_packages_are_read_again_after_an_installation(tmp_path):
    """Cached as long as no folder of the path changes; the first in the path wins."""
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, version in ((first, "2.0"), (second, "1.0")):
        (folder / f"demo-{version}.dist-info").mkdir(parents=True)
    (second / "old-0.1-py3.11.egg-info").touch()
    (second / "not_a_package-1.0").mkdir()
    path = (str(first), str(second), str(tmp_path / "missing"))
    assert provenance._packages(path) == {"demo": "2.0", "old": "0.1"}
    os.utime(second, ns=(0, 0))
    (second / "new-3.dist-info").mkdir()
    assert provenance._packages(path)["new"] == "3"


def test_a_cell_has_its_own_path(tmp_path):
    """The packages are those that the cell could import, not the notebook's."""
    (tmp_path / "only-1.dist-info").mkdir()
    record = factories.record()
    record["spec"]["python_path"] = [str(tmp_path)]
    assert RunResult.from_record(record, b"").provenance.packages == {"only": "1"}


def test_files_that_are_not_there(monkeypatch):
    """On a host without /proc it says less and does not fail."""
    monkeypatch.setattr(provenance, "_read", lambda path, size=4096: None)
    provenance._static.cache_clear()
    try:
        found = RunResult.from_record(factories.record(cgroup=None), b"").provenance
    finally:
        provenance._static.cache_clear()
    assert found.cpu_model is None
    assert found.swap_used_bytes is None
    assert "swap" not in repr(found)


def test_readable():
    """One line a fact, without those that are not known."""
    lines = repr(factories.host(governor=None, cpus_allowed=1)).splitlines()
    assert "CPUs                    1 of 2 allowed" in lines
    assert not any(line.startswith("governor") for line in lines)
    assert f"{sys.version_info[0]}" in repr(factories.host())
