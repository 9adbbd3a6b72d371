"""Where the members of an archive begin, read from its headers alone.

The names are only ever compared, never opened.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

from nscontainer.errors import ImageError, LayerError
from nscontainer.image import tarheader, tarstream

MOST_MEMBERS: Final = 200_000
_MAX_HEADER_BYTES: Final = 1 << 20
_MOST_LINKS: Final = 8
_READ_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file of the archive, by where its content is, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Index:
    """An archive's regular files and links, by name without a leading ``./``."""

    members: Mapping[str, Member]
    links: Mapping[str, str]
    """Hard and symbolic links of the archive: the name of what each stands for."""

    def find(self, name: str) -> Member | None:
        """Give a regular file, through the archive's own links; None where there is none."""
        for _ in range(_MOST_LINKS):
            if name in self.members:
                return self.members[name]
            if name not in self.links:
                return None
            name = self.links[name]
        return None


class _Seeking(tarstream.Source):
    """Passes over data without reading it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._end = file.seek(0, 2)
        file.seek(0)
        super().__init__(self)

    def read(self, _: int = -1, /) -> bytes:
        return self._file.read(_READ_BYTES)

    def skip(self, size: int) -> None:
        if self.position + size > self._end:
            raise LayerError(f"it is cut short, at {self._end} bytes")
        self.position += size
        self._data, self._at = b"", 0
        self._file.seek(self.position)


def read(file: BinaryIO, what: str) -> Index:
    """Read all headers of an uncompressed tar that can be seeked in.

    Parameters
    ----------
    what
        What errors call it: its path.

    Raises
    ------
    ImageError
        It is no tar, is cut short, or has more members than an archive of images could have.
    """
    members: dict[str, Member] = {}
    links: dict[str, str] = {}
    count = 0
    try:
        stream = _Seeking(file)
        reader = tarstream.Reader(stream, max_header_bytes=_MAX_HEADER_BYTES)
        while (entry := reader.next()) is not None:
            count += 1
            if count > MOST_MEMBERS:
                raise LayerError(f"more than {MOST_MEMBERS} members: no archive of images")
            name = _plain(entry.name)
            members.pop(name, None)  # the last of a name counts
            links.pop(name, None)
            if entry.kind == tarheader.FILE:
                if entry.sparse is not None:
                    raise LayerError(f"{entry.shown} is stored as a sparse file")
                members[name] = Member(stream.position, entry.size)
            elif entry.kind == tarheader.SYMLINK:
                links[name] = _plain(posixpath.join(posixpath.dirname(entry.name), entry.link))
            elif entry.kind == tarheader.HARD_LINK:
                links[name] = _plain(entry.link)
            stream.skip(entry.stored + tarstream.padding(entry.stored))
    except LayerError as error:
        raise ImageError(f"{what} is no archive of images: {error}") from None
    return Index(members, links)


def _plain(name: bytes) -> str:
    return posixpath.normpath(name.decode("utf-8", "surrogateescape")).lstrip("/")
