"""Sweeps in the magics without containers: the line, the progress, what is shown, how a cell fails.

The façade's edge is a fake ``sweeps`` whose runs are made up; the container's are in tests/notebook.
"""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from IPython.core.completer import CompletionContext
from IPython.utils.capture import capture_output

from nscontainer import errors, sweeps
from nscontainer.experiment.plan import Plan, Work
from nscontainer.experiment.progress import Progress
from nscontainer.experiment.store import Store
from nscontainer.experiment.sweep import Sweep
from nscontainer_magics import cell_line, completion, failure, history_command, sweep_view, sweeping
from nscontainer_magics.magics import ContainerMagics
from tests.unit import sweep_factories as made

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

# --- the line --------------------------------------------------------------------------------


def test_a_list_makes_a_sweep():
    """A list in a limit, or a sweep option; without either it is one run, as ever."""
    asked = cell_line.parse("--cpu 10%,20% -m 1G --repeat 5 -o s")
    assert asked.sweep == {"cpu": ("10%", "20%"), "memory": "1G", "repeat": 5}
    assert not asked.fresh
    assert cell_line.parse("--repeat 3 --fresh").sweep == {"repeat": 3}
    assert cell_line.parse("--repeat 3 --fresh").fresh
    assert cell_line.parse("--param n=1,2").sweep == {"params": {"n": (1, 2)}}
    assert cell_line.parse("--cpu 10% --cpuset-cpus 0,1").sweep is None


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("--cpu 10%,2x%", "cpu: '2x%' is not an amount of CPU", "write 20%"),
        ("--cpu 10%,", "cpu '10%,' has an empty part", "one level between"),
        ("--cpu 10%,20% --repeat 0", "repeat '0' is not a whole number from 1 on", "--repeat 5"),
        ("--repeat 2 --out y", "--out is for one run", "report(NAME=…)"),
        ("--repeat 2 --capture y", "--capture is for one run", "s.results[0].stdout"),
        ("--repeat 2 --name y", "--name is for one run", "a name of its own"),
        ("lab --cpu 10%,20%", "a sweep runs in containers of its own", "leave the name"),
        ("lab --repeat 2", "a sweep runs in containers of its own", "leave the name"),
        ("--repeat 2 --sh -i x", "-i is for Python cells", "-e NAME=$value"),
        ("--repeat 2 --param cpu=1", "parameter 'cpu' is an option", "--cpu takes a list"),
    ],
)
def test_what_cannot_be_is_one_line(line: str, message: str, hint: str):
    """Before anything is made, with how to mend it."""
    with pytest.raises(errors.SpecError) as caught:
        cell_line.parse(line)
    assert str(caught.value).startswith(message)
    assert hint in str(caught.value.hint)
    assert "\n" not in errors.one_line(caught.value)


def test_the_help_has_sweeps():
    """``%%container?`` shows how, and every option."""
    text = cell_line.help_text()
    assert "--cpu 10%,20%,50%,100% --repeat 5 -o s" in text
    assert "--warmup N" in text
    assert "--fresh" in text


@pytest.mark.parametrize(
    "cell",
    [
        "n = 3\nprint({n}, f'{n}')",
        "for n in range(3):\n    x = {n}",
        "def f(n):\n    return {n}",
        "import n\n{n}",
        "from x import *\n{n}",
        "{print}",
        "d = {1: 2}\n{*d}",
        "!echo {n}",
        "(",
        "match 1:\n    case n:\n        {n}",
    ],
)
def test_braces_of_pythons_own_are_left_alone(cell: str):
    """A set of a variable that the cell sets is one."""
    sweeping._refuse_unset(cell, set())


@pytest.mark.parametrize("cell", ["print({n})", "x = f'{n} items'", "range({n})"])
def test_a_parameter_that_is_none_is_refused(cell: str):
    """``{n}`` of a name that nothing sets; a parameter of that name, or an input, sets it."""
    with pytest.raises(errors.SpecError, match=r"\{n\} stands in the cell") as caught:
        sweeping._refuse_unset(cell, set())
    assert caught.value.hint == "--param n=1,10,100, or -i n"
    sweeping._refuse_unset(cell, {"n"})


