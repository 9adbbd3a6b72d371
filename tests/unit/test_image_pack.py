"""Layers packed: every case of a tree, bit for bit, there and back."""

from __future__ import annotations

import hashlib
import io
import os
import random
import stat
import tarfile
from pathlib import Path

import pytest

from nscontainer.errors import LayerError
from nscontainer.image.extract import extract
from nscontainer.image.pack import Packer, pack
from tests.images import looks, trees


def packed(top: Path, **options: object) -> bytes:
    sink = io.BytesIO()
    pack(str(top), sink, **options)  # type: ignore[arg-type]
    return sink.getvalue()


@pytest.mark.root
def test_there_and_back_bit_for_bit(tmp_path: Path) -> None:
    """A tree with every case packs, unpacks and packs to equal bytes, and every fact of it is kept."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    trees.every_case(first)
    tar = packed(first)
    result = extract(io.BytesIO(tar), str(second))
    assert result.notes == ("owners above 65535: a container sees their files as nobody's",)
    assert packed(second) == tar
    assert packed(first) == tar
    assert hashlib.sha256(packed(second)).digest() == hashlib.sha256(tar).digest()
    before, after = looks.everything(first), looks.everything(second)
    del before["socket"]
    for facts in (before, after):
        del facts["."]
        for name, (*others, xattrs, same) in list(facts.items()):
            if name in ("gone", "gone-too", "etc/gone") or "/www" in name:
                facts[name] = (name,)  # whiteouts: that they are there
            else:
                assert isinstance(xattrs, tuple)
                kept = tuple(x for x in xattrs if x[0] != "trusted.overlay.origin")
                facts[name] = (*others, kept, same)
    assert after == before
    assert looks.short(second) == {k: v for k, v in looks.short(first).items() if k != "socket"}


@pytest.mark.root
def test_random_trees_there_and_back(tmp_path: Path) -> None:
    """Trees made by chance pack to equal bytes once unpacked, whatever is in them."""
    for seed in range(25):
        chance = random.Random(seed)
        top = tmp_path / f"{seed}"
        top.mkdir()
        _grow(top, chance, 0)
        tar = packed(top)
        again = tmp_path / f"{seed}-again"
        again.mkdir()
        extract(io.BytesIO(tar), str(again))
        assert packed(again) == tar, f"seed {seed}"


def _grow(top: Path, chance: random.Random, depth: int) -> None:
    files: list[Path] = []
    for _ in range(chance.randrange(1, 12)):
        name = "".join(chance.choice("aé\u20ac .%\udcff") for _ in range(chance.choice((1, 3, 60))))
        path = top / (name.strip(".") or "x")
        if os.path.lexists(path):
            continue
        kind = chance.randrange(9)
        if kind == 0 and depth < 6:
            path.mkdir(chance.choice((0o755, 0o700, 0o1777)))
            _grow(path, chance, depth + 1)
            if chance.randrange(3) == 0:
                os.setxattr(path, "trusted.overlay.opaque", b"y")
        elif kind == 1:
            os.symlink(chance.choice(("a", "/b" * 80, "\udcff")), path)
        elif kind == 2:
            os.mknod(path, stat.S_IFCHR, 0)
        elif kind == 3 and files:
            os.link(chance.choice(files), path)
        elif kind == 4:
            os.mkfifo(path)
        else:
            size = chance.choice((0, 1, 511, 512, 513, 70_000, 300_000))
            data = bytes(size) if chance.randrange(2) else chance.randbytes(size)
            path.write_bytes(data)
            os.chown(path, chance.randrange(3) * 70_000, chance.choice((0, 1, 2**31)))
            files.append(path)
    for path in top.iterdir():
        when = chance.randrange(-(10**18), 10**18)
        os.utime(path, ns=(when, when), follow_symlinks=False)


def test_python_reads_it(tmp_path: Path) -> None:
    """What packs is a tar to others: Python's own reader sees the same names, sizes and times."""
    tmp_path.chmod(0o755)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / ("n" * 150)).write_bytes(b"x" * 1000)
    os.utime(tmp_path / "d" / ("n" * 150), ns=(0, -1_500_000_000))
    (tmp_path / "l").symlink_to("t" * 150)
    with tarfile.open(fileobj=io.BytesIO(packed(tmp_path))) as tar:
        members = {member.name: member for member in tar}
    assert list(members) == ["d", "d/" + "n" * 150, "l"]
    assert members["d/" + "n" * 150].size == 1000
    assert members["d/" + "n" * 150].mtime == -1.5
    assert members["l"].linkname == "t" * 150


