"""Images from Python: ``nscontainer.images.pull("python:3.12-slim")`` and its siblings.

Thin functions over :mod:`nscontainer.image`; each loads what it needs when it is called.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nscontainer.errors import SpecError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from typing import BinaryIO

    from nscontainer.build.events import Event
    from nscontainer.engine.container import Container
    from nscontainer.image.diff import Change
    from nscontainer.image.progress import Progress
    from nscontainer.image.records import Image
    from nscontainer.image.store import Pruned
    from nscontainer.layerstack import Stack
    from nscontainer.sessions import Session

# --- looking -----------------------------------------------------------------------------------


def list(name: str | None = None) -> builtins.list[Image]:  # noqa: A001 - docker-py's name
    """List the images of the store, the newest first.

    Parameters
    ----------
    name
        Only those of this name or repository; ``*`` stands for anything.
    """
    from nscontainer.image import facts
    from nscontainer.image.store import Store

    found = Store().images()
    if name is None:
        return found
    return [one for one in found if any(facts.matches(known, name) for known in one.names)]


def get(reference: str) -> Image:
    """Find an image by name, digest, id, or the beginning of an id.

    Raises
    ------
    NotFoundError
        There is none; the hint has names that are alike.
    """
    from nscontainer.image.store import Store

    return Store().get(reference)


def history(reference: str) -> builtins.list[dict[str, Any]]:
    """Give the steps that made an image, the newest first; see :func:`nscontainer.image.facts.history`."""
    from nscontainer.image import facts

    return facts.history(get(reference))


def inspect(reference: str) -> dict[str, Any]:
    """Give all that is known of an image, under Docker's names."""
    from nscontainer.image import facts

    return facts.inspect(get(reference))


def layers(reference: str) -> Stack:
    """Look at the layers of a container or an image: which file comes from which, and what is hidden.

    Returns
    -------
    Stack
        ``frame`` and ``summary`` are DataFrames, ``plot()`` draws it; a notebook shows the picture.

    Raises
    ------
    NotFoundError
        There is neither a container nor an image of that name.
    """
    from nscontainer import layer_sources

    return layer_sources.stack_of(reference)


# --- registries -------------------------------------------------------------------------------


def pull(name: str, *, platform: str | None = None, progress: Progress | None = None) -> Image:
    """Get an image from its registry: manifest, layers that are not here yet, unpacked.

    Parameters
    ----------
    name
        As ``python:3.12-slim``, ``ghcr.io/org/tool:1`` or ``localhost:5000/mylab@sha256:…``.
    platform
        ``os/arch[/variant]`` of another machine's image; by default this one's.
    progress
        Called in this thread with each step, in bytes for each layer.

    Raises
    ------
    SpecError
        The name, the platform or a configuration file is wrong.
    RegistryError
        It can't be had: no such image, no access, no connection …
    """
    from nscontainer.image.registry.pull import pull as do
    from nscontainer.image.store import Store

    return do(name, store=Store(), platform=platform, progress=progress)


def push(name: str, to: str | None = None, *, progress: Progress | None = None) -> str:
    """Hand an image to a registry, under its own name or another; give its manifest's digest.

    Raises
    ------
    SpecError
        A name is wrong.
    NotFoundError
        There is no such image.
    ImageError
        It stands on the built-in image ``host``: only :func:`export` gives it away.
    RegistryError
        The registry didn't take it.
    """
    from nscontainer.image.registry.push import push as do
    from nscontainer.image.store import Store

    return do(name, store=Store(), to=to, progress=progress)


# --- changing ----------------------------------------------------------------------------------


def usage() -> builtins.list[dict[str, Any]]:
    """Give what images and containers take of the disk, a row a kind; see :mod:`nscontainer.disk_usage`."""
    from nscontainer import disk_usage

    return disk_usage.rows()


def used_by() -> dict[str, builtins.list[str]]:
    """Give the names of the containers that stand on each image, by the image's id."""
    from nscontainer.engine import state
    from nscontainer.image import sweep

    found: dict[str, builtins.list[str]] = {}
    for user in sweep.users(state.state_dir()):
        found.setdefault(user.image_id, []).append(user.container)
    return found


