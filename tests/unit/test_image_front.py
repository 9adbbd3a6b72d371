"""What the front ends say of images: names that a pattern means, histories, rows, progress."""

from __future__ import annotations

import datetime as dt
import io
import re
import threading
import time
from typing import Any

import pytest

from nscontainer import layers_view
from nscontainer.cli import image_board, image_options, image_rows
from nscontainer.cli import images as commands
from nscontainer.cli.image_board import Board, Line
from nscontainer.errors import NotFoundError, SpecError
from nscontainer.image import facts
from nscontainer.image.progress import Event
from nscontainer.image.records import Descriptor, Image, Layer
from nscontainer_magics import image_progress


def image(*names: str, **config: Any) -> Image:
    """An image of two layers, as the store gives it."""
    layers = tuple(
        Layer(Descriptor("application/x", f"sha256:{n:064x}", 1000 * n), f"sha256:{n + 9:064x}")
        for n in (1, 2)
    )
    manifest = Descriptor("application/y", f"sha256:{7:064x}", 500)
    return Image(f"sha256:{'ab' * 32}", manifest, tuple(names), config, layers)


HISTORY = [
    {"created": "2026-01-01T00:00:00Z", "created_by": "/bin/sh -c #(nop) ADD file:1 in / "},
    {"created": "2026-01-02T00:00:00Z", "created_by": 'CMD ["sh"]', "empty_layer": True},
    {"created": "2026-01-03T00:00:00.123456789Z", "created_by": "RUN /bin/sh -c make # buildkit"},
]


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("python", True),
        ("python:3.12-slim", True),
        ("python:3*", True),
        ("*th*", True),
        ("pytho", False),
        ("python:3.13", False),
    ],
)
def test_a_pattern_means_names_and_repositories(pattern: str, *, meant: bool):
    """A registry's port is no tag."""
    assert facts.matches("python:3.12-slim", pattern) is meant
    assert facts.matches("localhost:5000/lab:1", "localhost:5000/lab")


def test_history_is_newest_first_and_tells_which_layer_is_whose():
    """A step that made no layer has none; one that the history doesn't know of is there all the same."""
    steps = facts.history(image(history=HISTORY))
    assert [step["layer"] for step in steps] == [1, None, 0]
    assert [step["size_bytes"] for step in steps] == [2000, 0, 1000]
    assert steps[0]["created"] == dt.datetime(2026, 1, 3, 0, 0, 0, 123456, dt.UTC)
    unknown = facts.history(image(history=HISTORY[:1]))
    assert [(step["layer"], step["created_by"][:5]) for step in unknown] == [(1, ""), (0, "/bin/")]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("/bin/sh -c #(nop) ADD file:1 in / ", "ADD file:1 in /"),
        ("/bin/sh -c apt-get update", "RUN apt-get update"),
        ("RUN /bin/sh -c make # buildkit", "RUN make"),
        ("", "(nothing is known of it)"),
    ],
)
def test_what_made_a_layer_is_said_without_machinery(said: str, shown: str):
    """As one would write it in a Dockerfile."""
    assert layers_view.shortened(said) == shown


def test_a_row_for_each_name():
    """A nameless image has one only where asked for; a filter takes the names that it means."""
    found = [image("lab:1", "lab:latest", "x:1"), image()]
    used = {found[0].id: ["one", "two"]}
    rows = image_rows.images(found, used, None, nameless=False)
    assert [row["name"] for row in rows] == ["lab:1", "lab:latest", "x:1"]
    assert rows[0]["used_by"] == ["one", "two"]
    assert rows[0]["size_bytes"] == 3000
    assert [r["name"] for r in image_rows.images(found, {}, "lab", nameless=True)] == [
        "lab:1",
        "lab:latest",
    ]
    assert image_rows.images(found, {}, None, nameless=True)[-1]["name"] is None


def test_the_table_of_images():
    """Docker's, with who uses it; an epoch of a reproducible build is no age."""
    old = image("a:1", created="1970-01-01T00:00:00Z")
    new = image("b:1", created="2026-01-01T00:00:00Z")
    rows = image_rows.images([old, new], {new.id: ["lab"]}, None, nameless=False)
    now = dt.datetime(2026, 1, 1, 3, tzinfo=dt.UTC).timestamp()
    lines = commands.images_table(rows, now=now).splitlines()
    assert lines[0].split() == "NAME IMAGE ID CREATED SIZE LAYERS USED BY".split()
    assert lines[1].split() == "a:1 abababababab - 2.9 KiB 2 lab".split()
    assert lines[2].split() == "b:1 abababababab 3 hours ago 2.9 KiB 2 lab".split()


def test_nothing_of_that_name_is_one_line():
    """It names images that are alike."""
    error = facts.neither("lba", NotFoundError("no image 'lba'; there is lab:1"))
    assert str(error) == "no container and no image 'lba'; there is lab:1"
    plain = facts.neither("x", NotFoundError("no image 'x'", hint="%container pull x"))
    assert str(plain) == "no container and no image 'x'"
    assert plain.hint == "ps -a lists containers, images lists images"


