"""A cell's messages as the outputs that a notebook file keeps (nbformat 4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from nscontainer import bounded
from nscontainer.bounded import Bounded

Output = dict[str, Any]

DISPLAY_BYTES: Final = 64 << 20
"""How much the displays of a cell may have together in its result."""
_OVERHEAD: Final = 512
"""What an output costs apart from its content: a million empty ones are much too."""
_DISPLAYS: Final = ("display_data", "execute_result", "update_display_data")


class Outputs:
    """Takes Jupyter messages in order, and keeps the outputs that they make.

    Text of one stream that follows on itself becomes one output, an ``update_display_data`` changes
    what it names, and ``clear_output`` leaves nothing, as in the notebook. What are outputs already
    stay as they are.

    Parameters
    ----------
    text_bytes, display_bytes
        How much is kept of each stream, and of all displays and errors together; None is everything.
    """

    def __init__(self, text_bytes: int | None = None, display_bytes: int | None = None) -> None:
        self._most_text = text_bytes
        self._most_display = display_bytes
        self._clear_next = False
        self._clear()

    def _clear(self) -> None:
        self._outputs: list[Output] = []
        self._shown: dict[str, list[Output]] = {}
        self._streams: dict[str, Bounded] = {}
        self._display_bytes = 0
        self._left_out = 0
        self._clear_next = False

    def add(self, message: Mapping[str, Any]) -> None:
        """Take a message."""
        kind = message.get("msg_type")
        if kind is None:
            self._outputs.append(dict(message))
            return
        content = message.get("content") or {}
        if kind == "clear_output" and content.get("wait"):
            self._clear_next = True
            return
        shows = kind in (*_DISPLAYS[:2], "stream", "error")
        if kind == "clear_output" or (self._clear_next and shows):
            self._clear()
        if kind == "stream":
            self._stream(str(content.get("name", "stdout")), str(content.get("text", "")))
        elif kind in _DISPLAYS:
            self._display(str(kind), content)
        elif kind == "error":
            names = ("ename", "evalue", "traceback")
            self._append({"output_type": "error", **{n: content.get(n) for n in names}})

    def all(self) -> list[Output]:
        """Give the outputs. Nothing can be added afterwards."""
        for name, stream in self._streams.items():
            self._write(name, stream.rest())
        for output in self._outputs:
            text = output.get("text")
            if isinstance(text, bytearray):
                output["text"] = bounded.decode(text)
            elif isinstance(text, list):  # as a notebook file may have it
                output["text"] = "".join(text)
        if self._left_out:
            line = bounded.dropped(f"{self._left_out} displays")
            self._outputs.append({"output_type": "stream", "name": "stderr", "text": line})
        return self._outputs

    def _stream(self, name: str, text: str) -> None:
        if name not in self._streams:
            if len(self._streams) > 1 and self._most_text is not None:
                name = "stdout"  # there are two, whatever a container makes up
            self._streams.setdefault(name, Bounded(self._most_text))
        # Two streams in turn make an output of each letter.
        cost = 0 if self._follows(name) else _OVERHEAD
        self._write(name, self._streams[name].add(bounded.encode(text), cost))

    def _follows(self, name: str) -> bool:
        """Tell whether the last output is of this stream, and may grow."""
        last = self._outputs[-1] if self._outputs else {}
        return last.get("name") == name and isinstance(last.get("text"), bytearray)

    def _write(self, name: str, data: bytes) -> None:
        if not data:
            return
        if not self._follows(name):
            self._outputs.append({"output_type": "stream", "name": name, "text": bytearray()})
        self._outputs[-1]["text"] += data

    def _display(self, kind: str, content: Mapping[str, Any]) -> None:
        data, metadata = content.get("data") or {}, content.get("metadata") or {}
        display_id = (content.get("transient") or {}).get("display_id")
        if kind == "update_display_data":
            self._update(self._shown.get(str(display_id), ()), {"data": data, "metadata": metadata})
            return
        output = {"output_type": kind, "data": data, "metadata": metadata}
        if kind == "execute_result":
            output["execution_count"] = content.get("execution_count")
        if self._append(output) and display_id is not None:
            self._shown.setdefault(str(display_id), []).append(output)

    def _append(self, output: Output) -> bool:
        """Add an output, if there is room for it."""
        size = size_of(output)
        if self._over(size):
            self._left_out += 1
            return False
        self._display_bytes += size
        self._outputs.append(output)
        return True

    def _update(self, outputs: Iterable[Output], new: Output) -> None:
        for output in outputs:
            grows = size_of(new) - size_of({name: output[name] for name in new})
            if self._over(grows):
                self._left_out += 1
                return
            self._display_bytes += grows
            output.update(new)

    def _over(self, size: int) -> bool:
        return self._most_display is not None and self._display_bytes + size > self._most_display


def from_messages(messages: Iterable[Mapping[str, Any]]) -> list[Output]:
    """Turn Jupyter messages, in order, into outputs: all of them, whole."""
    outputs = Outputs()
    for message in messages:
        outputs.add(message)
    return outputs.all()


def size_of(value: Any) -> int:
    """Estimate what a decoded JSON value takes, in bytes; however deep it is."""
    size, todo = _OVERHEAD, [value]
    while todo:
        one = todo.pop()
        if isinstance(one, str):
            size += len(one)
        elif isinstance(one, Mapping):
            todo += [*one, *one.values()]
        elif isinstance(one, list | tuple):
            todo += one
        size += 8
    return size


def stream_text(outputs: Iterable[Mapping[str, Any]], name: str) -> str:
    """Give all the text of one stream (``stdout`` or ``stderr``)."""
    return "".join(
        str(output.get("text", ""))
        for output in outputs
        if output.get("output_type") == "stream" and output.get("name") == name
    )
