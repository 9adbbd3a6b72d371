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

from nscontainer import units
from nscontainer.errors import SpecError
from nscontainer.mounts import Mount, parse_mount, parse_tmpfs, parse_volume

PERIOD_US: Final = 100_000
"""The CPU period where none is asked for: Linux's and Docker's own, 100 ms."""
MIN_PERIOD_US, MAX_PERIOD_US = 1_000, 1_000_000
MIN_QUOTA_US: Final = 1_000  # kernel/sched/core.c min_cfs_quota_period; less is EINVAL

NAMESPACES: Final = ("mnt", "uts", "ipc", "pid", "net", "user", "cgroup", "time")
_ID = re.compile(r"[a-zA-Z0-9_+-][a-zA-Z0-9_+.-]*")
_CPUSET = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_ENV_NAME = re.compile(r"[^=\0]+")
_IMAGE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._:/@\[\]-]{0,511}")

ULIMITS: Final = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending "
    "stack as".split()
)


def _fields(record: Any) -> dict[str, Any]:
    """Give a record's fields and values, as they are: asdict copies all, at eight times the time."""
    return {name: getattr(record, name) for name in record.__slots__}


@dataclass(frozen=True, slots=True)
class Ulimit:
    """One resource limit of setrlimit(2); -1 is unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a container may use. None is no limit of ours.

    ``memory_swap_bytes`` is memory plus swap, as in Docker. Where it is not asked for it equals the
    memory limit: no swap, so that the limit is hard and a measurement repeatable.
    """

    cpu_quota_us: int | None = None
    cpu_period_us: int | None = None
    cpu_burst_us: int | None = None
    cpu_shares: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    memory_bytes: int | None = None
    memory_swap_bytes: int | None = None
    pids: int | None = None
    ulimits: tuple[Ulimit, ...] = ()
    timeout_s: float | None = None
    cpu_time_s: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the limits as plain JSON types."""
        plain = _fields(self)
        plain["ulimits"] = [_fields(limit) for limit in self.ulimits]
        return plain

    @property
    def cpus(self) -> float | None:
        """The CPU quota in CPUs, None where there is none."""
        if self.cpu_quota_us is None or self.cpu_quota_us < 0:
            return None
        return self.cpu_quota_us / (self.cpu_period_us or PERIOD_US)


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
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    seccomp: Literal["default", "unconfined"] = "default"
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

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as plain JSON types; :meth:`from_dict` reads it back."""
        plain = _fields(self)
        plain["limits"] = self.limits.to_dict()
        plain["mounts"] = [_fields(mount) for mount in self.mounts]
        plain["env"] = [list(pair) for pair in self.env]
        plain["host_namespaces"] = sorted(self.host_namespaces)
        for name in ("command", "entrypoint", "cap_add", "cap_drop", "python_path"):
            plain[name] = None if plain[name] is None else list(plain[name])
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> ContainerSpec:
        """Rebuild a spec from what :meth:`to_dict` gave (or its JSON)."""
        values = dict(plain)
        limits = dict(values["limits"])
        limits["ulimits"] = tuple(Ulimit(**u) for u in limits["ulimits"])
        values["limits"] = Limits(**limits)
        values["mounts"] = tuple(Mount(**m) for m in values["mounts"])
        values["env"] = tuple((str(k), str(v)) for k, v in values["env"])
        values["host_namespaces"] = frozenset(values["host_namespaces"])
        for name in ("cap_add", "cap_drop", "python_path"):
            values[name] = tuple(values[name])
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


def _integer(name: str, value: Any, low: int, high: int) -> int:
    try:
        if isinstance(value, bool) or int(value) != float(value):
            raise ValueError
        number = int(value)
    except (TypeError, ValueError):
        message = f"{name} {value!r} is not a whole number"
        raise SpecError(message, hint=f"from {low} to {high}") from None
    if not low <= number <= high:
        message = f"{name} {number} is out of range"
        raise SpecError(message, hint=f"from {low} to {high}")
    return number


