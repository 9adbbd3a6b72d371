"""Images into archives: one that Docker loads and that is an OCI layout too, or the layout alone.

Docker's archives have been OCI layouts since Docker 25; here they are from the start: the same blobs, with
``manifest.json`` and ``repositories`` beside ``index.json``. Layers keep their gzip, which ``docker load``
undoes by itself; zstd it learnt only later, so those layers are written plain. The same images give the same
bytes: names in order, no times.
"""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, Protocol

from nscontainer.errors import ImageError, SpecError
from nscontainer.image import compression, digest, media, names
from nscontainer.image.archives import dest
from nscontainer.image.archives.contents import DOCKER_NAME, REF_NAME
from nscontainer.image.archives.dest import Target
from nscontainer.image.progress import Event, Progress
from nscontainer.image.records import Descriptor, Image

if TYPE_CHECKING:
    from nscontainer.image.store import Store

Format = Literal["docker", "oci", "oci-dir"]
FORMATS: Final[tuple[Format, ...]] = ("docker", "oci", "oci-dir")
_CHUNK: Final = 1 << 20
_MANIFEST_LIMIT: Final = 8 << 20
_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'


def save(
    images: str | Sequence[str],
    target: Target,
    *,
    store: Store,
    format: str = "docker",  # noqa: A002 - skopeo's and podman's word
    progress: Progress | None = None,
) -> None:
    """Write images to one archive; blobs that several have are in it once.

    Parameters
    ----------
    images
        Names or ids. By name an image is saved with that name; by id with every name it has.
    target
        A path, which is there whole or not at all; or a binary stream.
    format
        ``docker``: for ``docker load`` and everything that reads OCI archives. ``oci``: an OCI archive.
        ``oci-dir``: an OCI layout, a directory that isn't there yet; so is ``oci`` to a path that ends
        in a slash.

    Raises
    ------
    SpecError
        The target is a terminal or can't be made, the format is unknown, or an image stands on ``host``.
    NotFoundError
        There is no such image.
    ImageError
        A blob is missing or damaged.
    """
    if format not in FORMATS:
        raise SpecError(f"format {format!r} is unknown", hint=f"one of {', '.join(FORMATS)}")
    wanted = [images] if isinstance(images, str) else [*images]
    if not wanted:
        raise SpecError("no image to save", hint="name one or more")
    is_path = isinstance(target, str | os.PathLike)
    path = os.fspath(target) if is_path else ""  # type: ignore[arg-type]
    directory = format == "oci-dir" or (format == "oci" and path.endswith("/"))
    if directory and not is_path:
        raise SpecError("an OCI layout is a directory: it can't be written to a stream")
    with store.holding(), ExitStack() as stack:
        chosen = _chosen(wanted, store)
        plan = _Plan(store, stack, docker=format == "docker")
        plan.add(chosen)
        sink: _Sink
        if directory:
            top = stack.enter_context(dest.new_directory(path.rstrip("/")))
            sink = _Directory(top)
        else:
            sink = _Tar(stack.enter_context(dest.writing(target)))
        plan.write(sink, progress)


def refuse_on_host(image: Image, name: str) -> None:
    """Refuse an image whose lowest layer is this machine: others have another.

    Raises
    ------
    SpecError
        It is one.
    """
    if image.on_host:
        raise _on_host(name)


def _on_host(name: str) -> SpecError:
    how = "is" if name == names.HOST else "stands on"
    return SpecError(
        f"{name} {how} this machine's own system, which an archive of layers can't hold",
        hint="export writes all its files as one tar",
    )


def _chosen(wanted: Iterable[str], store: Store) -> list[tuple[Image, tuple[str, ...]]]:
    """Find the images, each once, and the names that each is saved with."""
    found: dict[str, tuple[Image, dict[str, None]]] = {}
    for text in wanted:
        if text == names.HOST:
            raise _on_host(text)
        image = store.get(text)
        refuse_on_host(image, text)
        kept = found.setdefault(image.id, (image, {}))[1]
        kept.update(dict.fromkeys(_names_of(image, text)))
    return [(image, tuple(kept)) for image, kept in found.values()]


def _names_of(image: Image, text: str) -> Iterable[str]:
    try:
        familiar = names.parse(text).familiar
    except SpecError:
        return image.names
    return (familiar,) if familiar in image.names else image.names


