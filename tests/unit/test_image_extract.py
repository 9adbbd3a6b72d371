"""Layers unpacked: whatever a tar says, nothing is touched outside, and a refusal is one clear line."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nscontainer.errors import LayerError, NsContainerError
from nscontainer.image.extract import Extracted, extract
from nscontainer.image.limits import Limits
from tests.images import corpus, looks, tars


class Place:
    """A directory to unpack into, with canaries all around."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.root = top / "root"
        self.root.mkdir()
        self.outside = top / "outside"
        (self.outside / "dir").mkdir(parents=True)
        (self.outside / "dir" / "x").write_text("canary")
        (self.outside / "file").write_text("canary")
        self.before = self.look()

    def look(self) -> dict[str, tuple[object, ...]]:
        return looks.everything(self.outside) | {"": tuple(sorted(os.listdir(self.top)))}

    def unpack(self, tar: bytes, limits: Limits | None = None) -> Extracted:
        try:
            return extract(io.BytesIO(tar), str(self.root), limits=limits)
        finally:
            assert self.look() == self.before, "something outside was touched"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("name", corpus.NAMES)
def test_corpus(place: Place, name: str) -> None:
    """Each evil or odd tar is refused with its reason, or unpacked to just what it should be."""
    case = corpus.by_name(os.fsencode(place.outside))[name]
    if case.root and os.geteuid() != 0:
        pytest.skip("this case is about what root may make")
    if case.refused is not None:
        with pytest.raises(LayerError) as caught:
            place.unpack(case.tar)
        assert re.search(case.refused, str(caught.value)), str(caught.value)
        assert "\n" not in str(caught.value)
        return
    result = place.unpack(case.tar)
    assert looks.short(place.root) == case.tree
    assert case.notes in " ".join(result.notes)
    assert bool(case.notes) == bool(result.notes)


ALL = tuple(case.tar for case in corpus.cases(b"/outside") if len(case.tar) < 100_000)
GOOD = tars.whole(
    tars.directory(b"d"),
    tars.file(b"d/f", b"x" * 700),
    tars.symlink(b"s", b"../../outside/dir"),
    tars.hard_link(b"h", b"d/f"),
    tars.pax({b"path": b"d/" + b"n" * 120, b"mtime": b"1.5", b"SCHILY.xattr.user.a": b"1"}),
    tars.file(b"x", b"data"),
    tars.file(b"d/.wh.gone"),
    tars.file(b"s/through", b"1"),
)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    tar=st.sampled_from([*ALL, GOOD, GOOD, GOOD]),
    changes=st.lists(
        st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=24)), max_size=6
    ),
    cut=st.none() | st.integers(0, 1 << 14),
    mend=st.booleans(),
)
def test_mutated_tars(
    tmp_path_factory: pytest.TempPathFactory,
    tar: bytes,
    changes: list[tuple[int, bytes]],
    cut: int | None,
    mend: bool,  # noqa: FBT001 - hypothesis gives it by name
) -> None:
    """Whatever is changed in a tar, checksums put right or not: no write outside, no error but ours."""
    data = bytearray(tar)
    for at, new in changes:
        if data:
            start = at % len(data)
            data[start : start + len(new)] = new
    if mend:
        for at in range(0, len(data) - 511, 512):
            if data[at + 257 : at + 262] == b"ustar":
                data[at : at + 512] = corpus._summed(bytes(data[at : at + 512]))
    place = Place(tmp_path_factory.mktemp("mutated"))
    try:
        place.unpack(bytes(data[:cut]), Limits(bytes=1 << 20, entries=500))
    except NsContainerError as error:
        said = str(error)
    else:
        said = ""
    assert "\n" not in said


@pytest.mark.parametrize(
    ("limits", "tar", "words"),
    [
        (Limits(entries=3), tars.whole(*(tars.file(b"%d" % n) for n in range(4))), "3 entries"),
        (Limits(entries=3), tars.whole(tars.directory(b"a/b/c/d")), "3 entries"),
        (Limits(bytes=999), tars.whole(tars.file(b"a", b"x" * 1000)), "more than 999 bytes"),
        (Limits(stream_bytes=5000), tars.whole(tars.file(b"a", bytes(5000))), "5000 bytes"),
        (Limits(stream_bytes=5000), tars.whole() + bytes(5000), "5000 bytes"),
        (Limits(kept_bytes=2000), tars.whole(*[tars.directory(b"a")] * 9), "directories"),
        (Limits(name_parts=2), tars.whole(tars.file(b"a/b/c")), "3 parts"),
        (Limits(name_bytes=4), tars.whole(tars.file(b"aaaaa")), "5 bytes"),
    ],
)
def test_limits(place: Place, limits: Limits, tar: bytes, words: str) -> None:
    """A layer with too many, too large, too long or too deep things is refused, and it's said which."""
    with pytest.raises(LayerError, match=words):
        place.unpack(tar, limits)