def test_a_file_with_large_holes_is_sparse_in_the_tar(tmp_path: Path) -> None:
    """2 GiB of nothing are some kilobytes of tar, and come back as holes, to equal bytes."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with (first / "large").open("wb") as file:
        file.write(b"start")
        file.seek((1 << 30) + 12345)
        file.write(b"x" * 100_000)
        file.truncate((2 << 30) + 7)
    tar = packed(first)
    assert len(tar) < 300_000
    extract(io.BytesIO(tar), str(second))
    facts = (second / "large").stat()
    assert (facts.st_size, facts.st_blocks * 512 < 1 << 20) == ((2 << 30) + 7, True)
    with (second / "large").open("rb") as file:
        assert file.read(6) == b"start\0"
        file.seek((1 << 30) + 12344)
        assert file.read(3) == b"\0xx"
    assert packed(second) == tar
    with tarfile.open(fileobj=io.BytesIO(tar)) as reader:
        member = reader.getmember("large")
        assert member.size == (2 << 30) + 7


def test_order_skip_and_prefix(tmp_path: Path) -> None:
    """Names in order, deletions first; what is to be left out is; two trees make one tar."""
    tmp_path.chmod(0o755)
    for name in ("b/x/deep", "b/y", "a"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("b/x/deep/file", "b/y/file", "c"):
        (tmp_path / name).write_text("")
    os.mknod(tmp_path / "z", stat.S_IFCHR, 0)
    os.mknod(tmp_path / "b/w", stat.S_IFCHR, 0)

    def names(tar: bytes) -> list[str]:
        with tarfile.open(fileobj=io.BytesIO(tar)) as reader:
            return reader.getnames()

    assert names(packed(tmp_path)) == [
        ".wh.z", "a", "b", "b/.wh.w", "b/x", "b/x/deep", "b/x/deep/file", "b/y", "b/y/file", "c",
    ]  # fmt: skip
    assert names(packed(tmp_path, skip=("/b/x", "c", b"b/w", "z"))) == ["a", "b", "b/y", "b/y/file"]
    sink = io.BytesIO()
    packer = Packer(sink)
    packer.tree(str(tmp_path / "b/y"))
    packer.tree(str(tmp_path / "b/x"), prefix="/home/me/", skip=["deep/file"])
    packer.finish()
    assert names(sink.getvalue()) == ["file", "home/me/deep"]


@pytest.mark.root
def test_owners_are_shifted_back(tmp_path: Path) -> None:
    """Ids of a user namespace become the container's; those outside of it nobody's."""
    (tmp_path / "a").write_text("")
    (tmp_path / "b").write_text("")
    (tmp_path / "c").write_text("")
    os.chown(tmp_path / "a", 100_000, 100_007)
    os.chown(tmp_path / "b", 0, 165_535)
    os.chown(tmp_path / "c", 165_536, 99_999)
    os.chown(tmp_path, 100_000, 100_000)
    with tarfile.open(fileobj=io.BytesIO(packed(tmp_path, id_shift=100_000))) as reader:
        ids = {m.name: (m.uid, m.gid) for m in reader}
    assert ids == {".": (0, 0), "a": (0, 7), "b": (65534, 65535), "c": (65534, 65534)}


def test_what_no_layer_can_have_is_refused(tmp_path: Path) -> None:
    """A file with a whiteout's name would delete another: it is named, not packed."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / ".wh.evil").write_text("")
    with pytest.raises(LayerError, match=r"d/\.wh\.evil"):
        packed(tmp_path)


@pytest.mark.root
def test_a_file_whose_data_is_below_is_refused(tmp_path: Path) -> None:
    """With overlayfs' metacopy a file in the upper layer is empty: no layer is made of that."""
    (tmp_path / "a").write_text("")
    os.setxattr(tmp_path / "a", "trusted.overlay.metacopy", b"")
    with pytest.raises(LayerError, match="its data is in a layer below"):
        packed(tmp_path)


def test_a_tree_that_changes_meanwhile(tmp_path: Path) -> None:
    """A file that shrinks or vanishes while it is read leaves a tar that is whole."""
    (tmp_path / "a").write_bytes(b"x" * 100)
    (tmp_path / "b").write_bytes(b"y" * (3 << 20))
    (tmp_path / "c").write_bytes(b"z")

    class Sink(io.BytesIO):
        def write(self, data: bytes, /) -> int:  # type: ignore[override]
            if b"y" in data:
                (tmp_path / "b").write_bytes(b"")
                (tmp_path / "c").unlink(missing_ok=True)
            return super().write(data)

    sink = Sink()
    pack(str(tmp_path), sink)
    with tarfile.open(fileobj=io.BytesIO(sink.getvalue())) as reader:
        assert {m.name: m.size for m in reader} == {".": 0, "a": 100, "b": 3 << 20}


@pytest.mark.root
def test_a_mark_that_anyone_can_set_hides_nothing(tmp_path: Path):
    """Root's overlayfs looks at trusted.overlay.opaque alone: user.overlay.opaque is a program's own."""
    directory = tmp_path / "top" / "data"
    directory.mkdir(parents=True)
    os.setxattr(directory, "user.overlay.opaque", b"y")
    with tarfile.open(fileobj=io.BytesIO(packed(tmp_path / "top"))) as tar:
        assert "data" in tar.getnames()
        assert "data/.wh..wh..opq" not in tar.getnames()
    os.setxattr(directory, "trusted.overlay.opaque", b"y")
    with tarfile.open(fileobj=io.BytesIO(packed(tmp_path / "top"))) as tar:
        assert "data/.wh..wh..opq" in tar.getnames()
