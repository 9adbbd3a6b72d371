"""The options of a sweep, once: what ``nscontainer sweep`` and ``%%container`` both offer.

They stand beside the run options (:mod:`nscontainer.options`), whose limits may have lists as values.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Final

from nscontainer import units
from nscontainer.errors import SpecError
from nscontainer.experiment import levels
from nscontainer.options import OPTIONS

MOST: Final = 100_000
"""No number of repeats is larger: each is a container."""

# fmt: off
_WITH_VALUE: Final[tuple[tuple[str, str, str], ...]] = (
    ("--repeat", "N", "how many times each combination runs (default: 1)"),
    ("--param", "NAME=LIST", "vary a free parameter, {NAME} in what runs: n=1000,2000 (repeat)"),
    ("--warmup", "N", "runs of each combination before, uncounted (default: 0)"),
    ("--until", "SHARE", "go on repeating until the median is known as narrowly as this: 2%%"),
    ("--most-repeats", "N", "with --until, never more repeats than this (default: 100)"),
    ("--metric", "NAME", "what is judged and drawn: wall_s (default), or a value that the work reports"),
    ("--seed", "N", "of the order of the runs, to have the same again"),
    ("--parallel", "N", "so many runs at once, each on CPUs of its own (default: 1)"),
)
_FLAGS: Final[tuple[tuple[str, str], ...]] = (
    ("--grid", "every combination of the lists (the default)"),
    ("--zip", "the first of each list together, then the second, …"),
    ("--fresh", "begin anew, also where an earlier try was interrupted"),
)
# fmt: on
_NAMES: Final = tuple(
    flag.removeprefix("--").replace("-", "_") for flag, *_ in (*_WITH_VALUE, *_FLAGS)
)


def add_to(parser: argparse.ArgumentParser, *, magic: bool) -> None:
    """Add the options to a parser, under a heading of their own; each one's default is None or False."""
    section = parser.add_argument_group(
        "sweep", "a list or a range in a limit, --image or --network is varied"
    )
    for flag, metavar, words in _WITH_VALUE:
        action = "append" if flag == "--param" else "store"
        more = "; a cell has it as a variable as well" if flag == "--param" and magic else ""
        section.add_argument(flag, metavar=metavar, action=action, help=words + more)
    for flag, text in _FLAGS:
        section.add_argument(flag, action="store_true", help=text)


def rows() -> list[tuple[str, str, str]]:
    """Give a row an option for the documentation: flag and value, what it does, Python's keyword."""
    found = [(f"{flag} {metavar}", text, flag) for flag, metavar, text in _WITH_VALUE]
    found += [(flag, text, flag) for flag, text in _FLAGS]
    keywords = {
        "--param": "params",
        "--grid": "zip=False",
        "--zip": "zip=True",
        "--fresh": "resume=False",
    }
    return [
        (shown, text.replace("%%", "%"), keywords.get(flag, flag[2:].replace("-", "_")))
        for shown, text, flag in found
    ]


def is_sweep(namespace: argparse.Namespace) -> bool:
    """Tell whether what was parsed is a sweep: a list, a range, or one of the options here."""
    given = vars(namespace)
    return any(given.get(name) for name in _NAMES) or first_list(namespace) is not None


def first_list(namespace: argparse.Namespace) -> tuple[str, str] | None:
    """Give the first option (its flag, its value) that has a list or a range, None where none has."""
    given = vars(namespace)
    for option in OPTIONS:
        value = given.get(option.dest)
        if isinstance(value, str) and levels.is_list(option.dest, value):
            return option.flag, value
    return None


def resumes(namespace: argparse.Namespace) -> bool:
    """Tell whether an unfinished sweep of the same kind is to be gone on with."""
    return not namespace.fresh


def to_sweep_kwargs(
    namespace: argparse.Namespace, build_kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Give the keyword arguments for :func:`nscontainer.sweeps.prepare`.

    Parameters
    ----------
    namespace
        What a parser filled by :func:`add_to` returned.
    build_kwargs
        What :func:`nscontainer.options.to_build_kwargs` made of it: lists and ranges in it become
        tuples of levels; the limit ``none`` is left out.

    Raises
    ------
    SpecError
        A level, a parameter or a number can't be used.
    """
    kwargs: dict[str, Any] = {}
    for name, value in build_kwargs.items():
        several = levels.given(name, value)
        if several is not None:
            kwargs[name] = several
        elif not (levels.is_limit(name) and str(value).strip().lower() == "none"):
            kwargs[name] = value
    if namespace.grid and namespace.zip:
        raise SpecError("--grid and --zip exclude each other", hint="give one of them")
    kwargs |= _numbers(namespace)
    if namespace.zip:
        kwargs["zip"] = True
    if namespace.metric is not None:
        kwargs["metric"] = namespace.metric
    if namespace.until is not None:
        kwargs["until"] = _until(namespace.until)
    params: dict[str, Any] = {}
    for text in namespace.param or ():
        name, values = levels.parse_parameter(text)
        if name in params:
            raise SpecError(f"parameter {name!r} is given twice", hint=f"as {name}=1,2")
        params[name] = values
    if params:
        kwargs["params"] = params
    return kwargs


def _numbers(namespace: argparse.Namespace) -> dict[str, int]:
    found = {}
    for name, least in (
        ("repeat", 1), ("warmup", 0), ("most_repeats", 1), ("seed", 0), ("parallel", 1),
    ):  # fmt: skip
        text = getattr(namespace, name)
        if text is None:
            continue
        most = (1 << 63) - 1 if name == "seed" else MOST
        if not (text.isascii() and text.isdigit()) or not least <= int(text[:20]) <= most:
            message = f"{name.replace('_', '-')} {text!r} is not a whole number from {least} on"
            raise SpecError(message, hint=f"as --{name.replace('_', '-')} 5")
        found[name] = int(text)
    return found


def _until(text: str) -> float:
    share = units.parse_share(text)
    if not 0 < share < 1:
        message = f"until {text!r} is no width of an interval"
        raise SpecError(message, hint="a share of the median, as 2%")
    return share
