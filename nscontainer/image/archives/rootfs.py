"""Whole root filesystems: a tar becomes an image of one layer, and an image or a container a tar.

What comes in goes through the same unpacking as every layer (:mod:`nscontainer.image.extract`): what
that refuses is refused here, and what is kept is a layer of our own writing.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from nscontainer import inside
from nscontainer.engine import state
from nscontainer.errors import NotFoundError
from nscontainer.image import (
    compression,
    extract,
    files,
    host,
    names,
    reconfigure,
    tree,
    written,
)
from nscontainer.image.archives import dest, merge, source
from nscontainer.image.archives.dest import Target
from nscontainer.image.archives.source import Given
from nscontainer.image.below import HostLayer, view_of
from nscontainer.image.compression import Reads, Writes
from nscontainer.image.progress import Event, Progress
from nscontainer.image.records import Image, Layer, timestamp
from nscontainer.image.registry import platform as platforms
from nscontainer.image.store import Store


def pack_tree(top: str, sink: Writes, *, foreign: bool = False) -> None:
    """Write a directory that :func:`unpack` or this user has filled as a layer's tar.

    Parameters
    ----------
    foreign
        There may be files of other users of this machine in it.
    """
    packer = merge.OwnPacker(sink, foreign=foreign)
    packer.tree(top)
    packer.finish()


def unpack(stream: Reads, into: str) -> tuple[str, ...]:
    """Unpack a root filesystem's tar, compressed or not, into an empty directory; give remarks on it.

    Raises
    ------
    LayerError
        It is damaged, evil or a bomb.
    """
    with files.disk_errors("a root filesystem was being unpacked"):
        return extract.extract(compression.decompress(stream), into).notes


def import_(
    given: Given,
    name: str | None = None,
    *,
    store: Store,
    changes: Sequence[str] = (),
    message: str | None = None,
    progress: Progress | None = None,
) -> Image:
    """Make an image of one layer from a root filesystem.

    Parameters
    ----------
    given
        A tar, by its path or as a stream, plain or compressed by gzip, zstd, xz or bzip2; or a directory.
    name
        The image's name; None for a nameless one.
    changes
        Instructions for its configuration, as ``docker import --change``: ``'CMD ["bash"]'``.
    message
        What its history says; where it came from when not given.

    Raises
    ------
    SpecError
        It can't be opened, or a name or a change is none.
    LayerError
        The tar is damaged, evil or a bomb. Nothing of it stays.
    """
    if name is not None:
        names.parse(name)
    run = reconfigure.apply({}, changes)
    with store.holding(), contextlib.ExitStack() as stack:
        if isinstance(given, str | os.PathLike) and os.path.isdir(given):
            what = os.fspath(given)
            notes: tuple[str, ...] = ()
            layer = inside.call(_of_directory, store.root, os.path.abspath(what))
        else:
            stream, what = stack.enter_context(source.raw(given))
            layer, notes = inside.call(
                _of_tar, store.root, inside.Stream(stream, "read"), _length(given), progress
            )
        when = timestamp()
        said = message or f"Imported from {os.path.basename(what.rstrip('/')) or what}"
        config: dict[str, Any] = {
            "created": when,
            "architecture": platforms.host().architecture,
            "os": "linux",
            "config": run,
            "history": [{"created": when, "comment": said}],
        }
        made = store.make_image(config, [layer], name=name)
        if progress is not None:
            size = layer.descriptor.size
            progress(Event("done", "", size, size, "; ".join(notes)))
        return made


def _of_directory(root: str, top: str) -> Layer:
    """Make a layer of a directory."""
    return Store(root).add_layer(lambda sink: pack_tree(top, sink, foreign=True))


def _of_tar(
    root: str, stream: Any, total: int | None, progress: Progress | None
) -> tuple[Layer, tuple[str, ...]]:
    """Make a layer of a tar, by way of the files in it; with remarks on them."""
    store = Store(root)
    with _scratch(store) as top:
        notes = unpack(_Told(source.Counting(stream), total, progress), top)
        return store.add_layer(lambda sink: pack_tree(top, sink)), notes


class _Told:
    """Tells how much of a tar has been read."""

    def __init__(
        self, stream: source.Counting, total: int | None, progress: Progress | None
    ) -> None:
        self._stream = stream
        self._total = total
        self._progress = progress

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        if self._progress is not None:
            self._progress(Event("unpack", "", self._stream.count, self._total, "importing"))
        return data or b""


def _length(given: Given) -> int | None:
    if isinstance(given, str | os.PathLike):
        with contextlib.suppress(OSError):
            return os.stat(given).st_size or None
    return None


@contextlib.contextmanager
def _scratch(store: Store) -> Iterator[str]:
    path = tempfile.mkdtemp(prefix="rootfs-", dir=store.scratch)
    try:
        os.chmod(path, 0o755)  # noqa: S103 - becomes the root's mode, inside a 0700 directory
        yield path
    finally:
        tree.remove_tree(path)


def export(what: str, target: Target, *, store: Store, progress: Progress | None = None) -> None:
    """Write all files of a container, or of an image, as one tar without layers.

    Of a container: its image's files with its own changes; mount points as the image has them, as
    ``docker export`` does. What stands on the image ``host`` is exported with this machine's system as
    a container sees it: without what that image hides.

    Parameters
    ----------
    what
        A container's name or id, or an image's.

    Raises
    ------
    SpecError
        The target is a terminal or can't be made.
    NotFoundError
        There is neither a container nor an image of that name.
    """
    with store.holding():
        if what != names.HOST and _container(what) is None:
            _image(what, store)  # an error before anything is made
        with dest.writing(target) as file:
            count = inside.call(_merged, what, store.root, inside.Stream(file, "write"), progress)
        if progress is not None:
            progress(Event("done", "", count, count))


def _merged(what: str, root: str, file: Any, progress: Progress | None) -> int:
    store = Store(root)
    with _layers(what, store) as layers:
        sink = _Counted(file, progress)
        merge.write(layers, sink)
        return sink.count


class _Counted:
    """Tells how much has been written."""

    def __init__(self, sink: Writes, progress: Progress | None) -> None:
        self._sink = sink
        self._progress = progress
        self.count = 0

    def write(self, data: bytes, /) -> int:
        self._sink.write(data)
        self.count += len(data)
        if self._progress is not None:
            self._progress(Event("upload", "", self.count, None, "exporting"))
        return len(data)


@contextlib.contextmanager
def _layers(what: str, store: Store) -> Iterator[list[merge.Lower]]:
    """Find what a container or an image is made of, the topmost layer first."""
    found = _container(what)
    if found is None:
        image = None if what == names.HOST else _image(what, store)
        yield [*_stored(image, store), *(_host_of_all() if image is None or image.on_host else ())]
        return
    directory, facts = found
    image = store.get(str(facts["image_id"])) if facts.get("image_id") else None
    with written.layers_of(facts, directory, store.root) as own:
        yield [
            *(_upper(one) for one in own),
            *_stored(image, store),
            *(_host(view_of(view)) for view in facts["views"] if facts.get("on_host", True)),
        ]


def _image(what: str, store: Store) -> Image:
    try:
        return store.get(what)
    except NotFoundError as error:
        raise NotFoundError(
            f"there is neither a container nor an image {what!r}", hint=error.hint
        ) from None


def _container(what: str) -> tuple[str, dict[str, Any]] | None:
    top = state.state_dir()
    try:
        container = state.find(top, what)
    except NotFoundError as error:
        if "several" in error.message:
            raise
        return None
    directory = f"{top}/{state.CONTAINERS}/{container}"
    facts = state.read(directory)
    if facts is None:
        raise NotFoundError(f"container {what!r} is just going")
    return directory, facts


def _upper(one: written.Written) -> merge.Lower:
    """Give a container's read-write layer of one view, without the mount points made in it."""
    return merge.Lower(
        one.top,
        os.fsencode(one.prefix).strip(b"/"),
        id_shift=one.id_shift,
        sees=lambda path: path not in one.skip,
    )


def _stored(image: Image | None, store: Store) -> Iterator[merge.Lower]:
    """Give an image's own layers."""
    if image is not None:
        for key in reversed(store.unpack(image)):
            yield merge.Lower(f"{store.root}/layers/{key}")


def _host(view: host.View) -> merge.Lower:
    """Give this machine's own system, as a view of the image ``host`` lets a container see it."""
    layer = HostLayer(view)
    place = os.fsencode(view.path).strip(b"/")
    return merge.Lower(
        view.path, place, foreign=True, sees=lambda path: layer.stat(path) is not None
    )


def _host_of_all() -> Iterator[merge.Lower]:
    """Give what every container of the image ``host`` sees: no working directory, nobody's home."""
    plan = host.plan((), home=os.path.expanduser("~"), hide=[state.state_dir()])
    yield _host(plan.views[0])
