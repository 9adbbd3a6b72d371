"""RUN: a command in a real container, and what it wrote as a layer. And ADD's archives, unpacked."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from nscontainer import api, spec
from nscontainer.build.dockerfile import Instruction
from nscontainer.build.events import Event, Output
from nscontainer.errors import BuildError, LayerError, NsContainerError
from nscontainer.image import compression, extract, files
from nscontainer.image.commit import add_layer
from nscontainer.image.tree import remove_tree

if TYPE_CHECKING:
    from nscontainer.engine.container import Container, Record
    from nscontainer.image.records import Image, Layer
    from nscontainer.image.store import Store

CONTAINERS: Final = "build-"
"""How the names of a build's containers begin."""
_TAIL_BYTES: Final = 4096
_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class Command:
    """What a RUN runs, whole: nothing of it is left to the image's config."""

    words: tuple[str, ...]
    env: Mapping[str, str]
    user: str | None
    workdir: str
    network: str


def run(
    command: Command,
    image: Image | None,
    store: Store,
    made: Instruction,
    tell: Callable[[Event], None],
) -> Layer:
    """Run a command on an image (None: ``host``); give what it wrote as a layer of the store.

    Raises
    ------
    BuildError
        It failed: which, where, how, and the last that it said. Nothing is left of it.
    KeyboardInterrupt
        It was interrupted; likewise.
    """
    container_type = api.engine()
    what = spec.build(
        command.words,
        image="host" if image is None else image.id,
        entrypoint="",
        env=command.env,
        user=command.user,
        workdir=command.workdir,
        network=command.network,
    )
    tail = bytearray()

    def hear(stream: Literal["stdout", "stderr"], data: bytes) -> None:
        tail.extend(data)
        del tail[:-_TAIL_BYTES]
        tell(Output(stream, data))

    with api.explained():
        name = f"{CONTAINERS}{os.urandom(6).hex()}"
        container = container_type.create(what, name=name, remove=False, start=True)
    try:
        record = container.drive(
            on_stdout=lambda data: hear("stdout", data),
            on_stderr=lambda data: hear("stderr", data),
        )
        if record.get("interrupted"):
            raise KeyboardInterrupt
        _check(made, container, record, bytes(tail))
        return add_layer(store, container)
    finally:
        with contextlib.suppress(NsContainerError, OSError):
            container.remove(force=True)


def _check(made: Instruction, container: Container, record: Record, tail: bytes) -> None:
    if record.get("exit_code") == 0 and not record.get("exec_error"):
        return
    if record.get("exec_error"):
        hint = "RUN needs a program that the image has; a plain line needs its /bin/sh"
        raise BuildError(
            f"{made.place}: {_short(made.text)}: {record['exec_error']}",
            exit_code=int(record["exit_code"]),
            hint=hint,
        )
    from nscontainer.measure.result import RunResult

    how = RunResult.from_record(record, container.samples()).describe_exit()
    said = tail.decode(errors="replace").strip().rpartition("\n")[2].strip()
    last = f"; it said last: {said[-_SHOWN:]}" if said else "; it said nothing"
    message = f"{made.place}: {_short(made.text)}: {how}{last}"
    raise BuildError(message, exit_code=int(record["exit_code"]))


def _short(text: str) -> str:
    first, more, _ = text.partition("\n")
    return first[:_SHOWN] + ("…" if more or len(first) > _SHOWN else "")


def remove_left(store: Store) -> list[str]:
    """Remove containers of builds that were killed; give their names.

    Who builds keeps ``gc.lock`` shared: had alone, it says that nobody builds.
    """
    with files.exclusive_if_free(f"{store.root}/gc.lock") as alone:
        if not alone:
            return []
        removed = []
        for container in api.engine().list(all=True):
            if container.name.startswith(CONTAINERS) and container.status == "exited":
                with contextlib.suppress(NsContainerError, OSError):
                    container.remove(force=True)  # waits for its monitor
                    removed.append(container.name)
        return removed


def unpacked(file: str, store: Store) -> str | None:
    """Unpack an archive for ADD; give the directory, None where the file is none.

    It is where a sweep of the store would find it, should nobody come to remove it.

    Raises
    ------
    LayerError
        It is one that must not be unpacked.
    """
    with open(file, "rb") as packed:
        stream = io.BufferedReader(compression.decompress(packed))
        try:
            head = stream.read(tarfile.BLOCKSIZE)
            tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, LayerError):
            return None
    directory = tempfile.mkdtemp(prefix=".add-", dir=f"{store.root}/layers")
    try:
        with open(file, "rb") as packed:
            extract.extract(compression.decompress(packed), directory)
    except BaseException:
        remove_tree(directory)
        raise
    return directory
