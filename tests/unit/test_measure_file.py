"""A result as a file: all of it comes back, and what is none is refused in one line."""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys
import zipfile

import pytest

from nscontainer import schema
from nscontainer.errors import NsContainerError, one_line
from nscontainer.measure import load, result_file
from nscontainer.measure.result_file import ResultFileError
from tests.unit import factories


@pytest.fixture
def run():
    """A run with everything in it."""
    outputs = [{"output_type": "stream", "name": "stdout", "text": "ü\ud800"}]
    return factories.run(
        1, stdout=b"\xff\0bytes", outputs=outputs, code="print('\udcff')", parents_quota=0.5
    )


def rewritten(path, change) -> None:
    """Change the metadata of a saved result."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    meta = json.loads(parts["result.json"])
    change(meta, parts)
    parts["result.json"] = json.dumps(meta).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def test_everything_comes_back(run, tmp_path):
    """Equal in every field, the usage frame with its units too."""
    run.save(tmp_path / "r.nsr")
    again = load(str(tmp_path / "r.nsr"))
    assert again == run
    assert again.usage.equals(run.usage)
    assert again.usage.attrs == run.usage.attrs
    assert dict(again.totals) == dict(run.totals)
    assert again.warnings == run.warnings
    assert repr(again.limits) == repr(run.limits)
    assert again.provenance == run.provenance
    assert (again.stdout, again.code, again.outputs) == (run.stdout, run.code, run.outputs)


def test_any_name_will_do_and_replaces_what_was_there(run, tmp_path):
    """The file is written beside and moved over; nothing else is left in the folder."""
    path = tmp_path / "old.zip"
    path.write_text("old")
    link = tmp_path / "link"
    link.symlink_to(path)
    run.save(link)
    assert link.is_symlink()
    assert load(path) == run
    assert sorted(os.listdir(tmp_path)) == ["link", "old.zip"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_failure_leaves_the_old_file(run, tmp_path, monkeypatch):
    """No space left at the last moment: the old file is as it was, and no draft stays."""
    path = tmp_path / "r.nsr"
    path.write_text("old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        run.save(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["r.nsr"]


def test_no_such_file(tmp_path):
    """A missing file is the system's own error."""
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none")


def test_there_is_nothing_pickled_in_it(run, tmp_path):
    """Text and raw figures only."""
    run.save(tmp_path / "r.nsr")
    with zipfile.ZipFile(tmp_path / "r.nsr") as archive:
        names = {"result.json", "outputs.json", "samples.bin", "stdout", "stderr"}
        assert set(archive.namelist()) == names
        json.loads(archive.read("result.json"))
        json.loads(archive.read("outputs.json"))
        assert len(archive.read("samples.bin")) % schema.ROW_BYTES == 0


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04garbage", pickle.dumps({"a": 1})])
def test_foreign_files(content, tmp_path):
    """Anything else is refused with its name."""
    path = tmp_path / "x.nsr"
    path.write_bytes(content)
    with pytest.raises(ResultFileError, match=r"x\.nsr.*is no run result") as caught:
        load(path)
    assert isinstance(caught.value, (NsContainerError, ValueError))
    assert "\n" not in one_line(caught.value)


def test_a_foreign_zip(tmp_path):
    """A zip of something else, or JSON of something else."""
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(ResultFileError, match=r"no item named 'result\.json'"):
        load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("result.json", "[1, 2]")
    with pytest.raises(ResultFileError, match="not a run result of nscontainer"):
        load(path)


def test_a_newer_file(run, tmp_path):
    """The error says which version it has and what to do."""
    run.save(tmp_path / "r.nsr")
    rewritten(tmp_path / "r.nsr", lambda meta, parts: meta.update(version=2))
    with pytest.raises(ResultFileError, match="has format 2; this nscontainer reads up to 1") as e:
        load(tmp_path / "r.nsr")
    assert e.value.hint == "pip install --upgrade nscontainer"


