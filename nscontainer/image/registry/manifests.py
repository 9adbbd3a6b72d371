"""What a registry says an image is: fetched, its digest compared, the right one taken from an index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from nscontainer.errors import ImageError, RegistryError
from nscontainer.image import digest as digests
from nscontainer.image import media
from nscontainer.image.records import Descriptor
from nscontainer.image.registry import platform as platforms
from nscontainer.image.registry.client import Client
from nscontainer.image.registry.platform import Platform

LIMIT: Final = 4 << 20
"""The largest manifest that registries must take (distribution spec, "Pushing Manifests"), in bytes."""
ACCEPT: Final = (
    media.OCI_INDEX, media.DOCKER_LIST, media.OCI_MANIFEST, media.DOCKER_MANIFEST,
)  # fmt: skip
_INDEXES: Final = (media.OCI_INDEX, media.DOCKER_LIST)
_NESTED: Final = 3
_FOREIGN: Final = ("foreign", "nondistributable")
_SCHEMA1: Final = "application/vnd.docker.distribution.manifest.v1"


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image's manifest as it came.

    Parameters
    ----------
    asked_digest
        The digest of what the name stands for: the index's where there is one, else the manifest's.
    config, layers
        Its blobs; layers base first.
    """

    data: bytes
    media_type: str
    digest: str
    asked_digest: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


def fetch(client: Client, reference: str, what: str, wanted: Platform, *, strict: bool) -> Manifest:
    """Get the manifest that a tag or digest stands for, for a platform.

    Parameters
    ----------
    strict
        Whether an index's only image will not do where it is for another platform.

    Raises
    ------
    RegistryError
        There is none, none for the platform, or it is not what its digest says.
    ImageError
        It can't be understood, or is of a kind that is not done.
    """
    asked = ""
    for _ in range(_NESTED):
        data, media_type, digest = _get(client, reference, what)
        asked = asked or digest
        value = media.decode(data, f"the manifest of {what}")
        media_type = _media_type(value, media_type, what)
        if media_type not in _INDEXES:
            config, layers = blobs_of(value, what)
            return Manifest(data, media_type, digest, asked, config, layers)
        reference = choose(value, what, wanted, strict=strict).digest
    raise ImageError(f"{what} is an index of indexes of indexes")


def _get(client: Client, reference: str, what: str) -> tuple[bytes, str, str]:
    data, headers = client.get(f"manifests/{reference}", what, limit=LIMIT, accept=ACCEPT)
    digest = digests.of(data)
    claimed = headers.get("Docker-Content-Digest", "")
    for expected in (reference, claimed):
        if digests.is_digest(expected) and expected != digest:
            raise RegistryError(
                f"{what}: the manifest that came from {client.endpoint.host} has the digest "
                f"{digest}, not {expected}",
                reason="digest",
                hint="it was changed on its way, or where it came from",
            )
    media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return data, media_type, digest


def _media_type(value: dict[str, Any], header: str, what: str) -> str:
    """Tell what kind it is; a kind in the text is stronger than the header's."""
    stated = value.get("mediaType")
    kind = stated if isinstance(stated, str) and stated else header
    if value.get("schemaVersion") == 1 or kind.startswith(_SCHEMA1):
        raise ImageError(
            f"{what} is an image of Docker's old kind (manifest schema 1), which is not done",
            hint="docker pull and docker push with a Docker of this decade renew it",
        )
    if kind in ACCEPT:
        return kind
    if not stated and isinstance(value.get("manifests"), list):
        return media.OCI_INDEX
    if not stated and isinstance(value.get("config"), dict):
        return media.OCI_MANIFEST
    raise ImageError(f"{what} is no image but {kind[:120]!r}")


def choose(value: dict[str, Any], what: str, wanted: Platform, *, strict: bool) -> Descriptor:
    """Take the image of an index that fits the platform best, the first of equals.

    Raises
    ------
    RegistryError
        None fits.
    """
    entries = value.get("manifests")
    if not isinstance(entries, list):
        raise ImageError(f"the index of {what} has no manifests")
    fitting: list[tuple[int, Descriptor]] = []
    there: list[str] = []
    bare: list[Descriptor] = []
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("mediaType") not in ACCEPT:
            continue
        if not entry.get("platform"):
            bare.append(Descriptor.from_json(entry))
        elif platform := platforms.described(entry["platform"]):
            there.append(str(platform))
            fitness = platforms.fitness(wanted, platform)
            if fitness is not None:
                fitting.append((fitness, Descriptor.from_json(entry)))
    if fitting:
        return min(fitting, key=lambda pair: pair[0])[1]
    if len(bare) == 1 and not there:
        return bare[0]
    known = ", ".join(dict.fromkeys(there)) or "none that is named"
    hint = "pull another with --platform" if not strict else "name one of these"
    raise RegistryError(
        f"{what} has no image for {wanted}; it has {known}", reason="not-found", hint=hint
    )


def blobs_of(value: dict[str, Any], what: str) -> tuple[Descriptor, tuple[Descriptor, ...]]:
    """Read a manifest's descriptors.

    Raises
    ------
    ImageError
        It has none, or they are of a kind that is not done.
    """
    config, layers = value.get("config"), value.get("layers")
    if not isinstance(layers, list):
        raise ImageError(f"the manifest of {what} has no layers")
    for layer in layers:
        kind = str(layer.get("mediaType")) if isinstance(layer, dict) else ""
        if any(word in kind for word in _FOREIGN):
            raise ImageError(
                f"{what} has a layer that may not be handed on by registries ({kind[:120]})",
                hint="it is Windows's, or its maker's to give",
            )
    return Descriptor.from_json(config), tuple(map(Descriptor.from_json, layers))


def parse(data: bytes, what: str) -> tuple[Descriptor, tuple[Descriptor, ...]]:
    """Read the descriptors of a manifest that is one of the store's."""
    return blobs_of(media.decode(data, f"the manifest of {what}"), what)
