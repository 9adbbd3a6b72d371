"""The image store: a strict OCI image layout, with each layer unpacked once beside it.

``<state dir>/images/``: ``oci-layout``, ``index.json``, ``blobs/``, which skopeo and umoci read;
``layers/`` (:mod:`~nscontainer.image.layers`), ``tmp/``, ``lock`` and ``gc.lock``
(:mod:`~nscontainer.image.sweep`). Many processes may use it at once, and any may be killed at any moment.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol

from nscontainer.engine import state
from nscontainer.errors import HostError, ImageError, SpecError
from nscontainer.image import digest as digests
from nscontainer.image import files, media
from nscontainer.image import index as indexes
from nscontainer.image import names as names_
from nscontainer.image.blobs import Blobs, BlobWriter
from nscontainer.image.index import Index
from nscontainer.image.layers import Layers
from nscontainer.image.lookup import CONFIG_LIMIT, MANIFEST_LIMIT, Lookup, by_manifest
from nscontainer.image.progress import Progress
from nscontainer.image.records import BASE_LABEL, Descriptor, Image, Layer, Pruned, Usage
from nscontainer.image.removal import Removal

if TYPE_CHECKING:
    from nscontainer.image.compression import Compressing

_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
_CHUNK: Final = 1 << 20


class _Sink(Protocol):
    def write(self, data: bytes, /) -> Any: ...


class Store:
    """The images of one state directory.

    Parameters
    ----------
    root
        The directory; ``images`` in the engine's where none is given. Made where it is missing.
    """

    def __init__(self, root: str | None = None) -> None:
        if root is None:
            top = state.state_dir()
            state.prepare(top)
            root = f"{top}/images"
        self.root = os.path.abspath(root)
        _prepare(self.root)
        self._blobs = Blobs(self.root)
        self._index = Index(self.root)
        self._layers = Layers(self.root, self._blobs)
        self._lookup = Lookup(self._blobs)
        self._removal = Removal(self.root, self._blobs, self._layers, self._index)

    # --- blobs -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Keep blobs and layers that nothing names yet from being swept: around all that adds or uses some."""
        with files.shared(f"{self.root}/gc.lock"):
            yield

    def has(self, digest: str) -> bool:
        """Tell whether a blob is there."""
        return self._blobs.has(digest)

    def blob_path(self, digest: str) -> str:
        """Give a blob's file."""
        return self._blobs.path(digest)

    def open_blob(self, blob: Descriptor) -> BinaryIO:
        """Open a blob; its size has been compared, its digest is the reader's to compare."""
        return self._blobs.open(blob)

    def read_blob(self, blob: Descriptor, limit: int = MANIFEST_LIMIT) -> bytes:
        """Read a blob of at most ``limit`` bytes, digest and size compared."""
        return self._blobs.read(blob, limit)

    def put(self, data: bytes) -> str:
        """Keep some bytes as a blob; give its digest."""
        with self.holding():
            return self._blobs.put(data)

    @contextlib.contextmanager
    def writer(self, digest: str | None = None, size: int | None = None) -> Iterator[BlobWriter]:
        """Write a blob piece by piece: :class:`~nscontainer.image.blobs.BlobWriter`."""
        with self.holding(), BlobWriter(self._blobs, digest, size) as writer:
            yield writer

    @property
    def scratch(self) -> str:
        """The directory for what is only temporary, on the store's own filesystem."""
        return self._blobs.scratch

    def sweep(self) -> int:
        """Free what nothing names, unless somebody is adding; give how many bytes that was."""
        return self._removal.try_sweep()

    # --- layers ----------------------------------------------------------------------------

    def add_layer(
        self, source: BinaryIO | Callable[[_Sink], None], compression: str = "gzip"
    ) -> Layer:
        """Take in a layer's tar, compressing it: diffID and digest in one pass.

        Parameters
        ----------
        source
            A stream of the uncompressed tar, or what writes one to the sink it is given.
        compression
            "gzip", "zstd" or "none".
        """
        kind = "" if compression == "none" else compression
        plain = digests.Hashing()
        with self.writer() as writer:
            squeezed = _compress(writer, kind)

            class Sink:
                def write(self, data: bytes, /) -> int:
                    plain.update(data)
                    return squeezed.write(data)

            if callable(source):
                source(Sink())
            else:
                while data := source.read(_CHUNK):
                    Sink().write(data)
            squeezed.finish()
            digest, size = writer.commit()
        return Layer(Descriptor(media.LAYER_OF[kind], digest, size), plain.digest)

    def layer_dir(self, diff_id: str) -> str | None:
        """Give the directory of a layer that is unpacked; None where it isn't."""
        there = self._layers.is_there(diff_id)
        return self._layers.path(digests.key(diff_id)) if there else None

    def layer_facts(self, diff_id: str) -> dict[str, Any] | None:
        """Give ``entries``, ``bytes`` and ``notes`` of an unpacked layer; None where it isn't."""
        return self._layers.facts(digests.key(diff_id)) if self.layer_dir(diff_id) else None

    def unpack(self, image: Image, progress: Progress | None = None) -> list[str]:
        """Unpack the layers of an image that aren't yet; give all their keys, base first.

        Raises
        ------
        LayerError
            A layer is refused, or its blob is damaged.
        """
        with self.holding():
            return self._layers.unpack_all(image.layers, progress)

    def unpack_layer(self, layer: Layer, progress: Progress | None = None) -> None:
        """Unpack one layer if it isn't yet: as soon as its blob is there, before the image is whole."""
        with self.holding():
            self._layers.unpack(layer, progress)

    # --- images ----------------------------------------------------------------------------

    def make_image(
        self,
        config: Mapping[str, Any],
        layers: Sequence[Layer],
        *,
        name: str | None,
        annotations: Mapping[str, str] | None = None,
    ) -> Image:
        """Make an image of layers that are in the store.

        Parameters
        ----------
        config
            The OCI image configuration; its ``rootfs`` is written here.
        name
            Its name, taken from whoever has it; None leaves it nameless.
        annotations
            Of the manifest.
        """
        rootfs = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
        data = media.encode({**config, "rootfs": rootfs})
        with self.holding():
            manifest: dict[str, Any] = {
                "schemaVersion": 2,
                "mediaType": media.OCI_MANIFEST,
                "config": Descriptor(media.OCI_CONFIG, self.put(data), len(data)).to_json(),
                "layers": [layer.descriptor.to_json() for layer in layers],
            }
            if annotations:
                manifest["annotations"] = dict(annotations)
            data = media.encode(manifest)
            return self.add_manifest(data, media.OCI_MANIFEST, name=name, ours=True)

    def add_manifest(
        self,
        manifest: bytes,
        media_type: str,
        *,
        name: str | None,
        source_digest: str | None = None,
        ours: bool = False,
    ) -> Image:
        """Take in an image whose config and layers are in the store.

        Parameters
        ----------
        manifest
            OCI's, or Docker's schema 2, which is converted.
        name
            Its name, taken from whoever has it; None leaves it nameless.
        source_digest
            The digest that the registry knows it by, of the list of manifests where there is one.
        ours
            It was made here, so it may stand on this machine's system. A stranger's that says so would
            be shown the machine's files by a mere label.

        Raises
        ------
        ImageError
            A blob is missing or has another size, or config and layers don't fit together; it says that
            it stands on ``host``, and comes from elsewhere.
        """
        reference = names_.parse(name) if name is not None else None
        what = f"image {reference.familiar}" if reference else "the image"
        data = media.to_oci(manifest, media_type, what)
        with self.holding():
            descriptor = Descriptor(media.OCI_MANIFEST, self.put(data), len(data))
            image = self._lookup.image(descriptor)
            if image.on_host and not ours:
                message = f"{what} stands on the system of the machine that made it ({BASE_LABEL})"
                raise ImageError(message, hint="there: export, and import what that writes")
            for layer in image.layers:
                self._blobs.open(layer.descriptor).close()
            notes: dict[str, str] = {}
            sources: tuple[str, ...] = ()
            if data != manifest:
                notes[ORIGINAL] = digests.of(manifest)
            if source_digest and reference:
                sources = (f"{reference.name_only()}@{digests.check(source_digest)}",)
            tag = replace(reference, digest=None, tag=reference.tag) if reference else None
            label = tag.familiar if tag and tag.tag else None
            with self._index.changing() as rows:
                marked = replace(descriptor, annotations=notes)
                indexes.add(rows, marked, label, sources)
        return self._lookup.of(by_manifest(self._index.rows())[descriptor.digest])

    def images(self) -> list[Image]:
        """List the images, newest first; one that is damaged is left out (:meth:`get` says how)."""
        found = []
        for rows in by_manifest(self._index.rows()).values():
            with contextlib.suppress(ImageError):
                found.append(self._lookup.of(rows))
        found.sort(
            key=lambda image: image.created.timestamp() if image.created else 0, reverse=True
        )
        return found

    def get(self, ref: str) -> Image:
        """Find an image by name, digest, id, or an id's beginning of at least four digits.

        Raises
        ------
        NotFoundError
            There is none, or several have it.
        ImageError
            It is there and damaged.
        """
        return self._lookup.of(self._lookup.find(ref, self._index.rows()))

    def tag(self, source: str, name: str) -> Image:
        """Give an image one more name, taken from whoever has it."""
        reference = names_.parse(name)
        if reference.digest:
            message = f"{name!r} has a digest: a name to give is one without"
            raise SpecError(message, hint=f"as {reference.familiar_name}:1")
        with self._index.changing() as rows:
            found = self._lookup.find(source, rows)
            self._lookup.of(found)
            indexes.add(rows, found[0].manifest, reference.familiar, ())
        return self._lookup.of(by_manifest(self._index.rows())[found[0].manifest.digest])

    def remove(self, ref: str, *, force: bool = False) -> list[str]:
        """Take a name from an image, and remove it with its last.

        Parameters
        ----------
        force
            Also where it is named by id and has several names, or a container stands on it (then it
            stays, nameless, until a prune after the container's end).

        Returns
        -------
        list[str]
            ``untagged: NAME`` and ``deleted: sha256:…`` lines, as Docker's.

        Raises
        ------
        NotFoundError
            There is none.
        StateError
            A container stands on it, or it has several names.
        """
        return self._removal.remove(ref, force=force)

    def prune(self, *, all: bool = False) -> Pruned:  # noqa: A002 - Docker's word
        """Remove nameless images (with ``all``: all that no container stands on) and broken-off pulls."""
        return self._removal.prune(everything=all)

    def usage(self) -> list[Usage]:
        """Tell what takes how much space: images (their blobs), unpacked layers, broken-off pulls."""
        return self._removal.usage(self.images())


