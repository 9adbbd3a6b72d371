"""What an exported sweep says of itself, checked: it may come from anyone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from nscontainer.experiment import levels
from nscontainer.experiment.plan import Plan, Turn
from nscontainer.measure.provenance import Provenance
from nscontainer.measure.text import text_of

MOST_POINTS: Final = 100_000
MOST_REPEATS: Final = 1_000_000
_MOST_TEXT: Final = 300


def check(true: bool, what: str, value: Any) -> None:  # noqa: FBT001 - an assertion
    """Refuse a file whose ``what`` is ``value``.

    Raises
    ------
    ValueError
        It is not ``true``.
    """
    if not true:
        message = f"{what}: {str(value)[:80]!r}" if value != "" else f"{what} can't be read"
        raise ValueError(message)


def text(name: str, value: Any, most: int = _MOST_TEXT) -> str:
    """Take a short text."""
    check(isinstance(value, str) and len(value) <= most, name, value)
    return str(value)


def _whole(name: str, value: Any, least: int, most: int) -> int:
    check(type(value) is int and least <= value <= most, name, value)
    return int(value)


def head(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Give the fields of a :class:`Sweep` but its runs."""
    facts, created, status = meta["facts"], meta["created_unix"], meta["status"]
    check(isinstance(facts, dict), "facts", facts)
    check(type(created) in (int, float) and 0 <= created < 1e11, "created_unix", created)
    check(status in ("complete", "interrupted"), "status", status)
    for name in ("host", "linux", "system", "cpu_model", "governor", "python", "nscontainer"):
        check(facts.get(name) is None or isinstance(facts[name], str), f"facts' {name}", facts)
    packages(facts.get("packages") or {})
    Provenance.from_dict(facts).rows()
    return {
        "id": text("id", meta["id"], 64),
        "plan": plan(meta["plan"]),
        "status": status,
        "created_unix": float(created),
        "facts": facts,
        "recorded": mark(facts, created),
    }


def mark(facts: Mapping[str, Any], created_unix: float) -> str:
    """Say where and when: ``recorded on HOST (Linux 6.1.0) on 2026-11-29``."""
    release = (facts.get("linux") or "").split(" ")[0]
    host = text_of(facts.get("host") or "an unnamed host", 80)
    day = datetime.fromtimestamp(created_unix, UTC).date().isoformat()
    return f"recorded on {host}{f' (Linux {text_of(release, 60)})' if release else ''} on {day}"


def plan(plain: Any) -> Plan:
    """Take a plan.

    Raises
    ------
    ValueError, KeyError, TypeError
        It is none. (A :class:`~nscontainer.errors.SpecError`: one of its levels can't be read.)
    """
    check(isinstance(plain, dict), "plan", plain)
    work = plain["work"]
    check(work["kind"] in ("cell", "command", "script"), "kind of work", work["kind"])
    for name in ("code", "stdin", "name"):
        check(work[name] is None or isinstance(work[name], str), f"work's {name}", work[name])
    command = work["command"]
    check(command is None or _texts(command), "command", command)
    check(work["code"] is not None or bool(command), "work", "nothing")
    check(isinstance(plain["options"], dict), "options", plain["options"])
    check(plain["mode"] in ("grid", "zip"), "mode", plain["mode"])
    until, metric = plain["until"], plain["metric"]
    check(until is None or (type(until) is float and 0 < until < math.inf), "until", until)
    text("metric", metric)
    _whole("repeat", plain["repeat"], 1, MOST_REPEATS)
    _whole("warmup", plain["warmup"], 0, MOST_REPEATS)
    _whole("most_repeats", plain["most_repeats"], 1, MOST_REPEATS)
    _whole("parallel", plain["parallel"], 1, 1 << 16)
    check(type(plain["seed"]) is int, "seed", plain["seed"])
    _factors(plain["factors"], plain["mode"])
    return Plan.from_dict(plain)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _factors(factors: Any, mode: str) -> None:
    check(isinstance(factors, list) and len(factors) <= 100, "factors", factors)
    for factor in factors:
        name, free, values = factor["name"], factor["free"], factor["levels"]
        check(type(free) is bool, "free", free)
        check(isinstance(name, str) and len(name) <= _MOST_TEXT, "factor", name)
        check(free or levels.is_option(name), "factor", name)
        if free:
            levels.check_name(name)
        check(isinstance(values, list) and len(values) > 0, f"levels of {name}", values)
        for value in values:
            check(value is None or type(value) in (str, int, float, bool), "level", value)
            if not free:
                levels.label(name, value)
    names = [factor["name"] for factor in factors]
    check(len(set(names)) == len(names), "factors", names)
    counts = [len(factor["levels"]) for factor in factors]
    if mode == "grid":
        check(math.prod(counts) <= MOST_POINTS, "points", math.prod(counts))
    else:
        check(len(set(counts)) <= 1 and max(counts, default=1) <= MOST_POINTS, "points", counts)


def turn(entry: Any, points: int) -> Turn:
    """Take a run's turn."""
    check(isinstance(entry, dict), "run", entry)
    most = MOST_POINTS * MOST_REPEATS
    return Turn(
        number=_whole("run number", entry["number"], -most, most),
        point=_whole("point", entry["point"], 0, points - 1),
        repeat=_whole("repeat", entry["repeat"], -MOST_REPEATS, MOST_REPEATS),
    )


def conditions(plain: Any) -> Mapping[str, Any]:
    """Take the machine's figures beside a run: numbers, and the governor's name."""
    check(isinstance(plain, dict), "conditions", plain)
    for name, value in plain.items():
        if value is not None:
            good = isinstance(value, str) if name == "governor" else type(value) in (int, float)
            check(good, f"condition {name}", value)
    return dict(plain)


def packages(plain: Any) -> Mapping[str, str]:
    """Take names and versions."""
    check(isinstance(plain, dict), "packages", plain)
    check(all(isinstance(version, str) for version in plain.values()), "packages", plain)
    return dict(plain)
