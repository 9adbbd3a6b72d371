"""From a cell's messages to the notebook's output, as they come."""

from __future__ import annotations

import codecs
import contextlib
import getpass
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from nscontainer.engine.container import Container
    from nscontainer.sessions import Session

_FLUSH_S: Final = 0.05
"""ipykernel holds output back for 0.2 s: what comes after a pause is shown at once instead."""
KEPT_BYTES: Final = 16 << 20
"""How much of what came from each descriptor is kept for the result."""


class Display:
    """Shows what a container says in the output of the cell that runs it.

    Parameters
    ----------
    shell
        The notebook's, or a terminal's.
    silent
        Show nothing, only keep.
    answers
        Whether the person may be asked: else ``input()`` raises EOFError in the cell.

    Attributes
    ----------
    before_write, on_clear
        Called before something is printed, and when the cell clears its output.
    """

    def __init__(
        self, shell: InteractiveShell, *, silent: bool = False, answers: bool = True
    ) -> None:
        self._shell = shell
        self._silent = silent
        self._answers = answers
        self.before_write: Callable[[], None] | None = None
        self.on_clear: Callable[[], None] | None = None
        self._line_begun = False
        # What they are now: another thread mustn't print into another cell's %%capture.
        self._streams = {"stdout": sys.stdout, "stderr": sys.stderr}
        self._container: Container | Session | None = None
        self._shown_at = 0.0
        self._decoders = {
            name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")
        }
        self._kept = {"stdout": bytearray(), "stderr": bytearray()}

    def attach(self, container: Container | Session) -> None:
        """Remember whom to send answers to."""
        self._container = container

    def at_line_start(self) -> bool:
        """Whether nothing stands on the line where the next output will."""
        return not self._line_begun

    # --- descriptors 1 and 2 -----------------------------------------------------------------

    def stdout(self, data: bytes) -> None:
        """Show what came out of file descriptor 1."""
        self._bytes("stdout", data)

    def stderr(self, data: bytes) -> None:
        """Show what came out of file descriptor 2."""
        self._bytes("stderr", data)

    def _bytes(self, name: str, data: bytes) -> None:
        kept = self._kept[name]
        kept += data[: KEPT_BYTES - len(kept)]
        self._write(name, self._decoders[name].decode(data))

    def _write(self, name: str, text: str) -> None:
        if self._silent or not text:
            return
        if self.before_write is not None:
            self.before_write()
        self._line_begun = not text.endswith("\n")
        stream = self._streams["stderr" if name == "stderr" else "stdout"]
        try:
            stream.write(text)
        except UnicodeEncodeError:  # lone surrogates, or a terminal that isn't UTF-8
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        now = time.monotonic()
        if now - self._shown_at > _FLUSH_S:
            stream.flush()
            self._shown_at = now

    def finish(self) -> tuple[bytes, bytes]:
        """Show what is left of a cut character; give what the descriptors said."""
        for name, decoder in self._decoders.items():
            rest = decoder.decode(b"", final=True)
            if rest:
                self._write(name, rest)
        for stream in self._streams.values():
            with contextlib.suppress(Exception):
                stream.flush()
        return bytes(self._kept["stdout"]), bytes(self._kept["stderr"])

    # --- messages ----------------------------------------------------------------------------

    def message(self, message: dict[str, Any]) -> None:
        """Show one message. It comes from the container: whatever it is, it breaks nothing here."""
        content = message.get("content")
        kind = str(message.get("msg_type"))
        show = None if self._silent and kind != "input_request" else _SHOW.get(kind)
        if show is not None and isinstance(content, dict):
            show(self, content)

    def _stream(self, content: dict[str, Any]) -> None:
        self._write(str(content.get("name")), str(content.get("text", "")))

    def _display(self, content: dict[str, Any], *, update: bool = False) -> None:
        data = content.get("data")
        if not isinstance(data, dict):
            return
        transient = _dict(content.get("transient"))
        self._shell.display_pub.publish(
            data=data, metadata=_dict(content.get("metadata")), transient=transient, update=update
        )

    def _update(self, content: dict[str, Any]) -> None:
        self._display(content, update=True)

    def _clear(self, content: dict[str, Any]) -> None:
        if self.on_clear is not None:
            self.on_clear()
        self._shell.display_pub.clear_output(bool(content.get("wait")))

    def _error(self, content: dict[str, Any]) -> None:
        """Show a traceback as the shell shows its own: in a notebook, as an error output."""
        lines = content.get("traceback")
        name = str(content.get("ename") or "Exception")
        shown = [str(line) for line in lines] if isinstance(lines, list) else [name]
        kind = type(name.replace("\0", "") or "Exception", (Exception,), {})
        self._shell._showtraceback(kind, content.get("evalue", ""), shown)  # noqa: SLF001

    def _ask(self, content: dict[str, Any]) -> None:
        """Ask the person here, and answer; an interrupt meanwhile is the container's."""
        prompt = str(content.get("prompt", ""))
        ask = getpass.getpass if content.get("password") else input
        reply: dict[str, Any] = {"value": None}
        if not self._answers:
            self._reply({"value": None, "evalue": "nobody can be asked in the background"})
            return
        with contextlib.suppress(Exception):
            self.finish()
        try:
            with _raised_interrupts():
                reply["value"] = ask(prompt)
        except KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGINT)  # to the engine's handler, which is back in place
            return
        except Exception as error:  # noqa: BLE001  # EOFError, or a front end that can't ask
            reply["evalue"] = str(error) or "EOF when reading a line"
        self._reply(reply)

    def _reply(self, reply: dict[str, Any]) -> None:
        if self._container is not None:
            self._container.send({"msg_type": "input_reply", "content": reply})


_SHOW: Final = {
    "stream": Display._stream,  # noqa: SLF001
    "display_data": Display._display,  # noqa: SLF001
    "execute_result": Display._display,  # noqa: SLF001
    "update_display_data": Display._update,  # noqa: SLF001
    "clear_output": Display._clear,  # noqa: SLF001
    "error": Display._error,  # noqa: SLF001
    "input_request": Display._ask,  # noqa: SLF001
}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


@contextlib.contextmanager
def _raised_interrupts() -> Iterator[None]:
    """Have SIGINT raise KeyboardInterrupt for a while: the engine only takes note of it."""
    try:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
