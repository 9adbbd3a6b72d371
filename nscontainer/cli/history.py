"""``nscontainer history`` and ``rerun``: the sweeps that are kept, and an exported one run again here."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from nscontainer import options
from nscontainer.cli.engine import explained
from nscontainer.cli.sweep import INTERRUPTED, check_file, picture
from nscontainer.cli.text import for_each, printable, shorten, table
from nscontainer.errors import SpecError

_WIDTH = 60


def history_command(argv: Sequence[str]) -> int:
    """List the sweeps, remove some; with an image's name list what made it, as Docker does."""
    history = import_module("nscontainer.history")
    made = options.Parser(
        prog="nscontainer history",
        usage="nscontainer history [--status S] [--what TEXT] [--json] | rm ID… | IMAGE",
        description="List the sweeps that are kept, the newest first; rm removes some. With an "
        "image's name, list its layers and what made them.",
    )
    made.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    made.add_argument("--json", action="store_true", help="as JSON")
    history.add_filters_to(made)
    given, _ = made.parse_known_args(argv)
    if given.words[:1] == ["rm"]:
        return _remove(given.words[1:])
    if given.words:  # an image's has options of its own
        return int(import_module("nscontainer.cli.images").history_command(argv))
    made.parse_args(argv)
    frame = history.table(given.status, given.what)
    if given.json:
        print(
            json.dumps(
                json.loads(frame.reset_index().to_json(orient="records", date_format="iso")),
                indent=2,
            )
        )
        return 0
    rows = frame.reset_index() if frame.index.name else frame
    cells = [[_cell(value) for value in row] for row in rows.itertuples(index=False)]
    print(table([str(name).upper().replace("_", " ") for name in rows.columns], cells))
    return 0


def _cell(value: Any) -> str:
    if value is None or value != value:  # noqa: PLR0124  # NaN and NaT
        return "–"
    if hasattr(value, "strftime"):
        return str(value.strftime("%Y-%m-%d %H:%M"))
    return shorten(str(value), _WIDTH)


def _remove(ids: Sequence[str]) -> int:
    if not ids:
        raise SpecError("there is no sweep to remove", hint="nscontainer history rm ID")
    store = import_module("nscontainer.experiment.store").Store()
    return for_each(ids, lambda one: (store.delete(one), print(one)))


def rerun_command(argv: Sequence[str]) -> int:
    """Run an exported sweep here, print both side by side and what differs."""
    made = options.Parser(
        prog="nscontainer rerun",
        usage="nscontainer rerun [options] FILE.zip",
        description="Run an exported sweep (or one that is kept, by its ID) again on this machine, "
        "and show both side by side, with what differs between the two machines.",
    )
    made.add_argument("file", metavar="FILE.zip", help="an exported sweep, or the ID of a kept one")
    made.add_argument(
        "--trust",
        metavar="NAME,…",
        default="",
        help="take as they stand in the file: volumes, mounts, cap_add, share, publish, seccomp, systempaths",
    )
    made.add_argument("-o", "--export", metavar="FILE.zip", help="keep the runs of here in a file")
    made.add_argument("--plot", metavar="FILE.png", help="draw both (also .svg, .pdf)")
    given = made.parse_args(argv)
    for name in ("export", "plot"):
        check_file(name, getattr(given, name))
    reruns = import_module("nscontainer.reruns")
    trust = reruns.trusted(filter(None, given.trust.split(",")))
    recorded = import_module("nscontainer.history").load(given.file) if trust else given.file
    for name, value in reruns.reaching(recorded).items() if trust else ():
        if name in trust:
            print(f"trusted as the file has it: {name} {printable(str(value))}", file=sys.stderr)
    try:
        with explained():
            both = reruns.rerun(recorded, trust=trust)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    if given.export:
        both.here.export(given.export)
    if given.plot:
        picture(lambda: both.plot("speed"), given.plot)
    print(both)
    return 0
