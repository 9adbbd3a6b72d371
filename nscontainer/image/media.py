"""Media types: OCI's own, which the store keeps, and Docker's, which it takes in."""

from __future__ import annotations

import json
from typing import Any, Final

from nscontainer.errors import ImageError

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD: Final = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD: Final = "application/vnd.docker.image.rootfs.diff.tar.zstd"

LAYER_OF: Final = {"": OCI_LAYER, "gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}
"""The media type of a layer by its compression; "" is none."""
_TO_OCI: Final = {
    OCI_CONFIG: OCI_CONFIG,
    DOCKER_CONFIG: OCI_CONFIG,
    OCI_LAYER: OCI_LAYER,
    OCI_LAYER_GZIP: OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD: OCI_LAYER_ZSTD,
    DOCKER_LAYER: OCI_LAYER,
    DOCKER_LAYER_GZIP: OCI_LAYER_GZIP,
    DOCKER_LAYER_ZSTD: OCI_LAYER_ZSTD,
    # buildkit wrote these for a while
    "application/vnd.docker.image.rootfs.diff.tar+gzip": OCI_LAYER_GZIP,
    "application/vnd.docker.image.rootfs.diff.tar+zstd": OCI_LAYER_ZSTD,
}
_CONFIGS: Final = (OCI_CONFIG, DOCKER_CONFIG)


def encode(value: Any) -> bytes:
    r"""Write JSON as the store does: no spaces, UTF-8.

    Raises
    ------
    ImageError
        A text in it has half a character, which UTF-8 can't say: JSON's ``\ud800``, or a byte that
        came by a command line.
    """
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        text = error.object[max(0, error.start - 20) : error.end + 20]
        raise ImageError(f"what an image says must be UTF-8, and {text!r} is not") from None


def decode(data: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    ImageError
        It is none.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        message = f"{what} is no JSON object"
        raise ImageError(message)
    return value


def to_oci(manifest: bytes, media_type: str, what: str) -> bytes:
    """Give a manifest as OCI's: the same bytes if it is one, converted if it is Docker's schema 2.

    Raises
    ------
    ImageError
        It is neither, it is of no image, or has layers that are somewhere else.
    """
    value = decode(manifest, f"the manifest of {what}")
    media_type = value.get("mediaType") or media_type
    if media_type in (OCI_INDEX, DOCKER_LIST):
        message = f"{what} is a list of manifests, not one"
        raise ImageError(message, hint="name a platform")
    if media_type not in (OCI_MANIFEST, DOCKER_MANIFEST) or value.get("schemaVersion") != 2:
        message = f"the manifest of {what} is of a kind not done: {media_type!r:.120}"
        raise ImageError(message, hint="Docker's schema 2 and OCI's are")
    config, layers = value.get("config"), value.get("layers", [])
    if not isinstance(config, dict) or not isinstance(layers, list):
        message = f"the manifest of {what} has no config or no layers"
        raise ImageError(message)
    if config.get("mediaType") not in _CONFIGS:
        kind = config.get("mediaType")
        message = f"{what} is no container image: its config is {kind!r:.120}"
        raise ImageError(message)
    for part in (config, *layers):
        kind = part.get("mediaType") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind not in _TO_OCI:
            message = f"{what} has a layer of a kind not done: {kind!r:.120}"
            raise ImageError(message, hint="tar, tar+gzip and tar+zstd are")
    if media_type == OCI_MANIFEST and all(
        part["mediaType"] == _TO_OCI[part["mediaType"]] for part in (config, *layers)
    ):
        return manifest
    for part in (config, *layers):
        part["mediaType"] = _TO_OCI[part["mediaType"]]
    value["mediaType"] = OCI_MANIFEST
    return encode(value)
