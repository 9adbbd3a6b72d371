"""The run options, once: what the command line and the magics both offer, under Docker's names.

A front end calls :func:`add_to` on its parser and :func:`to_build_kwargs` on what came out; the
options marked ``front`` are the front end's own business and stay in the namespace.
"""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn

from nscontainer.errors import SpecError
from nscontainer.mounts import host_path

Group = Literal["limits", "process", "filesystem", "isolation", "measuring", "front end"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of ``nscontainer run`` and ``%%container``.

    ``dest`` is the name of :func:`nscontainer.spec.build`'s argument, unless ``front`` is set or
    :func:`to_build_kwargs` translates it.
    """

    flags: tuple[str, ...]
    dest: str
    help: str
    """Safe for argparse: a per cent sign is doubled."""
    group: Group
    metavar: str | None = None
    action: Literal["store", "store_true", "append"] = "store"
    choices: tuple[str, ...] | None = None
    magic: bool = True
    cli: bool = True
    front: bool = False

    @property
    def takes_value(self) -> bool:
        """Whether an argument follows the flag."""
        return self.action != "store_true"

    @property
    def flag(self) -> str:
        """The flag to name it by: the first long one."""
        return next((flag for flag in self.flags if flag.startswith("--")), self.flags[0])


def _option(
    group: Group, flags: str, dest: str, metavar: str | None, text: str, **more: Any
) -> Option:
    if metavar is None:
        more["action"] = "store_true"
    return Option(
        flags=tuple(flags.split()), dest=dest, metavar=metavar, help=text, group=group, **more
    )


_REPEAT: Final[dict[str, Any]] = {"action": "append"}
_SHARE: Final[dict[str, Any]] = {"choices": ("host", "private")}
_CLI: Final[dict[str, Any]] = {"magic": False, "front": True}

# fmt: off
OPTIONS: Final[tuple[Option, ...]] = (
    _option("limits", "--cpu --cpus", "cpu", "AMOUNT", "CPU quota: 20%%, 0.2, 1.5 or 150%%"),
    _option("limits", "--cpu-period", "cpu_period", "MICROS",
            "length of a quota period in microseconds, 1000 to 1000000"),
    _option("limits", "--cpu-quota", "cpu_quota", "MICROS",
            "CPU time in a period, in microseconds; instead of --cpu"),
    _option("limits", "--cpu-burst", "cpu_burst", "MICROS",
            "unused quota in microseconds that may be saved up"),
    _option("limits", "-c --cpu-shares", "cpu_shares", "N",
            "share of a contended CPU; 1024 is the default"),
    _option("limits", "--cpuset-cpus", "cpuset_cpus", "CPUS", "CPUs it may run on, as 0-3 or 0,2"),
    _option("limits", "--cpuset-mems", "cpuset_mems", "NODES", "memory nodes it may use, as 0"),
    _option("limits", "-m --memory", "memory", "SIZE",
            "memory limit, as 256M; over it the OOM killer comes"),
    _option("limits", "--memory-swap", "memory_swap", "SIZE",
            "memory and swap together; -1 is unlimited swap (default: no swap)"),
    _option("limits", "--pids-limit", "pids_limit", "N",
            "most processes and threads at once; -1 is unlimited"),
    _option("limits", "--disk-read", "disk_read", "RATE",
            "read at most so many bytes a second from each disk behind its storage, as 5M"),
    _option("limits", "--disk-write", "disk_write", "RATE",
            "write at most so many bytes a second to each disk behind its storage, as 5M"),
    _option("limits", "--disk-read-iops", "disk_read_iops", "N", "read operations a second"),
    _option("limits", "--disk-write-iops", "disk_write_iops", "N", "write operations a second"),
    _option("limits", "--device-read-bps", "device_read_bps", "PATH:RATE",
            "bytes a second from one disk, as /dev/sda:5M (repeat)", **_REPEAT),
    _option("limits", "--device-write-bps", "device_write_bps", "PATH:RATE",
            "bytes a second to one disk (repeat)", **_REPEAT),
    _option("limits", "--device-read-iops", "device_read_iops", "PATH:N",
            "read operations a second of one disk (repeat)", **_REPEAT),
    _option("limits", "--device-write-iops", "device_write_iops", "PATH:N",
            "write operations a second of one disk (repeat)", **_REPEAT),
    _option("limits", "--blkio-weight", "blkio_weight", "N",
            "share of a contended disk, 10 to 1000"),
    _option("limits", "--storage --storage-opt", "storage", "SIZE",
            "size of its read-write layer, as 1G (Docker's form: size=1G)"),
    _option("limits", "--net-rate", "net_rate", "RATE",
            "bits a second of its network in each direction, as 10mbit"),
    _option("limits", "--net-rx", "net_rx", "RATE", "bits a second that it receives"),
    _option("limits", "--net-tx", "net_tx", "RATE", "bits a second that it sends"),
    _option("limits", "--net-delay", "net_delay", "TIME",
            "delay of each packet, each way, as 50ms"),
    _option("limits", "--net-loss", "net_loss", "SHARE",
            "share of the packets that are lost, each way, as 1%%"),
    _option("limits", "--ulimit", "ulimits", "NAME=SOFT[:HARD]",
            "a resource limit, as nofile=1024 (repeat)", **_REPEAT),
    _option("limits", "--timeout", "timeout", "TIME",
            "kill it after this wall time, as 10s or 1m30s"),
    _option("limits", "--cpu-time", "cpu_time", "TIME", "kill it after this CPU time, as 10s"),

    _option("process", "-e --env", "env", "NAME[=VALUE]",
            "set a variable; NAME alone hands the caller's value on (repeat)", **_REPEAT),
    _option("process", "--env-file", "env_file", "FILE",
            "read variables from a file of NAME=VALUE lines (repeat)", **_REPEAT),
    _option("process", "-w --workdir", "workdir", "DIR", "working directory inside"),
    _option("process", "-u --user", "user", "USER[:GROUP]",
            "user inside, by name or id (default: root inside, nobody outside)"),
    _option("process", "--hostname", "hostname", "NAME", "host name inside"),
    _option("process", "--entrypoint", "entrypoint", "PROGRAM",
            "run this instead of the image's entrypoint and command; '' is none", magic=False),
    _option("process", "--init", "init", None,
            "run a minimal init as pid 1 that passes signals on and reaps"),
    _option("process", "--stop-signal", "stop_signal", "SIGNAL",
            "what `stop` sends first (default: the image's, or TERM)"),
    _option("process", "-t --tty", "tty", None, "give it a terminal", magic=False),

    _option("filesystem", "--image", "image", "IMAGE",
            "root filesystem: a stored image (default: host, this machine's own system)"),
    _option("filesystem", "--read-only", "read_only", None, "make the root filesystem read-only"),
    _option("filesystem", "-v --volume", "volumes", "SOURCE:TARGET[:ro]",
            "show a file or directory of the host inside (repeat)", **_REPEAT),
    _option("filesystem", "--mount", "mounts", "type=bind|tmpfs,…",
            "Docker's long form: type=bind,source=DIR,target=DIR,readonly (repeat)", **_REPEAT),
    _option("filesystem", "--tmpfs", "tmpfs", "TARGET[:size=SIZE,…]",
            "mount a filesystem in memory; also mode=, uid=, gid=, ro, noexec (repeat)", **_REPEAT),

    _option("isolation", "--network --net", "network", "NETWORK",
            "none has a loopback only (default); bridge, or a network's name; host shares the "
            "host's; container:NAME another's; slirp4netns is one in user mode"),
    _option("isolation", "--ip", "ip", "ADDRESS", "address on its network (default: a free one)"),
    _option("isolation", "-p --publish", "publish", "[ADDRESS:][HOSTPORT:]PORT[/udp]",
            "pass a port of the host on, as 8080:80 (repeat)", **_REPEAT),
    _option("isolation", "--add-host", "add_hosts", "NAME:ADDRESS",
            "a line in its /etc/hosts; host-gateway is the host's address (repeat)", **_REPEAT),
    _option("isolation", "--dns", "dns", "ADDRESS",
            "name server to ask instead of the host's (repeat)", **_REPEAT),
    _option("isolation", "--share", "share", "NAMESPACE", "share a namespace with the host: "
            "uts, ipc, pid, net, user, cgroup, time (repeat)", **_REPEAT),
    _option("isolation", "--uts", "share_uts", "host", "share the host name", **_SHARE),
    _option("isolation", "--ipc", "share_ipc", "host",
            "share System V IPC and message queues", **_SHARE),
    _option("isolation", "--pid", "share_pid", "host", "see the host's processes", **_SHARE),
    _option("isolation", "--userns", "share_user", "host",
            "no user namespace: root inside is root outside", **_SHARE),
    _option("isolation", "--cgroupns", "share_cgroup", "host",
            "see the host's cgroup tree", **_SHARE),
    _option("isolation", "--time", "share_time", "host",
            "no time namespace of its own", **_SHARE),
    _option("isolation", "--cap-add", "cap_add", "CAP",
            "give a capability as well, as NET_RAW (repeat)", **_REPEAT),
    _option("isolation", "--cap-drop", "cap_drop", "CAP",
            "take a capability away; ALL takes every one (repeat)", **_REPEAT),
    _option("isolation", "--seccomp", "seccomp", "default|unconfined", "system call filter"),
    _option("isolation", "--security-opt", "security_opt", "OPTION",
            "Docker's form: seccomp=unconfined; systempaths=unconfined shows all of /proc and /sys (repeat)",
            **_REPEAT),
    _option("isolation", "--privileged", "privileged", None, argparse.SUPPRESS),

    _option("measuring", "--sample", "sample", "TIME",
            "time between samples, 1ms to 10s (default: 20ms)"),
    _option("measuring", "--cold", "cold", None,
            "start the interpreter afresh, so that all its memory is the container's"),

    _option("isolation", "--best-effort", "best_effort", None,
            "where this host can't hold a limit or make a namespace, go on without, and mark the result"),
    _option("isolation", "--unconfined", "unconfined", None,
            "run it as a plain process, not isolated at all, and mark the result"),

    _option("front end", "--name", "name", "NAME", "name to find the container by", front=True),
    _option("front end", "-i --interactive", "interactive", None,
            "connect standard input", **_CLI),
    _option("front end", "-d --detach", "detach", None,
            "start it, print its id and return", **_CLI),
    _option("front end", "--rm", "rm", None,
            "remove it once it has ended (always so without -d)", **_CLI),
    _option("front end", "--usage", "usage", "FILE",
            "write what it used over time to FILE.csv, .parquet or .json", **_CLI),
    _option("front end", "--result", "result", "FILE",
            "save the whole result, for nscontainer.load()", **_CLI),
    _option("front end", "--card", "card", None,
            "print the summary to standard error even where that is no terminal", **_CLI),
    _option("front end", "-q --quiet", "quiet", None,
            "show only the output: no summary, warnings or live view", front=True),
)
# fmt: on

_SHARES: Final = tuple(o.dest for o in OPTIONS if o.dest.startswith("share_"))
_TRANSLATED: Final = frozenset(
    {"env", "env_file", "volumes", "share", "security_opt", "privileged", *_SHARES}
)

_NOT_HERE: Final[Mapping[str, str]] = {
    "--device": "a container has Docker's minimal /dev only",
    "--gpus": "a container has Docker's minimal /dev only",
    "--memory-reservation": "--memory is the one, hard, memory limit",
    "--oom-kill-disable": "a container over its memory limit is always killed",
    "--restart": "run it in a loop, or under systemd",
    "--shm-size": "use --tmpfs /dev/shm:size=64M",
}
"""Docker's options that have no counterpart, and what to do instead."""


def add_to(
    parser: argparse.ArgumentParser, *, magic: bool, groups: Iterable[Group] | None = None
) -> None:
    """Add the options to a parser, each under its group's heading.

    Parameters
    ----------
    parser
        An argparse parser; every option's default is None (an unset flag's is False).
    magic
        Whether for a magic (or else for the command line).
    groups
        Only these groups, where given.
    """
    wanted = None if groups is None else frozenset(groups)
    sections: dict[str, Any] = {}
    for option in OPTIONS:
        if not (option.magic if magic else option.cli):
            continue
        if wanted is not None and option.group not in wanted:
            continue
        if option.group not in sections:
            sections[option.group] = (
                parser if option.group == "front end" else parser.add_argument_group(option.group)
            )
        settings: dict[str, Any] = {"dest": option.dest, "action": option.action}
        if option.takes_value:
            settings["metavar"] = option.metavar
            settings["choices"] = option.choices
        sections[option.group].add_argument(*option.flags, help=option.help, **settings)


def to_build_kwargs(
    namespace: argparse.Namespace, *, environ: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Give the parsed options as keyword arguments of :func:`nscontainer.spec.build`.

    What was not given is left out, so that the spec's own defaults hold. The namespace keeps
    everything; the options marked ``front`` are not in the answer.

    Parameters
    ----------
    namespace
        What a parser filled by :func:`add_to` returned.
    environ
        Where ``-e NAME`` without a value takes it from; the process's own by default.

    Raises
    ------
    SpecError
        An option can't be honoured.
    """
    given = vars(namespace)
    if given.get("privileged"):
        message = "--privileged is not supported: it would switch the isolation off"
        raise SpecError(message, hint="name what is needed: --cap-add, --share, --seccomp, -v")
    kwargs = {
        option.dest: given[option.dest]
        for option in OPTIONS
        if not option.front
        and option.dest not in _TRANSLATED
        and given.get(option.dest) not in (None, False, [])
    }
    environment = _environment(
        given.get("env_file") or (),
        given.get("env") or (),
        os.environ if environ is None else environ,
    )
    if environment:
        kwargs["env"] = environment
    if given.get("volumes"):
        kwargs["volumes"] = [_absolute_volume(text) for text in given["volumes"]]
    shared = [name for text in given.get("share") or () for name in text.split(",") if name]
    shared += [dest.removeprefix("share_") for dest in _SHARES if given.get(dest) == "host"]
    if shared:
        kwargs["share"] = shared
    for text in given.get("security_opt") or ():
        _security_opt(text, kwargs)
    return kwargs


def _environment(
    files: Iterable[str], settings: Iterable[str], environ: Mapping[str, str]
) -> dict[str, str]:
    """Merge --env-file and -e as Docker does: files first; a bare NAME is the caller's or unset."""
    lines = [line for path in files for line in _environment_file(path)]
    result: dict[str, str] = {}
    for text in [*lines, *settings]:
        name, equals, value = text.partition("=")
        if equals:
            result[name] = value
        elif name in environ:
            result[name] = environ[name]
        else:
            result.pop(name, None)
    return result


def _environment_file(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.rstrip("\r\n").lstrip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        message = f"env-file {path!r} can't be read: {reason}"
        raise SpecError(message, hint="a text file of NAME=VALUE lines") from None
    return [line for line in lines if line and not line.startswith("#")]


def _absolute_volume(text: str) -> str:
    """Resolve ``./data:/data`` and ``~/data:/data``: the spec takes absolute paths only.

    One that isn't there is an error here, in the user's words; Docker would make it, as root.
    """
    source, colon, rest = text.partition(":")
    if colon and (source in (".", "..") or source.startswith(("/", "~", "./", "../"))):
        source = host_path(source, f"volume {text!r}")
    return source + colon + rest


def _security_opt(text: str, kwargs: dict[str, Any]) -> None:
    name, _, value = text.replace(":", "=", 1).partition("=")
    if name == "seccomp" and value in ("default", "unconfined"):
        kwargs["seccomp"] = value
    elif name == "systempaths" and value in ("default", "unconfined"):
        kwargs["systempaths"] = value
    elif name != "no-new-privileges" or value not in ("", "true"):  # that is always so here
        message = f"security-opt {text!r} is not supported"
        hint = "seccomp=unconfined, systempaths=unconfined or no-new-privileges"
        raise SpecError(message, hint=hint)


# --- a parser whose errors are ours ----------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """An argparse parser without abbreviations that raises :class:`SpecError` rather than exits."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("allow_abbrev", False)
        settings.setdefault("formatter_class", formatter)
        super().__init__(**settings)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        raise SpecError(message[:1].lower() + message[1:], hint=f"see {self.prog} --help")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; an unknown option is one line with the closest known one."""
        parsed, extra = self.parse_known_args(args, namespace)
        if extra:
            raise self.unknown(extra[0])
        return parsed

    def unknown(self, text: str) -> SpecError:
        """Make the error for an argument that no option takes."""
        flag = text.partition("=")[0]
        if not flag.startswith("-"):
            return SpecError(f"{text!r} is one argument too many", hint=f"see {self.prog} --help")
        known = flag if flag.startswith("--") else flag[:2]  # -p80 is -p
        if known in _NOT_HERE:
            return SpecError(f"Docker's option {known} has no counterpart", hint=_NOT_HERE[known])
        # Without the dashes: with them every two flags would be a little alike.
        names = {known.lstrip("-"): known for known in self._option_string_actions}
        close = difflib.get_close_matches(flag.lstrip("-"), names, 1)
        hint = f"did you mean {names[close[0]]}?" if close else f"see {self.prog} --help"
        return SpecError(f"{flag} is not an option", hint=hint)

    def split_command(self, argv: Sequence[str]) -> tuple[list[str], list[str]]:
        """Split ``[options] [--] COMMAND…``: as in Docker the first non-option starts the command.

        argparse's REMAINDER can't: it would take the command's own options where they happen to be
        known ones.

        Raises
        ------
        SpecError
            There is an unknown option before the command.
        """
        at = 0
        while at < len(argv):
            text = argv[at]
            if text == "--":
                return list(argv[:at]), list(argv[at + 1 :])
            if not text.startswith("-") or text == "-":
                break
            at += 1 + self._values_after(text)
        return list(argv[:at]), list(argv[at:])

    def _values_after(self, text: str) -> int:
        """Tell whether the argument after an option belongs to it (1) or not (0)."""
        actions = self._option_string_actions
        if text.startswith("--"):
            flag, equals, _ = text.partition("=")
            if flag not in actions:
                raise self.unknown(text)
            return 0 if equals or actions[flag].nargs == 0 else 1
        for i, letter in enumerate(text[1:], start=1):
            action = actions.get(f"-{letter}")
            if action is None:
                raise self.unknown(text if i == 1 else f"-{letter}")
            if action.nargs != 0:
                return 0 if i + 1 < len(text) else 1
        return 0


def subparser(program: str, usage: str, summary: str, *, magic: bool) -> Parser:
    """Make the parser of a sub-command: its name, what it takes, and what it does in a few words."""
    return Parser(
        prog=program,
        usage=f"{program} {usage}".rstrip().replace("%", "%%"),
        description=f"{summary[:1].upper()}{summary[1:]}.",
        add_help=not magic,
    )


def formatter(prog: str) -> argparse.HelpFormatter:
    """Make a help formatter of the terminal's width, without argparse's import of shutil."""
    try:
        width = int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
    except (ValueError, OSError):
        width = 80
    return argparse.HelpFormatter(prog, max_help_position=30, width=max(width - 2, 40))
