"""Levels as people write them: lists and ranges read, one level as a number, in words and in its unit."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from nscontainer import options, schema, units
from nscontainer.errors import SpecError
from nscontainer.experiment import ranges
from nscontainer.experiment.plan import Value

NO_LIMIT: Final = "no limit"

_PLAIN_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?")
_UNLIMITED: Final = ("-1", "max", "unlimited")


@dataclass(frozen=True, slots=True)
class _Kind:
    """How the levels of one option are read, written and measured; ``unit`` is empty for a plain number."""

    read: Callable[[Any], float | int | str]
    write: Callable[[Any], str]
    unit: str = ""


def _whole(level: Any) -> int:
    text = str(level).strip()
    if isinstance(level, bool) or re.fullmatch(r"-?\d+(\.0*)?", text) is None:
        message = f"{text!r} is not a whole number"
        raise SpecError(message, hint="as 1024")
    return int(Decimal(text))


def _size(level: Any) -> int:
    return units.parse_size(level.removeprefix("size=") if isinstance(level, str) else level)


def _size_in_words(size: int) -> str:
    return units.format_size(size).replace(".0 ", " ")


def _share_in_words(share: float) -> str:
    return f"{share * 100:.4g} %"


_BYTES = _Kind(_size, _size_in_words, "bytes")
_BYTE_RATE = _Kind(units.parse_byte_rate, lambda rate: f"{_size_in_words(rate)}/s", "bytes/s")
_BIT_RATE = _Kind(units.parse_bit_rate, units.format_bit_rate, "bits/s")
_OPS = _Kind(_whole, lambda ops: f"{ops} ops/s", "ops/s")
_MICROS = _Kind(_whole, lambda micros: units.format_seconds(micros / 1e6), "µs")
_TIME = _Kind(units.parse_duration, units.format_seconds, "s")
_COUNT = _Kind(_whole, str)
_TEXT = _Kind(lambda level: str(level).strip(), str)
_KINDS: Final[dict[str, _Kind]] = {
    "cpu": _Kind(units.parse_cpu, units.format_cpu, "CPUs"),
    "cpu_period": _MICROS,
    "cpu_quota": _MICROS,
    "cpu_burst": _MICROS,
    "cpu_shares": _COUNT,
    "cpuset_cpus": _Kind(_TEXT.read, lambda cpus: f"CPUs {cpus}"),
    "cpuset_mems": _Kind(_TEXT.read, lambda nodes: f"nodes {nodes}"),
    "memory": _BYTES,
    "memory_swap": _BYTES,
    "pids_limit": _COUNT,
    "disk_read": _BYTE_RATE,
    "disk_write": _BYTE_RATE,
    "disk_read_iops": _OPS,
    "disk_write_iops": _OPS,
    "blkio_weight": _COUNT,
    "storage": _BYTES,
    "net_rate": _BIT_RATE,
    "net_rx": _BIT_RATE,
    "net_tx": _BIT_RATE,
    "net_delay": _TIME,
    "net_loss": _Kind(units.parse_share, _share_in_words),
    "timeout": _TIME,
    "cpu_time": _TIME,
    "image": _TEXT,
    "network": _TEXT,
}
_NAMED: Final = frozenset({"image", "network"})
"""Varied as limits are, but without ranges, and ``none`` is a name like others."""
_WITH_COMMAS: Final = frozenset({"cpuset_cpus", "cpuset_mems"})
_SINGLE: Final = frozenset(
    option.dest for option in options.OPTIONS if option.action == "store"
) - {"entrypoint"}  # which may be an argument vector

# What the frames have of their own: a parameter of the same name would stand in two columns.
_TAKEN: Final = frozenset(
    "run_id repeat order ok exit exit_code oom_killed timed_out wall_s cpu_s cpu_share "
    "throttled_share peak_memory warnings host cpus started_utc steal_share other_cpus "
    "thermal_throttles governor mhz swap_in_pages swap_out_pages load_1m parent_cpus "
    "limits_differ recorded label n_runs median low high".split()
) | {column.name for column in schema.COLUMNS}


def is_limit(name: str) -> bool:
    """Tell whether a name is a limit that can be varied (an option with one value)."""
    return name in _KINDS and name not in _NAMED


def is_option(name: str) -> bool:
    """Tell whether a name is an option that can be varied: a limit, ``image`` or ``network``."""
    return name in _KINDS


def is_list(name: str, text: str) -> bool:
    """Tell whether a text is more than one level of an option, a list or a range, before it is read."""
    if name in _WITH_COMMAS:
        return ";" in text or "/" in text
    if name not in _KINDS:
        return False
    return "," in text or (".." in text and name not in _NAMED)


def given(name: str, value: Any) -> tuple[Value, ...] | None:
    """Give the levels of an option's value, None where it is a single one.

    Parameters
    ----------
    name
        An option of :func:`nscontainer.spec.build`.
    value
        A list, a tuple or a range of levels, or a text such as ``10%,20%``; anything else is single.

    Raises
    ------
    SpecError
        The levels can't be used, or the option can't be varied.
    """
    if isinstance(value, (list, tuple, range)):
        if name in _KINDS:
            return sequence(name, value)
        if name in _SINGLE:
            raise _not_varied(name)
        return None  # a list is what it takes: volumes, cap_add
    if isinstance(value, str):
        if is_list(name, value):
            return parse_list(name, value)
        if name in ("sample", "user", "hostname") and "," in value:
            raise _not_varied(name)
    return None


def _not_varied(name: str) -> SpecError:
    message = f"{name.replace('_', '-')} can't be varied"
    return SpecError(message, hint="a list may stand in a limit, image and network, or in --param")


def parse_list(name: str, text: str) -> tuple[Value, ...]:
    """Read a list of levels: ``10%,20%``, ``10%..100%:10%``, ``64M..1G:x2``, ``none``.

    Parameters
    ----------
    name
        A limit, ``image``, ``network``, or else a free parameter. The levels of ``cpuset_cpus`` and
        ``cpuset_mems``, which have commas themselves, have ``;`` or ``/`` between them.
    text
        As written. A range has both its ends, where the steps meet the last.

    Returns
    -------
    tuple
        The levels in their order, as written; None is without the limit. Of a free parameter:
        numbers, True and False where they look so, else text.

    Raises
    ------
    SpecError
        A part is empty or can't be read, two levels are the same, or there are too many.
    """
    divider = r"[;/]" if name in _WITH_COMMAS else ","
    levels: list[Value] = []
    for part in (part.strip() for part in re.split(divider, text)):
        if not part:
            message = f"{_shown(name)} {text!r} has an empty part"
            raise SpecError(message, hint="one level between each two commas")
        levels += _levels(name, part)
    return sequence(name, levels)


def _levels(name: str, part: str) -> list[Value]:
    if name not in _KINDS:
        return _range(name, part) if ranges.is_plain(part) else [_free_value(part)]
    if is_limit(name) and part.lower() == "none":
        return [None]
    if ".." in part and name not in _NAMED | _WITH_COMMAS:
        return _range(name, part)
    return [part]


def _range(name: str, text: str) -> list[Value]:
    try:
        values, suffix = ranges.expand(text, lambda one: number(name, one))
    except SpecError as error:
        example = {"CPUs": "10%..100%:10%", "bytes": "64M..1G:x2"}.get(unit(name), "1..64:x2")
        message = f"{_shown(name)}: {error}"
        raise SpecError(message, hint=f"{ranges.FORM}, as {example}") from None
    if name in _KINDS:
        return [f"{ranges.written(value)}{suffix}" for value in values]
    whole = all(value == value.to_integral_value() for value in values)
    return [int(value) if whole else float(value) for value in values]


def _free_value(text: str) -> Value:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if _PLAIN_NUMBER.fullmatch(text) is None:
        return text
    return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)


def sequence(name: str, values: Iterable[Any]) -> tuple[Value, ...]:
    """Check levels that are given one by one, and give them in plain types.

    Raises
    ------
    SpecError
        There is none, or too many, one can't be read, or two are the same.
    """
    levels: list[Value] = []
    seen: dict[tuple[bool, Any], Value] = {}
    for value in values:
        if len(levels) == ranges.MOST_LEVELS:
            message = f"{_shown(name)} has more than {ranges.MOST_LEVELS} levels"
            raise SpecError(message, hint="a greater step, or x2 for each the double of the last")
        # numpy's numbers are none of JSON's: what they stand for is.
        plain = value.item() if hasattr(value, "item") else value
        if not isinstance(plain, (str, int, float)) and (plain is not None or name in _NAMED):
            message = f"{_shown(name)} {plain!r} is not a level"
            raise SpecError(message, hint="a number, a text, or None for no limit")
        try:
            key = (isinstance(plain, bool), number(name, plain))
        except SpecError as error:
            raise SpecError(f"{_shown(name)}: {error}", hint=error.hint) from None
        if key in seen:
            message = f"{_shown(name)} has {plain!r} twice"
            same = "" if seen[key] == plain else f": {seen[key]!r} is the same"
            raise SpecError(message + same, hint="give each level once; --repeat runs it again")
        seen[key] = plain
        levels.append(plain)
    if not levels:
        raise SpecError(f"{_shown(name)} has no levels", hint="give one at least")
    return tuple(levels)


def _shown(name: str) -> str:
    return name.replace("_", "-") if name in _KINDS else f"parameter {name}"


# --- one level -------------------------------------------------------------------------------


def number(name: str, level: Value) -> float | int | str | None:
    """Give a level in its base unit (:func:`unit`); None is no limit, of a free parameter itself.

    Raises
    ------
    SpecError
        It can't be read.
    """
    kind = _KINDS.get(name)
    if kind is None or level is None:
        return level
    if is_limit(name) and str(level).strip().lower() in _UNLIMITED:
        return None
    if name == "pids_limit" and str(level).strip() == "0":
        return None
    return kind.read(level)


def label(name: str, level: Value) -> str:
    """Write a level for a reader: ``20 %``, ``256 MiB``, ``no limit``; of a free parameter its value."""
    kind = _KINDS.get(name)
    if kind is None:
        return str(level).lower() if isinstance(level, bool) else str(level)
    base = number(name, level)
    return NO_LIMIT if base is None else kind.write(base)


def unit(name: str) -> str:
    """Give the unit of :func:`number`: ``CPUs``, ``bytes``, ``bytes/s``, ``bits/s``, ``ops/s``, ``s``, ``µs``.

    It is empty for plain numbers, names, and free parameters.
    """
    kind = _KINDS.get(name)
    return "" if kind is None else kind.unit


# --- free parameters -------------------------------------------------------------------------


def parse_parameter(text: str) -> tuple[str, tuple[Value, ...]]:
    """Read ``n=1000,2000``: a free parameter's name and levels.

    Raises
    ------
    SpecError
        The name is no identifier or is taken, or the levels can't be read.
    """
    name, equals, values = text.partition("=")
    if not equals:
        raise SpecError(f"parameter {text!r} has no values", hint="as n=1000,2000")
    name = name.strip()
    check_name(name)
    return name, parse_list(name, values)


def parameter(name: str, value: Any) -> tuple[Value, ...]:
    """Give a free parameter's levels from Python: a list, a tuple, a range, a text, or one value.

    Raises
    ------
    SpecError
        The name or a level can't be used.
    """
    check_name(name)
    if isinstance(value, str):
        return parse_list(name, value)
    return sequence(name, value if isinstance(value, (list, tuple, range)) else (value,))


def check_name(name: str) -> None:
    """Refuse a free parameter's name that can't be a variable's, or that is an option's or a column's.

    Raises
    ------
    SpecError
        One line.
    """
    if not (name.isascii() and name.isidentifier()):
        message = f"parameter {name!r} is not a name"
        raise SpecError(message, hint="letters, digits and _, not beginning with a digit")
    if keyword.iskeyword(name):
        raise SpecError(f"parameter {name!r} is a word of Python's own", hint="choose another name")
    if name in _KINDS:
        flag = name.replace("_", "-")
        raise SpecError(f"parameter {name!r} is an option", hint=f"--{flag} takes a list itself")
    if name in _TAKEN:
        message = f"parameter {name!r} is a column of the frames already"
        raise SpecError(message, hint="choose another name")
