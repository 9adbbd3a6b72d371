"""From a cell's messages to the notebook's output, as they come."""

from __future__ import annotations

import codecs
import contextlib
import getpass
import html
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from nscontainer import bounded
from nscontainer.bounded import Bounded, Kept
from nscontainer.measure.outputs import DISPLAY_BYTES, size_of
from nscontainer_magics import comms

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from nscontainer.engine.container import Container
    from nscontainer.sessions import Session
    from nscontainer_magics.comms import Comms

_FLUSH_S: Final = 0.05
"""ipykernel holds output back for 0.2 s: what comes after a pause is shown at once instead."""
_FLUSH_CHARACTERS: Final = 256 << 10
"""What it holds back takes four bytes a character, and as much again when it is sent."""
SHOWN_BYTES: Final = 8 << 20
"""How much of each stream a cell shows, but for the end."""


class Display:
    """Shows what a container says in the output of the cell that runs it.

    Parameters
    ----------
    shell
        The notebook's, or a terminal's.
    most
        How many bytes of each stream are shown, but for the end; None shows all.
    container
        Whom to send answers to; :meth:`attach` tells of one that isn't there yet.
    channel
        What its widgets say it over.
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
        self,
        shell: InteractiveShell,
        most: int | None = SHOWN_BYTES,
        *,
        container: Container | Session | None = None,
        channel: Comms | None = None,
        silent: bool = False,
        answers: bool = True,
    ) -> None:
        self._shell = shell
        self._silent = silent
        self._answers = answers
        self.before_write: Callable[[], None] | None = None
        self.on_clear: Callable[[], None] | None = None
        self._line_begun = False
        # What they are now: another thread mustn't print into another cell's %%capture.
        self._streams = {"stdout": sys.stdout, "stderr": sys.stderr}
        self._publisher = shell.display_pub
        self._container = container
        self._comms = channel
        self._unflushed = False
        self._shown_at = 0.0
        self._held_back = 0
        self._decoders = {
            name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")
        }
        self._kept = {"stdout": Kept(), "stderr": Kept()}
        self._most = most
        self._show_from_now()

    def _show_from_now(self) -> None:
        self._shown = {name: Bounded(self._most) for name in ("stdout", "stderr")}
        self._displayed = self._left_out = 0

    def attach(self, container: Container | Session) -> None:
        """Remember whom to send answers to; a session gets what its widgets could not be told yet."""
        self._container = container
        if not self._silent:
            self._comms = comms.of(self._shell, container)
            self._comms.deliver()

    def writes_to(self, stream: object) -> bool:
        """Whether what the cell prints goes there."""
        return self._streams["stdout"] is stream

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
        self._kept[name].add(data)
        self._text(name, self._decoders[name].decode(data))

    def _text(self, name: str, text: str) -> None:
        """Show text, or what there is room for."""
        shown = self._shown["stderr" if name == "stderr" else "stdout"]
        through = shown.add(bounded.encode(text))
        if through:
            self._write(name, bounded.decode(through))

    def _make_way(self) -> None:
        if self.before_write is not None:
            self.before_write()

    def _write(self, name: str, text: str) -> None:
        if self._silent or not text:
            return
        self._make_way()
        self._line_begun = not text.endswith("\n")
        stream = self._streams["stderr" if name == "stderr" else "stdout"]
        stream.write(encodable(text, stream))
        self._unflushed = True
        now = time.monotonic()
        self._held_back += len(text)
        if now - self._shown_at > _FLUSH_S or self._held_back > _FLUSH_CHARACTERS:
            stream.flush()
            self._shown_at, self._held_back = now, 0

    def finish(self) -> tuple[bytes, bytes]:
        """Show the end of what there was no room for; give what the descriptors said."""
        self.flush()
        for name, shown in self._shown.items():
            rest = shown.rest()
            if rest:
                self._write(name, bounded.decode(rest))
        if self._left_out:
            self._write("stderr", bounded.dropped(f"{self._left_out} displays"))
        self._show_from_now()
        self.flush()
        if self._comms is not None:
            self._comms.deliver()
        return self._kept["stdout"].value(), self._kept["stderr"].value()

    def flush(self) -> None:
        """Show all that has come, also what is left of a cut character."""
        for name, decoder in self._decoders.items():
            self._text(name, decoder.decode(b"", final=True))
        for stream in self._streams.values():
            with contextlib.suppress(Exception):
                stream.flush()
        self._unflushed = False

    # --- messages ----------------------------------------------------------------------------

    def message(self, message: dict[str, Any]) -> None:
        """Show one message. It comes from the container: whatever it is, it breaks nothing here."""
        content = message.get("content")
        if not isinstance(content, dict):
            return
        kind = str(message.get("msg_type"))
        if self._silent and kind != "input_request":  # that one waits for an answer
            return
        if kind in ("comm_open", "comm_msg", "comm_close"):
            if self._comms is not None:
                if self._unflushed:  # ipykernel's streams hold back what was said before it
                    self.flush()
                self._comms.take(message)
        elif kind in _SHOW:
            _SHOW[kind](self, content)

    def _stream(self, content: dict[str, Any]) -> None:
        self._text(str(content.get("name")), str(content.get("text", "")))

    def _display(self, content: dict[str, Any], *, update: bool = False) -> None:
        data = content.get("data")
        if not isinstance(data, dict):
            return
        if self._most is not None and not update:
            self._displayed += size_of(data)
            if self._displayed > DISPLAY_BYTES:
                self._left_out += 1
                return
        transient = _dict(content.get("transient"))
        self._make_way()
        publish(
            self._publisher,
            data,
            metadata=_dict(content.get("metadata")),
            transient=transient,
            update=update,
        )

    def _update(self, content: dict[str, Any]) -> None:
        self._display(content, update=True)

    def _clear(self, content: dict[str, Any]) -> None:
        self._show_from_now()
        if self.on_clear is not None:
            self.on_clear()
        self._publisher.clear_output(bool(content.get("wait")))

    def _error(self, content: dict[str, Any]) -> None:
        """Show a traceback as the shell shows its own: in a notebook, as an error output."""
        lines = content.get("traceback")
        name = str(content.get("ename") or "Exception")
        told = [str(line) for line in lines] if isinstance(lines, list) else [name]
        shown = [encodable(line, self._streams["stdout"]) for line in told]
        self._make_way()
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
        self.flush()
        self._make_way()
        try:
            with _raised_interrupts():
                reply["value"] = ask(encodable(prompt, self._streams["stdout"]))
        except KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGINT)  # to the engine's handler, which is back in place
            return
        except Exception as error:  # noqa: BLE001  # EOFError, or a front end that can't ask
            reply["evalue"] = str(error) or "EOF when reading a line"
        self._reply(reply)

    def _reply(self, reply: dict[str, Any]) -> None:
        if self._container is not None:
            self._container.send({"msg_type": "input_reply", "content": reply})


def encodable(text: str, stream: Any) -> str:
    """Give what a stream can print of a text: a terminal needn't be UTF-8, and there are surrogates."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def publish(publisher: Any, data: dict[str, Any], **more: Any) -> None:
    """Publish data, in a terminal as far as that can print it."""
    try:
        publisher.publish(data=data, **more)
    except UnicodeEncodeError:
        text = encodable(str(data.get("text/plain", "")), sys.stdout)
        publisher.publish(data={**data, "text/plain": text}, **more)


