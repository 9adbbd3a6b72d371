"""The arguments of the sub-commands about images: the same on ``nscontainer X`` and ``%container X``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nscontainer import options


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a sub-command takes."""

    usage: str
    summary: str
    add: Callable[[options.Parser], None]
    completes: str = ""
    """What Tab completes where no option begins: ``image``, ``container`` or both."""
    table: bool = False
    """Whether it prints a table, and so has ``--json`` on the command line."""


def parser(name: str, *, magic: bool) -> options.Parser:
    """Make the parser of a sub-command."""
    arguments = COMMANDS[name]
    program = f"%container {name}" if magic else f"nscontainer {name}"
    made = options.subparser(program, arguments.usage, arguments.summary, magic=magic)
    arguments.add(made)
    if arguments.table and not magic:
        made.add_argument("--json", action="store_true", help="an array of objects")
    return made


_REFERENCE: Final = "name, digest, id or its start"


def _image(made: options.Parser) -> None:
    made.add_argument("image", metavar="IMAGE", help=_REFERENCE)


def _many(made: options.Parser) -> None:
    made.add_argument("images", metavar="IMAGE", nargs="+", help=_REFERENCE)


def _quiet(made: options.Parser) -> None:
    made.add_argument("-q", "--quiet", action="store_true", help="no progress, only the id")


def _change(made: options.Parser) -> None:
    made.add_argument(
        "-c", "--change", metavar="INSTRUCTION", action="append", default=[],
        help="a Dockerfile's instruction, as 'CMD [\"python3\"]' or 'ENV A=1'; may be repeated",
    )  # fmt: skip
    made.add_argument("-m", "--message", metavar="TEXT", default="", help="for its history")


def _pull(made: options.Parser) -> None:
    made.add_argument("name", metavar="NAME", help="as python:3.12-slim or localhost:5000/lab:1")
    made.add_argument(
        "--platform", metavar="OS/ARCH", help="as linux/arm64 (default: this machine's)"
    )
    _quiet(made)


def _push(made: options.Parser) -> None:
    _image(made)
    made.add_argument("to", metavar="TO", nargs="?", help="the name there (default: its own)")
    _quiet(made)


def _load(made: options.Parser) -> None:
    made.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="of docker save, or an OCI archive; - is standard input",
    )
    made.add_argument("-i", "--input", metavar="FILE", help="the same, as Docker has it")
    _quiet(made)


def _save(made: options.Parser) -> None:
    _many(made)
    made.add_argument("-o", "--output", metavar="FILE", help="where to (default: standard output)")
    made.add_argument(
        "--format",
        choices=("docker", "oci"),
        default="docker",
        help="(default: docker, for docker load)",
    )


def _import(made: options.Parser) -> None:
    made.add_argument(
        "file", metavar="FILE", help="a tar of a root filesystem; - is standard input"
    )
    made.add_argument("name", metavar="NAME", nargs="?", help="of the image that it becomes")
    _change(made)


def _export(made: options.Parser) -> None:
    made.add_argument("name", metavar="NAME", help="of a container or an image")
    made.add_argument("-o", "--output", metavar="FILE", help="where to (default: standard output)")


def _bootstrap(made: options.Parser) -> None:
    made.add_argument("suite", metavar="DISTRIBUTION:SUITE", help="as debian:bookworm")
    made.add_argument("name", metavar="NAME", nargs="?", help="of the image (default: the same)")
    made.add_argument(
        "--include", metavar="PACKAGE,…", default="", help="packages to install, as python3,curl"
    )
    _quiet(made)


def _images(made: options.Parser) -> None:
    made.add_argument(
        "filter", metavar="NAME", nargs="?", help="only these: python, python:3*, *lab*"
    )
    made.add_argument("-a", "--all", action="store_true", help="those without a name too")


def _tag(made: options.Parser) -> None:
    _image(made)
    made.add_argument("name", metavar="NEW", help="the name that it gets as well")


def _rmi(made: options.Parser) -> None:
    _many(made)
    made.add_argument(
        "-f",
        "--force",
        action="store_true",
        help="also by its id with all its names, and names of one in use",
    )


def _diff(made: options.Parser) -> None:
    made.add_argument("container", metavar="CONTAINER", help="name, id or its start")


def _commit(made: options.Parser) -> None:
    _diff(made)
    made.add_argument("name", metavar="NAME", nargs="?", help="of the image, as mylab:1")
    made.add_argument("-a", "--author", metavar="TEXT", default="", help="who made it")
    _change(made)
    made.add_argument(
        "--no-pause", action="store_true", help="let its processes go on while it is read"
    )


def _prune(made: options.Parser) -> None:
    made.add_argument(
        "-a",
        "--all",
        action="store_true",
        help="every image that no container uses, not only nameless ones",
    )
    made.add_argument("-f", "--force", action="store_true", help="don't ask")


def _layers(made: options.Parser) -> None:
    made.add_argument("name", metavar="NAME", help="of a container or an image")


def _none(made: options.Parser) -> None:
    del made


COMMANDS: Final[dict[str, Arguments]] = {
    "images": Arguments("[-a] [NAME]", "list images", _images, "image", table=True),
    "pull": Arguments("[--platform P] [-q] NAME", "get an image from a registry", _pull, "image"),
    "push": Arguments("[-q] IMAGE [TO]", "send an image to a registry", _push, "image"),
    "load": Arguments("[-q] FILE", "get images from an archive: docker's or OCI's", _load),
    "save": Arguments(
        "[-o FILE] [--format F] IMAGE…",
        "write images into an archive: docker's or OCI's",
        _save,
        "image",
    ),
    "import": Arguments(
        "[-m TEXT] [-c …] FILE [NAME]", "make an image of a root filesystem's tar", _import
    ),
    "export": Arguments(
        "[-o FILE] NAME",
        "write a container's or image's files as one tar",
        _export,
        "container image",
    ),
    "bootstrap": Arguments(
        "[--include P,…] debian:bookworm [NAME]",
        "make an image of a distribution's packages",
        _bootstrap,
    ),
    "commit": Arguments(
        "[-m TEXT] [-c …] CONTAINER [NAME]",
        "make an image of what a container wrote",
        _commit,
        "container",
    ),
    "diff": Arguments(
        "CONTAINER", "list what it added, changed, deleted", _diff, "container", table=True
    ),
    "layers": Arguments(
        "NAME",
        "show which layer each file comes from",
        _layers,
        "container image",
    ),
    "history": Arguments(
        "IMAGE",
        "list an image's layers and what made them",
        _image,
        "image",
        table=True,
    ),
    "tag": Arguments("IMAGE NEW", "give an image one more name", _tag, "image"),
    "rmi": Arguments("[-f] IMAGE…", "remove names, and images that have none left", _rmi, "image"),
    "prune": Arguments("[-a]", "remove images that nothing needs", _prune),
    "df": Arguments("", "show the space that images and containers take", _none, table=True),
}
"""By name; in the order of the help."""
