"""What a run can do without: the limits that ``--unconfined`` can't hold, and what ``--best-effort`` leaves.

A limit that was asked for holds, or is an error, or (``--best-effort``) is marked in the result, by the
name of its field in :class:`nscontainer.limits.Limits` and with the cause. Never silently neither.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from nscontainer.errors import HostError, SpecError
from nscontainer.limits import Limits

GROUPS: Final[tuple[tuple[str, ...], ...]] = (
    ("cpu_quota_us", "cpu_period_us", "cpu_burst_us"),
    ("cpu_shares",),
    ("cpuset_cpus",),
    ("cpuset_mems",),
    ("memory_bytes", "memory_swap_bytes"),
    ("pids",),
    ("cpu_time_s",),
)
"""Fields of the cgroup's limits that hold together or not at all."""
NETWORK: Final = ("net_rx_bps", "net_tx_bps", "net_delay_s", "net_loss")

EXTRAS: Final[Mapping[str, str]] = {
    "network": "no network",
    "accounting": "no cgroup, so that figures are those of /proc, and there are fewer",
}
"""What may be wanting that is no limit, by its name in a record's ``unheld``: how it is said."""

_FLAGS: Final[Mapping[str, str]] = {
    "cpu_quota_us": "--cpu", "memory_bytes": "--memory", "pids": "--pids-limit",
    "disk_read_bps": "--disk-read", "disk_write_bps": "--disk-write",
    "storage_bytes": "--storage", "net_rx_bps": "--net-rx", "net_tx_bps": "--net-tx",
}  # fmt: skip
_NO_CGROUP: Final = "that takes a cgroup, and a plain process has none of its own"
_NO_NETWORK: Final = "a plain process has the host's network"


def flag(field: str) -> str:
    """Name the option that sets a limit: ``--cpu``."""
    return _FLAGS.get(field, "--" + field.replace("_", "-"))


def asked(limits: Limits, fields: Iterable[str]) -> list[str]:
    """Give those of some fields that limits ask something of."""
    return [field for field in fields if getattr(limits, field) not in (None, (), -1)]


def only(limits: Limits, fields: Iterable[str]) -> Limits:
    """Give of some limits these fields alone."""
    return Limits(**{field: getattr(limits, field) for field in fields})


def without(limits: Limits, fields: Iterable[str]) -> Limits:
    """Give limits without these fields."""
    blank = Limits()
    gone = {field: getattr(blank, field) for field in fields if field in Limits.__slots__}
    return dataclasses.replace(limits, **gone) if gone else limits


def naming_the_last_rung(error: HostError) -> HostError:
    """Have an error that no container can run here say what can: a plain process, marked."""
    last = "or --unconfined: a plain process, not isolated, and marked so"
    error.hint = f"{error.hint}; {last}" if error.hint else last
    return error


# --- unconfined ------------------------------------------------------------------------------


def unheld_by_a_process(limits: Limits) -> dict[str, str]:
    """Say which of some limits a plain process of ours can't be held to here, and why.

    By rlimits, its CPU affinity and a watching process it is held to: ``memory`` (Linux), ``pids``
    (Linux, other users than root), ``cpuset-cpus`` (Linux), ``ulimit``, ``timeout``, ``cpu-time``.
    """
    return dict(_unheld(limits, linux=sys.platform == "linux", root=os.geteuid() == 0))


def _unheld(limits: Limits, *, linux: bool, root: bool) -> Iterator[tuple[str, str]]:
    for field in asked(limits, Limits.__slots__):
        if field in ("ulimits", "timeout_s", "cpu_time_s", "cpu_period_us"):
            continue
        if field in NETWORK:
            yield field, _NO_NETWORK
        elif field == "storage_bytes":
            yield field, "a plain process writes to the host's files"
        elif field in ("memory_bytes", "cpuset_cpus", "pids") and not linux:
            yield field, "that takes Linux"
        elif field == "pids" and root:
            yield field, "RLIMIT_NPROC doesn't hold root: getrlimit(2)"
        elif field not in ("memory_bytes", "cpuset_cpus", "pids"):
            yield field, _NO_CGROUP


def check_unconfined(limits: Limits, others: Iterable[str], *, best_effort: bool) -> None:
    """Refuse what an unconfined run can't have.

    Parameters
    ----------
    limits
        Those asked for.
    others
        The options of a container that were given, as ``read-only``.
    best_effort
        Let a limit go that can't be held: the result says so.

    Raises
    ------
    SpecError
        One line: the option, why, the mend.
    """
    for name in others:
        message = f"--{name} needs a container, and --unconfined makes none"
        raise SpecError(message, hint="leave one of the two out")
    unheld = {} if best_effort else unheld_by_a_process(limits)
    for field, why in unheld.items():
        message = f"{flag(field)} can't be held by --unconfined: {why}"
        raise SpecError(
            message, hint=f"drop {flag(field)}, or add --best-effort, which marks the result"
        )
