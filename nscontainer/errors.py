"""Everything that can go wrong, as types.

The text of an error says what was wrong and with which value; ``hint`` says how to mend it. The
library raises these; only the front ends (CLI, magics) print them, with :func:`one_line`.
"""

from __future__ import annotations

import os

from nscontainer import rows


class NsContainerError(Exception):
    """Base of every error that nscontainer raises on purpose.

    Parameters
    ----------
    message
        What was wrong, with the value: lower case, no full stop.
    hint
        How to mend it, or None where there is nothing to say.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # Exception's own __reduce__ would call cls(*args) and lose the keywords.
        return (_rebuild, (type(self), self.args, self.__dict__.copy()))


def _rebuild(
    cls: type[NsContainerError], args: tuple[object, ...], state: dict[str, object]
) -> NsContainerError:
    error = cls.__new__(cls, *args)
    Exception.__init__(error, *args)
    error.__dict__.update(state)
    return error


class SpecError(NsContainerError, ValueError):
    """An option or a spec field has a value that can't be used; nothing has been made yet."""


class _AboutHostError(NsContainerError):
    """What ``nscontainer doctor`` has a row for."""

    _row: str | None = None

    @property
    def row(self) -> str | None:
        """The row of ``nscontainer doctor`` that it comes from; None where the host isn't at fault."""
        return self._row or rows.of_traceback(self.__traceback__)

    @row.setter
    def row(self, row: str | None) -> None:
        self._row = row


class HostError(_AboutHostError):
    """The host lacks something that was asked for: a facility, a privilege, a controller.

    Parameters
    ----------
    row
        The doctor's row, where the module that raises it doesn't tell (:mod:`nscontainer.rows`).
    """

    def __init__(self, message: str, *, hint: str | None = None, row: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self._row = row


class NotFoundError(NsContainerError, LookupError):
    """No container (or image) of that name or id."""


class StateError(NsContainerError):
    """The container exists but is in the wrong state for this (or the name is taken)."""


class EngineError(NsContainerError):
    """The engine itself failed: a spawner or a monitor died, or answered out of turn."""


class SetupError(_AboutHostError):
    """A step of a container's set-up was refused by the kernel.

    Parameters
    ----------
    stage
        The step's name, as in :data:`nscontainer.engine.stages.STAGES`.
    op
        The system call or operation.
    path
        What it was applied to, or None.
    errno
        The kernel's error number, or 0 where the failure was not a system call's.
    """

    def __init__(
        self,
        stage: str,
        op: str,
        path: str | None,
        errno: int,
        *,
        detail: str | None = None,
        hint: str | None = None,
    ) -> None:
        reason = detail or os.strerror(errno)
        where = f" {path}" if path else ""
        super().__init__(f"container set-up failed at {stage}: {op}{where}: {reason}", hint=hint)
        self.stage = stage
        self.op = op
        self.path = path
        self.errno = errno
        self._row = rows.of_step(stage, op)


class CommandError(NsContainerError):
    """The user's command could not be executed (Docker's exit codes 126 and 127)."""

    def __init__(self, message: str, *, exit_code: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class BuildError(NsContainerError):
    """A step of an image's build failed; the message names the step and the last that it said."""

    def __init__(self, message: str, *, exit_code: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class TransferError(NsContainerError):
    """A value that was to come out of a container can't; the message names each such, and why.

    Parameters
    ----------
    refused
        The reasons, by name.

    Attributes
    ----------
    result
        The run's :class:`~nscontainer.RunResult`, with the values that did come out.
    """

    result: object = None

    def __init__(self, refused: dict[str, str]) -> None:
        super().__init__("; ".join(f"--out {name}: {why}" for name, why in refused.items()))
        self.refused = refused


class ImageError(NsContainerError):
    """An image, or what was to become one, can't be used: damaged, incomplete, of a kind not done."""


class LayerError(ImageError):
    """A layer's tar is refused: nothing of it is kept.

    Parameters
    ----------
    entry
        The name of the tar's entry that is at fault, or "" where it is the tar as a whole.
    """

    def __init__(self, message: str, *, entry: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.entry = entry


class RegistryError(NsContainerError):
    """A registry refused, failed, or sent something other than what was asked for.

    Parameters
    ----------
    reason
        One word for programs: ``unreachable``, ``tls``, ``not-found``, ``unauthorized``,
        ``rate-limited``, ``refused``, ``failed`` (the server's own fault), ``digest`` (what came is
        not what its digest says) or ``unsupported``. A full disk is a :class:`HostError`.
    status
        The HTTP status, where there was one.
    """

    def __init__(
        self, message: str, *, reason: str, status: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.status = status


def one_line(error: BaseException) -> str:
    """Render an error as the one line a front end prints: what was wrong, then how to mend it.

    Where it is the host's, the doctor's row comes last.
    """
    hint = getattr(error, "hint", None)
    row = getattr(error, "row", None)
    if row is not None and "nscontainer doctor" not in (hint or ""):
        see = f"nscontainer doctor {rows.key(row)}"
        hint = f"{hint}; {see}" if hint else see
    text = str(error) or type(error).__name__
    return f"{text} ({hint})" if hint else text