# --- the façade, faked -------------------------------------------------------------------------


def progress(sweep: Sweep, **changes: Any) -> Progress:
    """Say how far a sweep is."""
    turns = sweep.plan.turns()
    done = len(sweep.runs)
    turn = turns[done] if done < len(turns) else None
    values: dict[str, Any] = {
        "done": done,
        "total": len(turns),
        "turn": turn,
        "point": None if turn is None else sweep.plan.points()[turn.point],
        "elapsed_s": 1.0,
        "left_s": 12.3,
        "running": True,
        "sweep": sweep,
        "what": "",
    }
    return Progress(**(values | changes))


def part(whole: Sweep, done: int, status: Any = "running") -> Sweep:
    """The first runs of a sweep."""
    return dataclasses.replace(whole, runs=whole.runs[:done], status=status)


class FakeSweeps:
    """Where a sweep would run: as many runs as it is told, from where it is told."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.calls: list[dict[str, Any]] = []
        self.begin = 0
        self.stop_after: int | None = None
        self.fail: Callable[[Sweep], BaseException] | None = None
        self.change: Callable[..., Any] = lambda _turn: {}
        self.at: Callable[[Sweep], object] = lambda _sweep: None

    def __call__(self, plan: Plan, **how: Any) -> Sweep:
        """As :func:`nscontainer.sweeps.run_plan`."""
        self.plans.append(plan)
        self.calls.append(how)
        whole = made.sweep(of_plan=plan, change=self.change, wall=lambda _levels: 1.0)
        if self.fail is not None:
            raise self.fail(part(whole, 0, "interrupted"))
        for done in range(self.begin, len(whole.runs) + 1):
            try:
                how["on_progress"](progress(part(whole, done)))
            except KeyboardInterrupt as heard:  # as execute() does
                heard.sweep = part(whole, done, "interrupted")  # type: ignore[attr-defined]
                raise
            self.at(part(whole, done))
            if done == self.stop_after:
                interrupt: Any = KeyboardInterrupt()
                interrupt.sweep = part(whole, done, "interrupted")
                raise interrupt
        return whole


@pytest.fixture
def shell(
    bare_shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> Iterator[InteractiveShell]:
    """A shell with the magics; cards and pictures are others' and have tests of their own."""
    monkeypatch.setattr(Sweep, "__str__", lambda _: "the card")
    monkeypatch.setattr(Sweep, "__repr__", lambda _: "the sweep")
    monkeypatch.setattr(Sweep, "_repr_html_", lambda _: "<b>the card</b>")
    monkeypatch.setattr(sweeping, "_picture", lambda _: "iVBO")
    bare_shell.register_magics(ContainerMagics(bare_shell))
    completion.install(bare_shell)
    yield bare_shell
    completion.remove(bare_shell)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeSweeps:
    """The façade's edge, faked."""
    one = FakeSweeps()
    monkeypatch.setattr(sweeps, "run_plan", one)
    return one


def run(shell: InteractiveShell, code: str) -> tuple[Any, str, str, list[Any]]:
    """Run a cell; give its result, what it printed on both streams, and what it displayed."""
    with capture_output() as taken:
        result = shell.run_cell(code, store_history=True)
    return result, taken.stdout, taken.stderr, taken.outputs


def test_a_sweep_is_kept_and_shown(shell: InteractiveShell, fake: FakeSweeps):
    """The variable and ``%container last`` have it; its card and then its picture are shown."""
    result, out, _, shown = run(
        shell, "%%container --cpu 20%,50% --repeat 3 -o s --fresh\nprint(1)"
    )
    assert result.success, result
    assert len(shell.user_ns["s"].runs) == 6
    assert shell.run_line_magic("container", "last") is shell.user_ns["s"]
    assert [one.data.get("text/html") for one in shown] == ["<b>the card</b>", None]
    assert shown[1].data["image/png"] == "iVBO"
    assert out == ""
    (call,) = fake.calls
    assert (call["resume"], call["check"]) == (False, True)
    assert call["cell"]["filename"] == f"Cell In[{shell.execution_count - 1}]"
    assert fake.plans[0].work == Work(kind="cell", code="print(1)\n")


