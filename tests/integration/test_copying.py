"""cp into and out of real containers, also ones that want to reach out of themselves."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nscontainer
from nscontainer import Container, Session, cli, copying
from nscontainer.errors import CommandError, NsContainerError, SpecError

pytestmark = [
    pytest.mark.once,
    pytest.mark.root,
    pytest.mark.userns,
    pytest.mark.usefixtures("engine"),
]

HOSTILE_TAR = """
import io, os, sys, tarfile
program = '''#!{python} -I
import io, sys, tarfile
tar = tarfile.open(fileobj=sys.stdout.buffer, mode="w|")
def add(name, kind=tarfile.REGTYPE, link="", data=b"evil"):
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = kind, link, 0o4777
    member.size = len(data) if kind == tarfile.REGTYPE else 0
    tar.addfile(member, io.BytesIO(data))
add("./x", tarfile.DIRTYPE)
{entries}
tar.close()
'''
os.makedirs("/usr/local/sbin", exist_ok=True)
for place in ("/usr/local/sbin/tar", "/usr/local/bin/tar", "/usr/bin/tar", "/bin/tar"):
    try:
        os.unlink(place)
    except OSError:
        pass
    with open(place, "w") as file:
        file.write(program)
    os.chmod(place, 0o755)
"""


@pytest.fixture
def lab() -> Iterator[Session]:
    """A session of this test's own."""
    with nscontainer.session("lab") as made:
        yield made


def _hostile(lab: Session, entries: str) -> None:
    """Have the container send a tar of its own making."""
    code = HOSTILE_TAR.replace("{python}", sys.executable).replace("{entries}", entries)
    assert lab.run_cell(code).ok


def test_out_a_file_and_a_tree(lab: Session, tmp_path: Path) -> None:
    """A file under a new name, a tree into a directory; links inside it stay, ours to own."""
    lab.run_cell(
        "import os\nos.makedirs('/tmp/tree/deep')\nopen('/tmp/tree/deep/a', 'w').write('A')\n"
        "os.symlink('deep/a', '/tmp/tree/link')\nos.link('/tmp/tree/deep/a', '/tmp/tree/hard')\n"
        "os.chmod('/tmp/tree/deep/a', 0o600)"
    )
    assert copying.copy_out(lab.container, "/tmp/tree/deep/a", str(tmp_path / "b")) == []
    assert (tmp_path / "b").read_text() == "A"
    assert (tmp_path / "b").stat().st_uid == os.getuid()
    assert copying.copy_out(lab.container, "/tmp/tree", str(tmp_path)) == []
    assert (tmp_path / "tree" / "deep" / "a").read_text() == "A"
    assert (tmp_path / "tree" / "hard").read_text() == "A"
    assert os.readlink(tmp_path / "tree" / "link") == "deep/a"
    assert sorted(os.listdir(tmp_path)) == ["b", "tree"]


def test_in_a_file_and_a_tree(lab: Session, tmp_path: Path) -> None:
    """A file into a directory, a tree under a new name; in the container it is root's."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_text("A")
    (tmp_path / "b.csv").write_text("B")
    copying.copy_in(lab.container, str(tmp_path / "b.csv"), "/tmp")
    copying.copy_in(lab.container, str(tmp_path / "tree"), "/tmp/other")
    result = lab.run_cell(
        "import os\nprint(open('/tmp/b.csv').read(), open('/tmp/other/a').read(),"
        " os.stat('/tmp/other/a').st_uid)"
    )
    assert result.stdout == "B A 0\n"


def test_what_is_not_there_is_one_line(lab: Session, tmp_path: Path) -> None:
    """Whatever is missing, on either side, is one line, and nothing is left half done."""
    (tmp_path / "there").mkdir()
    with pytest.raises(CommandError, match="lab:/no/such can't be copied"):
        copying.copy_out(lab.container, "/no/such", str(tmp_path / "x"))
    with pytest.raises(SpecError, match="there is no directory"):
        copying.copy_out(lab.container, "/etc/hostname", str(tmp_path / "no" / "x"))
    with pytest.raises(SpecError, match="is there already"):
        copying.copy_out(lab.container, "/tmp/there", str(tmp_path))
    with pytest.raises(SpecError, match="no name"):
        copying.copy_out(lab.container, "/", str(tmp_path))
    with pytest.raises(SpecError, match="can't be read"):
        copying.copy_in(lab.container, str(tmp_path / "no"), "/tmp")
    with pytest.raises(CommandError, match="can't be copied"):
        copying.copy_in(lab.container, str(tmp_path / "there"), "/no/such/place")
    assert os.listdir(tmp_path) == ["there"]


def test_in_through_a_link_stays_in_the_container(lab: Session, tmp_path: Path) -> None:
    """A container's link to a directory of the host's is followed in the container alone."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / "payload").write_text("payload")
    lab.run_cell(
        f"import os\nos.makedirs({str(victim)!r}, exist_ok=True)\nos.symlink({str(victim)!r}, '/tmp/l')\n"
        f"os.symlink('/proc/1/root{victim}', '/tmp/m')"
    )
    for link in ("/tmp/l", "/tmp/m"):
        copying.copy_in(lab.container, str(tmp_path / "payload"), link)
    assert list(victim.iterdir()) == []


