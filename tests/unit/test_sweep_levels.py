"""Levels: lists and ranges as people write them, each as a number and in words; parameters put into the work."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies

from nscontainer import options, spec
from nscontainer.errors import SpecError
from nscontainer.experiment import levels, substitute
from nscontainer.experiment.plan import Value, Work


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("cpu", "10%,20%, 50%,100%", ("10%", "20%", "50%", "100%")),
        ("cpu", "50%", ("50%",)),
        ("cpu", "50%,none", ("50%", None)),
        ("cpu", "10%..50%:10%", ("10%", "20%", "30%", "40%", "50%")),
        ("cpu", "10%..45%:20%", ("10%", "30%")),  # where the steps don't meet the end
        ("cpu", "0.1..0.3:0.1", ("0.1", "0.2", "0.3")),  # in floats 0.30000000000000004 is over it
        ("cpu", "5%,10%..30%:10%,2", ("5%", "10%", "20%", "30%", "2")),
        ("memory", "64M..1G:x2", ("64M", "128M", "256M", "512M", "1024M")),
        ("memory", "1G..2G:512M", ("1G", "1.5G", "2G")),
        ("cpu_shares", "512..516", ("512", "513", "514", "515", "516")),
        ("timeout", "500ms..1s:250ms", ("500ms", "750ms", "1000ms")),
        ("network", "none,bridge", ("none", "bridge")),
        ("image", "host,python:3.12", ("host", "python:3.12")),
        ("cpuset_cpus", "0;0,1;0-3", ("0", "0,1", "0-3")),
        ("cpuset_cpus", "0/0,1", ("0", "0,1")),
        ("n", "1000,2000", (1000, 2000)),
        ("n", "1..8:x2", (1, 2, 4, 8)),
        ("n", "-2..2", (-2, -1, 0, 1, 2)),
        ("n", "0.5..2:0.5", (0.5, 1.0, 1.5, 2.0)),
        ("n", "1.5,true,False,text,../x", (1.5, True, False, "text", "../x")),
    ],
)
def test_lists_and_ranges(name: str, text: str, expected: tuple[Value, ...]) -> None:
    """Each is read as its levels, as written; a range has both its ends."""
    found = levels.parse_list(name, text)
    assert found == expected
    assert [type(level) for level in found] == [type(level) for level in expected]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("cpu", "10%,10%", "twice"),
        ("cpu", "0.1,10%", "is the same"),
        ("memory", "1G,1024M", "is the same"),
        ("memory", "none,-1", "is the same"),
        ("n", "1,1.0", "twice"),
        ("cpu", "10%,,20%", "empty part"),
        ("cpu", "10%,", "empty part"),
        ("cpu", "", "empty part"),
        ("cpu", "100%..10%:10%", "backward"),
        ("cpu", "10%..100%", "no step"),
        ("memory", "1..4G:1G", "unit missing"),
        ("memory", "64M..1G:64", "unit missing"),
        ("cpu", "10%..100%:0%", "never"),
        ("n", "1..8:x1", "never"),
        ("n", "0..8:x2", "never"),
        ("n", "1..5000", "more than 1000"),
        ("cpu", "a,b", "not an amount of CPU"),
        ("cpu", "a..b:c", "can't be read"),
        ("memory", "64X..1G:x2", "can't be read"),
        ("cpu_shares", "1.5,2", "not a whole number"),
    ],
)
def test_what_can_not_be_meant_is_refused(name: str, text: str, message: str) -> None:
    """In one line that names the option, with a hint."""
    with pytest.raises(SpecError, match=message) as caught:
        levels.parse_list(name, text)
    assert name.replace("_", "-") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "level", "number", "label", "unit"),
    [
        ("cpu", "20%", 0.2, "20 %", "CPUs"),
        ("cpu", 1.5, 1.5, "150 %", "CPUs"),
        ("cpu", None, None, "no limit", "CPUs"),
        ("memory", "256M", 256 << 20, "256 MiB", "bytes"),
        ("memory", "1.5G", 3 << 29, "1.5 GiB", "bytes"),
        ("memory_swap", "-1", None, "no limit", "bytes"),
        ("storage", "size=1G", 1 << 30, "1 GiB", "bytes"),
        ("disk_read", "5M", 5 << 20, "5 MiB/s", "bytes/s"),
        ("disk_write_iops", "100", 100, "100 ops/s", "ops/s"),
        ("net_rate", "10mbit", 10_000_000, "10 Mbit/s", "bits/s"),
        ("net_delay", "50ms", 0.05, "50 ms", "s"),
        ("net_loss", "1%", 0.01, "1 %", ""),
        ("timeout", 2, 2.0, "2 s", "s"),
        ("cpu_period", "100000", 100_000, "100 ms", "µs"),
        ("pids_limit", "0", None, "no limit", ""),
        ("cpuset_cpus", "0,1", "0,1", "CPUs 0,1", ""),
        ("network", "none", "none", "none", ""),
        ("n", 1000, 1000, "1000", ""),
        ("n", True, True, "true", ""),
    ],
)
def test_one_level(name: str, level: Value, number: Value, label: str, unit: str) -> None:
    """As a number in the base unit, and in words."""
    assert levels.number(name, level) == number
    assert levels.label(name, level) == label
    assert levels.unit(name) == unit


def test_each_single_limit_can_be_varied_and_is_one_of_the_spec() -> None:
    """No option of the group is forgotten; a repeated one takes lists already."""
    single = {o.dest for o in options.OPTIONS if o.group == "limits" and o.action == "store"}
    assert {name for name in spec.LIMIT_OPTIONS if levels.is_limit(name)} == single
    assert levels.is_option("image")
    assert not levels.is_limit("network")
    assert not levels.is_option("ulimits")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("cpu", "20%", None),
        ("cpu", ["20%", 0.5], ("20%", 0.5)),
        ("cpu", "20%,50%", ("20%", "50%")),
        ("cpuset_cpus", "0,1", None),
        ("cpuset_cpus", ["0,1", "0"], ("0,1", "0")),
        ("pids_limit", range(10, 30, 10), (10, 20)),
        ("volumes", ["/a:/b", "/c:/d"], None),
        ("ulimits", ["nofile=64"], None),
        ("env", {"A": "1,2"}, None),
        ("workdir", "/a,b", None),
    ],
)
def test_what_is_a_sweep_and_what_is_not(name: str, value: Any, expected: Any) -> None:
    """A list in a limit is; an option that takes a list has it as before."""
    assert levels.given(name, value) == expected


@pytest.mark.parametrize(
    ("name", "value"), [("hostname", ["a", "b"]), ("sample", "1ms,2ms"), ("user", ("a", "b"))]
)
def test_other_options_are_not_varied(name: str, value: Any) -> None:
    """They are refused in one line."""
    with pytest.raises(SpecError, match="can't be varied"):
        levels.given(name, value)


@pytest.mark.parametrize("value", [[], [[1]], [float], ["20%", {}]])
def test_no_levels_from_python(value: Any) -> None:
    with pytest.raises(SpecError):
        levels.given("cpu", value)


def test_numbers_of_numpy_are_plain_ones() -> None:
    """So that a plan is JSON."""
    import numpy as np

    found = levels.parameter("n", list(np.array([1, 2])))
    assert found == (1, 2)
    assert all(type(level) is int for level in found)


@pytest.mark.parametrize(
    "text", ["n", "1n=1", "a-b=1", "class=1", "cpu=1,2", "wall_s=1", "ä=1", "=1", "n="]
)
def test_names_of_parameters(text: str) -> None:
    """One that can't be a variable, or is taken, is refused."""
    with pytest.raises(SpecError):
        levels.parse_parameter(text)


