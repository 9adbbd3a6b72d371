"""The values of one cell: packed before its container is made, read when it has ended."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from nscontainer.errors import SpecError

if TYPE_CHECKING:
    from nscontainer.values.outfile import OutFile

Message = dict[str, Any]


class Transfer:
    """What goes into one cell and comes out of it, for as long as the context is.

    Parameters
    ----------
    inputs
        Values by name.
    out
        Expressions by name.
    trust
        Whether what comes out is unpickled.

    Attributes
    ----------
    request
        What to add to the cell's ``execute_request``.
    fds
        What to send along with it.
    """

    def __init__(
        self, inputs: Mapping[str, Any] | None, out: Mapping[str, str] | None, *, trust: bool
    ) -> None:
        self._inputs = dict(inputs or {})
        self._out = dict(out or {})
        self._trust = trust
        self._stack = contextlib.ExitStack()
        self._file: OutFile | None = None
        self._told: Message | None = None
        self.request: Message = {}
        self.fds: list[int] = []

    def __enter__(self) -> Self:
        """Pack what goes in.

        Raises
        ------
        SpecError
            One line: what can't be taken in, or asked for.
        """
        for name, expression in self._out.items():
            check_expression(name, expression)
        with self._stack:
            if self._inputs:
                self._add_inputs()
            if self._out:
                self._add_file()
            self._stack = self._stack.pop_all()
        return self

    def _add_inputs(self) -> None:
        from nscontainer.values import inputs

        packed = self._stack.enter_context(inputs.packed(self._inputs))
        self.request["inputs"] = packed.description
        self.fds.append(packed.fd)
        self._inputs.clear()

    def _add_file(self) -> None:
        from nscontainer.values.outfile import OutFile

        self._file = self._stack.enter_context(OutFile())
        self.request |= {"out": self._out, "trust": self._trust}
        self.fds.append(self._file.fd)

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def watch(self, on_message: Callable[[Message], None] | None) -> Callable[[Message], None]:
        """Give a sink that keeps the message about values and hands the others on."""

        def take(message: Message) -> None:
            if message.get("msg_type") == "values":
                self._told = message["content"]
            elif on_message is not None:
                on_message(message)

        return take

    def read(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Make the values of what the container has written, now that it has succeeded.

        Returns
        -------
        tuple[dict, dict]
            By name, the values; and why there is none.
        """
        if self._file is None:
            return {}, {}
        if self._told is None:
            return {}, dict.fromkeys(self._out, "the cell ended without giving its values")
        from nscontainer.values import decode
        from nscontainer.values.outfile import BadFileError

        try:
            buffers, tree = self._file.read(self._told)
        except (BadFileError, OSError, MemoryError) as error:
            return {}, dict.fromkeys(self._out, f"what the cell has written can't be read: {error}")
        return decode.results(self._out, tree, buffers, trust=self._trust)


def check_expression(name: str, expression: str) -> None:
    """Refuse what can't be evaluated.

    Raises
    ------
    SpecError
        One line.
    """
    from nscontainer.values.inputs import check_name

    check_name(name, "--out NAME=EXPRESSION")
    fault = fault_of(expression)
    if fault is not None:
        message = f"--out {name}: {expression!r} is no Python expression: {fault}"
        hint = "as --out 'n=len(x)': NAME=EXPRESSION, quoted where it has a space"
        raise SpecError(message, hint=hint)


def fault_of(expression: str) -> str | None:
    """Say why a text is no expression; None where it is one."""
    try:
        ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return str(getattr(error, "msg", error))
    return None
