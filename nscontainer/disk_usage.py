"""What images and containers take of the disk, for ``df``: a row a kind."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any, Final

from nscontainer import inside
from nscontainer.engine import state, storage
from nscontainer.errors import HostError, StateError

if TYPE_CHECKING:
    from nscontainer.image.records import Image
    from nscontainer.image.store import Store

_BLOCK: Final = 512
"""What st_blocks counts, on every file system (stat(2))."""


@inside.runs
def rows() -> list[dict[str, Any]]:
    """Give a row a kind.

    Returns
    -------
    list[dict]
        ``type``, ``count``, ``in_use``, ``size_bytes``, ``reclaimable_bytes``. Images: their blobs,
        compressed, each once; of layers the unpacked files, each layer once however many containers
        use it; of containers what they have written; of the build cache what no image has besides.
    """
    from nscontainer.image.store import Store

    store = Store()
    found = {
        line.kind: _row(
            _TYPES.get(line.kind, line.kind),
            line.total,
            line.active,
            line.size_bytes,
            line.reclaimable_bytes,
        )
        for line in store.usage()
    }
    count, size = _cached(store)
    images = found.pop("images")
    images["count"] -= count
    images["size_bytes"] -= size
    images["reclaimable_bytes"] = max(0, images["reclaimable_bytes"] - size)
    cache = _row("build cache", count, 0, size, size)
    downloads = found.pop("downloads")
    return [images, *found.values(), _containers(), cache, downloads]


def _row(kind: str, count: int, in_use: int, size: int, reclaimable: int) -> dict[str, Any]:
    return {
        "type": kind,
        "count": count,
        "in_use": in_use,
        "size_bytes": size,
        "reclaimable_bytes": reclaimable,
    }


def _cached(store: Store) -> tuple[int, int]:
    """Count what builds keep for the next one, and the bytes of the layers that no image has besides."""
    from nscontainer.build.keeping import MARK

    kept: dict[str, int] = {}
    others: set[str] = set()
    count = 0
    for image in store.images():
        layers = {layer.descriptor.digest: layer.descriptor.size for layer in image.layers}
        marks = {} if image.names else _annotations(store, image)
        if marks.items() >= MARK.items():
            count += 1
            kept |= layers
        else:
            others |= layers.keys()
    return count, sum(size for digest, size in kept.items() if digest not in others)


def _annotations(store: Store, image: Image) -> dict[str, str]:
    manifest = json.loads(store.read_blob(image.manifest))
    return dict(manifest.get("annotations") or {})


_TYPES: Final = {
    "layers": "unpacked layers",
    "downloads": "broken-off downloads",
}


def _containers() -> dict[str, Any]:
    top = state.state_dir()
    count = in_use = size = free = 0
    for container_id in state.ids(top):
        directory = f"{top}/{state.CONTAINERS}/{container_id}"
        written = _written(directory)
        count += 1
        size += written
        if state.is_owned(directory):
            in_use += 1
        else:
            free += written
    return _row("containers", count, in_use, size, free)


def _written(directory: str) -> int:
    """Give what a container takes: its files, or those of its filesystem and what was removed of it."""
    taken = storage.disk_bytes(directory)
    with contextlib.suppress(StateError, HostError), storage.opened(directory) as place:
        return max(taken, sum(disk_bytes(path) for path in uppers(place)))
    return taken


def uppers(directory: str) -> list[str]:
    """Give the directories of a container's read-write layer, one a view of its image."""
    with contextlib.suppress(FileNotFoundError):  # it went while we looked
        names = (n for n in os.listdir(directory) if n.startswith("upper") and n[5:].isdigit())
        return [f"{directory}/{name}" for name in sorted(names, key=lambda n: int(n[5:]))]
    return []


def disk_bytes(top: str) -> int:
    """Give what the files below a directory take of the disk, each inode once, no link followed."""
    total = 0
    seen: set[tuple[int, int]] = set()
    for _, _, names, fd in os.fwalk(top, follow_symlinks=False):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                facts = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if facts.st_nlink > 1:
                    if (facts.st_dev, facts.st_ino) in seen:
                        continue
                    seen.add((facts.st_dev, facts.st_ino))
                total += facts.st_blocks * _BLOCK
    return total
