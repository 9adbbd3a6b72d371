"""Names taken away, images removed, and the space they took."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from nscontainer import inside
from nscontainer.errors import ImageError, SpecError, StateError
from nscontainer.image import files, names
from nscontainer.image import index as indexes
from nscontainer.image.blobs import Blobs
from nscontainer.image.index import Index, Row
from nscontainer.image.layers import Layers
from nscontainer.image.lookup import Lookup, by_manifest
from nscontainer.image.records import Image, Pruned, Usage
from nscontainer.image.sweep import Sweep, users


class Removal:
    """What removes images from a store; ``top`` is the engine's directory, whose containers count."""

    def __init__(self, root: str, blobs: Blobs, layers: Layers, index: Index) -> None:
        self._root = root
        self._top = os.path.dirname(root)
        self._gc_lock = f"{root}/gc.lock"
        self._index = index
        self._layers = layers
        self._blobs = blobs
        self._lookup = Lookup(blobs)

    def remove(self, ref: str, *, force: bool) -> list[str]:
        """Take a name from an image, and remove it with its last; see ``Store.remove``."""
        lines = []
        with self._index.changing() as rows:
            found = self._lookup.find(ref, rows)
            named = [row.name for row in found if row.name is not None]
            label = _label(ref, named)
            if named and (source := _source(ref, found)):  # as Docker: its names stay
                indexes.drop_source(rows, found, source)
                return [f"untagged: {ref}"]
            if label is None and len(named) > 1 and not force:
                message = f"image {ref} has several names: {', '.join(named)}"
                raise StateError(message, hint="remove each, or all with --force")
            going = named if label is None else [label]
            last = len(going) == len(named)
            holders = self._holders(found) if last else []
            if holders and not force:
                message = f"image {ref} is in use by container {', '.join(holders[:5])}"
                raise StateError(message, hint="remove the container first")
            for name in going:
                indexes.drop_name(rows, name)
                lines.append(f"untagged: {name}")
            if last and not holders:
                manifests = {row.manifest.digest for row in found}
                rows[:] = [row for row in rows if row.manifest.digest not in manifests]
                kept = {i for rest in by_manifest(rows).values() for i in self._ids(rest)}
                lines += [f"deleted: {i}" for i in self._ids(found) if i not in kept]
        self.try_sweep()
        return lines

    def prune(self, *, everything: bool) -> Pruned:
        """Remove nameless images, or all that no container stands on; see ``Store.prune``."""
        removed = []
        with self._index.changing() as rows:
            used = {user.image_id for user in users(self._top)}
            for digest, group in by_manifest(rows).items():
                named = [row.name for row in group if row.name is not None]
                image_id = self._lookup.image_id(group)
                if (everything or not named) and image_id not in used:
                    rows[:] = [row for row in rows if row.manifest.digest != digest]
                    removed += named or [image_id]
        return Pruned(tuple(removed), self.try_sweep(partials=True))

    def try_sweep(self, *, partials: bool = False) -> int:
        """Free what nothing names, unless somebody is adding: then the next one does."""
        if inside.needed():
            return inside.call(_swept, self._root, partials=partials)
        with files.exclusive_if_free(self._gc_lock) as alone:
            sweep = Sweep(self._top, self._blobs, self._layers, self._index)
            return sweep.run(partials=partials) if alone else 0

    def usage(self, images: list[Image]) -> list[Usage]:
        """Tell what takes how much space; see ``Store.usage``."""
        found = users(self._top)
        used_ids = {user.image_id for user in found}
        used_keys = {key for user in found for key in user.layers}
        active = [image for image in images if image.id in used_ids]
        blobs = _sizes(images)
        held = _sizes([image for image in images if image.id in used_ids or image.names])
        named_keys = {layer.key for image in images for layer in image.layers}
        unpacked = self._layers.sizes()
        partial = self._blobs.partials()
        total = sum(blobs.values())
        loose = sum(size for key, size in unpacked.items() if key not in named_keys | used_keys)
        layers_active = len(unpacked.keys() & used_keys)
        return [
            Usage("images", len(images), len(active), total, total - sum(held.values())),
            Usage("layers", len(unpacked), layers_active, sum(unpacked.values()), loose),
            Usage("downloads", len(partial), 0, sum(partial), sum(partial)),
        ]

    def _holders(self, rows: list[Row]) -> list[str]:
        image_id = self._lookup.image_id(rows)
        return [user.container for user in users(self._top) if user.image_id == image_id]

    def _ids(self, rows: list[Row]) -> list[str]:
        try:
            image = self._lookup.of(rows)
        except ImageError:
            return [rows[0].manifest.digest]
        return [image.id, *dict.fromkeys(layer.diff_id for layer in reversed(image.layers))]


def _swept(root: str, *, partials: bool) -> int:
    """Sweep an ordinary user's store, in the namespace that has the owners of its layers' files."""
    blobs = Blobs(root)
    removal = Removal(root, blobs, Layers(root, blobs), Index(root))
    return removal.try_sweep(partials=partials)


def _label(ref: str, named: list[str]) -> str | None:
    """Tell which of its names an image was asked for by; None for an id or a digest."""
    with contextlib.suppress(SpecError):
        reference = names.parse(ref)
        if reference.familiar in named:
            return reference.familiar
    return None


def _source(ref: str, found: list[Row]) -> str | None:
    """Tell by which ``registry/repository@sha256:…`` an image was asked for; None for anything else."""
    with contextlib.suppress(SpecError):
        reference = names.parse(ref)
        source = f"{reference.name_only()}@{reference.digest}"
        if reference.digest and any(source in row.sources for row in found):
            return source
    return None


def _sizes(images: Sequence[Image]) -> dict[str, int]:
    """Bytes of each blob, once."""
    sizes = {}
    for image in images:
        sizes[image.manifest.digest] = image.manifest.size
        for layer in image.layers:
            sizes[layer.descriptor.digest] = layer.descriptor.size
    return sizes
