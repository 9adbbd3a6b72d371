"""What an image says of itself: its history, all that is known of it, whether a pattern means it."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any

from nscontainer.errors import NotFoundError, NsContainerError
from nscontainer.image.records import Image, Layer, parse_time


def matches(name: str, pattern: str) -> bool:
    """Tell whether a name is meant by a pattern: itself, its repository, or with ``*`` either."""
    repository = name.partition("@")[0]
    head, colon, tag = repository.rpartition(":")
    if colon and "/" not in tag:
        repository = head
    return any(fnmatch.fnmatchcase(one, pattern) for one in (name, repository))


def history(image: Image) -> list[dict[str, Any]]:
    """Give the steps that made an image, the newest first.

    Returns
    -------
    list[dict]
        ``layer``, its place from the base, None where the step made none; ``created`` (a datetime in
        UTC, or None), ``created_by``, ``size_bytes`` (of the blob), ``comment``, ``diff_id``.
    """
    layers = list(enumerate(image.layers))
    rows: list[dict[str, Any]] = []
    for step in image.history:
        empty = bool(step.get("empty_layer"))
        number, layer = (None, None) if empty or not layers else layers.pop(0)
        rows.append(_step(step, number, layer))
    rows += [_step({}, number, layer) for number, layer in layers]
    return rows[::-1]


def _step(step: Mapping[str, Any], number: int | None, layer: Layer | None) -> dict[str, Any]:
    return {
        "layer": number,
        "created": parse_time(step.get("created")),
        "created_by": str(step.get("created_by") or ""),
        "size_bytes": 0 if layer is None else layer.descriptor.size,
        "comment": str(step.get("comment") or ""),
        "diff_id": "" if layer is None else layer.diff_id,
    }


def inspect(image: Image) -> dict[str, Any]:
    """Give all that is known of an image, under Docker's names."""
    run = image.config.get("config")
    return {
        "Id": image.id,
        "RepoTags": list(image.names),
        "RepoDigests": list(image.repo_digests),
        "Created": image.config.get("created"),
        "Author": image.config.get("author") or "",
        "Architecture": image.architecture,
        "Os": image.os,
        "Size": image.size,
        "Config": dict(run) if isinstance(run, dict) else {},
        "RootFS": {"Type": "layers", "Layers": [layer.diff_id for layer in image.layers]},
        "Manifest": image.manifest.to_json(),
        "Layers": [layer.descriptor.to_json() for layer in image.layers],
    }


def neither(reference: str, no_image: NsContainerError) -> NotFoundError:
    """Make one error of two: there is nothing of that name in either place."""
    _, semicolon, close = str(no_image).partition("; there is ")
    said = f"no container and no image {reference!r:.300}"
    if semicolon:
        return NotFoundError(f"{said}; there is {close}", hint="images lists them all")
    return NotFoundError(said, hint="ps -a lists containers, images lists images")
