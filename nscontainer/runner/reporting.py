"""``nscontainer.report(items=123)``: values that a cell hands to whoever runs it.

The same function everywhere: in a cell it sends, elsewhere it only checks. The host goes by the same
rules for what comes out of a container, whoever sent it.
"""

from __future__ import annotations

import math
import sys
import types
from typing import Any

MOST_NAMES = 100
MOST_CHARACTERS = 200
LARGEST = 1 << 63  # what a column of a table can hold

RESERVED = frozenset(
    """
    run_id sweep_id point turn repeat warmup order elapsed_s ok exit exit_code oom_killed timed_out
    wall_s cpu_s cpu_share throttled_share peak_memory warnings host worker cpus started_utc
    steal_share other_cpus thermal_throttles governor mhz swap_in_pages swap_out_pages load_1m
    parent_cpus limits_differ recorded
    """.split()
)
"""Names of what is measured: the columns of a sweep's summary."""

_RUNNERS = ("_nscontainer_runner.session", "nscontainer.runner.session")


def report(**values: Any) -> None:
    """Report values of this run: its result has them, and a sweep's summary has a column for each.

    Of a name that is reported twice, the last value counts. Outside a container, as in a plain cell
    of a notebook, nothing happens but the check of what is given.

    Parameters
    ----------
    values
        By name: a number, a text of at most 200 characters, or a truth value. NumPy's scalars, too.

    Raises
    ------
    TypeError
        A value is none of these.
    ValueError
        A number isn't finite, a text is too long, or a name is one of what is measured anyway.
    RuntimeError
        This is a process that the cell forked: only the cell's own process reports.

    Examples
    --------
    >>> nscontainer.report(items=123, rate=4.5, method="greedy")
    """
    plain = {name: _plain(value) for name, value in values.items()}
    if len(plain) > MOST_NAMES:
        message = f"{len(plain)} values reported at once; at most {MOST_NAMES}"
        raise ValueError(message)
    for name, value in plain.items():
        why = refusal(name, value)
        if why is not None:
            of = ValueError if isinstance(value, (bool, int, float, str)) else TypeError
            raise of(why)
    outbox = _outbox()
    if outbox is None or not plain:
        return
    if outbox.forked:
        message = "report() in a process that the cell forked; give the value to the cell, which reports it"
        raise RuntimeError(message)
    outbox.send("report", {"values": plain})


def refusal(name: Any, value: Any) -> str | None:
    """Say in one line why this can't be reported; None where it can."""
    if not isinstance(name, str) or not name.isidentifier() or len(name) > MOST_CHARACTERS:
        return f"{repr(name)[:60]} is no name for a reported value"
    if name in RESERVED:
        return f"{name!r} can't be reported, it is a name of what is measured; take another"
    if isinstance(value, str):
        long = len(value)
        if long > MOST_CHARACTERS:
            return f"{name} is a text of {long} characters; at most {MOST_CHARACTERS}"
        try:
            value.encode()
        except UnicodeEncodeError:  # a lone surrogate: no file, no table could keep it
            return f"{name} is a text that is no Unicode"
        return None
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        if not -LARGEST <= value < LARGEST:
            return f"{name} is an integer of more than 64 bits; report it as a float"
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{name} is {value!r}, no finite number"
    kind = type(value).__name__
    return f"{name} is a {kind}; a number, a text or a truth value can be reported"


def offered(name: str) -> Any:
    """Give what ``import nscontainer`` finds in an image that has none: this function."""
    from importlib.machinery import ModuleSpec

    return ModuleSpec(name, _Loader)  # type: ignore[arg-type]  # a class serves as well


class _Loader:
    """Makes a module that has nothing but ``report``."""

    @staticmethod
    def create_module(spec: Any) -> types.ModuleType:
        """Make the module."""
        return types.ModuleType(spec.name, "What of nscontainer there is in a container.")

    @staticmethod
    def exec_module(module: types.ModuleType) -> None:
        """Fill it."""
        module.__dict__.update(report=report, __all__=["report"])


def _plain(value: Any) -> Any:
    """Give NumPy's scalar, and a subclass, as the plain value that it is."""
    if isinstance(value, str):
        return str.__str__(value)  # an Enum's own would be its name
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        return item()
    return value


def _outbox() -> Any:
    """Give the way to the owner, where this process runs a cell."""
    for name in _RUNNERS:
        found = getattr(sys.modules.get(name), "speaking", None)
        if found is not None:
            return found
    return None
