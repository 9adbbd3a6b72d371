"""The sub-commands about images, as a person at a shell has them."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration import rootfs_images

pytestmark = [pytest.mark.root, pytest.mark.once]

Run = Callable[..., "subprocess.CompletedProcess[str]"]
NSC = (sys.executable, "-m", "nscontainer")
CHANGES = "echo mine >/srv/new; echo other >/etc/motd; rm /srv/old"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An engine of our own with two images: ``tiny:1`` (busybox) and ``tiny:2`` (one layer more)."""
    state = tmp_path_factory.mktemp("state", numbered=True)
    state.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NSCONTAINER_STATE_DIR", str(state))
        base = rootfs_images.busybox().file("etc/motd", "hello\n").file("srv/old", "x" * 1000)
        first = rootfs_images.make("tiny:1", base.bytes())
        more = rootfs_images.LayerTar().file("etc/motd", "hello again\n").bytes()
        rootfs_images.make("tiny:2", *first.layers, more)
    yield {**os.environ, "NSCONTAINER_STATE_DIR": str(state)}
    assert os.listdir(state / "containers") == []


@pytest.fixture
def nsc(environment: dict[str, str], tmp_path: Path) -> Run:
    """Run a command; its output is text unless asked otherwise."""

    def run(*argv: str, **more: Any) -> subprocess.CompletedProcess[str]:
        settings: dict[str, Any] = {
            "capture_output": True, "text": True, "timeout": 60, "check": False,
            "env": environment, "cwd": tmp_path,
        }  # fmt: skip
        if "input" not in more:
            settings["stdin"] = subprocess.DEVNULL
        done: subprocess.CompletedProcess[str] = subprocess.run(  # noqa: PLW1510 - it is among the settings
            [*NSC, *argv], **(settings | more)
        )
        return done

    return run


@pytest.fixture
def lab(nsc: Run) -> Iterator[str]:
    """A container that has ended, of tiny:2, and has added, changed and deleted a file."""
    done = nsc("run", "-d", "--name", "lab", "--image", "tiny:2", "--", "sh", "-c", CHANGES)
    assert done.returncode == 0, done.stderr
    assert nsc("wait", "lab").stdout == "0\n"
    yield "lab"
    nsc("rm", "-f", "lab")


def names(nsc: Run) -> set[str]:
    """The names that ``images`` lists."""
    return {row["name"] for row in json.loads(nsc("images", "--json").stdout)}


