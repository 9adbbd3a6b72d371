"""What a container may use: frozen limits, read from the forms in which people write them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from nscontainer import units
from nscontainer.errors import SpecError

PERIOD_US: Final = 100_000
"""The CPU period where none is asked for: Linux's and Docker's own, 100 ms."""
MIN_PERIOD_US, MAX_PERIOD_US = 1_000, 1_000_000
MIN_QUOTA_US: Final = 1_000  # kernel/sched/core.c min_cfs_quota_period; less is EINVAL

_CPUSET = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")

ULIMITS: Final = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending "
    "stack as".split()
)


def fields_of(record: Any) -> dict[str, Any]:
    """Give a record's fields and values, as they are: asdict copies all, at eight times the time."""
    return {name: getattr(record, name) for name in record.__slots__}


@dataclass(frozen=True, slots=True)
class Ulimit:
    """One resource limit of setrlimit(2); -1 is unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class DeviceRate:
    """A limit of one disk, as Docker's ``PATH:RATE``: bytes or operations a second."""

    path: str
    rate: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a container may use. None is no limit of ours, and -1 (in an update) lifts one.

    ``disk_*`` hold for every disk behind the container's storage, ``device_*`` for one named.
    ``net_rx_bps`` and ``net_tx_bps`` are bits a second, in and out; ``net_loss`` is a share of the
    packets of each direction, 0 to 1.

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
    disk_read_bps: int | None = None
    disk_write_bps: int | None = None
    disk_read_iops: int | None = None
    disk_write_iops: int | None = None
    device_read_bps: tuple[DeviceRate, ...] = ()
    device_write_bps: tuple[DeviceRate, ...] = ()
    device_read_iops: tuple[DeviceRate, ...] = ()
    device_write_iops: tuple[DeviceRate, ...] = ()
    blkio_weight: int | None = None
    storage_bytes: int | None = None
    """The size of the read-write layer: settled when the container is made."""
    net_rx_bps: int | None = None
    net_tx_bps: int | None = None
    net_delay_s: float | None = None
    net_loss: float | None = None
    ulimits: tuple[Ulimit, ...] = ()
    timeout_s: float | None = None
    cpu_time_s: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the limits as plain JSON types."""
        plain = fields_of(self)
        for name in RECORDS:
            if plain[name]:
                plain[name] = [fields_of(record) for record in plain[name]]
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Limits:
        """Rebuild limits from what :meth:`to_dict` gave (or its JSON); unknown names are left out."""
        values = {name: plain[name] for name in cls.__slots__ if name in plain}
        for name, record in RECORDS.items():
            values[name] = tuple(record(**fields) for fields in values.get(name) or ())
        return cls(**values)

    @property
    def shapes_network(self) -> bool:
        """Whether any limit is one of the container's network interface."""
        asked = (self.net_rx_bps, self.net_tx_bps, self.net_delay_s, self.net_loss)
        return any(limit is not None for limit in asked)

    @property
    def holds_disks(self) -> bool:
        """Whether any limit is one of the disks."""
        return any(getattr(self, name) for name in DISK_LIMITS)

    @property
    def cpus(self) -> float | None:
        """The CPU quota in CPUs, None where there is none."""
        if self.cpu_quota_us is None or self.cpu_quota_us < 0:
            return None
        return self.cpu_quota_us / (self.cpu_period_us or PERIOD_US)


DEVICE_LIMITS: Final = (
    "device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops",
)  # fmt: skip
DISK_LIMITS: Final = (
    "disk_read_bps", "disk_write_bps", "disk_read_iops", "disk_write_iops", *DEVICE_LIMITS,
    "blkio_weight",
)  # fmt: skip
RECORDS: Final[Mapping[str, type]] = {"ulimits": Ulimit} | dict.fromkeys(DEVICE_LIMITS, DeviceRate)
"""Those that are lists of records."""


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


def _optional(name: str, value: Any, low: int, high: int) -> int | None:
    return None if value is None else _integer(name, value, low, high)


def _lifted(value: Any) -> bool:
    return str(value).strip().lower() in ("-1", "max", "unlimited")


def _disk_rate(name: str, value: Any) -> int:
    """Read bytes a second (or, of a limit named so, operations), -1 for none."""
    if _lifted(value):
        return -1
    if name.endswith("iops"):
        return _integer(name, value, 1, (1 << 32) - 1)
    rate = units.parse_byte_rate(value)
    if rate < 4096:
        message = f"{name} {value!r} is less than a page a second"
        raise SpecError(message, hint="bytes a second, as 5M or 500K")
    return rate


def _disk_limits(
    short: Mapping[str, Any], named: Mapping[str, Iterable[str | DeviceRate]]
) -> dict[str, Any]:
    """Read what is asked of the disks: for all behind the storage, and for those named."""
    limits: dict[str, Any] = {
        name: None if value is None else _disk_rate(_option_of(name), value)
        for name, value in short.items()
    }
    for name, entries in named.items():
        rates = tuple(parse_device_rate(entry, _option_of(name)) for entry in entries)
        paths = [rate.path for rate in rates]
        if len(set(paths)) < len(paths):
            message = f"{_option_of(name)} is given twice for one device"
            raise SpecError(message, hint="give each device once")
        limits[name] = rates
    return limits


def _option_of(name: str) -> str:
    """Give the option of a limit: ``disk_read_bps`` is asked for as ``disk-read``."""
    short = name.removesuffix("_bps") if name.startswith("disk") else name
    return short.replace("_", "-")