def _cpu_quota(cpu: Any, quota: Any, period: Any) -> tuple[int | None, int | None]:
    """Give (quota, period) in µs from ``--cpu``, ``--cpu-quota`` and ``--cpu-period``."""
    period_us = None
    if period is not None:
        period_us = _integer("cpu-period", period, MIN_PERIOD_US, MAX_PERIOD_US)
    if cpu is not None and quota is not None:
        message = "cpu and cpu-quota set the same limit"
        raise SpecError(message, hint="give one of them")
    if quota is not None:
        if str(quota).strip() == "-1":
            return -1, period_us
        return _integer("cpu-quota", quota, MIN_QUOTA_US, 1 << 40), period_us
    if cpu is None:
        return None, period_us
    if str(cpu).strip().lower() in ("-1", "max", "unlimited"):
        return -1, period_us
    cpus = units.parse_cpu(cpu)
    if cpus > 8192:
        message = f"cpu {cpu!r} is more than any machine has"
        raise SpecError(message, hint="20%, 0.2, 1.5 or 150%")
    if period_us is None and cpus * PERIOD_US < MIN_QUOTA_US:
        period_us = MAX_PERIOD_US  # the quota must be 1 ms at least: a longer period has room
    quota_us = round(cpus * (period_us or PERIOD_US))
    if quota_us < MIN_QUOTA_US:
        message = f"cpu {cpu!r} is a quota of {quota_us} µs; Linux's least is {MIN_QUOTA_US} µs"
        raise SpecError(message, hint="a longer --cpu-period (up to 1000000), or more CPU")
    return quota_us, period_us


def parse_ulimit(text: str | Ulimit) -> Ulimit:
    """Read Docker's ``name=soft[:hard]``; ``-1`` and ``unlimited`` are no limit.

    Raises
    ------
    SpecError
        The name is unknown, or a number is none, or soft is over hard.
    """
    if isinstance(text, Ulimit):
        return text
    name, equals, value = str(text).partition("=")
    name = name.strip().lower().removeprefix("rlimit_")
    if name not in ULIMITS:
        close = difflib.get_close_matches(name, ULIMITS, 1)
        message = f"ulimit {name!r} is not known"
        raise SpecError(message, hint=f"did you mean {close[0]}?" if close else "as nofile=1024")
    parts = [-1 if p.strip() in ("-1", "unlimited") else p.strip() for p in value.split(":")]
    if not equals or len(parts) > 2 or any(isinstance(p, str) and not p.isdigit() for p in parts):
        message = f"ulimit {text!r} can't be read"
        raise SpecError(message, hint="write name=soft or name=soft:hard, as nofile=1024:2048")
    soft, hard = int(parts[0]), int(parts[-1])
    if hard != -1 and (soft == -1 or soft > hard):
        message = f"ulimit {text!r}: the soft limit is over the hard one"
        raise SpecError(message, hint="write name=soft:hard with soft <= hard")
    return Ulimit(name, soft, hard)


def _cpuset(name: str, value: str | None) -> str | None:
    if value is None:
        return None
    text = str(value).replace(" ", "")
    ranges = [part.split("-") for part in text.split(",")]
    if _CPUSET.fullmatch(text) is None or any(int(r[0]) > int(r[-1]) for r in ranges):
        message = f"{name} {value!r} can't be read"
        raise SpecError(message, hint="as 0, 0-3 or 0,2")
    return text


