"""From a cell's messages to the notebook's output, as they come."""

from __future__ import annotations

import codecs
import contextlib
import getpass
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from nscontainer_magics import comms

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from nscontainer.engine.container import Container
    from nscontainer.sessions import Session
    from nscontainer_magics.comms import Comms

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
    container
        Whom to send answers to; :meth:`attach` tells of one that isn't there yet.
    channel
        What its widgets say it over.
    """

    def __init__(
        self,
        shell: InteractiveShell,
        *,
        container: Container | Session | None = None,
        channel: Comms | None = None,
    ) -> None:
        self._shell = shell
        self._container = container
        self._comms = channel
        self._shown_at = 0.0
        self._unflushed = False
        self._decoders = {
            name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")
        }
        self._kept = {"stdout": bytearray(), "stderr": bytearray()}

    def attach(self, container: Container | Session) -> None:
        """Remember whom to send answers to; a session gets what its widgets could not be told yet."""
        self._container = container
        self._comms = comms.of(self._shell, container)
        self._comms.deliver()

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
        stream = sys.stderr if name == "stderr" else sys.stdout
        try:
            stream.write(text)
        except UnicodeEncodeError:  # lone surrogates, or a terminal that isn't UTF-8
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        self._unflushed = True
        now = time.monotonic()
        if now - self._shown_at > _FLUSH_S:
            stream.flush()
            self._shown_at = now

    def finish(self) -> tuple[bytes, bytes]:
        """Show what is left, and see to the widgets; give what the descriptors said."""
        self.flush()
        if self._comms is not None:
            self._comms.deliver()
        return bytes(self._kept["stdout"]), bytes(self._kept["stderr"])

    def flush(self) -> None:
        """Show all that has come, also what is left of a cut character."""
        for name, decoder in self._decoders.items():
            rest = decoder.decode(b"", final=True)
            if rest:
                self._write(name, rest)
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        self._unflushed = False

    # --- messages ----------------------------------------------------------------------------

    def message(self, message: dict[str, Any]) -> None:
        """Show one message. It comes from the container: whatever it is, it breaks nothing here."""
        content = message.get("content")
        if not isinstance(content, dict):
            return
        kind = str(message.get("msg_type"))
        if kind in ("comm_open", "comm_msg", "comm_close"):
            if self._comms is not None:
                if self._unflushed:  # ipykernel's streams hold back what was said before it
                    self.flush()
                self._comms.take(message)
        elif kind in _SHOW:
            _SHOW[kind](self, content)

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
        with contextlib.suppress(Exception):
            self.flush()
        try:
            with _raised_interrupts():
                reply["value"] = ask(prompt)
        except KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGINT)  # to the engine's handler, which is back in place
            return
        except Exception as error:  # noqa: BLE001  # EOFError, or a front end that can't ask
            reply["evalue"] = str(error) or "EOF when reading a line"
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
