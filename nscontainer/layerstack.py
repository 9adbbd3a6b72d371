"""The layers of a container or an image, file by file: what is seen, and what lies hidden below it.

overlayfs shows of each path what the topmost layer has. What is below stays on disk: *shadowed* by a
newer file, or *deleted* by a whiteout (a character device 0/0), an opaque directory, or a file that
took a directory's place (Documentation/filesystems/overlayfs.rst).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from nscontainer.image.tree import is_opaque, is_whiteout
from nscontainer.linux.syscalls import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

if TYPE_CHECKING:
    from pandas import DataFrame

LayerKind = Literal["base", "image", "init", "rw"]
Kind = Literal["visible", "shadowed", "deleted", "whiteout", "opaque"]
KINDS: Final[tuple[Kind, ...]] = ("visible", "shadowed", "deleted", "whiteout", "opaque")

_NO_LINKS: Final = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Source:
    """Where a layer's files are.

    Parameters
    ----------
    name
        What to call it: the image for a base, else what made it.
    parts
        Pairs of a path in the container (``""`` for its root) and the directory that has that
        part of the layer, in overlayfs' form.
    digest
        Of the layer's tar (its diffID), where it is one of an image.
    listed
        False for the built-in ``host``: all of this machine is not walked through, but what the
        layers above it shadow is looked up.
    known
        Files that are there though no directory of ours has them: the init layer's, on another
        process's tmpfs.
    shows
        Whether a path of an unlisted layer is seen in a container at all.
    skip
        Paths in the container that are the engine's own: mount points that it made.
    """

    name: str
    kind: LayerKind
    parts: tuple[tuple[str, str], ...] = ()
    digest: str = ""
    listed: bool = True
    known: tuple[str, ...] = ()
    shows: Callable[[str], bool] | None = None
    skip: frozenset[str] = frozenset()


class Entry(NamedTuple):
    """One file of one layer; a directory only where it is opaque, or where a whiteout removed it."""

    path: str
    layer: int
    """The layer's place in the stack, 0 the base."""
    kind: Kind
    size_bytes: int | None
    """Of a regular file, or of a link's target; None where it wasn't looked at."""
    by: int | None = None
    """The layer that shadows or deletes it: the nearest above."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer as a whole; figures are None for a layer that isn't listed."""

    name: str
    kind: LayerKind
    digest: str
    files: int | None
    """All but directories and whiteouts."""
    size_bytes: int | None
    """Of its regular files, each inode once: what it takes, short of blocks and directories."""
    counts: dict[Kind, int] = field(default_factory=dict)
    """How many of its entries are of each kind."""


@dataclass(frozen=True)
class Stack:
    """A container's or an image's layers, base first.

    ``frame`` has a row for each file of each layer, ``summary`` a row for each layer; ``plot()``
    draws them, as a notebook does.
    """

    name: str
    layers: tuple[Layer, ...]
    entries: tuple[Entry, ...] = field(repr=False)
    notes: tuple[str, ...] = ()

    @cached_property
    def frame(self) -> DataFrame:
        """Each file of each layer.

        Returns
        -------
        pandas.DataFrame
            ``path``; ``layer``, its place in the stack (0 the base), and ``layer_name``; ``kind``:
            ``visible``, ``shadowed`` by a newer file, ``deleted`` by a layer above, ``whiteout`` (the
            mark that deletes) or ``opaque`` (a directory that hides all below it); ``size_bytes``;
            ``by``, the layer that shadows or deletes it. A row a file: directories are left out but
            for the opaque and the deleted ones.
        """
        pandas = import_module("pandas")
        columns = zip(*self.entries, strict=True) if self.entries else ([],) * 5
        path, layer, kind, size, by = (list(column) for column in columns)
        frame: DataFrame = pandas.DataFrame(
            {
                # Names are bytes: pandas' own strings refuse one that is no UTF-8.
                "path": pandas.Series(path, dtype=object),
                "layer": layer,
                "layer_name": [self.layers[number].name for number in layer],
                "kind": pandas.Categorical(kind, categories=list(KINDS)),
                "size_bytes": pandas.array(size, dtype="Int64"),
                "by": pandas.array(by, dtype="Int64"),
            }
        )
        frame.attrs["units"] = {"size_bytes": "bytes"}
        return frame

    @cached_property
    def summary(self) -> DataFrame:
        """Each layer, base first: ``name``, ``kind``, ``files``, ``size_bytes``, and how many of each kind."""
        pandas = import_module("pandas")
        frame: DataFrame = pandas.DataFrame(
            [
                {
                    "name": layer.name,
                    "kind": layer.kind,
                    "digest": layer.digest,
                    "files": layer.files,
                    "size_bytes": layer.size_bytes,
                    **{kind: layer.counts.get(kind, 0) for kind in KINDS},
                }
                for layer in self.layers
            ]
        )
        frame[["files", "size_bytes"]] = frame[["files", "size_bytes"]].astype("Int64")
        frame.index.name = "layer"
        frame.attrs["units"] = {"size_bytes": "bytes"}
        return frame

    def changed(self) -> list[list[Entry]]:
        """Give the paths that more than one layer has something to say of, each with its entries, top first."""
        found: dict[str, list[Entry]] = {}
        for entry in reversed(self.entries):
            found.setdefault(entry.path, []).append(entry)
        return [found[path] for path in sorted(found) if len(found[path]) > 1]

    def plot(self, *, most_paths: int = 12) -> Any:
        """Draw the stack; see :func:`nscontainer.layers_plot.draw`. Gives the matplotlib Figure."""
        return import_module("nscontainer.layers_plot").draw(self, most_paths=most_paths)

    def save_plot(self, path: str | os.PathLike[str], *, most_paths: int = 12) -> None:
        """Draw the stack into a file: ``.png``, ``.svg`` or ``.pdf``.

        Raises
        ------
        SpecError
            The file's name says no such format, or it can't be written.
        """
        import_module("nscontainer.layers_plot").save(self, path, most_paths=most_paths)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        made: tuple[bytes, dict[str, int]] = import_module("nscontainer.layers_plot").png(self)
        return made

    def __str__(self) -> str:
        from nscontainer import layers_view

        return layers_view.text(self)

    __repr__ = __str__