def test_a_bomb_is_refused_by_its_ratio(place: Place) -> None:
    """More than a thousand times the compressed bytes, after the first 64 MiB, is taken for a bomb."""
    tar = io.BytesIO(tars.whole(*(tars.file(b"%d" % n, b"a" * (8 << 20)) for n in range(9))))
    with pytest.raises(LayerError, match="taken for a bomb"):
        extract(tar, str(place.root), packed_bytes=lambda: 60_000)


def test_zeros_become_holes(place: Place) -> None:
    """A file that is mostly zeros takes the disk for what else is in it, and reads the same."""
    data = b"start" + bytes(5 << 20) + b"middle" + bytes(3 << 20)
    place.unpack(tars.whole(tars.file(b"a", data), tars.file(b"b", bytes(1 << 20))))
    assert (place.root / "a").read_bytes() == data
    assert (place.root / "b").read_bytes() == bytes(1 << 20)
    assert (place.root / "a").stat().st_blocks * 512 < 1 << 20
    assert (place.root / "b").stat().st_blocks == 0


def test_times_to_the_nanosecond(place: Place) -> None:
    """Times of files, links and directories are kept to the nanosecond, before 1970 too."""

    def at(time: bytes) -> bytes:
        return tars.pax({b"mtime": time})

    place.unpack(
        tars.whole(
            at(b"1700000000.123456789"), tars.directory(b"d"),
            at(b"-1.5"), tars.file(b"d/a"),
            at(b"-0.000000001"), tars.symlink(b"d/s", b"x"),
            at(b"3.1234567899999"), tars.header(b"d/f", b"6"),
            tars.file(b"old", mtime=tars.binary(-86400, 12)),
        )
    )  # fmt: skip
    when = {
        name: (place.root / name).lstat().st_mtime_ns for name in ("d", "d/a", "d/s", "d/f", "old")
    }
    assert when == {
        "d": 1_700_000_000_123_456_789, "d/a": -1_500_000_000, "d/s": -1, "d/f": 3_123_456_789,
        "old": -86_400_000_000_000,
    }  # fmt: skip


@pytest.mark.root
def test_owners_modes_and_attributes(place: Place) -> None:
    """Owners, setuid bits, capabilities and user attributes are as in the tar, owners shifted if asked."""
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    tar = tars.whole(
        tars.pax(
            {b"SCHILY.xattr.security.capability": capability, b"SCHILY.xattr.user.a": b"\0\n="}
        ),
        tars.file(b"a", b"1", mode=tars.octal(0o4755, 8), uid=tars.octal(1000, 8)),
        tars.directory(b"d", 0o1777, gid=5),
        tars.header(b"s", b"2", link=b"x", uid=tars.octal(7, 8)),
    )
    extract(io.BytesIO(tar), str(place.root), owner_shift=100_000)
    a, d, s = ((place.root / name).lstat() for name in "ads")
    assert (a.st_mode & 0o7777, a.st_uid, a.st_gid) == (0o4755, 101_000, 100_000)
    assert (d.st_mode & 0o7777, d.st_uid, d.st_gid) == (0o1777, 100_000, 100_005)
    assert s.st_uid == 100_007
    assert os.getxattr(place.root / "a", "security.capability") == capability
    assert os.getxattr(place.root / "a", "user.a") == b"\0\n="


def test_a_directory_without_permissions_is_filled_first(place: Place) -> None:
    """A directory's mode is given last, so one that nobody may enter gets its files."""
    place.unpack(tars.whole(tars.directory(b"d", 0), tars.file(b"d/a", b"1")))
    assert (place.root / "d").stat().st_mode & 0o7777 == 0
    (place.root / "d").chmod(0o700)
    assert (place.root / "d" / "a").read_bytes() == b"1"
