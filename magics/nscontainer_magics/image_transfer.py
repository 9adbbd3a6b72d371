"""``%container``: the sub-commands that bring images in, send them out, and make them of containers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nscontainer import images
from nscontainer.cli import image_rows
from nscontainer.cli.image_transfer import changes, commit
from nscontainer.errors import SpecError
from nscontainer_magics.image_commands import arguments, frame
from nscontainer_magics.image_progress import showing

if TYPE_CHECKING:
    from pandas import DataFrame


def _pull(words: list[str]) -> None:
    given = arguments("pull", words)
    kept = "what has come is kept; the next pull goes on from there"
    with showing(quiet=given.quiet, interrupted=kept) as shown:
        image = images.pull(given.name, platform=given.platform, progress=shown.progress)
    line = image_rows.one_line(image, given.name, shown.note)
    shown.end("\n".join([line, *image_rows.remarks(image)]))


def _push(words: list[str]) -> None:
    given = arguments("push", words)
    sent = "layers that were sent stay there; the next push leaves them out"
    with showing(quiet=given.quiet, interrupted=sent) as shown:
        digest = images.push(given.image, given.to, progress=shown.progress)
    shown.end(f"{given.to or given.image}: {digest}")


def _load(words: list[str]) -> None:
    given = arguments("load", words)
    file = _file(given.input or given.file)
    with showing(quiet=given.quiet) as shown:
        found = images.load(file, progress=shown.progress)
    lines = [image_rows.one_line(image) for image in found]
    shown.end("\n".join([*lines, *image_rows.remarks(*found)]))


def _file(name: str | None) -> str:
    if name in (None, "-"):
        raise SpecError("a notebook has no standard input to read from", hint="name a file")
    return str(name)


def _output(name: str | None) -> str:
    if name in (None, "-"):
        raise SpecError("there is no file to write to", hint="-o FILE")
    return str(name)


def _save(words: list[str]) -> None:
    given = arguments("save", words)
    images.save(given.images, _output(given.output), format=given.format)


def _import(words: list[str]) -> None:
    given = arguments("import", words)
    notes: list[str] = []
    image = images.import_(
        _file(given.file),
        given.name,
        changes=given.change,
        message=given.message,
        progress=image_rows.hearing(notes),
    )
    print("\n".join([image_rows.one_line(image), *notes]))


def _export(words: list[str]) -> None:
    given = arguments("export", words)
    images.export(given.name, _output(given.output))


def _bootstrap(words: list[str]) -> None:
    given = arguments("bootstrap", words)
    include = [name for name in given.include.split(",") if name]
    with showing(quiet=given.quiet) as shown:
        image = images.bootstrap(given.suite, given.name, include=include, progress=shown.progress)
    shown.end(image_rows.one_line(image))


def _commit(words: list[str]) -> None:
    print(image_rows.one_line(commit(arguments("commit", words))))


def _diff(words: list[str]) -> DataFrame:
    return frame(changes(arguments("diff", words).container), image_rows.DIFF)


CALLS: Final = {
    "pull": _pull,
    "push": _push,
    "load": _load,
    "save": _save,
    "import": _import,
    "export": _export,
    "bootstrap": _bootstrap,
    "commit": _commit,
    "diff": _diff,
}
"""By name, as :data:`nscontainer_magics.image_commands.CALLS`."""
