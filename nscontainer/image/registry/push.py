"""``push``: an image of the store to a registry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from nscontainer.errors import ImageError, RegistryError, SpecError
from nscontainer.image import digest as digests
from nscontainer.image import media, names
from nscontainer.image.names import Reference
from nscontainer.image.progress import Event, Progress
from nscontainer.image.records import Descriptor, Image
from nscontainer.image.registry import credentials, crew, faults, hosts, manifests
from nscontainer.image.registry.client import Client
from nscontainer.image.registry.pull import THREADS, LookUp
from nscontainer.image.registry.transport import FINISH_S, Transport

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

    from nscontainer.image.store import Store

_SEND_BYTES: Final = 64 << 10
"""Each such piece has ten seconds to leave (a socket's time-out is for one sendall)."""
_OCTETS: Final = "application/octet-stream"


def push(
    name: str,
    *,
    store: Store,
    to: str | None = None,
    progress: Progress | None = None,
    registries: hosts.Registries | None = None,
    look_up: LookUp = credentials.find,
) -> str:
    """Hand an image to a registry; blobs that it has are not sent. Give the manifest's digest.

    Parameters
    ----------
    name
        The image, as the store knows it.
    to
        Under which name; by default its own.
    progress
        Called in this thread, with bytes for each layer.
    registries, look_up
        Configuration and credentials, where not from the usual files.

    Raises
    ------
    SpecError
        A name or a configuration file is wrong.
    NotFoundError
        The store has no such image.
    ImageError
        It can't be handed on.
    RegistryError
        The registry didn't take it.
    """
    target = names.parse(to or name)
    if target.digest:
        raise SpecError(f"{target}: an image is pushed to a tag, not to a digest")
    registries = hosts.load() if registries is None else registries
    transport = Transport()
    try:
        one = Client(
            registries.itself(target.registry),
            target.repository,
            transport,
            actions="pull,push",
            look_up=look_up,
        )
        with store.holding():
            image = store.get(name)
            if image.on_host:
                raise ImageError(
                    f"{name} stands on this machine's own system and can't be pushed",
                    hint=f"export {name} writes it whole, as a tar",
                )
            return _Push(image, target, store, one, progress).run()
    finally:
        transport.close()


class _Push:
    """One image on its way to one repository."""

    def __init__(
        self,
        image: Image,
        target: Reference,
        store: Store,
        one: Client,
        progress: Progress | None,
    ) -> None:
        self.image = image
        self.target = target
        self.store = store
        self.client = one
        self.progress = progress

    def run(self) -> str:
        data = self.store.read_blob(self.image.manifest, manifests.LIMIT)
        config, layers = manifests.parse(data, str(self.target))
        found = {blob.digest: blob for blob in (*layers, config)}
        for blob in found.values():
            self.store.open_blob(blob).close()  # all there, before anything is sent
        jobs = [self._job(blob) for blob in found.values()]
        crew.work(jobs, self.client.transport, self.progress, threads=THREADS)
        self._manifest(data)
        digest = self.image.manifest.digest
        # Known from now on: so is a relative that blobs can be mounted from.
        known = f"{self.target.name_only()}@{digest}"
        self.store.add_manifest(data, media.OCI_MANIFEST, name=known, source_digest=digest)
        if self.progress is not None:
            total = sum(blob.size for blob in found.values())
            self.progress(Event("done", "", total, total, f"to {self.target}, {digest}"))
        return digest

    def _job(self, blob: Descriptor) -> crew.Job:
        def job(tell: crew.Tell) -> None:
            upload = _Upload(self.client, self.store, blob, self._relatives(), tell)
            note = upload.run()
            tell(Event("done", digests.short(blob.digest), blob.size, blob.size, note))

        return job

    def _relatives(self) -> list[str]:
        """Give other repositories of the same registry that are known to have the image's layers."""
        known = (names.parse(text) for text in (*self.image.repo_digests, *self.image.names))
        found = [
            reference.repository
            for reference in known
            if reference.registry == self.target.registry
            and reference.repository != self.target.repository
        ]
        return list(dict.fromkeys(found))

    def _manifest(self, data: bytes) -> None:
        digest = self.image.manifest.digest
        url = self.client.url(f"manifests/{self.target.tag or 'latest'}")

        def attempt() -> None:
            with self.client.request(
                "PUT",
                url,
                str(self.target),
                headers={"Content-Type": media.OCI_MANIFEST},
                body=lambda: data,
                accept=(200, 201, 202),
            ) as response:
                said = response.headers.get("Docker-Content-Digest", digest)
                if said != digest:
                    raise RegistryError(
                        f"{self.target}: {self.client.endpoint.host} took the manifest for "
                        f"{faults.printable(said, 80)}, it is {digest}",
                        reason="digest",
                    )

        try:
            self.client.patiently(attempt)
        except RegistryError as error:
            raise _not_taken(error) from None


class _Upload:
    """One blob on its way: not at all where it is there, mounted where a relative has it, or sent."""

    def __init__(
        self,
        one: Client,
        store: Store,
        blob: Descriptor,
        relatives: Sequence[str],
        tell: crew.Tell,
    ) -> None:
        self.client = one
        self.store = store
        self.blob = blob
        self.relatives = relatives
        self.what = f"layer {digests.short(blob.digest)} of {one.name}"
        self.told = crew.Thinned(tell, Event("upload", digests.short(blob.digest), 0, blob.size))
        self.location = ""
        self.offset = 0

    def run(self) -> str:
        """Do it; give the word for the progress."""
        patience = self.client.patience()
        while True:
            before = self.offset
            try:
                if self._is_there():
                    return "already there"
                if not self.location and (note := self._start()):
                    return note
                self._send()
            except RegistryError as error:
                again = self._again(error)
                self._look_up()
                if self.offset > before:
                    patience.progress()
                patience.failed(again)
            else:
                return ""

    def _is_there(self) -> bool:
        url = self.client.url(f"blobs/{self.blob.digest}")
        # Some registries know nothing of the repository before its first push: that is no failure.
        with self.client.request("HEAD", url, self.what, accept=(200, 404)) as response:
            return response.status == 200

    def _start(self) -> str:
        """Open an upload, or mount the blob from a relative (distribution spec, "Mounting")."""
        url = self.client.url("blobs/uploads/")
        for relative in self.relatives:
            query = f"?mount={quote(self.blob.digest)}&from={quote(relative, safe='')}"
            scope = f"{self.client.scope} repository:{relative}:pull"
            try:
                with self.client.request(
                    "POST", url + query, self.what, accept=(201, 202), scope=scope
                ) as response:
                    if response.status == 201:
                        return f"mounted from {relative}"
                    self._set_location(response, url)
                    return ""
            except RegistryError as error:
                if error.reason not in {"unauthorized", "not-found", "refused"}:
                    raise
        with self.client.request("POST", url, self.what, accept=(202,)) as response:
            self._set_location(response, url)
        return ""

    def _set_location(self, response: BaseHTTPResponse, url: str) -> None:
        self.location = self.client.follow(url, response.headers.get("Location", ""))

    def _send(self) -> None:
        """Send all in one request, or the rest in one and the end in another."""
        if self.offset:
            headers = {"Content-Range": f"{self.offset}-{self.blob.size - 1}"}
            with self._sending("PATCH", self.location, headers, (202, 204)) as response:
                self._set_location(response, self.location)
            self.offset = self.blob.size
        joint = "&" if urlsplit(self.location).query else "?"
        url = f"{self.location}{joint}digest={quote(self.blob.digest)}"
        with self._sending("PUT", url, {}, (201, 204)) as response:
            said = response.headers.get("Docker-Content-Digest", self.blob.digest)
            if said != self.blob.digest:
                raise RegistryError(f"{self.what}: the registry has {said[:80]}", reason="digest")

    def _sending(
        self, method: str, url: str, headers: dict[str, str], accept: tuple[int, ...]
    ) -> AbstractContextManager[BaseHTTPResponse]:
        """Send what is left of the blob."""
        left = str(self.blob.size - self.offset)
        headers = {"Content-Type": _OCTETS, "Content-Length": left, **headers}
        return self.client.request(
            method, url, self.what, headers=headers, body=self._body, accept=accept, read_s=FINISH_S
        )

    def _body(self) -> Iterator[bytes]:
        """Give the blob from :attr:`offset` on. Its digest is the registry's to compare."""
        with self.store.open_blob(self.blob) as file:
            done = file.seek(self.offset)
            while data := file.read(_SEND_BYTES):
                if self.client.transport.stop.is_set():
                    raise faults.StoppedError
                yield data
                done += len(data)
                self.told(done)

    def _again(self, error: RegistryError) -> RegistryError:
        """Tell whether to begin anew helps: an upload that the registry has forgotten, or lost count of."""
        if self.location and error.status in {400, 404, 416}:
            return faults.PassingError(error.message, reason=error.reason, status=error.status)
        return error

    def _look_up(self) -> None:
        """Ask how far the upload has come; where that isn't told, begin anew."""
        location, self.location, self.offset = self.location, "", 0
        if not location:
            return
        try:
            with self.client.request("GET", location, self.what, accept=(204,)) as response:
                first, _, last = response.headers.get("Range", "").partition("-")
                here = int(last) + 1 if first.removeprefix("bytes=") == "0" and last else 0
                if 1 < here <= self.blob.size:
                    self._set_location(response, location)
                    self.offset = here
        except (RegistryError, ValueError):
            return


def _not_taken(error: RegistryError) -> RegistryError:
    if error.status in {400, 415} and not error.hint:
        hint = "a registry that doesn't know OCI's manifests is too old for this"
        return RegistryError(error.message, reason="unsupported", status=error.status, hint=hint)
    return error
