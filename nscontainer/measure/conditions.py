"""What else the machine did during a run: read before and after, so that a reader can trust the figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The machine beside one run. None is what this host does not tell.

    Attributes
    ----------
    steal_share
        What the hypervisor took of all CPUs' time.
    other_cpus
        CPUs' worth of time that others had meanwhile: 0.5 is half of one CPU.
    thermal_throttles
        How many times a CPU was slowed down for its heat.
    governor
        CPU frequency governor of the first CPU.
    mhz
        Mean clock of the CPUs at the end.
    swap_in_pages, swap_out_pages
        Of the whole machine.
    load_1m
        Load average before.
    """

    steal_share: float | None = None
    other_cpus: float | None = None
    thermal_throttles: int | None = None
    governor: str | None = None
    mhz: float | None = None
    swap_in_pages: int | None = None
    swap_out_pages: int | None = None
    load_1m: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return them as plain JSON types; :meth:`from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Conditions:
        """Rebuild them from what :meth:`to_dict` gave; unknown names are left out."""
        return cls(**{f.name: plain[f.name] for f in fields(cls) if f.name in plain})
