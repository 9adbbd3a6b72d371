"""Interrupting a cell, and what a process forked from a shared one must renew."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.unit import runner_harness as harness

MODES = ("zygote", "plain")


@pytest.fixture(autouse=True)
def _ends() -> Iterator[None]:
    """Whatever happens, no cell is left running."""
    yield
    harness.end_all()


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """With IPython and without."""
    return str(request.param)


@pytest.mark.parametrize(
    "busy",
    [
        "while True: pass",
        "time.sleep(60)",
        "threading.Event().wait()",
        "asyncio.run(asyncio.sleep(9))",
    ],
)
def test_interrupt(mode: str, busy: str):
    """SIGINT is a KeyboardInterrupt at the line where the cell was; the exit code is 130."""
    code = f"import asyncio, threading, time\nprint('go')\n{busy}\nprint('no')"
    cell = harness.start(code, mode, line_offset=1)
    cell.read("go")
    if busy.startswith("while"):
        time.sleep(0.1)
    else:
        cell.fall_asleep()
    cell.signal()
    begin = time.monotonic()
    cell.finish()
    assert time.monotonic() - begin < 2
    assert "KeyboardInterrupt" in cell.traceback
    assert "line 4" in cell.traceback
    assert "nscontainer" not in cell.traceback
    assert cell.exit_code == cell.reply["exit_code"] == 130
    assert cell.reply["ename"] == "KeyboardInterrupt"
    assert cell.text() == "go\n"


def test_interrupt_of_top_level_await(mode: str):
    """An await is interrupted as well."""
    cell = harness.start("import asyncio\nprint('go')\nawait asyncio.sleep(60)", mode)
    cell.read("go")
    cell.fall_asleep()
    cell.signal()
    assert "KeyboardInterrupt" in cell.finish().traceback
    assert "Cancelled" not in cell.traceback
    assert "line 3" in cell.traceback
    assert cell.exit_code == 130


def test_interrupt_of_a_busy_coroutine(mode: str):
    """One interrupt is enough where a coroutine doesn't await."""
    code = "async def busy():\n    while True: pass\nprint('go')\nawait busy()"
    cell = harness.start(code, mode)
    cell.read("go")
    time.sleep(0.1)
    cell.signal()
    assert "line 2" in cell.finish().traceback
    assert cell.exit_code == 130


def test_a_cell_may_catch_it(mode: str):
    """A cell that handles KeyboardInterrupt goes on."""
    code = "import time\ntry:\n    print('go')\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('caught')"
    cell = harness.start(code, mode)
    cell.read("go")
    cell.fall_asleep()
    cell.signal()
    assert cell.finish().text() == "go\ncaught\n"
    assert cell.exit_code == 0


def test_interrupt_while_asking(mode: str):
    """An interrupt ends input(), and the next question is asked and answered as ever."""
    code = "try:\n    input('1')\nexcept KeyboardInterrupt:\n    print('interrupted')\nprint(input('2'))"
    cell = harness.start(code, mode)
    cell.read("input_request")
    cell.fall_asleep()
    cell.signal()
    cell.read("interrupted")
    cell.read("input_request")
    cell.send("input_reply", value="right")
    assert cell.finish().text() == "interrupted\nright\n"
    assert cell.exit_code == 0


def test_interrupts_in_a_flood_break_no_frame(mode: str):
    """A hundred interrupts in the middle of prints: every frame stays whole, none is lost."""
    code = """
n = 0
caught = 0
while n < 200_000:
    try:
        while n < 200_000:
            n += 1
            print('x' * 40)
    except KeyboardInterrupt:
        caught += 1
print('caught', caught)
"""
    cell = harness.start(code, mode)
    for _ in range(100):
        if cell._next(time.monotonic() + 5) is None:
            break
        with contextlib.suppress(ProcessLookupError):  # on a busy machine it may be through by then
            cell.signal()
        time.sleep(0.002)
    cell.finish()
    assert cell.exit_code in (0, 130)  # the last may hit outside the try
    assert int(cell.text().split()[-1]) > 10 if cell.exit_code == 0 else True


def test_interrupt_while_it_waits_for_threads(mode: str):
    """A cell that only waits for its threads can be interrupted, too."""
    code = "import threading, time\nthreading.Thread(target=time.sleep, args=(3,)).start()\nprint('go')"
    cell = harness.start(code, mode)
    cell.read("go")
    time.sleep(0.2)
    cell.signal()
    cell.finish()
    assert cell.exit_code == 130
    assert "KeyboardInterrupt" in cell.traceback


def test_interrupt_of_a_shell_command():
    """! is ended by an interrupt, and so is the cell."""
    cell = harness.start("print('go')\n!exec sleep 60\nprint('no')", "zygote")
    cell.read("go")
    time.sleep(0.3)
    cell.signal()
    cell.finish()
    assert (cell.exit_code, cell.text()) == (130, "go\n")


