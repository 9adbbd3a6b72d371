"""A container's read-write layer: where it is, what is below it, and what in it the user didn't write."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nscontainer.engine import storage
from nscontainer.engine.initlayer import MARKER
from nscontainer.errors import StateError
from nscontainer.image.below import DiskLayer, HostLayer, Layer, Stack, view_of
from nscontainer.image.host import OWN
from nscontainer.linux.syscalls import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

_PLAIN = stat.S_IFDIR | 0o755


@dataclass(frozen=True, slots=True)
class Written:
    """The read-write layer of one view of a container.

    ``top`` is its directory, ``prefix`` the view's path in the container (``/`` for the root), ``skip``
    the paths in it, relative to ``top``, that are none of the user's, ``id_shift`` by how much the ids
    on the disk are higher than in the container.
    """

    top: str
    prefix: str
    below: Stack
    skip: frozenset[str]
    id_shift: int


@contextlib.contextmanager
def layers_of(facts: Mapping[str, Any], directory: str, store: str) -> Iterator[list[Written]]:
    """Open what a container has written, view by view, the root first.

    Parameters
    ----------
    facts
        Its state file.
    directory
        Its own directory.
    store
        The image store's.

    Raises
    ------
    StateError
        It was made by a version that didn't note what this takes.
    """
    if "views" not in facts:
        message = (
            f"container {facts['name']!r} is of an older nscontainer: what it wrote can't be told"
        )
        raise StateError(message, hint="copy the files out with cp")
    with contextlib.ExitStack() as stack:
        found = []
        place = stack.enter_context(storage.opened(directory))
        for number, view in enumerate(facts["views"]):
            top = f"{place}/upper{number}"
            below = Stack(_below(facts, view, store, stack))
            skip = _skipped(facts, top, str(view["path"]), below)
            found.append(
                Written(top, str(view["path"]), below, skip, int(facts.get("upper_shift", 0)))
            )
        yield found


def _below(
    facts: Mapping[str, Any], view: Mapping[str, Any], store: str, stack: contextlib.ExitStack
) -> list[Layer]:
    layers: list[Layer] = []
    place = str(view["path"]).strip("/")
    for key in reversed(facts.get("layers") or ()):
        fd = _directory(f"{store}/layers/{key}", place)
        if fd is not None:
            layer = DiskLayer(fd)
            stack.callback(layer.close)
            layers.append(layer)
    if facts.get("on_host", True):
        layers.append(HostLayer(view_of(view)))
    return layers


def _directory(layer: str, place: str) -> int | None:
    top = os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if not place:
        return top
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY
        return openat2(top, place, flags, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    except OSError:
        return None
    finally:
        os.close(top)


def _skipped(facts: Mapping[str, Any], top: str, view: str, below: Stack) -> frozenset[str]:
    """Tell what the engine made: mount points, its marks, what the image says is no part of it.

    The directories that were made, or copied up, for a mount point's sake alone are left out with it.
    """
    lead = view.rstrip("/") + "/"
    targets = [str(path) for path in facts.get("made") or ()]
    whole = (MARKER, OWN, *facts.get("volumes", ()), *targets)
    skip = {path[len(lead) :] for path in whole if path.startswith(lead)}
    made = {path[len(lead) :] for path in targets if path.startswith(lead)}
    mounted = {path for path in made if not any(other.startswith(f"{path}/") for other in made)}
    skip -= made - mounted  # what is above one may have got files of the user's
    shift = int(facts.get("upper_shift", 0))
    for path in sorted(mounted, key=len, reverse=True):
        above = os.path.dirname(path)
        while above and _is_for_its_sake(f"{top}/{above}", above, made, below, skip, shift):
            skip.add(above)
            above = os.path.dirname(above)
    return frozenset(skip)


def _is_for_its_sake(
    place: str, path: str, made: set[str], below: Stack, skip: set[str], shift: int
) -> bool:
    try:
        facts, names = os.lstat(place), os.listdir(place)
    except OSError:
        return False
    if any(f"{path}/{name}" not in skip for name in names):
        return False
    owner = facts.st_uid - shift, facts.st_gid - shift
    if path in made:
        return facts.st_mode == _PLAIN and owner == (0, 0)
    old = below.find(path)
    return old is not None and (old.st_mode, old.st_uid, old.st_gid) == (facts.st_mode, *owner)
