"""What of a store is used, by images and by containers, and the removal of what isn't.

Nothing is taken from under somebody who is adding: a sweep holds ``gc.lock`` alone, and everybody
who adds or uses what no index or container names yet shares it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from nscontainer.engine import state
from nscontainer.errors import ImageError
from nscontainer.image import digest as digests
from nscontainer.image import index as indexes
from nscontainer.image import media
from nscontainer.image.blobs import Blobs
from nscontainer.image.index import Index, Row
from nscontainer.image.layers import Layers
from nscontainer.image.lookup import MANIFEST_LIMIT, Lookup, by_manifest
from nscontainer.image.records import Descriptor
from nscontainer.image.tree import remove_tree


@dataclass(frozen=True, slots=True)
class User:
    """A container, and what it stands on."""

    container: str
    image_id: str
    layers: frozenset[str]


@dataclass(slots=True)
class Used:
    """What must stay: blobs by digest, layers by key."""

    blobs: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)


def users(top: str) -> list[User]:
    """List the containers that stand on images of the store, by their state files."""
    found = []
    for where in (state.CONTAINERS, state.STANDBY):
        for container_id in state.ids(top, where):
            facts = state.read(f"{top}/{where}/{container_id}")
            if facts and isinstance(facts.get("image_id"), str):
                keys = facts.get("layers")
                named = frozenset(map(str, keys)) if isinstance(keys, list) else frozenset()
                name = facts.get("name") or container_id
                found.append(User(str(name), facts["image_id"], named))
    return found


class Sweep:
    """The removal of what nothing names; to be used while ``gc.lock`` is held alone."""

    def __init__(self, top: str, blobs: Blobs, layers: Layers, index: Index) -> None:
        self._top = top
        self._blobs = blobs
        self._layers = layers
        self._index = index
        self._lookup = Lookup(blobs)

    def run(self, *, partials: bool = False) -> int:
        """Remove blobs, layers and leftovers; give how many bytes that was.

        Parameters
        ----------
        partials
            Downloads broken off as well, which a next pull would have gone on with.
        """
        self._keep_for_containers()
        used = self._used()
        freed = self._files(self._blobs.directory, lambda n: f"sha256:{n}" not in used.blobs)
        with self._index.locked():  # who writes the index need not hold gc.lock
            freed += self._files(
                self._blobs.scratch, lambda n: partials or not n.endswith(".partial")
            )
        return freed + self._unpacked(used.keys)

    def _used(self) -> Used:
        used = Used()
        seen: set[tuple[str, int]] = set()
        for user in users(self._top):
            used.keys |= user.layers
        for row in self._index.rows():
            used.blobs.add(row.manifest.digest)
            self._names(row.manifest, used, 0, seen)
        return used

    def _names(
        self, manifest: Descriptor, used: Used, depth: int, seen: set[tuple[str, int]]
    ) -> None:
        """Note what a manifest names, or a list of manifests that somebody else has put here."""
        if (manifest.digest, depth) in seen:
            return  # lists that name each other many times over would take for ever
        seen.add((manifest.digest, depth))
        if manifest.media_type in (media.OCI_INDEX, media.DOCKER_LIST) and depth < 4:
            with contextlib.suppress(ImageError):
                value = media.decode(self._blobs.read(manifest, MANIFEST_LIMIT), "")
                for item in value.get("manifests") or []:
                    inner = Descriptor.from_json(item)
                    used.blobs.add(inner.digest)
                    self._names(inner, used, depth + 1, seen)
            return
        with contextlib.suppress(ImageError):
            config, layers = self._lookup.manifest(manifest)
            used.blobs |= {config.digest, *(layer.digest for layer in layers)}
            used.keys |= {layer.key for layer in self._lookup.image(manifest).layers}

    def _keep_for_containers(self) -> None:
        """Put back, without a name, an image that a container was born on while it was removed."""
        needed = {user.image_id for user in users(self._top)}
        if not needed:
            return
        with self._index.changing() as rows:
            known = set()
            for group in by_manifest(rows).values():
                with contextlib.suppress(ImageError):
                    known.add(self._lookup.manifest(group[0].manifest)[0].digest)
            lost = {i for i in needed - known if digests.is_digest(i) and self._blobs.has(i)}
            if lost:
                for manifest in self._unnamed(rows):
                    with contextlib.suppress(ImageError):
                        if self._lookup.image(manifest).id in lost:
                            indexes.add(rows, manifest, None, ())

    def _unnamed(self, rows: list[Row]) -> Iterator[Descriptor]:
        """Blobs that may be manifests and are in no index."""
        known = {row.manifest.digest for row in rows}
        for name in os.listdir(self._blobs.directory):
            digest = f"sha256:{name}"
            size = os.stat(f"{self._blobs.directory}/{name}").st_size
            if digest not in known and digests.is_digest(digest) and size < MANIFEST_LIMIT:
                with open(f"{self._blobs.directory}/{name}", "rb") as file:
                    if file.read(1) == b"{":
                        yield Descriptor(media.OCI_MANIFEST, digest, size)

    def _files(self, directory: str, unwanted: object) -> int:
        assert callable(unwanted)
        freed = 0
        for name in os.listdir(directory):
            path = f"{directory}/{name}"
            with contextlib.suppress(OSError):
                if unwanted(name):
                    if os.path.isdir(path):  # of an import or a bootstrap that was killed
                        remove_tree(path)
                        continue
                    size = os.stat(path).st_size
                    os.unlink(path)
                    freed += size
        return freed

    def _unpacked(self, keep: set[str]) -> int:
        """Remove layers nobody names, and what killed unpackers left."""
        directory = self._layers.directory
        freed = 0
        for name in sorted(os.listdir(directory)):
            path = f"{directory}/{name}"
            if name.endswith(".lock") or name.removesuffix(".json") in keep:
                continue
            if name.endswith(".json"):
                continue  # goes with its directory
            if not name.startswith("."):
                facts = self._layers.facts(name) or {}
                freed += int(facts.get("bytes", 0))
                old = f"{directory}/.old-{os.urandom(6).hex()}"
                os.rename(path, old)
                path = old
            remove_tree(path)
        for name in os.listdir(directory):
            if name.endswith(".json") and not os.path.isdir(f"{directory}/{name[:-5]}"):
                os.unlink(f"{directory}/{name}")
            elif name.endswith(".lock"):
                # Nobody unpacks now, so nobody waits for it.
                os.unlink(f"{directory}/{name}")
        return freed
