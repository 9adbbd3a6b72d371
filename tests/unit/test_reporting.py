"""``nscontainer.report``: what a cell may report, the way out of each runner, and what the host believes."""

from __future__ import annotations

import enum
import json
import math
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nscontainer
from nscontainer import api
from nscontainer.measure.reported import MOST_REFUSED, Reported
from nscontainer.measure.result import RunResult, load
from nscontainer.runner.reporting import MOST_NAMES
from tests.unit import factories
from tests.unit import runner_harness as harness


@pytest.fixture(autouse=True)
def _end_all() -> Iterator[None]:
    yield
    harness.end_all()


class _Method(enum.StrEnum):
    GREEDY = "greedy"


@pytest.mark.parametrize("mode", harness.MODES)
def test_a_cell_reports(mode: str) -> None:
    """Preloaded, cold, and without IPython and nscontainer; a thread's values go the same way."""
    code = (
        "import nscontainer, threading\n"
        "nscontainer.report(items=1, rate=4.5, done=True, how='x')\n"
        "t = threading.Thread(target=nscontainer.report, kwargs={'items': 2})\n"
        "t.start(); t.join()\n"
        "print(hasattr(nscontainer, 'run'))\n"
    )
    path: dict[str, Any] = {} if mode == "plain" else {"sys_path": sys.path}
    cell = harness.start(code, mode, **path).finish()
    assert cell.exit_code == 0, cell.messages
    first, second = cell.of("report")
    assert first == {"values": {"items": 1, "rate": 4.5, "done": True, "how": "x"}}
    assert second == {"values": {"items": 2}}
    assert cell.text() == f"{mode != 'plain'}\n", "an nscontainer that is there comes first"


def test_forked_process_is_told() -> None:
    """Its channel is closed: a value lost in silence would be worse than an error."""
    code = (
        "import nscontainer, os\n"
        "if (pid := os.fork()) == 0:\n"
        "    try:\n"
        "        nscontainer.report(x=1)\n"
        "    except RuntimeError as error:\n"
        "        os._exit(7 if 'forked' in str(error) else 8)\n"
        "    os._exit(9)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    cell = harness.start(code).finish()
    assert cell.text() == "7\n"
    assert cell.of("report") == []


def test_nothing_happens_outside_a_container(capsys: pytest.CaptureFixture[str]) -> None:
    """A notebook's plain cell reports as well, to nobody, and is told of what is wrong."""
    nscontainer.report(items=np.int64(3), rate=np.float32(0.5), yes=np.bool_(True))  # noqa: FBT003
    nscontainer.report(how=_Method.GREEDY, größe=1)
    nscontainer.report()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ({"x": [1]}, TypeError, "x is a list; a number, a text"),
        ({"x": None}, TypeError, "x is a NoneType"),
        ({"x": np.zeros(2)}, TypeError, "x is a ndarray"),
        ({"x": 1j}, TypeError, "x is a complex"),
        ({"x": math.nan}, ValueError, "x is nan, no finite number"),
        ({"x": np.float64("inf")}, ValueError, "x is inf, no finite number"),
        ({"x": "y" * 201}, ValueError, "x is a text of 201 characters; at most 200"),
        ({"x": "\udc80"}, ValueError, "no Unicode"),
        ({"x": 1 << 63}, ValueError, "more than 64 bits"),
        ({"wall_s": 1}, ValueError, "'wall_s' can't be reported"),
        ({"a b": 1}, ValueError, "'a b' is no name"),
        ({f"n{i}": i for i in range(MOST_NAMES + 1)}, ValueError, "101 values reported at once"),
    ],
)
def test_what_cannot_be_reported(values: dict[str, Any], kind: type, words: str) -> None:
    """One line says what and why."""
    with pytest.raises(kind, match=words):
        nscontainer.report(**values)


def test_host_believes_nobody() -> None:
    """Whatever a container sends as a report: good values are kept, the rest is told of and left out."""
    reported = Reported()
    for sent in (None, [1], "x", {"good": 1}, {"good": 2, "bad name": 1, "x": None, "ok": True}):
        reported.add(sent)
    reported.add({"x": {"y": 1}, "nan": math.nan, "cpu_s": 1, "long": "y" * 10_000, "e": 10**400})
    assert reported.kept == {"good": 2}
    assert len(reported.refused) == 9
    assert all(len(line) <= 200 and line.isprintable() for line in reported.refused)
    reported.add({f"n{i}": i for i in range(10 * MOST_NAMES)})
    assert len(reported.kept) == MOST_NAMES
    assert len(reported.refused) == MOST_REFUSED
    reported.add({"good": 3})
    assert reported.kept["good"] == 3, "a known name goes on"


def _heard(*contents: Any) -> RunResult:
    listener = api.Listener(None, None)
    for content in contents:
        listener.message({"msg_type": "report", "content": content})
    return listener.result(factories.record(), b"", "pass")


def test_result_has_them(tmp_path: Path) -> None:
    """In the result, its text and card, and in its file; what was left out is a warning."""
    sent = {"items": 3, "rate": 1 / 3, "done": True, "how": "<b>x</b>", "wall_s": 1}
    result = _heard({"values": sent}, {"values": {"items": 4}}, {"no": "values"})
    assert result.reported == {"items": 4, "rate": 1 / 3, "done": True, "how": "<b>x</b>"}
    assert result.outputs == ()
    (warning,) = (w for w in result.warnings if w.code == "report-refused")
    assert "'wall_s' can't be reported" in warning.message
    assert "(and 1 more)" in warning.message
    assert (
        "  reported items 4 · rate 0.333333 · done yes · how <b>x</b>" in str(result).splitlines()
    )
    card = result._repr_html_()
    assert "&lt;b&gt;x" in card
    assert "<b>x" not in card
    result.save(tmp_path / "r.zip")
    again = load(tmp_path / "r.zip")
    assert again == result
    assert again.reported == result.reported
    assert again.report_refused == result.report_refused


def test_files_of_others(tmp_path: Path) -> None:
    """An older file has no reports; one that somebody made up is held to the same rules."""
    path = tmp_path / "r.zip"
    for reported, kept in ((None, {}), ({"good": 1, "bad name": 2, "wall_s": 3}, {"good": 1})):
        _heard().save(path)
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        meta = json.loads(parts["result.json"])
        del meta["reported"], meta["report_refused"]
        if reported is not None:
            meta["reported"] = reported
        parts["result.json"] = json.dumps(meta).encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in parts.items():
                archive.writestr(name, data)
        result = load(path)
        assert result.reported == kept
        assert bool(result.report_refused) == (reported is not None)
