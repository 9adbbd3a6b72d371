"""How fast a container may use its disks: which are meant, and what is asked of each (docs/adr/0024)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nscontainer.errors import HostError, SpecError
from nscontainer.limits import DISK_LIMITS, DeviceRate, Limits
from nscontainer.linux import blockdev, cgroup
from nscontainer.linux.blockdev import RATES, Rule

STORAGE = ""
"""Among :attr:`Plan.paths`: the disks behind the container's storage."""


@dataclass(slots=True)
class Plan:
    """Limits of disks, found out.

    Attributes
    ----------
    rules
        By ``MAJOR:MINOR``.
    paths
        The disks of each PATH that was named; of :data:`STORAGE`, those behind the storage.
    notes
        Where a disk is another than the one named.
    """

    rules: dict[str, Rule] = field(default_factory=dict)
    paths: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def update(self, change: Plan) -> None:
        """Take on what was changed while the container ran."""
        for disk, rule in change.rules.items():
            self.rules[disk] = replace(self.rules.get(disk, Rule()), **dict(rule.items()))
        self.paths |= change.paths

    def facts(self) -> dict[str, Any]:
        """Say which disks the limits mean: part of what is read back."""
        names = {disk: blockdev.name(disk) for disks in self.paths.values() for disk in disks}
        return {"disk_paths": {path: list(disks) for path, disks in self.paths.items()}} | {
            "disk_names": names
        }


def plan(limits: Limits, places: Iterable[str]) -> Plan:
    """Find the disks that limits mean.

    Parameters
    ----------
    places
        Where the container's storage is: the read-write layer, the layers below, volumes.

    Raises
    ------
    SpecError
        A device isn't there, or has two limits of one kind.
    HostError
        No disk is behind the storage, or none that can be told.
    """
    made = Plan()
    if limits.blkio_weight is not None or any(_short(limits).values()):
        made.paths[STORAGE] = _behind(places, _asked_text(limits))
    for name, rate in _short(limits).items():
        if rate is not None:
            for disk in made.paths[STORAGE]:
                _add(made, disk, name, rate, f"disk-{_words(name)}")
    for name in RATES:
        entries: tuple[DeviceRate, ...] = getattr(limits, f"device_{name}")
        for entry in entries:
            option = f"device-{name.replace('_', '-')}"
            disks = blockdev.named(entry.path, option, made.notes.append)
            made.paths[entry.path] = disks
            for disk in disks:
                _add(made, disk, name, entry.rate, f"{option} {entry.path}")
    return made


def _short(limits: Limits) -> dict[str, int | None]:
    return {name: getattr(limits, f"disk_{name}") for name in RATES}


def _words(name: str) -> str:
    return name.removesuffix("_bps").replace("_", "-")


def _asked_text(limits: Limits) -> str:
    given = [f"disk-{_words(name)} {rate}" for name, rate in _short(limits).items() if rate]
    return given[0] if given else f"blkio-weight {limits.blkio_weight}"


def _behind(places: Iterable[str], what: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    unknown: HostError | None = None
    names = list(dict.fromkeys(places))
    for place in names:
        try:
            found |= dict.fromkeys(blockdev.behind(place))
        except HostError as error:
            unknown = error
    if unknown is not None:
        message = f"{what} can't be held everywhere: {unknown.message}"
        raise HostError(message, hint=unknown.hint)
    if not found:
        message = f"{what} would hold nothing: no disk is behind {', '.join(names)}"
        raise HostError(message, hint="they are in memory; set NSCONTAINER_STATE_DIR to a disk")
    return tuple(found)


def _add(made: Plan, disk: str, name: str, rate: int, what: str) -> None:
    rule = made.rules.get(disk, Rule())
    if getattr(rule, name) is not None:
        message = f"{what} sets a second limit for /dev/{blockdev.name(disk)}"
        raise SpecError(message, hint="give each disk one: --disk-… for all, or --device-… by name")
    made.rules[disk] = replace(rule, **{name: rate})


def arm(group: cgroup.Cgroup, limits: Limits, made: Plan) -> None:
    """Set what was found out.

    Raises
    ------
    HostError, SpecError, StateError
        As :meth:`.cgroup.Cgroup.arm`.
    """
    if made.rules:
        group.hold_disks(made.rules)
    if limits.blkio_weight is not None:
        group.weigh_disks(limits.blkio_weight, made.paths[STORAGE])


def holds(limits: Mapping[str, Any]) -> bool:
    """Tell whether limits, as plain JSON types, hold any disk."""
    return any(limits.get(name) for name in DISK_LIMITS)


def writes_held(limits: Limits) -> bool:
    """Tell whether limits hold what is written."""
    names = ("disk_write_bps", "disk_write_iops", "device_write_bps", "device_write_iops")
    return any(getattr(limits, name) for name in names)
