"""Makes the shell that a process's forks share, and runs it warm."""

from __future__ import annotations

import gc
import socket
import sys
from typing import TYPE_CHECKING, Any

from . import frames, ipython_shell, streams
from .wire import Outbox

if TYPE_CHECKING:
    from .ipython_shell import ZMQInteractiveShell

_CELLS = (
    "print(1)",
    "x = 1\nx",
    "def f():\n    raise ValueError('one')\ntry:\n    f()\nexcept ValueError as e:\n    1 / 0",
    "def f(:",
    "from IPython.display import HTML\ndisplay(HTML('<b>1</b>'), [1, {2: 3.0}], 'text')",
)
"""What a first cell may need: parsing, results, tracebacks (stack_data, pygments), formatters.

Each module first imported and each table first filled after the fork would cost the cell
milliseconds of its own time, and the container memory.
"""


def warm_shell() -> ZMQInteractiveShell:
    """Make the shell, run some cells in it, and forget them."""
    ours, theirs = socket.socketpair()  # takes all that the cells say: some kilobytes
    outbox = Outbox(ours, flusher=False)
    kept = sys.stdout, sys.stderr
    shell = ipython_shell.make(outbox)
    before = dict(shell.user_ns), dict(shell.user_ns_hidden)
    try:
        sys.stdout = streams.CellStream(outbox, "stdout", 1)
        sys.stderr = streams.CellStream(outbox, "stderr", 2)
        for colors in (False, True):  # pygments comes in with the colours, and takes longest
            shell.prepare(colors=colors)
            for code in _CELLS:
                shell.run(code, "Cell In[1]", 1)
    finally:
        sys.stdout, sys.stderr = kept
        ours.close()
        theirs.close()
    _forget(shell, *before)
    return shell


def _forget(shell: ZMQInteractiveShell, namespace: dict[str, Any], hidden: dict[str, Any]) -> None:
    """Bring a shell back to before its first cell."""
    history: Any = shell.history_manager
    history.reset(new_session=False)
    history.input_hist_parsed[:] = history.input_hist_raw[:] = [""]
    for name in ("_i", "_ii", "_iii", "_i00"):
        setattr(history, name, "")
    for kept in ("outputs", "exceptions", "output_hist_reprs"):
        getattr(history, kept, {}).clear()
    hook = shell.displayhook
    hook._, hook.__, hook.___ = "", "", ""  # IPython's names for them
    shell.execution_count = 1
    shell.last_execution_result = None
    shell.cell_compiler.forget()
    shell.user_ns.clear()
    shell.user_ns.update(namespace)
    shell.user_ns_hidden.clear()
    shell.user_ns_hidden.update(hidden)  # IPython goes by it for whether `_` is still its own
    frames.forget_last()
    gc.collect()
