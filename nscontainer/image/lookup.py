"""Images found by what a person calls them: a name, a digest, an id or its beginning."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Final

from nscontainer.errors import ImageError, NotFoundError, SpecError
from nscontainer.image import digest as digests
from nscontainer.image import media, names
from nscontainer.image.blobs import Blobs
from nscontainer.image.index import Row
from nscontainer.image.records import Descriptor, Image, Layer

MANIFEST_LIMIT: Final = 8 << 20
CONFIG_LIMIT: Final = 16 << 20
_SHORTEST_ID: Final = 4


def by_manifest(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Group the index by manifest, in its order."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.manifest.media_type == media.OCI_MANIFEST:
            groups.setdefault(row.manifest.digest, []).append(row)
    return groups


class Lookup:
    """Images read from the blobs of a store.

    Parameters
    ----------
    blobs
        Where manifests and configs are.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def manifest(self, descriptor: Descriptor) -> tuple[Descriptor, list[Descriptor]]:
        """Read a manifest: its config's descriptor and its layers', base first.

        Raises
        ------
        ImageError
            It is missing or damaged.
        """
        data = self._blobs.read(descriptor, MANIFEST_LIMIT)
        value = media.decode(data, f"the manifest {descriptor.digest}")
        layers = value.get("layers") or []
        if not isinstance(layers, list):
            raise ImageError(f"the manifest {descriptor.digest} has no list of layers")
        return (
            Descriptor.from_json(value.get("config")),
            [Descriptor.from_json(item) for item in layers],
        )

    def image_id(self, rows: list[Row]) -> str:
        """Give an image's id; its manifest's digest where that can't be read."""
        try:
            return self.manifest(rows[0].manifest)[0].digest
        except ImageError:
            return rows[0].manifest.digest

    def image(
        self, descriptor: Descriptor, named: Iterable[str] = (), sources: Iterable[str] = ()
    ) -> Image:
        """Read an image.

        Raises
        ------
        ImageError
            A blob is missing or damaged, or its parts don't fit together.
        """
        config, layers = self.manifest(descriptor)
        data = self._blobs.read(config, CONFIG_LIMIT)
        value = media.decode(data, f"the config {config.digest}")
        rootfs = value.get("rootfs")
        diff_ids = (rootfs.get("diff_ids") or []) if isinstance(rootfs, dict) else []
        count = len(diff_ids) if isinstance(diff_ids, list) else 0
        if count != len(layers):
            short = digests.short(config.digest)
            message = (
                f"the config of image {short} names {count} layers, its manifest {len(layers)}"
            )
            raise ImageError(message)
        pairs = zip(layers, diff_ids, strict=True)
        return Image(
            id=config.digest,
            manifest=descriptor,
            names=tuple(sorted(named)),
            config=value,
            layers=tuple(Layer(layer, digests.check(diff_id)) for layer, diff_id in pairs),
            repo_digests=tuple(_familiar(source) for source in sources),
        )

    def of(self, rows: list[Row]) -> Image:
        """Read the image that these rows of the index name."""
        sources = dict.fromkeys(source for row in rows for source in row.sources)
        named = [row.name for row in rows if row.name is not None]
        return self.image(rows[0].manifest, named, sources)

    def find(self, ref: str, rows: list[Row]) -> list[Row]:
        """Find an image's rows: by name first, then by digest, id, or an id's beginning.

        Raises
        ------
        NotFoundError
            There is none, or several ids begin so.
        """
        groups = by_manifest(rows)
        digits = ref.removeprefix("sha256:")
        if digits != ref and ref in groups:
            return groups[ref]
        if digits == ref:
            with contextlib.suppress(SpecError):
                if found := _by_name(names.parse(ref), groups):
                    return found
        if _SHORTEST_ID <= len(digits) <= 64 and not digits.strip("0123456789abcdef"):
            hits = self._by_id(digits, groups)
            if len(hits) > 1:
                message = f"the ids of {len(hits)} images begin with {ref!r}"
                raise NotFoundError(message, hint="nscontainer images lists them")
            if hits:
                return next(iter(hits.values()))
        raise _not_found(ref, rows)

    def _by_id(self, digits: str, groups: dict[str, list[Row]]) -> dict[str, list[Row]]:
        """Group what begins so by id: one image may have several manifests, as of two compressions."""
        found: dict[str, list[Row]] = {}
        for digest, rows in groups.items():
            image_id = self.image_id(rows)
            if image_id[7:].startswith(digits) or digest[7:].startswith(digits):
                found.setdefault(image_id, []).extend(rows)
        return found


def _familiar(source: str) -> str:
    """Shorten ``docker.io/library/python@sha256:…`` without parsing: there may be hundreds."""
    for lead in ("docker.io/library/", "docker.io/"):
        if source.startswith(lead):
            return source[len(lead) :]
    return source


def _not_found(ref: str, rows: list[Row]) -> NotFoundError:
    if ref == names.HOST:
        message = "'host' is this machine's own system, and no image of the store"
        return NotFoundError(message, hint="nscontainer images lists those")
    close = names.close_matches(ref, [row.name for row in rows if row.name])
    message = f"no image {ref!r:.300}"
    if close:
        message += f"; there is {' or '.join(close)}"
    return NotFoundError(message, hint=f"pull {ref:.300} gets it from its registry")


def _by_name(wanted: names.Reference, groups: dict[str, list[Row]]) -> list[Row]:
    if wanted.digest:
        source = f"{wanted.name_only()}@{wanted.digest}"
        lead = f"{wanted.familiar_name}:"
        for digest, rows in groups.items():
            ours = any(row.name and row.name.startswith(lead) for row in rows)
            if (digest == wanted.digest and ours) or any(source in row.sources for row in rows):
                return rows
        return []
    return next((r for r in groups.values() if any(x.name == wanted.familiar for x in r)), [])
