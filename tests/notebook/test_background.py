"""``--bg``: runs in the background, and their dashboard as a browser sees and moves it."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from nscontainer import Container
from tests.integration.inside import eventually
from tests.notebook.kernel import Cell, Kernel, run

pytestmark = [pytest.mark.notebook, pytest.mark.root]

SPIN = "while True:\n    pass\n"


def widget(cell: Cell, model: str, **has: Any) -> str:
    """Find a widget's id by its model's name and some of its state."""
    for opened in cell.of("comm_open"):
        state = opened["data"]["state"]
        if state["_model_name"] == model and has.items() <= state.items():
            return str(opened["comm_id"])
    raise AssertionError((model, has))


def changes(kernel: Kernel, comm_id: str, name: str) -> list[Any]:
    """Give the values that a widget's trait was given."""
    told = [content["data"] for content in kernel.told if content["comm_id"] == comm_id]
    return [data["state"][name] for data in told if name in data.get("state", {})]


def end(kernel: Kernel, name: str = "r") -> None:
    """Kill it, and wait."""
    run(kernel, f"{name}.done or {name}.kill()\n{name}.wait(20);")


def test_the_notebook_goes_on(kernel: Kernel):
    """It returns at once; what is said comes below its own cell; then ``r`` is its result."""
    cell = kernel.run(
        "%%container --cpu 50% --bg -o r\nimport time\nprint('one', flush=True)\n"
        "time.sleep(3)\nprint('two')"
    )
    assert cell.ok
    assert "running" in run(kernel, "print(r.status, r.done)")
    line = kernel.run("r.usage").errors()[0]
    assert "StillRunning" in line
    assert "wait() waits until it is over" in line or "no 'usage' yet" in line
    kernel.listen(lambda: any("asked CPU 50 %" in str(s) for s in cell.shown()))
    assert cell.text() == "one\ntwo\n"
    assert run(kernel, "print(r.done, r.ok, r.stdout.split(), len(r.usage) > 100)") == (
        "True True ['one', 'two'] True\n"
    )
    assert run(kernel, "print(r.wait() is r.wait(), r.limits.asked.cpus)") == "True 0.5\n"
    # Its plot was a display of its own, and is a picture now.
    assert "<svg" in kernel.updates[0]["text/html"]
    assert "image/png" in kernel.updates[-1]
    assert len([c for c in cell.of("display_data") if c["transient"]]) == 1


def test_the_slider_changes_the_limit_while_it_runs(kernel: Kernel):
    """Moved in the browser, read back from the cgroup; changed elsewhere, it follows."""
    cell = kernel.run("%%container --cpu 20% --bg -o r\n" + SPIN)
    slider = widget(cell, "IntSliderModel", value=20, min=1, max=100 * (os.cpu_count() or 1))
    (container,) = Container.list()
    kernel.tell(slider, {"value": 70})
    assert eventually(lambda: container.stats()["cpu.quota"] == 700_000, 10)
    assert "update was given no limit to change" in kernel.run("r.update()").errors()[0]
    run(kernel, "r.update(cpu='40%')")
    kernel.listen(lambda: 40 in changes(kernel, slider, "value"))
    assert container.stats()["cpu.quota"] == 400_000
    end(kernel)
    assert run(kernel, "print([c.text for c in r.limits.changes])") == "['CPU 70 %', 'CPU 40 %']\n"
    kernel.listen(lambda: changes(kernel, slider, "disabled") == [True])


def test_the_buttons(kernel: Kernel):
    """Pause freezes it and Resume lets it go on; Stop interrupts it, and Kill kills what doesn't care."""
    stubborn = (
        "import time\nwhile True:\n    try:\n        print('zzz', flush=True)\n"
        "        time.sleep(9)\n    except KeyboardInterrupt:\n"
        "        print('no', flush=True)"
    )
    cell = kernel.run("%%container --bg -o r\n" + stubborn)
    stop = widget(cell, "ButtonModel", description="Stop")
    pause = widget(cell, "ButtonModel", description="Pause")
    (container,) = Container.list()
    kernel.listen(lambda: cell.text() == "zzz\n")
    kernel.press(pause)
    kernel.listen(lambda: "Resume" in changes(kernel, pause, "description"))
    assert container.status == "paused"
    kernel.press(pause)
    kernel.listen(lambda: changes(kernel, pause, "description")[-1] == "Pause")
    assert container.status == "running"
    kernel.press(stop)
    kernel.listen(lambda: "Kill" in changes(kernel, stop, "description"))
    kernel.listen(lambda: cell.text().startswith("zzz\nno\n"))
    kernel.press(stop)
    assert "killed" in run(kernel, "print(r.wait(20).describe_exit())")


def test_it_fails_no_cell_but_says_so(kernel: Kernel):
    """The traceback and the one line are shown below the cell that began it."""
    cell = kernel.run("%%container --bg -o r\nimport time\ntime.sleep(0.5)\n1 / 0")
    assert cell.ok
    kernel.listen(lambda: "ContainerFailed" in cell.text("stderr"))
    assert [e.splitlines()[-1] for e in cell.errors()] == ["ZeroDivisionError: division by zero"]
    assert run(kernel, "print(r.exit_code)") == "1\n"


def test_several_and_one_in_front(kernel: Kernel):
    """Two in the background and a cell in front: each has its own output and its own limit."""
    code = "%%container --cpu {}% --bg -o r{}\nimport time\ntime.sleep(2)\nprint('I am', {})"
    cells = [kernel.run(code.format(10 * i, i, i)) for i in (1, 2)]
    assert run(kernel, "%%container -q\nprint('front')") == "front\n"
    assert run(kernel, "print([r.wait(20).stdout for r in (r1, r2)])") == (
        "['I am 1\\n', 'I am 2\\n']\n"
    )
    assert run(kernel, "print(r1.limits.asked.cpus, r2.limits.asked.cpus)") == "0.1 0.2\n"
    del cells


