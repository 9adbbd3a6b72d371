"""``python -m benchmarks [NAME…] [--quick] [--json FILE]``."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks import peers, report
from benchmarks.bench import Bench
from benchmarks.ours import OursError
from benchmarks.peers import PeerError
from benchmarks.report import Report
from benchmarks.residue import Residue

NAMES = (
    "start", "rootless", "network", "cell", "output", "session", "bigparent", "values", "sampling", "quota", "netrate", "diskrate", "overshoot", "profile", "images",
)  # fmt: skip


def main() -> int:
    """Run the benchmarks that were named, or all; 1 where a target isn't reached."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare nscontainer with crun, runc and Docker, and check its limits' precision.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (all)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, a subset of cases")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    reports: list[Report] = []
    interrupted = False
    residue = Residue()
    with Bench(quick=options.quick) as bench:
        for name in options.names or NAMES:
            try:
                reports.append(one(name, bench))
            except KeyboardInterrupt:
                interrupted = True
                break
            if options.json is not None:  # after each: an interrupt loses nothing
                report.write_json(
                    options.json, reports, quick=options.quick, peers=peers.versions()
                )
    print(report.text(reports))
    left = residue.left(bench.made)
    for line in left:
        print(f"left behind: {line}", file=sys.stderr)
    if interrupted:
        return 130
    failed = any(row.reached == "no" for found in reports for row in found.rows)
    return 1 if failed or left or any(found.missing for found in reports) else 0


def one(name: str, bench: Bench) -> Report:
    """Run one benchmark; what can't be measured is told, and the others go on."""
    module = importlib.import_module(f"benchmarks.{name}")
    print(f"{name}: {module.TITLE}", file=sys.stderr, flush=True)
    try:
        found: Report = module.run(bench)
    except (PeerError, OursError) as error:
        found = Report(name, module.TITLE, missing=str(error))
    return found


if __name__ == "__main__":
    sys.exit(main())
