"""How a run ended, in one line that needs no table of exit codes beside it."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from nscontainer import units
from nscontainer.measure.limits import RunLimits
from nscontainer.measure.text import plural, size, text_of
from nscontainer.measure.totals import Totals


def describe(record: Mapping[str, Any], limits: RunLimits, totals: Totals) -> str:
    """Say how a run ended: ``ok``, ``exit code 3``, ``killed: timeout of 2 s``."""
    wall_s = None if record["wall_ns"] is None else record["wall_ns"] / 1e9
    asked = limits.in_force
    after = "" if wall_s is None else f" after {units.format_seconds(wall_s)}"
    if record["timed_out"] == "cpu" or record["killed_by"] == "cpu-time":
        cpu_time = "all" if asked.cpu_time_s is None else units.format_seconds(asked.cpu_time_s)
        return f"killed: CPU time of {cpu_time} used up{after}"
    if record["timed_out"] == "wall" or record["killed_by"] == "timeout":
        return "killed: timeout" + (
            after if asked.timeout_s is None else f" of {units.format_seconds(asked.timeout_s)}"
        )
    match record["killed_by"]:
        case "user":
            return f"killed: by its user{after}"
        case "owner":
            return f"killed: the process that ran it ended{after}"
        case "interrupt":
            return f"killed: interrupted twice{after}"
    if record["oom_killed"] or totals["memory.oom_kill"]:
        return _out_of_memory(record, limits, totals, after)
    return _by_itself(record)


def _out_of_memory(record: Mapping[str, Any], limits: RunLimits, totals: Totals, after: str) -> str:
    limit = limits.in_force.memory_bytes
    found = limits.read_back.memory_bytes
    limit = found if limit is None and found is not None and found >= 0 else limit
    where = "with no limit of its own" if limit is None or limit < 0 else f"at {size(limit)}"
    peak = totals["memory.peak"]
    peak_text = "" if peak is None else f"; peak {units.format_size(peak)}"
    if record["oom_killed"]:
        return f"killed: out of memory {where}{peak_text}{after}"
    # The first process ended by itself: it was some other that Linux killed.
    count = totals["memory.oom_kill"]
    killed = plural(int(count), "process", "processes") if count else "a process"
    return f"{_by_itself(record)}; {killed} in it killed: out of memory {where}{peak_text}"


def _by_itself(record: Mapping[str, Any]) -> str:
    code, number = record["exit_code"], record["signal"]
    if record["exec_error"] is not None:
        return _not_executed(record)
    interrupted = "; interrupted" if record["interrupted"] else ""
    if number is not None:
        return f"signal {number}{_named(number)}{interrupted}"
    if code == 0:
        return "ok" + interrupted
    if code == 130 and interrupted:
        return "interrupted"
    # A shell gives 128+n for a command of its that died by signal n (dash(1), "Exit Status").
    return f"exit code {code}{_named(code - 128) if code > 128 else ''}{interrupted}"


def _not_executed(record: Mapping[str, Any]) -> str:
    command = (record["spec"] or {}).get("command") or [""]
    what = f": {text_of(command[0], 80)}" if command[0] else ""
    if record["exit_code"] == 127:
        return f"command not found{what}"
    return text_of(record["exec_error"], 160) or f"command not executable{what}"


def _named(number: int) -> str:
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return ""
