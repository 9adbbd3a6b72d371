"""Values into real containers and out of them; and what a hostile cell may do about them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nscontainer import api
from nscontainer.errors import SpecError, TransferError
from tests.integration.inside import holdings

pytestmark = [
    pytest.mark.root,
    pytest.mark.userns,
    pytest.mark.once,
    pytest.mark.usefixtures("engine"),
]

MB = 1_000_000
FRAME = pd.DataFrame(
    {"a": [1, 2], "b": ["x", None], "t": pd.date_range("2026", periods=2, tz="UTC")}
)
HOSTILE = """
import array, json, os, pickle, socket
channel = socket.socket(fileno=os.dup(3))
def say(content, fds=()):
    body = json.dumps({"msg_type": "values", "content": content}).encode()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    channel.sendmsg([len(body).to_bytes(4, "big") + body], rights)
fds = [f"/proc/self/fd/{n}" for n in range(3, 20)]
out = next(int(fd[14:]) for fd in fds if os.path.lexists(fd) and "(deleted)" in os.readlink(fd))
"""


def refused(code: str, **options: Any) -> dict[str, str]:
    """Run a cell whose values don't all come; the reasons."""
    with pytest.raises(TransferError) as caught:
        pytest.fail(str(api.run_cell(code, **options).outputs))
    return caught.value.refused


@pytest.mark.parametrize(
    "options",
    [{}, {"cold": True}, {"share": ["user"]}, {"cap_drop": ["ALL"], "read_only": True}],
    ids=str,
)
def test_there_and_back(options: dict[str, Any]) -> None:
    """Variables are in the cell and its values come out, from a warm and a cold interpreter, as anybody."""
    x = np.arange(3 * MB, dtype=np.float64)
    result = api.run_cell(
        "x[0] = 99; total = float(x.sum()); df['c'] = [0.5, float('nan')]; plain = {'k': (1, None)}",
        inputs={"x": x, "df": FRAME},
        out={"total": "total", "head": "x[:3]", "x": "x", "table": "df", "plain": "plain"},
        **options,
    )
    assert result.ok, result.outputs
    assert result.values["total"] == x.sum() + 99
    assert x[0] == 0
    assert result.values["head"].tolist() == [99, 1, 2]
    np.testing.assert_array_equal(result.values["x"][1:], x[1:])
    pd.testing.assert_frame_equal(result.values["table"], FRAME.assign(c=[0.5, np.nan]))
    assert result.values["plain"] == {"k": (1, None)}
    result.values["x"][5] = 1  # it's ours now


def test_what_goes_in_is_not_the_containers_until_it_writes() -> None:
    """200 MB come into a container of 64 MB and are read there; written to, they are its own."""
    x = np.ones(25 * MB)
    result = api.run_cell("y = x.sum()", inputs={"x": x}, out={"y": "y"}, memory="64M")
    assert result.ok, result.describe_exit()
    assert result.values["y"] == 25 * MB
    assert not api.run_cell("x += 1", inputs={"x": x}, memory="64M").ok


def test_what_comes_out_is_charged_to_the_container() -> None:
    """A copy in memory is written for it, which a limit counts: over it the container is killed."""
    code = "import numpy as np; x = np.ones(6_000_000)"
    enough = api.run_cell(code, out={"x": "x"}, memory="160M")
    assert enough.ok, enough.describe_exit()
    assert (enough.totals["memory.peak"] or 0) > 96 * MB
    over = api.run_cell(code, out={"x": "x"}, memory="80M")
    assert over.oom_killed
    assert over.values == {}


def test_before_anything_is_made(engine: Path) -> None:
    """What can't go in or be asked for is a SpecError, and no container has come to exist."""
    before = holdings(engine)
    for options in (
        {"inputs": {"v": iter(lambda: 1, 1)}},
        {"inputs": {"no name": 1}},
        {"out": {"r": "1 +"}},
        {"out": {"for": "1"}},
    ):
        with pytest.raises(SpecError):
            api.run_cell("pass", **options)
    assert holdings(engine) == before


def test_a_cell_that_fails_gives_no_values() -> None:
    """Nor does one that is killed; one that leaves with exit code 0 does."""
    assert api.run_cell("x = 1; 1 / 0", out={"x": "x"}).values == {}
    assert api.run_cell("x = 1; raise SystemExit(2)", out={"x": "x"}).values == {}
    assert api.run_cell("x = 1\nwhile True: pass", out={"x": "x"}, timeout="0.3s").values == {}
    assert api.run_cell("x = 1; raise SystemExit", out={"x": "x"}).values == {"x": 1}