ORIGINAL: Final = "org.nscontainer.original-digest"
"""An index annotation: the digest of the Docker manifest that an image was converted from."""


def _compress(writer: BlobWriter, kind: str) -> Compressing:
    from nscontainer.image import compression  # a list of images needs none

    return compression.compress(writer, kind)


def _prepare(root: str) -> None:
    """Make the store's directories and files, where they are missing."""
    try:
        for directory in ("", "/blobs", "/blobs/sha256", "/layers", f"/{files.SCRATCH}"):
            with contextlib.suppress(FileExistsError):
                os.mkdir(root + directory, 0o700)
        first = {"oci-layout": _LAYOUT, "index.json": indexes.NOTHING}
        if not all(os.path.exists(f"{root}/{name}") for name in first):
            with files.exclusive(f"{root}/lock"):
                for name, data in first.items():
                    if not os.path.exists(f"{root}/{name}"):
                        files.write_whole(f"{root}/{name}", data, f"{root}/{files.SCRATCH}")
    except OSError as error:
        message = f"the image store {root} can't be made: {error.strerror}"
        raise HostError(message, hint="set NSCONTAINER_STATE_DIR to a directory that can") from None
    state.check_ours(root, "image store")


__all__ = [
    "BASE_LABEL", "CONFIG_LIMIT", "MANIFEST_LIMIT", "Descriptor", "Image", "Layer", "Pruned", "Store",
    "Usage",
]  # fmt: skip