def limits(
    *,
    cpu: Any = None,
    cpu_period: Any = None,
    cpu_quota: Any = None,
    cpu_burst: Any = None,
    cpu_shares: Any = None,
    cpuset_cpus: str | None = None,
    cpuset_mems: str | None = None,
    memory: Any = None,
    memory_swap: Any = None,
    pids_limit: Any = None,
    ulimits: Iterable[str | Ulimit] = (),
    timeout: Any = None,
    cpu_time: Any = None,
) -> Limits:
    """Make :class:`Limits` from options in the forms people write.

    Parameters
    ----------
    cpu
        ``20%``, ``0.2``, ``1.5``, ``150%``; ``max`` lifts the quota (in an update).
    cpu_period, cpu_quota, cpu_burst
        In µs, as Docker's.
    memory, memory_swap
        As ``256M``; ``memory_swap`` counts memory and swap together, ``-1`` is unlimited.
    timeout, cpu_time
        As ``10s``, ``1m30s``; a bare number is seconds.

    Raises
    ------
    SpecError
        A value can't be used.
    """
    quota_us, period_us = _cpu_quota(cpu, cpu_quota, cpu_period)
    burst_us = None
    if cpu_burst is not None:
        burst_us = _integer("cpu-burst", cpu_burst, 0, 1 << 40)
        if quota_us is None or quota_us < 0 or burst_us > quota_us:
            message = f"cpu-burst {burst_us} µs needs a quota at least as large"
            raise SpecError(message, hint="give --cpu or --cpu-quota as well")
    memory_bytes = None if memory is None else units.parse_size(memory, unlimited=True)
    if memory_bytes is not None and 0 <= memory_bytes < 1 << 20:
        message = f"memory {memory!r} is too little to start anything in"
        raise SpecError(message, hint="at least 1M; 256M is a good start")
    swap_bytes = None if memory_swap is None else units.parse_size(memory_swap, unlimited=True)
    if swap_bytes is not None and swap_bytes >= 0:
        if memory_bytes is None or memory_bytes < 0:
            message = f"memory-swap {memory_swap!r} needs a memory limit"
            raise SpecError(message, hint="give --memory as well; memory-swap counts both")
        if swap_bytes < memory_bytes:
            message = f"memory-swap {memory_swap!r} is less than memory {memory!r}"
            raise SpecError(message, hint="it counts memory and swap together, as Docker's")
    pids = None
    if pids_limit is not None:
        pids = (
            -1
            if str(pids_limit) in ("-1", "0", "max")
            else _integer("pids-limit", pids_limit, 1, 1 << 22)
        )
    return Limits(
        cpu_quota_us=quota_us,
        cpu_period_us=period_us,
        cpu_burst_us=burst_us,
        cpu_shares=None if cpu_shares is None else _integer("cpu-shares", cpu_shares, 2, 262_144),
        cpuset_cpus=_cpuset("cpuset-cpus", cpuset_cpus),
        cpuset_mems=_cpuset("cpuset-mems", cpuset_mems),
        memory_bytes=memory_bytes,
        memory_swap_bytes=swap_bytes,
        pids=pids,
        ulimits=tuple(parse_ulimit(u) for u in ulimits),
        timeout_s=_positive_duration("timeout", timeout),
        cpu_time_s=_positive_duration("cpu-time", cpu_time),
    )


LIMIT_OPTIONS: Final = frozenset(
    "cpu cpu_period cpu_quota cpu_burst cpu_shares cpuset_cpus cpuset_mems memory memory_swap "
    "pids_limit ulimits timeout cpu_time".split()
)


def _positive_duration(name: str, value: Any) -> float | None:
    if value is None:
        return None
    seconds = units.parse_duration(value)
    if seconds <= 0:
        message = f"{name} {value!r} leaves no time at all"
        raise SpecError(message, hint="as 10s or 1m30s")
    return seconds


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
    elif network != "none":
        message = f"network {network!r} is not known"
        raise SpecError(message, hint="none or host")
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
    share: Iterable[str] = (),
    cap_add: Iterable[str] = (),
    cap_drop: Iterable[str] = (),
    seccomp: str = "default",
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
    share
        Namespaces to share with the host rather than make (``uts``, ``ipc``, ``pid``, ``net``,
        ``user``, ``cgroup``, ``time``).
    session
        For cells (no command): run many of them, one after another, in one interpreter.
    sample
        Time between samples, 1 ms to 10 s; a bare number is seconds.
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
    if _IMAGE.fullmatch(str(image)) is None:
        message = f"image {image!r} can't be a name"
        raise SpecError(message, hint="as python:3.12-slim, mylab:1, or an image's id")
    if hostname is not None and not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9.-]{0,62}", hostname):
        message = f"hostname {hostname!r} can't be used"
        raise SpecError(message, hint="letters, digits, - and ., up to 63")
    return ContainerSpec(
        image=str(image),
        command=argv,
        entrypoint=None if entrypoint is None else _entrypoint(entrypoint, argv),
        env=_environment(env),
        workdir=workdir,
        user=None if user is None else str(user),
        hostname=hostname,
        limits=limits(**limit_options),
        host_namespaces=_namespaces(network, share),
        cap_add=tuple(cap_add),
        cap_drop=tuple(cap_drop),
        seccomp=seccomp,  # type: ignore[arg-type]  # checked above
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
    )
