"""``pull``: an image from its registry, or a mirror, into the store."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from nscontainer.errors import HostError, ImageError, NsContainerError, RegistryError
from nscontainer.image import digest as digests
from nscontainer.image import media, names
from nscontainer.image.names import Reference
from nscontainer.image.progress import Event, Progress
from nscontainer.image.records import Descriptor, Image, Layer
from nscontainer.image.registry import blobs, client, credentials, crew, faults, hosts, manifests
from nscontainer.image.registry import platform as platforms
from nscontainer.image.registry.client import Client
from nscontainer.image.registry.manifests import Manifest
from nscontainer.image.registry.platform import Platform
from nscontainer.image.registry.transport import Transport

if TYPE_CHECKING:
    from nscontainer.image.store import Store

THREADS: Final = 4
CONFIG_LIMIT: Final = 8 << 20
_SPARE_BYTES: Final = 16 << 20
_TAGS_LIMIT: Final = 4 << 20

LookUp = Callable[[str, str], credentials.Found]


def pull(
    name: str,
    *,
    store: Store,
    platform: str | None = None,
    progress: Progress | None = None,
    registries: hosts.Registries | None = None,
    look_up: LookUp = credentials.find,
) -> Image:
    """Get an image by its name; blobs and unpacked layers that are here are not fetched.

    Killed or interrupted, it leaves a store that the next pull goes on with.

    Parameters
    ----------
    name
        As ``python:3.12-slim`` or ``localhost:5000/mylab@sha256:…``.
    platform
        ``os/arch[/variant]``; by default this machine's.
    progress
        Called in this thread, with bytes for each layer.
    registries, look_up
        Configuration and credentials, where not from the usual files.

    Raises
    ------
    SpecError
        The name, the platform or a configuration file is wrong.
    RegistryError
        It can't be had.
    ImageError
        It is of a kind that is not done.
    HostError
        The disk is full.
    """
    reference = names.parse(name)
    wanted = platforms.parse(platform) if platform else platforms.host()
    registries = hosts.load() if registries is None else registries
    transport = Transport()
    try:
        clients = [
            Client(endpoint, reference.repository, transport, look_up=look_up)
            for endpoint in registries.endpoints(reference.registry)
        ]
        with store.holding():
            return _Pull(reference, wanted, store, clients, progress).run(strict=bool(platform))
    finally:
        transport.close()


class _Pull:
    """One image on its way; ``clients`` are the servers to ask, the registry itself last."""

    def __init__(
        self,
        reference: Reference,
        wanted: Platform,
        store: Store,
        clients: list[Client],
        progress: Progress | None,
    ) -> None:
        self.reference = reference
        self.wanted = wanted
        self.store = store
        self.clients = clients
        self.progress = progress

    def run(self, *, strict: bool) -> Image:
        manifest = self._manifest(strict=strict)
        config = self._config(manifest)
        note = self._platform_note(config, strict=strict)
        diff_ids = _diff_ids(config, manifest, str(self.reference))
        self._check_space(manifest)
        self._layers(manifest, diff_ids)
        image = self.store.add_manifest(
            manifest.data,
            manifest.media_type,
            name=str(self.reference),
            source_digest=manifest.asked_digest,
        )
        source = client.mirrored(self.clients[0].endpoint)
        self._tell(Event("done", "", image.size, image.size, f"from {source}{note}"))
        return image

    def _tell(self, event: Event) -> None:
        if self.progress is not None:
            self.progress(event)

    def _manifest(self, *, strict: bool) -> Manifest:
        """Ask one server after the other; those that don't have it are not asked for blobs first."""
        asked = self.reference.digest or self.reference.tag or "latest"
        before: list[str] = []
        for number, one in enumerate(self.clients):
            try:
                found = manifests.fetch(one, asked, str(self.reference), self.wanted, strict=strict)
            except (RegistryError, ImageError) as error:
                if number + 1 < len(self.clients):
                    before.append(f"mirror {one.endpoint.host}: {error.message}")
                    continue
                if not isinstance(error, RegistryError):
                    raise
                raise self._explained(error, before) from None
            self.clients = [*self.clients[number:], *self.clients[:number]]
            return found
        raise AssertionError

    def _explained(self, error: RegistryError, before: list[str]) -> RegistryError:
        """Put a missing image into words, with what may have been meant."""
        message, hint = error.message, error.hint
        if error.status in {404, 410}:
            message, hint = f"{self.reference}: no such image", self._meant()
        elif error.reason == "unauthorized":
            # Docker Hub and others tell a stranger nothing else of an image that isn't there.
            said = message.removeprefix(f"{self.reference}: ")
            message = f"{self.reference}: no such image, or not for us: {said}"
        if before:
            message += f" (before it, {'; '.join(before)})"
        return RegistryError(message, reason=error.reason, status=error.status, hint=hint)

    def _meant(self) -> str | None:
        """Look for tags (or names in the store) like the one that isn't there."""
        tag, alike = self.reference.tag or "", list[str]()
        try:
            text, _ = self.clients[-1].get("tags/list?n=1000", "tags", limit=_TAGS_LIMIT)
            tags = [one for one in json.loads(text).get("tags") or [] if isinstance(one, str)]
            near = difflib.get_close_matches(tag, tags, n=3, cutoff=0.5) or tags[-3:]
            alike = [f"{self.reference.familiar_name}:{one}" for one in near]
        except (NsContainerError, ValueError, AttributeError):
            known = [one for image in self.store.images() for one in image.names]
            alike = names.close_matches(self.reference.familiar, known)
        return f"did you mean {' or '.join(alike)}?" if alike else None

    def _config(self, manifest: Manifest) -> dict[str, Any]:
        """Get the image's configuration, small and first: it may say that the rest is of no use."""
        what = f"the config of {self.reference}"
        if manifest.config.size > CONFIG_LIMIT:
            raise ImageError(f"{what} has {manifest.config.size} bytes, over {CONFIG_LIMIT}")
        # By the rules of the store's intake, before anything is fetched.
        media.to_oci(manifest.data, manifest.media_type, str(self.reference))
        if not self.store.has(manifest.config.digest):
            blobs.fetch(self.clients, self.store, manifest.config, lambda _: None)
        return media.decode(self.store.read_blob(manifest.config, CONFIG_LIMIT), what)

    def _platform_note(self, config: dict[str, Any], *, strict: bool) -> str:
        """Compare what the image is for with what was asked for."""
        there = platforms.described({"os": "linux", **config})
        if there is None or platforms.fitness(self.wanted, there) is not None:
            return ""
        if there.os != "linux":
            raise ImageError(f"{self.reference} is for {there}: only linux images can be run here")
        if strict:
            raise RegistryError(
                f"{self.reference} has no image for {self.wanted}; it is for {there}",
                reason="not-found",
            )
        return f", for {there} and not for this machine"

    def _missing(self, manifest: Manifest) -> list[Descriptor]:
        """Give the layers' blobs that are not here, each once."""
        by_digest = {blob.digest: blob for blob in manifest.layers}
        return [blob for blob in by_digest.values() if not self.store.has(blob.digest)]

    def _check_space(self, manifest: Manifest) -> None:
        """Refuse what can't fit: better than to fail after an hour."""
        needed = sum(blob.size for blob in self._missing(manifest)) + _SPARE_BYTES
        disk = os.statvfs(self.store.root)
        free = disk.f_bavail * disk.f_frsize
        if needed > free:
            raise HostError(
                f"{self.reference} needs {needed >> 20} MiB more, the disk of {self.store.root} "
                f"has {free >> 20} MiB left",
                hint="prune frees what is unused",
            )

    def _layers(self, manifest: Manifest, diff_ids: Sequence[str]) -> None:
        """Fetch and unpack, layer by layer, several at once."""
        jobs: dict[str, crew.Job] = {}
        for blob, diff_id in zip(manifest.layers, diff_ids, strict=True):
            short = digests.short(blob.digest)
            if self.store.has(blob.digest) and self.store.layer_dir(diff_id):
                self._tell(Event("done", short, blob.size, blob.size, "already here"))
            else:
                self._tell(Event("download", short, 0, blob.size))
                jobs.setdefault(blob.digest, self._job(blob, diff_id))
        crew.work(jobs.values(), self.clients[0].transport, self.progress, threads=THREADS)

    def _job(self, blob: Descriptor, diff_id: str) -> crew.Job:
        short = digests.short(blob.digest)

        def job(tell: crew.Tell) -> None:
            if not self.store.has(blob.digest):
                told = crew.Thinned(tell, Event("download", short, 0, blob.size))
                blobs.fetch(self.clients, self.store, blob, told)
                told(blob.size)
            self.store.unpack_layer(Layer(blob, diff_id), self._while_wanted(tell))
            tell(Event("done", short, blob.size, blob.size))

        return job

    def _while_wanted(self, tell: crew.Tell) -> Progress:
        """Tell of an unpacking, and break it off when the pull is."""
        stop = self.clients[0].transport.stop

        def told(event: Event) -> None:
            if stop.is_set():
                raise faults.StoppedError
            tell(event)

        return told


def _diff_ids(config: dict[str, Any], manifest: Manifest, what: str) -> list[str]:
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(found, list) or len(found) != len(manifest.layers):
        raise ImageError(
            f"{what} can't be used: its config doesn't name its {len(manifest.layers)} layers"
        )
    return [digests.check(one) for one in found]
