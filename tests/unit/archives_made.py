"""Archives of images made by hand: Docker's and OCI's."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping
from typing import Any

from nscontainer.image import media
from nscontainer.image.store import Store

Members = dict[str, bytes]


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar(members: Mapping[str, bytes | str], **more: Any) -> bytes:
    """A tar of files, and of symbolic links where the value is a text."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", **more) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return data.getvalue()


LAYERS = (tar({"a": b"1\n"}), tar({"b": b"2\n"}))


def config(*layers: bytes, **run: Any) -> bytes:
    rootfs_ = {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}
    return json.dumps(
        {"architecture": "amd64", "os": "linux", "config": run, "rootfs": rootfs_}
    ).encode()


def docker_archive(
    tags: list[str] | None = None, layers: tuple[bytes, ...] = LAYERS, **run: Any
) -> dict[str, bytes | str]:
    """The members of a ``docker save``."""
    made = config(*layers, **{"Env": ["A=1"], **run})
    names = [f"{digest(layer)[7:]}/layer.tar" for layer in layers]
    entry = {"Config": f"{digest(made)[7:]}.json", "RepoTags": tags, "Layers": names}
    return {
        entry["Config"]: made,  # type: ignore[dict-item]
        **dict(zip(names, layers, strict=True)),
        "manifest.json": json.dumps([entry]).encode(),
    }


def described(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}


def oci_image(
    blobs: Members, *layers: bytes, kind: str = media.OCI_LAYER, **run: Any
) -> dict[str, Any]:
    """Put an image's blobs among others; give its manifest's descriptor."""
    made = config(*layers, **run)
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media.OCI_MANIFEST,
            "config": described(made, media.OCI_CONFIG),
            "layers": [described(layer, kind) for layer in layers],
        }
    ).encode()
    for data in (made, manifest, *layers):
        blobs[f"blobs/sha256/{digest(data)[7:]}"] = data
    return described(manifest, media.OCI_MANIFEST)


def oci_archive(blobs: Members, *entries: dict[str, Any]) -> Members:
    index = {"schemaVersion": 2, "manifests": [*entries]}
    return {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index).encode(),
        **blobs,
    }


def left(store: Store) -> list[str]:
    """Blobs, temporary files and layers that are in a store."""
    found = []
    for folder in ("blobs/sha256", "tmp", "layers"):
        found += [f"{folder}/{name}" for name in os.listdir(f"{store.root}/{folder}")]
    return found
