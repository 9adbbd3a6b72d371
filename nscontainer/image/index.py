"""``index.json``: which manifests there are, and their names.

As OCI has it: one descriptor for each name, in its annotation ``org.opencontainers.image.ref.name``;
a manifest without a name has one descriptor without. skopeo and umoci read it, and may have written
to it. Changed under a lock, replaced whole: a reader needs none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from nscontainer.errors import ImageError, SpecError
from nscontainer.image import files, media, names
from nscontainer.image.records import Descriptor

REF_NAME: Final = "org.opencontainers.image.ref.name"
SOURCE: Final = "org.nscontainer.source"
"""Where it came from or went to, as registries' digests: ``docker.io/library/python@sha256:…``, with
spaces between several."""
NOTHING: Final = b'{"schemaVersion":2,"manifests":[]}'


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the index: a manifest, and a name of it or none."""

    manifest: Descriptor
    name: str | None

    @property
    def sources(self) -> tuple[str, ...]:
        """Where it came from: ``registry/repository@sha256:…``."""
        return tuple(self.manifest.annotations.get(SOURCE, "").split())


class Index:
    """The index of a store."""

    def __init__(self, root: str) -> None:
        self._path = f"{root}/index.json"
        self._lock = f"{root}/lock"
        self._scratch = f"{root}/{files.SCRATCH}"

    def rows(self) -> list[Row]:
        """Read it.

        Raises
        ------
        ImageError
            It is damaged.
        """
        try:
            with open(self._path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return []
        value = media.decode(data, self._path)
        listed = value.get("manifests") or []
        if not isinstance(listed, list):
            raise ImageError(f"{self._path} has no list of manifests")
        return [_row(Descriptor.from_json(item)) for item in listed]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from changing it."""
        with files.exclusive(self._lock):
            yield

    @contextlib.contextmanager
    def changing(self) -> Iterator[list[Row]]:
        """Give the rows to be changed in place; they are written when the block ends well."""
        with files.exclusive(self._lock):
            rows = self.rows()
            before = list(rows)
            yield rows
            if rows != before:
                value = media.decode(self._read_raw(), self._path)
                value["manifests"] = [row.manifest.to_json() for row in rows]
                with files.disk_errors("the index of images was being written"):
                    files.write_whole(self._path, media.encode(value), self._scratch)

    def _read_raw(self) -> bytes:
        try:
            with open(self._path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return NOTHING


def _row(manifest: Descriptor) -> Row:
    text = manifest.annotations.get(REF_NAME)
    if text is None:
        return Row(manifest, None)
    try:
        return Row(manifest, names.parse(text).familiar)
    except SpecError:  # somebody else's, and no name of ours: kept, not shown
        return Row(manifest, None)


def named(manifest: Descriptor, name: str | None) -> Row:
    """Make a row: the manifest's other annotations are kept."""
    annotations = {k: v for k, v in manifest.annotations.items() if k != REF_NAME}
    if name is not None:
        annotations[REF_NAME] = name
    return Row(replace(manifest, annotations=annotations), name)


def add(rows: list[Row], manifest: Descriptor, name: str | None, sources: tuple[str, ...]) -> None:
    """Add a manifest, with its name: who had that before is nameless then, as in Docker."""
    known = [row for row in rows if row.manifest.digest == manifest.digest]
    every = dict.fromkeys(s for row in known for s in row.sources) | dict.fromkeys(sources)
    for row in known:
        manifest = replace(
            manifest, annotations={**row.manifest.annotations, **manifest.annotations}
        )
    if every:
        texts = {**manifest.annotations, SOURCE: " ".join(every)}
        manifest = replace(manifest, annotations=texts)
        for at, row in enumerate(rows):
            if row in known:
                rows[at] = named(manifest, row.name)
    if name is None:
        if not known:
            rows.append(named(manifest, None))
        return
    drop_name(rows, name)
    rows[:] = [r for r in rows if r.name is not None or r.manifest.digest != manifest.digest]
    rows.append(named(manifest, name))


def drop_source(rows: list[Row], known: list[Row], source: str) -> None:
    """Forget one of the registries' digests that an image is known by."""
    for at, row in enumerate(rows):
        if row in known:
            rest = [one for one in row.sources if one != source]
            notes = {k: v for k, v in row.manifest.annotations.items() if k != SOURCE}
            notes |= {SOURCE: " ".join(rest)} if rest else {}
            rows[at] = named(replace(row.manifest, annotations=notes), row.name)


def drop_name(rows: list[Row], name: str) -> bool:
    """Take a name away; its manifest stays, nameless if that was its last. Tell whether it was there."""
    for at, row in enumerate(rows):
        if row.name == name:
            others = [r for r in rows if r.manifest.digest == row.manifest.digest and r is not row]
            if others:
                del rows[at]
            else:
                rows[at] = named(row.manifest, None)
            return True
    return False
