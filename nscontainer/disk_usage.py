"""What images and containers take of the disk, for ``df``: a row a kind."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Final

from nscontainer.engine import state

_BLOCK: Final = 512
"""What st_blocks counts, on every file system (stat(2))."""


def rows() -> list[dict[str, Any]]:
    """Give a row a kind.

    Returns
    -------
    list[dict]
        ``type``, ``count``, ``in_use``, ``size_bytes``, ``reclaimable_bytes``. Images: their blobs,
        compressed, each once; of layers the unpacked files, each layer once however many containers
        use it; of containers what they have written.
    """
    from nscontainer.image.store import Store

    found = [
        {
            "type": _TYPES.get(line.kind, line.kind),
            "count": line.total,
            "in_use": line.active,
            "size_bytes": line.size_bytes,
            "reclaimable_bytes": line.reclaimable_bytes,
        }
        for line in Store().usage()
    ]
    found.insert(min(2, len(found)), _containers())
    return found


_TYPES: Final = {
    "layers": "unpacked layers",
    "downloads": "broken-off downloads",
}


def _containers() -> dict[str, Any]:
    top = state.state_dir()
    count = in_use = size = free = 0
    for container_id in state.ids(top):
        directory = f"{top}/{state.CONTAINERS}/{container_id}"
        written = sum(disk_bytes(path) for path in uppers(directory))
        count += 1
        size += written
        if state.is_owned(directory):
            in_use += 1
        else:
            free += written
    return {
        "type": "containers",
        "count": count,
        "in_use": in_use,
        "size_bytes": size,
        "reclaimable_bytes": free,
    }


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