def test_a_parameter() -> None:
    assert levels.parse_parameter("n=1000,2000") == ("n", (1000, 2000))
    assert levels.parse_parameter("expr=a=b,c") == ("expr", ("a=b", "c"))
    assert levels.parameter("n", 5) == (5,)
    assert levels.parameter("n", "1..3") == (1, 2, 3)


@given(
    first=strategies.integers(1, 5000),
    step=strategies.integers(1, 500),
    count=strategies.integers(1, 200),
    digits=strategies.integers(0, 3),
)
def test_a_range_is_exact(first: int, step: int, count: int, digits: int) -> None:
    """Whatever its decimals: as many levels as steps, the last one included."""
    scale = 10**digits

    def written(value: int) -> str:
        return f"{value // scale}.{value % scale:0{digits}d}" if digits else str(value)

    last = first + (count - 1) * step
    found = levels.parse_list("cpu", f"{written(first)}%..{written(last)}%:{written(step)}%")
    assert len(found) == count
    numbers = [levels.number("cpu", level) for level in found]
    assert numbers == pytest.approx([(first + i * step) / scale / 100 for i in range(count)])


@given(text=strategies.text(max_size=30))
def test_any_text_is_levels_or_one_line(text: str) -> None:
    """No other error comes of it, and levels are never none or the same."""
    for name in ("cpu", "memory", "cpuset_cpus", "network", "n"):
        try:
            found = levels.parse_list(name, text)
        except SpecError:
            continue
        assert found
        assert len({levels.number(name, level) for level in found}) == len(found) or name == "n"
        assert all(levels.label(name, level) for level in found)


# --- substitution ----------------------------------------------------------------------------


def test_a_value_stands_where_its_name_stood() -> None:
    """In the exact form only; a shell's own form, other braces and values that look so are left."""
    work = Work(kind="command", command=("sh", "-c", "echo {n} ${n} $n {m} {n:>5} {{x}} {x}"))
    filled = substitute.fill(work, {"n": 5, "x": "{n}"})
    assert filled.command == ("sh", "-c", "echo 5 ${n} $n {m} {n:>5} {{n}} {n}")
    assert substitute.fill(work, {}) is work


def test_a_cell_and_a_script() -> None:
    """In Python true is True, in a shell true."""
    cell = Work(kind="cell", code="x = range({n}); y = {flag}")
    assert substitute.fill(cell, {"n": 3, "flag": True}).code == "x = range(3); y = True"
    script = Work(kind="script", command=("sh", "-s"), stdin="echo {flag}", code="echo {flag}")
    filled = substitute.fill(script, {"flag": True})
    assert (filled.stdin, filled.code) == ("echo true", "echo true")
    assert substitute.environment({"flag": False, "n": 2.5}) == {"flag": "false", "n": "2.5"}


@pytest.mark.parametrize("command", ["echo {n}", "echo $n", "echo ${n}", "echo ${n:-3}"])
def test_a_parameter_that_a_command_uses(command: str) -> None:
    substitute.check(Work(kind="command", command=("sh", "-c", command)), ["n"])


@pytest.mark.parametrize("command", ["head -n 3", "echo $nn", "echo {m}"])
def test_a_parameter_that_occurs_nowhere(command: str) -> None:
    """All its levels would be the same: it is a mistake, said before anything runs."""
    with pytest.raises(SpecError, match="occurs nowhere"):
        substitute.check(Work(kind="command", command=("sh", "-c", command)), ["n"])