def test_what_cannot_come_out_costs_the_others_nothing() -> None:
    """The error names it and why; the result has the rest."""
    with pytest.raises(TransferError) as caught:
        api.run_cell("x = 1", out={"a": "x", "b": "object()", "c": "nope"})
    assert caught.value.refused.keys() == {"b", "c"}
    assert caught.value.result.values == {"a": 1}  # type: ignore[attr-defined]
    assert caught.value.result.ok  # type: ignore[attr-defined]


def test_a_class_that_the_container_cannot_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its variable is named in the cell's own error, in one line, and the cell doesn't run."""
    (tmp_path / "only_here.py").write_text("class Thing: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here  # type: ignore[import-not-found]

    thing = only_here.Thing()
    (tmp_path / "only_here.py").unlink()
    result = api.run_cell("print('ran')", inputs={"thing": thing})
    assert result.exit_code == 1
    assert "ran" not in result.stdout
    (error,) = [output for output in result.outputs if output["output_type"] == "error"]
    assert error["ename"] == "InputError"
    assert "variable 'thing' can't be made in the container: ModuleNotFoundError" in error["evalue"]
    assert len(error["traceback"]) == 1


def test_with_trust_anything_comes() -> None:
    """A Counter, which has no safe form, by pickle; without trust it is refused."""
    code = "import collections; c = collections.Counter('aab')"
    assert api.run_cell(code, out={"c": "c"}, trust=True).values["c"] == {"a": 2, "b": 1}
    assert "--trust" in refused(code, out={"c": "c"})["c"]
    told = refused("class Mine: pass", out={"m": "Mine()"}, trust=True)["m"]
    assert "its pickle can't be loaded here" in told


# --- hostile -----------------------------------------------------------------------------------


def test_a_hostile_cells_pickle_is_not_loaded(tmp_path: Path) -> None:
    """Written where values are expected, by code that speaks for the runner, it stays bytes."""
    proof = tmp_path / "proof"
    code = f"""{HOSTILE}
class Attack:
    def __reduce__(self): return os.mkdir, ({str(proof)!r},)
data = pickle.dumps(Attack())
tree = json.dumps({{"values": {{"r": {{"t": "pickle", "size": len(data), "sizes": []}}}}}}).encode()
os.pwrite(out, data, 0); os.pwrite(out, tree, 4096)
say({{"at": 4096, "size": len(tree)}})
os._exit(0)
"""
    assert "a pickle, which only --trust allows" in refused(code, out={"r": "r"})["r"]
    assert not proof.exists()


def test_descriptors_that_a_cell_sends_are_dropped() -> None:
    """A thousand of them, of pipes and of files, asked for or not: none stays open here."""
    before = len(os.listdir("/proc/self/fd"))
    code = f"""{HOSTILE}
r, w = os.pipe()
for _ in range(100):
    say({{"at": 0, "size": 0}}, [r, w, out, 0, 1, 2, 3] if _ % 2 else [r] * 16)
"""
    assert api.run_cell(code, out={"r": "1"}).values == {"r": 1}
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_cell_that_closes_every_descriptor_loses_no_file_of_its_own(tmp_path: Path) -> None:
    """Where the file's number is another file's by then, nothing is written to that."""
    own = tmp_path / "own"
    own.write_text("precious")
    code = f"""{HOSTILE}
fd = os.open({str(own)!r}, os.O_RDWR)
os.dup2(fd, out)
"""
    options: dict[str, Any] = {
        "out": {"r": "1"},
        "volumes": [f"{tmp_path}:{tmp_path}"],
        "share": ["user"],
    }
    assert "has closed file descriptor" in refused(code, **options)["r"]
    assert own.read_text() == "precious"


def test_a_cell_that_promises_what_is_not_there() -> None:
    """Descriptions of nothing, of holes, of too much; or nothing at all."""
    for content in ('{"at": 0, "size": 10**12}', '{"at": 1 << 40, "size": 2}', "{}"):
        told = refused(
            f"{HOSTILE}os.ftruncate(out, (1 << 40) + 2)\nsay({content})\nos._exit(0)",
            out={"r": "1"},
        )
        assert told["r"].startswith("what the cell has written can't be read")
    assert "without giving its values" in refused("import os; os._exit(0)", out={"r": "1"})["r"]


def test_nothing_is_left_open() -> None:
    """Ten cells with values, of which some fail, leave no descriptor here."""
    x = np.ones(MB)
    api.run_cell("pass", inputs={"x": x}, out={"y": "x"})
    before = sorted(os.listdir("/proc/self/fd"))
    for number in range(10):
        api.run_cell("assert n % 2", inputs={"x": x, "n": number}, out={"y": "x"})
    assert sorted(os.listdir("/proc/self/fd")) == before
