"""A session: many cells, one after another, in one interpreter.

Between cells nobody listens: what a thread or a subprocess says then goes to descriptors 1 and 2 and
so to the container's log, and a SIGINT is let pass. A cell's end sends all that was said in it before
its reply.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

from . import process, session

if TYPE_CHECKING:
    import socket

    from .door import Door
    from .session import Shell
    from .wire import Inbox, Outbox


def serve(door: Door, outbox: Outbox, inbox: Inbox) -> int:
    """Run cells for whoever comes in, until one of them exits; return the container's exit code."""
    outbox.lasting = True
    outbox.close()
    conversation = _Conversation(door, outbox, inbox)
    while not conversation.over and (sock := door.next()) is not None:
        conversation.hold(sock)
    return conversation.code


class _Conversation:
    """What lasts from cell to cell."""

    def __init__(self, door: Door, outbox: Outbox, inbox: Inbox) -> None:
        self.door = door
        self.outbox = outbox
        self.inbox = inbox
        self.shell: Shell | None = None
        self.over = False
        self.code = 0
        self._requested = self._interrupted = False
        self._deafen()

    def hold(self, sock: socket.socket) -> None:
        """Answer one owner until it goes, or a cell of its ends the session."""
        with sock:
            self.inbox.connect(sock)
            self._interrupted = False
            new = True
            while not self.over:
                request = self.inbox.get("execute_request", "comm_msg", "comm_close")
                self._requested = True
                if request is None:
                    self._requested = False
                    self.door.tell_idle()  # it may have announced a cell and not sent it
                    return
                _flush_direct()  # said between cells: no part of the one that begins
                self.outbox.connect(sock)
                self._reopen_comms(new=new)
                new = False
                self._answer(request)

    def _answer(self, request: dict[str, Any]) -> None:
        error: BaseException | None = None
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if self._interrupted:
                raise KeyboardInterrupt
            error = self._do(request)
        except BaseException as caught:  # noqa: BLE001  # an interrupt between the cell and us
            error = caught
            session.report(error, self.outbox)
        if self._deafen() and error is None:
            error = KeyboardInterrupt()
        code = process.exit_code(error)
        if isinstance(error, SystemExit) or self.outbox.forked:
            self._leave(error, code)
            return
        if request["msg_type"] == "execute_request":
            self.door.tell_idle()
            session.reply(self.outbox, error, code)
        else:
            session.finish(self.outbox, "comm_done", {"seq": request.get("seq")})
        _flush_direct()

    def _do(self, request: dict[str, Any]) -> BaseException | None:
        """Run a cell, or the handlers of a widget that was moved; give what ended it."""
        content = request.get("content", {})
        if request["msg_type"] != "execute_request":
            if "comm" in sys.modules:
                from . import comms

                comms.deliver(request)
            return None
        if self.shell is None:
            self.shell = session.ready(content, self.outbox)
        return session.run(self.shell, content, self.outbox, self.inbox)

    def _reopen_comms(self, *, new: bool) -> None:
        kernel = getattr(self.shell, "kernel", None)
        if kernel is not None and (new or kernel.missed):
            from . import comms

            comms.reopen(kernel)

    def _leave(self, error: BaseException | None, code: int) -> None:
        """End the session as a script ends; also in a process that a cell forked, which ends alone."""
        self.over = True
        if self.shell is not None:
            process.leave(self.shell.namespace, self.shell.loop)
        self.code = code
        session.reply(self.outbox, error, code, ended=True)

    def _deafen(self) -> bool:
        """Let SIGINT pass from now on; tell whether one came just before.

        By a handler rather than SIG_IGN: that would be handed on to what a thread starts meanwhile.
        """
        late = self._requested = self._interrupted = False
        while True:
            try:
                signal.signal(signal.SIGINT, self._between)
            except KeyboardInterrupt:  # signal.signal() handles what is pending first
                late = True
            else:
                return late

    def _between(self, *_: object) -> None:
        """Note a SIGINT that is meant for a cell whose request is here and that hasn't begun yet.

        An owner sends the request first.
        """
        if self._requested or self.inbox.pending():
            self._interrupted = True


def _flush_direct() -> None:
    for stream in (sys.stdout, sys.stderr):
        flush = getattr(stream, "flush_direct", None)
        if flush is not None:  # the cell may have put another stream in its place
            flush()