def tag(source: str, name: str) -> None:
    """Give an image one more name; one that another image has moves over."""
    from nscontainer.image.store import Store

    Store().tag(source, name)


def remove(reference: str, *, force: bool = False) -> builtins.list[str]:
    """Remove a name, and the image with it where it was the last.

    Returns
    -------
    list[str]
        Lines as Docker's: ``untagged: lab:1``, ``deleted: sha256:…``.

    Raises
    ------
    StateError
        A container uses it, or it was given by its id and has several names (then ``force``).
    """
    from nscontainer.image.store import Store

    return Store().remove(reference, force=force)


def prune(*, all: bool = False) -> Pruned:  # noqa: A002 - Docker's option
    """Remove nameless images; with ``all`` every image that no container uses."""
    from nscontainer.image.store import Store

    store = Store()
    pruned = store.prune(all=all)
    from nscontainer.build import cache

    cache.sweep(store, everything=all)
    return pruned


# --- building -----------------------------------------------------------------------------------


def build(
    context: str | None = ".",
    *,
    file: str | None = None,
    text: str | None = None,
    tags: str | Iterable[str] = (),
    build_args: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    target: str | None = None,
    cache: bool = True,
    pull: bool = False,
    network: str = "host",
    on_event: Callable[[Event], None] | None = None,
) -> Image:
    """Build an image from a Dockerfile, as ``nscontainer build`` does.

    Parameters
    ----------
    context
        The directory that COPY and ADD take files from; None for none.
    file
        The Dockerfile, where it isn't ``context/Dockerfile``.
    text
        The Dockerfile itself, in place of a file.
    tags
        The names that the image is to have.
    target
        The stage to build, by name or number; the last one by default.
    cache
        Take layers from earlier builds.
    pull
        Ask the registry for newer base images.
    network
        Of RUN: ``host``, or ``none``.
    on_event
        Told each step, what it says and how it went: :mod:`nscontainer.build.events`.

    Raises
    ------
    SpecError
        The Dockerfile can't be carried out: file, line, why.
    BuildError
        A RUN failed. The steps before it are in the cache.

    Examples
    --------
    >>> images.build(None, text=open("lab.Dockerfile").read(), tags="mylab:1")
    """
    from nscontainer.build import dockerfile, front
    from nscontainer.build.asked import Options
    from nscontainer.build.context import Context

    asked = Options(
        tags=(tags,) if isinstance(tags, str) else tuple(tags),
        build_args=dict(build_args or {}),
        labels=dict(labels or {}),
        target=target,
        use_cache=cache,
        pull=pull,
        network=network,
    )
    if text is not None:
        taken = None if context is None else Context.of(context)
        return front.build(dockerfile.parse(text), taken, asked, on_event)
    if context is None:
        message = "there is neither a context nor a Dockerfile's text"
        raise SpecError(message, hint="give text=, or a directory")
    return front.build(*front.from_directory(context, file), asked, on_event)


# --- what a container has written ---------------------------------------------------------------


def commit(
    container: Container | Session | str,
    name: str | None = None,
    *,
    message: str | None = None,
    author: str | None = None,
    changes: Iterable[str] = (),
    pause: bool = True,
) -> Image:
    """Save what a container has written as a new image: ``docker commit``.

    Parameters
    ----------
    container
        A container or session, or a name or id of one: it may run, be paused, or have ended and be kept.
    name
        As ``mylab:1``.
    message, author
        For the image's history.
    changes
        As ``CMD ["python3"]``: CMD ENTRYPOINT ENV EXPOSE LABEL USER WORKDIR VOLUME STOPSIGNAL.
    pause
        Freeze the container meanwhile.

    Raises
    ------
    NotFoundError, SpecError, StateError, LayerError
        There is no such container; a name or change can't be used; it ended meanwhile; something in
        it can't be in a layer.
    """
    from nscontainer.image.commit import commit as make

    held = _container(container)
    return make(held, name, message=message, author=author, changes=changes, pause=pause)


