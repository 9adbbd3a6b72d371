"""The runner in a session: cell after cell for one owner after another, through the monitor's door."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.unit import runner_harness as harness


@pytest.fixture(params=harness.MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """How the runner was started."""
    return str(request.param)


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """End what a failed test left."""
    yield
    harness.end_all()


@dataclass
class Live:
    """A session: the runner's process, whose socket is the door."""

    door: harness.Cell

    def attach(self) -> harness.Cell:
        """Come in, as the monitor lets an owner in."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self.door.sock, [b"A"], [theirs.fileno()])
        owner = harness.Cell(self.door.process, ours, self.door.pid)
        harness._started.append(owner)
        return owner

    def idle(self, timeout_s: float = 10) -> bytes:
        """Wait for what the runner tells the monitor."""
        self.door.sock.settimeout(timeout_s)
        return self.door.sock.recv(100)

    def printed(self, timeout_s: float = 10) -> bytes:
        """Read what has come to descriptors 1 and 2."""
        pipe = self.door.process.stdout
        assert pipe is not None
        assert select.select([pipe], [], [], timeout_s)[0]
        return os.read(pipe.fileno(), 65536)


def run(owner: harness.Cell, code: str, **request: object) -> harness.Cell:
    """Run one cell of an owner's to its reply."""
    owner.messages.clear()
    owner.execute(code, **request)
    assert owner.read("execute_reply") is not None
    return owner


def test_variables_and_counts_last(mode: str):
    """What a cell makes is there in the next one, under numbers that go on."""
    owner = Live(harness.launch(mode)).attach()
    assert run(owner, "x = 41\nprint('one')", filename="Cell In[3]").text() == "one\n"
    run(owner, "x + 1", filename="Cell In[7]")
    (result,) = owner.of("execute_result")
    assert result["data"]["text/plain"] == "42"
    assert result["execution_count"] == 7
    assert owner.reply == {"status": "ok", "exit_code": 0}


def test_history_is_ipythons(mode: str):
    """In, Out and _ are those of the session, whatever numbers a restarted notebook begins with."""
    owner = Live(harness.launch(mode)).attach()
    if mode == "plain":  # and plain Python has none
        run(owner, "print([name for name in ('In', 'Out') if name in globals()])")
        assert owner.text() == "[]\n"
        return
    run(owner, "6 * 7", filename="Cell In[5]")
    run(owner, "print(_, Out[5], In[5])", filename="Cell In[2]")
    assert owner.text() == "42 42 6 * 7\n"


def test_a_function_of_an_earlier_cell_is_traced_to_it(mode: str):
    """A traceback shows the lines of the cell that the function came from."""
    owner = Live(harness.launch(mode)).attach()
    run(owner, "def f():\n    return 1 / 0", filename="Cell In[1]", line_offset=1)
    run(owner, "f()", filename="Cell In[2]", line_offset=1)
    assert "return 1 / 0" in owner.traceback
    assert "In[1]" in owner.traceback
    assert "In[2]" in owner.traceback


def test_an_error_keeps_the_session(mode: str):
    """An exception ends its cell only."""
    owner = Live(harness.launch(mode)).attach()
    run(owner, "x = 1\n1 / 0")
    assert owner.reply["exit_code"] == 1
    assert run(owner, "print(x)").text() == "1\n"


def test_an_interrupt_is_a_cells_and_between_cells_nobodys(mode: str):
    """SIGINT raises KeyboardInterrupt where a cell runs, and does nothing between."""
    owner = Live(harness.launch(mode)).attach()
    run(owner, "x = 1")
    owner.signal()
    time.sleep(0.1)
    assert run(owner, "print(x)").text() == "1\n"
    owner.execute("print('go')\nimport time\ntime.sleep(60)")
    owner.read("go")
    owner.fall_asleep()
    owner.signal()
    owner.read("execute_reply")
    assert owner.reply["exit_code"] == 130
    assert run(owner, "print(x)").text() == "1\n"


def test_what_is_printed_between_cells_goes_to_the_descriptors(mode: str):
    """A thread that prints after its cell has ended is in no other cell's output."""
    live = Live(harness.launch(mode))
    owner = live.attach()
    code = "import threading\nthreading.Timer(0.3, print, ['later']).start()\nprint('now')"
    assert run(owner, code).text() == "now\n"
    assert live.printed() == b"later\n"
    assert run(owner, "print('next')").text() == "next\n"


def test_an_owner_that_vanishes_in_a_cell(mode: str):
    """The cell goes on, what it says goes to the descriptors; the next owner finds all as it is."""
    live = Live(harness.launch(mode))
    first = live.attach()
    first.execute("print('began')\nimport time\ntime.sleep(0.5)\nprint('through')\nx = 5")
    first.read("began")
    first.sock.close()
    second = live.attach()
    assert live.printed() == b"through\n"
    assert live.idle()[:1] == b"."
    assert run(second, "print(x)").text() == "5\n"


def test_half_a_message_of_an_owner_that_vanished_is_nobodys(mode: str):
    """What an owner was told or had sent in part does not reach the next one."""
    live = Live(harness.launch(mode))
    first = live.attach()
    first.sock.sendall(b"\0\0\1\0{")
    first.sock.close()
    assert run(live.attach(), "print(1)").text() == "1\n"


def test_each_cell_is_told_of_at_the_door(mode: str):
    """A byte a cell, whoever runs it; and one for an owner that went without a cell."""
    live = Live(harness.launch(mode))
    owner = live.attach()
    run(owner, "1")
    assert live.idle() == b"."
    run(owner, "1 / 0")
    assert live.idle() == b"."
    owner.sock.close()
    assert live.idle() == b"."


def test_exit_ends_it(mode: str):
    """exit() is the interpreter's end, after what atexit has; its code is the process's."""
    live = Live(harness.launch(mode))
    owner = live.attach()
    run(owner, "import atexit\natexit.register(print, 'bye')")
    run(owner, "print('one')\nraise SystemExit(3)")
    assert owner.text() == "one\nbye\n"
    assert owner.reply["exit_code"] == 3
    assert owner.reply["ended"] is True
    assert live.door.finish().exit_code == 3


def test_it_ends_when_its_door_closes(mode: str):
    """Without a monitor nobody can come any more."""
    live = Live(harness.launch(mode))
    owner = live.attach()
    run(owner, "1")
    live.door.sock.shutdown(socket.SHUT_WR)
    owner.sock.close()
    assert live.door.finish().exit_code == 0


def test_a_forked_child_that_returns_ends(mode: str):
    """os.fork() in a cell leaves one session, and the child's output comes by the descriptors."""
    live = Live(harness.launch(mode))
    owner = live.attach()
    run(
        owner,
        "import os\nx = 1\npid = os.fork()\nif pid:\n    os.waitpid(pid, 0)\nelse:\n    print('c')",
    )
    assert owner.text() == ""
    assert b"c\n" in live.printed()
    assert run(owner, "print(x)").text() == "1\n"
