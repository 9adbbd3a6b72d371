"""The sub-commands that bring images in, send them out, and make them of containers."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nscontainer import images
from nscontainer.cli import image_board, image_rows
from nscontainer.cli.images import arguments, print_json
from nscontainer.cli.text import printable
from nscontainer.errors import SpecError

if TYPE_CHECKING:
    from nscontainer.cli.image_board import Board
    from nscontainer.image.records import Image


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Board | None]:
    """Show how far it has come, on standard error."""
    if quiet:
        yield None
        return
    with image_board.for_stream() as board:
        yield board


def pull_command(argv: Sequence[str]) -> int:
    """Get an image from a registry."""
    given = arguments("pull", argv)
    with _progress(quiet=given.quiet) as progress:
        image = images.pull(given.name, platform=given.platform, progress=progress)
    note = progress.note if progress else ""
    print(image.id if given.quiet else image_rows.one_line(image, given.name, note))
    _remark(image_rows.remarks(image))
    return 0


def push_command(argv: Sequence[str]) -> int:
    """Send an image to a registry."""
    given = arguments("push", argv)
    with _progress(quiet=given.quiet) as progress:
        digest = images.push(given.image, given.to, progress=progress)
    print(digest if given.quiet else f"{given.to or given.image}: {digest}")
    return 0


def load_command(argv: Sequence[str]) -> int:
    """Get images from an archive."""
    given = arguments("load", argv)
    file = given.input or given.file or "-"
    with _progress(quiet=given.quiet) as progress:
        found = images.load(_source(file), progress=progress)
    _say_loaded(found, quiet=given.quiet)
    return 0


def _say_loaded(found: Sequence[Image], *, quiet: bool) -> None:
    for image in found:
        print(image.id if quiet else image_rows.one_line(image))
    _remark(image_rows.remarks(*found))


def _remark(lines: Sequence[str]) -> None:
    for line in lines:
        print(printable(line), file=sys.stderr)


def _source(file: str) -> Any:
    """Give what ``-`` stands for, or the path."""
    if file != "-":
        return file
    if sys.stdin.isatty():
        raise SpecError("there is no file to read", hint="name one, or send it: … < FILE")
    return sys.stdin.buffer


def _target(file: str | None) -> Any:
    """Give standard output, or the path; archives refuse a terminal themselves."""
    return sys.stdout.buffer if file in (None, "-") else file


def save_command(argv: Sequence[str]) -> int:
    """Write images into an archive."""
    given = arguments("save", argv)
    images.save(given.images, _target(given.output), format=given.format)
    return 0


def import_command(argv: Sequence[str]) -> int:
    """Make an image of a root filesystem's tar."""
    given = arguments("import", argv)
    notes: list[str] = []
    image = images.import_(
        _source(given.file),
        given.name,
        changes=given.change,
        message=given.message,
        progress=image_rows.hearing(notes),
    )
    print(image_rows.one_line(image))
    _remark(notes)
    return 0


def export_command(argv: Sequence[str]) -> int:
    """Write all files as one tar."""
    given = arguments("export", argv)
    images.export(given.name, _target(given.output))
    return 0


def bootstrap_command(argv: Sequence[str]) -> int:
    """Make an image of a distribution's packages."""
    given = arguments("bootstrap", argv)
    include = [name for name in given.include.split(",") if name]
    with _progress(quiet=given.quiet) as progress:
        image = images.bootstrap(given.suite, given.name, include=include, progress=progress)
    print(image.id if given.quiet else image_rows.one_line(image))
    return 0


def commit_command(argv: Sequence[str]) -> int:
    """Make an image of what a container wrote."""
    given = arguments("commit", argv)
    image = commit(given)
    print(image_rows.one_line(image))
    return 0


def diff_command(argv: Sequence[str]) -> int:
    """List what a container changed."""
    given = arguments("diff", argv)
    rows = changes(given.container)
    if given.json:
        return print_json(rows)
    for row in rows:
        print(row["change"], printable(row["path"]))
    return 0


# --- shared with the magics ---------------------------------------------------------------------


def changes(container: str) -> list[image_rows.Row]:
    """Give what a container added, changed and deleted, by path."""
    return [{"change": one.kind, "path": one.path} for one in images.diff(container)]


def commit(given: Any) -> Image:
    """Commit as the arguments say."""
    return images.commit(
        given.container,
        given.name,
        message=given.message,
        author=given.author,
        changes=given.change,
        pause=not given.no_pause,
    )
