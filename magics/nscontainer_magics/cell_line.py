"""The ``%%container`` line: its parser, its help, and what was asked for."""

from __future__ import annotations

import argparse
import functools
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nscontainer import options, sweep_options
from nscontainer.errors import SpecError
from nscontainer.limits import LASTING
from nscontainer.values.inputs import check_name
from nscontainer_magics import variables

_DESCRIPTION: Final = """\
Run this cell in a fresh container, held to the limits given; or, given the NAME of a session that
`%container create NAME` made, in that: its variables, files and processes last from cell to cell.

The cell is Python, as in the notebook itself: the same interpreter and packages, the notebook's
working directory; what it writes stays in the container. With --sh, or with #! and a program in its
first line, it is a script of that language.

A list in any limit (--cpu 10%,20%,50%), or a sweep option, makes it a sweep: each combination runs in a
container of its own, --repeat times, and -o has them all."""

_EPILOG: Final = """\
Examples:
  %%container --cpu 20% --memory 256M -o r       then r.usage, r.totals, r.plot()
  %%container --sh --pids-limit 20
  %%container --cpu 10%,20%,50%,100% --repeat 5 -o s       then s.summary, s.compare("cpu"), s.plot()
  %%container lab -o r                           in the session lab: %container create lab
  %%container -v ./data:/data:ro --timeout 1m -e SEED=1
  %%container -i x,df --out total,top=df.nlargest(3,'y')      variables in, values out
Python variables: --cpu $q or --cpu {q*100}%"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellLine:
    """What a ``%%container`` line asks for."""

    build: dict[str, Any]
    """Keyword arguments of :func:`nscontainer.spec.build`."""
    session: str | None = None
    name: str | None = None
    output: str | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    """The notebook's variable, by its name in the cell."""
    out: Mapping[str, str] = field(default_factory=dict)
    """The expression, by the notebook's variable that is to have its value."""
    trust: bool = False
    capture: str | None = None
    """The notebook's variable that is to have what the cell says."""
    sh: bool = False
    quiet: bool = False
    bg: bool = False
    raise_error: bool = True
    help: bool = False
    sweep: Mapping[str, Any] | None = None
    """Keyword arguments of :func:`nscontainer.sweeps.prepare` where the line makes it a sweep."""
    fresh: bool = False
    """Begin the sweep anew, where one that was stopped could be gone on with."""


@functools.cache
def parser() -> options.Parser:
    """Make the parser of the line."""
    made = options.Parser(
        prog="%%container",
        usage="%%%%container [options]\n       %%%%container NAME [-o NAME] [-q] [--no-raise-error]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        add_help=False,
        formatter_class=_formatter,
    )
    made.add_argument("session", metavar="NAME", nargs="?", help="run it in this session")
    made.add_argument("-o", "--output", metavar="NAME", help="keep the result in this variable")
    made.add_argument(
        "-i",
        "--in",
        dest="inputs",
        metavar="NAME,…",
        action="append",
        help="take variables of the notebook along; NAME=VARIABLE renames one (repeat)",
    )
    made.add_argument(
        "--out",
        metavar="NAME=EXPR,…",
        action="append",
        help="keep values of the cell in variables; NAME alone is its own (repeat)",
    )
    made.add_argument(
        "--trust",
        action="store_true",
        help="unpickle what --out brings: then the container can run code in the notebook",
    )
    made.add_argument(
        "--capture", metavar="NAME", help="keep what it says in this variable, and show none of it"
    )
    made.add_argument("--sh", action="store_true", help="the cell is a script for /bin/sh")
    made.add_argument(
        "--no-raise-error",
        dest="raise_error",
        action="store_false",
        help="go on where the container fails: no error, so that Run All doesn't stop",
    )
    made.add_argument(
        "--bg",
        action="store_true",
        help="run it in the background, with a dashboard; -o has it at once",
    )
    options.add_to(made, magic=True)
    sweep_options.add_to(made, magic=True)
    made.add_argument("-h", "--help", action="store_true", help="show this")
    return made


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=96)


def help_text() -> str:
    """Give the help, as ``%%container?`` shows it."""
    return parser().format_help()


