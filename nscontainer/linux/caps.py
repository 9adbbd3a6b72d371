"""Capabilities: their names, Docker's --cap-add and --cap-drop, and capget, capset, prctl.

Numbers are those of ``linux/capability.h``, names carry the ``CAP_`` prefix.
"""

from __future__ import annotations

import ctypes
import difflib
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from nscontainer.errors import SpecError
from nscontainer.linux import prctl, syscalls

NAMES: Final = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP "
        "LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER "
        "SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE "
        "SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP "
        "MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF "
        "CHECKPOINT_RESTORE"
    ).split()
)
"""Every capability, at the index that is its number (41 of them since Linux 5.9)."""

NUMBERS: Final = {name: number for number, name in enumerate(NAMES)}

DOCKER_DEFAULT: Final[tuple[str, ...]] = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)
"""What a container's root holds where nothing else is asked for, as in Docker."""

ALL: Final = "ALL"


# --- names -------------------------------------------------------------------------------------


def _name(text: str) -> str:
    """Write a capability's (or ALL's) name the one way, from however it was typed."""
    name = text.strip().upper()
    if name == ALL:
        return ALL
    if not name.startswith("CAP_"):
        name = f"CAP_{name}"
    if name not in NUMBERS:
        message = f"{text!r} is not a capability"
        close = difflib.get_close_matches(name, NAMES, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see capabilities(7), or ALL"
        raise SpecError(message, hint=hint)
    return name


def parse_caps(
    add: Iterable[str] = (), drop: Iterable[str] = (), base: Iterable[str] = DOCKER_DEFAULT
) -> frozenset[str]:
    """Work out the capabilities that ``--cap-add`` and ``--cap-drop`` leave, by Docker's rules.

    Names are taken in any case, with or without ``CAP_``. Where one is both added and dropped the
    addition wins. ``add`` with ALL is all but the dropped ones; ``drop`` with ALL is only the added
    ones (moby ``oci/caps.TweakCapabilities``).

    Parameters
    ----------
    add, drop
        The options' values.
    base
        What they change.

    Returns
    -------
    frozenset of str
        Names with their prefix. ALL gives every name known here, held by this process or not:
        intersect with ``names(capget().permitted)`` before asking the kernel for them.

    Raises
    ------
    SpecError
        There is no such capability (a ValueError; the hint has the nearest names).
    """
    added = {_name(text) for text in add}
    dropped = {_name(text) for text in drop}
    if ALL in added:
        return frozenset(NAMES) - dropped
    if ALL in dropped:
        return frozenset(added)
    return (frozenset(map(_name, base)) - dropped) | added


def numbers(caps: Iterable[str]) -> frozenset[int]:
    """Turn names, as :func:`parse_caps` gives them, into numbers."""
    return frozenset(NUMBERS[name] for name in caps)


def names(caps: Iterable[int]) -> frozenset[str]:
    """Turn numbers into names; one that is newer than this module becomes ``CAP_<number>``."""
    return frozenset(NAMES[n] if n < len(NAMES) else f"CAP_{n}" for n in caps)


# --- system calls ------------------------------------------------------------------------------

_LINUX_CAPABILITY_VERSION_3: Final = 0x20080522
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


_TwoData = _Data * 2  # version 3: 64 bits as two 32-bit words, the low one first
_HeaderP = ctypes.POINTER(_Header)
_DataP = ctypes.POINTER(_Data)
_capget = syscalls.libc.capget
_capget.argtypes = (_HeaderP, _DataP)
_capset = syscalls.libc.capset
_capset.argtypes = (_HeaderP, _DataP)


@dataclass(frozen=True, slots=True)
class CapSets:
    """A thread's three capability sets, as numbers."""

    effective: frozenset[int]
    permitted: frozenset[int]
    inheritable: frozenset[int]


def _to_mask(caps: frozenset[int]) -> int:
    return sum(1 << number for number in caps)


def _to_set(low: int, high: int) -> frozenset[int]:
    mask = low | high << 32
    return frozenset(number for number in range(64) if mask >> number & 1)


def capget(pid: int = 0) -> CapSets:
    """Read the capability sets of a process, 0 being the caller: capget(2)."""
    header = _Header(_LINUX_CAPABILITY_VERSION_3, pid)
    data = _TwoData()
    syscalls.check(_capget(header, data), "capget")
    low, high = data
    return CapSets(
        effective=_to_set(low.effective, high.effective),
        permitted=_to_set(low.permitted, high.permitted),
        inheritable=_to_set(low.inheritable, high.inheritable),
    )


def capset(sets: CapSets) -> None:
    """Set the calling thread's capability sets: capset(2).

    Raises
    ------
    KernelError
        EPERM: something was asked for that is not permitted; the text names it.
    """
    header = _Header(_LINUX_CAPABILITY_VERSION_3, 0)
    data = _TwoData()
    for field in ("effective", "permitted", "inheritable"):
        mask = _to_mask(getattr(sets, field))
        setattr(data[0], field, mask & 0xFFFFFFFF)
        setattr(data[1], field, mask >> 32)
    try:
        syscalls.check(_capset(header, data), "capset")
    except syscalls.KernelError as error:
        lacking = (sets.permitted | sets.effective) - capget().permitted
        if not lacking:
            raise
        text = f"{', '.join(sorted(names(lacking)))} not held"
        raise syscalls.kernel_error(error.errno or 0, "capset", detail=text) from None


@functools.cache
def last_cap() -> int:
    """Return the highest capability this kernel knows.

    Asked of prctl(2), not of /proc/sys/kernel/cap_last_cap, so that it works without a procfs.
    """
    number = 0
    while _in_bounding(number) is not None:
        number += 1
    return number - 1


def _in_bounding(number: int) -> bool | None:
    """Ask for one bit of the bounding set; None where the kernel has no such capability."""
    try:
        return prctl.prctl(prctl.PR_CAPBSET_READ, number) == 1
    except syscalls.KernelError:
        return None


def bounding() -> frozenset[int]:
    """Return the calling thread's bounding set."""
    return frozenset(number for number in range(last_cap() + 1) if _in_bounding(number))


def prctl_capbset_drop(number: int) -> None:
    """Drop one capability from the bounding set; needs CAP_SETPCAP."""
    prctl.prctl(prctl.PR_CAPBSET_DROP, number)


def prctl_cap_ambient_clear_all() -> None:
    """Empty the ambient set."""
    prctl.prctl(prctl.PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


# --- the two steps of set-up -------------------------------------------------------------------


def drop_bounding(keep: frozenset[int]) -> None:
    """Drop everything else from the bounding set.

    What isn't in it is left alone, so that a second call needs no CAP_SETPCAP.
    """
    for number in bounding() - keep:
        prctl_capbset_drop(number)


def apply(
    effective: frozenset[int],
    bounding: frozenset[int],
    inheritable: frozenset[int] = frozenset(),
) -> None:
    """Hold these capabilities and no others from here on.

    The bounding set goes first, for dropping from it needs CAP_SETPCAP; then the ambient set is
    emptied and permitted and effective become ``effective``. Inheritable stays empty unless given:
    Docker filled it once, and a set-file-capability binary then gained from it (CVE-2022-24769).

    An execve(2) by uid 0 makes permitted the bounding set again, so give the same set twice for a
    root container; by another uid it leaves nothing.

    Raises
    ------
    KernelError
        EPERM: ``effective`` has one that isn't permitted, or CAP_SETPCAP is not held.
    """
    drop_bounding(bounding)
    prctl_cap_ambient_clear_all()
    capset(CapSets(effective=effective, permitted=effective, inheritable=inheritable))
