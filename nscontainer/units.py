"""Quantities as people write them: CPUs, bytes, durations. Pure functions, no I/O."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from nscontainer.errors import SpecError

_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"
_SIZE = re.compile(_NUMBER + r"\s*(b|[kmgtp](?:i?b)?)?", re.IGNORECASE)
_DURATION = re.compile(_NUMBER + r"\s*(ns|us|µs|μs|ms|s|m|min|h|d)?", re.IGNORECASE)
_DURATION_PARTS = re.compile(r"(?:" + _DURATION.pattern + r"\s*)+", re.IGNORECASE)
_BIT_RATE = re.compile(_NUMBER + r"\s*(?:([kmgt]?)(?:bits?)(?:/s)?)?", re.IGNORECASE)
_SHARE = re.compile(_NUMBER + r"\s*(%)?")
_SHIFT = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_SECONDS = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "μs": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "min": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}


def parse_cpu(text: str | float) -> float:
    """Read an amount of CPU: ``20%``, ``0.2``, ``1.5``, ``150%``.

    Returns
    -------
    float
        In CPUs: 1.0 is all of one CPU.

    Raises
    ------
    SpecError
        The text is no positive, finite amount.
    """
    raw = str(text).strip()
    percent = raw.endswith("%")
    try:
        value = Decimal(raw.removesuffix("%").strip())
    except InvalidOperation:
        value = Decimal(0)
    if isinstance(text, bool) or not value.is_finite() or value <= 0:
        message = f"{raw!r} is not an amount of CPU"
        raise SpecError(message, hint="write 20%, 0.2, 1.5 or 150%")
    return float(value / 100 if percent else value)


def parse_size(text: str | int, *, unlimited: bool = False) -> int:
    """Read an amount of bytes as Docker does: ``256M``, ``1.5g``, ``64MiB``, ``4096``.

    Suffixes are powers of 1024. With ``unlimited``, ``-1`` and ``max`` give -1.

    Returns
    -------
    int
        In bytes.

    Raises
    ------
    SpecError
        The text is no size.
    """
    raw = str(text).strip()
    if unlimited and raw.lower() in ("-1", "max", "unlimited"):
        return -1
    match = _SIZE.fullmatch(raw)
    if match is None or isinstance(text, bool):
        message = f"{raw!r} is not a size"
        raise SpecError(message, hint="write bytes, or a number with K, M, G or T, as 256M")
    suffix = (match[2] or "b")[0].lower()
    return int(Decimal(match[1]) * (1 << _SHIFT[suffix]))


def parse_duration(text: str | float, *, unit: str = "s") -> float:
    """Read a duration: ``20ms``, ``1.5s``, ``2m``, ``1h30m``; a bare number is in ``unit``.

    Returns
    -------
    float
        In seconds.

    Raises
    ------
    SpecError
        The text is no duration.
    """
    raw = str(text).strip()
    if isinstance(text, bool) or _DURATION_PARTS.fullmatch(raw) is None:
        message = f"{raw!r} is not a duration"
        raise SpecError(message, hint="write 20ms, 1.5s, 2m or 1h30m")
    parts = _DURATION.findall(raw)
    if len(parts) > 1 and any(not suffix for _, suffix in parts):
        message = f"{raw!r} is not a duration"
        raise SpecError(message, hint="give each part its unit, as 1h30m")
    total = sum(
        (Decimal(number) * _SECONDS[(suffix or unit).lower()] for number, suffix in parts),
        start=Decimal(0),
    )
    return float(total)


def parse_byte_rate(text: str | int) -> int:
    """Read bytes a second: a size, with ``/s`` or without, as ``5M`` or ``5MB/s``.

    Raises
    ------
    SpecError
        The text is no rate.
    """
    raw = str(text).strip()
    try:
        return parse_size(text if isinstance(text, bool) else raw.removesuffix("/s"))
    except SpecError:
        message = f"{raw!r} is not a number of bytes a second"
        raise SpecError(message, hint="a number with K, M or G, as 5M") from None


def parse_bit_rate(text: str | int) -> int:
    """Read bits a second as tc(8) does: ``10mbit``, ``1.5Gbit``, ``500kbit/s``; decimal.

    A bare number is bits a second. ``10mbps`` is refused: to tc it is bytes, to most people bits.

    Returns
    -------
    int
        In bits a second.

    Raises
    ------
    SpecError
        The text is no rate.
    """
    raw = str(text).strip()
    match = _BIT_RATE.fullmatch(raw)
    if match is None or isinstance(text, bool):
        message = f"{raw!r} is not a number of bits a second"
        raise SpecError(message, hint="write 10mbit, 500kbit or 1gbit")
    factor = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}[(match[2] or "").lower()]
    return int(Decimal(match[1]) * factor)


def parse_share(text: str | float) -> float:
    """Read a share of a whole: ``1%`` or ``0.01``; may be zero.

    Raises
    ------
    SpecError
        The text is no share.
    """
    raw = str(text).strip()
    match = _SHARE.fullmatch(raw)
    if match is None or isinstance(text, bool):
        message = f"{raw!r} is not a share"
        raise SpecError(message, hint="write 1% or 0.01")
    return float(Decimal(match[1]) / (100 if match[2] else 1))


def format_bit_rate(bps: float) -> str:
    """Write bits a second with a decimal prefix: ``10 Mbit/s``, ``1.5 Gbit/s``."""
    for factor, prefix in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if abs(bps) >= factor:
            return f"{bps / factor:.4g} {prefix}bit/s"
    return f"{bps:.4g} bit/s"


def format_cpu(cpus: float) -> str:
    """Write an amount of CPU in per cent of one: ``20 %``, ``150 %``, ``12.5 %``."""
    return f"{cpus * 100:.4g} %"


def format_size(size: float | None) -> str:
    """Write bytes with a binary suffix and one decimal: ``256.0 MiB``, ``512 B``, ``-`` for None."""
    if size is None:
        return "-"
    value = float(size)
    for suffix in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or suffix == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {suffix}" if suffix == "B" else f"{value:.1f} {suffix}"


def format_seconds(seconds: float | None) -> str:
    """Write a duration in the unit that suits it: ``1.23 s``, ``45.6 ms``, ``2 min 3 s``."""
    if seconds is None:
        return "-"
    for limit, scale, suffix in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if abs(seconds) < limit:
            return f"{seconds * scale:.3g} {suffix}"
    if abs(seconds) < 120:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