def test_the_same_cell_is_the_same_sweep(shell: InteractiveShell, fake: FakeSweeps):
    """However often it is run, so that it can be gone on with; with other values taken along it isn't."""
    shell.user_ns["x"] = [1, 2]
    for cell in ("-i x\nx", "\n#!/bin/sh\necho", "--sh\necho", "--sh\n" + "x" * 200_000):
        for _ in range(2):
            assert run(shell, f"%%container --repeat 2 -q {cell}")[0].success
        assert fake.plans[-1].key == fake.plans[-2].key
    assert fake.plans[-1].work.stdin is not None
    run(shell, "%%container --repeat 2 -q -i x\nx")
    shell.user_ns["x"] = [1, 3]
    run(shell, "%%container --repeat 2 -q -i x\nx")
    assert fake.plans[-1].key != fake.plans[-2].key
    assert fake.calls[-1]["cell"]["inputs"] == {"x": [1, 3]}


def test_stopped_and_gone_on_with(shell: InteractiveShell, fake: FakeSweeps):
    """■ keeps what is done and says how to go on; then it says from where it goes on."""
    fake.stop_after = 2
    result, out, _, shown = run(shell, "%%container --cpu 20%,50% --repeat 2 -o s\n1")
    assert isinstance(result.error_in_exec, failure.SweepStopped)
    line = "KeyboardInterrupt: stopped after 2 of 4 runs; run the cell again to go on from there"
    assert out.splitlines()[-1] == line
    assert shell.user_ns["s"].status == "interrupted"
    assert len(shown) == 2
    fake.begin, fake.stop_after = 2, None
    result, out, _, _ = run(shell, "%%container --cpu 20%,50% --repeat 2 -o s\n1")
    assert out == "going on after 2 of 4 runs\n"
    fake.begin, fake.stop_after = 0, 2
    _, out, _, _ = run(shell, "%%container --cpu 20%,50% --repeat 2 --fresh -q\n1")
    assert "again without --fresh to go on" in out
    fake.stop_after = 0
    _, out, _, shown = run(shell, "%%container --cpu 20%,50% --repeat 2\n1")
    assert "stopped before the first of 4 runs had ended" in out
    assert shown == []


def test_the_first_run_fails(shell: InteractiveShell, fake: FakeSweeps):
    """Its error is as a single run's, and says what became of the sweep."""

    def failing(sweep: Sweep) -> BaseException:
        error: Any = errors.CommandError("exit code 3", exit_code=3)
        error.sweep = sweep
        error.result = made.result({}, 1.0, exit_code=3)
        assert isinstance(error, BaseException)
        return error

    fake.fail = failing
    result, out, _, shown = run(shell, "%%container --cpu 20%,50%\n1")
    error = result.error_in_exec
    assert isinstance(error, failure.ContainerFailed)
    assert error.exit_code == 3
    assert "exit code 3; the sweep was not gone on with: --no-raise-error would" in out
    assert shown == []


def test_in_the_background(shell: InteractiveShell, fake: FakeSweeps):
    """The variable has at once what there is of it; what it took along is as it was; then it is as its sweep."""
    go_on = threading.Event()

    def held(sweep: Sweep) -> None:
        if len(sweep.runs) == 2:
            assert go_on.wait(60)

    fake.at = held
    shell.user_ns["x"] = [1]
    result, _, _, _ = run(shell, "%%container --bg --cpu 20%,50% --repeat 3 -i x -o s\nx")
    assert result.success, result
    s = shell.user_ns["s"]
    shell.user_ns["x"].append(2)
    try:
        assert (s.done, s.status, "BackgroundSweep" in repr(s)) == (False, "running", True)
        with pytest.raises(TimeoutError, match="still runs"):
            s.wait(0)
        with pytest.raises(errors.StateError, match="is running"):
            copy.copy(s)
        assert len(s) < 6
    finally:
        go_on.set()
    assert s.wait(60) is s.sweep
    assert (s.done, s.status, len(s), len(s.summary), repr(s)) == (
        True,
        "complete",
        6,
        6,
        "the card",
    )
    assert fake.calls[0]["cell"]["inputs"] == {"x": [1]}
    assert copy.copy(s) is s.sweep
    with pytest.raises(errors.StateError, match="is over: complete"):
        s.stop()


