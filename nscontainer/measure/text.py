"""Strings and figures made fit to be shown to a person."""

from __future__ import annotations

import unicodedata

from nscontainer import units


def text_of(value: object, limit: int = 200) -> str:
    """Make any string fit to be shown: one line, nothing that steers a terminal or the reader.

    Control characters (so every ANSI sequence), line breaks and the bidirectional and other format
    controls become a middle dot; a long text is cut.
    """
    raw = str(value)
    if len(raw) <= limit and raw.isprintable():
        return raw
    shown = "".join(
        "·" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c
        for c in raw[: limit + 1]
    )
    return shown if len(raw) <= limit else shown[: limit - 1] + "…"


def size(size_bytes: float | None) -> str:
    """Write a limit: as :func:`nscontainer.units.format_size`, but ``256 MiB`` where it is whole."""
    return units.format_size(size_bytes).replace(".0 ", " ")


def decimal_size(size_bytes: float) -> str:
    """Write bytes with a decimal suffix, as networks count: ``12.5 MB``."""
    for limit, suffix in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size_bytes >= limit:
            return f"{size_bytes / limit:.3g} {suffix}"
    return f"{size_bytes:.0f} B"


def byte_rate(bytes_per_s: float) -> str:
    """Write bytes a second: ``5 MiB/s``."""
    return f"{size(bytes_per_s)}/s"


def percent(share: float) -> str:
    """Write a share with a decimal: ``20.0 %``; a very small one as ``< 0.1 %``."""
    return "< 0.1 %" if 0 < share < 0.0005 else f"{share * 100:.1f} %"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Write ``1 period``, ``2 periods``."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def clean_lines(raw: str) -> list[str]:
    """Split a text into its lines that say something, each fit to be shown."""
    return [text_of(line.strip()) for line in raw.splitlines() if line.strip()]
