"""Layers unpacked: ``layers/<key>``, once for all who use them.

A layer's directory is made under another name and renamed when it is whole. It isn't written to the
disk at once (that would take as long as all the rest): until it has been, a file beside it says in
which boot of Linux it was made, and after another boot, so perhaps a crash, it is made anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Self

from nscontainer import inside
from nscontainer.errors import ImageError, LayerError
from nscontainer.image import digest as digests
from nscontainer.image import files, tree
from nscontainer.image.blobs import Blobs, damaged
from nscontainer.image.progress import Event, Progress
from nscontainer.image.records import Descriptor, Layer
from nscontainer.linux import procfs

if TYPE_CHECKING:
    from nscontainer.image.compression import Reads
    from nscontainer.image.extract import Extracted

_CHUNK: Final = 1 << 20
_AHEAD: Final = 8
_SETTLED_S: Final = 60
"""Linux writes what is older than 30 s (vm.dirty_expire_centisecs): then a sync has little to do."""
_TOGETHER: Final = 2


class Layers:
    """The directory ``layers`` of a store."""

    def __init__(self, root: str, blobs: Blobs) -> None:
        self.directory = f"{root}/layers"
        self._scratch = f"{root}/{files.SCRATCH}"
        self._blobs = blobs

    def path(self, key: str) -> str:
        """Give the directory of a layer, whether it is there or not."""
        return f"{self.directory}/{key}"

    def facts(self, key: str) -> dict[str, Any] | None:
        """Tell what is known of an unpacked layer: ``diff_id``, ``entries``, ``bytes``, ``notes``, ``boot``."""
        try:
            with open(f"{self.path(key)}.json", encoding="utf-8") as file:
                value = json.load(file)
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def sizes(self) -> dict[str, int]:
        """Give the bytes of each unpacked layer, by key."""
        found = {}
        for name in os.listdir(self.directory):
            if not name.startswith(".") and not name.endswith(".json"):
                found[name] = int((self.facts(name) or {}).get("bytes", 0))
        return found

    def is_there(self, diff_id: str) -> bool:
        """Tell whether a layer is unpacked, and whole."""
        key = digests.key(diff_id)
        facts = self.facts(key)
        if facts is None or facts.get("diff_id") != diff_id or not os.path.isdir(self.path(key)):
            return False
        return facts.get("boot") in ("", procfs.boot_id())

    def settle(self, key: str) -> None:
        """Note that a layer is on the disk, if it has been there long enough for that to cost nothing."""
        facts = self.facts(key)
        if facts and facts.get("boot") and time.time() - facts.get("when", 0) > _SETTLED_S:
            files.sync_filesystem(self.directory)
            self._note(key, facts | {"boot": ""})

    def _note(self, key: str, facts: dict[str, Any]) -> None:
        files.write_whole(f"{self.path(key)}.json", json.dumps(facts).encode(), self._scratch)

    def unpack(
        self, layer: Layer, progress: Progress | None = None, stop: threading.Event | None = None
    ) -> None:
        """Unpack a layer if it isn't; safe with others at the same.

        Raises
        ------
        LayerError
            Its blob is damaged, is not the layer that the image's config names, or is refused.
        """
        if self.is_there(layer.diff_id):
            self.settle(layer.key)
            return
        if inside.needed():
            inside.call(_unpacked, self.directory, (layer,), progress, stop)
            return
        with files.exclusive(f"{self.directory}/.{layer.key}.lock"):
            if self.is_there(layer.diff_id):
                return
            new = f"{self.directory}/.new-{layer.key}"
            tree.remove_tree(new)  # of one who was killed
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.path(layer.key), f"{self.directory}/.old-{os.urandom(6).hex()}")
            os.mkdir(new, 0o755)
            try:
                with files.disk_errors("a layer was being unpacked"):
                    made = self._extract(layer, new, progress, stop)
                    facts = {
                        "diff_id": layer.diff_id,
                        "entries": made.entries,
                        "bytes": made.bytes,
                        "notes": made.notes,
                        "boot": procfs.boot_id(),
                        "when": time.time(),
                    }
                    self._note(layer.key, facts)
                    os.rename(new, self.path(layer.key))
            except BaseException:
                tree.remove_tree(new)
                raise

    def _extract(
        self, layer: Layer, into: str, progress: Progress | None, stop: threading.Event | None
    ) -> Extracted:
        from nscontainer.image import compression, extract  # a list of images needs neither

        blob = layer.descriptor
        short = digests.short(blob.digest)
        packed, plain = digests.Hashing(), digests.Hashing()

        def read_packed(data: bytes) -> None:
            if stop is not None and stop.is_set():
                raise _StoppedError("stopped")
            packed.update(data)
            if progress:
                progress(Event("unpack", short, packed.size, blob.size))

        with self._blobs.open(blob) as file:
            tapped = _Tapped(file, read_packed)
            with ReadAhead(compression.decompress(tapped, max_ratio=None), plain.update) as stream:
                try:
                    made = extract.extract(stream, into, packed_bytes=lambda: packed.size)
                    while tapped.read(_CHUNK):  # what may follow the compressed stream's end
                        pass
                except LayerError as error:
                    self._blame(error, blob)
                    message = f"layer {short} is refused: {error.message}"
                    raise LayerError(message, entry=error.entry, hint=error.hint) from None
        if packed.digest != blob.digest:
            raise damaged(blob.digest, "its digest is another")
        if plain.digest != layer.diff_id:
            message = f"layer {short} is not the one the image names: its diffID is {plain.digest}"
            raise ImageError(message, hint="remove the image (rmi) and pull or load it again")
        return made

    def _blame(self, error: LayerError, blob: Descriptor) -> None:
        """Say so where a layer is refused because its blob was damaged here."""
        seen = digests.Hashing()
        with self._blobs.open(blob) as file:  # anew: the one that is unpacked is still read ahead
            while data := file.read(_CHUNK):
                seen.update(data)
        if seen.digest != blob.digest:
            raise damaged(blob.digest, error.message) from None

    def unpack_all(self, layers: tuple[Layer, ...], progress: Progress | None = None) -> list[str]:
        """Unpack what is missing of an image's layers, two at a time; give their keys, base first."""
        wanted = list({layer.diff_id: layer for layer in layers}.values())
        missing = [layer for layer in wanted if not self.is_there(layer.diff_id)]
        for layer in wanted:
            if layer not in missing:
                self.settle(layer.key)
        if missing and inside.needed():
            inside.call(_unpacked, self.directory, tuple(missing), progress)
        else:
            in_parallel(lambda layer, stop: self.unpack(layer, progress, stop), missing)
        return [layer.key for layer in layers]