def parse_device_rate(text: str | DeviceRate, name: str) -> DeviceRate:
    """Read Docker's ``PATH:RATE``, as ``/dev/sda:5M``.

    Raises
    ------
    SpecError
        It is no such thing.
    """
    if isinstance(text, DeviceRate):
        return text
    path, colon, rate = str(text).rpartition(":")
    if not colon or not path.startswith("/"):
        example = "/dev/sda:1000" if name.endswith("iops") else "/dev/sda:5M"
        message = f"{name} {text!r} can't be read"
        raise SpecError(message, hint=f"write PATH:RATE, as {example}")
    return DeviceRate(path, _disk_rate(name, rate))


def _storage(value: Any) -> int | None:
    if value is None:
        return None
    size = units.parse_size(str(value).removeprefix("size="))
    if size < MIN_STORAGE:
        message = f"storage {value!r} is too little for a filesystem"
        raise SpecError(message, hint="at least 8M; 1G is a good start")
    return size


def _network_limits(rate: Any, rx: Any, tx: Any, delay: Any, loss: Any) -> dict[str, Any]:
    if rate is not None and (rx is not None or tx is not None):
        message = "net-rate sets both net-rx and net-tx"
        raise SpecError(message, hint="give net-rate, or the two directions")
    asked = {"net_rx_bps": rate if rx is None else rx, "net_tx_bps": rate if tx is None else tx}
    limits: dict[str, Any] = {
        name: None if value is None else -1 if _lifted(value) else units.parse_bit_rate(value)
        for name, value in asked.items()
    }
    for name, value in limits.items():
        if value is not None and 0 <= value < 8000:
            message = f"{name[:6].replace('_', '-')} {asked[name]!r} is less than a packet in 12 s"
            raise SpecError(message, hint="bits a second, as 10mbit or 500kbit; at least 8kbit")
    delay_s = None if delay is None else units.parse_duration(delay)
    if delay_s is not None and delay_s > 60:
        message = f"net-delay {delay!r} is out of range"
        raise SpecError(message, hint="up to 60s, as 50ms")
    return {**limits, "net_delay_s": delay_s, "net_loss": _share("net-loss", loss)}


def _share(name: str, value: Any) -> float | None:
    if value is None:
        return None
    share = units.parse_share(value)
    if share > 1:
        message = f"{name} {value!r} is more than all"
        raise SpecError(message, hint="write 1% or 0.01")
    return share


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
    disk_read: Any = None,
    disk_write: Any = None,
    disk_read_iops: Any = None,
    disk_write_iops: Any = None,
    device_read_bps: Iterable[str | DeviceRate] = (),
    device_write_bps: Iterable[str | DeviceRate] = (),
    device_read_iops: Iterable[str | DeviceRate] = (),
    device_write_iops: Iterable[str | DeviceRate] = (),
    blkio_weight: Any = None,
    storage: Any = None,
    net_rate: Any = None,
    net_rx: Any = None,
    net_tx: Any = None,
    net_delay: Any = None,
    net_loss: Any = None,
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
    disk_read, disk_write, disk_read_iops, disk_write_iops
        Of every disk behind the container's storage: bytes a second, as ``5M``; operations a second.
    device_read_bps, device_write_bps, device_read_iops, device_write_iops
        Docker's ``PATH:RATE``, as ``/dev/sda:5M``.
    storage
        The size of the read-write layer, as ``1G``.
    net_rate, net_rx, net_tx
        Bits a second, as ``10mbit``; ``net_rate`` is both directions.
    net_delay, net_loss
        As ``50ms`` and ``1%``, of each direction.
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
        cpu_shares=_optional("cpu-shares", cpu_shares, 2, 262_144),
        cpuset_cpus=_cpuset("cpuset-cpus", cpuset_cpus),
        cpuset_mems=_cpuset("cpuset-mems", cpuset_mems),
        memory_bytes=memory_bytes,
        memory_swap_bytes=swap_bytes,
        pids=pids,
        **_disk_limits(
            {
                "disk_read_bps": disk_read,
                "disk_write_bps": disk_write,
                "disk_read_iops": disk_read_iops,
                "disk_write_iops": disk_write_iops,
            },
            {
                "device_read_bps": device_read_bps,
                "device_write_bps": device_write_bps,
                "device_read_iops": device_read_iops,
                "device_write_iops": device_write_iops,
            },
        ),
        blkio_weight=_optional("blkio-weight", blkio_weight, 10, 1000),
        storage_bytes=_storage(storage),
        **_network_limits(net_rate, net_rx, net_tx, net_delay, net_loss),
        ulimits=tuple(parse_ulimit(u) for u in ulimits),
        timeout_s=_positive_duration("timeout", timeout),
        cpu_time_s=_positive_duration("cpu-time", cpu_time),
    )


LIMIT_OPTIONS: Final = frozenset(
    "cpu cpu_period cpu_quota cpu_burst cpu_shares cpuset_cpus cpuset_mems memory memory_swap "
    "pids_limit ulimits timeout cpu_time disk_read disk_write disk_read_iops disk_write_iops "
    "device_read_bps device_write_bps device_read_iops device_write_iops blkio_weight storage "
    "net_rate net_rx net_tx net_delay net_loss".split()
)
LASTING: Final[Mapping[str, str]] = {
    "ulimits": "--ulimit can't be changed in a running container",
    "storage": "--storage can't be changed: the layer is made with its size",
}
"""What is settled when the container is made, and what to say to who wants to update it."""
MIN_STORAGE: Final = 8 << 20
"""The least read-write layer: a filesystem and its metadata need room of their own."""


def _positive_duration(name: str, value: Any) -> float | None:
    if value is None:
        return None
    seconds = units.parse_duration(value)
    if seconds <= 0:
        message = f"{name} {value!r} leaves no time at all"
        raise SpecError(message, hint="as 10s or 1m30s")
    return seconds
