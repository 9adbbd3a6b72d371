"""What a layer may have at most, so that none fills the disk, the memory or the day."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nscontainer.errors import LayerError
from nscontainer.image.compression import FREE_BYTES
from nscontainer.image.tarheader import Entry

_ENTRY_BYTES: Final = 600
"""What an entry takes of memory, without its name."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a layer may have at most; more is taken for a bomb.

    Parameters
    ----------
    bytes
        Of data written (a hole takes none); None: what the disk has free, which also holds otherwise.
    stream_bytes
        Of the tar, holes and all.
    ratio
        Bytes written for each byte of the compressed layer, beyond the first 64 MiB.
    entries
        Files, directories and all else.
    replaced
        Directories replaced by a later entry of the same name.
    name_bytes, name_parts
        Of one path; Linux opens none longer than 4096 at a time.
    header_bytes
        Of one entry's extended headers.
    kept_bytes
        Of memory for the directories' names and attributes.
    """

    bytes: int | None = 64 << 30
    stream_bytes: int = 1 << 40
    ratio: int = 1000
    entries: int = 2_000_000
    replaced: int = 1000
    name_bytes: int = 4096
    name_parts: int = 256
    header_bytes: int = 1 << 20
    kept_bytes: int = 1 << 30


class Budget:
    """A layer's use of its limits, so far.

    Parameters
    ----------
    top
        The open directory that is unpacked into: what its filesystem has free is a limit too.
    packed_bytes
        Tells how much of the compressed stream has been read; None where it isn't known.
    """

    def __init__(
        self, limits: Limits, top: int, packed_bytes: Callable[[], int] | None = None
    ) -> None:
        self._limits = limits
        self._packed_bytes = packed_bytes
        facts = os.fstatvfs(top)
        free = facts.f_bavail * facts.f_frsize
        self._room = free if limits.bytes is None else min(limits.bytes, free)
        self._kept = self._replaced = 0
        self.entries = self.written = 0

    def entry(self, entry: Entry, made: int, position: int) -> None:
        """Count an entry; ``made`` directories were nobody's, the stream is at ``position``."""
        self.entries += 1
        self.made(made)
        self.stream(position + entry.stored)
        if entry.kind == b"5":
            self._kept += _ENTRY_BYTES + 2 * len(entry.name)
            self._kept += sum(len(name) + len(value) for name, value in entry.xattrs.items())
            if self._kept > self._limits.kept_bytes:
                raise LayerError("the layer's directories have too many and too long names")

    def made(self, directories: int) -> None:
        """Look at how many entries there are, with so many directories made on the way."""
        if self.entries + directories > self._limits.entries:
            raise LayerError(f"the layer has more than {self._limits.entries} entries")

    def stream(self, position: int) -> None:
        """Look at how long the tar is."""
        if position > self._limits.stream_bytes:
            raise LayerError(f"the layer's tar has more than {self._limits.stream_bytes} bytes")

    def write(self, size: int, entry: Entry) -> None:
        """Count bytes that are about to be written."""
        self.written += size
        if self.written > self._room:
            message = f"{entry.shown}: with it the layer has more than {self._room} bytes"
            raise LayerError(message, entry=entry.shown, hint="free disk space, or a smaller image")
        if self._packed_bytes is not None and self.written > FREE_BYTES:
            packed = self._packed_bytes()
            if self.written > self._limits.ratio * packed:
                message = (
                    f"{entry.shown}: {self.written} bytes out of {packed} are taken for a bomb"
                )
                raise LayerError(message, entry=entry.shown)

    def replace(self) -> None:
        """Count a directory that makes way."""
        self._replaced += 1
        if self._replaced > self._limits.replaced:
            message = f"the layer replaces more than {self._limits.replaced} of its directories"
            raise LayerError(message)
