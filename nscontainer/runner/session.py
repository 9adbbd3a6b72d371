"""One container's conversation with its owner: takes the request, runs the cell, answers.

Where its first byte says that many cells are to come, :mod:`live` goes on with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from typing import TYPE_CHECKING, Any

from . import door, frames, mime, process, streams, values
from .raw_output import RawOutput
from .wire import Inbox, Outbox

if TYPE_CHECKING:
    import socket
    from typing import Protocol

    from .awaiting import CellLoop

    class Shell(Protocol):
        """What runs cells: IPython's shell or the plain one."""

        outbox: Outbox
        count: int
        loop: CellLoop

        @property
        def namespace(self) -> dict[str, Any]:
            """The cell's global variables."""

        def prepare(self, *, colors: bool) -> None:
            """Make ready in the container's own process."""

        def run(self, code: str, filename: str, line_offset: int) -> BaseException | None:
            """Execute a cell; returns the exception that ended it, if one did."""


_NO_OWNER = 125
"""The exit code where the owner was gone before it asked for anything: Docker's, of an engine."""

_NUMBERED = re.compile(r"Cell In\[(\d+)\]")

speaking: Outbox | None = None
"""The way to the owner of the cell that this process runs (:mod:`reporting` asks for it)."""

_shell: Shell | None = None
"""The shell that preload() made for all forks of this process."""


def preload() -> bool:
    """Make and warm a shell, for forks of this process to run their cell in without delay.

    Call it in a process of one thread; it leaves no thread and no file open.

    Returns
    -------
    bool
        Whether there is an IPython to run cells with.
    """
    global _shell  # noqa: PLW0603  # a process has one shell, as IPython has one instance
    try:
        # What a session and report() need: loaded before the fork.
        from . import live, reporting, warming  # noqa: F401
    except ImportError:
        return False
    _shell = warming.warm_shell()
    return True


def main(channel: socket.socket) -> int:
    """Run the cell that the owner asks for, and return the container's exit code.

    Parameters
    ----------
    channel
        A stream socket to the owner (see :mod:`nscontainer.runner.wire`).
    """
    global speaking  # noqa: PLW0603  # a process runs the cells of one channel
    channel.settimeout(None)
    channel.set_inheritable(False)
    outbox, inbox = Outbox(channel, before_sending=RawOutput().wait), Inbox(channel)
    process.set_signals()
    process.make_own()
    streams.install(outbox, inbox)
    speaking = outbox
    error: BaseException | None = None
    shell: Shell | None = None
    try:
        if door.is_one(channel):
            from . import live

            return live.serve(door.Door(channel), outbox, inbox)
        request = inbox.get("execute_request")
        if request is None:
            return _NO_OWNER
        content = request.get("content", {})
        shell = ready(content, outbox)
        error = run(shell, content, outbox, inbox)
    except BaseException as caught:  # noqa: BLE001  # an interrupt between the cell and us
        error = caught
        report(error, outbox)
    code = process.exit_code(error)
    try:
        if shell is not None:
            process.leave(shell.namespace, shell.loop)
    except BaseException as caught:  # noqa: BLE001  # an interrupt while it waits for threads
        error, code = caught, process.exit_code(caught)
        report(error, outbox)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reply(outbox, error, code)
    return code


def ready(content: dict[str, Any], outbox: Outbox) -> Shell:
    """Give the shell, set up as the request asks."""
    if content.get("sys_path"):
        sys.path[:] = content["sys_path"]
    if content.get("width"):
        os.environ.setdefault("COLUMNS", str(content["width"]))
    shell = _shell
    if shell is None:
        try:
            from .ipython_shell import make

            shell = make(outbox)
        except ImportError:
            from .plain_shell import PlainShell

            shell = PlainShell(outbox)
    shell.outbox = outbox
    shell.prepare(colors=bool(content.get("colors")))
    return shell


def run(
    shell: Shell, content: dict[str, Any], outbox: Outbox, inbox: Inbox
) -> BaseException | None:
    """Run the cell that a request asks for; give the exception that ended it, if one did."""
    with contextlib.closing(values.Carrier(content, inbox.fds)) as carrier:
        shell.namespace.update(carrier.take())
        error = _execute(shell, content)
        if carrier.asked and not process.failed(error) and not outbox.forked:
            outbox.send("values", carrier.give(shell.namespace))
    return error


def _execute(shell: Shell, content: dict[str, Any]) -> BaseException | None:
    filename = str(content.get("filename") or "Cell In[1]")
    code = str(content.get("code") or "")
    # IPython drops empty lines at the beginning: as an offset they still count.
    body = code.lstrip("\n")
    offset = int(content.get("line_offset") or 0) + len(code) - len(body)
    numbered = _NUMBERED.fullmatch(filename)
    if numbered:
        # In a session, whose cells may come from several notebooks, numbers only grow.
        shell.count = max(int(numbered[1]), shell.count)
    return shell.run(body, filename, offset)


def report(error: BaseException, outbox: Outbox) -> None:
    """Tell of an error that no shell has shown."""
    if isinstance(error, SystemExit):
        return
    name, text = type(error).__name__, mime.text_of(error)
    with contextlib.suppress(Exception):
        traceback = frames.plain(error)
        outbox.send("error", {"ename": name, "evalue": text, "traceback": traceback})


def reply(outbox: Outbox, error: BaseException | None, code: int, **more: Any) -> None:
    """Send the last message of a cell, with all before it. No interrupt may come any more."""
    if outbox.forked:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        return
    content: dict[str, Any] = {
        "status": "ok" if code == 0 else "error",
        "exit_code": code,
        **more,
    }
    if error is not None:
        content.update(ename=type(error).__name__, evalue=mime.text_of(error))
    finish(outbox, "execute_reply", content)


def finish(outbox: Outbox, msg_type: str, content: dict[str, Any]) -> None:
    """Send the last of the messages that answer one."""
    for original in (sys.__stdout__, sys.__stderr__):  # a cell may have written to these, too
        with contextlib.suppress(Exception):
            if original is not None:
                original.flush()
    outbox.finish(msg_type, content)
