"""Several containers at one instant and on one clock: real ones, timed by what runs in them."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

import nscontainer
from nscontainer import Together, cell, command, together
from nscontainer.engine import state
from nscontainer.engine.container import Container
from nscontainer.errors import CommandError, NsContainerError, SpecError, TransferError

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("engine")]

BUSY = "import time\nt = time.monotonic()\nwhile time.monotonic() - t < {}: pass\n"
CLOCK = ["python3", "-I", "-S", "-c", "import time; print(time.monotonic_ns())"]


def nothing_is_left(top: Path) -> bool:
    """No container, no name."""
    return not state.ids(str(top)) and not os.listdir(top / "names")


def test_they_begin_at_one_instant_on_one_clock(engine: Path):
    """What runs in them reads the clock after its release, as the result says; all are within 0.1 s."""
    # The host's own time namespace: its clock is the monitors'.
    both = together(
        a=command(CLOCK, share=["time"]), b=command(CLOCK, share=["time"]), c=command(["true"])
    )
    assert list(both) == ["a", "b", "c"]
    assert both.ok
    assert both.spread_s < 1  # some ms even where each has to wait for a CPU
    assert min(both.offsets_s.values()) == 0
    for name in ("a", "b"):
        run = both[name]
        assert run.started_ns is not None
        ran_at = int(run.stdout)
        assert run.started_ns < ran_at < run.started_ns + run.wall_s * 1e9
    assert nothing_is_left(engine)


def test_one_frame_on_the_common_clock():
    """Elapsed times are each one's own, later by its offset; at one instant all are really busy."""
    both = together(a=cell(BUSY.format(0.6), cpu="20%"), b=cell(BUSY.format(0.6), cpu="40%"))
    frame = both.usage
    assert frame.columns[0] == "container"
    assert frame.index.name == "elapsed_s"
    for name, run in both.items():
        own = frame[frame["container"] == name]
        assert own.index[0] == pytest.approx(both.offsets_s[name], abs=1e-9)
        assert own.index[-1] == pytest.approx(both.offsets_s[name] + run.wall_s, abs=1e-9)
        assert (own["cpuacct.usage"].to_numpy() == run.usage["cpuacct.usage"].to_numpy()).all()
    assert frame.index.max() == pytest.approx(both.wall_s)
    shares = {name: float(run.totals["cpu_share"] or 0) for name, run in both.items()}
    assert 0 < shares["a"] < 0.28  # less on a machine that has no more to give
    assert 0 < shares["b"] < 0.52


def test_the_others_are_stopped_when_the_leader_has_ended(engine: Path):
    """A server has no end: it gets its stop signal, and what it did until then is measured."""
    both = together(
        server=command(["sh", "-c", "trap 'echo bye; exit 0' TERM; while :; do sleep 0.05; done"]),
        deaf=command(["sleep", "1000"]),
        client=command(["sleep", "0.5"]),
        until="client",
    )
    assert both.stopped == {"server", "deaf"}
    assert both.ok
    assert both["server"].stdout == "bye\n"
    assert both["deaf"].signal == signal.SIGTERM
    assert 0.5 < both["deaf"].wall_s < 5
    assert "(stopped: no longer needed)" in repr(both)
    assert nothing_is_left(engine)


def test_a_keyword_names_the_container_too():
    """Others can find it by that name; one that has a name keeps it."""
    both = together(first=command(["true"]), other=command(["true"], name="mine"))
    assert both["first"].name == "first"
    assert both["other"].name == "mine"
    assert list(together(command(["true"]), command(["true"], name="x"))) == ["1", "x"]


def test_cells_bring_values_and_have_outputs():
    """As run_cell: also where the cell is longer than a socket holds."""
    long = "text = '" + "x" * 500_000 + "'\nn = len(text) + more\nprint(n)"
    both = together(
        a=cell(long, inputs={"more": 1}, out={"n": "n"}),
        b=cell("import sys; print('b', file=sys.stderr)"),
        c=command(["cat"], input=b"in"),
    )
    assert both["a"].values == {"n": 500_001}
    assert both["a"].stdout == "500001\n"
    assert both["b"].stderr == "b\n"
    assert both["c"].stdout == "in"
    with pytest.raises(TransferError) as caught:
        together(a=cell("o = object()", out={"o": "o"}), b=command(["true"]))
    assert isinstance(caught.value.result, Together)