def diff(container: Container | Session | str) -> builtins.list[Change]:
    """Tell what a container has changed of its image: ``docker diff``.

    Returns
    -------
    list[Change]
        ``kind`` (A added, C changed, D deleted) and ``path``, in the order of the paths.
    """
    from nscontainer.image.diff import of_container
    from nscontainer.image.store import Store

    held, store = _container(container), Store()
    with store.holding():
        return of_container(held.inspect(), held.directory, store.root)


def _container(which: Container | Session | str) -> Container:
    if isinstance(which, str):
        from nscontainer.engine.container import Container as Found

        return Found.get(which)
    whole: Any = which
    of_session: Container = getattr(whole, "container", whole)
    return of_session


# --- files -------------------------------------------------------------------------------------


def load(
    source: str | os.PathLike[str] | BinaryIO,
    *,
    name: str | None = None,
    platform: str | None = None,
    progress: Progress | None = None,
) -> builtins.list[Image]:
    """Take images in from an archive: see :func:`nscontainer.image.archives.load.load`.

    Parameters
    ----------
    source
        The path of an archive or of an OCI layout's directory, or a binary stream.
    name
        A name for the one image in it, instead of its own.
    platform
        Which of several, as ``linux/arm64``; this machine's when not given.
    """
    from nscontainer.image.archives import load as loading
    from nscontainer.image.store import Store

    return loading.load(source, store=Store(), name=name, platform=platform, progress=progress)


def save(
    images: str | Sequence[str],
    target: str | os.PathLike[str] | BinaryIO,
    *,
    format: str = "docker",  # noqa: A002 - skopeo's and podman's word
    progress: Progress | None = None,
) -> None:
    """Write images to an archive: see :func:`nscontainer.image.archives.save.save`.

    Parameters
    ----------
    format
        ``docker`` (for ``docker load``; an OCI archive too), ``oci`` (an archive), ``oci-dir`` (a directory).
    """
    from nscontainer.image.archives import save as saving
    from nscontainer.image.store import Store

    saving.save(images, target, store=Store(), format=format, progress=progress)


def import_(
    source: str | os.PathLike[str] | BinaryIO,
    name: str | None = None,
    *,
    changes: Sequence[str] = (),
    message: str | None = None,
    progress: Progress | None = None,
) -> Image:
    """Make an image of a root filesystem: see :func:`nscontainer.image.archives.rootfs.import_`.

    Parameters
    ----------
    source
        A tar, compressed or not, by its path or as a binary stream; or a directory.
    changes
        As ``docker import --change``: ``'CMD ["bash"]'``, ``'ENV TZ=UTC'``.
    """
    from nscontainer.image.archives import rootfs
    from nscontainer.image.store import Store

    return rootfs.import_(
        source, name, store=Store(), changes=changes, message=message, progress=progress
    )


def export(
    what: Container | Session | str,
    target: str | os.PathLike[str] | BinaryIO,
    *,
    progress: Progress | None = None,
) -> None:
    """Write all files of a container or an image as one tar.

    See :func:`nscontainer.image.archives.rootfs.export`.
    """
    from nscontainer.image.archives import rootfs
    from nscontainer.image.store import Store

    name = what if isinstance(what, str) else _container(what).id
    rootfs.export(name, target, store=Store(), progress=progress)


def bootstrap(
    suite: str,
    name: str | None = None,
    *,
    include: Sequence[str] = (),
    variant: str = "minbase",
    mirror: str | None = None,
    progress: Progress | None = None,
) -> Image:
    """Make an image of a Debian or Ubuntu suite, as ``debian:bookworm``, from its archive.

    See :func:`nscontainer.image.archives.bootstrap.bootstrap`.
    """
    from nscontainer.image.archives import bootstrap as bootstrapping
    from nscontainer.image.store import Store

    return bootstrapping.bootstrap(
        suite,
        name,
        store=Store(),
        include=include,
        variant=variant,
        mirror=mirror,
        progress=progress,
    )
