"""COPY and ADD: which files become which, with whose modes, in which order."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from nscontainer.build import copying, owners
from nscontainer.build.context import Context
from nscontainer.build.copying import Copy
from nscontainer.build.newlayer import NewLayer, Owner
from nscontainer.build.trees import Union
from nscontainer.errors import SpecError, StateError, one_line


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A context, and an image of one layer."""
    for name in ("context/d/e/deep", "context/d/f", "context/a.txt", "context/b.txt"):
        write(tmp_path / name, name)
    for name in ("image/tmp", "image/usr/bin", "image/etc"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "image/bin").symlink_to("usr/bin")
    (tmp_path / "image/tmp").chmod(0o1777)
    write(
        tmp_path / "image/etc/passwd",
        "root:x:0:0::/:/bin/sh\nalice:x:1000:2000::/:\n7:x:70:71::/:\n",
    )
    write(tmp_path / "image/etc/group", "root:x:0:\nstaff:x:50:\n")
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def copied(top: Path, *sources: str, to: str, image: str = "image", **more: Any) -> NewLayer:
    """The layer of a COPY from the context into the image."""
    layer = NewLayer(Union([str(top / image)]), mtime_ns=10**18)
    more.setdefault("origin", Context.of(str(top / "context")))
    more.setdefault("owner", Owner())
    copying.plan(Copy(sources=sources, destination=to, **more), layer)
    return layer


def members(layer: NewLayer) -> dict[str, tarfile.TarInfo]:
    """What is in its tar, in order."""
    written = io.BytesIO()
    layer.write(written)
    written.seek(0)
    with tarfile.open(fileobj=written) as tar:
        return {member.name: member for member in tar}


@pytest.mark.parametrize(
    ("sources", "to", "made"),
    [
        (("a.txt",), "/new", "new"),
        (("a.txt",), "/new/", "new new/a.txt"),
        (("a.txt",), "/tmp", "tmp tmp/a.txt"),
        (("./a.txt",), "/x/y/z", "x x/y x/y/z"),
        (("/a.txt",), "/tmp/.", "tmp tmp/a.txt"),
        (("a.txt", "b.txt"), "/tmp/", "tmp tmp/a.txt tmp/b.txt"),
        (("*.txt",), "/tmp/", "tmp tmp/a.txt tmp/b.txt"),
        (("[a]*",), "/one", "one"),
        (("d",), "/new", "new new/e new/e/deep new/f"),
        (("d/",), "/tmp/", "tmp tmp/e tmp/e/deep tmp/f"),
        (("d/e", "a.txt"), "/n/", "n n/a.txt n/deep"),
        (("*/e",), "/n", "n n/deep"),
        ((".",), "/n", "n n/a.txt n/b.txt n/d n/d/e n/d/e/deep n/d/f"),
        (("d",), "/", "e e/deep f"),
        (("a.txt",), "/bin/tool", "usr usr/bin usr/bin/tool"),
        (("a.txt",), "/bin/", "usr usr/bin usr/bin/a.txt"),
    ],
)
def test_where_files_go(top: Path, sources: tuple[str, ...], to: str, made: str) -> None:
    """Docker's rules of slashes, directories, patterns; links of the image are followed inside it."""
    assert list(members(copied(top, *sources, to=to))) == made.split()


def test_a_directory_that_is_there_stays_as_it_is(top: Path) -> None:
    """/tmp keeps its mode; what is made for the way is 0755 and the owner's, files keep their mode."""
    (top / "context/a.txt").chmod(0o4750)
    os.utime(top / "context/a.txt", ns=(0, 1_234_567_891_000_000_000))
    found = members(copied(top, "a.txt", to="/tmp/x/", owner=Owner(5, 6)))
    assert found["tmp"].mode == 0o1777
    assert (found["tmp"].uid, found["tmp"].gid) == (os.geteuid(), os.getegid())
    assert (found["tmp/x"].mode, found["tmp/x"].uid, found["tmp/x"].gid) == (0o755, 5, 6)
    assert (found["tmp/x/a.txt"].mode, found["tmp/x/a.txt"].uid) == (0o4750, 5)
    assert found["tmp/x/a.txt"].mtime == 1_234_567_891


def test_chmod_and_the_owner_that_files_have(top: Path) -> None:
    """--chmod is for all that is copied; without an owner (COPY --from) files keep theirs."""
    found = members(copied(top, "d", to="/n", mode=0o700, owner=None))
    assert found["n/e"].mode == found["n/f"].mode == 0o700
    assert found["n/f"].uid == os.geteuid()


def test_links_and_names_of_one_file_stay_so(top: Path) -> None:
    """In a directory a link stays a link and a hard link one file; a link that is named is followed."""
    (top / "context/d/link").symlink_to("../a.txt")
    (top / "context/named").symlink_to("a.txt")
    os.link(top / "context/d/f", top / "context/d/e/also-f")
    found = members(copied(top, "d", to="/n"))
    assert (found["n/link"].type, found["n/link"].linkname) == (tarfile.SYMTYPE, "../a.txt")
    assert (found["n/f"].type, found["n/f"].linkname) == (tarfile.LNKTYPE, "n/e/also-f")
    assert found["n/e/also-f"].isreg()
    assert members(copied(top, "named", to="/n"))["n"].isreg()
    assert list(members(copied(top, "named", to="/n/"))) == ["n", "n/named"]


