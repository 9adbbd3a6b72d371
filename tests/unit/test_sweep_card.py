"""The card of a sweep: that it says what matters, fits, and shows nobody's markup."""

from __future__ import annotations

from typing import Any

import pytest

from nscontainer import card, sweep_card
from nscontainer.experiment import words
from nscontainer.experiment.plan import Work
from nscontainer.experiment.sweep import Sweep
from tests.unit.sweep_factories import plan, sweep
from tests.unit.test_card import EVIL, Checker


def grid(**more: Any) -> Sweep:
    levels = {"cpu": ("20%", "50%", None), "memory": ("128M", "256M")}
    return sweep(of_plan=plan(levels, repeat=4), **more)


def evil() -> Sweep:
    return sweep(
        of_plan=plan({"n": (EVIL, 2)}, code=EVIL, options={EVIL: EVIL}, metric="<b>items"),
        wall=lambda _p: 1.0,
        reported=lambda _p: {"<b>items": 5},
        host=lambda turn: EVIL + str(turn.point),
        change=lambda turn: {"exit_code": 126, "exec_error": EVIL} if turn.number == 1 else {},
        id=EVIL,
        recorded=EVIL,
        facts={"host": EVIL, "system": EVIL, "packages": {EVIL: EVIL}},
    )


SWEEPS = {
    "plain": sweep(),
    "grid": grid(),
    "nothing varied": sweep({}),
    "not begun": sweep(done=0),
    "partly": sweep(done=7),
    "running": sweep(done=7, status="running"),
    "failed": sweep(change=lambda _t: {"exit_code": 1}),
    "large": sweep(of_plan=plan({"n": tuple(range(60))}, repeat=3), wall=lambda _p: 0.4),
    "noisy": sweep(noise=0.3),
    "zip": sweep(of_plan=plan({"cpu": ("50%", "100%"), "memory": ("1G", "2G")}, mode="zip")),
    "no such figure": sweep(of_plan=plan(metric="items")),
    "evil": evil(),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_html_is_well_formed_and_harmless(name: str) -> None:
    checker = Checker()
    checker.feed(SWEEPS[name]._repr_html_())
    checker.close()
    assert checker.open == []
    assert "\x1b" not in checker.text
    assert "\u202e" not in checker.text


@pytest.mark.parametrize("name", SWEEPS)
def test_text_and_line_fit(name: str) -> None:
    s = SWEEPS[name]
    lines = str(s).splitlines()
    assert all(len(entry) <= card.COLUMNS for entry in lines)
    assert len(lines) <= 40
    assert "\x1b" not in str(s) + repr(s)
    assert "\n" not in repr(s)
    assert repr(s).startswith("<Sweep ")


def test_the_text() -> None:
    lines = str(sweep(noise=0.01)).splitlines()
    assert lines[0] == "cell: total = 0; for i in range({n}): total += i"
    assert lines[1] == "cpu 20 %, 50 %, 100 %"
    assert lines[2] == "15 runs, 5 of each"
    head, first, _, last = (entry.split("  ") for entry in lines[3:7])
    assert [cell.strip() for cell in head if cell] == [
        *("cpu", "n", "wall time", "95 % interval", "CPU had", "throttled", "peak memory"),
        "against 100 %",
    ]
    assert [cell.strip() for cell in first if cell][0:3] == ["20 %", "5", "5 s"]
    assert "slower +406 %" in first[-1]
    assert last[-1].strip() == "baseline"


def test_several_factors_have_a_row_each_point_and_a_line_each_comparison() -> None:
    said = str(SWEEPS["grid"])
    assert "cpu 20 %, 50 %, no limit × memory 128 MiB, 256 MiB" in said
    assert len(sweep_card.table(SWEEPS["grid"])) == 6
    assert "cpu against no limit: 20 % slower +40" in said
    assert "memory against 256 MiB: 128 MiB no difference found" in said
    assert "cpu against no limit" in SWEEPS["grid"]._repr_html_()
    assert "cpu 50 %, 100 % with memory 1 GiB, 2 GiB" in str(SWEEPS["zip"])


def test_how_far_it_is() -> None:
    assert "interrupted after 7 of 15 runs: the same call goes on from here" in str(
        SWEEPS["partly"]
    )
    assert "interrupted after 7 of 15 runs" in repr(SWEEPS["partly"])
    assert "running: 7 of 15 runs have ended (5 of each)" in str(SWEEPS["running"])
    assert "interrupted after 0 of 15 runs" in str(SWEEPS["not begun"])
    until = sweep(of_plan=plan(until=0.02, repeat=3))
    assert "9 runs, 3 of each or more, until the interval is 2 % wide" in str(until)


def test_recorded_stands_on_top() -> None:
    s = sweep(done=7, recorded="recorded on lab-9, 2025-06-15")
    assert str(s).splitlines()[0] == "● recorded on lab-9, 2025-06-15"
    html = s._repr_html_()
    assert html.index("recorded on lab-9") < html.index("<code>")
    assert "goes on" not in str(s) + html
    assert "recorded on lab-9" in repr(s)


def test_every_warning_is_there() -> None:
    s = SWEEPS["noisy"]
    assert len(s.warnings) >= 3
    html, lines = s._repr_html_(), " ".join(str(s).split())
    for warning in s.warnings:
        assert card.escaped(warning.message) in html
        assert " ".join(warning.message.split()) in lines


def test_what_failed_is_counted() -> None:
    s = sweep(change=lambda turn: {"exit_code": 1} if turn.repeat == 0 else {})
    assert "5 (1 failed)" in str(s)
    assert "5 (1 failed)" in s._repr_html_()


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (
            Work(kind="cell", code="# a\n%time\nimport x\nfor i in y:\n    pass"),
            "cell: import x; for i in y: pass",
        ),
        (Work(kind="cell", code=""), "cell: (empty)"),
        (Work(kind="command", command=("sort", "-n", "my data")), "sort -n 'my data'"),
        (Work(kind="script", code="echo hi\n", command=("bash", "-")), "bash - echo hi"),
        (Work(kind="cell", code="f()", name="work.py"), "cell: f() (work.py)"),
    ],
)
def test_what_is_run(work: Work, said: str) -> None:
    assert words.what(work) == said


def test_figures_are_written_in_their_unit() -> None:
    assert words.figure("wall_s", 0.25) == "250 ms"
    assert words.figure("peak_memory", 1 << 20) == "1.0 MiB"
    assert words.figure("throttled_share", 0.5) == "50.0 %"
    assert words.figure("items", 1234567.0) == "1,234,567"
    assert words.figure("items", 0.12345) == "0.1235"


def test_ipython_prints_the_card() -> None:
    class Printer:
        said = ""

        def text(self, text: str) -> None:
            self.said += text

    printer = Printer()
    SWEEPS["plain"]._repr_pretty_(printer, cycle=False)
    assert printer.said == str(SWEEPS["plain"])
