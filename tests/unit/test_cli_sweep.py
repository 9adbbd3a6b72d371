"""``nscontainer sweep`` without containers: what is refused, what is handed on, what is printed."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nscontainer import cli
from nscontainer.cli import history
from nscontainer.cli import sweep as sweep_cli
from nscontainer.errors import CommandError, NotFoundError, SpecError
from nscontainer.experiment.progress import Progress
from tests.unit import sweep_factories


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--cpu", "10%,20%"], "no command"),
        (["--cpu", "10%,,20%", "--", "true"], "empty part"),
        (["--cpu", "10%,0.1", "true"], "is the same"),
        (["--repeat", "0", "true"], "repeat '0'"),
        (["--hostname", "a", "--param", "cpu=1", "true"], "is an option"),
        (["-t", "true"], "no terminal"),
        (["--name", "x", "true"], "--name is not an option"),
        (["--kind", "speed", "true"], "--plot"),
        (["-o", "x.tar", "true"], "another format"),
        (["--plot", "/nonexistent/x.png", "true"], "can't be written"),
        (["--csv", "x.txt", "true"], ".csv"),
    ],
)
def test_what_is_refused(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, before anything is made."""
    assert cli.main(["sweep", *argv]) == 125
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


@pytest.mark.parametrize("argv", [["--cpu", "10%,20%"], ["-m", "64M..1G:x2"]])
def test_run_names_the_command_for_lists(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", *argv, "--", "true"]) == 125
    assert "nscontainer sweep" in capsys.readouterr().err


class Facade(types.ModuleType):
    """Stands in for the module that runs containers."""

    def __init__(self, outcome: Any) -> None:
        super().__init__("nscontainer.sweeps")
        self.outcome = outcome
        self.asked: dict[str, Any] = {}
        self.how: dict[str, Any] = {}

    def prepare(self, work: Any, **kwargs: Any) -> str:
        self.asked = {"work": work, **kwargs}
        return "the plan"

    def run_plan(self, plan: Any, **how: Any) -> Any:
        assert plan == "the plan"
        self.how = how
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def facade(monkeypatch: pytest.MonkeyPatch, outcome: Any) -> Facade:
    made = Facade(outcome)
    monkeypatch.setitem(sys.modules, "nscontainer.sweeps", made)
    return made


def test_what_is_handed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command as a list, levels as tuples, where we are as the directory; not to go on, if so asked."""
    monkeypatch.chdir(tmp_path)
    made = facade(monkeypatch, KeyboardInterrupt())
    argv = ["--cpu", "10%,20%", "--repeat", "3", "--fresh", "--param", "n=1,2", "--", "echo", "{n}"]
    assert cli.main(["sweep", *argv]) == 130
    assert made.asked == {
        "work": ["echo", "{n}"], "cpu": ("10%", "20%"), "repeat": 3, "params": {"n": (1, 2)},
        "workdir": str(tmp_path),
    }  # fmt: skip
    assert made.how["resume"] is False


def test_an_interruption_says_where_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt = KeyboardInterrupt()
    interrupt.sweep = sweep_factories.sweep(done=7)  # type: ignore[attr-defined]
    facade(monkeypatch, interrupt)
    assert cli.main(["sweep", "--cpu", "1,2", "true"]) == 130
    line = "stopped after 7 of 15 runs; the same command goes on from there\n"
    assert capsys.readouterr().err == line


def test_a_first_run_that_fails_shows_what_it_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = CommandError("exit code 3", exit_code=3)
    error.result = types.SimpleNamespace(  # type: ignore[attr-defined]
        stderr_bytes=b"\n".join(b"line %d" % i for i in range(30)) + b"\n\x1b[2Jlast\n"
    )
    facade(monkeypatch, error)
    assert cli.main(["sweep", "--cpu", "1,2", "true"]) == 3
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 21
    assert said[-2:] == ["\\x1b[2Jlast", "nscontainer: the first run failed: exit code 3"]


def test_the_line_of_progress() -> None:
    """How far, how long yet, and what runs or is waited for."""
    done = sweep_factories.sweep(done=7)
    progress = Progress(
        done=7, total=15, point=done.plan.points()[0], turn=None, elapsed_s=12.3, left_s=150,
        running=True, sweep=done,
    )  # fmt: skip
    text = sweep_cli.progress_text(progress)
    assert text == "7 of 15 · 12.3 s · 2 min 30 s left · cpu 20 %"
    waiting = dataclasses.replace(progress, left_s=None, what="waiting for another sweep")
    assert sweep_cli.progress_text(waiting) == "7 of 15 · 12.3 s · waiting for another sweep"
    begun = dataclasses.replace(progress, left_s=None, point=None)
    assert sweep_cli.progress_text(begun) == "7 of 15 · 12.3 s"


def test_the_table_of_a_comparison() -> None:
    """A row a level; what isn't known is a dash."""
    nan = float("nan")
    frame = pd.DataFrame(
        {
            "label": ["20 %", "100 %"], "n": [5, 2], "median": [5.0, 1.0], "low": [4.9, nan],
            "high": [5.1, nan], "relative": [5.0, 1.0], "relative_low": [4.8, nan],
            "relative_high": [5.2, nan], "p": [0.01, nan], "verdict": ["slower", "baseline"],
        }
    )  # fmt: skip
    lines = sweep_cli.compare_table("cpu", "wall_s", frame).splitlines()
    assert lines[0].split() == "CPU RUNS WALL_S 95 % RELATIVE 95 % VERDICT".split()
    assert "5 s" in lines[1]
    assert "4.9 s – 5.1 s" in lines[1]
    assert "4.8 – 5.2 ×" in lines[1]
    assert lines[1].endswith("slower")
    assert lines[2].count("–") == 2


def test_the_report_of_a_sweep() -> None:
    """How many runs, a table for each thing varied, and the warnings, unless they are not wanted."""
    text = sweep_cli.report(sweep_factories.sweep())
    assert text.startswith("15 runs, kept as 3f2a9c41\n\nCPU ")
    rows = [line for line in text.splitlines() if line.startswith(("20 %", "50 %", "100 %"))]
    assert len(rows) == 3
    assert rows[2].endswith("baseline")
    two = sweep_factories.sweep({"cpu": ("50%", None), "n": (1, 2)})
    assert "\nN  " in sweep_cli.report(two)
    assert "no limit" in sweep_cli.report(two)


def test_a_report_without_anything_varied() -> None:
    text = sweep_cli.report(sweep_factories.sweep({}))
    assert "wall_s: median " in text


def test_a_report_without_the_metric() -> None:
    """No run has reported it: the runs are kept, and it is said."""
    plan = sweep_factories.plan(metric="items")
    assert "nothing to compare: " in sweep_cli.report(sweep_factories.sweep(of_plan=plan))


# --- history and rerun -----------------------------------------------------------------------


def module(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    made = types.ModuleType(name)
    for member, value in members.items():
        setattr(made, member, value)
    monkeypatch.setitem(sys.modules, name, made)


def test_history_lists_sweeps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row a sweep, the terminal safe from what a command was called."""
    frame = pd.DataFrame(
        {"id": ["3f2a"], "created": [pd.Timestamp("2026-01-02 03:04", tz="UTC")],
         "what": ["echo \x1b[2J"], "points": [3], "host": [None]}
    )  # fmt: skip
    asked: list[Any] = []
    kept = importlib.import_module("nscontainer.history")

    def listed(*which: str | None) -> pd.DataFrame:
        asked.append(which)
        return frame

    monkeypatch.setattr(kept, "table", listed)
    assert cli.main(["history"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["ID", "CREATED", "WHAT", "POINTS", "HOST"]
    assert "2026-01-02 03:04" in row
    assert "echo \\x1b[2J" in row
    assert row.endswith("–")
    assert cli.main(["history", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["id"] == "3f2a"
    assert cli.main(["history", "--what", "dd if", "--status", "complete"]) == 0
    assert asked == [(None, None), (None, None), ("complete", "dd if")]
    assert cli.main(["history", "--status", "gone"]) == 125


def test_history_removes_sweeps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each that there is; one that isn't is a line, and stops nothing."""
    deleted = []

    class Store:
        def delete(self, one: str) -> None:
            if one == "none":
                raise NotFoundError("sweep 'none' is not kept")
            deleted.append(one)

    module(monkeypatch, "nscontainer.experiment.store", Store=Store)
    assert cli.main(["history", "rm", "none", "3f2a"]) == 1
    assert deleted == ["3f2a"]
    assert capsys.readouterr().out == "3f2a\n"
    assert cli.main(["history", "rm"]) == 125


def test_rerun_shows_both(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    class Both:
        def __init__(self, file: str, trust: tuple[str, ...]) -> None:
            assert trust == ()
            self.file = file

        def __str__(self) -> str:
            return f"there and here of {self.file}"

    module(monkeypatch, "nscontainer.reruns", rerun=Both, trusted=tuple)
    assert history.rerun_command(["x.zip"]) == 0
    assert capsys.readouterr().out == "there and here of x.zip\n"
    with pytest.raises(SpecError, match="another format"):
        history.rerun_command(["-o", str(tmp_path / "x.tar"), "x.zip"])
