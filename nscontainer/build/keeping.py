"""Images without a name that keep a build's layers in the store, for the next build to find.

They are marked in their manifest. One whose layers another image has as well is not needed: after a
build that succeeded only those of other stages are left, after one that failed the steps it got through.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from nscontainer.errors import NsContainerError

if TYPE_CHECKING:
    from nscontainer.image.records import Image
    from nscontainer.image.store import Store

_MARK: Final = "org.nscontainer.build-cache"
MARK: Final[Mapping[str, str]] = {_MARK: "1"}
"""The annotation of such a manifest."""


def drop_what_others_have(store: Store) -> None:
    """Remove images that only keep layers for the cache, where another image keeps them too."""
    with contextlib.suppress(NsContainerError, OSError):
        found = store.images()
        for image in found:
            if not _is_caches(store, image):
                continue
            if any(_keeps(store, other, image) for other in found):
                with contextlib.suppress(NsContainerError, OSError):
                    store.remove(image.manifest.digest)


def _is_caches(store: Store, image: Image) -> bool:
    """Tell whether an image is only there to keep layers."""
    if image.names:
        return False
    manifest = json.loads(store.read_blob(image.manifest))
    return _MARK in (manifest.get("annotations") or {})


def _keeps(store: Store, other: Image, image: Image) -> bool:
    """Tell whether another image has all of an image's layers, and more, or also a name."""
    ours = [layer.diff_id for layer in image.layers]
    theirs = [layer.diff_id for layer in other.layers]
    if other.manifest.digest == image.manifest.digest or theirs[: len(ours)] != ours:
        return False
    return len(theirs) > len(ours) or not _is_caches(store, other)
