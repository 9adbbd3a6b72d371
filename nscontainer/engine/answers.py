"""What a monitor answers, as it sends it and as its owner has it: an exit record, or an error to raise."""

from __future__ import annotations

from typing import Any

from nscontainer import errors
from nscontainer.engine import wire
from nscontainer.errors import EngineError, HostError, NsContainerError, SetupError


def exit_record(message: wire.Message) -> dict[str, Any]:
    """Take the record out of an exit event."""
    record = message.get("record")
    if record is None:
        message_ = "the container ended before its code was let go"
        raise EngineError(message_)
    return dict(record)


def rebuild_error(message: wire.Message) -> NsContainerError:
    """Make the exception that a ``failed`` message describes."""
    kind = getattr(errors, str(message.get("kind")), EngineError)
    if kind is SetupError:
        error = SetupError(
            message["stage"], message["op"], message["path"], message["errno"],
            hint=message.get("hint"),
        )  # fmt: skip
        error.message = str(message["message"])
        error.args = (error.message,)
        return error
    made: NsContainerError = kind(str(message["message"]), hint=message.get("hint"))
    if isinstance(made, HostError):
        made.row = message.get("row")
    return made


def failure(error: NsContainerError) -> wire.Message:
    """Describe an error so that :func:`rebuild_error` can raise it."""
    message: wire.Message = {
        "event": "failed",
        "kind": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
    }
    if isinstance(error, HostError):
        message["row"] = error.row
    if isinstance(error, SetupError):
        message |= {
            "stage": error.stage,
            "op": error.op,
            "path": error.path,
            "errno": error.errno,
        }
    return message
