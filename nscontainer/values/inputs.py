"""What goes into a container: the notebook's own values, as pickles with their buffers beside them."""

from __future__ import annotations

import contextlib
import difflib
import io
import keyword
import os
import pickle
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from nscontainer.errors import SpecError
from nscontainer.runner.encode import apart
from nscontainer.runner.values import places, write_at
from nscontainer.values import memory

_KINDS: Final = (types.FunctionType, type)


@dataclass(frozen=True, slots=True)
class Inputs:
    """A file with values in it, ready to be sent."""

    fd: int
    """Open for reading only."""
    description: dict[str, Any]
    """As :class:`nscontainer.runner.values.Carrier` takes it."""


def check_name(name: str, option: str) -> None:
    """Refuse what can't be a variable's name.

    Raises
    ------
    SpecError
        One line.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        message = f"{name!r} can't be a variable's name"
        raise SpecError(message, hint=f"as {option}")


def look_up(names: Mapping[str, str], namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Give the values of variables.

    Parameters
    ----------
    names
        The name inside, and whose value it gets.
    namespace
        The notebook's variables.

    Raises
    ------
    SpecError
        There is no variable of a name.
    """
    values = {}
    for inside, name in names.items():
        if name not in namespace:
            close = difflib.get_close_matches(name, [str(key) for key in namespace], 1)
            message = f"there is no variable {name!r} to take into the container"
            raise SpecError(
                message, hint=f"did you mean {close[0]}?" if close else "define it first"
            )
        values[inside] = namespace[name]
    return values


@contextlib.contextmanager
def packed(values: Mapping[str, Any]) -> Iterator[Inputs]:
    """Put values, one at least, into a file that is there for as long as the context is.

    Raises
    ------
    SpecError
        One of them can't be taken into a container: which, what it is, and why.
    """
    stream = io.BytesIO()
    buffers: list[memoryview] = []
    for name in values:
        check_name(name, "-i NAME")
    # One pickler for all: what two variables share is sent once, and shared inside, too.
    pickler = _Pickler(stream, protocol=5, buffer_callback=apart(buffers))
    for name, value in values.items():
        _pickle(pickler, name, value)
    description = {
        "names": list(values),
        "pickle": stream.tell(),
        "buffers": [view.nbytes for view in buffers],
    }
    fd = _written([stream.getbuffer(), *buffers])
    try:
        yield Inputs(fd, description)
    finally:
        os.close(fd)


def _written(views: list[memoryview]) -> int:
    begins, end = places([view.nbytes for view in views])
    fd = memory.new_file(end)
    try:
        os.ftruncate(fd, end)
        for at, view in zip(begins, views, strict=True):
            write_at(fd, view, at)
        return memory.for_reading(fd)
    finally:
        os.close(fd)


class _UnfitError(Exception):
    """Something in a value can't be made in the container; the text says what, and what to do."""


class _Pickler(pickle.Pickler):
    """Finds what has no meaning elsewhere."""

    def reducer_override(self, thing: Any) -> Any:
        """Refuse what pickle would only name: the container's ``__main__`` is the cell, not the notebook."""
        if isinstance(thing, _KINDS) and getattr(thing, "__module__", None) == "__main__":
            kind = "class" if isinstance(thing, type) else "function"
            raise _UnfitError(
                f"{kind} {thing.__qualname__} is defined in the notebook, and only its name would go in"
            )
        if isinstance(thing, types.ModuleType):
            raise _UnfitError(f"{thing.__name__} is a module: import it in the cell")
        return NotImplemented


def _pickle(pickler: _Pickler, name: str, value: Any) -> None:
    try:
        pickler.dump(value)
    except _UnfitError as error:
        message = f"variable {name!r} can't be taken into the container: {error}"
        raise SpecError(message, hint=_hint(value)) from None
    except Exception as error:  # noqa: BLE001  # whatever its __reduce__ raises
        kind = type(value)
        what = kind.__qualname__
        if kind.__module__ != "builtins":
            what = f"{kind.__module__}.{what}"
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        message = f"variable {name!r}, a {what}, can't be taken into the container: {reason}"
        raise SpecError(message, hint="take what it is made of, and make it in the cell") from None


def _hint(value: Any) -> str:
    if isinstance(value, types.ModuleType):
        return f"write: import {value.__name__}"
    return "define it in the cell, or in a module beside the notebook"
