"""What a sweep is and what came of it, in words: the same on cards, pictures, tables and terminals."""

from __future__ import annotations

import shlex
from typing import Final

from nscontainer import units
from nscontainer.experiment import rows
from nscontainer.experiment.plan import Plan, Work
from nscontainer.measure.text import clean_lines, percent, text_of

NONE: Final = "–"


def what(work: Work, width: int = 90) -> str:
    """Say what is run: ``cell: import time; t = …``, ``sort -n data``; in brackets what it is called."""
    if work.kind == "cell":
        lines = [ln for ln in clean_lines(work.code or "") if not ln.startswith(("#", "%"))]
        said = "cell: " + ("; ".join(lines).replace(":; ", ": ") or "(empty)")
    else:
        said = shlex.join(word.removeprefix("#\n") for word in work.command or ())
        first = next(iter(clean_lines(work.code or "")), "")
        said = f"{said} {first}" if work.kind == "script" and first else said
    name = f" ({work.name})" if work.name else ""
    return text_of(said, max(10, width - len(name))) + text_of(name, width)


def factors(plan: Plan) -> str:
    """Say what is varied: ``cpu 20 %, 50 %, 100 % × memory 128 MiB, 256 MiB``."""
    parts = []
    for factor in plan.factors:
        labels = [rows.label(plan, factor.name, level) for level in factor.levels]
        if len(labels) > 6:
            labels = [*labels[:3], "…", *labels[-2:]]
        parts.append(f"{factor.name.replace('_', '-')} {', '.join(labels)}")
    between = " × " if plan.mode == "grid" else " with "
    return between.join(parts) or "nothing varied"


def figure(metric: str, value: float | None) -> str:
    """Write a figure of a column of the summary with its unit; a dash where it isn't known."""
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return NONE
    match rows.UNITS.get(metric):
        case "s":
            return units.format_seconds(value)
        case "bytes":
            return units.format_size(value)
        case "share" | "CPUs":
            return percent(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def between(metric: str, low: float, high: float) -> str:
    """Write an interval: ``4.9 s – 5.1 s``; a dash where there is none."""
    ends = figure(metric, low), figure(metric, high)
    return NONE if NONE in ends else " – ".join(ends)
