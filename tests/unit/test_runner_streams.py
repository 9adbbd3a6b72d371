"""The cell runner's streams: at once, in order, in small messages, and never in the way."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from nscontainer.runner import streams, wire
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


def test_lines_come_as_they_are_printed(mode: str):
    """Each line is there long before the cell ends."""
    code = "import time\nfor i in range(3):\n    print(i)\n    time.sleep(0.3)"
    cell = harness.start(code, mode).finish()
    assert [c["text"] for c in cell.of("stream")] == ["0\n", "1\n", "2\n"]
    gaps = [b - a for a, b in zip(cell.times[:2], cell.times[1:3], strict=True)]
    assert all(0.2 < gap < 0.6 for gap in gaps)


def test_a_partial_line_comes_soon(mode: str):
    """A prompt or a progress bar without a newline needs no flush."""
    cell = harness.start("import time\nprint('part', end='')\ntime.sleep(1)", mode).finish()
    assert cell.text() == "part"
    assert cell.times[-1] - cell.times[0] > 0.9


def test_order_over_all_kinds_of_output(mode: str):
    """Both streams, displays and partial lines keep the order in which they were written."""
    code = """
import sys
for i in range(30):
    sys.stdout.write(f'o{i} ')
    sys.stderr.write(f'e{i} ')
    display(i)
"""
    cell = harness.run(code, mode)
    got = "".join(
        m["content"].get("text") or f"d{m['content']['data']['text/plain']} "
        for m in cell.messages[:-1]
    )
    assert got == "".join(f"o{i} e{i} d{i} " for i in range(30))


def test_a_flood_shares_messages(mode: str):
    """A hundred thousand lines are far fewer messages, all of them there."""
    cell = harness.run("for i in range(100_000):\n    print(i)", mode)
    assert cell.text() == "".join(f"{i}\n" for i in range(100_000))
    took_s = cell.times[-1] - cell.times[0]
    assert len(cell.messages) < 200 + 2_100 * took_s


@pytest.mark.parametrize("char", ["x", "é", "😀"])
def test_chunks(mode: str, char: str):
    """A large write comes in messages of at most 64 KiB, cut between characters."""
    cell = harness.run(f"print({char!r} * 300_000, end='')", mode)
    assert cell.text() == char * 300_000
    assert max(len(c["text"].encode()) for c in cell.of("stream")) <= wire.CHUNK


def test_a_hundred_megabytes_in_little_memory(mode: str):
    """A write of 100 MB waits for a slow reader and costs the cell no copy."""
    code = """
import resource
text = 'x' * 99 + '\\n'
text *= 1_000_000
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(text, end='')
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
grown
"""
    cell = harness.start(code, mode)
    time.sleep(0.3)
    size = 0
    while (message := cell._next(time.monotonic() + 60)) is not None:
        if message["msg_type"] == "stream":
            size += len(message["content"]["text"])
        else:
            cell.messages.append(message)
    assert size == 100_000_000
    assert int(cell.of("execute_result")[0]["data"]["text/plain"]) < 4_000  # KiB
    cell.finish()


def test_what_a_stream_is(mode: str):
    """The streams look like any text stream: encoding, no terminal, descriptors, a buffer."""
    code = """
import sys, subprocess
print(sys.stdout.isatty(), sys.stdout.encoding, sys.stdout.fileno(), sys.stderr.fileno())
print(sys.stdout.writable(), sys.stdout.readable(), sys.stdout.name, sys.stdout.closed)
sys.stdout.buffer.write(b'\\xc3')
sys.stdout.buffer.write(b'\\xa9\\xff\\n')
print('sur\\udc80rogate')
subprocess.run(['echo', 'child'], stdout=sys.stdout, check=True)
subprocess.run('echo err >&2', shell=True)
sys.stdout.reconfigure(line_buffering=True)
try:
    sys.stdout.write(b'bytes')
except TypeError as e:
    print(e)
sys.stdout.writelines(['a', 'b\\n'])
"""
    cell = harness.run(code, mode)
    assert cell.text() == (
        "False utf-8 1 2\nTrue False <stdout> False\né�\nsur\\udc80rogate\n"
        "write() argument must be str, not bytes\nab\n"
    )
    assert cell.raw == b"child\nerr\n"


def test_printing_from_threads_signal_handlers_and_finalizers(mode: str):
    """Prints from everywhere at once break no frame and get stuck nowhere."""
    code = """
import gc, signal, threading, time, sys
gone = []
def handler(*_):
    print('signal', flush=True)
    sys.stderr.write('part')
    if len(gone) < 11_000:  # armed anew each time: on a busy machine it would interrupt itself for ever
        signal.setitimer(signal.ITIMER_REAL, 0.001)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001)
class Loud:
    def __del__(self):
        print('del')
        gone.append(1)
def work(n):
    for i in range(3000):
        print(n, i, 'x' * 50, flush=i % 7 == 0)
        x = Loud(); x.me = x; del x
threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
for t in threads: t.start()
work(3)
for t in threads: t.join()
signal.setitimer(signal.ITIMER_REAL, 0)
while len(gone) < 12_000:  # collect() does nothing while the runner's own thread is collecting
    gc.collect()
    time.sleep(0.01)
