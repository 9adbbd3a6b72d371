"""Widgets of a container: for each of its comms one of the notebook's kernel, with the same id.

What the container says to its comm, the kernel's own says to the front end; what the front end says
to that is handed to the container's. What comes from the container is hostile: it opens comms of
ipywidgets' only, under ids that the kernel doesn't have, and speaks on its own.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
import sys
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nscontainer.errors import NsContainerError, one_line
from nscontainer.sessions import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from IPython.core.interactiveshell import InteractiveShell

    from nscontainer.engine.attached import Told
    from nscontainer.engine.container import Container
    from nscontainer_magics.display import Display

    Message = dict[str, Any]

_TARGET: Final = "jupyter.widget"
_ENDED: Final = "nscontainer.ended"
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MOST: Final = 20_000
"""Comms that a container may have open: a progress bar needs ten."""
_MOST_WAITING: Final = 1000
"""Of what a front end says while a cell runs: the newest."""

_of_sessions: weakref.WeakKeyDictionary[Session, Comms] = weakref.WeakKeyDictionary()


def of(shell: InteractiveShell, container: Container | Session) -> Comms:
    """Give the comms of a session, which last from cell to cell, or new ones for a container's cell."""
    if not isinstance(container, Session):
        return Comms(shell)
    return _of_sessions.setdefault(container, Comms(shell, container))


def look() -> None:
    """Close the comms of sessions that have ended, or that this kernel has let go of."""
    for comms in list(_of_sessions.values()):
        comms.look()


@dataclass(slots=True)
class _Double:
    """A comm of the kernel's that stands for one of a container's."""

    comm: Any
    catches_output: bool
    """Whether it is an Output widget's: those name the request whose output they catch."""


class Refused(Exception):  # noqa: N818  # it reads as what happened
    """What a container said that isn't handed on."""


