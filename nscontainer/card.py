"""A run on a card: HTML for a notebook, plain text for a terminal, one line for a list.

The HTML has no script, no outside resource and no style sheet (GitHub and others take those out):
inline styles only, and nothing in it loses its meaning with them. It takes its colours from where it
stands, so that it suits a dark theme. Every string is escaped, whoever made it. No pandas and no
matplotlib here: a card is shown after every cell.
"""

from __future__ import annotations

import html as html_
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from nscontainer import units
from nscontainer.measure import flows, headline, rates, records, reported
from nscontainer.measure.text import percent, text_of
from nscontainer.palette import VERMILLION

if TYPE_CHECKING:
    from nscontainer.measure.limits import LimitRow
    from nscontainer.measure.result import RunResult

ICONS: Final = {"error": "✖", "warning": "⚠", "info": "ℹ"}  # noqa: RUF001  # they are meant
COLUMNS: Final = 100
LINES: Final = 6
_LIMITS_OF: Final[dict[str, tuple[str, ...]]] = {"disk": ("disk_", "device_"), "network": ("net_",)}
"""How the limits begin whose rows say what was moved there."""
_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_WIDTH, _HEIGHT = 220, 48

CELL: Final = "padding:1px 14px 1px 0;text-align:left;border:0;vertical-align:top"
SOFT: Final = "opacity:.7"
TABLE: Final = "border-collapse:collapse;border:0;margin:0;font-size:inherit;color:inherit"


# --- plain text ------------------------------------------------------------------------------


def line(run: RunResult) -> str:
    """Give the run in one line, for a list of them."""
    name = text_of(run.name or run.id[:12], 40)
    recorded = [] if run.recorded is None else [text_of(run.recorded, 90)]
    return f"<RunResult {name}: {' · '.join([*headline.parts(run), *recorded])}>"


def text(run: RunResult) -> str:
    """Give the run as at most :data:`LINES` lines of at most :data:`COLUMNS` columns."""
    *first, ended = headline.parts(run)
    moved = flows.parts(run)
    apart = headline.isolation(run)
    lines = _wrapped([*filter(None, [apart]), *first, *moved, ended, _limits_line(run)])[
        : 4 if moved else 3
    ]
    if run.recorded is not None:
        lines = [*lines[: LINES - 3], f"  {text_of(run.recorded, COLUMNS - 2)}"]
    curve = _text_curve(run)
    if curve:
        lines.append(curve)
    if run.reported:
        lines.append("  reported " + reported.line(run.reported, COLUMNS - 11))
    room = LINES - len(lines)
    # That it was throttled is in the headline already.
    warnings = [w for w in run.warnings if w.code != "throttled"]
    shown = warnings if len(warnings) <= room else warnings[: room - 1]
    lines += [f"  {ICONS[w.severity]} {text_of(w.message, COLUMNS - 4)}" for w in shown]
    if len(shown) < len(warnings):
        lines.append(f"  … {len(warnings) - len(shown)} more in .warnings")
    return "\n".join(text_of(entry, COLUMNS) for entry in lines)