def test_values_and_questions(kernel: Kernel):
    """``--out`` sets its variable at the end; nobody can be asked."""
    run(
        kernel,
        "x = 20\n",
    )
    run(
        kernel,
        "%%container --bg -q -o r -i x --out y=x+1\n"
        "try:\n    input('?')\nexcept EOFError as error:\n    print(error)",
    )
    run(kernel, "x = None\nr.wait(20);")
    assert eventually(lambda: run(kernel, "print(globals().get('y'))") == "21\n", 10)
    assert run(kernel, "print(r.stdout)") == "nobody can be asked in the background\n\n"


def test_who_waited_has_the_values(kernel: Kernel):
    """They are there when wait() comes back, however the threads take turns."""
    run(kernel, "import sys\nsys.setswitchinterval(1e-6)")
    code = "%%container --bg -q -o r --out y={0}\n1"
    for turn in range(20):
        run(kernel, code.format(turn))
        assert run(kernel, "r.wait()\nprint(y)") == f"{turn}\n"
    run(kernel, "sys.setswitchinterval(0.005)")


def test_another_cell_that_is_captured(kernel: Kernel):
    """What a run in the background says is its own cell's, also while another's output is captured."""
    cell = kernel.run(
        "%%container --bg -o r\nimport time\nfrom IPython.display import HTML\n"
        "time.sleep(1)\ndisplay(HTML('<b>mine</b>'))\nprint('mine')\n1 / 0"
    )
    run(
        kernel,
        "%%capture other\nr.wait()\nfor _ in iter(lambda: r._thread.is_alive(), False): pass",
    )
    assert run(kernel, "print([other.stdout, other.stderr, other.outputs])") == "['', '', []]\n"
    kernel.listen(lambda: "ContainerFailed: exit code 1" in cell.text("stderr"))
    assert cell.text() == "mine\n"
    assert "<b>mine</b>" in cell.shown("text/html")
    assert "exit code 1" in cell.shown()[-1]


def test_captured_itself(kernel: Kernel):
    """A %%capture above has what it says, and no picture after picture of it."""
    run(
        kernel,
        "%%capture mine\n%%container --bg -o r\nimport time\n"
        "for i in range(3):\n    print(i, flush=True)\n    time.sleep(0.5)",
    )
    run(kernel, "r.wait()\nr._thread.join()")
    said = run(kernel, "print(mine.stdout, len(mine.outputs))")
    assert said.endswith("runs in the background\n0\n1\n2\n 1\n"), said  # its card


def test_nothing_of_a_run_is_kept_that_nobody_has(kernel: Kernel):
    """What was taken along goes at its end, its result with the last variable that has it."""
    run(
        kernel,
        "import gc, weakref, numpy\nx = numpy.ones(1000)\ntaken = weakref.ref(x)\n"
        "def lives():\n    gc.collect()\n    return [one() is not None for one in (taken, had)]",
    )
    run(kernel, "%%container --bg -o r -i x\nimport time; time.sleep(0.5)")
    run(kernel, "r.wait()\nr._thread.join()\nhad = weakref.ref(r)\ndel x")
    assert run(kernel, "print(lives())") == "[False, True]\n"
    run(kernel, "del r")
    assert run(kernel, "print(lives())") == "[False, False]\n"


def test_it_looks_like_its_result(kernel: Kernel):
    """Tab finds what the result has, and copies and pickles are of the result; not while it runs."""
    run(kernel, "import copy, pickle")
    run(kernel, "%%container --bg -o r\n" + SPIN)
    assert kernel.complete("r.usa") == []
    for code in ("copy.copy(r)", "copy.deepcopy(r)", "pickle.dumps(r)"):
        assert "wait() gives its result" in kernel.run(code).errors()[0]
    (told,) = kernel.run("%%container -i r\nr").errors()
    assert "is running" in told
    end(kernel)
    assert kernel.complete("r.usa") == ["usage"]
    said = run(
        kernel, "print(copy.deepcopy(r) == r.result, pickle.loads(pickle.dumps(r)).exit_code)"
    )
    assert said == "True 137\n"


def test_bad_input_is_told_at_once(kernel: Kernel):
    """One line, in the cell; nothing runs."""
    for line, told in (
        ("--bg --cpu fast", "SpecError: 'fast' is not an amount of CPU"),
        ("--bg -v /nowhere:/x", "SpecError"),
        ("nosuch --bg", "NotFoundError: no session 'nosuch'"),
    ):
        cell = kernel.run(f"%%container {line}\n1")
        assert not cell.ok
        assert cell.errors()[-1].startswith(told), cell.errors()
    assert not Container.list()


def test_in_a_session(kernel: Kernel):
    """A session's cell as well; Stop interrupts the cell, and the session goes on."""
    run(kernel, "%container create lab --cpu 50%")
    run(kernel, "%%container lab --bg -o r\nx = 3\n" + SPIN)
    assert "runs another cell" in kernel.run("%%container lab\n1").errors()[-1]
    assert "True interrupted" in run(
        kernel, "r.stop()\ns = r.wait(20)\nprint(bool(s.interrupted), s.describe_exit())"
    )
    assert run(kernel, "%%container lab -q\nprint(x)") == "3\n"
    run(kernel, "%container rm -f lab")


def test_a_kernel_that_dies_takes_it_along(kernel: Kernel):
    """It is the notebook's: with its process it ends."""
    run(kernel, "%%container --bg\n" + SPIN)
    assert len(Container.list()) == 1
    os.kill(kernel.pid, signal.SIGKILL)
    assert eventually(lambda: not Container.list(all=True), 10)
    kernel.restart()
