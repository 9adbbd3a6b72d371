"""Where the layers of a container or an image are, for :mod:`nscontainer.layerstack`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from nscontainer import inside
from nscontainer.engine import state
from nscontainer.errors import ImageError, NotFoundError, SpecError
from nscontainer.layerstack import LayerKind, Source, Stack, unite

if TYPE_CHECKING:
    from nscontainer.engine.container import Container
    from nscontainer.image.records import Image
    from nscontainer.image.store import Store


@inside.runs
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
    with contextlib.ExitStack() as open_layers:
        open_layers.enter_context(store.holding())
        return unite(container.name, _of_container(container, store, open_layers))


def _of_image(image: Image, store: Store) -> list[Source]:
    """Give an image's layers; those of one that stands on ``host`` have that below them."""
    store.unpack(image)
    diff_ids = [layer.diff_id for layer in image.layers]
    names = _with_names(made_by(image), diff_ids, store)
    stored = _stored(diff_ids, names, store, base=not image.on_host)
    return [_host(), *stored] if image.on_host else stored


def _stored(
    diff_ids: Sequence[str], names: Sequence[str], store: Store, *, base: bool
) -> list[Source]:
    found = []
    for number, diff_id in enumerate(diff_ids):
        directory = store.layer_dir(diff_id)
        if directory is None:
            message = f"layer {diff_id} is not unpacked"
            raise ImageError(message, hint="pull or load the image again")
        kind: LayerKind = "base" if base and number == 0 else "image"
        found.append(Source(names[number], kind, (("", directory),), digest=diff_id))
    return found


def made_by(image: Image) -> list[str]:
    """Say of each layer what made it, as the image's history has it."""
    steps = [step for step in image.history if not step.get("empty_layer")]
    said = [str(step.get("created_by") or step.get("comment") or "") for step in steps]
    # A history that doesn't fit says nothing of any layer.
    said = said if len(said) == len(image.layers) else [""] * len(image.layers)
    return [text or f"layer {number}" for number, text in enumerate(said)]


def _with_names(names: list[str], diff_ids: Sequence[str], store: Store) -> list[str]:
    """Add the images that this one is built on: each by its top layer."""
    found = list(names)
    for image in store.images():
        own = [layer.diff_id for layer in image.layers]
        count = len(own)
        if image.names and 0 < count < len(diff_ids) and own == list(diff_ids[:count]):
            found[count - 1] = f"{image.names[0]}: {names[count - 1]}"
    return found


def _host(facts: state.State | None = None) -> Source:
    """Give this machine's own files: those that a container sees, by its state; else that any may."""
    from nscontainer.image.below import view_of
    from nscontainer.image.host import HIDDEN, SECRETS, View

    views = [view_of(view) for view in (facts or {}).get("views", ())]
    views = views or [View("/", hidden=set(HIDDEN), removed=set(SECRETS))]

    def shows(path: str) -> bool:
        return any(view.shows(path) for view in views)

    return Source(
        "host: this machine's own system", "base", (("", "/"),), listed=False, shows=shows
    )


def _of_container(
    container: Container, store: Store, open_layers: contextlib.ExitStack
) -> list[Source]:
    """Give a container's: its image's, the init layer, the read-write layer.

    The init layer lies on the host's files and below what was committed on them; on an image of the
    store it lies above all of that.
    """
    facts = state.read(container.directory) or {}
    stored: list[Source] = []
    on_host = "image_id" not in facts or bool(facts.get("on_host"))
    if "image_id" in facts:
        diff_ids = [str(one) for one in facts.get("diff_ids") or ()]
        stored = _stored(diff_ids, _names(facts, len(diff_ids), store), store, base=not on_host)
    below = [_host(facts), _INIT, *stored] if on_host else [*stored, _INIT]
    return [*below, _written(facts, container.directory, store, open_layers)]


def _written(
    facts: state.State, directory: str, store: Store, open_layers: contextlib.ExitStack
) -> Source:
    """Give the read-write layer, without what the engine made in it; open until the stack is closed."""
    from nscontainer.image.written import layers_of

    parts: list[tuple[str, str]] = []
    skip: set[str] = set()
    for view in open_layers.enter_context(layers_of(facts, directory, store.root)):
        lead = view.prefix.rstrip("/")
        parts.append((lead, view.top))
        skip |= {f"{lead}/{path}" for path in view.skip}
    return Source("read-write layer", "rw", tuple(parts), skip=frozenset(skip))


_INIT: Final = Source(
    "init layer", "init", known=("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
)
"""What the engine mounts files over; with more mount points, which it makes where the image has none."""


def _names(facts: state.State, count: int, store: Store) -> list[str]:
    """Say what made the layers, as long as their image is in the store."""
    with contextlib.suppress(NotFoundError, ImageError):
        image = store.get(str(facts["image_id"]))
        if len(image.layers) == count:
            diff_ids = [layer.diff_id for layer in image.layers]
            return _with_names(made_by(image), diff_ids, store)
    return [f"layer {number}" for number in range(count)]
