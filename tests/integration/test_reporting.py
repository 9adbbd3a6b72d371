"""``nscontainer.report`` from real containers: its values are in the result, whatever started the cell."""

from __future__ import annotations

import pytest

import nscontainer

pytestmark = [
    pytest.mark.root,
    pytest.mark.userns,
    pytest.mark.once,
    pytest.mark.usefixtures("engine"),
]

CODE = "import nscontainer\nnscontainer.report(items=n, rate=1.5)"


@pytest.mark.parametrize("cold", [False, True])
def test_a_cell_reports(*, cold: bool) -> None:
    """From the warm interpreter and a fresh one; the notebook's messages have nothing of it."""
    messages: list[dict[str, object]] = []
    result = nscontainer.run_cell(
        CODE, inputs={"n": 123}, cold=cold, on_message=messages.append, check=True
    )
    assert result.start_mode == ("cold" if cold else "zygote")
    assert result.reported == {"items": 123, "rate": 1.5}
    assert result.warnings == () or "report-refused" not in {w.code for w in result.warnings}
    assert not [m for m in messages if m["msg_type"] == "report"]


def test_what_a_failed_cell_reported_is_kept() -> None:
    """What was reported before the error or the kill is there; the refused one is the cell's error."""
    code = "import nscontainer, os, signal\nnscontainer.report(a=1)\n"
    result = nscontainer.run_cell(code + "nscontainer.report(cpu_s=2)")
    assert (result.exit_code, result.reported) == (1, {"a": 1})
    assert "'cpu_s' can't be reported" in str(result.outputs)
    result = nscontainer.run_cell(code + "import time\ntime.sleep(60)", timeout="1s")
    assert (result.timed_out, result.reported) == ("wall", {"a": 1})


def test_each_cell_of_a_session_has_its_own() -> None:
    """A session's results don't mix."""
    with nscontainer.session() as session:
        first = session.run_cell("import nscontainer\nnscontainer.report(a=1)")
        second = session.run_cell("nscontainer.report(b=2)")
        third = session.run_cell("pass")
    assert [r.reported for r in (first, second, third)] == [{"a": 1}, {"b": 2}, {}]
