"""Disks on cgroup v2: io.max and weights ("IO" in cgroup-v2.rst)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from nscontainer.errors import HostError, NsContainerError, SpecError
from nscontainer.linux import blockdev
from nscontainer.linux import cgroup_files as files
from nscontainer.linux.blockdev import Rule
from nscontainer.linux.cgroup1_io import no_weight, rule_text

_KEYS: Final = {
    "read_bps": "rbps",
    "write_bps": "wbps",
    "read_iops": "riops",
    "write_iops": "wiops",
}


def hold(
    path: str, rules: Mapping[str, Rule], missing: Callable[[str, str], NsContainerError]
) -> None:
    """Set the rules, a line a disk; see :func:`.cgroup1_io.hold`."""
    for number, rule in rules.items():
        pairs = [(_KEYS[name], "max" if rate < 0 else str(rate)) for name, rate in rule.items()]
        what = ", ".join(rule_text(name, number, rate) for name, rate in rule.items())
        if any(
            rate == 1 for _, rate in rule.items()
        ):  # EINVAL of tg_set_limit, block/blk-throttle.c
            message = f"{what}: cgroup v2 takes no limit of 1"
            raise SpecError(message, hint="2 a second is the least")
        line = " ".join((number, *(f"{key}={rate}" for key, rate in pairs)))
        files.set_value(f"{path}/io.max", line, what, partial(missing, what))


def weight_of(blkio_weight: int) -> int:
    """Turn Docker's weight (10 … 1000) into io.weight's (1 … 10000), as runc does."""
    return 1 + (blkio_weight - 10) * 9999 // 990


def weigh(base: str, path: str, weight: int, disks: tuple[str, ...]) -> None:
    """Set its share of a disk that several want, where iocost or bfq heeds it.

    Raises
    ------
    HostError
        Neither is in force for any of the disks.
    """
    cost = files.read_or_none(f"{_top(base)}/io.cost.qos") or ""
    costed = {line.split()[0] for line in cost.splitlines() if "enable=1" in line}
    wanted = f"blkio-weight {weight}"
    refused: HostError = no_weight(weight, disks)
    ways = {
        "io.bfq.weight": (weight, any(blockdev.scheduler(d) == "bfq" for d in disks)),
        "io.weight": (weight_of(weight), bool(costed.intersection(disks))),
    }
    for name, (value, heeded) in ways.items():
        if heeded and os.path.exists(f"{path}/{name}"):
            files.set_value(f"{path}/{name}", str(value), wanted, lambda _: refused)
            return
    raise refused


def _top(base: str) -> str:
    """Give the root cgroup's directory: it alone has io.cost.qos."""
    while os.path.exists(f"{os.path.dirname(base)}/cgroup.controllers"):
        base = os.path.dirname(base)
    return base


def read_back(path: str) -> dict[str, Any]:
    """Say what the rules are now; as :func:`.cgroup1_io.read_back`."""
    text = files.read_or_none(f"{path}/io.max")
    if text is None:
        return {}
    found: dict[str, Any] = {f"disk_{name}": {} for name in _KEYS}
    for line in text.splitlines():
        number, *pairs = line.split()
        rates = dict(pair.split("=") for pair in pairs)
        for name, key in _KEYS.items():
            if rates.get(key, "max") != "max":
                found[f"disk_{name}"][number] = int(rates[key])
    texts = (files.read_or_none(f"{path}/{name}") for name in ("io.bfq.weight", "io.weight"))
    found["blkio_weight"] = next((int(t.split()[-1]) for t in texts if t), None)
    return found
