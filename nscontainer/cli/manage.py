"""The sub-commands that look at containers and change them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from nscontainer import options, spec
from nscontainer.cli import network_options
from nscontainer.cli.engine import container_type
from nscontainer.cli.output import write_all
from nscontainer.cli.text import age, error_line, for_each, shorten, table
from nscontainer.errors import NotFoundError, NsContainerError, SpecError, StateError
from nscontainer.limits import LASTING

if TYPE_CHECKING:
    from nscontainer.engine.container import Container

COMMAND_WIDTH = 30
LIVING = ("created", "running", "paused")


def _parser(name: str, description: str, targets: str | None = "CONTAINER") -> options.Parser:
    parser = options.Parser(prog=f"nscontainer {name}", description=description)
    if targets is not None:
        parser.add_argument("containers", metavar=targets, nargs="+", help="name, id or its start")
    return parser


def _each(references: Sequence[str], action: Callable[[Container], object]) -> int:
    """Do something to each container and print its reference; errors don't stop the others."""

    def act(reference: str) -> None:
        action(container_type().get(reference))
        print(reference, flush=True)

    return for_each(references, act)


# --- looking ---------------------------------------------------------------------------------


def ps_command(argv: Sequence[str]) -> int:
    """List containers."""
    parser = _parser("ps", "List containers, the newest first.", None)
    parser.add_argument("-a", "--all", action="store_true", help="those that have ended too")
    parser.add_argument("-q", "--quiet", action="store_true", help="ids only")
    parser.add_argument("--no-trunc", action="store_true", help="don't cut commands short")
    parser.add_argument("--json", action="store_true", help="an array of objects")
    given = parser.parse_args(argv)
    rows = []
    for container in reversed(container_type().list(all=given.all)):
        try:
            rows.append(_facts(container))
        except NotFoundError:
            continue  # it went while we looked
    if given.json:
        print(json.dumps(rows, indent=2))
    elif given.quiet:
        for row in rows:
            print(row["id"])
    else:
        print(ps_table(rows, now=time.time(), full=given.no_trunc))
    return 0


def _facts(container: Container) -> dict[str, Any]:
    facts = container.inspect()
    record = facts.get("record") or {}
    ended = None
    if record:
        ended = record["released_unix"] + record["wall_ns"] / 1e9
    return {
        "id": facts["id"],
        "name": facts["name"],
        "image": facts["image"],
        "command": facts["spec"]["command"],
        "session": bool(facts["spec"].get("session")),
        "status": facts["status"],
        "created_unix": facts["created_unix"],
        "released_unix": facts.get("released_unix"),
        "ended_unix": ended,
        "exit_code": record.get("exit_code"),
        "lost": bool(facts.get("lost")),
        "ports": network_options.ports(facts) if facts["status"] in LIVING else [],
    }


def ps_table(rows: Sequence[dict[str, Any]], *, now: float, full: bool = False) -> str:
    """Lay out what :func:`_facts` gave as Docker's table."""
    return table(
        ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"],
        [
            [
                row["id"],
                row["image"],
                "(session)" if row.get("session") else _command_text(row["command"], full=full),
                f"{age(now - row['created_unix'])} ago",
                status_text(row, now),
                network_options.ports_text(row["ports"]),
                row["name"],
            ]
            for row in rows
        ],
    )


def _command_text(command: Sequence[str] | None, *, full: bool) -> str:
    if command is None:
        return "(cell)"
    text = " ".join(command)
    return f'"{text if full else shorten(text, COMMAND_WIDTH)}"'


def status_text(row: dict[str, Any], now: float) -> str:
    """Say ``Up 5 seconds``, ``Exited (0) 3 minutes ago``, ``Created``."""
    if row["status"] == "created":
        return "Created"
    if row["status"] in ("running", "paused"):
        up = f"Up {age(now - (row['released_unix'] or now))}"
        return f"{up} (Paused)" if row["status"] == "paused" else up
    if row["lost"] or row["exit_code"] is None:
        return "Dead (its monitor was killed)"
    return f"Exited ({row['exit_code']}) {age(now - row['ended_unix'])} ago"


def inspect_command(argv: Sequence[str]) -> int:
    """Print all that is known, as JSON."""
    from nscontainer.cli.images import inspected

    what = "Print all that is known of containers and images, as JSON."
    given = _parser("inspect", what, "NAME").parse_args(argv)
    found, failed = [], 0
    for reference in given.containers:
        try:
            found.append(inspected(reference))
        except NsContainerError as error:
            print(error_line(error), file=sys.stderr)
            failed = 1
    print(json.dumps(found, indent=2, default=str))
    return failed


def top_command(argv: Sequence[str]) -> int:
    """List the processes of a container."""
    parser = _parser("top", "List the processes of a container.", None)
    parser.add_argument("container", metavar="CONTAINER", help="name, id or its start")
    parser.add_argument("--json", action="store_true", help="an array of objects")
    given = parser.parse_args(argv)
    container = container_type().get(given.container)
    processes = container.top()
    if container.status not in ("running", "paused", "created"):
        message = f"container {given.container!r} is {container.status}"
        raise StateError(message, hint="only a living one has processes")
    print(json.dumps(processes, indent=2) if given.json else top_table(processes))
    return 0


