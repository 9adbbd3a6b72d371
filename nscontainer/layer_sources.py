"""Where the layers of a container or an image are, for :mod:`nscontainer.layerstack`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nscontainer import disk_usage
from nscontainer.engine import state
from nscontainer.errors import NotFoundError, SpecError
from nscontainer.layerstack import Source, Stack, unite

if TYPE_CHECKING:
    from nscontainer.engine.container import Container
    from nscontainer.image.records import Image
    from nscontainer.image.store import Store

HOST: Final = "host"


def stack_of(reference: str) -> Stack:
    """Look at the layers of a container, or else of an image.

    Raises
    ------
    NotFoundError
        There is neither.
    """
    from nscontainer.engine.container import Container
    from nscontainer.image import facts
    from nscontainer.image.store import Store

    store = Store()
    try:
        container = Container.get(reference)
    except NotFoundError:
        try:
            image = store.get(reference)
        except (NotFoundError, SpecError) as no_image:
            raise facts.neither(reference, no_image) from None
        with store.holding():
            return unite(reference, _of_image(image, store))
    with store.holding():
        return unite(container.name, _of_container(container, store))


def _of_image(image: Image, store: Store) -> list[Source]:
    store.unpack(image)
    made_by = layer_names(image)
    base = [_host()] if image.on_host else []
    for number, layer in enumerate(image.layers):
        directory = store.layer_dir(layer.diff_id)
        assert directory is not None
        base.append(
            Source(
                made_by[number],
                "image" if base else "base",
                (("", directory),),
                digest=layer.diff_id,
            )
        )
    return base


def layer_names(image: Image) -> list[str]:
    """Say of each layer what made it; the base is the image's, where nothing better is known."""
    steps = [step for step in image.history if not step.get("empty_layer")]
    said = [str(step.get("created_by") or "") for step in steps[: len(image.layers)]]
    said += [""] * (len(image.layers) - len(said))
    return [text or f"layer {number}" for number, text in enumerate(said)]


def _host() -> Source:
    """Give this machine's own files, those that a container of ``host`` may see."""
    from nscontainer.image.host import HIDDEN, SECRETS

    def shows(path: str) -> bool:
        return not any(path == top or path.startswith(f"{top}/") for top in (*HIDDEN, *SECRETS))

    return Source(HOST, "base", (("", "/"),), listed=False, shows=shows)


def _of_container(container: Container, store: Store) -> list[Source]:
    facts = state.read(container.directory) or {}
    del facts, store
    return [
        Source(
            "read-write layer", "rw", tuple(("", d) for d in disk_usage.uppers(container.directory))
        )
    ]
