"""``nscontainer stats``: what containers use, as a live table."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from nscontainer import options
from nscontainer.cli.engine import container_type
from nscontainer.cli.text import percent, table
from nscontainer.errors import NotFoundError, NsContainerError, StateError
from nscontainer.units import format_cpu, format_size

if TYPE_CHECKING:
    from nscontainer.engine.container import Container

FIRST_S: Final = 0.5
EVERY_S: Final = 1.0
Reading = dict[str, "int | None"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One row of the table; what the host can't say is None."""

    id: str
    name: str
    cpu_share: float | None
    cpu_limit: float | None
    throttled_share: float | None
    memory_bytes: int | None
    memory_limit_bytes: int | None
    read_bytes: int | None
    write_bytes: int | None
    pids: int | None
    cpu_s: float | None = None
    """CPU time since its code was let go; of a session, of all its cells."""


def stats_command(argv: Sequence[str]) -> int:
    """Show the table until interrupted, or once."""
    parser = options.Parser(
        prog="nscontainer stats", description="Show what containers use; all that run by default."
    )
    parser.add_argument("containers", metavar="CONTAINER", nargs="*", help="name, id or its start")
    parser.add_argument("--no-stream", action="store_true", help="once, not again and again")
    parser.add_argument("--json", action="store_true", help="an object a line, in plain units")
    given = parser.parse_args(argv)
    for reference in given.containers:  # a wrong name is an error, not an empty table
        container = container_type().get(reference)
        if container.status not in ("running", "paused"):
            message = f"container {reference!r} is {container.status}"
            raise StateError(message, hint="only a living one uses anything")
    live = os.isatty(1) and not given.json and not given.no_stream
    with contextlib.suppress(KeyboardInterrupt):  # the usual way to leave a live table
        _stream(given, live=live)
    return 0


def _stream(given: Any, *, live: bool) -> None:
    before: dict[str, Reading] = {}
    _readings(given.containers, before)
    time.sleep(FIRST_S)
    while True:
        rows = _readings(given.containers, before)
        if given.json:
            for row in rows:
                print(json.dumps(asdict(row)), flush=True)
        elif live:
            # From the top, each line cleared to its end, then what is left below: no flicker.
            lines = "".join(f"{line}\x1b[K\n" for line in stats_table(rows).split("\n"))
            print(f"\x1b[H{lines}\x1b[J", end="", flush=True)
        else:
            print(stats_table(rows), flush=True)
        if given.no_stream or (given.containers and not rows):
            return
        time.sleep(EVERY_S)


def _readings(references: Sequence[str], before: dict[str, Reading]) -> list[Usage]:
    """Read each container; ``before`` holds the last readings and is brought up to date."""
    found: list[Container] = []
    if references:
        for reference in references:
            with contextlib.suppress(NotFoundError):
                found.append(container_type().get(reference))
    else:
        found = container_type().list()
    rows = []
    for container in found:
        try:
            now = container.stats()
        except NsContainerError:
            continue  # it ended while we looked
        rows.append(usage(container.id, container.name, before.get(container.id), now,
                          memory_limit(container)))  # fmt: skip
        before[container.id] = now
    return rows


def memory_limit(container: Container) -> int | None:
    """Read the memory limit in force; None where there is none, or the container has just ended."""
    with contextlib.suppress(NsContainerError, OSError):
        return memory_limit_in_force(container)
    return None


def memory_limit_in_force(container: Container) -> int | None:
    """Read the memory limit, which an update may have changed; None where there is none.

    Raises
    ------
    NsContainerError, OSError
        The container has ended.
    """
    from nscontainer.linux import cgroup

    group = cgroup.reopen_at(container.inspect()["cgroup"]["paths"], container.id)
    try:
        limit: int | None = group.read_back()["memory_bytes"]
    finally:
        group.close()
    return None if limit is None or limit < 0 else limit


def usage(
    container_id: str,
    name: str,
    before: Reading | None,
    now: Reading,
    memory_limit_bytes: int | None,
) -> Usage:
    """Work out a row from two readings; without an earlier one there is no CPU share."""
    quota = now["cpu.quota"]
    return Usage(
        id=container_id,
        name=name,
        cpu_share=_rate(before, now, "cpuacct.usage", "elapsed_ns"),
        cpu_limit=None if quota is None else quota / 1e6,
        throttled_share=_rate(before, now, "cpu.nr_throttled", "cpu.nr_periods"),
        memory_bytes=now["memory.usage"],
        memory_limit_bytes=memory_limit_bytes,
        read_bytes=now["blkio.read_bytes"],
        write_bytes=now["blkio.write_bytes"],
        pids=now["pids.current"],
        cpu_s=None if (used := now["cpuacct.usage"]) is None else used / 1e9,
    )


def _rate(before: Reading | None, now: Reading, part: str, whole: str) -> float | None:
    if before is None:
        return None
    figures = before[part], before[whole], now[part], now[whole]
    if any(figure is None for figure in figures):
        return None
    old_part, old_whole, new_part, new_whole = (figure or 0 for figure in figures)
    return (new_part - old_part) / (new_whole - old_whole) if new_whole > old_whole else None


def stats_table(rows: Sequence[Usage]) -> str:
    """Lay out the rows, in Docker's columns where Docker has them."""
    return table(
        ["CONTAINER ID", "NAME", "CPU %", "CPU LIMIT", "THROTTLED", "MEM USAGE / LIMIT", "MEM %",
         "BLOCK I/O", "PIDS"],
        [
            [
                row.id,
                row.name,
                percent(row.cpu_share),
                "--" if row.cpu_limit is None else format_cpu(row.cpu_limit).replace(" ", ""),
                percent(row.throttled_share),
                f"{_size(row.memory_bytes)} / {_size(row.memory_limit_bytes)}",
                percent(
                    row.memory_bytes / row.memory_limit_bytes
                    if row.memory_bytes is not None and row.memory_limit_bytes
                    else None
                ),
                f"{_size(row.read_bytes)} / {_size(row.write_bytes)}",
                "--" if row.pids is None else str(row.pids),
            ]
            for row in rows
        ],
    )  # fmt: skip


def _size(size: int | None) -> str:
    return "--" if size is None else format_size(size).replace(" ", "")
