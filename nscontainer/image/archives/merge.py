"""Layers as the one tree that a container sees, read from their directories: for ``export``.

No mount is needed, so nobody's namespace and nobody's privileges. The rules are overlayfs' own (Linux:
Documentation/filesystems/overlayfs.rst): the topmost layer that has a name decides what it is; directories of
one name are united down to one that is opaque; a whiteout ends it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from nscontainer.errors import LayerError
from nscontainer.image import tarheader
from nscontainer.image.compression import Writes
from nscontainer.image.pack import NOBODY, Packer, xattrs_of
from nscontainer.image.tarheader import shown
from nscontainer.image.tree import OPEN_DIRECTORY, is_opaque, is_whiteout
from nscontainer.linux import userns

_DEEPEST: Final = 400


@dataclass(frozen=True, slots=True)
class Lower:
    """One layer: a directory, and what of it is seen.

    Parameters
    ----------
    path
        The layer's directory.
    place
        Where in the tree it is: ``b""``, or the path of a view of the image ``host``.
    id_shift
        Subtracted from its files' ids.
    foreign
        It is this machine's own: what is of no id of ours is the tree's root's.
    sees
        Tells whether the tree has a file of this layer, by its path in the layer; None: it has all.
    """

    path: str
    place: bytes = b""
    id_shift: int = 0
    foreign: bool = False
    sees: Callable[[str], bool] | None = None


@dataclass(frozen=True, slots=True)
class _Open:
    """A directory of a layer: the layer's top, or one in it. ``number`` counts layers from the topmost."""

    fd: int
    lower: Lower
    number: int
    device: int


def write(layers: Sequence[Lower], sink: Writes) -> None:
    """Write the tree as a tar, without whiteouts.

    Parameters
    ----------
    layers
        The topmost first.

    Raises
    ------
    LayerError
        Something in it can't be in a tar.
    """
    packer = _Merging(sink)
    with contextlib.ExitStack() as stack:
        tops = []
        for number, layer in enumerate(layers):
            fd = os.open(layer.path, OPEN_DIRECTORY)
            stack.callback(os.close, fd)
            tops.append(_Open(fd, layer, number, os.fstat(fd).st_dev))
        packer.merged(tops)
    packer.finish()


class OwnPacker(Packer):
    """For trees of this user's: without root nobody can give files away, and theirs are the image's root's.

    Parameters
    ----------
    foreign
        Files may be of users who have no id in our user namespace, where they look like nobody's: those
        are the image's root's too.
    """

    def __init__(self, sink: Writes, *, foreign: bool = False) -> None:
        super().__init__(sink)
        self._foreign = foreign

    def _id(self, number: int) -> int:
        if os.geteuid() != 0 or (self._foreign and number == NOBODY and not userns.privileged()):
            return 0
        return super()._id(number)


class _Merging(OwnPacker):
    def _is_in(self, layer: Lower) -> None:
        self._shift, self._foreign = layer.id_shift, layer.foreign

    def merged(self, tops: list[_Open]) -> None:
        here = [top for top in tops if not top.lower.place]
        self._is_in(here[0].lower)
        self._root(here[0].fd, b"")
        self._unite(here, [top for top in tops if top.lower.place], b"", 0)

    def _unite(self, here: list[_Open], below: list[_Open], lead: bytes, depth: int) -> None:
        """Write what the directories that make up one have in them.

        Parameters
        ----------
        here
            The directories, the topmost layer's first.
        below
            Layers whose place is deeper in the tree.
        """
        if depth > _DEEPEST:
            raise LayerError(
                f"{shown(lead)}: nested deeper than {_DEEPEST} directories", entry=shown(lead)
            )
        names = {os.fsencode(name) for directory in here for name in os.listdir(directory.fd)}
        for name in sorted(names):
            deeper = [b for b in below if _leads_to(lead + name, b.lower.place)]
            with contextlib.ExitStack() as stack:
                self._name(here, deeper, lead + name, depth, stack)

    def _name(
        self,
        here: list[_Open],
        deeper: list[_Open],
        path: bytes,
        depth: int,
        stack: contextlib.ExitStack,
    ) -> None:
        """Write one name: a file of the topmost layer that has it, or the union of directories."""
        name = path.rpartition(b"/")[2]
        mounted = [d for d in deeper if d.lower.place == path]
        united: list[_Open] = []
        for at, facts in _found(here, mounted, name, path):
            if at in mounted:
                united.append(at)
                continue
            if not stat.S_ISDIR(facts.st_mode):
                if not united and not is_whiteout(facts):
                    self._is_in(at.lower)
                    self._one(at.fd, name, path, facts, depth)
                break
            try:
                fd = os.open(name, OPEN_DIRECTORY, dir_fd=at.fd)
            except OSError:  # gone meanwhile: a container is running
                continue
            stack.callback(os.close, fd)
            united.append(replace(at, fd=fd))
            if is_opaque(fd):
                break
        if not united:
            return
        first = united[0]
        self._is_in(first.lower)
        self._entry(
            path + b"/", tarheader.DIRECTORY, os.fstat(first.fd), xattrs=xattrs_of(first.fd)
        )
        # Where another filesystem is mounted, the directory is the layer's, what is in it isn't.
        united = [d for d in united if os.fstat(d.fd).st_dev == d.device]
        self._unite(united, [d for d in deeper if d not in mounted], path + b"/", depth + 1)


def _found(
    here: list[_Open], mounted: list[_Open], name: bytes, path: bytes
) -> Iterator[tuple[_Open, os.stat_result]]:
    """Give the layers that have a name, and those whose place it is, from the topmost."""
    for directory in sorted([*here, *mounted], key=lambda d: d.number):
        if directory in mounted:
            yield directory, os.fstat(directory.fd)
            continue
        inside = os.fsdecode(path[len(directory.lower.place) :].lstrip(b"/"))
        if directory.lower.sees is not None and not directory.lower.sees(inside):
            continue
        try:
            facts = os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
        except OSError:
            continue
        yield directory, facts


def _leads_to(path: bytes, place: bytes) -> bool:
    return place == path or place.startswith(path + b"/")
