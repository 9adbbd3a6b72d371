"""What the doctor found: one frozen record a facility, as table and as JSON."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from nscontainer import rows
from nscontainer.doctor.mend import MENDS
from nscontainer.doctor.table import NEEDED, ROWS
from nscontainer.errors import SpecError
from nscontainer.measure.text import text_of

Status = Literal["works", "limited", "missing"]

LIMITED: Final = "a limited container"
"""The row that tells one rung from the next: containers with limits, or without."""
_LONG: Final = 1000
_SYMBOLS: Final = {"works": "✓", "limited": "!", "missing": "✗"}
_ASCII: Final = {"works": "ok", "limited": "!", "missing": "X"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One facility of this host, after it was tried."""

    name: str
    status: Status
    detail: str
    """What was seen: the version, the path, the kernel's answer."""
    why: str = ""
    """What is lost without it, and the cause where it is known; empty where it works."""
    mend: str = ""
    """The command (or the step) that mends it on this kind of host; empty where it works."""
    needed: bool = False
    """Whether no container can run without it."""
    cause: str = ""
    """A key of :data:`nscontainer.doctor.mend.MENDS`; empty where it works, or where none is known."""

    @property
    def key(self) -> str:
        """The row's name as one word: it stays the same, and ``nscontainer doctor KEY`` takes it."""
        return rows.key(self.name)


def to_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Give the findings as plain JSON types, in order."""
    return [{"key": finding.key, **dataclasses.asdict(finding)} for finding in findings]


def chosen(findings: Sequence[Finding], word: str) -> list[Finding]:
    """Give the row of a name or key, or those whose name begins so (``namespace``, ``controller``).

    Raises
    ------
    SpecError
        There is none.
    """
    key = rows.key(word)
    exact = [finding for finding in findings if finding.key == key]
    found = exact or [finding for finding in findings if finding.key.startswith(f"{key}-")]
    if found:
        return found
    if any(rows.key(name) == key for name in ROWS):
        message = f"row {word!r} was not tried here: what comes before it failed, or it isn't ours"
        raise SpecError(message, hint="nscontainer doctor shows what was")
    message = f"no such row of the doctor: {word!r:.100}"
    raise SpecError(message, hint=", ".join(finding.key for finding in findings))


def at_length(finding: Finding, *, width: int = 100) -> str:
    """Say all about one row: what was seen, what is lost, the mend here, and on other hosts."""
    said = [
        ("status", finding.status),
        ("seen", finding.detail),
        ("lost", finding.why),
        ("mend", finding.mend),
        ("needed", NEEDED if finding.needed else ""),
        ("when not ✓", ROWS.get(finding.name, "")),
    ]
    if finding.status != "works":
        elsewhere = MENDS.get(finding.cause, {})
        said += [
            ("elsewhere" if place == "linux" else f"on {place}", text)
            for place, text in elsewhere.items()
            if text != finding.mend
        ]
    lines = [finding.name]
    for label, text in said:
        wrapped = textwrap.wrap(
            text_of(text, _LONG),
            max(width - 16, 30),
            break_long_words=False,
            break_on_hyphens=False,
        )
        lines += [
            f"  {label if i == 0 else '':<14} {line}" for i, line in enumerate(wrapped) if text
        ]
    return "\n".join(lines)


def report(findings: Sequence[Finding], *, width: int = 100, encoding: str = "utf-8") -> str:
    """Lay the findings out as a table, one line each, with why and how to mend it below.

    Parameters
    ----------
    findings
        As :func:`nscontainer.doctor.examine` gave them.
    width
        Columns of the terminal.
    encoding
        What the output can carry; where it has no ✓ the marks are ASCII.
    """
    symbols = _SYMBOLS if _can_encode("✓✗", encoding) else _ASCII
    mark = max(len(s) for s in symbols.values())
    names = max((len(f.name) for f in findings), default=0)
    indent = " " * (mark + names + 4)
    room = max(width - len(indent), 30)
    lines = []
    last_mend = ""
    for finding in findings:
        detail = textwrap.wrap(text_of(finding.detail, _LONG), room) or [""]
        head = f"{symbols[finding.status]:<{mark}}  {finding.name:<{names}}  {detail[0]}"
        lines.append(head.rstrip())
        lines += [indent + line for line in detail[1:]]
        if finding.why:
            lines += [indent + line for line in textwrap.wrap(text_of(finding.why, _LONG), room)]
        if finding.mend and finding.mend == last_mend:
            lines.append(f"{indent}-> as above")
        elif finding.mend:
            last_mend = finding.mend
            wrapped = textwrap.wrap(
                text_of(finding.mend, _LONG),
                room - 3,
                break_long_words=False,
                break_on_hyphens=False,
            )
            lines += [
                indent + ("-> " if i == 0 else "   ") + line for i, line in enumerate(wrapped)
            ]
    return "\n".join([*lines, "", verdict(findings)])


def verdict(findings: Sequence[Finding]) -> str:
    """Say in one line what works here: containers with limits, without, or none."""
    lacking = [f.name for f in findings if f.needed and f.status == "missing"]
    if lacking:
        names = ", ".join(lacking)
        only = "" if "Linux" in lacking else "; only --unconfined works"
        return f"no container can run here: {names} missing{only}"
    limited = next((f for f in findings if f.name == LIMITED), None)
    rung = "containers run here"
    if limited is not None and limited.status == "works":
        rung += ", with limits"
    elif limited is not None and limited.status == "missing":
        cgroup = next(
            (f for f in findings if f.name == "cgroup" and f.status == "missing"), limited
        )
        what = "no cgroup: " if cgroup is not limited else ""
        rung += f", without limits: {what}{cgroup.detail}"
    weak = sum(f.status != "works" for f in findings)
    if not weak:
        return rung
    things = "1 thing is" if weak == 1 else f"{weak} things are"
    return f"{rung}; {things} limited or missing"


def _can_encode(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
