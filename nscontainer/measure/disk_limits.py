"""The rows of the limits of disks: what was asked of each, and its cgroup's rules afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from nscontainer.measure.text import size

if TYPE_CHECKING:
    from nscontainer.limits import Limits
    from nscontainer.measure.limits import ReadBack

_LABELS: Final = {
    "read_bps": "disk read",
    "write_bps": "disk write",
    "read_iops": "disk read IOPS",
    "write_iops": "disk write IOPS",
}
Cells = tuple[str, str, str | None, str | None, bool]
"""Name, label, asked, read back, whether they differ: a :class:`.limits.LimitRow`'s fields."""


def rows(asked: Limits, read: ReadBack, *, checks: bool) -> Iterable[Cells]:
    """Give a row for each limit of a disk that was asked for, and one for a weight."""
    paths = read.disk_paths or {}
    names = read.disk_names or {}
    for kind, label in _LABELS.items():
        rules = getattr(read, f"disk_{kind}")
        short = getattr(asked, f"disk_{kind}")
        if short is not None:
            found = _found(rules, paths.get("", ()))
            differs = checks and not _same(short, found)
            yield f"disk_{kind}", label, rate_text(kind, short), _text(kind, found, names), differs
        for entry in getattr(asked, f"device_{kind}"):
            found = _found(rules, paths.get(entry.path, ()))
            yield (
                f"device_{kind}",
                f"{label} {entry.path}",
                rate_text(kind, entry.rate),
                _text(kind, found, names),
                checks and not _same(entry.rate, found),
            )
    if asked.blkio_weight is not None:
        from nscontainer.linux.cgroup2_io import weight_of  # not on the way of every run

        weight = read.blkio_weight
        text = None if weight is None else str(weight)
        differs = checks and weight not in (asked.blkio_weight, weight_of(asked.blkio_weight))
        yield "blkio_weight", "disk weight", str(asked.blkio_weight), text, differs


def rate_text(kind: str, rate: int) -> str:
    """Write a limit: ``5 MiB/s``, ``100/s``, ``no limit``."""
    if rate < 0:
        return "no limit"
    return f"{rate}/s" if kind.endswith("iops") else f"{size(rate)}/s"


def _found(rules: Mapping[str, int] | None, disks: Iterable[str]) -> dict[str, int] | None:
    """Give the rule of each disk, -1 for none; None where they can't be read."""
    return None if rules is None else {disk: rules.get(disk, -1) for disk in disks}


def _same(asked: int, found: Mapping[str, int] | None) -> bool:
    return bool(found) and set((found or {}).values()) == {asked}


def _text(kind: str, found: Mapping[str, int] | None, names: Mapping[str, str]) -> str | None:
    if not found:
        return None
    texts = {disk: rate_text(kind, rate) for disk, rate in found.items()}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return ", ".join(f"{names.get(disk, disk)} {text}" for disk, text in texts.items())