def test_in_the_background_stopped_or_failed(shell: InteractiveShell, fake: FakeSweeps):
    """stop() keeps what is done; a failure fails no cell, and is raised for whoever waits."""
    stopping = threading.Event()
    fake.at = lambda sweep: len(sweep.runs) != 2 or stopping.wait(60)
    run(shell, "%%container --bg --cpu 20%,50% --repeat 3 -o s\n1")
    s = shell.user_ns["s"]
    s.stop()
    stopping.set()
    assert s.wait(60).status == s.status == "interrupted"
    assert len(s) <= 3

    def failing(sweep: Sweep) -> BaseException:
        return errors.HostError("no such thing here", hint="mend it")

    fake.fail = failing
    assert "HostError: no such thing here" in run(shell, "%%container --bg --repeat 3 -o t\n1")[1]
    assert "t" not in shell.user_ns


def test_quiet_shows_only_output(shell: InteractiveShell, fake: FakeSweeps):
    """No card, no picture, no line about going on."""
    fake.begin = 1
    _, out, _, shown = run(shell, "%%container --cpu 20%,50% -q\n1")
    assert (out, shown) == ("", [])


def test_output_of_the_first_and_of_a_failing_run(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
):
    """What twenty runs say isn't shown twenty times."""
    whole = made.sweep({"cpu": ("20%",)}, wall=lambda _: 1.0)
    outputs = {
        0: [{"output_type": "stream", "name": "stdout", "text": "first\n"}],
        1: [{"output_type": "stream", "name": "stdout", "text": "second\n"}],
    }
    broken = {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["E: v"]}

    def run_plan(_plan: Plan, **how: Any) -> Sweep:
        runs = []
        for run_ in whole.runs:
            number = run_.turn.number
            said: Any = [*outputs.get(number, []), *([broken] if number in (2, 3) else [])]
            result = dataclasses.replace(run_.result, outputs=tuple(said))
            record = {**result.record, "exit_code": 1 if number in (2, 3) else 0}
            result = dataclasses.replace(result, record=record)
            read = lambda result=result: result  # noqa: E731
            runs.append(dataclasses.replace(run_, read=read))
            how["on_progress"](progress(dataclasses.replace(whole, runs=tuple(runs))))
        return dataclasses.replace(whole, runs=tuple(runs))

    monkeypatch.setattr(sweeps, "run_plan", run_plan)
    result, out, _, _ = run(shell, "%%container --cpu 20%,50% -q\n1")
    assert result.success
    assert out.splitlines() == ["first", "E: v"]


# --- the progress --------------------------------------------------------------------------------


def test_what_the_progress_says():
    """How far, how long still, what runs; the table has each level so far, with its interval."""
    sweep = made.sweep({"cpu": ("20%", "50%", None), "memory": ("64M",)}, noise=0.01, done=9)
    now = progress(sweep)
    assert sweep_view.told(now) == "9 of 15 runs · 12 s left"
    assert "memory 64 MiB" in sweep_view.doing(now)
    assert sweep_view.doing(progress(sweep, what="waiting for another sweep")).startswith("waiting")
    rows = sweep_view.rows(sweep)
    assert [row.label for row in rows] == [
        "cpu 20 %, memory 64 MiB", "cpu 50 %, memory 64 MiB", "cpu no limit, memory 64 MiB",
    ]  # fmt: skip
    assert [row.n for row in rows] == [3, 3, 3]
    assert rows[0].median.startswith(("4.9", "5"))
    assert " – " in rows[0].interval
    drawn = sweep_view.drawn(now, rows, "wall_s")
    assert "width:60.0%" in drawn
    assert drawn.count("<tr") == 4


def test_it_is_escaped_and_bounded():
    """A level is anyone's text; of a hundred levels a dozen are listed."""
    sweep = made.sweep(
        {"n": ("<b>", *(f"v{i}" for i in range(99)))}, wall=lambda _: 1.0, sample_s=1.0
    )
    drawn = sweep_view.drawn(progress(sweep), sweep_view.rows(sweep), "wall_s")
    assert "<b>" not in drawn
    assert "… and 88 more" in drawn