def test_out_through_a_link_reads_the_containers_file(lab: Session, tmp_path: Path) -> None:
    """A link to a secret of the host's gives the container's file of that name, or none."""
    secret = tmp_path / "secret"
    secret.write_text("the host's")
    target = tmp_path / "target"
    target.mkdir()
    lab.run_cell(
        f"import os\nos.makedirs({str(tmp_path)!r}, exist_ok=True)\n"
        f"open({str(secret)!r}, 'w').write('its own')\nos.symlink({str(tmp_path)!r}, '/tmp/dir')"
    )
    copying.copy_out(lab.container, "/tmp/dir/secret", str(target))
    assert (target / "secret").read_text() == "its own"


@pytest.mark.parametrize(
    "entries",
    [
        'add("../evil")',
        'add("./x/../../evil")',
        'add("{top}/evil")',
        'add("./x/l", tarfile.SYMTYPE, "{top}")\nadd("./x/l/evil")',
        'add("./x/l", tarfile.SYMTYPE, "..")\nadd("./x/l/m", tarfile.SYMTYPE, "..")\nadd("./x/l/m/e")',
        'add("./x/l", tarfile.SYMTYPE, ".")\nadd("./x/l/m", tarfile.SYMTYPE, "../evil")',
        'add("./x/h", tarfile.LNKTYPE, "../secret")',
        'add("./x/h", tarfile.LNKTYPE, "{top}/secret")',
        'add("./x/h", tarfile.LNKTYPE, "{top}/secret")\nadd("./x/h")',
        'add("./x/s", tarfile.SYMTYPE, "../../secret")\nadd("./x/s")',
        'add("./x/dev", tarfile.CHRTYPE)',
        'add("./x/f", tarfile.FIFOTYPE)',
        'add("./x/a", tarfile.SYMTYPE, "c/../../secret")\nadd("./x/c", tarfile.SYMTYPE, "..")',
        'add("./x/a", tarfile.SYMTYPE, "../../secret")\nadd("./x/b", tarfile.SYMTYPE, "a")',
        'add("./x/l", tarfile.SYMTYPE, "../sibling")',
    ],
)
def test_a_hostile_tar_stays_in_its_place(lab: Session, tmp_path: Path, entries: str) -> None:
    """Nothing outside the target is written, linked or read, whatever the container sends."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    target = tmp_path / "target"
    target.mkdir()
    _hostile(lab, entries.replace("{top}", str(tmp_path)))
    with contextlib.suppress(NsContainerError):
        copying.copy_out(lab.container, "/tmp", str(target / "copy"))
    assert sorted(os.listdir(tmp_path)) == ["secret", "target"]
    assert set(os.listdir(target)) <= {"copy"}
    assert secret.read_text() == "secret"
    assert secret.stat().st_nlink == 1
    for directory, folders, files in os.walk(target):
        for name in (*folders, *files):
            path = Path(directory, name)
            assert path.resolve().is_relative_to(target), path
            assert path.is_file() or path.is_dir() or path.is_symlink()
            if path.is_symlink():  # and below what was copied, not just beside it
                assert path.resolve().is_relative_to(target / "copy"), path
            assert not path.lstat().st_mode & 0o4000


def test_what_is_no_tar_is_one_line(lab: Session, tmp_path: Path) -> None:
    """Junk instead of a tar, and a tar that breaks off."""
    _hostile(lab, 'sys.stdout.buffer.write(b"junk" * 999); sys.stdout.flush(); sys.exit()')
    with pytest.raises(CommandError, match="can't be copied"):
        copying.copy_out(lab.container, "/tmp", str(tmp_path / "copy"))
    assert os.listdir(tmp_path) == []


def test_the_command_line(lab: Session, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """nscontainer cp, both ways; what leads elsewhere is left out and named."""
    (tmp_path / "a").write_text("A")
    assert cli.main(["cp", str(tmp_path / "a"), "lab:/tmp/b"]) == 0
    lab.run_cell("import os\nos.makedirs('/tmp/d')\nos.symlink('/etc/passwd', '/tmp/d/l')")
    assert cli.main(["cp", "lab:/tmp/b", str(tmp_path)]) == 0
    assert (tmp_path / "b").read_text() == "A"
    assert cli.main(["cp", "lab:/tmp/d", str(tmp_path)]) == 0
    assert "left out, as it leads elsewhere: ./d/l -> /etc/passwd" in capfd.readouterr().err
    assert cli.main(["cp", "a", "b"]) == cli.ENGINE_ERROR
    assert Container.get("lab").status == "running"