def replies(outputs: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give outputs, as a notebook file keeps them, as the messages that they once were."""
    for output in outputs:
        content = {name: value for name, value in output.items() if name != "output_type"}
        yield {"msg_type": str(output.get("output_type")), "content": content}


def say_recorded(publisher: Any, told: str) -> None:
    """Show the line that says that something is recorded."""
    marked = (
        '<div style="border-left:4px solid #E69F00;padding-left:8px">'
        f"<em>{html.escape(told)}</em></div>"
    )
    publish(publisher, {"text/plain": told, "text/html": marked}, metadata={})


class Place:
    """One display, renewed in its place; nothing is there before the first time."""

    def __init__(self, publisher: Any) -> None:
        self._publisher = publisher
        self._id: str | None = None

    @property
    def taken(self) -> bool:
        """Whether anything is shown there."""
        return self._id is not None

    def show(self, data: dict[str, str]) -> None:
        """Show this there."""
        update = self._id is not None
        self._id = self._id or uuid.uuid4().hex
        self._publisher.publish(
            data=data, metadata={}, transient={"display_id": self._id}, update=update
        )

    def say(self, text: str) -> None:
        """Show one line there."""
        line = f'<pre style="margin:0;padding:0">{html.escape(text)}</pre>'
        self.show({"text/plain": text, "text/html": line})

    def let_go(self) -> None:
        """Leave what is shown there; what comes next has another place."""
        self._id = None


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