def test_levels_whose_runs_failed():
    """A figure of a run that failed is none."""
    sweep = made.sweep({"cpu": ("20%",)}, change=lambda _: {"exit_code": 1})
    (row,) = sweep_view.rows(sweep)
    assert (row.n, row.median, row.interval) == (5, "failed", "")


# --- what else there is ------------------------------------------------------------------------


def test_plots_of_a_sweep(shell: InteractiveShell, fake: FakeSweeps, monkeypatch):
    """``%container plot s speed``: its own kinds, and one line for another."""
    drawn: list[Any] = []
    monkeypatch.setattr(Sweep, "plot", lambda _, *args, **more: drawn.append((args, more)))
    run(shell, "%%container --cpu 20%,50% -q -o s\n1")
    for line in ("plot s", "plot s speed", "plot --kind ecdf s --by cpu --metric cpu_s"):
        shell.run_line_magic("container", line)
    assert drawn == [((), {}), (("speed",), {}), (("ecdf",), {"by": "cpu", "metric": "cpu_s"})]
    _, out, _, _ = run(shell, "%container plot s net")
    assert "'net' is no picture of a sweep (one of quota, speed," in out
    assert "one too many beside the sweep" in run(shell, "%container plot s speed ecdf")[1]


def test_defaults_take_no_lists(shell: InteractiveShell, caplog: pytest.LogCaptureFixture):
    """A default is for each cell: a list there would make every one a sweep."""
    _, out, _, _ = run(shell, "%container defaults --cpu 10%,20%")
    assert "--cpu '10%,20%' is a list, and a default is one value" in out
    run(shell, "%config ContainerMagics.memory = '64M,128M'")
    assert "--memory '64M,128M' is a list" in caplog.text
    del shell.config["ContainerMagics"]
    assert run(shell, "%container defaults --cpuset-cpus 0,1")[0].success
    shell.run_line_magic("container", "defaults --reset")


def test_the_history(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch):
    """All of them as a table, one again, and Tab."""
    removed: list[str] = []
    rows = [
        {"id": "3f2a", "status": "complete", "created_unix": 1.75e9, "host": "lab-7", "runs": 3}
        | {"plan": made.plan()}
    ]
    monkeypatch.setattr(Store, "list", lambda _: rows)
    monkeypatch.setattr(Store, "load", lambda _, name: f"the sweep {name}")
    monkeypatch.setattr(Store, "delete", lambda _, name: removed.append(name))
    (row,) = shell.run_line_magic("container", "history").reset_index().to_dict("records")
    assert (row["id"], row["factors"]) == ("3f2a", "cpu 20 %, 50 %, 100 %")
    assert row["what"].startswith("cell: total = 0; for i")
    assert len(shell.run_line_magic("container", "history --what 'TOTAL ='")) == 1
    assert shell.run_line_magic("container", "history --what other").empty
    assert shell.run_line_magic("container", "history --status running").empty
    assert "choose from the list" in run(shell, "%container history 3f2a --status running")[1]
    assert shell.run_line_magic("container", "history 3f2a") == "the sweep 3f2a"
    shell.run_line_magic("container", "history rm 3f2a")
    assert removed == ["3f2a"]
    assert "one argument too many" in run(shell, "%container history a b")[1]
    assert history_command.ids() == ["3f2a"]


def complete(line: str) -> list[str]:
    """Press Tab at the end."""
    context = CompletionContext(
        token=line.rpartition(" ")[2],
        full_text=line,
        cursor_position=len(line),
        cursor_line=0,
        limit=None,
    )
    return [one.text for one in completion.matcher(context)["completions"]]


def test_tab(shell: InteractiveShell, fake: FakeSweeps):
    """The options of a sweep, the names of sweeps, and their pictures."""
    assert complete("%%container --warm") == ["--warmup"]
    run(shell, "%%container --cpu 20%,50% -q -o sweep_one\n1")
    assert complete("%container plot sweep_") == ["sweep_one"]
    assert complete("%container plot sweep_one thr") == ["throttling"]
    assert complete("%container his") == ["history"]
