"""The layer stack's verdict on each file, compared with what overlayfs itself shows."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from nscontainer import layers_view, layerstack
from nscontainer.layerstack import Source, Stack

pytestmark = [pytest.mark.root, pytest.mark.once]

LIST = """
import json, os, sys
found = {}
for here, _, files in os.walk(sys.argv[1]):
    for name in files:
        path = os.path.join(here, name)
        # readdir(3) names whiteouts of a directory that only one layer has; they can't be looked at.
        if os.path.lexists(path):
            found[path[len(sys.argv[1]):]] = os.lstat(path).st_size
json.dump(found, sys.stdout)
"""


def write(layer: Path, path: str, size: int) -> None:
    """Put a file into a layer."""
    file = layer / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * size)


def whiteout(layer: Path, path: str) -> None:
    """Have a layer delete a path."""
    file = layer / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(file, 0o020000, 0)


def opaque(layer: Path, path: str) -> None:
    """Have a layer begin a directory anew."""
    directory = layer / path.lstrip("/")
    directory.mkdir(parents=True, exist_ok=True)
    os.setxattr(directory, "trusted.overlay.opaque", b"y")


def united(layers: list[Path]) -> dict[str, int]:
    """What overlayfs shows of layers, base first: sizes by path, in a mount namespace of its own."""
    import json

    top = layers[0].parent / "merged"
    top.mkdir()
    lower = ":".join(map(str, reversed(layers)))
    script = 'mount -t overlay overlay -o "ro,lowerdir=$1" "$2" && exec "$3" -c "$4" "$2"'
    command = ["unshare", "-m", "sh", "-ec", script, "sh", lower, str(top), sys.executable, LIST]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    top.rmdir()
    found: dict[str, int] = json.loads(done.stdout)
    return found


def stack(layers: list[Path]) -> Stack:
    """The same by us."""
    sources = [
        Source(f"layer {number}", "image" if number else "base", (("", str(directory)),))
        for number, directory in enumerate(layers)
    ]
    return layerstack.unite("test", sources)


@pytest.mark.parametrize("seed", range(12))
def test_what_is_visible_is_what_overlayfs_shows(tmp_path: Path, seed: int) -> None:
    """Random layers, a file over a directory and the reverse among them: path for path, size for size."""
    chance = random.Random(seed)
    names = [f"/{a}{b}{c}" for a in "de" for b in ("", "/f", "/g") for c in ("", "/h", "/i")]
    layers = []
    for number in range(5):
        layer = tmp_path / f"l{number}"
        layer.mkdir()
        for path in chance.sample(names, 9):
            file = layer / path.lstrip("/")
            if os.path.lexists(file) or any(os.path.isfile(p) for p in file.parents):
                continue
            if any(p.is_char_device() for p in file.parents):
                continue
            what = chance.random()
            if what < 0.6:
                write(layer, path, chance.randrange(100))
            elif what < 0.8:
                whiteout(layer, path)
            else:
                opaque(layer, path)
        layers.append(layer)
    frame = stack(layers).frame
    seen = frame[frame["kind"] == "visible"]
    assert not seen["path"].duplicated().any()
    assert dict(zip(seen["path"], seen["size_bytes"], strict=True)) == united(layers)


def test_each_file_of_each_layer_has_its_verdict(tmp_path: Path) -> None:
    """Shadowed, deleted by a whiteout, by a whiteout of its directory, by an opaque one; and by whom."""
    base, middle, top = (tmp_path / name for name in ("base", "middle", "top"))
    for path in ("/kept", "/etc/motd", "/srv/data", "/doc/a/one", "/doc/a/two", "/opt/old"):
        write(base, path, 10)
    write(middle, "/etc/motd", 20)
    whiteout(middle, "/doc/a")
    write(top, "/etc/motd", 30)
    whiteout(top, "/srv/data")
    opaque(top, "/opt")
    write(top, "/opt/new", 5)
    made = stack([base, middle, top])
    rows = {(e.path, e.layer): (e.kind, e.size_bytes, e.by) for e in made.entries}
    assert rows == {
        ("/kept", 0): ("visible", 10, None),
        ("/etc/motd", 0): ("shadowed", 10, 1),
        ("/etc/motd", 1): ("shadowed", 20, 2),
        ("/etc/motd", 2): ("visible", 30, None),
        ("/srv/data", 0): ("deleted", 10, 2),
        ("/srv/data", 2): ("whiteout", None, None),
        ("/doc/a/one", 0): ("deleted", 10, 1),
        ("/doc/a/two", 0): ("deleted", 10, 1),
        ("/doc/a", 1): ("whiteout", None, None),
        ("/opt/old", 0): ("deleted", 10, 2),
        ("/opt", 2): ("opaque", None, None),
        ("/opt/new", 2): ("visible", 5, None),
    }
    summary = made.summary
    assert list(summary["files"]) == [6, 1, 2]
    assert list(summary["size_bytes"]) == [60, 20, 35]
    assert list(summary["deleted"]) == [4, 0, 0]
    assert made.frame.attrs["units"]["size_bytes"] == "bytes"


def test_a_directory_whose_files_fare_alike_is_one_column(tmp_path: Path) -> None:
    """And its whiteout is in it; a path that nothing lies over is put with everything else."""
    base, top = tmp_path / "base", tmp_path / "top"
    for number in range(50):
        write(base, f"/usr/share/doc/p{number}/copyright", 10)
        write(base, f"/usr/lib/l{number}", 10)
    whiteout(top, "/usr/share/doc")
    write(top, "/usr/lib/l7", 1)
    columns, left_out = layers_view.columns(stack([base, top]), 4)
    assert left_out == 0
    assert [(c.label, c.files, c.seen) for c in columns if c.telling and c.path] == [
        ("/usr/lib/l7", 1, 1),
        ("/usr/share/doc/", 50, None),
    ]
    said = str(stack([base, top]))
    assert "/usr/share/doc/ (50 files)  gone    whiteout in 1, deleted in 0" in said
    assert "/usr/lib/l7                 from 1  shadowed in 0" in said


def test_a_removed_directory_is_one_column_whatever_was_in_it(tmp_path: Path) -> None:
    """From two layers, one of them shadowing and whiting out in it already; a new directory hides nothing."""
    base, middle, top = tmp_path / "base", tmp_path / "middle", tmp_path / "top"
    for name in ("a/one", "a/two", "b/three"):
        write(base, f"/doc/{name}", 10)
    write(middle, "/doc/a/one", 5)
    whiteout(middle, "/doc/b")
    opaque(middle, "/doc/new")
    write(middle, "/doc/new/four", 1)
    whiteout(top, "/doc")
    opaque(top, "/fresh")
    made = stack([base, middle, top])
    (column,) = layers_view.grouped(made.entries)
    assert (column.label, column.files, column.seen) == ("/doc/", 4, None)
    assert {n: (c.kind, c.files) for n, c in column.cells.items()} == {
        0: ("deleted", 3),
        1: ("deleted", 2),
        2: ("whiteout", 0),
    }
    assert all(entry.kind != "opaque" for entry in made.entries)
    assert made.summary["opaque"].sum() == 0


def test_links_are_not_followed_and_hard_links_count_once(tmp_path: Path) -> None:
    """A layer's link to /etc leads nowhere; two names of an inode take its size once."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "out").symlink_to("/etc")
    (base / "loop").symlink_to(".")
    write(base, "/one", 1000)
    os.link(base / "one", base / "two")
    made = stack([base])
    assert sorted(e.path for e in made.entries) == ["/loop", "/one", "/out", "/two"]
    assert made.layers[0].files == 4
    assert made.layers[0].size_bytes == 1000 + len("/etc") + len(".")


