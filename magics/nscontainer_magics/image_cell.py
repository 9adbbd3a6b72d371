"""``%%image``: build an image from a cell of shell lines."""

from __future__ import annotations

import argparse
import functools
import html
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from IPython.core.magic import Magics, cell_magic, magics_class

from nscontainer import options
from nscontainer.build import cell as cells
from nscontainer.build import front
from nscontainer.build.asked import Options
from nscontainer.build.context import Context
from nscontainer.build.dockerfile import Dockerfile
from nscontainer.build.events import Done, Event
from nscontainer.build.report import Report
from nscontainer.errors import NsContainerError, SpecError
from nscontainer.units import format_seconds, format_size
from nscontainer_magics import cell_line
from nscontainer_magics.display import encodable, publish
from nscontainer_magics.failure import in_one_line
from nscontainer_magics.live import shows_html

if TYPE_CHECKING:
    from nscontainer.image.records import Image

_DESCRIPTION: Final = """\
Build an image from this cell: each line is a shell command, run in a container of its own as root of
that; what it writes is a layer. The next build takes the layer from the cache, unless the line or one
before it has changed.

As with Docker's RUN each line has a fresh shell: a `cd` or a variable lasts to the end of its line. Lines
that end in a backslash, for … done, if … fi and <<HERE documents are kept together as one. A line that
begins with ENV, COPY, WORKDIR, USER, CMD, ENTRYPOINT, LABEL, EXPOSE … is a Dockerfile's instruction;
COPY takes files from the notebook's working directory."""
_EPILOG: Final = """\
Example:
  %%image mylab:1 --from debian:bookworm
  apt-get update && apt-get install -y python3 && rm -rf /var/lib/apt/lists/*
  ENV SEED=1
  COPY data.csv /data/
then %%container --image mylab:1"""


@functools.cache
def parser() -> options.Parser:
    """Make the parser of the line."""
    made = options.Parser(
        prog="%%image",
        usage="%%%%image NAME --from IMAGE [options]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        add_help=False,
        formatter_class=_formatter,
    )
    add = made.add_argument
    add("name", metavar="NAME", nargs="?", help="the image's name, as mylab:1")
    add(
        "--from",
        dest="base",
        metavar="IMAGE",
        help="what it stands on: an image, which is pulled where it isn't here; host is this machine",
    )
    add("--network", "--net", choices=("none", "host"), default="host", help="(default: host)")
    add(
        "--build-arg",
        metavar="NAME=VALUE",
        action="append",
        help="value of an ARG line; a proxy (http_proxy …) needs no line (repeat)",
    )
    add(
        "-e",
        "--env",
        metavar="NAME=VALUE",
        action="append",
        help="an ENV line before the others (repeat)",
    )
    add("-u", "--user", metavar="USER", help="a USER line before the others")
    add("-w", "--workdir", metavar="DIR", help="a WORKDIR line before the others")
    add("--no-cache", action="store_true", help="run every line again")
    add("--pull", action="store_true", help="ask the registry for a newer base image")
    add("-q", "--quiet", action="store_true", help="show nothing but errors")
    add("-h", "--help", action="store_true", help="show this")
    return made


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=96)


class BuildInterrupted(KeyboardInterrupt):
    """The person at the notebook interrupted a build."""

    def _render_traceback_(self) -> list[str]:
        return ["KeyboardInterrupt: the build was interrupted; what was built is in the cache"]


def _documented(function: Any) -> Any:
    """Give the magic the help that ``?`` shows."""
    function.__doc__ = parser().format_help()
    return function


@magics_class
class ImageMagics(Magics):
    """Build images."""

    @cell_magic("image")
    @_documented
    def build(self, line: str, cell: str) -> None:  # noqa: D102  # the parser's help
        try:
            given = parser().parse_args(cell_line.split(line))
            if given.help:
                print(parser().format_help())
                return
            self._build(given, cell)
        except NsContainerError as error:
            raise in_one_line(error) from None

    def _build(self, given: argparse.Namespace, cell: str) -> None:
        asked, file = _asked(given, cell)
        stream = sys.stdout

        def write(text: str) -> None:
            stream.write(encodable(text, stream))
            stream.flush()

        report = Report(write)
        done: list[Done] = []

        def hear(event: Event) -> None:
            if isinstance(event, Done):
                done.append(event)
            if not given.quiet:
                report(event)

        try:
            image = front.build(file, Context.of(os.getcwd()), asked, hear)
        except KeyboardInterrupt:
            raise BuildInterrupted from None
        finally:
            if not given.quiet:
                report.close()
        if not given.quiet:
            self._show(given.name, image, done)

    def _show(self, name: str, image: Image, done: Sequence[Done]) -> None:
        assert self.shell is not None
        head, rows = summary(name, image, done)
        shown = {"text/plain": head}
        if shows_html(self.shell):
            shown["text/html"] = _html(head, rows)
        publish(self.shell.display_pub, shown, metadata={})


def _asked(given: argparse.Namespace, cell: str) -> tuple[Options, Dockerfile]:
    if given.name is None or given.base is None:
        missing = "NAME" if given.name is None else "--from IMAGE"
        raise SpecError(f"{missing} is missing", hint="%%image mylab:1 --from debian:bookworm")
    asked = Options(
        tags=(given.name,),
        build_args=front.pairs(given.build_arg, "--build-arg", from_environment=True),
        use_cache=not given.no_cache,
        pull=given.pull,
        network=given.network,
    )
    asked.check()
    env = front.pairs(given.env, "-e", from_environment=True)
    file = cells.parse(cell, given.base, env=env, user=given.user, workdir=given.workdir)
    return asked, file


def summary(
    name: str, image: Image, done: Sequence[Done]
) -> tuple[str, list[tuple[str, str, str]]]:
    """Give what was built as one line, and a row for each step that made a layer."""
    digits = image.id.removeprefix("sha256:")[:12]
    count = len(image.layers)
    head = f"{name} · {digits} · {count} layer{'s' * (count != 1)}, {format_size(image.size)}"
    rows = [
        (
            one.step.text.partition("\n")[0][:100],
            format_size(one.layer_bytes),
            "cached" if one.cached else format_seconds(one.wall_s),
        )
        for one in done
        if one.layer_bytes is not None
    ]
    return head, rows


_CELL: Final = "text-align:left;padding:1px 16px 1px 0;border:none;font-size:12px"


def _html(head: str, rows: Sequence[tuple[str, str, str]]) -> str:
    lines = [
        f'<tr style="background:transparent">'
        f'<td style="{_CELL}"><code>{html.escape(step)}</code></td>'
        f'<td style="{_CELL}">{html.escape(size)}</td><td style="{_CELL}">{html.escape(took)}</td>'
        "</tr>"
        for step, size, took in rows
    ]
    table = f'<table style="border:none;margin:4px 0">{"".join(lines)}</table>' if rows else ""
    return f"<div><strong>{html.escape(head)}</strong>{table}</div>"
