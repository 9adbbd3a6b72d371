"""From the monitor's figures to a result: totals, limits, warnings, provenance. No pandas here."""

from __future__ import annotations

from nscontainer.measure.isolation import Isolation
from nscontainer.measure.limits import LimitChange, LimitRow, ReadBack, RunLimits
from nscontainer.measure.provenance import Provenance
from nscontainer.measure.result import RunResult, load
from nscontainer.measure.run_warnings import RunWarning
from nscontainer.measure.totals import Totals

__all__ = [
    "Isolation",
    "LimitChange",
    "LimitRow",
    "Provenance",
    "ReadBack",
    "RunLimits",
    "RunResult",
    "RunWarning",
    "Totals",
    "load",
]
