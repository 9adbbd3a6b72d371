"""A base image that isn't here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nscontainer.image.records import Image
    from nscontainer.image.store import Store


def pull(name: str, store: Store) -> Image:
    """Get it from its registry.

    Raises
    ------
    NotFoundError
        There is none, or no registry can be asked.
    """
    try:
        registry = import_module("nscontainer.image.registry.pull")
    except ImportError:
        return store.get(name)
    image: Image = registry.pull(name, store=store)
    return image
