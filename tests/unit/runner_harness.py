"""Runs the cell runner for real: a process of its own, spoken to over a socketpair.

Three ways, as in use: ``zygote`` (IPython preloaded, then a fork), ``cold`` (``python3 -I DIR FD``
with IPython importable) and ``plain`` (the same without IPython).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nscontainer

REPO = Path(nscontainer.__file__).resolve().parents[1]
"""Where the package is imported from: the checkout, or site-packages when the wheel is tried."""
RUNNER = REPO / "nscontainer" / "runner"
MODES = ("zygote", "cold", "plain")

_ZYGOTE = """
import gc, os, socket, sys
sys.path.insert(0, {repo!r})
from nscontainer import runner
assert runner.preload()
gc.freeze()
if {unshare}:
    import ctypes
    assert ctypes.CDLL(None).unshare(0x20000000) == 0  # CLONE_NEWPID: for the next child
pid = os.fork()
if pid == 0:
    os._exit(runner.main(socket.socket(fileno={fd})))
os.close({fd})
print(pid, flush=True)
os.close(1)
os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 255)
"""

_UNSHARE = """
import ctypes, os, sys
assert ctypes.CDLL(None).unshare(0x20000000) == 0
pid = os.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
os.write(1, b"%d\\n" % pid)
os.closerange(1, 200)
os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 255)
"""


@dataclass
class Cell:
    """A cell that runs."""

    process: subprocess.Popen[bytes]
    sock: socket.socket
    pid: int
    messages: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    raw: bytes = b""
    """What came on file descriptors 1 and 2."""
    exit_code: int | None = None
    _data: bytes = b""

    def send(self, msg_type: str, **content: Any) -> None:
        """Send the runner a message."""
        body = json.dumps({"msg_type": msg_type, "content": content}).encode()
        self.sock.sendall(len(body).to_bytes(4, "big") + body)

    def execute(self, code: str, **request: Any) -> None:
        """Send the runner a cell."""
        content = {"code": code, "filename": "Cell In[3]", "line_offset": 0, "colors": False}
        self.send("execute_request", **{**content, **request})

    def signal(self, number: int = signal.SIGINT) -> None:
        """Send the runner's process a signal."""
        os.kill(self.pid, number)

    def fall_asleep(self, timeout_s: float = 30) -> None:
        """Wait until its main thread sleeps.

        A signal that comes between Python's last look at them and a system call that waits is seen
        after that call only, in any Python program: 2 in 120 here, of signals sent right after the
        cell's last print.
        """
        deadline, asleep = time.monotonic() + timeout_s, 0
        while asleep < 3:
            assert time.monotonic() < deadline, "it runs and runs"
            state = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2]
            asleep = asleep + 1 if state.split()[0] == "S" else 0
            time.sleep(0.01)

    def read(self, until: str | None = None, timeout_s: float = 30) -> dict[str, Any] | None:
        """Read messages until one of a type (or whose text contains it) came, or to the end."""
        deadline = time.monotonic() + timeout_s
        while True:
            message = self._next(deadline)
            if message is None:
                return None
            self.messages.append(message)
            self.times.append(time.monotonic())
            text = str(message["content"].get("text", ""))
            if until is not None and (message["msg_type"] == until or until in text):
                return message

    def _next(self, deadline: float) -> dict[str, Any] | None:
        while True:
            end = 4 + int.from_bytes(self._data[:4], "big")
            if len(self._data) >= 4 and len(self._data) >= end:
                body, self._data = self._data[4:end], self._data[end:]
                return dict(json.loads(body))
            self.sock.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                data = self.sock.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self._data += data

    def finish(self, timeout_s: float = 30) -> Cell:
        """Read to the end and wait for the process."""
        self.read(timeout_s=timeout_s)
        try:
            self.raw, _ = self.process.communicate(timeout=timeout_s)
        finally:
            self.close()
        self.exit_code = self.process.returncode
        return self

    def close(self) -> None:
        """End it, however it is."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.process.kill()
            self.process.communicate()
        self.sock.close()

    def text(self, name: str = "stdout") -> str:
        """Join the text of a stream's messages."""
        return "".join(
            m["content"]["text"]
            for m in self.messages
            if m["msg_type"] == "stream" and m["content"]["name"] == name
        )

    def of(self, msg_type: str) -> list[dict[str, Any]]:
        """Give the contents of the messages of a type."""
        return [m["content"] for m in self.messages if m["msg_type"] == msg_type]

    @property
    def reply(self) -> dict[str, Any]:
        """The last message's content: the reply."""
        assert self.messages[-1]["msg_type"] == "execute_reply"
        return dict(self.messages[-1]["content"])

    @property
    def traceback(self) -> str:
        """The one error's traceback."""
        (error,) = self.of("error")
        return "\n".join(error["traceback"])


_started: list[Cell] = []


def end_all() -> None:
    """End what a failed test left running."""
    while _started:
        _started.pop().close()


def start(code: str, mode: str = "zygote", *, unshare: bool = False, **request: Any) -> Cell:
    """Start a runner and send it a cell; with ``unshare``, as pid 1 of a PID namespace."""
    cell = launch(mode, unshare=unshare)
    cell.execute(code, **request)
    return cell


def launch(mode: str = "zygote", *, unshare: bool = False) -> Cell:
    """Start a runner; it waits for what comes over its socket."""
    ours, theirs = socket.socketpair()
    fd = theirs.fileno()
    env = {k: v for k, v in os.environ.items() if k not in ("MPLBACKEND", "COLUMNS")}
    if mode == "zygote":
        command = [sys.executable, "-c", _ZYGOTE.format(repo=str(REPO), fd=fd, unshare=unshare)]
    else:
        flags = ["-I", "-S"] if mode == "plain" else ["-I"]
        command = [sys.executable, *flags, str(RUNNER), str(fd)]
        if unshare:
            command = [sys.executable, "-c", _UNSHARE, *command]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(fd,),
        env=env,
    )
    theirs.close()
    pid = process.pid
    if mode == "zygote" or unshare:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
    cell = Cell(process, ours, pid)
    _started.append(cell)
    return cell


def run(code: str, mode: str = "zygote", **request: Any) -> Cell:
    """Run a cell to its end."""
    return start(code, mode, **request).finish()
