"""The sub-commands about the host and ourselves: doctor, gc, version."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence

from nscontainer import options
from nscontainer.cli.engine import container_type
from nscontainer.cli.text import columns, printable


def doctor_command(argv: Sequence[str]) -> int:
    """Try what this host can do; 0 where containers run here, else 1."""
    from nscontainer import doctor

    parser = options.Parser(
        prog="nscontainer doctor",
        description="Try for real what containers need, and say how to mend what is missing. "
        "Exit code 0 where containers run here (with ROW: where that isn't missing), else 1.",
    )
    parser.add_argument("--json", action="store_true", help="an array of objects")
    parser.add_argument(
        "row", nargs="*", metavar="ROW", help="that row alone, at length (as an error names it)"
    )
    given = parser.parse_args(argv)
    findings = doctor.examine()
    shown = doctor.chosen(findings, " ".join(given.row)) if given.row else findings
    width = min(columns(), 120)
    if given.json:
        print(json.dumps(doctor.to_json(shown), indent=2))
    elif given.row:
        print("\n\n".join(doctor.at_length(row, width=width) for row in shown))
    else:
        encoding = sys.stdout.encoding or "ascii"
        print(doctor.report(findings, width=width, encoding=encoding))
    decisive = shown if given.row else [finding for finding in findings if finding.needed]
    return 1 if any(finding.status == "missing" for finding in decisive) else 0


def gc_command(argv: Sequence[str]) -> int:
    """Remove what a crash left; a line for each thing."""
    parser = options.Parser(
        prog="nscontainer gc",
        description="Remove what a crash or a power cut left: processes, cgroups, files, names.",
    )
    parser.parse_args(argv)
    container_type()  # on another system, the doctor's error
    from nscontainer.build.execute import remove_left
    from nscontainer.engine import state
    from nscontainer.engine.garbage import collect
    from nscontainer.image.store import Store

    for line in collect():
        print(printable(line))
    has_images = os.path.isdir(f"{state.state_dir()}/images")
    for name in remove_left(Store()) if has_images else ():
        print(printable(f"container {name}: of a build that was killed"))
    return 0


def version_command(argv: Sequence[str]) -> int:
    """Print versions."""
    from nscontainer import __version__

    parser = options.Parser(prog="nscontainer version", description="Print versions.")
    parser.add_argument("--json", action="store_true", help="an object")
    given = parser.parse_args(argv)
    versions = {
        "nscontainer": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }
    if given.json:
        print(json.dumps(versions))
    else:
        print(f"nscontainer {__version__} (Python {versions['python']}, {versions['system']})")
    return 0
