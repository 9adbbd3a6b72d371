"""Bounded output: the beginning, the end, and a line between that tells the truth."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nscontainer import api, bounded
from nscontainer.bounded import Bounded, Kept
from nscontainer.measure import outputs
from nscontainer.measure.outputs import Outputs
from tests.unit import factories

LINE = re.compile(rb"\n?\[nscontainer: (\d+) B of output dropped here\]\n")

texts = st.text(alphabet="ab\n\u00e9\u20ac\U0001f600", max_size=300)


@given(texts, st.lists(st.integers(1, 40), max_size=20), st.integers(0, 200), st.integers(1, 60))
def test_beginning_end_and_what_is_missing(text: str, cuts: list[int], most: int, tail: int):
    """However it arrives, no byte is unaccounted for, and no character is cut."""
    data = text.encode()
    stream, at, head = Bounded(most, tail=tail), 0, b""
    for cut in [*cuts, len(data)]:
        head += stream.add(data[at : at + cut])
        at += cut
    rest = stream.rest()
    assert len(head) <= most
    assert data.startswith(head)
    found = LINE.match(rest)
    if found is None:
        assert head + rest == data
    else:
        end = rest[found.end() :]
        assert data.endswith(end)
        assert len(end) <= tail
        assert len(head) + int(found[1]) + len(end) == len(data)
    if not cuts:  # chunks may be cut anywhere; whole text in one piece keeps its characters
        (head + rest).decode()


@given(texts, st.integers(0, 200), st.integers(4, 60))
def test_characters_stay_whole(text: str, most: int, tail: int):
    """Text that comes in whole characters goes in whole characters."""
    stream, head = Bounded(most, tail=tail), b""
    for character in text:
        head += stream.add(character.encode())
    (head + stream.rest()).decode()


def test_cuts_at_lines():
    """Where there are lines, the line about what was dropped stands between whole ones."""
    kept = Kept(100)
    data = b"".join(b"line %06d\n" % number for number in range(100_000))
    kept.add(data)
    lines = kept.value().decode().splitlines()
    assert lines[0] == "line 000000"
    assert lines[-1] == "line 099999"
    middle = lines.index("[nscontainer: 1.1 MiB of output dropped here]")
    assert lines[middle - 1] == "line 000007"
    assert re.fullmatch(r"line \d{6}", lines[middle + 1])


def test_a_beginning_without_a_line_gets_one():
    """The line about what was dropped is a line of its own even after half a line."""
    stream = Bounded(4, tail=4)
    assert stream.add(b"abcd") == b"abcd"
    assert stream.add(b"efghijkl") == b""
    assert stream.rest() == b"\n[nscontainer: 4 B of output dropped here]\nijkl"


def test_memory_is_bounded():
    """A gigabyte in pieces takes no more than head and two tails."""
    kept, piece = Kept(1 << 20), b"x" * 65535 + b"\n"
    for _ in range(1 << 14):
        kept.add(piece)
    assert len(kept.value()) < (1 << 20) + bounded.TAIL_BYTES + 100


def test_none_is_everything():
    """Commands give all, as subprocess.run does."""
    kept = Kept(None)
    kept.add(b"x" * (bounded.KEPT_BYTES + 1))
    assert len(kept.value()) == bounded.KEPT_BYTES + 1


def test_lone_surrogates_survive():
    """What a file name that is no UTF-8 prints comes back as it was."""
    assert bounded.decode(bounded.encode("a\udc80b")) == "a\udc80b"


# --- a cell's outputs ------------------------------------------------------------------------


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"msg_type": "stream", "content": {"name": name, "text": text}}


def display(text: str, display_id: str | None = None, kind: str = "display_data") -> dict[str, Any]:
    transient = {} if display_id is None else {"display_id": display_id}
    content = {"data": {"text/plain": text}, "metadata": {}, "transient": transient}
    return {"msg_type": kind, "content": content}


def test_each_stream_has_room_of_its_own():
    """A flood on one leaves the other whole; displays keep their place."""
    taken = Outputs(10_000, 1 << 20)
    for _ in range(100_000):
        taken.add(stream("0123456789\n"))
    taken.add(display("d"))
    taken.add(stream("an error\n", "stderr"))
    taken.add(stream("end\n"))
    found = taken.all()
    kinds = [(o["output_type"], o.get("name")) for o in found]
    assert kinds == [
        ("stream", "stdout"),
        ("display_data", None),
        ("stream", "stderr"),
        ("stream", "stdout"),
    ]
    last = found[-1]["text"]
    assert last.startswith("\n[nscontainer: 1001.0 KiB of output dropped here]\n0123456789\n")
    assert last.endswith("0123456789\nend\n")


def test_two_streams_in_turn_are_bounded_too():
    """A million outputs of one letter are not a million outputs."""
    taken = Outputs(1 << 20, 1 << 20)
    for _ in range(100_000):
        taken.add(stream("a"))
        taken.add(stream("b", "stderr"))
    found = taken.all()
    assert len(found) < 10_000
    assert found[0]["text"] == "a"
    assert re.search(r"dropped here\]\nb+$", found[-1]["text"])


def test_displays_are_bounded_and_counted():
    """Over the bound they are left out, which a line says; updates replace and don't add up."""
    taken = Outputs(None, 100_000)
    taken.add(display("first", "bar"))
    for step in range(1000):
        taken.add(display(f"{step}" * 100, "bar", "update_display_data"))
    for _ in range(30):
        taken.add(display("x" * 10_000))
    found = taken.all()
    assert found[0]["data"]["text/plain"] == "999" * 100
    assert [len(o["data"]["text/plain"]) for o in found[1:-1]] == [10_000] * 9
    assert found[-1]["text"] == "[nscontainer: 21 displays dropped here]\n"


def test_clear_output_makes_room():
    """An animation that clears what it showed can go on for ever."""
    taken = Outputs(2000, 100_000)
    for step in range(1000):
        taken.add({"msg_type": "clear_output", "content": {"wait": True}})
        taken.add(stream(f"step {step} " + "x" * 500 + "\n"))
        taken.add(display("y" * 50_000))
    text, shown = taken.all()
    assert text["text"].startswith("step 999 x")
    assert len(shown["data"]["text/plain"]) == 50_000


def test_depth_is_no_danger():
    """The size of something nested very deep is told without recursion."""
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    assert outputs.size_of(deep) > 100_000


@pytest.mark.parametrize("whole", [False, True])
def test_what_a_listener_keeps(whole: bool):  # noqa: FBT001
    """A cell's result is bounded, a command's has everything."""
    listener = api.Listener(None, None, whole=whole)
    piece = b"0123456789abcde\n" * 4096
    for _ in range(20 << 4):
        listener.stdout(piece)
    result = listener.result(factories.record(), b"", None if whole else "1")
    if whole:
        assert len(result.stdout_bytes) == 20 << 20
    else:
        assert (16 << 20) < len(result.stdout_bytes) < (16 << 20) + (1 << 17)
        assert "[nscontainer: 3.9 MiB of output dropped here]\n" in result.stdout
