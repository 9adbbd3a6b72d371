"""Images from archives: what ``docker save``, skopeo, podman, umoci and BuildKit write.

Two passes: first the archive's indexes, manifests and configs are read and everything they name must be
there; only then are blobs copied into the store, each compared with its digest on the way. Layers are
kept in the very bytes they came in, so that digests and diffIDs stay what they were.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, BinaryIO

from nscontainer.errors import ImageError, NsContainerError, SpecError
from nscontainer.image import compression, digest, media, names
from nscontainer.image.archives import contents, source
from nscontainer.image.archives.contents import DockerLayer, Found
from nscontainer.image.archives.source import CHUNK, Given, Source
from nscontainer.image.progress import Event, Progress
from nscontainer.image.records import Descriptor, Image
from nscontainer.image.registry import platform as platforms

if TYPE_CHECKING:
    from nscontainer.image.store import Store


def load(
    given: Given,
    *,
    store: Store,
    name: str | None = None,
    platform: str | None = None,
    progress: Progress | None = None,
) -> list[Image]:
    """Put an archive's images into the store, with the names they have in it.

    Parameters
    ----------
    given
        A path or a binary stream: an archive of ``docker save`` (Docker 1.10 and later), an OCI archive,
        or the directory of an OCI layout; archives may be compressed by gzip, zstd, xz or bzip2.
    name
        A name for the one image that the archive holds, instead of its own.
    platform
        Which of an index's images, as ``linux/arm64``; this machine's when not given.

    Returns
    -------
    list[Image]
        In the archive's order.

    Raises
    ------
    SpecError
        It can't be opened, or ``name`` is no name or there are several images.
    ImageError
        It is no such archive, lacks something, or isn't what its digests say. Nothing of it stays.
    """
    if name is not None:
        names.parse(name)
    wanted = platforms.parse(platform) if platform else platforms.host()
    try:
        with store.holding(), source.opened(given, store.scratch) as archive:
            found = contents.find(archive, wanted)
            if name is not None:
                if len(found) != 1:
                    raise SpecError(
                        f"{archive.what} has {len(found)} images: which is to be {name}?",
                        hint="load without a name, then tag",
                    )
                found[0].names = [name]
            _check_names(found, archive.what)
            return _take(found, archive, store, progress)
    except BaseException:
        store.sweep()  # what was copied before the fault was met
        raise


def _check_names(found: Iterable[Found], what: str) -> None:
    for image in found:
        for name in image.names:
            try:
                names.parse(name)
            except SpecError as error:
                raise ImageError(
                    f"{what}: {error}", hint="give it another name, if it is the only image there"
                ) from None


def _take(
    found: list[Found], archive: Source, store: Store, progress: Progress | None
) -> list[Image]:
    for image in found:
        _complete(image, archive.what, store)
    loaded = []
    for image in found:
        if image.config is not None and (known := _known(digest.of(image.config), store)):
            loaded.append(_named(known, image.names, store))
            for layer in known.layers:
                _already(layer.descriptor, progress)
            continue
        for number, blob in enumerate(image.blobs):
            told = progress if number else None  # the first is the config
            _copy(blob.descriptor, archive, blob.part, store, told)
        if image.config is not None:
            image.manifest = _docker_manifest(image, archive, store, progress)
        loaded.append(_record(image, store, progress))
    return loaded


def _known(image_id: str, store: Store) -> Image | None:
    """Find an image that is here already, its layers perhaps kept in other bytes than the archive's."""
    return next((image for image in store.images() if image.id == image_id), None)


def _complete(image: Found, what: str, store: Store) -> None:
    """Check before anything is copied that every blob is in the archive, or in the store."""
    missing = [b.descriptor.digest for b in image.blobs if not b.part]
    missing += [layer.diff_id for layer in image.layers if not layer.part]
    for blob in missing:
        if not store.has(blob):
            raise ImageError(
                f"{what} lacks {blob} of {image.title}", hint="the archive is not complete"
            )


def _copy(
    descriptor: Descriptor, archive: Source, part: str, store: Store, progress: Progress | None
) -> None:
    """Copy a blob into the store, but for what is there of it already."""
    short, size = digest.short(descriptor.digest), descriptor.size
    if store.has(descriptor.digest):
        _already(descriptor, progress)
        return
    with (
        archive.open(part) as file,
        store.writer(descriptor.digest, descriptor.size) as writer,
    ):
        file.read(0)
        _skip(file, writer.offset)
        while writer.offset < size and (chunk := file.read(min(CHUNK, size - writer.offset))):
            writer.write(chunk)
            _tell(progress, Event("download", short, writer.offset, size, "loading"))
        writer.commit()
    _tell(progress, Event("done", short, size, size))


