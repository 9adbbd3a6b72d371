"""The options of a sweep: one table for the shell and the magic, every value checked before anything runs."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from nscontainer import options, sweep_options
from nscontainer.errors import SpecError


def parsed(line: str, *, magic: bool = False) -> argparse.Namespace:
    parser = options.Parser(prog="nscontainer sweep")
    options.add_to(parser, magic=magic)
    sweep_options.add_to(parser, magic=magic)
    namespace: argparse.Namespace = parser.parse_args(line.split())
    return namespace


def kwargs(line: str) -> dict[str, Any]:
    namespace = parsed(line)
    return sweep_options.to_sweep_kwargs(namespace, options.to_build_kwargs(namespace))


@pytest.mark.parametrize("magic", [True, False])
def test_no_flag_is_taken_twice_and_help_is_percent_safe(magic: bool) -> None:  # noqa: FBT001
    parser = options.Parser(prog="x")
    options.add_to(parser, magic=magic)
    sweep_options.add_to(parser, magic=magic)
    assert "narrowly as this: 2%" in " ".join(parser.format_help().split())


@pytest.mark.parametrize(
    "line",
    [
        "--cpu 10%,20%",
        "--memory 64M..1G:x2",
        "--cpuset-cpus 0;0,1",
        "--network none,bridge",
        "--repeat 5",
        "--repeat 0",  # refused later, but not taken for a single run
        "--param n=1",
        "--grid",
        "--zip",
        "--warmup 1",
        "--until 2%",
        "--fresh",
        "--seed 0",
    ],
)
def test_what_makes_a_sweep(line: str) -> None:
    assert sweep_options.is_sweep(parsed(line))
    assert sweep_options.is_sweep(parsed(line, magic=True))


@pytest.mark.parametrize(
    "line", ["", "--cpu 20%", "--cpuset-cpus 0,1", "-e A=1,2 -e B=1..2", "-w /a,b", "--cpu none"]
)
def test_what_makes_none(line: str) -> None:
    assert not sweep_options.is_sweep(parsed(line))


def test_all_of_it_as_keyword_arguments() -> None:
    """Lists are tuples as written, numbers numbers; what was not given is left out."""
    line = (
        "--cpu 10%,none --memory 128M --repeat 5 --warmup 1 --until 2% --most-repeats 30 --seed 7 "
        "--parallel 2 --metric items --param n=1..4:x2 --param mode=a,b --zip -e X=1 --timeout none"
    )
    assert kwargs(line) == {
        "cpu": ("10%", None),
        "memory": "128M",
        "repeat": 5,
        "warmup": 1,
        "until": 0.02,
        "most_repeats": 30,
        "seed": 7,
        "parallel": 2,
        "metric": "items",
        "params": {"n": (1, 2, 4), "mode": ("a", "b")},
        "zip": True,
        "env": {"X": "1"},
    }
    assert kwargs("") == {}
    assert sweep_options.resumes(parsed(""))
    assert not sweep_options.resumes(parsed("--fresh"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--repeat 0", "repeat '0'"),
        ("--repeat x", "repeat 'x'"),
        ("--repeat 1.5", "repeat '1.5'"),
        ("--repeat 1000000", "repeat"),
        ("--repeat -1", "repeat"),
        ("--warmup=-1", "warmup"),
        ("--parallel 0", "parallel"),
        ("--until 0%", "until"),
        ("--until 100%", "until"),
        ("--until x", "not a share"),
        ("--grid --zip", "exclude"),
        ("--param n", "no values"),
        ("--param n=1 --param n=2", "twice"),
        ("--param cpu=1", "is an option"),
        ("--cpu 10%,10%", "twice"),
        ("--sample 1ms,2ms", "can't be varied"),
    ],
)
def test_what_is_refused(line: str, message: str) -> None:
    """In one line."""
    with pytest.raises(SpecError, match=message):
        kwargs(line)
