"""What an image says of a container that runs from it: ENTRYPOINT, CMD, ENV, USER, WORKDIR, as Docker."""

from __future__ import annotations

import contextlib
import os
import platform
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from nscontainer.errors import HostError, SpecError
from nscontainer.spec import ContainerSpec, parse_signal

if TYPE_CHECKING:
    from nscontainer.image.records import Image
    from nscontainer.image.store import Store

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where the image sets none: Docker's own."""
HOST: Final = "host"

# GOARCH (what images say), by uname(2)'s machine.
_RUNNABLE: Final[Mapping[str, tuple[str, ...]]] = {
    "x86_64": ("amd64", "386"),
    "i686": ("386",),
    "aarch64": ("arm64", "arm"),
    "armv7l": ("arm",),
    "riscv64": ("riscv64",),
    "ppc64le": ("ppc64le",),
    "s390x": ("s390x",),
}


@dataclass(frozen=True, slots=True)
class Resolved:
    """A stored image as one container needs it, in plain types: it goes to the spawner and to disk."""

    name: str
    image_id: str
    layers: tuple[str, ...]
    """Keys of the unpacked layers, base first."""
    diff_ids: tuple[str, ...]
    on_host: bool
    environment: Mapping[str, str]
    volumes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return {
            "name": self.name,
            "image_id": self.image_id,
            "layers": list(self.layers),
            "diff_ids": list(self.diff_ids),
            "on_host": self.on_host,
            "volumes": list(self.volumes),
        }


@contextlib.contextmanager
def resolved(spec: ContainerSpec) -> Iterator[tuple[ContainerSpec, Resolved | None]]:
    """Look a spec's image up, unpack what is missing of it, and keep it there for this block.

    Yields
    ------
    tuple
        The spec with what the image says filled in; and the image, None for ``host`` itself.

    Raises
    ------
    NotFoundError
        There is no such image.
    SpecError, HostError
        It is for another machine; it has no command, and none was given.
    """
    if spec.image == HOST:
        yield plain(spec), None
        return
    from nscontainer.image.store import Store

    store = Store()
    with store.holding():
        image = store.get(spec.image)
        check_platform(image, spec.image)
        whole = with_image(spec, image)
        keys = _unpacked(store, image)
        yield (
            whole,
            Resolved(
                name=spec.image,
                image_id=image.id,
                layers=keys,
                diff_ids=tuple(layer.diff_id for layer in image.layers),
                on_host=image.on_host,
                environment=environment(image),
                volumes=volumes(image),
            ),
        )


_seen: dict[tuple[str, str], tuple[tuple[str, ...], tuple[object, ...]]] = {}
"""Images whose layers this process has seen unpacked: keys, and which directories those were."""


def _unpacked(store: Store, image: Image) -> tuple[str, ...]:
    """Have an image's layers unpacked; a look at 30 of them takes longer than a 30th of a start."""
    known = _seen.get((store.root, image.id))
    if known is None or known[1] != _seals(store, known[0]):
        keys = tuple(store.unpack(image))
        known = _seen[store.root, image.id] = keys, _seals(store, keys)
    return known[0]


def _seals(store: Store, keys: tuple[str, ...]) -> tuple[object, ...]:
    seals = []
    for key in keys:
        try:
            facts = os.stat(f"{store.root}/layers/{key}")
        except OSError:
            return (None,)  # unlike any that is there
        seals.append((facts.st_ino, facts.st_ctime_ns))
    return tuple(seals)


def stands_on_host(name: str) -> bool:
    """Tell whether an image is this machine's own system, or that and committed layers.

    Raises
    ------
    NotFoundError
        There is no such image.
    """
    if name == HOST:
        return True
    from nscontainer.image.store import Store

    return Store().get(name).on_host


def plain(spec: ContainerSpec) -> ContainerSpec:
    """Fill in what the image ``host`` says: nothing but the usual stop signal."""
    if spec.command is not None and spec.entrypoint:
        spec = replace(spec, command=spec.entrypoint + spec.command, entrypoint=())
    return spec if spec.stop_signal else replace(spec, stop_signal=int(parse_signal("TERM")))


def check_platform(image: Image, name: str) -> None:
    """Refuse an image of another machine's programs.

    Raises
    ------
    HostError
        It says so itself; one that says nothing may be for any.
    """
    machine = platform.machine()
    runnable = _RUNNABLE.get(machine, (machine,))
    if image.os not in ("", "linux"):
        message = f"image {name!r} is for {image.os}"
        raise HostError(message, hint="containers here are Linux's")
    if image.architecture and image.architecture not in runnable:
        message = f"image {name!r} is for {image.architecture}, and this machine is {runnable[0]}"
        raise HostError(message, hint=f"pull it with --platform linux/{runnable[0]}")


def with_image(spec: ContainerSpec, image: Image) -> ContainerSpec:
    """Fill in a spec what the image says and the caller left out.

    Raises
    ------
    SpecError
        There is no command at all; the image's stop signal is none.
    """
    command, entrypoint = spec.command, spec.entrypoint
    if command is not None:
        command, entrypoint = _argv(spec, image), ()  # so that a result's spec can be run again
        if not command:
            message = f"image {spec.image!r} has no command of its own"
            raise SpecError(message, hint="give one, as sh")
    stop = spec.stop_signal
    if stop is None:
        stop = int(parse_signal(image.stop_signal or "TERM"))
    return replace(
        spec,
        command=command,
        entrypoint=entrypoint,
        user=spec.user if spec.user is not None else (image.user or None),
        workdir=spec.workdir or _absolute(image.workdir),
        stop_signal=stop,
    )


def _argv(spec: ContainerSpec, image: Image) -> tuple[str, ...]:
    """Put entrypoint and arguments together; CMD is for the image's own entrypoint only."""
    if spec.entrypoint is not None:
        return spec.entrypoint + (spec.command or ())
    return (*image.entrypoint, *(spec.command or image.cmd))


def _absolute(workdir: str) -> str | None:
    return posixpath.normpath(posixpath.join("/", workdir)) if workdir else None


def environment(image: Image) -> dict[str, str]:
    """Give the image's variables: what the caller adds comes over them, the caller's own never does."""
    variables = {"PATH": PATH}
    for text in image.env:
        name, equals, value = text.partition("=")
        if name and equals and "\0" not in text:
            variables[name] = value
    return variables


def volumes(image: Image) -> tuple[str, ...]:
    """Give the paths that the image says are no part of it, each once."""
    paths = (posixpath.normpath(posixpath.join("/", path)) for path in image.volumes)
    return tuple(dict.fromkeys(path for path in paths if path != "/" and "\0" not in path))
