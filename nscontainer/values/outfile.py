"""The file that a container writes its values to, and what is read from it when it has ended.

The file is ours: no descriptor comes out of a container that would have to be looked at. Its pages are
the container's, charged to its memory limit.
"""

from __future__ import annotations

import os
from typing import Any, Final, Self

from nscontainer.values import memory

MOST_TREE: Final = 256 << 20
"""So many bytes of JSON are read, as of any message (:mod:`nscontainer.engine.pump`)."""
_BLOCK: Final = 512  # st_blocks' unit: stat(2)


class BadFileError(ValueError):
    """What a container has written is none of what it was to write."""


class OutFile:
    """A file for a container to write to, for as long as the context is."""

    def __init__(self) -> None:
        self.fd = memory.new_file(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def read(self, content: dict[str, Any]) -> tuple[memoryview, memoryview]:
        """Map what was written, once its container has ended; nobody can change it any more.

        Parameters
        ----------
        content
            Of the runner's ``values`` message: ``at`` and ``size`` of the tree, or ``error``.

        Returns
        -------
        tuple[memoryview, memoryview]
            The buffers, which may be written to, and the tree.

        Raises
        ------
        BadFileError
            It can't be what our runner writes.
        """
        if "error" in content:
            raise BadFileError(str(content["error"])[:500])
        at, size = content.get("at"), content.get("size")
        status = os.fstat(self.fd)
        if not (type(at) is type(size) is int and at >= 0 and 0 < size <= MOST_TREE):
            raise BadFileError(f"a description of {size!r} bytes at {at!r} is none that is read")
        if at + size > status.st_size:
            raise BadFileError(
                f"its file has {status.st_size} bytes, and {at + size} are spoken of"
            )
        os.ftruncate(self.fd, at + size)
        self._check_no_holes(at + size)
        whole = self._settled(at + size)
        return whole[:at], whole[at:]

    def _check_no_holes(self, size: int) -> None:
        """Refuse a file of holes: its pages would come to exist here, when they are read."""
        if os.fstat(self.fd).st_blocks * _BLOCK < size:
            raise BadFileError(f"of its file's {size} bytes not all were written")

    def _settled(self, size: int) -> memoryview:
        reader = memory.for_reading(self.fd)
        os.close(self.fd)
        self.fd = -1
        try:
            if memory.is_written_by_nobody(reader):
                return memory.copy_on_write(reader, size)
            # It has been handed on to a process outside of the container: what is read is read once.
            return memory.copied(reader, size)
        finally:
            os.close(reader)
