"""Disks on cgroup v1: rules of blkio.throttle, weights (cgroup-v1/blkio-controller.rst)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from nscontainer.errors import HostError, NsContainerError
from nscontainer.linux import blockdev
from nscontainer.linux import cgroup_files as files
from nscontainer.linux.blockdev import RATES, Rule

_WEIGHTS: Final = {"blkio.weight": "cfq", "blkio.bfq.weight": "bfq"}
"""The file, and the I/O scheduler without which it is a number that nobody reads."""


def hold(
    path: str, rules: Mapping[str, Rule], missing: Callable[[str, str], NsContainerError]
) -> None:
    """Set the rules; one of 0 is none.

    Parameters
    ----------
    path
        The cgroup's directory.
    missing
        Called with what was wanted and the file that isn't there.
    """
    for number, rule in rules.items():
        for name, rate in rule.items():
            what = rule_text(name, number, rate)
            file = f"{path}/blkio.throttle.{name}_device"
            files.set_value(file, f"{number} {max(rate, 0)}", what, partial(missing, what))


def rule_text(name: str, number: str, rate: int) -> str:
    """Say a rule in words, for an error."""
    return f"{name.replace('_', ' ')} {'max' if rate < 0 else rate} of {blockdev.name(number)}"


def weigh(path: str, weight: int, disks: tuple[str, ...]) -> None:
    """Set its share of a disk that several want.

    Raises
    ------
    HostError
        No disk's scheduler would heed it.
    """
    used = {blockdev.scheduler(disk) for disk in disks}
    for name, scheduler in _WEIGHTS.items():
        if scheduler in used and os.path.exists(f"{path}/{name}"):
            what = f"blkio-weight {weight}"
            files.set_value(f"{path}/{name}", str(weight), what, lambda _: no_weight(weight, disks))
            return
    raise no_weight(weight, disks)


def no_weight(weight: int, disks: tuple[str, ...]) -> HostError:
    """Say why a weight would do nothing, and what would have it do something."""
    names = [blockdev.name(disk) for disk in disks] or ["sda"]
    having = ", ".join(
        f"{n} has {blockdev.scheduler(d)}" for n, d in zip(names, disks, strict=False)
    )
    return HostError(
        f"blkio-weight {weight} would do nothing: only the I/O scheduler bfq shares a disk by "
        f"weights{f' ({having})' if having else ''}",
        hint=f"echo bfq > /sys/block/{names[0]}/queue/scheduler",
    )


def read_back(path: str | None) -> dict[str, Any]:
    """Say what the rules are now: ``disk_write_bps`` … by disk, and ``blkio_weight``."""
    if path is None:
        return {}
    found: dict[str, Any] = {}
    for name in RATES:
        text = files.read_or_none(f"{path}/blkio.throttle.{name}_device")
        if text is not None:
            lines = (line.split() for line in text.splitlines())
            found[f"disk_{name}"] = {device: int(rate) for device, rate in lines}
    texts = (files.read_or_none(f"{path}/{name}") for name in _WEIGHTS)
    found["blkio_weight"] = next((int(text.split()[-1]) for text in texts if text), None)
    return found
