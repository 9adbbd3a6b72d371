"""Comms: what ipywidgets and their views in the notebook talk over, as Jupyter's own messages.

The package ``comm`` lets whoever runs the interpreter say what a comm is. Here it sends to the owner,
who keeps its double in the notebook's kernel. Buffers travel as base64 beside a message's content.
"""

from __future__ import annotations

import base64
import contextlib
import sys
from typing import TYPE_CHECKING, Any

import comm
from comm.base_comm import BaseComm

from . import mime

if TYPE_CHECKING:
    from comm.base_comm import CommManager

    from .ipython_shell import ZMQInteractiveShell
    from .wire import Message

TYPES = ("comm_msg", "comm_close")
"""Of messages from the notebook: its front ends close comms, but open none with a cell."""
MOST_BYTES = 64 << 20
"""Of one message's buffers: the owner takes no frame of more than 256 MiB."""
_PARENT = {"header": {"msg_id": "cell"}}
"""Stands for the request that the notebook is at; only the owner knows it, and puts it in."""


class Kernel:
    """What widgets look for at ``get_ipython().kernel``: whose output an Output widget catches."""

    missed = False
    """True when something was said that no owner could hear: a thread's updates between cells."""

    def get_parent(self, channel: str | None = None) -> Message:
        """Give the request that is carried out."""
        del channel
        return _PARENT

    @property
    def comm_manager(self) -> CommManager:
        """The comms that there are."""
        return comm.get_comm_manager()


def install(shell: ZMQInteractiveShell) -> Kernel:
    """Have every comm made from now on be one of this shell's."""
    kernel = Kernel()

    class CellComm(BaseComm):
        def publish_msg(
            self,
            msg_type: str,
            data: Any = None,
            metadata: Any = None,
            buffers: Any = None,
            **keys: Any,
        ) -> None:
            if shell.outbox.direct:
                kernel.missed = True
                return
            content = {"comm_id": self.comm_id, "data": data or {}, **keys}
            shell.outbox.send(
                msg_type,
                mime.clean(content),
                metadata=mime.clean(metadata or {}),
                buffers=_encoded(buffers or ()),
            )

    comm.create_comm = CellComm
    return kernel


def _encoded(buffers: Any) -> list[str]:
    views = [memoryview(buffer) for buffer in buffers]
    size = sum(view.nbytes for view in views)
    if size > MOST_BYTES:
        message = f"{size} bytes in a comm message's buffers; at most {MOST_BYTES} go out"
        raise ValueError(message)
    return [base64.b64encode(view).decode("ascii") for view in views]


def deliver(message: Message) -> None:
    """Have a comm's handlers called with what came from the notebook for it."""
    content = message.get("content", {})
    manager = comm.get_comm_manager()
    if content.get("comm_id") not in manager.comms:  # closed here while it was on its way
        return
    whole = {
        "header": {"msg_type": message["msg_type"], **_PARENT["header"]},
        "parent_header": {},
        "content": content,
        "metadata": message.get("metadata", {}),
        "buffers": [base64.b64decode(buffer) for buffer in message.get("buffers", ())],
    }
    handle: Any = getattr(manager, message["msg_type"])
    handle(None, "", whole)


def reopen(kernel: Kernel) -> None:
    """Tell an owner of all widgets: one that is new, or that couldn't hear all they said."""
    kernel.missed = False
    widgets: Any = sys.modules.get("ipywidgets.widgets.widget")
    for one in list(getattr(widgets, "_instances", {}).values()):
        with contextlib.suppress(Exception):  # it is ipywidgets' own business how they are told of
            state, paths, buffers = widgets._remove_buffers(one.get_state())  # noqa: SLF001
            data = {"state": state, "buffer_paths": paths}
            one.comm.open(data, {"version": widgets.__protocol_version__}, buffers)