# ------------------------------------------------------------------------------------ contents


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the archive: bytes, or a file of this machine."""

    size: int
    data: bytes | None = None
    path: str | None = None
    stream: BinaryIO | None = None

    def open(self) -> BinaryIO:
        if self.data is not None:
            return io.BytesIO(self.data)
        if self.stream is not None:
            self.stream.seek(0)
            return self.stream
        assert self.path is not None
        return open(self.path, "rb", buffering=0)


class _Plan:
    """What is to be written, worked out before the first byte is."""

    def __init__(self, store: Store, stack: ExitStack, *, docker: bool) -> None:
        self._store = store
        self._stack = stack
        self._docker = docker
        self.blobs: dict[str, _File] = {}
        self._index: list[dict[str, object]] = []
        self._manifests: list[dict[str, object]] = []
        self._repositories: dict[str, dict[str, str]] = {}

    def add(self, images: Iterable[tuple[Image, tuple[str, ...]]]) -> None:
        for image, tags in images:
            layers = [self._layer(layer.descriptor, layer.diff_id) for layer in image.layers]
            manifest, data = self._manifest(image, layers)
            self.blobs[manifest.digest] = _File(manifest.size, data=data)
            config = self._store.blob_path(image.id)
            self.blobs[image.id] = _File(os.path.getsize(config), path=config)
            for tag in tags or ("",):
                self._index.append(self._entry(manifest, tag))
            self._describe_for_docker(image, layers, tags)

    def _layer(self, layer: Descriptor, diff_id: str) -> Descriptor:
        if self._docker and layer.media_type == media.OCI_LAYER_ZSTD:
            return self._plain(layer, diff_id)
        self._store.open_blob(layer).close()  # it is there, and of the right size
        self.blobs[layer.digest] = _File(layer.size, path=self._store.blob_path(layer.digest))
        return layer

    def _plain(self, layer: Descriptor, diff_id: str) -> Descriptor:
        """Undo a layer's compression: its size must be known before it is written."""
        if diff_id not in self.blobs:
            spool = self._stack.enter_context(tempfile.TemporaryFile(dir=self._store.scratch))  # noqa: SIM115
            sum_ = digest.Hashing()
            with self._store.open_blob(layer) as blob:
                tar = compression.decompress(blob)
                while chunk := tar.read(_CHUNK):
                    sum_.update(chunk)
                    spool.write(chunk)
            if sum_.digest != diff_id:
                raise ImageError(
                    f"the layer {layer.digest} is damaged: its diffID is not {diff_id}"
                )
            self.blobs[diff_id] = _File(sum_.size, stream=spool)
        return Descriptor(media.OCI_LAYER, diff_id, self.blobs[diff_id].size)

    def _manifest(self, image: Image, layers: list[Descriptor]) -> tuple[Descriptor, bytes]:
        data = self._store.read_blob(image.manifest, _MANIFEST_LIMIT)
        if [layer.descriptor for layer in image.layers] == layers:
            return image.manifest, data
        value = media.decode(data, "the manifest")
        value["layers"] = [layer.to_json() for layer in layers]
        data = media.encode(value)
        return Descriptor(media.OCI_MANIFEST, digest.of(data), len(data)), data

    def _entry(self, manifest: Descriptor, tag: str) -> dict[str, object]:
        """Give an image's entry in index.json, named as the readers of this format look for it."""
        notes = {}
        if tag and self._docker:
            reference = names.parse(tag)
            notes = {DOCKER_NAME: str(reference), REF_NAME: reference.tag or ""}
        elif tag:
            notes = {REF_NAME: tag}
        return replace(manifest, annotations=notes).to_json()

    def _describe_for_docker(
        self, image: Image, layers: list[Descriptor], tags: tuple[str, ...]
    ) -> None:
        self._manifests.append(
            {
                "Config": _blob_path(image.id),
                "RepoTags": [*tags] or None,
                "Layers": [_blob_path(layer.digest) for layer in layers],
            }
        )
        for tag in tags:
            reference = names.parse(tag)
            if reference.tag and layers:
                of = self._repositories.setdefault(reference.familiar_name, {})
                of[reference.tag] = digest.hexadecimal(image.layers[-1].diff_id)

    def _files(self) -> Mapping[str, _File]:
        """Give the archive's files: the descriptions first, so that a reader need not seek."""
        index = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": self._index}
        described = {"oci-layout": _LAYOUT, "index.json": media.encode(index)}
        if self._docker:
            described["manifest.json"] = media.encode(self._manifests)
            described["repositories"] = media.encode(self._repositories)
        files = {name: _File(len(data), data=data) for name, data in described.items()}
        return files | {_blob_path(name): file for name, file in sorted(self.blobs.items())}

    def write(self, sink: _Sink, progress: Progress | None) -> None:
        files = self._files()
        total = sum(file.size for file in files.values())
        done = 0
        for folder in ("blobs", "blobs/sha256"):
            sink.folder(folder)
        for name, file in files.items():
            with file.open() as stream:
                sink.file(name, stream, file.size)
            done += file.size
            if progress is not None:
                progress(Event("upload", "", done, total, "saving"))
        sink.end()
        if progress is not None:
            progress(Event("done", "", total, total))


def _blob_path(name: str) -> str:
    return f"blobs/sha256/{digest.hexadecimal(name)}"


# -------------------------------------------------------------------------------------- sinks


class _Sink(Protocol):
    def end(self) -> None: ...

    def folder(self, name: str) -> None: ...

    def file(self, name: str, stream: BinaryIO, size: int) -> None: ...


def _copy(name: str, stream: BinaryIO, into: BinaryIO, size: int) -> None:
    """Copy a part; a blob is compared with its digest on the way."""
    seen = digest.Hashing()
    while chunk := stream.read(min(_CHUNK, size - seen.size)):
        seen.update(chunk)
        into.write(chunk)
    if seen.size != size or (name.startswith("blobs/") and seen.digest[7:] != name[-64:]):
        raise ImageError(
            f"the blob sha256:{name[-64:]} is damaged: its digest is another",
            hint="remove the image (rmi) and pull or load it again",
        )


class _Tar:
    """A deterministic tar: root's, without times."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def end(self) -> None:
        self._file.write(bytes(2 * tarfile.BLOCKSIZE))

    def folder(self, name: str) -> None:
        info = tarfile.TarInfo(f"{name}/")
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        self._file.write(info.tobuf())

    def file(self, name: str, stream: BinaryIO, size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size = size
        self._file.write(info.tobuf())
        _copy(name, stream, self._file, size)
        self._file.write(bytes(-size % tarfile.BLOCKSIZE))


@dataclass(frozen=True, slots=True)
class _Directory:
    top: str

    def folder(self, name: str) -> None:
        os.mkdir(f"{self.top}/{name}", 0o755)

    def file(self, name: str, stream: BinaryIO, size: int) -> None:
        with open(f"{self.top}/{name}", "xb") as file:
            _copy(name, stream, file, size)

    def end(self) -> None:
        pass
