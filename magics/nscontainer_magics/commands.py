"""``%container``: the sub-commands about containers and the host."""

from __future__ import annotations

import contextlib
import difflib
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from nscontainer import options
from nscontainer.cli import image_options, network_options
from nscontainer.errors import CommandError, NsContainerError, SpecError
from nscontainer_magics import (
    defaults,
    history_command,
    image_commands,
    image_transfer,
    network_commands,
    plot_command,
    session_commands,
)

if TYPE_CHECKING:
    from pandas import DataFrame

    from nscontainer.engine.container import Container

_BETWEEN_READINGS_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Command:
    """One sub-command."""

    call: Callable[[list[str]], Any]
    usage: str
    summary: str
    takes_name: bool = False
    """Whether a container's name is an argument, for Tab to complete."""
    takes_image: bool = False
    """Whether an image's is."""


def call(words: Sequence[str]) -> Any:
    """Carry a sub-command out, and give what it returns to show.

    Raises
    ------
    SpecError
        There is no such sub-command, or its arguments can't be used.
    """
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_text())
        return None
    name, *arguments = words
    if name == "plot":
        print(f"%container plot {plot_command.USAGE}\n{plot_command.SUMMARY}")
        return None
    if name in _ELSEWHERE:
        message = f"{name!r} is no sub-command of %container"
        raise SpecError(message, hint=_ELSEWHERE[name])
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, [*COMMANDS, "last", "plot"], 1)
        message = f"{name!r} is no sub-command of %container"
        raise SpecError(message, hint=f"did you mean {close[0]}?" if close else "see %container?")
    if arguments[:1] in (["-h"], ["--help"]):
        if name in image_options.COMMANDS:
            print(image_options.parser(name, magic=True).format_help())
            return None
        if name == "network":
            return network_commands.network(arguments)
        print(f"%container {name} {COMMANDS[name].usage}".rstrip())
        print(COMMANDS[name].summary)
        return None
    return COMMANDS[name].call(arguments)


_ELSEWHERE: Final = {
    "run": "begin a cell with %%container --image NAME",
    "build": "begin a cell with %%image NAME --from IMAGE, or nscontainer build in a shell",
    "image": "begin a cell with %%image NAME --from IMAGE",
    "start": "begin a cell with %%container, or create NAME and then %%container NAME",
}
"""What a person may look for here, and where it is."""


def help_text() -> str:
    """Give the help, as ``%container?`` shows it."""
    rows = [(f"{name} {c.usage}".rstrip(), c.summary) for name, c in COMMANDS.items()]
    rows.append(("last", "the result or sweep of the newest %%container cell"))
    rows.append((f"plot {plot_command.USAGE}", plot_command.SUMMARY))
    width = max(len(left) for left, _ in rows)
    lines = [f"  {left:<{width}}  {right}" for left, right in rows]
    head = "Look after containers and images: %container SUB-COMMAND [arguments]."
    return "\n".join(
        [
            head,
            "",
            *lines,
            "",
            "NAME is a container's name, its id, or its start; IMAGE an image's name, digest or id.",
        ]
    )


# --- parsing ---------------------------------------------------------------------------------


def _parser(name: str, names: str | int | None = None) -> options.Parser:
    parser = options.Parser(prog=f"%container {name}", add_help=False)
    if names is not None:
        parser.add_argument("names", metavar="NAME", nargs=names)
    return parser


def _engine() -> type[Container]:
    if sys.platform != "linux":
        from nscontainer.doctor import explain_missing

        raise explain_missing()
    from nscontainer.engine.container import Container

    return Container


def _each(names: Iterable[str], act: Callable[[Container], object]) -> None:
    """Do something to each container: all are tried, and the first error is raised at the end."""
    first: NsContainerError | None = None
    for name in names:
        try:
            act(_engine().get(name))
        except NsContainerError as error:
            first = first or error
    if first is not None:
        raise first