def _wrapped(parts: Iterable[str]) -> list[str]:
    """Join parts with dots, breaking a line only between two of them where that will do."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + 3 + len(part) <= COLUMNS:
            lines[-1] += " · " + part
        else:
            lines.append(("  " if lines else "") + part)
    return [
        textwrap.shorten(entry, COLUMNS, placeholder=" …") if len(entry) > COLUMNS else entry
        for entry in lines
    ]


def _limits_line(run: RunResult) -> str:
    rows = run.limits.rows()
    if not rows:
        return "no limits asked"
    texts = []
    for row in rows:
        read = f" (read back: {row.read_back or 'nothing'}!)" if row.differs else ""
        read = " (NOT HELD)" if row.unheld is not None else read
        texts.append(f"{row.label} {row.asked or 'not'}{read}")
    as_asked = not run.limits.differs and not run.limits.unheld
    return "asked " + ", ".join(texts) + ("; read back as asked" if as_asked else "")


def _text_curve(run: RunResult) -> str | None:
    _, use = _bins(run, 60)
    if len(use) < 3:
        return None
    top = max([*use, *(q for _, _, q in _quotas(run))])
    if top <= 0:
        return None
    last = len(_BLOCKS) - 1
    curve = "".join(_BLOCKS[min(last, max(0, round(u / top * last)))] for u in use)
    return f"  CPU {curve} up to {percent(max(use))}"


# --- what both draw --------------------------------------------------------------------------


def _bins(run: RunResult, points: int) -> tuple[int, list[float]]:
    period_s = run.limits.longest_period_s
    period_ns = None if period_s is None else round(period_s * records.NS_PER_S)
    return rates.cpu_bins(run.record, run.samples, period_ns=period_ns, points=points)


def _quotas(run: RunResult) -> list[tuple[float, float, float]]:
    found = rates.cpu_quota(run.record, run.samples, run.limits)
    return [(begin, stop, quota) for begin, stop, quota in found if quota is not None]


# --- HTML ------------------------------------------------------------------------------------


def html(run: RunResult) -> str:
    """Give the run as HTML that is safe to show, whatever ran."""
    body = [
        "" if run.recorded is None else f"<div><em>{escaped(run.recorded)}</em></div>",
        f'<div style="{SOFT}"><code>{escaped(headline.what(run, 90))}</code></div>',
        f'<div style="margin:2px 0 6px 0">{_headline(run)}</div>',
        '<div style="display:flex;flex-wrap:wrap;gap:4px 32px;align-items:flex-start">',
        _limits_table(run),
        _sparkline(run),
        "</div>",
        _reported(run),
        _warnings(run),
        _details(run),
    ]
    style = "font-family:system-ui,sans-serif;font-size:13px;line-height:1.45;max-width:60em"
    return f'<div style="{style}">{"".join(filter(None, body))}</div>'


def escaped(value: object, limit: int = 400) -> str:
    """Make any value fit to stand in HTML, in an attribute too."""
    return html_.escape(text_of(value, limit), quote=True)


def _headline(run: RunResult) -> str:
    first, *rest = headline.parts(run)
    ended = rest.pop()
    apart = headline.isolation(run)
    weight = "normal" if run.ok else "bold"
    mark = "" if run.ok else f"{ICONS['error']} "
    parts = [
        *(
            []
            if apart is None
            else [f'<strong style="color:{VERMILLION}">{escaped(apart)}</strong>']
        ),
        f"<strong>{escaped(first)}</strong>",
        *(escaped(part) for part in rest),
        f'<span style="font-weight:{weight}">{mark}{escaped(ended)}</span>',
    ]
    return " · ".join(parts)


def _limits_table(run: RunResult) -> str:
    rows = run.limits.rows()
    head = ("limit", "asked", "read back", "had")
    cells = "".join(f'<th style="{CELL};{SOFT};font-weight:normal">{h}</th>' for h in head)
    lines = [f'<tr style="background:transparent">{cells}</tr>']
    listed = [
        (row.label, row.asked, row.read_back, row.differs or row.unheld is not None, _had(run, row))
        for row in rows
    ]
    names = {row.name for row in rows}
    if "cpu" not in names:
        listed.insert(0, ("CPU", None, None, False, _share(run)))
    if "memory_bytes" not in names:
        listed.append(("memory", None, None, False, _peak(run)))
    listed += [
        (what, None, None, False, how)
        for what, how in (part.split(" ", 1) for part in flows.parts(run))
        if not any(name.startswith(_LIMITS_OF[what]) for name in names)
    ]
    for label, asked, read_back, differs, had in listed:
        read = escaped(read_back or "–")
        if differs:
            read = f'<strong style="color:{VERMILLION}">{ICONS["warning"]} {read}</strong>'
        row_cells = [escaped(label), escaped(asked or "–"), read, escaped(had or "–")]
        lines.append(
            '<tr style="background:transparent">'
            + "".join(f'<td style="{CELL}">{cell}</td>' for cell in row_cells)
            + "</tr>"
        )
    changes = "".join(
        f'<tr style="background:transparent"><td colspan="4" style="{CELL};{SOFT}">'
        f"from {escaped(units.format_seconds(c.elapsed_s))} on: {escaped(c.text)}</td></tr>"
        for c in run.limits.changes[:4]
    )
    return f'<table style="{TABLE}">{"".join(lines)}{changes}</table>'


def _had(run: RunResult, row: LimitRow) -> str | None:
    match row.name:
        case "cpu":
            return _share(run)
        case "memory_bytes":
            return _peak(run)
        case "pids":
            most = run.totals["pids.peak"]
            return None if most is None else f"peak {most}"
        case "timeout_s":
            return units.format_seconds(run.wall_s)
        case "cpu_time_s":
            return None if run.cpu_s is None else units.format_seconds(run.cpu_s)
    return flows.had(run, row.name)


def _share(run: RunResult) -> str | None:
    share = run.totals["cpu_share"]
    return None if share is None else percent(share)


def _peak(run: RunResult) -> str | None:
    peak = run.totals["memory.peak"]
    return None if peak is None else f"peak {units.format_size(peak)}"


def _sparkline(run: RunResult) -> str:
    step_ns, use = _bins(run, 110)
    if not use or run.wall_s <= 0:
        return ""
    steps = _quotas(run)
    top = max([*use, *(quota for _, _, quota in steps), 0.01]) * 1.08
    end = records.end_ns(run.record, run.samples)

    def x(ns: float) -> str:
        return f"{ns / end * _WIDTH:.1f}"

    def y(cpus: float) -> str:
        return f"{_HEIGHT - cpus / top * (_HEIGHT - 2):.1f}"

    # A stair of figures over stretches of time, as they were reckoned: no slope is made up.
    points = " ".join(
        f"{x(step_ns * (i + side))},{y(cpus)}" for i, cpus in enumerate(use) for side in (0, 1)
    )
    quotas = "".join(
        f'<line x1="{x(begin * 1e9)}" x2="{x(stop * 1e9)}" y1="{y(quota)}" y2="{y(quota)}" '
        f'stroke="{VERMILLION}" stroke-width="1.5" stroke-dasharray="5 3"/>'
        for begin, stop, quota in steps[:200]
    )
    what = f"CPU use up to {percent(max(use))} over {units.format_seconds(run.wall_s)}"
    limit = f'; <span style="color:{VERMILLION}">- - quota</span>' if steps else ""
    return (
        '<div style="line-height:1.2">'
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escaped(what)}" style="display:block;overflow:visible">'
        f'<line x1="0" x2="{_WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}" stroke="currentColor" '
        'stroke-opacity="0.4"/>'
        f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.3"/>'
        f"{quotas}</svg>"
        f'<small style="{SOFT}">{escaped(what)}{limit}</small></div>'
    )


def _reported(run: RunResult) -> str:
    if not run.reported:
        return ""
    values = " · ".join(
        f'<span style="{SOFT}">{escaped(name)}</span> {escaped(reported.written(value))}'
        for name, value in run.reported.items()
    )
    return f'<div style="margin-top:6px">reported: {values}</div>'


def _warnings(run: RunResult) -> str:
    lines = "".join(f"<div>{ICONS[w.severity]} {escaped(w.message)}</div>" for w in run.warnings)
    return f'<div style="margin-top:6px">{lines}</div>' if lines else ""


def _details(run: RunResult) -> str:
    pooled = ", pooled" if run.record["pooled"] else ""
    figures = [
        ("container", f"{run.name or '-'} ({run.id})"),
        ("started", f"{run.start_mode or 'unknown'}{pooled}, {_setup(run)}"),
        ("samples", f"{run.sample_count}, every {units.format_seconds(run.record['sample_s'])}"),
    ]
    tables = "".join(
        f'<div><span style="{SOFT}">{title}</span>{pairs(rows)}</div>'
        for title, rows in (
            ("run", figures),
            ("isolation", run.isolation.rows()),
            ("provenance", run.provenance.rows()),
        )
    )
    return (
        '<details style="margin-top:6px"><summary style="cursor:pointer">'
        "isolation and provenance</summary>"
        f'<div style="display:flex;flex-wrap:wrap;gap:4px 32px;margin-top:4px">{tables}</div>'
        "</details>"
    )


def _setup(run: RunResult) -> str:
    setup_ns = run.record["setup_ns"]
    return "set up in " + units.format_seconds(None if setup_ns is None else setup_ns / 1e9)


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """Make a table of (what, which) pairs."""
    lines = "".join(
        f'<tr style="background:transparent"><td style="{CELL};{SOFT}">{escaped(what)}</td>'
        f'<td style="{CELL};white-space:normal;overflow-wrap:anywhere">{escaped(how)}</td></tr>'
        for what, how in rows
    )
    return f'<table style="{TABLE}">{lines}</table>'
