"""One blob from a registry into the store: from where it stopped, as often as the line breaks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from nscontainer.errors import ImageError, RegistryError
from nscontainer.image import digest as digests
from nscontainer.image.records import Descriptor
from nscontainer.image.registry import faults
from nscontainer.image.registry.client import Client

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

    from nscontainer.image.blobs import BlobWriter
    from nscontainer.image.store import Store

_READ_BYTES: Final = 256 << 10
_DAMAGED_TRIES: Final = 2
_CONTENT_RANGE: Final = re.compile(r"bytes\s+(\d+)-(\d+)/(\d+|\*)", re.ASCII | re.IGNORECASE)


def fetch(
    clients: Sequence[Client],
    store: Store,
    blob: Descriptor,
    told: Callable[[int], None],
) -> None:
    """Get a blob from the first server that gives it, unless the store has it.

    Parameters
    ----------
    told
        Called with the number of bytes that are there.

    Raises
    ------
    RegistryError
        No server gave it, or all gave something else.
    """
    for number, client in enumerate(clients, 1):
        try:
            _fetch_whole(client, store, blob, told)
        except RegistryError:
            if number == len(clients):
                raise
        else:
            return


def _fetch_whole(
    client: Client, store: Store, blob: Descriptor, told: Callable[[int], None]
) -> None:
    """Get it; what came damaged is thrown away, and tried once more from the beginning."""
    for number in range(1, _DAMAGED_TRIES + 1):
        try:
            with store.writer(blob.digest, blob.size) as writer:
                _fill(client, writer, blob, told)
                writer.commit()
        except ImageError as error:
            if number == _DAMAGED_TRIES:
                raise RegistryError(
                    f"{client.name}: {error.message}", reason="digest", hint=error.hint
                ) from None
        else:
            return


def _fill(
    client: Client, writer: BlobWriter, blob: Descriptor, told: Callable[[int], None]
) -> None:
    patience = client.patience()
    while writer.offset < blob.size and not writer.complete:
        before = writer.offset
        told(before)
        try:
            _fill_once(client, writer, blob, told)
            if writer.offset < blob.size:
                raise faults.PassingError(
                    f"{client.endpoint.host} sent {writer.offset} of {blob.size} bytes",
                    reason="failed",
                )
        except RegistryError as error:
            if writer.offset > before:
                patience.progress()
            patience.failed(error)


def _fill_once(
    client: Client, writer: BlobWriter, blob: Descriptor, told: Callable[[int], None]
) -> None:
    what = f"layer {digests.short(blob.digest)} of {client.name}"
    # "identity": a server that compresses what is compressed would make Range mean something else.
    headers = {"Accept-Encoding": "identity"}
    if writer.offset:
        headers["Range"] = f"bytes={writer.offset}-"
    url = client.url(f"blobs/{blob.digest}")
    with client.request("GET", url, what, headers=headers, accept=(200, 206, 416)) as response:
        if response.status == 416:  # it has less than we do: ours is from something else
            writer.restart()
            raise faults.PassingError(f"{what}: {client.endpoint.host} has less", reason="failed")
        if response.status == 206:
            _check_range(response, writer.offset, blob.size, what)
        elif writer.offset:  # a server that can't go on in the middle
            writer.restart()
        while data := client.transport.read(response, url, _READ_BYTES):
            writer.write(data)
            told(writer.offset)


def _check_range(response: BaseHTTPResponse, offset: int, size: int, what: str) -> None:
    given = response.headers.get("Content-Range", "")
    match = _CONTENT_RANGE.fullmatch(given.strip())
    if not match or int(match[1]) != offset or match[3] not in {"*", str(size)}:
        raise RegistryError(
            f"{what}: asked for the bytes from {offset}, the server gave {given[:60]!r}",
            reason="failed",
        )
