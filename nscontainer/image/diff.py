"""What a container has changed, as ``docker diff`` says it: added, changed, deleted."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from nscontainer import inside
from nscontainer.image.tree import is_opaque, is_whiteout
from nscontainer.image.written import Written, layers_of

_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Change:
    """One path that is no more as the image has it: ``A`` added, ``C`` changed, ``D`` deleted."""

    kind: Literal["A", "C", "D"]
    path: str

    def __str__(self) -> str:
        """As Docker prints it."""
        return f"{self.kind} {self.path}"


@inside.runs
def of_container(facts: Mapping[str, Any], directory: str, store: str) -> list[Change]:
    """Tell what a container has changed, by its state file; arguments as :func:`layers_of` has them."""
    with layers_of(facts, directory, store) as written:
        return changes(written)


def changes(layers: Iterable[Written]) -> list[Change]:
    """Compare what a container has written with what is below, in the order of the paths.

    A file counts as changed when its kind, mode, owner, size, time or file capabilities differ, a
    directory when its mode or owner do, or something in it (moby pkg/archive/changes.go).
    """
    found: list[Change] = []
    for layer in layers:
        fd = os.open(layer.top, _OPEN)
        try:
            _Walk(layer, found).inside(fd, "", layer.below.top)
        finally:
            os.close(fd)
    found.sort(key=lambda change: change.path.split("/"))
    return found


class _Walk:
    def __init__(self, layer: Written, found: list[Change]) -> None:
        self._layer = layer
        self._below = layer.below
        self._found = found
        self._lead = layer.prefix.rstrip("/") + "/"

    def _say(self, kind: Literal["A", "C", "D"], path: str) -> None:
        self._found.append(Change(kind, self._lead + path))

    def inside(self, fd: int, path: str, below: tuple[int, ...]) -> None:
        """Go through one directory of the layer; ``below`` are the layers that the directory has."""
        for name in os.listdir(fd):
            here = f"{path}/{name}".lstrip("/")
            if here in self._layer.skip:
                continue
            try:
                facts = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue  # a container that runs has removed it
            old, deeper = self._below.look(below, here)
            if is_whiteout(facts):
                if old is not None:
                    self._say("D", here)
            elif stat.S_ISDIR(facts.st_mode):
                self._directory(fd, name, here, (facts, old, deeper))
            elif old is None:
                self._say("A", here)
            elif self._differs(facts, old) or self._capability(fd, name, below, here):
                self._say("C", here)

    def _directory(
        self,
        fd: int,
        name: str,
        here: str,
        found: tuple[os.stat_result, os.stat_result | None, tuple[int, ...]],
    ) -> None:
        facts, old, deeper = found
        merged = old is not None and stat.S_ISDIR(old.st_mode)
        if old is None or not merged:
            self._say("A" if old is None else "C", here)
        try:
            inner = os.open(name, _OPEN, dir_fd=fd)
        except OSError:
            return
        before = len(self._found)
        try:
            opaque = is_opaque(inner)
            self.inside(inner, here, deeper)
            if merged and opaque:
                self._hidden(inner, here, deeper)
        finally:
            os.close(inner)
        if merged and old is not None and (len(self._found) > before or self._moved(facts, old)):
            self._say("C", here)

    def _hidden(self, fd: int, here: str, deeper: tuple[int, ...]) -> None:
        """Tell what is no more in a directory that was removed and made anew."""
        kept = set(os.listdir(fd))
        for name in self._below.names(deeper, here):
            place = f"{here}/{name}"
            if name not in kept and place not in self._layer.skip:
                self._say("D", place)

    def _moved(self, facts: os.stat_result, old: os.stat_result) -> bool:
        """Tell whether kind, mode or owner are others."""
        shift = self._layer.id_shift
        now = facts.st_mode, facts.st_uid - shift, facts.st_gid - shift, facts.st_rdev
        return now != (old.st_mode, old.st_uid, old.st_gid, old.st_rdev)

    def _differs(self, facts: os.stat_result, old: os.stat_result) -> bool:
        if self._moved(facts, old) or facts.st_size != old.st_size:
            return True
        return facts.st_mtime_ns != old.st_mtime_ns

    def _capability(self, fd: int, name: str, below: tuple[int, ...], here: str) -> bool:
        """Tell whether a file's capabilities are others: setcap(8) changes nothing else."""
        try:
            now = os.getxattr(
                f"/proc/self/fd/{fd}/{name}", "security.capability", follow_symlinks=False
            )
        except OSError:
            now = None
        return now != self._below.xattr(below, here, "security.capability")
