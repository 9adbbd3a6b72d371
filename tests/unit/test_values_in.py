"""Values on their way in, and the files that carry values both ways."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nscontainer.errors import SpecError
from nscontainer.values import inputs, memory
from nscontainer.values.outfile import OutFile
from tests.unit.runner_harness import RUNNER
from tests.unit.values_harness import into, through

TABLE = pd.DataFrame(
    {"a": [1, 2], "s": ["x", None], "t": pd.date_range("2026", periods=2, tz="UTC")}
)

# --- in ----------------------------------------------------------------------------------------


def test_what_goes_in_is_shared_until_written_to() -> None:
    """The cell's array can be written to and the notebook's stays; two names of one thing are one."""
    array = np.arange(1_000_000)
    found = into(x=array, y=[array], f=TABLE, text="a" * 100_000, t=array.reshape(1000, 1000).T)
    assert found["y"][0] is found["x"]
    found["x"][0] = 99
    assert array[0] == 0
    assert not found["x"].flags.owndata
    pd.testing.assert_frame_equal(found["f"], TABLE)
    np.testing.assert_array_equal(found["t"][:, 1:], array.reshape(1000, 1000).T[:, 1:])


def test_read_only_stays_so() -> None:
    """An array that can't be written to can't be inside."""
    array = np.arange(10)
    array.flags.writeable = False
    assert not into(x=array)["x"].flags.writeable


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (threading.Lock(), "variable 'v', a _thread.lock, can't be taken .*cannot pickle"),
        ([(one for one in "ab")], "variable 'v', a list, can't .*cannot pickle 'generator'"),
        (np, "variable 'v' can't .*: numpy is a module"),
        (lambda: 1, "variable 'v', a function, can't be taken"),
    ],
)
def test_what_cannot_go_in_is_a_spec_error(value: Any, why: str) -> None:
    """Before anything is made, one line says which variable, what it is, why, and what to do."""
    with pytest.raises(SpecError, match=why) as caught:
        into(ok=1, v=value)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


MAIN = """
import sys
from nscontainer.values import inputs
def f(): pass
class C: pass
for value in (f, C, C(), [f], lambda: 1):
    try:
        with inputs.packed({"v": value}):
            print("packed")
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_what_the_notebook_defines_is_named() -> None:
    """Functions, classes and instances of __main__ would be names without a meaning in the cell."""
    done = subprocess.run([sys.executable, "-c", MAIN], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    for line, what in zip(
        lines, ["function f", "class C", "class C", "function f", "function <lambda>"], strict=True
    ):
        assert line.startswith("SpecError variable 'v' can't be taken into the container: ")
        assert f"{what} is defined in the notebook" in line


def test_names_are_looked_up() -> None:
    """A rename, and a name that isn't there with the closest one."""
    assert inputs.look_up({"y": "x", "x": "x"}, {"x": 1}) == {"y": 1, "x": 1}
    with pytest.raises(SpecError, match="no variable 'dff'") as caught:
        inputs.look_up({"dff": "dff"}, {"df": 1})
    assert caught.value.hint == "did you mean df?"


# --- the files ---------------------------------------------------------------------------------


def test_a_file_that_is_still_written_is_copied() -> None:
    """What somebody could change while it is read is read once, into memory of our own."""
    with OutFile() as file:
        writer = os.dup(file.fd)
        os.pwrite(writer, b"a" * 8192 + b"{}", 0)
        buffers, tree = file.read({"at": 8192, "size": 2})
        os.pwrite(writer, b"b" * 8194, 0)
        assert bytes(tree) == b"{}"
        assert set(buffers) == {ord("a")}
        os.close(writer)


def test_what_goes_in_cannot_be_written_by_its_descriptor() -> None:
    """The descriptor that a container gets is for reading, and no writer is left."""
    with inputs.packed({"x": b"x" * 10}) as small, inputs.packed({"x": np.ones(10**6)}) as large:
        for made in (small, large):
            assert fcntl.fcntl(made.fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
            assert memory.is_written_by_nobody(made.fd)


def test_descriptors_are_closed() -> None:
    """Neither way leaves one open, whatever fails."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SpecError):
        into(a=np.ones(10**6), b=threading.Lock())
    through(5)
    with pytest.raises(ValueError, match="object"):
        through(object())
    with OutFile():
        pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_both_sides_agree() -> None:
    """The runner stands alone, so it has its own copy of the one number that both need."""
    assert f"\nALIGN = {memory.ALIGN}\n" in (RUNNER / "values.py").read_text()
