"""What an archive of images has in it, by its own indexes, manifests and configs.

Two forms: OCI's image layout (``oci-layout``, ``index.json``), which Docker's archives have been too since
Docker 25; and Docker's own (``manifest.json``), of 1.10 and later.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nscontainer.errors import ImageError
from nscontainer.image import digest, media
from nscontainer.image.archives import source
from nscontainer.image.archives.source import Source
from nscontainer.image.records import Descriptor
from nscontainer.image.registry import platform as platforms

REF_NAME: Final = "org.opencontainers.image.ref.name"
DOCKER_NAME: Final = "io.containerd.image.name"
"""What Docker and containerd call an image by in an index; there ``ref.name`` is only the tag."""
_ATTESTATION: Final = "vnd.docker.reference.type"
_INDEXES: Final = (media.OCI_INDEX, media.DOCKER_LIST)
_MOST_IMAGES: Final = 1000
_DEEPEST: Final = 4
_NOT_A_NAME: Final = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob that is to be in the store, and the archive's part that has it."""

    descriptor: Descriptor
    part: str


@dataclass(frozen=True, slots=True)
class DockerLayer:
    """A layer that only its diffID is known of: its archive says nothing of compressed bytes."""

    diff_id: str
    part: str


@dataclass(slots=True)
class Found:
    """One image of the archive, complete as far as can be told without copying."""

    names: list[str]
    blobs: list[Blob]
    manifest: bytes = b""
    media_type: str = media.OCI_MANIFEST
    digest: str | None = None
    config: bytes | None = None
    layers: list[DockerLayer] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What errors call it."""
        return self.names[0] if self.names else "an image without a name"


def find(archive: Source, wanted: platforms.Platform) -> list[Found]:
    """Find an archive's images, each with all that it needs.

    Raises
    ------
    ImageError
        It is no archive of images, or is damaged, or an image isn't there for the platform.
    """
    if archive.size("index.json") is not None and archive.size("oci-layout") is not None:
        found = [*_Oci(archive, wanted).images()]
    elif archive.size("manifest.json") is not None:
        found = [*_docker_images(archive)]
    elif archive.size("repositories") is not None:
        raise ImageError(
            f"{archive.what} has no manifest.json: written by a Docker older than 1.10",
            hint="docker load it into a newer one, and save it again",
        )
    else:
        raise ImageError(
            f"{archive.what} is no archive of images: neither manifest.json nor index.json is in it",
            hint="a tar of a root filesystem: import",
        )
    if not found:
        raise ImageError(f"{archive.what} has no image in it")
    return found


# ------------------------------------------------------------------------------------- OCI's


class _Oci:
    """An OCI image layout, in a directory or an archive."""

    def __init__(self, archive: Source, wanted: platforms.Platform) -> None:
        self.archive = archive
        self.wanted = wanted

    def images(self) -> Iterator[Found]:
        what = f"{self.archive.what}: index.json"
        version = media.decode(source.read(self.archive, "oci-layout"), "oci-layout")
        if version.get("imageLayoutVersion") not in ("1.0.0", "1.1.0"):
            raise ImageError(
                f"{self.archive.what}: an OCI layout of version"
                f" {version.get('imageLayoutVersion')!r:.40} is not known"
            )
        index = media.decode(source.read(self.archive, "index.json"), what)
        by_manifest: dict[str, Found] = {}
        for name, entries in self._by_name(_entries(index, what)).items():
            chosen = self._choose(entries, name or self.archive.what) if name else entries
            for entry in chosen:
                image = self._resolve(entry, name or entry.digest, depth=0)
                key = image.digest or ""
                known = by_manifest.setdefault(key, image)
                if name and name not in known.names:
                    known.names.append(name)
        yield from by_manifest.values()

    def _by_name(self, entries: Iterable[_Entry]) -> dict[str, list[_Entry]]:
        """Group entries by name: those of one name are its platforms; "" has the nameless."""
        groups: dict[str, list[_Entry]] = {}
        for entry in entries:
            groups.setdefault(self._name(entry.annotations), []).append(entry)
        return groups

    def _name(self, annotations: Mapping[str, str]) -> str:
        """Give an entry's name; that of a layout with mere tags in it begins with the layout's own."""
        if full := annotations.get(DOCKER_NAME):
            return full
        name = annotations.get(REF_NAME, "")
        if not name or ":" in name or "/" in name or "@" in name:
            return name
        stem = os.path.basename(os.path.abspath(self.archive.what)).partition(".")[0].lower()
        stem = _NOT_A_NAME.sub("-", stem).strip("-")
        return f"{stem}:{name}" if stem else ""

    def _choose(self, entries: list[_Entry], what: str) -> list[_Entry]:
        """Choose by platform; one alone is taken whatever it was made for."""
        if len(entries) == 1:
            return entries
        fitting = []
        for entry in entries:
            fit = platforms.fitness(self.wanted, entry.platform) if entry.platform else None
            if fit is not None and self.archive.size(_blob_path(entry.digest)) is not None:
                fitting.append((fit, entry))
        if fitting:
            return [min(fitting, key=lambda pair: pair[0])[1]]
        there = sorted({str(entry.platform or "unknown") for entry in entries})
        raise ImageError(
            f"{what} isn't there for {self.wanted}", hint=f"it is for {', '.join(there)}"
        )

    def _resolve(self, entry: _Entry, name: str, depth: int) -> Found:
        """Follow an entry to its manifest, through indexes."""
        data = self._verified(entry.descriptor, source.JSON_LIMIT)
        kind = media.decode(data, f"the manifest {entry.digest}").get("mediaType")
        kind = kind or entry.descriptor.media_type
        if kind not in _INDEXES:
            return self._image(entry.descriptor, data)
        if depth == _DEEPEST:
            raise ImageError(f"{self.archive.what}: indexes within indexes, more than {_DEEPEST}")
        inner = _entries(media.decode(data, f"the index {entry.digest}"), entry.digest)
        real = [e for e in inner if _ATTESTATION not in e.annotations]
        if not real:
            raise ImageError(f"{self.archive.what}: the index of {name} has no image in it")
        return self._resolve(self._choose(real, name)[0], name, depth + 1)

    def _image(self, manifest: Descriptor, data: bytes) -> Found:
        what = f"{self.archive.what}: {manifest.digest}"
        value = media.decode(media.to_oci(data, manifest.media_type, what), what)
        parts = [value["config"], *value.get("layers", [])]
        blobs = [self._blob(Descriptor.from_json(part)) for part in parts]
        return Found(
            [], blobs, manifest=data, media_type=manifest.media_type, digest=manifest.digest
        )

    def _blob(self, descriptor: Descriptor) -> Blob:
        part = _blob_path(descriptor.digest)
        size = self.archive.size(part)
        if size is None:
            return Blob(descriptor, "")
        if size != descriptor.size:
            raise ImageError(
                f"{self.archive.what}: the blob {descriptor.digest} has {size} bytes,"
                f" not {descriptor.size}"
            )
        return Blob(descriptor, part)

    def _verified(self, descriptor: Descriptor, limit: int) -> bytes:
        data = source.read(self.archive, _blob_path(descriptor.digest), limit)
        if len(data) != descriptor.size or digest.of(data) != descriptor.digest:
            raise ImageError(
                f"{self.archive.what}: the blob {descriptor.digest} isn't what its digest says",
                hint="the archive is damaged or was changed",
            )
        return data


@dataclass(frozen=True, slots=True)
class _Entry:
    descriptor: Descriptor
    platform: platforms.Platform | None

    @property
    def digest(self) -> str:
        return self.descriptor.digest

    @property
    def annotations(self) -> Mapping[str, str]:
        return self.descriptor.annotations


def _entries(index: Mapping[str, Any], what: str) -> list[_Entry]:
    manifests = index.get("manifests")
    if not isinstance(manifests, list):
        raise ImageError(f"{what} is no index: it has no list of manifests")
    if len(manifests) > _MOST_IMAGES:
        raise ImageError(f"{what} lists {len(manifests)} manifests, more than {_MOST_IMAGES}")
    known = (*_INDEXES, media.OCI_MANIFEST, media.DOCKER_MANIFEST)
    return [
        _Entry(Descriptor.from_json(entry), platforms.described(entry.get("platform")))
        for entry in manifests
        if isinstance(entry, dict) and entry.get("mediaType") in known
    ]


def _blob_path(name: str) -> str:
    return f"blobs/sha256/{digest.hexadecimal(name)}"


# ---------------------------------------------------------------------------------- Docker's


def _docker_images(archive: Source) -> Iterator[Found]:
    what = f"{archive.what}: manifest.json"
    data = source.read(archive, "manifest.json")
    entries = media.decode(b'{"images":' + data + b"}", what).get("images")
    if not isinstance(entries, list) or len(entries) > _MOST_IMAGES:
        raise ImageError(f"{what} is no list of images")
    for entry in entries:
        parts = entry if isinstance(entry, dict) else {}
        config, layers, tags = (parts.get(key) for key in ("Config", "Layers", "RepoTags"))
        if not isinstance(config, str) or not _are_texts(layers) or not _are_texts(tags or []):
            raise ImageError(f"{what} has an entry without Config or Layers")
        yield _docker_image(archive, config, layers or [], tags or [])


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _docker_image(archive: Source, config: str, layers: list[str], tags: list[str]) -> Found:
    data = source.read(archive, config)
    rootfs = media.decode(data, f"{archive.what}: {config}").get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    diff_ids = diff_ids or []
    if not _are_texts(diff_ids) or len(diff_ids) != len(layers):
        raise ImageError(
            f"{archive.what}: {config} tells of {len(diff_ids)} layers, manifest.json of {len(layers)}"
        )
    found = Found([*tags], [], config=data)
    for diff_id, layer in zip(diff_ids, layers, strict=True):
        part = os.path.normpath(layer)
        there = archive.size(part) is not None
        found.layers.append(DockerLayer(digest.check(diff_id), part if there else ""))
    return found