"""
    cell = harness.run(code, mode)
    assert cell.exit_code == 0, cell.messages[-2:]
    assert cell.text().count("x" * 50) == 12_000
    assert cell.text().count("del") == 12_000
    assert cell.text().count("signal") > 10


def test_no_thread_of_the_runner_shows(mode: str):
    """threading knows of no thread but the cell's, and none is there before the first output."""
    code = "import os, threading\nn = len(os.listdir('/proc/self/task'))\n"
    code += "print(threading.active_count(), n)"
    assert harness.run(code, mode).text() == "1 1\n"


def test_forking_while_printing(mode: str):
    """A fork in the middle of a flood leaves the parent's frames whole and the child's text raw."""
    code = """
import os, threading
def flood():
    for i in range(20_000): print('parent', i)
t = threading.Thread(target=flood); t.start()
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        print('child'); os._exit(0)
    os.waitpid(pid, 0)
t.join()
"""
    cell = harness.run(code, mode)
    assert cell.text() == "".join(f"parent {i}\n" for i in range(20_000))
    assert cell.raw == b"child\n" * 20


def test_daemon_threads_that_print_hinder_no_end(mode: str):
    """The cell ends though daemon threads go on printing; the reply is the last message."""
    code = """
import threading
def flood():
    while True: print('x' * 1000)
for _ in range(3): threading.Thread(target=flood, daemon=True).start()
"""
    cell = harness.run(code, mode)
    assert cell.exit_code == 0
    assert cell.reply["status"] == "ok"


def test_messages_wait_for_raw_output(mode: str):
    """What a subprocess printed is read before a later message comes; a flood of it stops nothing."""
    code = "import os\nos.system('echo raw')\nprint('later')"
    cell = harness.start(code, mode)
    assert cell.process.stdout is not None
    assert cell.process.stdout.readline() == b"raw\n"
    assert cell.finish().text() == "later\n"
    code = "import os, time\nos.system('while :; do echo raw; done & sleep 0.1; kill $!')\n"
    code += "begin = time.monotonic()\nfor i in range(100): print(i, flush=True)\n"
    code += "time.monotonic() - begin < 1"
    cell = harness.run(code, mode)  # nobody reads the pipe until the cell has ended
    assert cell.of("execute_result")[0]["data"]["text/plain"] == "True"


# --- the queue itself -------------------------------------------------------------------------


def _pair() -> tuple[wire.Outbox, wire.Inbox, socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    return wire.Outbox(ours), wire.Inbox(theirs), ours, theirs


def test_frames():
    """A frame is a length and JSON; what isn't Unicode text arrives as the lone surrogate."""
    data = wire.frame({"msg_type": "stream", "content": {"text": "é\udc80"}})
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    assert json.loads(data[4:])["content"]["text"] == "é\udc80"


def test_an_owner_that_is_gone_stops_nothing():
    """Writing to a closed channel is no error: the container is about to end anyway."""
    outbox, _, ours, theirs = _pair()
    theirs.close()
    for _ in range(3):
        outbox.write("stdout", "lost\n")
        outbox.send("display_data", {})
    ours.close()


def test_an_inbox_takes_messages_in_pieces_and_out_of_order():
    """Messages may arrive cut anywhere; others than the one waited for stay."""
    _, inbox, ours, theirs = _pair()
    data = b"".join(wire.frame({"msg_type": t, "content": {"n": n}}) for n, t in enumerate("aba"))

    def dribble() -> None:
        for i in range(0, len(data), 5):
            ours.sendall(data[i : i + 5])
        ours.close()

    thread = threading.Thread(target=dribble)
    thread.start()
    got = [inbox.get("b"), inbox.get(), inbox.get(), inbox.get()]
    thread.join()
    assert [m and m["content"]["n"] for m in got] == [1, 0, 2, None]
    theirs.close()


def test_forget_takes_only_late_answers():
    """A late answer is thrown away, other messages are not."""
    _, inbox, ours, theirs = _pair()
    for kind in ("input_reply", "comm_msg", "input_reply"):
        ours.sendall(wire.frame({"msg_type": kind, "content": {}}))
    inbox.forget("input_reply")
    ours.close()
    assert inbox.get("input_reply") is None
    assert (inbox.get() or {})["msg_type"] == "comm_msg"
    theirs.close()


def test_without_threads_nothing_waits(monkeypatch):
    """Where no thread can be started (--pids-limit), partial lines are sent at once."""
    outbox, inbox, ours, theirs = _pair()

    def none(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("_thread.start_new_thread", none)
    outbox.write("stdout", "part")
    assert (inbox.get() or {})["content"] == {"name": "stdout", "text": "part"}
    ours.close()
    theirs.close()


def test_a_stream_in_a_forked_process_writes_to_its_descriptor():
    """After a fork in the cell, text goes to the file descriptor, line by line."""
    outbox, _, ours, theirs = _pair()
    read, write = os.pipe()
    stream = streams.CellStream(outbox, "stdout", write)
    outbox.after_fork_in_child()
    stream.write("whole\npart")
    stream.write("ial")
    assert os.read(read, 100) == b"whole\npart"
    stream.flush()
    assert os.read(read, 100) == b"ial"
    for fd in (read, write):
        os.close(fd)
    ours.close()
    theirs.close()
