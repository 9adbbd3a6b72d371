"""Which instruction made which layer, from one build to the next.

A record's key is what the layer was made of: the layers below and their config, the instruction with its
variables replaced, for COPY and ADD the digest of the files. So a key can't name another layer than one
that the same would make again, and builds at the same time can't disturb each other: the last
record written is as good as the first. A record whose layer has gone from the store is as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nscontainer.image import files
from nscontainer.image.records import Descriptor, Layer

if TYPE_CHECKING:
    from nscontainer.image.store import Store

_VERSION: Final = 1
_FOLDER: Final = "build-cache"


@dataclass(frozen=True, slots=True)
class Record:
    """What an instruction made, and when (RFC 3339); no layer where it only changed the config."""

    created: str
    layer: Layer | None = None


class Cache:
    """The records in a store.

    Parameters
    ----------
    store
        Which.
    use
        Whether what is there may be used; it is written in any case.
    """

    def __init__(self, store: Store, *, use: bool = True) -> None:
        self._store = store
        self._use = use
        self._directory = os.path.join(store.root, _FOLDER)

    def find(self, key: str) -> Record | None:
        """Give a record, if its layer is still in the store."""
        record = self._read(key) if self._use else None
        if record is None or record.layer is None:
            return record
        return record if self._store.has(record.layer.descriptor.digest) else None

    def add(self, key: str, record: Record) -> None:
        """Keep a record."""
        value: dict[str, Any] = {"version": _VERSION, "created": record.created}
        if record.layer is not None:
            value["layer"] = record.layer.descriptor.to_json()
            value["diff_id"] = record.layer.diff_id
        with files.disk_errors("a build's record was being written"):
            self._write(key, value)

    def _write(self, key: str, value: dict[str, Any]) -> None:
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        fd, name = tempfile.mkstemp(dir=self._directory, prefix=".")
        try:
            with open(fd, "w", encoding="ascii") as file:
                json.dump(value, file)
                file.flush()
                os.fsync(fd)
            os.rename(name, self._path(key))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise

    def _path(self, key: str) -> str:
        return os.path.join(self._directory, f"{key}.json")

    def _read(self, key: str) -> Record | None:
        try:
            with open(self._path(key), encoding="ascii") as file:
                value = json.load(file)
            if value["version"] != _VERSION:
                return None
            layer = None
            if "layer" in value:
                layer = Layer(Descriptor.from_json(value["layer"]), str(value["diff_id"]))
            return Record(str(value["created"]), layer)
        except (OSError, ValueError, KeyError, TypeError):
            return None  # not there, or cut by a crash of the machine


def key(fingerprint: str, *parts: object) -> str:
    """Make a record's key of the state before an instruction and what the instruction is."""
    return hashlib.sha256(json.dumps([fingerprint, *parts]).encode()).hexdigest()


def sweep(store: Store, *, everything: bool = False) -> int:
    """Remove records whose layer has gone from the store (or all); give how many.

    Records without a layer go with the last one that has any.
    """
    cache = Cache(store)
    directory = os.path.join(store.root, _FOLDER)
    removed = 0
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return 0
    kept, without = 0, []
    for name in names:
        record = cache._read(name.removesuffix(".json")) if name.endswith(".json") else None  # noqa: SLF001
        if record is not None and not everything:
            if record.layer is None:
                without.append(name)
                continue
            if store.has(record.layer.descriptor.digest):
                kept += 1
                continue
        removed += _remove(os.path.join(directory, name))
    if not kept:
        removed += sum(_remove(os.path.join(directory, name)) for name in without)
    return removed


def _remove(path: str) -> int:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        return 1
    return 0
