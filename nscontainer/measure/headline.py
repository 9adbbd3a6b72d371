"""The one line that says what a run was and what came of it, for cards, titles and front ends."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from nscontainer import units
from nscontainer.measure.limits import asked_text
from nscontainer.measure.text import clean_lines, percent, plural, size, text_of

if TYPE_CHECKING:
    from nscontainer.measure.result import RunResult


def what(run: RunResult, width: int = 60) -> str:
    """Say what ran, as ``cell: import time; t = ...`` or ``sh -c 'echo hello'``."""
    if run.code is not None:
        lines = [line for line in clean_lines(run.code) if not line.startswith(("#", "%"))]
        joined = "; ".join(lines).replace(":; ", ": ")
        return "cell: " + text_of(joined or "(empty)", width)
    command = (run.record["spec"] or {}).get("command") or ()
    # A script's first line may be empty but for a #, so that the others have the notebook's numbers.
    said = shlex.join(str(word).removeprefix("#\n") for word in command)
    return text_of(said or run.name or run.id, width)


def exit_text(run: RunResult) -> str:
    """Say how it ended: ``exit 0``, or :meth:`RunResult.describe_exit`."""
    text = run.describe_exit()
    return "exit 0" if text == "ok" else text


def cpu(run: RunResult) -> str:
    """Say ``20.0 % of a CPU for 5.01 s (limit 20 %)``."""
    share = run.totals["cpu_share"]
    had = "CPU use unknown" if share is None else f"{percent(share)} of a CPU"
    return f"{had} for {units.format_seconds(run.wall_s)} ({cpu_limit(run)})"


def cpu_limit(run: RunResult) -> str:
    """Say ``limit 20 %``, ``limit none, then 20 %`` or ``no limit``."""
    quotas = [run.limits.asked.cpus]
    quotas += [c.asked.cpus for c in run.limits.changes if c.asked.cpu_quota_us is not None]
    if "cpu_quota_us" in run.limits.unheld and quotas[0] is not None:
        return f"limit {units.format_cpu(quotas[0])} not held"
    texts = ["none" if quota is None else units.format_cpu(quota) for quota in quotas]
    if len(texts) > 3:
        texts = [texts[0], "…", texts[-1]]
    return "no CPU limit" if texts == ["none"] else "limit " + ", then ".join(texts)


def throttled(run: RunResult) -> str | None:
    """Say ``throttled 50 of 50 periods``; None where there was no quota to be throttled by."""
    periods, count = run.totals["cpu.nr_periods"], run.totals["cpu.nr_throttled"]
    if not periods or count is None:
        return None
    return f"throttled {count} of {plural(int(periods), 'period')}"


def memory(run: RunResult) -> str | None:
    """Say ``peak 12.3 MiB of 256 MiB``; None where the host gives no figure."""
    peak, limit = run.totals["memory.peak"], run.limits.in_force.memory_bytes
    if peak is None:
        return None
    of = f" of {size(limit)}" if limit is not None and limit >= 0 else ""
    return f"peak {units.format_size(peak)}{of}"


def parts(run: RunResult) -> list[str]:
    """Give the headline in its parts; what the host could not say is left out."""
    # How it ended says the peak where it ran out of memory.
    out_of_memory = run.oom_killed or (run.totals["memory.oom_kill"] and run.killed_by is None)
    peak = None if out_of_memory else memory(run)
    return [p for p in (cpu(run), throttled(run), peak, exit_text(run)) if p is not None]


def isolation(run: RunResult) -> str | None:
    """Say ``NOT ISOLATED (--unconfined)``, or ``isolated, but for: net``; None where it was as asked."""
    if not run.isolation.confined:
        return "NOT ISOLATED (--unconfined)"
    return run.isolation.word if run.isolation.missing not in ([], ["time"]) else None


def limits(run: RunResult) -> str:
    """Say what was asked: ``CPU 20 %, memory 256 MiB``, or ``no limits``, and what then changed."""
    first = (
        asked_text(run.limits.in_force if run.limits.unheld else run.limits.asked) or "no limits"
    )
    unheld = [row for row in run.limits.rows() if row.unheld is not None]
    if unheld:
        first += "; not held: " + ", ".join(f"{row.label} {row.asked}" for row in unheld)
    changes = [f"{c.text} from {units.format_seconds(c.elapsed_s)} on" for c in run.limits.changes]
    if len(changes) > 2:
        changes = [plural(len(changes), "change")]
    return ", then ".join([first, *changes])
