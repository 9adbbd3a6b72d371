"""A cell's messages as the outputs that a notebook file keeps (nbformat 4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

Output = dict[str, Any]

_DISPLAYS: Final = ("display_data", "execute_result", "update_display_data")


def from_messages(messages: Iterable[Mapping[str, Any]]) -> list[Output]:
    """Turn Jupyter messages, in order, into outputs; what are outputs already stay as they are.

    Text of one stream that follows on itself becomes one output, an ``update_display_data`` changes
    what it names, and ``clear_output`` leaves nothing, as in the notebook.
    """
    outputs: list[Output] = []
    shown: dict[str, list[Output]] = {}
    clear_next = False
    for message in messages:
        kind = message.get("msg_type")
        if kind is None:
            outputs.append(dict(message))
            continue
        content = message.get("content") or {}
        if kind == "clear_output" and content.get("wait"):
            clear_next = True
            continue
        if kind == "clear_output" or (clear_next and kind in (*_DISPLAYS[:2], "stream", "error")):
            outputs.clear()
            shown.clear()
            clear_next = False
        if kind in _DISPLAYS:
            _display(outputs, shown, str(kind), content)
        elif kind == "stream":
            _stream(outputs, content)
        elif kind == "error":
            names = ("ename", "evalue", "traceback")
            outputs.append({"output_type": "error", **{n: content.get(n) for n in names}})
    for output in outputs:
        if isinstance(output.get("text"), list):
            output["text"] = "".join(output["text"])
    return outputs


def _stream(outputs: list[Output], content: Mapping[str, Any]) -> None:
    name, text = content.get("name", "stdout"), str(content.get("text", ""))
    last = outputs[-1] if outputs else {}
    same = last.get("output_type") == "stream" and last.get("name") == name
    if same and isinstance(last.get("text"), list):
        last["text"].append(text)  # joined at the end: adding would copy all of it each time
    elif same:
        last["text"] = [last["text"], text]
    else:
        outputs.append({"output_type": "stream", "name": name, "text": [text]})


def _display(
    outputs: list[Output], shown: dict[str, list[Output]], kind: str, content: Mapping[str, Any]
) -> None:
    data, metadata = content.get("data") or {}, content.get("metadata") or {}
    display_id = (content.get("transient") or {}).get("display_id")
    if kind == "update_display_data":
        for output in shown.get(str(display_id), ()):
            output |= {"data": data, "metadata": metadata}
        return
    output = {"output_type": kind, "data": data, "metadata": metadata}
    if kind == "execute_result":
        output["execution_count"] = content.get("execution_count")
    outputs.append(output)
    if display_id is not None:
        shown.setdefault(str(display_id), []).append(output)


def stream_text(outputs: Iterable[Mapping[str, Any]], name: str) -> str:
    """Give all the text of one stream (``stdout`` or ``stderr``)."""
    return "".join(
        str(output.get("text", ""))
        for output in outputs
        if output.get("output_type") == "stream" and output.get("name") == name
    )