@pytest.mark.parametrize("magic", [True, False])
@pytest.mark.parametrize("name", image_options.COMMANDS)
def test_every_command_refuses_what_it_does_not_know(name: str, *, magic: bool):
    """The same in a notebook and in a shell, before anything is done."""
    with pytest.raises(SpecError):
        image_options.parser(name, magic=magic).parse_args(["--nonsense", "x", "y", "z", "z"])


# --- progress ----------------------------------------------------------------------------------


def events(board: Board) -> None:
    """A pull of two layers."""
    board(Event("download", "aaa", 0, 1000))
    board(Event("download", "bbb", 500, 1000))
    board(Event("done", "aaa", 1000, 1000, "already here"))
    board(Event("unpack", "bbb", 10, None))
    board(Event("done", "", 0, None, "from docker.io"))


def test_a_board_keeps_the_newest_of_each_layer():
    """In the order in which they came; the event of the whole has no line."""
    drawn: list[list[Line]] = []

    def draw(lines: list[Line], *, last: bool) -> None:
        if last:
            drawn.append(lines)

    with Board(draw) as board:
        threads = [threading.Thread(target=events, args=(board,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        events(board)
    ((first, second),) = drawn
    assert board.note == "from docker.io"
    assert (first.layer, first.share, first.state) == ("aaa", 1.0, "already here")
    assert (second.layer, second.share, second.state) == ("bbb", None, "unpacking")


def test_ten_thousand_events_are_drawn_a_few_times():
    """Whoever downloads isn't held up by whoever draws."""
    drawn = []

    def draw(lines: list[Line], *, last: bool) -> None:
        drawn.append((lines, last))
        time.sleep(0.05)

    begin = time.monotonic()
    with Board(draw) as board:
        for number in range(10_000):
            board(Event("download", "aaa", number, 10_000))
        assert time.monotonic() - begin < 1
    assert len(drawn) < 10
    assert drawn[-1][0][0].done_bytes == 9_999


def test_a_terminal_renews_its_lines_in_their_place(monkeypatch: pytest.MonkeyPatch):
    """A bar with how much of how much; the cursor goes up over what was drawn before."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    stream = io.StringIO()
    terminal = image_board.Terminal(stream)
    terminal(
        [Line("aaa", "download", 512, 1024), Line("b\x1b[2J", "download", 0, None)], last=False
    )
    said = stream.getvalue()
    assert re.search(r"aaa  downloading \[=+>? +\] 512 B of 1.0 KiB\n", said)
    assert "\x1b[2J" not in said
    terminal([Line("aaa", "done", 1024, 1024)], last=True)
    assert stream.getvalue()[len(said) :] == "\x1b[2A\r\x1b[Jaaa  done        1.0 KiB\n"


def test_more_layers_than_lines(monkeypatch: pytest.MonkeyPatch):
    """Those that are at work are shown, and how many more there are."""
    monkeypatch.setenv("LINES", "8")
    stream = io.StringIO()
    lines = [Line(f"l{n:02}", "done" if n < 20 else "download", 1, 2) for n in range(24)]
    image_board.Terminal(stream)(lines, last=False)
    shown = [line.split()[0] for line in stream.getvalue().splitlines()]
    assert shown == ["l20", "l21", "l22", "l23", "l00", "…"]


def test_a_file_gets_a_line_a_layer():
    """When it is done, once, without any control character."""
    stream = io.StringIO()
    with image_board.for_stream(stream) as board:
        events(board)
        time.sleep(0.3)
        board(Event("done", "bbb", 2048, 2048))
    assert stream.getvalue().splitlines() == ["aaa: already here 1000 B", "bbb: done 2.0 KiB"]


def test_what_is_done_with_the_whole_is_a_line(monkeypatch: pytest.MonkeyPatch):
    """As bootstrap tells of it: on a terminal in its place, gone in the end; in a file once each."""
    monkeypatch.setenv("COLUMNS", "40")
    stream = io.StringIO()
    drawn: list[list[Line]] = []

    def draw(lines: list[Line], *, last: bool) -> None:
        drawn.append(lines)
        image_board.Terminal(stream)(lines, last=last)

    with Board(draw) as board:
        board(Event("download", "", 0, None, "running apt-get update..."))
        time.sleep(0.3)
    assert stream.getvalue() == "running apt-get update...\n"
    assert drawn[-1] == []
    file = io.StringIO()
    with image_board.for_stream(file) as board:
        for note in ("one", "two"):
            board(Event("download", "", 0, None, note))
            time.sleep(0.3)
    assert file.getvalue() == "one\ntwo\n"


def test_the_notebooks_bars_are_harmless_html():
    """Every string escaped; no script, no style sheet."""
    html = image_progress.bars([Line("<b>", "download", 1, 2), Line("x", "done", 3, 3, "<i>")])
    assert "<b>" not in html
    assert "<i>" not in html
    assert "width:50.0%" in html
    assert "<script" not in html
    many = image_progress.bars([Line(str(n), "download") for n in range(50)])
    assert "… and 10 more" in many