def in_terminal(
    environment: dict[str, str], argv: list[str], answers: bytes = b""
) -> tuple[int, str]:
    """Run a command on a terminal of its own and type something; give exit code and screen."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(NSC[0], [*NSC, *argv], environment)
    os.write(fd, answers)
    said = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([fd], [], [], 0.2)[0]:
            try:
                data = os.read(fd, 4096)
            except OSError:
                break
            if not data:
                break
            said += data
    os.close(fd)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), said.decode()


# --- looking -----------------------------------------------------------------------------------


def test_images_lists_names_with_who_uses_them(nsc: Run, lab: str):
    """A filter is a repository, a name or a pattern; the newest are first."""
    lines = nsc("images").stdout.splitlines()
    assert lines[0].split() == "NAME IMAGE ID CREATED SIZE LAYERS USED BY".split()
    assert [line.split()[0] for line in lines[1:]] == ["tiny:1", "tiny:2"]
    by_name = {line.split()[0]: line for line in lines[1:]}
    assert by_name["tiny:2"].endswith("2        lab")
    assert len(nsc("images", "*:2").stdout.splitlines()) == 2
    assert len(nsc("images", "nothing").stdout.splitlines()) == 1
    rows = json.loads(nsc("images", "--json", "tiny").stdout)
    assert [row["used_by"] for row in rows if row["name"] == "tiny:2"] == [["lab"]]


def test_inspect_finds_containers_and_images(nsc: Run, lab: str):
    """Docker's field names; a container comes first; one that is missing doesn't stop the others."""
    done = nsc("inspect", "tiny:1", "nosuch", "lab")
    assert done.returncode == 1
    image, container = json.loads(done.stdout)
    assert image["RepoTags"] == ["tiny:1"]
    assert image["Config"]["Env"] == ["PATH=/bin"]
    assert len(image["RootFS"]["Layers"]) == 1
    assert container["name"] == "lab"
    assert done.stderr == (
        "nscontainer: no container and no image 'nosuch' "
        "(ps -a lists containers, images lists images)\n"
    )


@pytest.mark.parametrize(
    "argv", [["history", "tiny:3"], ["inspect", "tinny:1"], ["layers", "tiny:l"], ["rmi", "tiny"]]
)
def test_a_mistyped_name_gets_those_that_are_like_it(nsc: Run, argv: list[str]):
    """One line, exit code 1."""
    done = nsc(*argv)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "there is tiny:1 or tiny:2" in done.stderr or "there is tiny:2 or tiny:1" in done.stderr


def test_layers_as_text_and_as_a_picture(nsc: Run, lab: str, tmp_path: Path):
    """Four layers, what lies over what; the file is a picture. A wrong suffix is refused."""
    done = nsc("layers", "lab", "--plot", "lab.png")
    assert done.returncode == 0, done.stderr
    assert "  3  read-write layer" in done.stdout
    assert "  2  init layer" in done.stdout
    assert "  /etc/motd  from 3  shadowed in 1, shadowed in 0\n" in done.stdout
    assert "  /srv/old   gone    whiteout in 3, deleted in 0\n" in done.stdout
    assert (tmp_path / "lab.png").read_bytes().startswith(b"\x89PNG")
    refused = nsc("layers", "tiny:1", "--plot", "lab.xyz")
    assert (refused.returncode, refused.stderr) == (
        125,
        "nscontainer: 'lab.xyz' says no format for the picture (end it in .png, .svg or .pdf)\n",
    )


def test_df_counts_a_layer_once(nsc: Run, lab: str):
    """Two images of two layers; the container takes what it wrote."""
    rows = {row["type"]: row for row in json.loads(nsc("df", "--json").stdout)}
    assert (rows["images"]["count"], rows["images"]["in_use"]) == (2, 1)
    assert rows["unpacked layers"]["count"] == 2
    assert rows["containers"]["count"] == 1
    assert 0 < rows["containers"]["reclaimable_bytes"] < 100_000
    assert nsc("df").stdout.splitlines()[0].split() == "TYPE COUNT IN USE SIZE RECLAIMABLE".split()


def test_df_tells_the_build_cache_from_images(nsc: Run):
    """What a build that failed has left for the next one; a prune takes it."""
    file = b"FROM tiny:1\nRUN dd if=/dev/urandom of=/x bs=100k count=1\nRUN false\n"
    assert nsc("build", "-t", "x", "-", text=False, input=file).returncode != 0
    rows = {row["type"]: row for row in json.loads(nsc("df", "--json").stdout)}
    assert rows["images"]["count"] == 2
    assert rows["build cache"]["count"] == 1
    assert 100_000 < rows["build cache"]["reclaimable_bytes"] < 120_000
    assert nsc("prune").returncode == 0
    rows = {row["type"]: row for row in json.loads(nsc("df", "--json").stdout)}
    assert (rows["build cache"]["count"], rows["unpacked layers"]["count"]) == (0, 2)


# --- changing ----------------------------------------------------------------------------------


def test_names_come_and_go(nsc: Run):
    """An image goes with its last name; errors don't stop the others; what it shares stays."""
    assert nsc("tag", "tiny:2", "other:1").returncode == 0
    assert "other:1" in names(nsc)
    done = nsc("rmi", "nosuch:9", "other:1")
    assert done.returncode == 1
    assert done.stdout == "untagged: other:1\n"
    assert done.stderr.startswith("nscontainer: no image 'nosuch:9'")
    assert names(nsc) == {"tiny:1", "tiny:2"}


def test_an_image_in_use_stays(nsc: Run, lab: str):
    """Also where the container has ended; the line says which."""
    done = nsc("rmi", "tiny:2")
    assert done.returncode == 1
    assert done.stderr == (
        "nscontainer: image tiny:2 is in use by container lab (remove the container first)\n"
    )
    assert "tiny:2" in names(nsc)


