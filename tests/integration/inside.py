"""What tests of real containers share: code run inside, owners in their own process, waiting."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nscontainer import api
from nscontainer.engine import spawner_client
from nscontainer.engine.container import Container
from nscontainer.errors import StateError

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = [sys.executable, "-I", "-S", "-c"]
"""The quickest Python inside; the test's own, as the image ``host`` shows it."""

PRELUDE = """
import ctypes, errno, json, os, signal, socket, stat, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def answer(call, *args, **keywords):
    "What the kernel says: None, or the name of the errno."
    try:
        call(*args, **keywords)
    except OSError as error:
        return errno.errorcode[error.errno]
def raw(number, *args):
    "A system call's errno by name, or its result."
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) for a in args))
    return errno.errorcode[ctypes.get_errno()] if result < 0 else result
def tell(value):
    print(json.dumps(value), flush=True)
"""

SLEEP = ["sleep", "1000"]


def ask(source: str, **options: Any) -> Any:
    """Run Python in a container; give the JSON value that it tells."""
    result = api.run([*PYTHON, PRELUDE + source], **options)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def ask_cell(source: str, **options: Any) -> Any:
    """Run Python as a cell in a container; give the JSON value that it tells."""
    messages: list[dict[str, Any]] = []
    result = api.run_cell(PRELUDE + source, on_message=messages.append, **options)
    text = "".join(
        m["content"]["text"]
        for m in messages
        if m["msg_type"] == "stream" and m["content"]["name"] == "stdout"
    )
    assert result.exit_code == 0, messages
    return json.loads(text)


def eventually(truth: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """Wait until something is so, long enough for an emulated machine; give what it was at last."""
    deadline = time.monotonic() + timeout_s
    while not (value := truth()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return value


@contextlib.contextmanager
def ending() -> Iterator[list[Container]]:
    """A list for containers; what of it still lives is killed at the end."""
    made: list[Container] = []
    yield made  # after a failed test as well: a fixture's is resumed
    for container in made:
        with contextlib.suppress(StateError):
            container.kill()
        container.wait(20)


@contextlib.contextmanager
def private_engine() -> Iterator[Path]:
    """Have this process's engine work in a state directory of its own, which must end up empty.

    On /var/tmp: a disk filesystem on every machine, as the real one's.
    """
    before = os.environ.get("NSCONTAINER_STATE_DIR")
    top = Path(tempfile.mkdtemp(prefix="nsc-test-", dir="/var/tmp"))
    os.environ["NSCONTAINER_STATE_DIR"] = str(top)
    try:
        yield top
        spawner_client.shutdown()
        assert eventually(lambda: not holdings(top)), holdings(top)
    finally:
        spawner_client.shutdown()
        if before is None:
            del os.environ["NSCONTAINER_STATE_DIR"]
        else:
            os.environ["NSCONTAINER_STATE_DIR"] = before
        subprocess.run(["rm", "-rf", str(top)], check=True)


def holdings(top: Path, *, standby: bool = False) -> list[str]:
    """What the engine keeps of containers in a state directory; of those that stand by, if asked."""
    return [
        f"{folder}/{name}"
        for folder in ("containers", "names", "mnt", *(["standby"] if standby else []))
        if (top / folder).is_dir()
        for name in os.listdir(top / folder)
    ] + (["halted"] if (top / "halted").exists() else [])


class Owner:
    """A process that uses the engine: ours to interrupt and to kill.

    Whatever comes of it (spawner, monitors, what runs in containers) is known by a mark in its
    environment, in a variable of the locale's: those alone are handed on all the way.
    """

    def __init__(self, top: Path, source: str, **environ: str) -> None:
        self.top = top
        self.mark = f"{os.getpid()}-{time.monotonic_ns()}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from nscontainer import api\n" + source],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "NSCONTAINER_STATE_DIR": str(top),
                "LC_NSC_TEST": self.mark,
                **environ,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def say(self, text: str) -> None:
        """Give it a line on its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n".encode())
        self.process.stdin.flush()

    def line(self) -> str:
        """Wait for a line it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def wait(self, timeout_s: float = 100.0) -> tuple[int, str, str]:
        """Wait for its end: exit code (negative: the signal), output, errors."""
        try:
            out, err = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            message = f"the owner hung; it said {out!r} {err!r}"
            raise AssertionError(message) from None
        return self.process.returncode, out.decode(), err.decode()

    def kill(self) -> None:
        """SIGKILL it."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def offspring(self) -> dict[int, str]:
        """Every process that has come of it and lives, with its name."""
        found = {}
        mark = f"LC_NSC_TEST={self.mark}".encode()
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != self.process.pid:
                with contextlib.suppress(OSError):
                    if mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                        found[int(entry)] = Path(f"/proc/{entry}/comm").read_text().strip()
        return found

    def interrupt(self) -> None:
        """SIGINT it, as Jupyter's ■ does."""
        os.kill(self.process.pid, signal.SIGINT)