_SPAWN = """
import subprocess
print(subprocess.run(['false']).returncode)
print('go')
while True: pass
"""


def test_sigint_that_was_ignored_at_the_start():
    """A runner whose parent ignored or blocked SIGINT can be interrupted, and waits for children."""
    code = f"""
import signal, socket, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
sys.path.insert(0, {str(harness.REPO)!r})
from nscontainer import runner
sys.exit(runner.main(socket.socket(fileno=int(sys.argv[1]))))
"""
    ours, theirs = socket.socketpair()
    fd = theirs.fileno()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(fd)], pass_fds=[fd], stdout=subprocess.PIPE
    )
    theirs.close()
    cell = harness.Cell(process, ours, process.pid)
    harness._started.append(cell)
    cell.send("execute_request", code=_SPAWN)
    cell.read("go")
    time.sleep(0.1)
    cell.signal()
    assert cell.finish().exit_code == 130
    assert cell.text() == "1\ngo\n", cell.messages


@pytest.mark.root
def test_as_pid_1(mode: str):
    """As pid 1 of a PID namespace it is interrupted as ever, and its children die of SIGTERM."""
    cell = harness.start("print('go')\nwhile True: pass", mode, unshare=True)
    cell.read("go")
    time.sleep(0.1)
    cell.signal()
    assert cell.finish().exit_code == 130
    code = "import os, signal, time\npid = os.fork()\nif pid == 0: time.sleep(60)\n"
    code += "os.kill(pid, 15)\nprint(os.getpid(), os.waitpid(pid, 0)[1])"
    assert harness.start(code, mode, unshare=True).finish().text() == "1 15\n"


_DRAWS = """
import random, tempfile, uuid
print(random.random(), next(tempfile._get_candidate_names()), uuid.uuid4())
try:
    import numpy
    print(numpy.random.random())
except ImportError:
    pass
"""


def test_forks_of_one_process_draw_different_numbers():
    """Two cells from one zygote don't share random states."""
    code = f"""
import os, socket, sys
sys.path.insert(0, {str(harness.REPO)!r})
import random, numpy.random, tempfile, uuid, multiprocessing
random.random(); next(tempfile._get_candidate_names())
from nscontainer import runner
assert runner.preload()
for fd in map(int, sys.argv[1:]):
    pid = os.fork()
    if pid == 0:
        os._exit(runner.main(socket.socket(fileno=fd)))
    os.waitpid(pid, 0)
"""
    pairs = [socket.socketpair() for _ in range(2)]
    fds = [theirs.fileno() for _, theirs in pairs]
    request = {"msg_type": "execute_request", "content": {"code": _DRAWS}}
    from nscontainer.runner import wire

    for ours, _ in pairs:
        ours.sendall(wire.frame(request))
    subprocess.run([sys.executable, "-c", code, *map(str, fds)], pass_fds=fds, check=True)
    texts = []
    for ours, theirs in pairs:
        theirs.close()
        inbox, text = wire.Inbox(ours), ""
        while (message := inbox.get()) is not None:
            text += message["content"].get("text", "")
        texts.append(text.split())
        ours.close()
    assert len(texts[0]) == len(texts[1]) == 4, texts
    assert not set(texts[0]) & set(texts[1])


def test_preload_leaves_no_thread_and_no_file():
    """A preloaded process is as fit to be forked as before: one thread, the same descriptors."""
    code = f"""
import os, sys
sys.path.insert(0, {str(harness.REPO)!r})
from nscontainer import runner
before = sorted(os.listdir('/proc/self/fd'))
assert runner.preload()
assert sorted(os.listdir('/proc/self/fd')) == before
assert len(os.listdir('/proc/self/task')) == 1
import asyncio.events
from IPython import get_ipython
shell = get_ipython()
assert shell.execution_count == 1 and not shell.user_ns['Out'] and shell.user_ns['In'] == ['']
assert 'x' not in shell.user_ns and 'f' not in shell.user_ns and '_1' not in shell.user_ns
assert not hasattr(sys, 'last_traceback')
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "HOME": "/nowhere"})


def test_without_ipython_preload_says_so():
    """preload() is False where there is no IPython, and main() then runs plain Python."""
    code = f"""
import sys
sys.modules['IPython'] = None
sys.path.insert(0, {str(harness.REPO)!r})
from nscontainer import runner
assert runner.preload() is False
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_standard_library_only():
    """Importing the runner brings in nothing of nscontainer and nothing that isn't Python's own."""
    code = f"""
import sys
sys.path.insert(0, {str(harness.RUNNER.parent)!r})
import runner
ours = [n for n in sys.modules if n.split('.')[0] not in sys.stdlib_module_names | {{'runner', '__main__'}}]
assert not [n for n in ours if 'site' not in n and 'distutils' not in n], ours
"""
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