def test_every_flipped_byte_is_noticed_or_harmless(run, tmp_path):
    """Damage gives the one error, never another one, and never other figures."""
    path = tmp_path / "r.nsr"
    run.save(path)
    good = path.read_bytes()
    refused = 0
    for position in range(0, len(good), max(1, len(good) // 150)):
        bad = bytearray(good)
        bad[position] ^= 0xFF
        path.write_bytes(bad)
        try:
            again = load(path)
        except ResultFileError:
            refused += 1
        else:
            assert again == run
    assert refused > 50


@pytest.mark.parametrize("length", [10, 1000, -30, -1])
def test_a_cut_file(run, tmp_path, length):
    """Half a download."""
    path = tmp_path / "r.nsr"
    run.save(path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ResultFileError):
        load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda m, p: m["record"].update(exit_code="0"),
        lambda m, p: m["record"].update(final=[1]),
        lambda m, p: m["record"].update(limits_asked={"cpu_quota_us": "20"}),
        lambda m, p: m["record"].update(limit_changes=[7]),
        lambda m, p: m["record"].update(wall_ns=10**400),
        lambda m, p: m["record"].update(isolation={"namespaces": 3}),
        lambda m, p: m.update(record=None),
        lambda m, p: m.update(columns="abc"),
        lambda m, p: m.update(code=5),
        lambda m, p: m["provenance"].update(memory_bytes="much"),
        lambda m, p: m.update(provenance=[]),
        lambda m, p: p.update({"outputs.json": b"{}"}),
        lambda m, p: p.update({"outputs.json": b"[" * 100_000}),
        lambda m, p: p.update({"samples.bin": b"123"}),
        lambda m, p: p.pop("samples.bin"),
        lambda m, p: m.update(version="1"),
    ],
)
def test_a_file_made_up_by_someone(run, tmp_path, change):
    """Valid zip, valid JSON, but no result: still the one error, and at load, not later."""
    path = tmp_path / "r.nsr"
    run.save(path)
    rewritten(path, change)
    with pytest.raises(ResultFileError):
        load(path)


def test_a_small_file_that_unpacks_into_a_huge_one(run, tmp_path, monkeypatch):
    """A zip bomb is refused by its declared size, before it is unpacked."""
    path = tmp_path / "r.nsr"
    rewritten_size = 2_000_000
    run.save(path)
    rewritten(path, lambda m, p: p.update({"stdout": b"\0" * rewritten_size}))
    monkeypatch.setitem(result_file._LIMITS, "stdout", 1_000_000)
    with pytest.raises(ResultFileError, match="would unpack into 2000000 bytes"):
        load(path)


def test_figures_of_an_older_schema(run, tmp_path):
    """Columns are found by name; those that the file lacks are NA, those it has too much go."""
    run.save(tmp_path / "r.nsr")

    def older(meta, parts) -> None:
        count = len(schema.COLUMNS)
        keep = [i for i, name in enumerate(schema.NAMES) if name != "psi.io"]
        meta["columns"] = [*(schema.NAMES[i] for i in keep), "extra"]
        for name in ("baseline", "final"):
            meta["record"][name] = [*(meta["record"][name][i] for i in keep), 7]
        rows = struct.iter_unpack(f"<{count + 2}q", parts["samples.bin"])
        pack = struct.Struct(f"<{count + 2}q").pack
        moved = [(r[0], r[1], *(r[2 + i] for i in keep), 7) for r in rows]
        parts["samples.bin"] = b"".join(pack(*row) for row in moved)

    rewritten(tmp_path / "r.nsr", older)
    again = load(tmp_path / "r.nsr")
    assert again.totals["psi.io"] is None
    assert again.usage["psi.io"].isna().all()
    left = [name for name in run.usage if name != "psi.io"]
    assert again.usage[left].equals(run.usage[left])


def test_the_other_byte_order(run, tmp_path, monkeypatch):
    """The file is little-endian on every machine."""
    monkeypatch.setattr(sys, "byteorder", "big")
    swapped = result_file._little_endian(run.samples)
    assert swapped != run.samples
    assert swapped[:8] == run.samples[:8][::-1]
    assert result_file._little_endian(swapped) == run.samples
