"""What the store gives out: descriptors, layers, images. Values only."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from nscontainer.errors import ImageError
from nscontainer.image import digest as digests

BASE_LABEL: Final = "org.nscontainer.base"
"""A label of an image that stands on the built-in image, with the value ``host``."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob as others name it: OCI's content descriptor. ``size`` in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Give it as OCI writes it."""
        value = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return value | {"annotations": dict(self.annotations)} if self.annotations else value

    @classmethod
    def from_json(cls, value: object) -> Descriptor:
        """Read one.

        Raises
        ------
        ImageError
            It is none.
        """
        if not isinstance(value, dict):
            message = f"{value!r:.90} is no descriptor"
            raise ImageError(message)
        media_type, size = value.get("mediaType"), value.get("size")
        annotations = value.get("annotations")
        if annotations is None:
            annotations = {}
        if not isinstance(media_type, str) or not isinstance(annotations, dict):
            message = f"a descriptor has no media type: {value!r:.200}"
            raise ImageError(message)
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            message = f"a descriptor's size is {size!r:.40}"
            raise ImageError(message)
        texts = annotations and {str(k): v for k, v in annotations.items() if isinstance(v, str)}
        return cls(media_type, digests.check(value.get("digest")), size, texts)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: its blob, and the digest of the tar in it."""

    descriptor: Descriptor
    diff_id: str

    @property
    def key(self) -> str:
        """The name of its directory under ``layers/``."""
        return digests.key(self.diff_id)


@dataclass(frozen=True, slots=True)
class Image:
    """An image of the store.

    Parameters
    ----------
    id
        The digest of its config, as Docker's image id.
    manifest
        Its manifest's descriptor.
    names
        Its familiar names (``python:3.12-slim``), in alphabetical order; none for a nameless one.
    config
        The OCI image configuration, as decoded.
    layers
        Base first.
    repo_digests
        ``python@sha256:…`` for each registry's repository that it was pulled from or pushed to.
    """

    id: str
    manifest: Descriptor
    names: tuple[str, ...]
    config: Mapping[str, Any]
    layers: tuple[Layer, ...]
    repo_digests: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of its blobs: what a pull or a push of all of it moves."""
        blobs = {layer.descriptor.digest: layer.descriptor.size for layer in self.layers}
        return sum(blobs.values())

    @property
    def created(self) -> dt.datetime | None:
        """When it was made, in UTC; None where it doesn't say."""
        return parse_time(self.config.get("created"))

    @property
    def architecture(self) -> str:
        """Go's name of the architecture: ``amd64``, ``arm64`` …; "" where it doesn't say."""
        return _text(self.config.get("architecture"))

    @property
    def os(self) -> str:
        """``linux``; "" where it doesn't say."""
        return _text(self.config.get("os"))

    @property
    def _run(self) -> Mapping[str, Any]:
        value = self.config.get("config")
        return value if isinstance(value, dict) else {}

    @property
    def env(self) -> tuple[str, ...]:
        """``NAME=value`` each."""
        return _texts(self._run.get("Env"))

    @property
    def entrypoint(self) -> tuple[str, ...]:
        """The words before the command's; none where it has no entry point."""
        return _texts(self._run.get("Entrypoint"))

    @property
    def cmd(self) -> tuple[str, ...]:
        """The command where a run names none."""
        return _texts(self._run.get("Cmd"))

    @property
    def user(self) -> str:
        """``name``, ``uid`` or ``name:group``; "" is root."""
        return _text(self._run.get("User"))

    @property
    def workdir(self) -> str:
        """The working directory; "" where it names none."""
        return _text(self._run.get("WorkingDir"))

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        value = self._run.get("Labels")
        return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}

    @property
    def volumes(self) -> tuple[str, ...]:
        """Directories that are to be volumes."""
        return _names(self._run.get("Volumes"))

    @property
    def exposed_ports(self) -> tuple[str, ...]:
        """``80/tcp`` each."""
        return _names(self._run.get("ExposedPorts"))

    @property
    def stop_signal(self) -> str:
        """The signal that ends it, as ``SIGTERM`` or ``15``; "" where it names none."""
        return _text(self._run.get("StopSignal"))

    @property
    def history(self) -> tuple[Mapping[str, Any], ...]:
        """OCI's history entries, oldest first."""
        value = self.config.get("history")
        return tuple(e for e in value if isinstance(e, dict)) if isinstance(value, list) else ()

    @property
    def on_host(self) -> bool:
        """Tell whether it stands on the built-in image ``host``: its layers are not all of it."""
        return self.labels.get(BASE_LABEL) == "host"


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune has removed: names or ids, and bytes freed on the disk."""

    removed: tuple[str, ...]
    freed_bytes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """A line of ``df``: how many, how many of them in use, bytes on the disk, bytes a prune would free."""

    kind: str
    total: int
    active: int
    size_bytes: int
    reclaimable_bytes: int


def parse_time(text: object) -> dt.datetime | None:
    """Read RFC 3339 as Go writes it, with up to nine digits of a second's fraction; None if it isn't."""
    if not isinstance(text, str):
        return None
    head, dot, tail = text.strip().partition(".")
    if dot:
        digits = len(tail) - len(tail.lstrip("0123456789"))
        text = f"{head}.{tail[: min(digits, 6)]:0<6}{tail[digits:]}"
    try:
        when = dt.datetime.fromisoformat(text)
        return when.astimezone(dt.UTC) if when.tzinfo else when.replace(tzinfo=dt.UTC)
    except (ValueError, OverflowError):
        return None


def timestamp() -> str:
    """Give the time for a configuration as Go writes it (RFC3339Nano: no zeros at the end)."""
    since_ns = time.time_ns()
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(since_ns // 10**9))
    return f"{whole}.{since_ns % 10**9:09d}".rstrip("0").rstrip(".") + "Z"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, Sequence) else ()


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, dict):
        return tuple(sorted(str(k) for k in value))
    return _texts(value)