class Comms:
    """The comms of one container.

    Parameters
    ----------
    shell
        The notebook's, or a terminal's, which has none.
    session
        Who gets what the front end says; in a container of one cell nobody does.
    """

    def __init__(self, shell: InteractiveShell, session: Session | None = None) -> None:
        self._kernel: Any = getattr(shell, "kernel", None)
        self._shell = shell
        self._session = None if session is None else weakref.ref(session)
        self._doubles: dict[str, _Double] = {}
        self._ended: dict[str, _Double] = {}
        self._waiting: deque[Told] = deque(maxlen=_MOST_WAITING)
        self._asked: tuple[Any, Message] | None = None
        """Whom and what is answered just now, where that needn't be what the kernel is at."""
        self._shown: Display | None = None
        self._told: set[str] = set()

    # --- from the container ----------------------------------------------------------------------

    def take(self, message: Message) -> None:
        """Hand a message on to the front end; one that can't be is told of once, in a line."""
        if self._kernel is None or "comm" not in sys.modules:
            return
        try:
            said = _checked(message)
            comm_id = said["comm_id"]
            if comm_id in self._ended:
                self._listen(comm_id, self._ended.pop(comm_id))
            if message["msg_type"] == "comm_open" and comm_id not in self._doubles:
                self._open(comm_id, message["content"], said)
            elif comm_id in self._doubles:
                self._say(message["msg_type"], self._doubles[comm_id], said)
        except Exception as error:  # noqa: BLE001  # whatever it is, it breaks nothing here
            self._tell(f"a widget's message is not shown: {error}")

    def _open(self, comm_id: str, content: Message, said: Message) -> None:
        target = content.get("target_name")
        if target != _TARGET:
            message = f"its target is {str(target)[:80]!r}, and only {_TARGET!r} is handed on"
            raise Refused(message)
        import comm

        if comm_id in comm.get_comm_manager().comms:
            message = f"the notebook has a comm {comm_id!r} already"
            raise Refused(message)
        if len(self._doubles) >= _MOST:
            message = f"the container has {_MOST} comms open"
            raise Refused(message)
        state = said["data"].get("state")
        catches = isinstance(state, dict) and state.get("_model_name") == "OutputModel"
        if catches:
            self._name_request(said["data"])
        with self._as_asked():
            made = comm.create_comm(target_name=_TARGET, **said)
        self._listen(comm_id, _Double(made, catches))

    def _listen(self, comm_id: str, double: _Double) -> None:
        self._doubles[comm_id] = double
        double.comm.target_name = _TARGET
        double.comm.on_msg(self._listener("comm_msg", comm_id))
        double.comm.on_close(self._listener("comm_close", comm_id))

    def _say(self, kind: str, double: _Double, said: Message) -> None:
        comm_id = said.pop("comm_id")
        if kind == "comm_close":
            del self._doubles[comm_id]
            with self._as_asked():
                double.comm.close(**said)
            return
        if kind == "comm_open":  # once more, for whoever may have missed some of it
            said["data"]["method"] = "update"
        if double.catches_output:
            self._name_request(said["data"])
        with self._as_asked():
            double.comm.send(**said)

    def _name_request(self, data: Message) -> None:
        """Put in the request that the kernel is at, where an Output widget begins to catch."""
        state = data.get("state")
        if isinstance(state, dict) and state.get("msg_id"):
            header = self._kernel.get_parent().get("header") or {}
            state["msg_id"] = header.get("msg_id", "")

    def _tell(self, line: str) -> None:
        if line not in self._told and len(self._told) < 20:
            self._told.add(line)
            print(line, file=sys.stderr)

    # --- from the front end ------------------------------------------------------------------------

    def _listener(self, kind: str, comm_id: str) -> Callable[[Message], None]:
        def heard(message: Message) -> None:
            if kind == "comm_close":
                self._doubles.pop(comm_id, None)
            if self._session is None:  # it runs still, and this is a thread of the kernel's
                return
            from nscontainer.engine.attached import Told  # not there but on Linux

            told = {
                "msg_type": kind,
                "content": {"comm_id": comm_id, "data": message["content"].get("data", {})},
                "metadata": message.get("metadata", {}),
                "buffers": [base64.b64encode(b).decode() for b in message.get("buffers", ())],
            }
            asked = (self._kernel._parent_ident["shell"], self._kernel.get_parent())  # noqa: SLF001
            self._waiting.append(Told(told, lambda answer: self._answer(asked, answer)))
            self.deliver()

        return heard

    def _answer(self, asked: tuple[Any, Message], answer: Message) -> None:
        """Show what a handler says; what it says on comms is an answer to the message that called it.

        Another thread may have got that one. A page that asks for widgets' states looks at it.
        """
        if self._shown is not None:
            self._asked = asked
            try:
                self._shown.message(answer)
            finally:
                self._asked = None

    @contextlib.contextmanager
    def _as_asked(self) -> Iterator[None]:
        if self._asked is None:
            yield
            return
        before = self._kernel._parent_ident["shell"], self._kernel.get_parent()  # noqa: SLF001
        self._kernel.set_parent(*self._asked)
        try:
            yield
        finally:
            self._kernel.set_parent(*before)

    def deliver(self) -> None:
        """Give a session what has come for it, unless a cell runs in it: then its end does.

        A container of one cell has ended by now.
        """
        if not self._waiting and not self._doubles:
            return  # as in most cells: nothing to tell or to end, so no look at the disk
        session = self.look()
        if session is None or not self._waiting:
            return
        from nscontainer_magics.display import Display

        self._shown = Display(self._shell, container=session, channel=self)
        try:
            session.deliver(self._waiting)
        except (NsContainerError, OSError) as error:
            print(one_line(error), file=sys.stderr)
        finally:
            self._shown.flush()
        if session.over is not None:
            print(f"session {session.name!r} has ended: {session.over}", file=sys.stderr)
        self.look()

    def look(self) -> Session | None:
        """Give the session where it is there to listen; else make the comms inert."""
        session = None if self._session is None else self._session()
        if session is None or not session.attached or not session.lives:
            self.end()
            return None
        return session

    def end(self) -> None:
        """Leave the widgets as they are shown, with nobody behind them.

        The kernel keeps their comms, under another target: one that it didn't know would be warned of
        at each move of a slider, and of those it lists as widgets a reloaded page asks the state.
        """
        self._waiting.clear()
        while self._doubles:
            with contextlib.suppress(KeyError):  # another thread's
                comm_id, double = self._doubles.popitem()
                self._ended[comm_id] = double
                double.comm.target_name = _ENDED
                double.comm.on_msg(None)
                double.comm.on_close(None)


def _checked(message: Message) -> Message:
    """Give the id, data, metadata and buffers of a container's message, each of its type.

    Raises
    ------
    Refused
        One isn't.
    """
    content, metadata = message["content"], message.get("metadata", {})
    comm_id, data, buffers = content.get("comm_id"), content.get("data"), message.get("buffers", [])
    if not isinstance(comm_id, str) or not _ID.fullmatch(comm_id):
        text = f"{str(comm_id)[:80]!r} is no comm's id"
        raise Refused(text)
    if not (isinstance(data, dict) and isinstance(metadata, dict) and isinstance(buffers, list)):
        text = f"what it says on comm {comm_id} is not of the types that it should be"
        raise Refused(text)
    try:
        decoded = [base64.b64decode(buffer, validate=True) for buffer in buffers]
    except (TypeError, ValueError, binascii.Error):
        text = f"a buffer on comm {comm_id} is no base64"
        raise Refused(text) from None
    return {"comm_id": comm_id, "data": data, "metadata": metadata, "buffers": decoded}