def _skip(file: BinaryIO, count: int) -> None:
    while count and (data := file.read(min(CHUNK, count))):
        count -= len(data)


def _docker_manifest(
    image: Found, archive: Source, store: Store, progress: Progress | None
) -> bytes:
    """Copy config and layers of a ``docker save``; make the manifest that Docker didn't write."""
    assert image.config is not None
    config = Descriptor(media.OCI_CONFIG, store.put(image.config), len(image.config))
    layers = [_docker_layer(layer, archive, store, progress) for layer in image.layers]
    return media.encode(
        {
            "schemaVersion": 2,
            "mediaType": media.OCI_MANIFEST,
            "config": config.to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
    )


def _docker_layer(
    layer: DockerLayer, archive: Source, store: Store, progress: Progress | None
) -> Descriptor:
    """Copy one layer: a plain tar as it is, and a compressed one as it is too, its diffID compared."""
    if store.has(layer.diff_id):
        size = os.path.getsize(store.blob_path(layer.diff_id))
        there = Descriptor(media.OCI_LAYER, layer.diff_id, size)
        _already(there, progress)
        return there
    total = archive.size(layer.part) or 0
    with archive.open(layer.part) as file:
        kind = compression.decompress(io.BytesIO(file.read(16))).kind
    if not kind:
        descriptor = Descriptor(media.OCI_LAYER, layer.diff_id, total)
        _copy(descriptor, archive, layer.part, store, progress)
        return descriptor
    return _compressed_layer(layer, kind, archive, store, progress)


def _compressed_layer(
    layer: DockerLayer, kind: str, archive: Source, store: Store, progress: Progress | None
) -> Descriptor:
    total = archive.size(layer.part) or 0
    short = digest.short(layer.diff_id)
    keeps = kind in media.LAYER_OF
    plain = digest.Hashing()
    with store.writer(size=total) if keeps else store.writer() as writer:
        with archive.open(layer.part) as file:
            tee = _Tee(file, writer.write) if keeps else source.Counting(file)
            tar = compression.decompress(tee)
            while chunk := tar.read(CHUNK):
                plain.update(chunk)
                if not keeps:
                    writer.write(chunk)
                _tell(progress, Event("download", short, tee.count, total, "loading"))
            while tee.read(CHUNK):
                pass
        if plain.digest != layer.diff_id:
            raise ImageError(
                f"{archive.what}: {layer.part} has the diffID {plain.digest}, not {layer.diff_id}",
                hint="the archive is damaged or was changed",
            )
        blob, size = writer.commit()
    _tell(progress, Event("done", short, total, total))
    return Descriptor(media.LAYER_OF[kind if keeps else ""], blob, size)


class _Tee(source.Counting):
    """Hands on what is read from it to one more."""

    def __init__(self, stream: BinaryIO, sink: Callable[[bytes], object]) -> None:
        super().__init__(stream)
        self._sink = sink

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        count = super().readinto(buffer)
        self._sink(bytes(buffer[:count]))
        return count


def _record(image: Found, store: Store, progress: Progress | None) -> Image:
    """Make it an image of the store, unpacked: a layer that is refused leaves none."""
    before = {known.manifest.digest for known in store.images()}
    made = store.add_manifest(image.manifest, image.media_type, name=None)
    try:
        store.unpack(made, progress)
    except BaseException:
        if made.manifest.digest not in before:
            with contextlib.suppress(NsContainerError):
                store.remove(made.manifest.digest, force=True)
        raise
    return _named(made, image.names, store)


def _named(image: Image, given: Iterable[str], store: Store) -> Image:
    """Give an image the archive's names; by its manifest's digest, since two may have one config."""
    for name in given:
        image = store.tag(image.manifest.digest, name)
    return image


def _already(blob: Descriptor, progress: Progress | None) -> None:
    _tell(progress, Event("done", digest.short(blob.digest), blob.size, blob.size, "already here"))


def _tell(progress: Progress | None, event: Event) -> None:
    if progress is not None:
        progress(event)
