"""A real Jupyter kernel to run cells in, and everything it says, with the time at which it came."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from jupyter_client.manager import KernelManager

TIMEOUT_S = 60.0


@dataclass
class Cell:
    """What one executed cell said."""

    begin: float
    reply: dict[str, Any] = field(default_factory=dict)
    messages: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    """When (seconds since it was sent), message type, content."""

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Give the contents of the messages of a type."""
        return [content for _, type_, content in self.messages if type_ == kind]

    def text(self, name: str = "stdout") -> str:
        """Join a stream's text."""
        return "".join(c["text"] for c in self.of("stream") if c["name"] == name)

    def shown(self, mime: str = "text/plain") -> list[Any]:
        """Give a representation of each thing that was displayed or was the cell's value."""
        found = [c["data"] for c in (*self.of("display_data"), *self.of("execute_result"))]
        return [data[mime] for data in found if mime in data]

    def errors(self) -> list[str]:
        """Give each traceback that was shown, without colours."""
        return [plain("\n".join(c["traceback"])) for c in self.of("error")]

    @property
    def ok(self) -> bool:
        """Whether the notebook would go on with the next cell."""
        return bool(self.reply["status"] == "ok")


def plain(text: str) -> str:
    """Take the colours out."""
    import re

    return re.sub(r"\x1b\[[\d;]*m", "", text)


class Kernel:
    """A running ipykernel and its client."""

    def __init__(self, manager: KernelManager) -> None:
        self.manager = manager
        self.client = manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=TIMEOUT_S)
        self.pid = int(manager.provisioner.pid)  # type: ignore[union-attr]
        self._cells: dict[str, Cell] = {}
        """By their request: a run in the background speaks after its cell's end."""
        self.told: list[dict[str, Any]] = []
        """What widgets were told, whoever told them: a handler's parent is the browser's message."""
        self.updates: list[dict[str, Any]] = []
        """What displays were renewed with, whichever cell's they are."""

    def run(
        self, code: str, *, during: Callable[[str, dict[str, Any]], None] | None = None
    ) -> Cell:
        """Execute a cell to its end; ``during`` sees each message as it comes."""
        begin = time.monotonic()
        request = self.client.execute(code, allow_stdin=True)
        cell = self._cells[request] = Cell(begin)
        idle = False
        while not (idle and cell.reply):
            if time.monotonic() - begin > TIMEOUT_S:
                raise TimeoutError(code)
            with contextlib.suppress(queue.Empty):
                said_by, kind, content = self._take(0.02 if not idle else 0.2)
                if said_by is cell:
                    idle = idle or (kind == "status" and content["execution_state"] == "idle")
                    if during is not None:
                        during(kind, content)
            with contextlib.suppress(queue.Empty):
                asked = self.client.get_stdin_msg(timeout=0)
                if during is not None:
                    during("input_request", asked["content"])
            with contextlib.suppress(queue.Empty):
                reply = self.client.get_shell_msg(timeout=0)
                if reply["parent_header"].get("msg_id") == request:
                    cell.reply = reply["content"]
        return cell

    def _take(self, timeout_s: float) -> tuple[Cell | None, str, dict[str, Any]]:
        """Take a message and keep it with the cell that it is of."""
        message = self.client.get_iopub_msg(timeout=timeout_s)
        cell = self._cells.get(message["parent_header"].get("msg_id"))
        kind, content = message["msg_type"], message["content"]
        if kind == "comm_msg":
            self.told.append(content)
        elif kind == "update_display_data":
            self.updates.append(content["data"])
        if cell is not None:
            cell.messages.append((time.monotonic() - cell.begin, kind, content))
        return cell, kind, content

    def listen(self, until: Callable[[], object]) -> None:
        """Take what cells whose runs are in the background say after their own end."""
        begin = time.monotonic()
        while not until():
            if time.monotonic() - begin > TIMEOUT_S / 2:
                raise TimeoutError
            with contextlib.suppress(queue.Empty):
                self._take(0.2)

    def say(
        self, comm_id: str, data: dict[str, Any], *buffers: bytes, kind: str = "comm_msg"
    ) -> str:
        """Say something on a comm, as a browser does; give the message's id."""
        session = self.client.session
        message = session.msg(kind, {"comm_id": comm_id, "data": data})
        session.send(self.client.shell_channel.socket, message, buffers=list(buffers))
        return str(message["header"]["msg_id"])

    def tell(self, comm_id: str, state: dict[str, Any]) -> str:
        """Do what a browser does when a person moves a widget."""
        return self.say(comm_id, {"method": "update", "state": state, "buffer_paths": []})

    def press(self, comm_id: str) -> None:
        """Press a widget's button."""
        self.say(comm_id, {"method": "custom", "content": {"event": "click"}})

    def interrupt(self) -> None:
        """Do what the ■ button does."""
        os.kill(self.pid, signal.SIGINT)

    def restart(self) -> None:
        """Do what "Restart kernel" does, and load the magics again."""
        self.manager.restart_kernel(now=True)
        self.client.wait_for_ready(timeout=TIMEOUT_S)
        self.pid = int(self.manager.provisioner.pid)  # type: ignore[union-attr]
        loaded = self.run("%load_ext nscontainer")
        assert loaded.ok, loaded.reply

    def complete(self, code: str) -> list[str]:
        """Press Tab at the end of the code."""
        reply = self.client.complete(code, len(code), reply=True, timeout=TIMEOUT_S)
        content = reply["content"]
        start, end = content["cursor_start"], content["cursor_end"]
        return [match for match in content["matches"] if match.startswith(code[start:end])]


def run(kernel: Kernel, code: str) -> str:
    """Run a cell that must go well; give its standard output."""
    cell = kernel.run(code)
    assert cell.ok, cell.errors()
    return cell.text()


def fail(kernel: Kernel, code: str) -> str:
    """Run a cell that must fail; give its one line."""
    cell = kernel.run(code)
    assert not cell.ok, cell.messages
    return cell.errors()[-1]


@contextlib.contextmanager
def start(
    directory: str, *, load: bool = True, python: str | None = None, **environment: str
) -> Iterator[Kernel]:
    """Run a kernel (of an interpreter) in a directory, with the magics loaded."""
    manager = KernelManager(kernel_name="python3")
    if python is not None and manager.kernel_spec is not None:
        manager.kernel_spec.argv[0] = python
    manager.start_kernel(cwd=directory, env={**os.environ, **environment})
    kernel = None
    try:
        kernel = Kernel(manager)
        if load:
            loaded = kernel.run("%load_ext nscontainer")
            assert loaded.ok, loaded.reply
        yield kernel
    finally:
        if kernel is not None:
            kernel.client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
        manager.context.destroy(linger=0)
