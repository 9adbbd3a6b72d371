"""A sweep on a card: HTML for a notebook, plain text for a terminal, one line for a list.

As :mod:`nscontainer.card`'s: no script, no style sheet, nothing from outside, every string escaped. Where
it was recorded elsewhere, that stands on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from nscontainer.card import CELL, COLUMNS, ICONS, SOFT, TABLE, escaped, pairs
from nscontainer.experiment import rows, statistics, words
from nscontainer.experiment.sweep import Sweep
from nscontainer.measure.provenance import Provenance
from nscontainer.measure.text import plural, text_of

MOST_ROWS: Final = 40
TEXT_ROWS: Final = 12
TEXT_WARNINGS: Final = 6


@dataclass(frozen=True, slots=True)
class Level:
    """One row of the table: a point, and what came of it."""

    labels: tuple[str, ...]
    count: str
    value: str
    interval: str
    share: str
    throttled: str
    peak: str
    verdict: str

    def cells(self) -> tuple[str, ...]:
        """Give the row as texts, in the order of :func:`heads`."""
        figures = (self.value, self.interval, self.share, self.throttled, self.peak, self.verdict)
        return (*self.labels, self.count, *figures)


# --- what is said ----------------------------------------------------------------------------


def status(sweep: Sweep) -> str:
    """Say how far it is: ``15 runs, 5 of each``; ``interrupted after 7 of 15 runs``."""
    plan = sweep.plan
    until = ""
    if plan.until is not None:
        until = f" or more, until the interval is {plan.until * 100:.3g} % wide"
    each = f"{plan.repeat} of each{until}"
    total = len(plan.points()) * plan.repeat
    of = "" if len(sweep) > total else f" of {total}"
    match sweep.status:
        case "interrupted":
            goes_on = "" if sweep.recorded else ": the same call goes on from here"
            return f"interrupted after {len(sweep)}{of} runs{goes_on}"
        case "running":
            return f"running: {len(sweep)}{of} runs have ended ({each})"
    return f"{plural(len(sweep), 'run')}, {each}"


def recorded(sweep: Sweep) -> str | None:
    """Say that nothing of it ran here; None where it did."""
    if sweep.recorded is None:
        return None
    said = text_of(sweep.recorded, 120)
    return said if said.startswith("recorded") else f"recorded: {said}"


def _parallel(sweep: Sweep) -> str | None:
    at_once = sweep.plan.parallel
    return f"{at_once} at once, each on CPUs of its own" if at_once > 1 else None


# --- the table -------------------------------------------------------------------------------


def heads(sweep: Sweep) -> tuple[str, ...]:
    """Give the heads of the table's columns."""
    names = [factor.name.replace("_", "-") for factor in sweep.plan.factors]
    metric = "wall time" if sweep.plan.metric == "wall_s" else text_of(sweep.plan.metric, 40)
    last = _against(sweep, sweep.plan.factors[0].name) if len(names) == 1 and len(sweep) else ""
    return (*names, "n", metric, "95 % interval", "CPU had", "throttled", "peak memory", last)


def _against(sweep: Sweep, by: str) -> str:
    level = next(f for f in sweep.plan.factors if f.name == by).levels[-1]
    return f"against {rows.label(sweep.plan, by, level)}"


def table(sweep: Sweep) -> list[Level]:
    """Give a row for each point of which a run has ended, in the plan's order."""
    plan = sweep.plan
    found = {
        name: rows.by_point(sweep, name)
        for name in (plan.metric, "cpu_share", "throttled_share", "peak_memory")
    }
    ran: dict[int, list[bool]] = {}
    for run in sweep.runs:
        ran.setdefault(run.turn.point, []).append(run.result.ok)
    verdicts = _verdicts(sweep, plan.factors[0].name) if len(plan.factors) == 1 else []

    def middle(name: str, point: int) -> str:
        values = [value for _, value in found[name].get(point, ())]
        return words.figure(name, median(values) if values else None)

    levels = []
    for point in plan.points():
        oks = ran.get(point.index)
        if not oks:
            continue
        values = [value for _, value in found[plan.metric].get(point.index, ())]
        bad = len(oks) - sum(oks)
        levels.append(
            Level(
                labels=tuple(rows.label(plan, name, v) for name, v in point.levels.items()),
                count=f"{len(oks)} ({bad} failed)" if bad else str(len(oks)),
                value=words.figure(plan.metric, median(values) if values else None),
                interval=_interval(sweep, values),
                share=middle("cpu_share", point.index),
                throttled=middle("throttled_share", point.index),
                peak=middle("peak_memory", point.index),
                verdict=verdicts[point.index] if verdicts else "",
            )
        )
    return levels


def _interval(sweep: Sweep, values: Sequence[float]) -> str:
    return words.between(sweep.plan.metric, *statistics.interval(values, sweep.plan.seed))


def _verdicts(sweep: Sweep, by: str) -> list[str]:
    """Give the verdict of each level of a factor; none where no run has such a figure."""
    if not rows.by_point(sweep, sweep.plan.metric):
        return []
    return [str(verdict) for verdict in sweep.compare(by)["verdict"]]


def comparisons(sweep: Sweep) -> list[str]:
    """Say, of each of several factors, how its levels compare: ``cpu against 100 %: 20 % slower +400 %``."""
    said = []
    for factor in sweep.plan.factors if len(sweep.plan.factors) > 1 and len(sweep) else ():
        labels = [rows.label(sweep.plan, factor.name, level) for level in factor.levels]
        parts = [
            f"{label} {verdict}"
            for label, verdict in zip(labels, _verdicts(sweep, factor.name), strict=False)
            if verdict != statistics.BASELINE
        ]
        if parts:
            name = factor.name.replace("_", "-")
            said.append(f"{name} {_against(sweep, factor.name)}: {' · '.join(parts)}")
    return said