def test_one_that_cannot_be_made_and_none_runs(engine: Path, tmp_path: Path):
    """The name is taken: the one before it is removed, and its code never ran."""
    mark = tmp_path / "ran"
    taken = nscontainer.run(["sleep", "1000"], name="taken", detach=True)
    try:
        with pytest.raises(NsContainerError, match="taken"):
            together(
                a=command(["touch", str(mark)], volumes=[f"{tmp_path}:{tmp_path}"]),
                taken=command(["true"]),
            )
        assert not mark.exists()
        assert state.ids(str(engine)) == [taken.id]
    finally:
        taken.remove(force=True)
    assert nothing_is_left(engine)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (together, "there is nothing to be run"),
        (
            lambda: together(a=["true"]),  # type: ignore[arg-type]
            "'a' is no container to be run",
        ),
        (lambda: together(a=command(["true"]), until="b"), "until='b' is none of them"),
        (
            lambda: together(command(["true"], name="a"), a=command(["true"])),
            "two of the containers have the name 'a'",
        ),
        (
            lambda: together(a=command(["true"], name="x"), b=command(["true"], name="x")),
            "two of the containers have the name 'x'",
        ),
        (lambda: command(["true"], cpu="fast"), "'fast' is not an amount of CPU"),
        (lambda: cell("1", memory="lots"), "'lots' is not a size"),
        (lambda: command(["true"], name="a/b"), "a/b"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made(engine: Path, make, said: str):
    """One line, with a hint."""
    with pytest.raises(SpecError, match=said.replace("(", r"\(")) as caught:
        make()
    assert caught.value.hint
    assert nothing_is_left(engine)


def test_check_raises_what_failed():
    """With the name; the result has all of them."""
    with pytest.raises(CommandError, match="b: exit code 3") as caught:
        together(a=command(["true"]), b=command(["sh", "-c", "exit 3"]), check=True)
    both = caught.value.result  # type: ignore[attr-defined]
    assert both["a"].ok
    assert not both.ok


def test_an_interrupt_ends_all(engine: Path):
    """SIGINT to this process reaches each container; what was measured until then is there."""
    before = time.monotonic()

    def interrupt() -> None:
        deadline = time.monotonic() + 60
        while [one.status for one in Container.list()].count("running") < 2:
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        time.sleep(0.8)  # the cell's interpreter begins, too
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt) as caught:
        together(a=cell("import time\ntime.sleep(1000)"), b=command(["sleep", "1000"]))
    assert time.monotonic() - before < 90
    both = caught.value.result  # type: ignore[attr-defined]
    assert {run.interrupted for run in both.values()} == {1}
    assert "KeyboardInterrupt" in str(both["a"].outputs)
    assert 0.3 < both["b"].wall_s < 30
    assert nothing_is_left(engine)


def test_separate_runs_are_put_on_one_clock(tmp_path: Path):
    """One after the other, saved and loaded: the second begins where it did by the clock."""
    a = nscontainer.run(["sleep", "0.2"])
    b = nscontainer.run(["true"])
    a.save(tmp_path / "a.nsr")
    both = Together(a=nscontainer.load(tmp_path / "a.nsr"), b=b)
    assert both.offsets_s["a"] == 0
    assert both.offsets_s["b"] >= a.wall_s
    assert a.started is not None
    assert b.started is not None
    apart = (b.started - a.started).total_seconds()
    assert both.offsets_s["b"] == pytest.approx(apart, abs=0.05)
    assert list(Together(a, b)) == [a.name, b.name]


def test_a_cell_of_a_session_is_on_the_clock():
    """Its zero is where the cell began, not the session."""
    with nscontainer.session() as lab:
        one = lab.run_cell("1")
        time.sleep(0.3)
        two = lab.run_cell("2")
    both = Together(one=one, two=two)
    assert 0.3 <= both.offsets_s["two"] < 5