@pytest.mark.parametrize(
    ("sources", "to", "said"),
    [
        (("nothing",), "/", "'nothing' isn't there (the context is "),
        (("*.md",), "/", "nothing matches '*.md'"),
        (("../x",), "/", "'../x' is outside the context"),
        (("d/../../x",), "/", "is outside the context"),
        (("*.txt",), "/one", "2 files can't all become /one (a directory: /one/)"),
        (("a.txt",), "/etc/passwd/x", "/etc/passwd is no directory in the image"),
        (("secret",), "/", ".dockerignore leaves it out"),
        (("over",), "/", "/bin is a symbolic link in the image, a directory comes over it"),
        (("file-over",), "/", "/etc is a directory in the image, a file comes over it"),
    ],
)
def test_what_is_wrong_is_said(top: Path, sources: tuple[str, ...], to: str, said: str) -> None:
    """One line, and how to mend it."""
    write(top / "context/.dockerignore", "secret")
    write(top / "context/secret", "")
    write(top / "context/over/bin/x", "")
    write(top / "context/file-over/etc", "")
    with pytest.raises(SpecError) as caught:
        copied(top, *sources, to=to)
    assert said in one_line(caught.value)


def test_the_digest_is_of_names_modes_and_contents(top: Path) -> None:
    """Not of times: a fresh checkout has others; a file that has changed makes another layer."""
    first = copied(top, "d", to="/n").digest()
    os.utime(top / "context/d/f", ns=(0, 0))
    assert copied(top, "d", to="/n").digest() == first
    (top / "context/d/f").chmod(0o600)
    second = copied(top, "d", to="/n").digest()
    write(top / "context/d/f", "other")
    third = copied(top, "d", to="/n").digest()
    (top / "context/d/f").rename(top / "context/d/g")
    fourth = copied(top, "d", to="/n").digest()
    assert len({first, second, third, fourth}) == 4


def test_the_same_files_give_the_same_bytes(top: Path) -> None:
    """The order in which a directory lists its files doesn't matter."""
    one, two = io.BytesIO(), io.BytesIO()
    copied(top, ".", to="/n").write(one)
    copied(top, ".", to="/n").write(two)
    assert one.getvalue() == two.getvalue()


def test_a_file_that_changes_meanwhile_is_an_error(top: Path) -> None:
    """Else the cache would know a layer by a digest that isn't its files'."""
    layer = copied(top, "a.txt", to="/n")
    (top / "context/a.txt").write_text("more than there was before")
    with pytest.raises(StateError, match="changed while it was copied"):
        layer.write(io.BytesIO())


def test_names_that_are_no_text(top: Path) -> None:
    """A name of any bytes, and one of 200 characters, comes through."""
    strange = os.fsencode(top / "context" / "d") + b"/\xff\xfe"
    with open(strange, "wb"):
        pass
    write(top / "context/d" / ("n" * 200), "")
    names = list(members(copied(top, "d", to="/n")))
    assert os.fsdecode(b"n/\xff\xfe") in names
    assert "n/" + "n" * 200 in names


def test_here_documents_are_files(top: Path) -> None:
    """COPY <<name puts the text into a file of that name."""
    layer = copied(top, "name", to="/etc/", inline=(("name", b"text"),))
    written = io.BytesIO()
    layer.write(written)
    written.seek(0)
    with tarfile.open(fileobj=written) as tar:
        file = tar.extractfile("etc/name")
        assert file is not None
        assert file.read() == b"text"


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("5", Owner(5, 5)),
        ("5:6", Owner(5, 6)),
        ("alice", Owner(1000, 2000)),
        ("alice:staff", Owner(1000, 50)),
        ("5:staff", Owner(5, 50)),
        ("alice:", Owner(1000, 2000)),
    ],
)
def test_owners_are_looked_up_in_the_image(top: Path, text: str, owner: Owner) -> None:
    """Names are the image's."""
    assert owners.parse(text, Union([str(top / "image")])) == owner


@pytest.mark.parametrize("text", ["bob", "alice:nobody", "4294967295", ""])
def test_an_owner_that_isnt_there(top: Path, text: str) -> None:
    """A name that the image doesn't know is an error."""
    with pytest.raises(SpecError):
        owners.parse(text, Union([str(top / "image")]))


@pytest.mark.parametrize(
    "place", ["context/d/.wh.e", "context/d/.wh.d/x", "context/d/.wh..wh..opq"]
)
def test_a_name_that_would_delete_is_refused(top: Path, place: str) -> None:
    """In a layer ``.wh.NAME`` deletes: a file of that name would be lost, and another with it."""
    write(top / place, "text")
    with pytest.raises(SpecError, match=r"takes names with \.wh\. for deletions"):
        copied(top, "d", to="/x")
    with pytest.raises(SpecError, match=r"takes names with \.wh\. for deletions"):
        copied(top, "a.txt", to="/.wh.etc/")
