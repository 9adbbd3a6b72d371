"""``commit``: a container's read-write layer as a layer of a new image.

Only what the user has written is read: what lies below is never opened, however large it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from nscontainer import inside
from nscontainer.errors import HostError, SpecError
from nscontainer.image import names, reconfigure
from nscontainer.image.pack import Packer
from nscontainer.image.records import BASE_LABEL, Image, Layer, timestamp
from nscontainer.image.registry import platform as platforms
from nscontainer.image.store import Store
from nscontainer.image.written import layers_of

if TYPE_CHECKING:
    from nscontainer.engine.container import Container


def commit(
    container: Container,
    name: str | None,
    *,
    message: str | None = None,
    author: str | None = None,
    changes: Iterable[str] = (),
    pause: bool = True,
) -> Image:
    """Make an image of a container's image and what the container has written.

    Parameters
    ----------
    container
        One that runs, is paused, or has ended and is kept.
    name
        The image's, taken from whoever has it; None leaves it nameless.
    message, author
        For its history.
    changes
        Instructions for its configuration (:func:`nscontainer.image.reconfigure.apply`).
    pause
        Keep the container frozen meanwhile, so that what is saved is of one moment.

    Raises
    ------
    SpecError
        A name, or a change, can't be used. Nothing has been made.
    StateError
        The container ended and was removed meanwhile.
    HostError
        It can't be paused: an ordinary user has no cgroup here.
    LayerError
        Something in it can't be in a layer.
    """
    reference = None if name is None else names.parse(name)
    if reference is not None and reference.digest:
        message_ = f"{name!r} has a digest: a name to give is one without"
        raise SpecError(message_, hint=f"as {reference.familiar_name}:1")
    store = Store()
    facts = container.inspect()
    with store.holding():
        config, layers = _base(store, facts)
        what = f"image {facts.get('image', 'host')}"
        settings = reconfigure.apply(reconfigure.settings(config, what), changes)
        with _still(container) if pause else contextlib.nullcontext():
            layer = add_layer(store, container)
        step = {
            "created": timestamp(),
            "created_by": " ".join(facts["spec"].get("command") or ["python3"])[:1000],
            **({"author": author} if author else {}),
            **({"comment": message} if message else {}),
        }
        history = [*(config.get("history") or _unknown_steps(layers)), step]
        whole = {**config, "created": step["created"], "config": settings, "history": history}
        if author:
            whole["author"] = author
        return store.make_image(whole, [*layers, layer], name=name)


@contextlib.contextmanager
def _still(container: Container) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(container.held())
        except HostError as error:
            again = "commit --no-pause (in Python pause=False) saves it while it runs"
            raise HostError(error.message, hint=f"{again}; {error.hint}") from None
        yield


def add_layer(store: Store, container: Container) -> Layer:
    """Take what a container has written into the store, as a layer without an image.

    The caller keeps the container still, and the store from being swept.
    """
    return inside.call(_add, store.root, container.inspect(), container.directory)


def _add(root: str, facts: Mapping[str, Any], directory: str) -> Layer:
    store = Store(root)
    with layers_of(facts, directory, store.root) as written:

        def write(sink: Any) -> None:
            packer = Packer(sink, id_shift=int(facts.get("upper_shift", 0)))
            for one in written:
                packer.tree(one.top, prefix=one.prefix.strip("/"), skip=one.skip)
            packer.finish()

        return store.add_layer(write)


def _base(store: Store, facts: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[Layer, ...]]:
    """Give the configuration and the layers of what the container stands on."""
    if facts.get("image_id"):
        image = store.get(str(facts["image_id"]))
        return image.config, image.layers
    config = {
        "architecture": platforms.host().architecture,
        "os": "linux",
        "config": {"Labels": {BASE_LABEL: "host"}},
    }
    return config, ()


def _unknown_steps(layers: tuple[Layer, ...]) -> list[dict[str, Any]]:
    """Say nothing of layers whose image has no history: there must be an entry for each."""
    return [{"created_by": ""} for _ in layers]
