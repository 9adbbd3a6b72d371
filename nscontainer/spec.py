"""What a container is asked to be: frozen values, checked before anything is made.

Front ends (``nscontainer.run``, the CLI, the magics) hand their options to :func:`build`; from there
on only a :class:`ContainerSpec` travels. Options keep Docker's names wherever Docker has one.
"""

from __future__ import annotations

import difflib
import re
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from nscontainer import ladder, netspec, units
from nscontainer.errors import SpecError
from nscontainer.limits import (
    LIMIT_OPTIONS,
    PERIOD_US,
    DeviceRate,
    Limits,
    Ulimit,
    fields_of,
    limits,
    parse_ulimit,
)
from nscontainer.mounts import Mount, parse_mount, parse_tmpfs, parse_volume

__all__ = [
    "LIMIT_OPTIONS",
    "NAMESPACES",
    "PERIOD_US",
    "ContainerSpec",
    "DeviceRate",
    "Limits",
    "Ulimit",
    "build",
    "check_id",
    "limits",
    "parse_signal",
    "parse_ulimit",
]

NAMESPACES: Final = ("mnt", "uts", "ipc", "pid", "net", "user", "cgroup", "time")
_ID = re.compile(r"[a-zA-Z0-9_+-][a-zA-Z0-9_+.-]*")
_ENV_NAME = re.compile(r"[^=\0]+")
_IMAGE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._:/@\[\]-]{0,511}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """A container, whole: image, command or cell, limits, isolation.

    ``command`` is an argument vector; None means a *cell*: the runner that executes Python code
    sent to it (:mod:`nscontainer.runner`); an empty one, the image's own. ``host_namespaces`` names the namespaces that are *not*
    made but shared with the host.
    """

    image: str = "host"
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    """In place of the image's; None is the image's own. An empty one leaves that out."""
    env: tuple[tuple[str, str], ...] = ()
    workdir: str | None = None
    user: str | None = None
    hostname: str | None = None
    limits: Limits = field(default_factory=Limits)
    host_namespaces: frozenset[str] = frozenset()
    network: str = "none"
    """``none``, ``host``, ``bridge``, ``container:NAME``, or the name of a network."""
    ip: str | None = None
    add_hosts: tuple[tuple[str, str], ...] = ()
    """Names and their addresses; :data:`nscontainer.netspec.HOST_GATEWAY` stands for the host's."""
    dns: tuple[str, ...] = ()
    publish: tuple[netspec.Publish, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    seccomp: Literal["default", "unconfined"] = "default"
    systempaths: Literal["default", "unconfined"] = "default"
    """``unconfined``: nothing of /proc and /sys is masked or read-only, as a container in it needs."""
    read_only: bool = False
    mounts: tuple[Mount, ...] = ()
    init: bool = False
    tty: bool = False
    cold: bool = False
    session: bool = False
    """Cell after cell in one interpreter; else the container ends with its cell."""
    sample_s: float = 0.02
    stop_signal: int | None = None
    """None is the image's own, or SIGTERM."""
    python_path: tuple[str, ...] = ()
    """The cell's ``sys.path``; empty means the spawner's own."""
    best_effort: bool = False
    """Go on without what this host can't do: the result says what that was."""
    unconfined: bool = False
    """No container at all: a plain process, and the result says so."""

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as plain JSON types; :meth:`from_dict` reads it back."""
        plain = fields_of(self)
        plain["limits"] = self.limits.to_dict()
        plain["mounts"] = [fields_of(mount) for mount in self.mounts]
        plain["env"] = [list(pair) for pair in self.env]
        plain["add_hosts"] = [list(pair) for pair in self.add_hosts]
        plain["publish"] = [fields_of(port) for port in self.publish]
        plain["host_namespaces"] = sorted(self.host_namespaces)
        for name in ("command", "entrypoint", "cap_add", "cap_drop", "python_path", "dns"):
            plain[name] = None if plain[name] is None else list(plain[name])
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> ContainerSpec:
        """Rebuild a spec from what :meth:`to_dict` gave (or its JSON)."""
        values = dict(plain)
        values["limits"] = Limits.from_dict(values["limits"])
        values["mounts"] = tuple(Mount(**m) for m in values["mounts"])
        values["env"] = tuple((str(k), str(v)) for k, v in values["env"])
        values["host_namespaces"] = frozenset(values["host_namespaces"])
        values["add_hosts"] = tuple((str(n), str(a)) for n, a in values.get("add_hosts", ()))
        values["publish"] = tuple(netspec.Publish(**p) for p in values.get("publish", ()))
        # Of a container of an earlier version there is no word on the network.
        values.setdefault("network", "host" if "net" in values["host_namespaces"] else "none")
        for name in ("cap_add", "cap_drop", "python_path", "dns"):
            values[name] = tuple(values.get(name, ()))
        for name in ("command", "entrypoint"):
            if values.get(name) is not None:
                values[name] = tuple(values[name])
        return cls(**values)


# --- reading options -------------------------------------------------------------------------


def check_id(text: str, what: str = "name") -> str:
    """Check a container's name or id (or any name that becomes a path component).

    Raises
    ------
    SpecError
        It has other characters than ``[a-zA-Z0-9_+.-]``, begins with a dot, or is too long.
    """
    if _ID.fullmatch(text) is None or len(text) > 128:
        message = f"{text!r} can't be a {what}"
        raise SpecError(message, hint="use letters, digits, _, +, - and . (not first), up to 128")
    return text


def _environment(env: Mapping[str, Any] | Iterable[str] | None) -> tuple[tuple[str, str], ...]:
    if env is None:
        return ()
    pairs = env.items() if isinstance(env, Mapping) else (e.partition("=")[::2] for e in env)
    result = []
    for name, value in pairs:
        if _ENV_NAME.fullmatch(str(name)) is None or "\0" in str(value):
            message = f"{name!r} can't be an environment variable's name"
            raise SpecError(message, hint="write NAME=value")
        result.append((str(name), str(value)))
    return tuple(result)


def _sample(value: Any) -> float:
    seconds = units.parse_duration(value, unit="s")
    if not 0.001 <= seconds <= 10:
        message = f"sample {value!r} is out of range"
        raise SpecError(message, hint="from 1ms to 10s")
    return seconds


def _namespaces(network: str, host: Iterable[str]) -> frozenset[str]:
    shared = {str(name).lower() for name in host}
    aliases = {"mount": "mnt", "network": "net"}
    shared = {aliases.get(name, name) for name in shared}
    if network == "host":
        shared.add("net")
    elif network != "none" and "net" in shared:
        message = f"network {network!r} and a network namespace shared with the host"
        raise SpecError(message, hint="leave one of them out")
    for name in sorted(shared):
        if name not in NAMESPACES:
            message = f"namespace {name!r} is not known"
            raise SpecError(message, hint=f"one of {', '.join(NAMESPACES)}")
        if name == "mnt":
            message = "a container can't share the host's mount namespace: it would have no image"
            raise SpecError(message, hint="share any of the others")
    return frozenset(shared)


def _signal(value: Any) -> int:
    try:
        return int(signal.Signals(int(value)) if str(value).isdigit() else _named_signal(value))
    except ValueError:
        message = f"signal {value!r} is not known"
        raise SpecError(message, hint="as TERM, SIGINT or 9") from None


def _named_signal(value: Any) -> signal.Signals:
    name = str(value).upper()
    try:
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    except KeyError:
        raise ValueError(value) from None


parse_signal = _signal


def _argv(command: Iterable[str], image: str) -> tuple[str, ...]:
    if isinstance(command, str):
        message = f"command {command!r} is one string"
        raise SpecError(message, hint="give a list, or ['sh', '-c', ...] for a shell line")
    argv = tuple(str(part) for part in command)
    empty = not argv and image == "host"  # another image may have a command of its own
    if empty or (argv and not argv[0]) or any("\0" in part for part in argv):
        message = f"command {list(argv)!r} can't be run"
        raise SpecError(message, hint="give the program and its arguments, as a list")
    return argv


def _entrypoint(text: str | Iterable[str], argv: tuple[str, ...] | None) -> tuple[str, ...]:
    parts = (text,) if isinstance(text, str) else tuple(str(part) for part in text)
    parts = () if parts == ("",) else parts
    if any("\0" in part for part in parts) or (parts and not parts[0]):
        message = f"entrypoint {text!r} can't be run"
        raise SpecError(message, hint="give a program, or a list with its arguments")
    if parts and argv is None:
        message = f"entrypoint {text!r} is for commands, and this is a Python cell"
        raise SpecError(message, hint="leave it out; a cell runs under the image's python3")
    return parts


def build(
    command: Iterable[str] | None = None,
    *,
    image: str = "host",
    entrypoint: str | Iterable[str] | None = None,
    env: Mapping[str, Any] | Iterable[str] | None = None,
    workdir: str | None = None,
    user: str | None = None,
    hostname: str | None = None,
    network: str = "none",
    ip: str | None = None,
    add_hosts: Iterable[str | tuple[str, str]] = (),
    dns: Iterable[str] = (),
    publish: Iterable[str | netspec.Publish] = (),
    share: Iterable[str] = (),
    cap_add: Iterable[str] = (),
    cap_drop: Iterable[str] = (),
    seccomp: str = "default",
    systempaths: str = "default",
    read_only: bool = False,
    volumes: Iterable[str | Mount] = (),
    tmpfs: Iterable[str | Mount] = (),
    mounts: Iterable[str | Mount] = (),
    init: bool = False,
    tty: bool = False,
    cold: bool = False,
    session: bool = False,
    sample: Any = 0.02,
    stop_signal: Any = None,
    python_path: Iterable[str] = (),
    best_effort: bool = False,
    unconfined: bool = False,
    **limit_options: Any,
) -> ContainerSpec:
    """Make a :class:`ContainerSpec` from options as people write them, checking every one.

    Parameters
    ----------
    command
        The argument vector; None for a Python cell; an empty one for the image's own command.
    image
        ``host``, or the name, id or digest of a stored image.
    entrypoint
        A program, or an argument vector, to put before the command in place of the image's; an empty
        one for none. The image's own command is then left out.
    volumes, mounts, tmpfs
        In the forms of Docker's ``--volume``, ``--mount`` and ``--tmpfs``.
    network, ip, add_hosts, dns, publish
        In the forms of Docker's ``--network``, ``--ip``, ``--add-host``, ``--dns`` and ``--publish``.
    share
        Namespaces to share with the host rather than make (``uts``, ``ipc``, ``pid``, ``net``,
        ``user``, ``cgroup``, ``time``).
    session
        For cells (no command): run many of them, one after another, in one interpreter.
    sample
        Time between samples, 1 ms to 10 s; a bare number is seconds.
    best_effort
        Where a limit can't be held on this host, or a namespace not be had, go on without it: the
        result is marked.
    unconfined
        Run a plain process in place of a container: the result is marked.
    limit_options
        As :func:`limits` takes them.

    Raises
    ------
    SpecError
        One line: the option, the value, how to mend it.
    """
    for name in limit_options:
        if name not in LIMIT_OPTIONS:
            known = [*LIMIT_OPTIONS, *(build.__kwdefaults__ or ())]
            close = difflib.get_close_matches(name, known, 1)
            message = f"{name!r} is not an option"
            raise SpecError(message, hint=f"did you mean {close[0]}?" if close else None)
    argv = None if command is None else _argv(command, image)
    if session and (argv is not None or init or tty):
        message = "a session runs cells: it has no command, no terminal and no --init"
        raise SpecError(message, hint="leave that out; exec runs commands in it")
    if workdir is not None and not workdir.startswith("/"):
        message = f"workdir {workdir!r} is not absolute"
        raise SpecError(message, hint="begin it with /")
    if seccomp not in ("default", "unconfined"):
        message = f"seccomp {seccomp!r} is not known"
        raise SpecError(message, hint="default or unconfined")
    if systempaths not in ("default", "unconfined"):
        message = f"systempaths {systempaths!r} is not known"
        raise SpecError(message, hint="default or unconfined")
    if _IMAGE.fullmatch(str(image)) is None:
        message = f"image {image!r} can't be a name"
        raise SpecError(message, hint="as python:3.12-slim, mylab:1, or an image's id")
    if hostname is not None and not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9.-]{0,62}", hostname):
        message = f"hostname {hostname!r} can't be used"
        raise SpecError(message, hint="letters, digits, - and ., up to 63")
    asked = limits(**limit_options)
    network = netspec.parse_network(network)
    host_namespaces = _namespaces(network, share)
    if "net" in host_namespaces:
        network = "host"
    published, servers = netspec.check_publish(publish), tuple(dns)
    needing = {"ip": ip, "publish": published, "dns": servers}
    needing |= {name: value for name, value in limit_options.items() if name.startswith("net_")}
    given = [name.replace("_", "-") for name, value in needing.items() if value not in (None, ())]
    if unconfined:
        others = {
            "image": image != "host", "entrypoint": entrypoint is not None, "user": user,
            "hostname": hostname, "share": share, "network": network != "none", "ip": ip,
            "add-host": add_hosts, "dns": servers, "publish": published,
            "cap-add": cap_add, "cap-drop": cap_drop, "seccomp": seccomp != "default",
            "systempaths": systempaths != "default",
            "read-only": read_only, "volume": volumes, "mount": mounts, "tmpfs": tmpfs,
            "init": init, "tty": tty, "session": session,
        }  # fmt: skip
        asked_for = [name for name, value in others.items() if value]
        ladder.check_unconfined(asked, asked_for, best_effort=best_effort)
    else:
        netspec.check_fit(network, given)
    return ContainerSpec(
        image=str(image),
        command=argv,
        entrypoint=None if entrypoint is None else _entrypoint(entrypoint, argv),
        env=_environment(env),
        workdir=workdir,
        user=None if user is None else str(user),
        hostname=hostname,
        limits=asked,
        host_namespaces=host_namespaces,
        network=network,
        ip=None if ip is None else netspec.parse_address(ip, "ip"),
        add_hosts=tuple(
            netspec.parse_add_host(h if isinstance(h, str) else ":".join(h)) for h in add_hosts
        ),
        dns=tuple(netspec.parse_address(server, "dns") for server in servers),
        publish=published,
        cap_add=tuple(cap_add),
        cap_drop=tuple(cap_drop),
        seccomp=seccomp,  # type: ignore[arg-type]  # checked above
        systempaths=systempaths,  # type: ignore[arg-type]  # checked above
        read_only=read_only,
        mounts=tuple(v if isinstance(v, Mount) else parse_volume(v) for v in volumes)
        + tuple(m if isinstance(m, Mount) else parse_mount(m) for m in mounts)
        + tuple(t if isinstance(t, Mount) else parse_tmpfs(t) for t in tmpfs),
        init=init,
        tty=tty,
        cold=cold,
        session=session,
        sample_s=_sample(sample),
        stop_signal=None if stop_signal is None else _signal(stop_signal),
        python_path=tuple(python_path),
        best_effort=bool(best_effort),
        unconfined=bool(unconfined),
    )
