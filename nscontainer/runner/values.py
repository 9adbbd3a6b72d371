"""Values that come with a cell, and those that it leaves: by two files in memory.

What comes in is the notebook's own and trusted: pickle 5, its buffers mapped copy-on-write, so that an
array is there without being copied. What goes out is a tree of JSON and buffers (:mod:`.encode`),
written to a file that the owner made: no descriptor leaves the container.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import pickle
from typing import Any

from .encode import Buffer, Encoder, Refused

ALIGN = 64
"""Each buffer begins at a multiple of so many bytes."""
MOST_AT_ONCE = 64 << 20
"""So many bytes are written or read by one call: between two of them an interrupt can come."""


class InputError(Exception):
    """A value that came with the cell can't be made here; the text says which and why."""


InputError.__module__ = "builtins"  # as a traceback shows it: without this module's name


class Carrier:
    """Carries a cell's values, both ways.

    Parameters
    ----------
    content
        The request's: ``inputs`` describes the file that they come in: ``names``, ``pickle`` (bytes
        of the pickles at its beginning, one a name) and ``buffers`` (bytes of each, behind them, each
        at the next multiple of :data:`ALIGN`). ``out`` has expressions, by the name under which their
        values go out. ``trust`` tells whether the owner unpickles: then they go out as pickles.
    fds
        The descriptors that came with it: of the file for ``inputs``, of the file for ``out``.
    """

    def __init__(self, content: dict[str, Any], fds: list[int]) -> None:
        self._inputs: dict[str, Any] | None = content.get("inputs")
        self.asked: dict[str, str] = content.get("out") or {}
        self._trust = bool(content.get("trust"))
        self._from = fds.pop(0) if self._inputs else -1
        self._to = fds.pop(0) if self.asked else -1
        self._file = _identity(self._to)

    def take(self) -> dict[str, Any]:
        """Give the values that came with the cell, by name.

        Raises
        ------
        InputError
            One line.
        """
        if not self._inputs:
            return {}
        try:
            whole = memoryview(mmap.mmap(self._from, 0, access=mmap.ACCESS_COPY))
        except (OSError, MemoryError) as error:
            message = f"the variables can't be mapped: {reason(error)}"
            raise InputError(message) from None
        finally:
            os.close(self._from)
        size, sizes = self._inputs["pickle"], self._inputs["buffers"]
        _, *begins = places([size, *sizes])[0]
        buffers = [whole[at : at + n] for at, n in zip(begins, sizes)]  # noqa: B905  # as below
        # One unpickler for all: what two variables share, they share here, too.
        unpickler = pickle.Unpickler(io.BytesIO(whole[:size]), buffers=buffers)  # noqa: S301  # the owner's
        values = {}
        for name in self._inputs["names"]:
            try:
                values[name] = unpickler.load()
            except Exception as error:  # noqa: BLE001  # an import that fails, say: it may be anything
                message = f"variable {name!r} can't be made in the container: {reason(error)}"
                raise InputError(message) from None
        return values

    def give(self, namespace: dict[str, Any]) -> dict[str, Any]:
        """Evaluate what is asked for and write the values to the owner's file.

        Returns
        -------
        dict
            Where in the file the tree stands: ``at`` and ``size``, in bytes; it has, by name, a node
            or the reason why there is none. Or ``error``, why the file couldn't be written.
        """
        encoder = Encoder(trust=self._trust)
        values: dict[str, Any] = {}
        refused: dict[str, str] = {}
        for name, expression in self.asked.items():
            before = len(encoder.buffers)
            try:
                code = compile(expression.strip(), f"<--out {name}>", "eval")
                values[name] = encoder.encode(eval(code, namespace))  # noqa: S307  # the cell's own
            except Refused as error:
                refused[name] = str(error)
            except RecursionError:
                refused[name] = "it is nested too deeply, or contains itself"
            except Exception as error:  # noqa: BLE001  # the cell's expression may raise anything
                refused[name] = reason(error)
            if name in refused:
                del encoder.buffers[before:]
        tree = json.dumps({"values": values, "refused": refused}, separators=(",", ":")).encode()
        try:
            at = self._write([*encoder.buffers, Buffer(len(tree), lambda: memoryview(tree))])
        except (OSError, MemoryError) as error:
            return {"error": reason(error)}
        return {"at": at, "size": len(tree)}

    def close(self) -> None:
        """Close the file that values leave by, where the cell has left it alone."""
        if self._to >= 0 and _identity(self._to) == self._file:
            os.close(self._to)

    def _write(self, buffers: list[Buffer]) -> int:
        """Write each at the next multiple of :data:`ALIGN`; gives where the last one begins."""
        if _identity(self._to) != self._file:
            message = f"the cell has closed file descriptor {self._to}, which values leave by"
            raise OSError(message)
        at, end = places([buffer.size for buffer in buffers])
        os.ftruncate(self._to, end)  # the size tells Linux whether huge pages would fit
        for place, buffer in zip(at, buffers):  # noqa: B905  # strict= is Python >= 3.10
            if buffer.size:
                write_at(self._to, buffer.get(), place)
        return at[-1]


def _identity(fd: int) -> tuple[int, int] | None:
    """Tell one file from others: a cell may close descriptors, and open files of its own on them."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def places(sizes: list[int]) -> tuple[list[int], int]:
    """Give where buffers of these sizes begin in a file, one after another, and where the last ends."""
    begins, end = [], 0
    for size in sizes:
        begins.append(end + -end % ALIGN)
        end = begins[-1] + size
    return begins, end


def write_at(fd: int, view: memoryview, at: int) -> None:
    """Write bytes at a place of a file."""
    done = 0
    while done < view.nbytes:
        done += os.pwrite(fd, view[done : done + MOST_AT_ONCE], at + done)


def reason(error: BaseException) -> str:
    """Say in one line what an error is."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001  # its own __str__ may fail
        text = ""
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__