# --- reading -----------------------------------------------------------------------------------


class _Found(NamedTuple):
    """What a directory of a layer has."""

    path: str
    opaque: bool
    files: list[tuple[str, int, tuple[int, int] | None]]
    """Name, size, and (device, inode) where there are more names of it."""
    whiteouts: list[str]


def walk(top: str, prefix: str = "", skip: frozenset[str] = frozenset()) -> Iterator[_Found]:
    """Go through a layer's directory, parents first, never following a link out of it.

    Each directory is opened anew from the top with openat2(2): a container that is running may put
    a link in its place at any moment. One that can't be opened any more is passed over.
    """
    root = os.open(top, _OPEN_DIRECTORY | os.O_CLOEXEC)
    try:
        waiting = [""]
        while waiting:
            inner = waiting.pop()
            with contextlib.suppress(OSError):
                found, directories = _look(root, inner, prefix, skip)
                yield found
                waiting += [f"{inner}/{name}" for name in sorted(directories, reverse=True)]
    finally:
        os.close(root)


def _look(root: int, inner: str, prefix: str, skip: frozenset[str]) -> tuple[_Found, list[str]]:
    fd = openat2(root, inner[1:] or ".", _OPEN_DIRECTORY, _NO_LINKS)
    try:
        found = _Found(prefix + inner, is_opaque(fd), [], [])
        directories = []
        with os.scandir(fd) as names:
            for item in names:
                if skip and f"{prefix}{inner}/{item.name}" in skip:
                    continue
                facts = item.stat(follow_symlinks=False)
                if stat.S_ISDIR(facts.st_mode):
                    directories.append(item.name)
                elif is_whiteout(facts):
                    found.whiteouts.append(item.name)
                else:
                    many = (facts.st_dev, facts.st_ino) if facts.st_nlink > 1 else None
                    found.files.append((item.name, facts.st_size, many))
        return found, directories
    finally:
        os.close(fd)


# --- uniting -----------------------------------------------------------------------------------


class _Above:
    """What the layers above say of a path: the nearest to the layer that is being looked at."""

    def __init__(self) -> None:
        self.files: dict[str, int] = {}
        self.directories: dict[str, int] = {}
        self.whiteouts: dict[str, int] = {}
        self.opaque: dict[str, int] = {}

    def add(self, number: int, found: Iterable[_Found]) -> None:
        """Take a layer's names in: it is above all that come later."""
        for here in found:
            self.directories[here.path] = number
            if here.opaque:
                self.opaque[here.path] = number
            for name, _, _ in here.files:
                self.files[f"{here.path}/{name}"] = number
            for name in here.whiteouts:
                self.whiteouts[f"{here.path}/{name}"] = number

    def covers(self, path: str, parent: int | None) -> int | None:
        """Give the nearest layer that hides all that a directory has below; None: it is merged."""
        return _nearest(
            parent, self.opaque.get(path), self.whiteouts.get(path), self.files.get(path)
        )

    def verdict(self, path: str, cover: int | None) -> tuple[Kind, int | None]:
        """Say what has become of a file, and which layer did it."""
        replaced = _nearest(self.files.get(path), self.directories.get(path))
        removed = _nearest(cover, self.whiteouts.get(path))
        if replaced is None and removed is None:
            return "visible", None
        if removed is None or (replaced is not None and replaced <= removed):
            return "shadowed", replaced
        return "deleted", removed


