"""``--capture NAME``: what a cell says goes into a variable, as IPython's ``%%capture`` has it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from IPython.utils.capture import capture_output

from nscontainer.bounded import KEPT_BYTES
from nscontainer_magics.display import Display

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


class Captured(Display):
    """Shows into IPython's capture; keeps tracebacks back, which aren't to be captured."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell, KEPT_BYTES)
        self._errors: list[dict[str, Any]] = []

    def message(self, message: dict[str, Any]) -> None:
        """Take one message."""
        content = message.get("content")
        if message.get("msg_type") == "error" and isinstance(content, dict):
            self._errors.append(content)
        else:
            super().message(message)

    def show_errors(self) -> None:
        """Show the tracebacks. A terminal's are printed, so not before the capture has ended."""
        for content in self._errors:
            super().message({"msg_type": "error", "content": content})


@contextlib.contextmanager
def output(shell: InteractiveShell, name: str | None, most: int | None) -> Iterator[Display]:
    """Give what shows a cell's output; with a name, into the variable of that name.

    Parameters
    ----------
    name
        The variable, which gets IPython's ``CapturedIO``; None shows all in the notebook.
    most
        How many bytes of each stream are shown in the notebook, but for the end; None is all.
    """
    if name is None:
        yield Display(shell, most)
        return
    with capture_output() as captured:
        shown = Captured(shell)  # it writes to what the streams are now
        yield shown
    shell.user_ns[name] = captured
    shown.show_errors()