def split(line: str) -> list[str]:
    """Split a magic's line into words as a shell does.

    Raises
    ------
    SpecError
        A quote is left open.
    """
    try:
        return shlex.split(line)
    except ValueError as error:
        message = f"the line can't be read: {str(error)[:1].lower()}{str(error)[1:]}"
        raise SpecError(message, hint="close every quote, or escape it with a backslash") from None


def parse(line: str, fill: Callable[[argparse.Namespace], None] | None = None) -> CellLine:
    """Read the line.

    Parameters
    ----------
    fill
        Puts defaults under what the line of a cell of its own gives; a session has its own.

    Raises
    ------
    SpecError
        One line: the option, the value, how to mend it.
    """
    given = parser().parse_args(split(line))
    if given.help:
        return CellLine(build={}, help=True)
    if given.output is not None:
        check_name(given.output, "-o r")
    if given.capture is not None:
        check_name(given.capture, "--capture out")
    is_sweep = sweep_options.is_sweep(given)
    if given.session is not None:
        if is_sweep:
            message = f"a sweep runs in containers of its own, not in session {given.session!r}"
            raise SpecError(message, hint="leave the name of the session out")
        _refuse_options(given)
    elif fill is not None:
        fill(given)
    inputs = variables.parse_inputs(given.inputs or ())
    out = variables.parse_out(given.out or ())
    _check_together(given, inputs, out)
    if is_sweep:
        _refuse_of_one_run(given)
    build = options.to_build_kwargs(given, environ=os.environ)
    return CellLine(
        inputs=inputs,
        out=out,
        trust=given.trust,
        build=build,
        session=given.session,
        name=given.name,
        output=given.output,
        capture=given.capture,
        sh=given.sh,
        quiet=given.quiet,
        bg=given.bg,
        raise_error=given.raise_error,
        sweep=sweep_options.to_sweep_kwargs(given, build) if is_sweep else None,
        fresh=is_sweep and given.fresh,
    )


def _refuse_of_one_run(given: argparse.Namespace) -> None:
    """Refuse, of a sweep, what is about one run."""
    for flag, value, hint in (
        ("--out", given.out, "report(NAME=…) in the cell makes a column of s.summary"),
        ("--capture", given.capture, "-o s, then s.results[0].stdout"),
        ("--name", given.name, "each run's container has a name of its own"),
    ):
        if value:
            message = f"{flag} is for one run, and this is a sweep of several"
            raise SpecError(message, hint=hint)


def _refuse_options(given: argparse.Namespace) -> None:
    """Refuse, on a session's cell, what is settled for the whole session."""
    name = given.session
    if given.sh:
        message = f"--sh is for a container of its own, not for session {name!r}"
        raise SpecError(message, hint=f"!command in the cell, or %container exec {name} -- COMMAND")
    for option in options.OPTIONS:
        if vars(given).get(option.dest) in (None, False, []) or option.dest == "quiet":
            continue
        flag = option.flag
        message = f"{flag} is the whole session's, not a cell's"
        lasting = option.group != "limits" or option.dest in ("timeout", "cpu_time", *LASTING)
        verb = "create" if lasting else "update"
        value = f" {option.metavar}" if option.takes_value else ""
        command = f"rename {name} NEW" if option.dest == "name" else f"{verb} {name} {flag}{value}"
        raise SpecError(message, hint=f"%container {command}")


def _check_together(
    given: argparse.Namespace, inputs: Mapping[str, str], out: Mapping[str, str]
) -> None:
    if given.sh and (inputs or out):
        message = f"{'-i' if inputs else '--out'} is for Python cells, and --sh makes it a shell's"
        raise SpecError(message, hint="-e NAME=$value gives a script a value")
    if given.bg and given.capture is not None:
        message = "--capture is for a cell that is waited for, and --bg isn't"
        raise SpecError(message, hint="-o r, then r.stdout, r.stderr and r.outputs")
    if given.trust and not out:
        message = "--trust has nothing to trust without --out"
        raise SpecError(message, hint="as --out model --trust")
    for flag, name in (("-o", given.output), ("--capture", given.capture)):
        other = "--out" if name in out else "-o" if name == given.output else flag
        if name is not None and other != flag:
            message = f"{flag} and {other} would both set {name!r}"
            raise SpecError(message, hint="give one of them another name")
