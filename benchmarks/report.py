"""What the benchmarks say: one table for people, one JSON file for everything else."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Reached = Literal["yes", "no", "-"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    ``value`` is what ``target`` is held against, in ``unit`` (a ratio where that is "×"), with
    ``low`` and ``high`` its spread. ``target`` is None where a line is for information.
    """

    what: str
    ours: str
    peer: str
    value: float
    low: float | None = None
    high: float | None = None
    unit: str = "×"
    target: float | None = None
    note: str = ""

    @property
    def reached(self) -> Reached:
        """Whether the target is."""
        if self.target is None:
            return "-"
        return "yes" if self.value <= self.target else "no"

    @property
    def clear(self) -> bool:
        """Whether all of the spread is on the same side of the target."""
        if self.target is None or self.low is None or self.high is None:
            return True
        return self.high <= self.target or self.low > self.target


@dataclass(slots=True)
class Report:
    """What one benchmark found: its lines, tables of detail, and every measurement."""

    name: str
    title: str
    rows: list[Row] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    """Text below the table: more tables, what was compared with what."""
    raw: dict[str, Any] = field(default_factory=dict)
    missing: str | None = None
    """Why nothing could be measured."""


def milliseconds(nanoseconds: float) -> str:
    """Write a time in ms: three figures."""
    value = nanoseconds / 1e6
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Lay out columns; the first is flush left, the others right."""
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    rule = ["─" * width for width in widths]
    laid = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [header, rule, *lines]
    ]
    return "\n".join(laid)


def text(reports: Sequence[Report]) -> str:
    """Write all reports: the one table first, then the details of each."""
    lines = [_cells(row) for report in reports for row in report.rows]
    parts = []
    if lines:
        parts.append(
            table(["what", "ours", "peer", "value", "spread", "at most", "reached"], lines)
        )
        if any(not row.clear for report in reports for row in report.rows):
            parts.append("~ the spread reaches over the target")
    for report in reports:
        if report.missing is not None:
            parts.append(f"{report.name}: not measured: {report.missing}")
        notes = [f"{row.what}: {row.note}" for row in report.rows if row.note]
        if report.details or notes:
            parts.append("\n".join([f"── {report.name}: {report.title}", *notes, *report.details]))
    return "\n\n".join(parts)


def _cells(row: Row) -> list[str]:
    spread = ""
    if row.low is not None and row.high is not None:
        spread = f"{_number(row.low, row.unit)} … {_number(row.high, row.unit)}"
    target = "" if row.target is None else f"{_number(row.target, row.unit)} {row.unit}"
    return [
        row.what,
        row.ours,
        row.peer,
        f"{_number(row.value, row.unit)} {row.unit}",
        spread,
        target,
        row.reached + ("" if row.clear else " ~"),
    ]


def _number(value: float, unit: str) -> str:
    if unit == "×":
        return f"{value:.3f}" if abs(value) < 0.2 else f"{value:.2f}"
    return f"{value:.3g}"


def write_json(
    file: Path, reports: Sequence[Report], *, quick: bool, peers: Mapping[str, str]
) -> None:
    """Write everything, each single measurement too."""
    plain = {
        "unix": time.time(),
        "quick": quick,
        "host": {
            "linux": platform.release(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "load": os.getloadavg(),
        },
        "peers": dict(peers),
        "reports": [
            {
                "name": report.name,
                "title": report.title,
                "missing": report.missing,
                "rows": [{**asdict(row), "reached": row.reached} for row in report.rows],
                "details": report.details,
                "raw": report.raw,
            }
            for report in reports
        ],
    }
    file.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