# --- plain text ------------------------------------------------------------------------------


def line(sweep: Sweep) -> str:
    """Give the sweep in one line, for a list of them."""
    parts = [words.factors(sweep.plan), status(sweep), recorded(sweep)]
    return f"<Sweep {text_of(sweep.id, 40)}: {' · '.join(text_of(p, 160) for p in parts if p)}>"


def text(sweep: Sweep) -> str:
    """Give the sweep as lines of at most :data:`nscontainer.card.COLUMNS` columns."""
    mark = recorded(sweep)
    lines = [] if mark is None else [f"● {mark}"]
    lines += [words.what(sweep.plan.work), words.factors(sweep.plan)]
    lines.append(" · ".join(filter(None, (status(sweep), _parallel(sweep)))))
    levels = table(sweep)
    if levels:
        lines += _text_table([heads(sweep), *(level.cells() for level in levels[:TEXT_ROWS])])
    if len(levels) > TEXT_ROWS:
        lines.append(f"  … {len(levels) - TEXT_ROWS} more in .summary")
    lines += [f"  {said}" for said in comparisons(sweep)]
    # That it goes on from here is in the line of the status already, as is that it was recorded.
    found = [w for w in sweep.warnings if w.code not in ("unfinished", "recorded")]
    for warning in found[:TEXT_WARNINGS]:
        lines += _folded(f"{ICONS[warning.severity]} {warning.message}")
    if len(found) > TEXT_WARNINGS:
        lines.append(f"  … {len(found) - TEXT_WARNINGS} more in .warnings")
    return "\n".join(text_of(entry, COLUMNS) for entry in lines)


def _folded(said: str) -> list[str]:
    """Break a warning between words: its advice is at its end."""
    found, rest = [], text_of(said, 4 * COLUMNS)
    while len(rest) > COLUMNS - 4:
        at = rest.rfind(" ", 0, COLUMNS - 4)
        at = COLUMNS - 4 if at <= 0 else at
        found.append(rest[:at])
        rest = rest[at:].strip()
    return [("  " if i == 0 else "    ") + part for i, part in enumerate([*found, rest])]


def _text_table(lines: Sequence[Sequence[str]]) -> list[str]:
    shown = [[text_of(cell, 24) for cell in entry] for entry in lines]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return [
        (
            "  " + "  ".join(f"{cell:<{wide}}" for cell, wide in zip(entry, widths, strict=True))
        ).rstrip()
        for entry in shown
    ]


# --- HTML ------------------------------------------------------------------------------------


def html(sweep: Sweep) -> str:
    """Give the sweep as HTML that is safe to show, whatever ran and whoever recorded it."""
    mark = recorded(sweep)
    parts = (words.factors(sweep.plan), status(sweep), _parallel(sweep))
    body = [
        f"<div><strong>● {escaped(mark)}</strong></div>" if mark else "",
        f'<div style="{SOFT}"><code>{escaped(words.what(sweep.plan.work))}</code></div>',
        f'<div style="margin:2px 0 6px 0">{" · ".join(escaped(p) for p in parts if p)}</div>',
        _html_table(sweep),
        "".join(f"<div>{escaped(said)}</div>" for said in comparisons(sweep)),
        _warnings(sweep),
        _details(sweep),
    ]
    style = "font-family:system-ui,sans-serif;font-size:13px;line-height:1.45;max-width:70em"
    return f'<div style="{style}">{"".join(filter(None, body))}</div>'


def _html_table(sweep: Sweep) -> str:
    levels = table(sweep)
    if not levels:
        return ""
    head = "".join(
        f'<th style="{CELL};{SOFT};font-weight:normal">{escaped(name)}</th>'
        for name in heads(sweep)
    )
    lines = [head]
    lines += [
        "".join(f'<td style="{CELL}">{escaped(cell, 120)}</td>' for cell in level.cells())
        for level in levels[:MOST_ROWS]
    ]
    body = "".join(f'<tr style="background:transparent">{entry}</tr>' for entry in lines)
    more = len(levels) - MOST_ROWS
    rest = f'<div style="{SOFT}">… {more} more in .summary</div>' if more > 0 else ""
    return f'<table style="{TABLE}">{body}</table>{rest}'


def _warnings(sweep: Sweep) -> str:
    found = [w for w in sweep.warnings if w.code not in ("unfinished", "recorded")]
    lines = "".join(f"<div>{ICONS[w.severity]} {escaped(w.message)}</div>" for w in found)
    return f'<div style="margin-top:6px">{lines}</div>' if lines else ""


def _details(sweep: Sweep) -> str:
    plan = sweep.plan
    order = [
        ("sweep", text_of(sweep.id)),
        ("seed of the order", str(plan.seed)),
        ("warm-ups", f"{plan.warmup} of each" if plan.warmup else "none"),
        ("judged by", plan.metric),
        ("runs at once", str(plan.parallel)),
    ]
    order += [(name, text_of(value)) for name, value in sorted(plan.options.items())]
    facts = Provenance.from_dict(sweep.facts).rows() if sweep.facts else []
    tables = "".join(
        f'<div><span style="{SOFT}">{title}</span>{pairs(entries)}</div>'
        for title, entries in (("sweep", order), ("provenance", facts))
        if entries
    )
    return (
        '<details style="margin-top:6px"><summary style="cursor:pointer">order and provenance</summary>'
        f'<div style="display:flex;flex-wrap:wrap;gap:4px 32px;margin-top:4px">{tables}</div></details>'
    )