def test_names_that_steer_a_terminal_are_harmless(tmp_path: Path) -> None:
    """In the text and in the picture; the frame has the name as it is."""
    base, top = tmp_path / "base", tmp_path / "top"
    for layer in (base, top):
        write(layer, "/a\x1b[2J\n$x$", 3)
        (layer / os.fsdecode(b"\xff\xfe")).write_bytes(b"")
    made = stack([base, top])
    assert "\x1b" not in str(made)
    str(made).encode()
    assert made._repr_png_()[0].startswith(b"\x89PNG")
    assert "/a\x1b[2J\n$x$" in set(made.frame["path"])


def test_ten_thousand_files_are_all_counted(tmp_path: Path) -> None:
    """None is left out of what a layer is said to have."""
    for directory in range(200):
        (tmp_path / "base" / f"d{directory}").mkdir(parents=True)
        for file in range(50):
            (tmp_path / "base" / f"d{directory}" / f"f{file}").touch()
    assert stack([tmp_path / "base"]).layers[0].files == 10_000


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_picture_goes_into_a_file(tmp_path: Path, suffix: str) -> None:
    """Whole, in the format that its name says."""
    write(tmp_path / "base", "/a", 3)
    target = tmp_path / f"layers{suffix}"
    stack([tmp_path / "base"]).save_plot(target)
    beginning = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
    assert target.read_bytes().startswith(beginning[suffix])