def _table(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> DataFrame:
    """Lay rows out as a DataFrame; pandas comes in only when a table is asked for."""
    frame: DataFrame = import_module("pandas").DataFrame(list(rows), columns=list(columns))
    return frame


# --- looking ---------------------------------------------------------------------------------


def _ps(words: list[str]) -> DataFrame:
    parser = _parser("ps")
    parser.add_argument("-a", "--all", action="store_true")
    given = parser.parse_args(words)
    now, rows = time.time(), []
    for container in _engine().list(all=given.all):
        with contextlib.suppress(NsContainerError):  # it went while we looked
            facts = container.inspect()
            record = facts.get("record") or {}
            command = facts["spec"]["command"]
            rows.append(
                {
                    "name": facts["name"],
                    "id": facts["id"],
                    "image": facts["image"],
                    "command": _what(facts["spec"]) if command is None else " ".join(command),
                    "status": facts["status"],
                    "ports": network_options.ports_text(_ports(facts)),
                    "exit_code": record.get("exit_code"),
                    "age_s": round(now - facts["created_unix"], 1),
                }
            )
    return _table(rows, _PS)


_PS: Final = ("name", "id", "image", "command", "status", "ports", "exit_code", "age_s")


def _ports(facts: dict[str, Any]) -> list[dict[str, Any]]:
    living = facts["status"] in ("created", "running", "paused")
    return network_options.ports(facts) if living else []


def _what(spec: dict[str, Any]) -> str:
    return "(session)" if spec.get("session") else "(cell)"


def _stats(words: list[str]) -> DataFrame:
    from nscontainer.cli import stats

    given = _parser("stats", "*").parse_args(words)
    engine = _engine()
    found = [engine.get(name) for name in given.names] or [
        container for container in engine.list() if container.status in ("running", "paused")
    ]
    before = [container.stats() for container in found]
    if found:
        time.sleep(_BETWEEN_READINGS_S)
    rows = []
    for container, first in zip(found, before, strict=True):
        with contextlib.suppress(NsContainerError):  # it ended meanwhile
            limit = stats.memory_limit(container)
            usage = stats.usage(container.id, container.name, first, container.stats(), limit)
            rows.append({name: getattr(usage, name) for name in _USAGE})
    return _table(rows, _USAGE)


_USAGE: Final = (
    "name",
    "id",
    "cpu_share",
    "cpu_limit",
    "throttled_share",
    "cpu_s",
    "memory_bytes",
    "memory_limit_bytes",
    "read_bytes",
    "write_bytes",
    "pids",
)


def _top(words: list[str]) -> DataFrame:
    given = _parser("top", 1).parse_args(words)
    columns = ("pid", "pid_inside", "ppid", "user", "state", "cpu_s", "rss_bytes", "command")
    return _table(_engine().get(given.names[0]).top(), columns)


def _logs(words: list[str]) -> None:
    given = _parser("logs", 1).parse_args(words)
    sys.stdout.write(_engine().get(given.names[0]).logs().decode("utf-8", "replace"))


def _doctor(words: list[str]) -> None:
    from nscontainer import doctor

    parser = _parser("doctor")
    parser.add_argument("row", nargs="*", metavar="ROW")
    given = parser.parse_args(words)
    findings = doctor.examine()
    if given.row:
        found = doctor.chosen(findings, " ".join(given.row))
        print("\n\n".join(map(doctor.at_length, found)))
    else:
        print(doctor.report(findings))


def _gc(words: list[str]) -> None:
    _parser("gc").parse_args(words)
    _engine()
    from nscontainer.engine.garbage import collect

    print("\n".join(collect()) or "nothing was left behind")


# --- changing --------------------------------------------------------------------------------


def _kill(words: list[str]) -> None:
    parser = _parser("kill", "+")
    parser.add_argument("-s", "--signal", default="KILL")
    given = parser.parse_args(words)
    _each(given.names, lambda container: container.kill(given.signal))


def _stop(words: list[str]) -> None:
    from nscontainer.units import parse_duration

    parser = _parser("stop", "+")
    parser.add_argument("-t", "--time", default="10")
    given = parser.parse_args(words)
    timeout_s = parse_duration(given.time)
    _each(given.names, lambda container: container.stop(timeout_s))


def _wait(words: list[str]) -> int | list[int | None] | None:
    given = _parser("wait", "+").parse_args(words)
    codes = [_engine().get(name).wait().get("exit_code") for name in given.names]
    return codes if len(codes) > 1 else codes[0]


def _remove(words: list[str]) -> None:
    parser = _parser("rm", "+")
    parser.add_argument("-f", "--force", action="store_true")
    given = parser.parse_args(words)
    _each(given.names, lambda container: container.remove(force=given.force))


def _update(words: list[str]) -> dict[str, Any]:
    parser = _parser("update", 1)
    options.add_to(parser, magic=True, groups=["limits"])
    given = parser.parse_args(words)
    limits = options.to_build_kwargs(given)
    if not limits:
        message = "update was given no limit to change"
        raise SpecError(message, hint="as %container update NAME --cpu 50%")
    return _engine().get(given.names[0]).update(**limits)


def _pause(words: list[str]) -> None:
    given = _parser("pause", "+").parse_args(words)
    _each(given.names, lambda container: container.pause())


def _resume(words: list[str]) -> None:
    given = _parser("resume", "+").parse_args(words)
    _each(given.names, lambda container: container.resume())


def _rename(words: list[str]) -> None:
    given = _parser("rename", 2).parse_args(words)
    _engine().get(given.names[0]).rename(given.names[1])


def _exec(words: list[str]) -> None:
    from IPython.core.getipython import get_ipython

    from nscontainer_magics.display import Display

    parser = _parser("exec")
    for option in options.OPTIONS:
        if option.dest in ("env", "workdir", "user"):
            parser.add_argument(
                *option.flags, dest=option.dest, action=option.action, metavar=option.metavar
            )
    before, rest = parser.split_command(words)
    given = parser.parse_args(before)
    if rest[1:2] == ["--"]:
        del rest[1]
    if len(rest) < 2:
        message = "exec needs a container and a command"
        raise SpecError(message, hint="%container exec NAME -- ls -l")
    shell: Any = get_ipython()
    shown = Display(shell)
    result = (
        _engine()
        .get(rest[0])
        .exec(
            rest[1:],
            env=options.to_build_kwargs(given).get("env"),
            workdir=given.workdir,
            user=given.user,
            on_stdout=shown.stdout,
            on_stderr=shown.stderr,
        )
    )
    shown.finish()
    if result.exit_code:
        message = f"{rest[1]}: exit code {result.exit_code}"
        raise CommandError(message, exit_code=result.exit_code)


def _about_images(name: str) -> Command:
    arguments = image_options.COMMANDS[name]
    return Command(
        {**image_commands.CALLS, **image_transfer.CALLS}[name],
        arguments.usage,
        arguments.summary,
        takes_name="container" in arguments.completes,
        takes_image="image" in arguments.completes,
    )


COMMANDS: Final[dict[str, Command]] = {
    "create": Command(
        session_commands.create,
        "NAME [--cpu 20% …] [--detach]",
        "make a session for %%container NAME cells",
    ),
    "ps": Command(_ps, "[-a]", "the containers that live, or all, as a DataFrame"),
    "stats": Command(_stats, "[NAME…]", "what they use now, as a DataFrame", takes_name=True),
    "top": Command(_top, "NAME", "its processes, as a DataFrame", takes_name=True),
    "inspect": Command(
        image_commands.inspect,
        "NAME",
        "all that is known of it, or of an image",
        takes_name=True,
        takes_image=True,
    ),
    "logs": Command(_logs, "NAME", "what a detached one has printed", takes_name=True),
    "exec": Command(
        _exec,
        "[-e N=V] [-w DIR] [-u USER] NAME -- COMMAND…",
        "run a command in it",
        takes_name=True,
    ),
    "cp": Command(
        session_commands.copy,
        "NAME:PATH PATH, or PATH NAME:PATH",
        "copy files out of it, or into it",
        takes_name=True,
    ),
    "update": Command(_update, "NAME --cpu 50% …", "change limits while it runs", takes_name=True),
    "pause": Command(_pause, "NAME…", "freeze every process", takes_name=True),
    "resume": Command(_resume, "NAME…", "let it go on", takes_name=True),
    "stop": Command(_stop, "[-t 10s] NAME…", "ask it to end, kill it later", takes_name=True),
    "wait": Command(_wait, "NAME…", "wait until it has ended; its exit code", takes_name=True),
    "kill": Command(_kill, "[-s SIGNAL] NAME…", "kill it, or send a signal", takes_name=True),
    "rm": Command(_remove, "[-f] NAME…", "remove it and all it has written", takes_name=True),
    "rename": Command(_rename, "NAME NEW", "give it another name", takes_name=True),
    "port": Command(
        network_commands.port,
        "NAME",
        "ports of the host that lead to it, as a DataFrame",
        takes_name=True,
    ),
    "network": Command(
        network_commands.network,
        "create|ls|rm|inspect NAME…",
        "networks, for containers to reach each other by name",
    ),
    **{name: _about_images(name) for name in image_options.COMMANDS},
    "history": Command(history_command.history, history_command.USAGE, history_command.SUMMARY),
    "defaults": Command(
        defaults.command,
        "[--cpu 50% …] [--reset]",
        "what a cell has where its line says nothing",
    ),
    "doctor": Command(_doctor, "[ROW]", "what this host can do, and how to mend what it can't"),
    "gc": Command(_gc, "", "remove what a crash left"),
}