def _unpacked(
    directory: str,
    missing: tuple[Layer, ...],
    progress: Progress | None,
    _stop: threading.Event | None = None,
) -> None:
    """Unpack layers for an ordinary user, in the namespace that has their files' owners."""
    root = os.path.dirname(directory)
    Layers(root, Blobs(root)).unpack_all(missing, progress)


def in_parallel(work: Callable[[Layer, threading.Event], None], items: list[Layer]) -> None:
    """Do something to each, a few at a time; the first failure, or an interrupt, stops the others."""
    stop = threading.Event()
    if len(items) < 2:
        for item in items:
            work(item, stop)
        return
    from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

    with ThreadPoolExecutor(_TOGETHER, thread_name_prefix="nscontainer-unpack") as pool:
        jobs = [pool.submit(work, item, stop) for item in items]
        try:
            for job in wait(jobs, return_when=FIRST_EXCEPTION).done:
                job.result()
        finally:
            stop.set()
            for job in jobs:
                job.cancel()


class _StoppedError(Exception):
    """Another layer has failed, or the user has interrupted."""


class _Tapped:
    """A stream that tells of what is read from it."""

    def __init__(self, stream: Reads, tap: Callable[[bytes], None]) -> None:
        self._stream = stream
        self._tap = tap

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._tap(data)
        return data


class ReadAhead:
    """A stream read by a thread of its own, ahead of who wants it, and hashed by another.

    zlib and hashlib work without the interpreter's lock, so the three go on side by side.

    Parameters
    ----------
    stream
        Read in the thread alone.
    tap
        Called with every piece, in order, in the second thread.
    """

    def __init__(self, stream: Reads, tap: Callable[[bytes], None]) -> None:
        self._stream = stream
        self._tap = tap
        self._ready: queue.Queue[bytes | BaseException] = queue.Queue(_AHEAD)
        self._to_tap: queue.Queue[bytes] = queue.Queue(_AHEAD)
        self._stop = False
        self._ended = False
        self._reader = threading.Thread(target=self._read_all, daemon=True)
        self._tapper = threading.Thread(target=self._tap_all, daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        self._tapper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        while self._reader.is_alive():
            with contextlib.suppress(queue.Empty):
                self._ready.get(timeout=0.01)
        self._tapper.join()

    def read(self, _size: int = -1, /) -> bytes:
        """Give the next piece, of whatever size it has; none at the end."""
        if self._ended:
            return b""
        got = self._ready.get()
        if isinstance(got, BaseException):
            self._ended = True
            raise got
        if not got:
            self._ended = True
            self._tapper.join()  # whoever sees the end may look at the digest
        return got

    def _read_all(self) -> None:
        try:
            while not self._stop and (data := self._stream.read(_CHUNK)):
                self._to_tap.put(data)
                self._ready.put(data)
        except BaseException as error:  # noqa: BLE001 - raised where it is read
            self._to_tap.put(b"")
            self._ready.put(error)
        else:
            self._to_tap.put(b"")
            self._ready.put(b"")

    def _tap_all(self) -> None:
        while data := self._to_tap.get():
            self._tap(data)