def test_diff_and_commit(nsc: Run, lab: str):
    """A, C and D as Docker prints them; the new image shows the changes and has the message."""
    assert nsc("diff", "lab").stdout.splitlines() == [
        "C /etc",
        "C /etc/motd",
        "C /srv",
        "A /srv/new",
        "D /srv/old",
    ]
    done = nsc("commit", "-m", "three changes", "-c", 'CMD ["cat", "/etc/motd"]', "lab", "made:1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("made:1 · ")
    assert " · 3 layers, " in done.stdout
    assert nsc("run", "--image", "made:1").stdout == "other\n"
    newest = json.loads(nsc("history", "--json", "made:1").stdout)[0]
    assert (newest["layer"], newest["comment"]) == (2, "three changes")
    assert nsc("rmi", "made:1").returncode == 0


def test_prune_asks_on_a_terminal(nsc: Run, environment: dict[str, str], lab: str):
    """Only a yes goes on; -f and a script aren't asked. Images in use and named ones stay."""
    nsc("commit", "lab", "gone:1")
    nsc("commit", "-m", "again", "lab", "gone:1")  # takes the name: the first is nameless
    assert None in {row["name"] for row in json.loads(nsc("images", "-a", "--json").stdout)}
    code, said = in_terminal(environment, ["prune"], b"n\n")
    assert code == 1
    assert "This removes images without a name. Go on? [y/N]" in said
    assert None in {row["name"] for row in json.loads(nsc("images", "-a", "--json").stdout)}
    code, said = in_terminal(environment, ["prune"], b"y\n")
    assert code == 0
    assert " freed" in said
    assert {row["name"] for row in json.loads(nsc("images", "-a", "--json").stdout)} == {
        "tiny:1",
        "tiny:2",
        "gone:1",
    }
    assert nsc("rmi", "gone:1").returncode == 0


# --- in and out --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["docker", "oci"])
def test_save_and_load_through_files_and_pipes(nsc: Run, tmp_path: Path, form: str):
    """The image comes back with the id that it had; a layer that is here already isn't unpacked anew."""
    before = json.loads(nsc("inspect", "tiny:2").stdout)[0]
    assert nsc("save", "--format", form, "-o", "a.tar", "tiny:2").returncode == 0
    piped = nsc("save", "--format", form, "tiny:2", text=False)
    assert piped.returncode == 0, piped.stderr
    nsc("rmi", "tiny:2")
    loaded = nsc("load", "a.tar")
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.startswith("tiny:2 · ")
    assert json.loads(nsc("inspect", "tiny:2").stdout)[0]["Id"] == before["Id"]
    nsc("rmi", "tiny:2")
    again = nsc("load", "-q", "-", text=False, input=piped.stdout)
    assert again.stdout.decode() == before["Id"] + "\n"  # type: ignore[attr-defined]


def test_an_archive_is_not_written_to_a_terminal(environment: dict[str, str]):
    """One line says what to do instead."""
    code, said = in_terminal(environment, ["save", "tiny:1"])
    assert code == 125
    assert said.count("\n") == 1
    assert "terminal" in said


def test_import_and_export(nsc: Run, lab: str):
    """A container's files go out as one tar, its init layer not among them, and come in as an image."""
    out = nsc("export", "lab", text=False)
    assert out.returncode == 0, out.stderr
    done = nsc(
        "import", "-c", 'CMD ["cat", "/srv/new"]', "-", "again:1", text=False, input=out.stdout
    )
    assert done.returncode == 0, done.stderr
    assert nsc("run", "--image", "again:1", "--", "/bin/cat", "/srv/new").stdout == "mine\n"
    assert nsc("run", "--image", "again:1", "--", "/bin/ls", "/srv").stdout == "new\n"
    assert nsc("rmi", "again:1").returncode == 0


def test_ctrl_c_ends_a_pull(environment: dict[str, str]):
    """From a registry that never answers: at once, without a traceback, with nothing left."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        name = f"127.0.0.1:{mute.getsockname()[1]}/lab:1"
        process = subprocess.Popen(
            [*NSC, "pull", name],
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        mute.settimeout(30)
        connection, _ = mute.accept()
        with connection:
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            begin = time.monotonic()
            out, err = process.communicate(timeout=20)
            assert time.monotonic() - begin < 10
    assert process.returncode == 130
    assert out == b""
    assert b"Traceback" not in err


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["pull", "Upper/Case"], "lower case"),
        (["pull", "host"], "built-in"),
        (["tag", "tiny:1", "a b"], "can't be a part"),
        (["load", "missing.tar"], "missing.tar can't be opened: No such file"),
        (["import", "missing.tar", "x:1"], "missing.tar can't be opened: No such file"),
        (["save", "-o", "/nonexistent/a.tar", "tiny:1"], "/nonexistent/a.tar"),
        (["commit", "nosuch", "x:1"], "no container 'nosuch'"),
        (["diff", "tiny:1"], "no container 'tiny:1'"),
    ],
)
def test_what_cannot_be_is_one_line(nsc: Run, argv: list[str], line: str):
    """Before anything is made."""
    done = nsc(*argv)
    assert done.returncode in (1, 125)
    assert done.stderr.count("\n") == 1
    assert line in done.stderr
    assert done.stdout == ""
    assert names(nsc) == {"tiny:1", "tiny:2"}


def test_a_load_of_rubbish_is_one_line(nsc: Run):
    """Standard input that is no archive."""
    done = nsc("load", "-", text=False, input=io.BytesIO(b"rubbish" * 1000).getvalue())
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1  # type: ignore[arg-type]