def _nearest(*layers: int | None) -> int | None:
    return min((layer for layer in layers if layer is not None), default=None)


def unite(name: str, sources: Sequence[Source], *, notes: Sequence[str] = ()) -> Stack:
    """Look at every layer, base first, and tell what is seen of each.

    Raises
    ------
    OSError
        A layer's directory isn't there.
    """
    above = _Above()
    layers: list[Layer] = []
    entries: list[list[Entry]] = []
    for number in reversed(range(len(sources))):
        source = sources[number]
        if source.listed:
            found = _read(source)
            mine, layer = _judge(number, source, found, above)
            above.add(number, found)
        else:
            mine, layer = _look_up(number, source, above)
        entries.append(mine)
        layers.append(layer)
    hidden: dict[int, list[str]] = {}
    for entry in (entry for mine in entries for entry in mine):
        if entry.by is not None:
            hidden.setdefault(entry.by, []).append(entry.path)
    kept = [_telling(mine, hidden.get(number, [])) for number, mine in enumerate(reversed(entries))]
    counted = tuple(
        replace(layer, counts=dict(Counter(entry.kind for entry in mine)))
        for layer, mine in zip(reversed(layers), kept, strict=True)
    )
    flat = tuple(entry for mine in kept for entry in mine)
    return Stack(name, counted, flat, tuple(notes))


def _telling(mine: list[Entry], hidden: list[str]) -> list[Entry]:
    """Leave out the opaque directories that hide nothing.

    overlayfs marks every new directory so, to be spared looking below (fs/overlayfs/dir.c,
    ovl_create_upper).
    """
    opaque = {entry.path for entry in mine if entry.kind == "opaque"}
    if not opaque:
        return mine
    hiding: set[str] = set()
    for path in hidden:
        parent = path.rpartition("/")[0]
        while parent:
            if parent in opaque:
                hiding.add(parent)
            parent = parent.rpartition("/")[0]
    return [entry for entry in mine if entry.kind != "opaque" or entry.path in hiding]


def _read(source: Source) -> list[_Found]:
    found = [
        here for prefix, directory in source.parts for here in walk(directory, prefix, source.skip)
    ]
    for path in source.known:
        parent, _, name = path.rpartition("/")
        found.append(_Found(parent, opaque=False, files=[(name, 0, None)], whiteouts=[]))
    return found


def _judge(
    number: int, source: Source, found: list[_Found], above: _Above
) -> tuple[list[Entry], Layer]:
    covers: dict[str, int | None] = {}
    entries: list[Entry] = []
    seen: set[tuple[int, int]] = set()
    size_bytes = files = 0
    for here in found:
        parent = covers.get(here.path.rpartition("/")[0]) if here.path else None
        cover = covers[here.path] = above.covers(here.path, parent)
        if here.opaque:
            entries.append(Entry(here.path or "/", number, "opaque", None))
        entries += [Entry(f"{here.path}/{n}", number, "whiteout", None) for n in here.whiteouts]
        for name, size, many in here.files:
            path = f"{here.path}/{name}"
            entries.append(Entry(path, number, *_with_size(above.verdict(path, cover), size)))
            files += 1
            if many is None or many not in seen:
                size_bytes += size
            if many is not None:
                seen.add(many)
    entries.sort()
    return entries, Layer(source.name, source.kind, source.digest, files, size_bytes)


def _with_size(verdict: tuple[Kind, int | None], size: int) -> tuple[Kind, int, int | None]:
    return verdict[0], size, verdict[1]


def _look_up(number: int, source: Source, above: _Above) -> tuple[list[Entry], Layer]:
    """See which of the paths above an unlisted layer has too."""
    entries: list[Entry] = []
    (_, top), *_ = source.parts
    root = os.open(top, _OPEN_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in sorted({*above.files, *above.whiteouts}):
            if source.shows is not None and not source.shows(path):
                continue
            facts = _facts(root, path)
            if facts is None:
                continue
            kind, by = above.verdict(path, None)
            if stat.S_ISDIR(facts.st_mode):
                entries.append(Entry(path, number, kind, None, by))
            else:
                entries.append(Entry(path, number, kind, facts.st_size, by))
    finally:
        os.close(root)
    return entries, Layer(source.name, source.kind, source.digest, None, None)


def _facts(root: int, path: str) -> os.stat_result | None:
    parent, _, name = path.rpartition("/")
    with contextlib.suppress(OSError):
        fd = openat2(root, parent[1:] or ".", os.O_PATH | os.O_DIRECTORY, _NO_LINKS)
        try:
            return os.stat(name, dir_fd=fd, follow_symlinks=False)
        finally:
            os.close(fd)
    return None
