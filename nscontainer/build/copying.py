"""COPY and ADD: which files go where, by Docker's rules.

https://docs.docker.com/reference/dockerfile/#copy. As Docker's classic builder has it, but that a directory
which would replace a symbolic link of the image, ``/bin`` say, is an error, and that set-user-id bits stay.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from nscontainer.build import trees
from nscontainer.build.context import Context
from nscontainer.build.newlayer import NewLayer, Owner, changed, of_bytes
from nscontainer.build.patterns import compiled, has_wildcard
from nscontainer.build.trees import Node, Tree
from nscontainer.errors import SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One COPY or ADD, variables replaced."""

    sources: tuple[str, ...]
    destination: str
    """Absolute; a slash at its end says that it is a directory."""
    origin: Tree
    """What the sources are in."""
    owner: Owner | None = None
    """Whose the files are to be; None leaves them to whom they belong to."""
    mode: int | None = None
    inline: tuple[tuple[str, bytes], ...] = ()
    """Files that the Dockerfile itself has, by their name among the sources."""
    mtime_ns: int = 0
    """Of those."""
    unpacked: Callable[[Node], Tree | None] | None = None
    """For ADD: an archive's content as a tree; None where a file is no archive."""
    archive_owner: Owner | None = None
    """Whose an archive's files are to be; None is whose they are in it."""


def plan(what: Copy, layer: NewLayer) -> None:
    """Put what is copied into a layer.

    Raises
    ------
    SpecError
        A source isn't there, or something stands in the way.
    """
    destination = trees.resolve(layer, what.destination)
    found = list(_sources(what))
    directory = what.destination.endswith("/") or posixpath.basename(what.destination) in (
        ".",
        "..",
    )
    if len(found) > 1 and not directory:
        message = f"{len(found)} files can't all become {what.destination}"
        raise SpecError(message, hint=f"a directory: {what.destination}/")
    there = layer.look(destination)
    directory = directory or destination == "" or (there is not None and there.kind == "dir")
    for name, path, node in found:
        _one(what, layer, destination, _Source(name, path, node), into=directory)


@dataclass(frozen=True, slots=True)
class _Source:
    name: str
    """Its last component, as it was asked for: a link's own name."""
    path: str | None
    """Where it is in the origin; None where the Dockerfile has it."""
    node: Node


def _one(what: Copy, layer: NewLayer, destination: str, source: _Source, *, into: bool) -> None:
    owner = what.owner or Owner()
    node = source.node
    if source.path is not None and node.kind == "dir":
        layer.make_directory(destination, owner)
        _inside(what, layer, what.origin, (source.path, destination))
        return
    if what.unpacked is not None and node.kind == "file" and source.path is not None:
        archive = what.unpacked(node)
        if archive is not None:
            inside = replace(what, owner=what.archive_owner)
            layer.make_directory(destination, owner)
            _inside(inside, layer, archive, ("", destination), merge=True)
            return
    target = f"{destination}/{source.name}".lstrip("/") if into else destination
    content = dict(what.inline).get(source.name) if source.path is None else None
    layer.put(target, changed(node, owner=what.owner, mode=what.mode), owner, content)


def _inside(
    what: Copy, layer: NewLayer, origin: Tree, paths: tuple[str, str], *, merge: bool = False
) -> None:
    """Copy all that is in a directory; links in it stay links.

    With ``merge`` a directory doesn't mind a symbolic link to one in its place, as tar's
    ``--keep-directory-symlink``: an archive of a root may have ``bin/`` where the image has a link.
    """
    source, destination = paths
    for name in origin.names(source):
        path, target = f"{source}/{name}".lstrip("/"), f"{destination}/{name}".lstrip("/")
        node = origin.look(path)
        if node is None:
            continue
        there = layer.look(target)
        if node.kind == "dir" and merge and there is not None and there.kind == "link":
            target = trees.resolve(layer, target)
            layer.make_directory(target, what.owner or Owner())
        else:
            new = changed(node, owner=what.owner, mode=what.mode)
            layer.put(target, new, what.owner or Owner())
        if node.kind == "dir":
            _inside(what, layer, origin, (path, target), merge=merge)


def _sources(what: Copy) -> Iterator[tuple[str, str | None, Node]]:
    """Find each source: its name, its path in the origin, and what is there."""
    inline = dict(what.inline)
    for source in what.sources:
        if source in inline:
            yield source, None, of_bytes(inline[source], what.mtime_ns)
            continue
        if posixpath.normpath("./" + source).split("/")[0] == "..":
            message = f"{source!r} is outside the context"
            raise SpecError(message, hint="only what is in the context can be copied")
        path = trees.clean(source)
        if has_wildcard(path):
            yield from _matching(what.origin, source, path)
            continue
        found = trees.resolve(what.origin, path)
        node = what.origin.look(found)
        if node is None:
            raise _missing(what.origin, source, found)
        yield posixpath.basename(path), found, node


def _matching(origin: Tree, source: str, path: str) -> Iterator[tuple[str, str, Node]]:
    parts = [compiled(part) for part in path.split("/")]
    found = [""]
    for pattern in parts:
        found = [
            f"{above}/{name}".lstrip("/")
            for above in found
            if (node := origin.look(trees.resolve(origin, above))) is not None
            and node.kind == "dir"
            for name in origin.names(trees.resolve(origin, above))
            if pattern.fullmatch(name)
        ]
    if not found:
        raise SpecError(f"nothing matches {source!r}", hint=_where(origin))
    for one in found:
        real = trees.resolve(origin, one)
        node = origin.look(real)
        if node is not None:
            yield posixpath.basename(one), real, node


def _missing(origin: Tree, source: str, path: str) -> SpecError:
    hint = _where(origin)
    if isinstance(origin, Context) and origin.ignored(path):
        hint = f".dockerignore leaves it out; {hint}"
    return SpecError(f"{source!r} isn't there", hint=hint)


def _where(origin: Tree) -> str:
    if isinstance(origin, Context):
        return f"the context is {origin.root}"
    return "looked for in the root of what --from names"
