"""The runner's comms: what widgets say comes out, what is sent in reaches them, between cells too.

And rich output where there is no IPython, which has neither.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.unit import runner_harness as harness
from tests.unit.test_runner_sessions import Live, run

OPEN = "import comm\nc = comm.create_comm('jupyter.widget', {'a': 1}, buffers=[b'\\0\\xff', memoryview(b'two')])\n"


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """End what a failed test left."""
    yield
    harness.end_all()


@pytest.mark.parametrize("mode", ["zygote", "cold"])
def test_a_comm_speaks_to_the_owner(mode: str):
    """Open, message and close come in order with the rest, buffers as base64 beside the content."""
    cell = harness.run(OPEN + "print('x')\nc.send({'b': 2}, {'m': 3})\nc.close()", mode)
    kinds = [message["msg_type"] for message in cell.messages]
    assert kinds == ["comm_open", "stream", "comm_msg", "comm_close", "execute_reply"]
    opened, _, said, _, _ = cell.messages
    assert opened["content"]["target_name"] == "jupyter.widget"
    assert opened["content"]["data"] == {"a": 1}
    assert [base64.b64decode(b) for b in opened["buffers"]] == [b"\0\xff", b"two"]
    assert said["content"] == {"comm_id": opened["content"]["comm_id"], "data": {"b": 2}}
    assert said["metadata"] == {"m": 3}


def test_buffers_too_large_for_the_channel_are_the_cells_error():
    """One line that says how large; nothing of it is sent."""
    cell = harness.run(OPEN + "c.send({}, buffers=[bytes(65 << 20)])", "cold")
    assert "68157440 bytes in a comm message's buffers" in cell.traceback
    assert cell.of("comm_msg") == []


def test_between_cells_handlers_are_called_and_the_end_is_told():
    """What they print comes before ``comm_done``; the next cell sees what they did."""
    owner = Live(harness.launch()).attach()
    run(
        owner,
        OPEN
        + "def heard(m):\n    print(m['content']['data'], m['buffers'])\n    global x\n    x = 1\nc.on_msg(heard)",
    )
    comm_id = owner.of("comm_open")[0]["comm_id"]
    owner.messages.clear()
    owner.send("comm_msg", comm_id=comm_id, data={"k": "v"})
    assert owner.read("comm_done") is not None
    assert owner.text() == "{'k': 'v'} []\n"
    assert run(owner, "print(x)").text() == "1\n"
    owner.send("comm_close", comm_id=comm_id, data={})
    assert owner.read("comm_done") is not None
    run(owner, "print(comm.get_comm_manager().comms)")
    assert owner.text() == "{}\n"


@pytest.mark.parametrize("mode", harness.MODES)
def test_messages_for_comms_that_are_not_there(mode: str):
    """Before any cell, after a close, in plain Python: they are answered and nothing is said."""
    owner = Live(harness.launch(mode)).attach()
    owner.send("comm_msg", comm_id="x", data={})
    assert owner.read("comm_done") is not None
    assert [message["msg_type"] for message in owner.messages] == ["comm_done"]
    assert run(owner, "print(1)").text() == "1\n"


def test_without_the_package_comm_nothing_is_different():
    """A shell is made and warmed, and has no kernel to offer; only the cell's own import fails."""
    code = (
        f"import sys\nsys.path.insert(0, {str(harness.REPO)!r})\nsys.modules['comm'] = None\n"
        "from nscontainer import runner\nassert runner.preload()\n"
        "from IPython import get_ipython\nassert get_ipython().kernel is None\n"
        "get_ipython().run_cell('import comm')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr


# --- without IPython -----------------------------------------------------------------------------


def test_plain_representations():
    """All ``_repr_*_`` methods, bundles with metadata, display(raw=True), updates by id."""
    code = """
class Rich:
    def _repr_mimebundle_(self, **_): return {'text/x-a': 'a'}, {'text/x-a': {'m': 1}}
    def _repr_svg_(self): return '<svg/>'
    def _repr_markdown_(self): return '*m*'
    def _repr_latex_(self): return '$l$'
    def _repr_json_(self): return {'k': (1, None)}, {'expanded': True}
    def _repr_jpeg_(self): return b'\\xff\\xd8'
    def __repr__(self): return 'Rich()'
display(Rich(), display_id='one', metadata={'text/html': {}})
display({'text/plain': 'new'}, raw=True, display_id='one', update=True)
"""
    cell = harness.run(code, "plain")
    (shown,), (changed,) = cell.of("display_data"), cell.of("update_display_data")
    assert shown["data"] == {
        "text/x-a": "a",
        "image/svg+xml": "<svg/>",
        "text/markdown": "*m*",
        "text/latex": "$l$",
        "application/json": {"k": [1, None]},
        "image/jpeg": base64.b64encode(b"\xff\xd8").decode(),
        "text/plain": "Rich()",
    }
    assert shown["metadata"] == {
        "text/x-a": {"m": 1},
        "application/json": {"expanded": True},
        "text/html": {},
    }
    assert changed["data"] == {"text/plain": "new"}
    assert changed["transient"] == {"display_id": "one"}


def test_plain_an_object_that_shows_itself():
    """``_ipython_display_`` is called, and nothing else is shown."""
    code = "class Own:\n    def _ipython_display_(self): print('mine')\ndisplay(Own())\nOwn()"
    cell = harness.run(code, "plain")
    assert cell.text() == "mine\nmine\n"
    assert cell.of("display_data") == cell.of("execute_result") == []


def test_plain_a_representation_that_fails():
    """Its traceback is told, the others are shown, and the cell goes on, as with IPython."""
    code = "class Bad:\n    def _repr_html_(self): 1 / 0\n    def __repr__(self): return 'Bad()'\nBad()"
    cell = harness.run(code, "plain")
    assert cell.of("execute_result")[0]["data"] == {"text/plain": "Bad()"}
    assert "ZeroDivisionError" in cell.text("stderr")
    assert "runner" not in cell.text("stderr")
    assert cell.exit_code == 0


def test_plain_a_figure_that_is_displayed():
    """display(figure) and a figure as the last value are pictures, whichever way it was made."""
    import matplotlib as mpl

    site = os.path.dirname(os.path.dirname(mpl.__file__))
    code = (
        f"import sys\nsys.path.append({site!r})\nfrom matplotlib.figure import Figure\n"
        "f = Figure()\nf.subplots()\ndisplay(f)\nf"
    )
    cell = harness.run(code, "plain")
    for content in (*cell.of("display_data"), *cell.of("execute_result")):
        assert content["data"]["image/png"].startswith("iVBOR")
    assert len(cell.of("display_data")) == len(cell.of("execute_result")) == 1
