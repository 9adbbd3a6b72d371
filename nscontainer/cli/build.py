"""``nscontainer build``: an image from a Dockerfile."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from nscontainer import options
from nscontainer.build import dockerfile, front
from nscontainer.build.asked import Options
from nscontainer.build.context import Context
from nscontainer.build.dockerfile import Dockerfile
from nscontainer.build.report import Report
from nscontainer.errors import SpecError

_DESCRIPTION: Final = """\
Build an image from a Dockerfile. Each RUN is a container of its own; what it wrote is a layer, and the next
build takes it from the cache where nothing before it has changed."""
_EPILOG: Final = """\
Examples:
  nscontainer build -t mylab:1 .
  nscontainer build -t mylab:1 -f lab.Dockerfile --build-arg VERSION=3 --target test .
  nscontainer build -t mylab:1 - < Dockerfile        without any files to copy"""


def parser() -> options.Parser:
    """Make the parser."""
    made = options.Parser(
        prog="nscontainer build",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("context", metavar="CONTEXT", help="directory that COPY takes files from; - for none")
    add("-t", "--tag", dest="tags", metavar="NAME", action="append", help="its name (repeat)")
    add("-f", "--file", metavar="FILE", help="Dockerfile (default: CONTEXT/Dockerfile; - is stdin)")
    add("--build-arg", metavar="NAME=VALUE", action="append", help="value of an ARG (repeat)")
    add("--label", dest="labels", metavar="NAME=VALUE", action="append", help="a label (repeat)")
    add("--target", metavar="STAGE", help="build this stage, by name or number (default: the last)")
    add("--no-cache", action="store_true", help="run every step again")
    add("--pull", action="store_true", help="ask the registry for newer base images")
    add(
        "--network",
        "--net",
        choices=("none", "host"),
        default="host",
        help="network of RUN (default: host, so that packages can be installed)",
    )
    add("--progress", choices=("auto", "plain"), default="auto", help="plain: no bold headings")
    add("-q", "--quiet", action="store_true", help="print only the image's id")
    add("--iidfile", metavar="FILE", help="write the image's id to this file")
    return made


def build_command(argv: Sequence[str]) -> int:
    """Build an image."""
    given = parser().parse_args(argv)
    asked = Options(
        tags=tuple(given.tags or ()),
        build_args=front.pairs(given.build_arg, "--build-arg", from_environment=True),
        labels=front.pairs(given.labels, "--label"),
        target=given.target,
        use_cache=not given.no_cache,
        pull=given.pull,
        network=given.network,
    )
    asked.check()
    if given.iidfile:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(given.iidfile)  # one of an earlier build would look like this one's
    file, context = _source(given.context, given.file)
    bold = given.progress == "auto" and sys.stderr.isatty()
    report = Report(_write, emphasis=("\x1b[1m", "\x1b[0m") if bold else ("", ""))
    with _ended_by_signals():
        try:
            image = front.build(file, context, asked, None if given.quiet else report)
        finally:
            if not given.quiet:
                report.close()
    if given.iidfile:
        with open(given.iidfile, "w", encoding="ascii") as iid:
            iid.write(image.id)
    if given.quiet:
        print(image.id)
        return 0
    print(f"Successfully built {image.id.removeprefix('sha256:')[:12]}")
    for name in asked.tags:
        print(f"Successfully tagged {name}")
    return 0


def _source(context: str, file: str | None) -> tuple[Dockerfile, Context | None]:
    if context != "-" and file != "-":
        return front.from_directory(context, file)
    if context == "-" and file is not None:
        message = "with CONTEXT - the Dockerfile comes from standard input"
        raise SpecError(message, hint="leave -f out, or name a directory")
    text = sys.stdin.read()
    directory = None if context == "-" else Context.of(context)
    return dockerfile.parse(text, "stdin"), directory


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP do as Ctrl-C: the step's container ends and is removed."""

    def interrupt(_number: int, _frame: object) -> None:
        signal.raise_signal(signal.SIGINT)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
