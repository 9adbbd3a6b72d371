"""``%container``'s sub-commands about images, in a real kernel."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import rootfs_images
from tests.notebook.kernel import Kernel, fail, run

pytestmark = [pytest.mark.notebook, pytest.mark.root]


@pytest.fixture(scope="module")
def images(engine: Path, kernel: Kernel) -> Iterator[Kernel]:
    """A kernel, and two images in the store: ``tiny:1``, and ``tiny:2`` with one layer more."""
    base = rootfs_images.busybox().file("etc/motd", "hello\n").file("srv/old", "x" * 1000)
    first = rootfs_images.make("tiny:1", base.bytes())
    more = rootfs_images.LayerTar().file("etc/motd", "hello again\n").bytes()
    rootfs_images.make("tiny:2", *first.layers, more)
    run(kernel, "import nscontainer, pandas as pd")
    yield kernel
    run(kernel, "for c in nscontainer.Container.list(all=True):\n    c.remove(force=True)")


@pytest.fixture
def lab(images: Kernel) -> Iterator[str]:
    """A container that has ended, of tiny:2, and has added, changed and deleted a file."""
    changes = "echo mine >/srv/new; echo other >/etc/motd; rm /srv/old"
    run(
        images,
        f'c = nscontainer.run(["sh", "-c", {changes!r}], image="tiny:2", name="lab", detach=True)\n'
        "c.wait()",
    )
    yield "lab"
    run(images, "c.remove(force=True)")


def test_tables_are_frames_with_units(images: Kernel, lab: str):
    """Sizes in bytes, times in UTC, what isn't known NA; each is shown as a table."""
    said = run(
        images,
        "i = %container images\nh = %container history tiny:2\nd = %container df\n"
        "print(list(i), i.attrs['units'], i.created.dtype)\n"
        "print(list(i[i.name == 'tiny:2'].used_by))\n"
        "print(h.layer.tolist(), (h.size_bytes > 0).tolist())\n"
        "print(dict(zip(d.type, d['count'])))",
    ).splitlines()
    assert said[0].startswith(
        "['name', 'id', 'created', 'size_bytes', 'layers', 'used_by'] {'size_bytes': 'bytes'} datetime64["
    )
    assert "UTC" in said[0]
    assert said[1] == "[['lab']]"
    assert said[2] == "[1, 0] [True, True]"
    assert "'unpacked layers': 2" in said[3]
    assert "<table" in images.run("%container images").shown("text/html")[0]


def test_layers_are_a_picture_and_a_frame(images: Kernel, lab: str):
    """PNG where there are pictures, text where there are none."""
    shown = images.run("%container layers lab")
    assert len(shown.shown("image/png")) == 1
    assert "/srv/old   gone    whiteout in 3, deleted in 0" in shown.shown()[0]
    said = run(
        images,
        "s = %container layers lab\nf = s.frame\n"
        "print(sorted(f[f.path == '/etc/motd'].kind), len(s.layers), s.summary.whiteout.sum())",
    )
    assert said == "['shadowed', 'shadowed', 'visible'] 4 1\n"


def test_diff_commit_and_a_cell_in_what_came_of_it(images: Kernel, lab: str):
    """One line says what was made."""
    assert run(images, "d = %container diff lab\nprint(''.join(d.change), d.path[3])") == (
        "CCCAD /srv/new\n"
    )
    made = run(images, "%container commit -m 'three changes' lab made:1")
    assert made.startswith("made:1 · ")
    assert made.count("\n") == 1
    assert run(images, "%%container --image made:1 --sh -q\ncat /etc/motd") == "other\n"
    run(images, "%container rmi made:1")


def test_names_are_completed(images: Kernel):
    """Where an image may stand, and after --image; sub-commands too."""
    for code in ("%container rmi ti", "%container history ti", "%%container --image ti"):
        assert set(images.complete(code)) == {"tiny:1", "tiny:2"}, code
    assert images.complete("%%container --image ho") == ["host"]
    assert images.complete("%container hist") == ["history"]
    assert images.complete("%container rmi -") == ["-f"]
    assert set(images.complete("%container save -")) == {"-o", "--format"}


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("rmi tiny", "NotFoundError: no image 'tiny'; there is tiny:"),
        ("layers tinny:1", "NotFoundError: no container and no image 'tinny:1'; there is tiny:1"),
        ("imags", "SpecError: 'imags' is no sub-command of %container (did you mean images?)"),
        ("rmi", "SpecError: the following arguments are required: IMAGE"),
        ("load", "SpecError: a notebook has no standard input to read from (name a file)"),
        ("save tiny:1", "SpecError: there is no file to write to (-o FILE)"),
        ("pull Tiny", "SpecError: image name 'Tiny'"),
        ("commit nosuch x:1", "NotFoundError: no container 'nosuch'"),
        ("diff tiny:1", "NotFoundError: no container 'tiny:1'"),
        ("history --al tiny:1", "SpecError: --al is not an option"),
    ],
)
def test_what_is_wrong_is_one_line(images: Kernel, line: str, error: str):
    """With the names that are like it."""
    said = fail(images, f"%container {line}")
    assert said.startswith(error)
    assert "\n" not in said


def test_an_image_in_use_is_not_removed(images: Kernel, lab: str):
    """The line says by whom; what else was named goes."""
    run(images, "%container tag tiny:1 other:1")
    cell = images.run("%container rmi tiny:2 other:1")
    assert cell.text() == "untagged: other:1\n"
    assert cell.errors() == [
        "StateError: image tiny:2 is in use by container lab (remove the container first)"
    ]


def test_prune_asks_nothing(images: Kernel):
    """A notebook has nobody to answer while it runs."""
    assert run(images, "%container prune").endswith(" freed\n")


def test_a_load_ends_as_one_line(images: Kernel, tmp_path: Path):
    """Bars while it lasts, in one display; in its place the image in the end."""
    archive = tmp_path / "two words.tar"
    run(images, f"%container save -o '{archive}' tiny:2")
    run(images, "%container rmi tiny:2")
    seen = len(images.updates)
    cell = images.run(f"%container load '{archive}'")
    assert cell.ok, cell.errors()
    displays = cell.of("display_data")
    assert len(displays) <= 1
    last = (images.updates[seen:] or [displays[0]["data"]])[-1]
    assert last["text/plain"].startswith("tiny:2 · ")
    assert "<pre" in last["text/html"]
    assert cell.text() == ""


def test_interrupting_a_pull_is_one_line(images: Kernel):
    """■ ends it at once, from a registry that never answers; the kernel goes on."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.settimeout(30)
        interrupted: list[float] = []

        def during(kind: str, content: dict[str, object]) -> None:
            if kind == "status" and content["execution_state"] == "busy":
                connection, _ = mute.accept()
                with connection:
                    time.sleep(0.3)
                    interrupted.append(time.monotonic())
                    images.interrupt()

        name = f"127.0.0.1:{mute.getsockname()[1]}/lab:1"
        cell = images.run(f"%container pull {name}", during=during)
        assert time.monotonic() - interrupted[0] < 5
    assert cell.errors() == [
        "KeyboardInterrupt: what has come is kept; the next pull goes on from there"
    ]
    assert run(images, "print(1)") == "1\n"