def top_table(processes: Sequence[dict[str, Any]]) -> str:
    """Lay out what :meth:`Container.top` gave; PID is the host's, INSIDE the container's own."""
    from nscontainer.units import format_size

    return table(
        ["UID", "PID", "INSIDE", "PPID", "STATE", "TIME", "RSS", "COMMAND"],
        [
            [
                str(p["user"]),
                str(p["pid"]),
                str(p["pid_inside"]),
                str(p["ppid"]),
                str(p["state"]),
                f"{p['cpu_s']:.2f}",
                format_size(p["rss_bytes"]),
                str(p["command"]),
            ]
            for p in processes
        ],
    )


def logs_command(argv: Sequence[str]) -> int:
    """Print what a detached container printed."""
    parser = _parser("logs", "Print what a detached container printed.", None)
    parser.add_argument("container", metavar="CONTAINER", help="name, id or its start")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until it has ended")
    parser.add_argument("-n", "--tail", metavar="N", help="only the last N lines")
    given = parser.parse_args(argv)
    container = container_type().get(given.container)
    data = container.logs()
    shown = data if given.tail in (None, "all") else _last_lines(data, given.tail)
    write_all(1, shown)
    if given.follow:
        _follow(container, len(data))
    return 0


def _last_lines(data: bytes, count: str) -> bytes:
    if not count.isdigit():
        message = f"tail {count!r} is not a number of lines"
        raise SpecError(message, hint="as --tail 10, or all")
    lines = data.splitlines(keepends=True)
    return b"".join(lines[max(len(lines) - int(count), 0) :])


def _follow(container: Container, offset: int) -> None:
    """Print what is appended to the log until the container has ended."""
    with open(f"{container.directory}/log", "rb") as file:
        file.seek(offset)
        while True:
            alive = container.status in ("created", "running", "paused")
            data = file.read()
            if data:
                write_all(1, data)
            elif not alive:
                return
            else:
                time.sleep(0.1)


# --- changing --------------------------------------------------------------------------------


def update_command(argv: Sequence[str]) -> int:
    """Change limits while it runs."""
    parser = _parser("update", "Change the limits of running containers; the others stay.")
    options.add_to(parser, magic=False, groups=["limits"])
    given = parser.parse_args(argv)
    limits = options.to_build_kwargs(given)
    for name in LASTING.keys() & limits.keys():
        raise SpecError(LASTING[name], hint="give it to run")
    if not limits:
        message = "update was given no limit to change"
        raise SpecError(message, hint="as nscontainer update --cpu 50% CONTAINER")
    spec.limits(**limits)
    return _each(given.containers, lambda container: container.update(**limits))


def pause_command(argv: Sequence[str]) -> int:
    """Freeze every process."""
    given = _parser("pause", "Freeze every process of containers.").parse_args(argv)
    return _each(given.containers, lambda container: container.pause())


def resume_command(argv: Sequence[str]) -> int:
    """Let a paused container go on."""
    given = _parser("resume", "Let paused containers go on.").parse_args(argv)
    return _each(given.containers, lambda container: container.resume())


def kill_command(argv: Sequence[str]) -> int:
    """Kill, or send a signal."""
    parser = _parser("kill", "Kill containers, or send their first process a signal.")
    parser.add_argument("-s", "--signal", metavar="SIGNAL", default="KILL", help="as TERM or 9")
    given = parser.parse_args(argv)
    number = spec.parse_signal(given.signal)
    return _each(given.containers, lambda container: container.kill(number))


def stop_command(argv: Sequence[str]) -> int:
    """Ask to end; kill after a while."""
    from nscontainer.units import parse_duration

    parser = _parser("stop", "Ask containers to end by their stop signal; kill them after a while.")
    parser.add_argument(
        "-t",
        "--time",
        "--timeout",
        dest="time",
        metavar="TIME",
        default="10",
        help="(default: 10s)",
    )
    given = parser.parse_args(argv)
    timeout_s = parse_duration(given.time)

    def stop(container: Container) -> None:
        if container.status in ("running", "paused", "created"):
            container.stop(timeout_s)

    return _each(given.containers, stop)


def wait_command(argv: Sequence[str]) -> int:
    """Wait until it has ended; print its exit code."""
    given = _parser("wait", "Wait until containers have ended; print exit codes.").parse_args(argv)
    failed = 0
    for reference in given.containers:
        try:
            code = container_type().get(reference).wait().get("exit_code")
            if code is None:
                message = f"how container {reference!r} ended is not known"
                raise StateError(message, hint="its monitor was killed")
            print(code, flush=True)
        except NsContainerError as error:
            print(error_line(error), file=sys.stderr)
            failed = 1
    return failed


def rm_command(argv: Sequence[str]) -> int:
    """Remove containers."""
    parser = _parser("rm", "Remove containers and all they have written.")
    parser.add_argument("-f", "--force", action="store_true", help="kill it first if it lives")
    given = parser.parse_args(argv)
    return _each(given.containers, lambda container: container.remove(force=given.force))


def rename_command(argv: Sequence[str]) -> int:
    """Give a container another name."""
    parser = _parser("rename", "Give a container another name.", None)
    parser.add_argument("container", metavar="CONTAINER", help="name, id or its start")
    parser.add_argument("name", metavar="NAME", help="the new one")
    given = parser.parse_args(argv)
    container_type().get(given.container).rename(given.name)
    return 0
