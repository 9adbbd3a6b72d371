"""``-i``, ``--out`` and ``--trust`` on the magic's line; the hint for what only the notebook has."""

from __future__ import annotations

import math
import types
from typing import Any

import pytest

from nscontainer import errors
from nscontainer.measure import RunResult
from nscontainer_magics import cell_line, variables
from tests.unit import factories


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["x"], {"x": "x"}),
        (["x,df"], {"x": "x", "df": "df"}),
        (["x, df", "y=x"], {"x": "x", "df": "df", "y": "x"}),
        (["x,x", "x"], {"x": "x"}),
        (["a = b"], {"a": "b"}),
    ],
)
def test_variables_to_take(texts: list[str], found: dict[str, str]) -> None:
    """Names, more of them with commas, and a name that is another one inside."""
    assert variables.parse_inputs(texts) == found


@pytest.mark.parametrize(
    "text", ["", "x,", "x y", "1", "x=1", "x=", "=x", "for", "df.a", "x=y=z", "x,x=y"]
)
def test_what_is_no_variable(text: str) -> None:
    """It is a SpecError of one line with an example."""
    with pytest.raises(errors.SpecError) as caught:
        variables.parse_inputs([text])
    assert caught.value.hint


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["a"], {"a": "a"}),
        (["a,b=x + 1"], {"a": "a", "b": "x + 1"}),
        (["m=max(a,b),c", "d=x[1,2]"], {"m": "max(a,b)", "c": "c", "d": "x[1,2]"}),
        (["t=(1,2),e=a==b"], {"t": "(1,2)", "e": "a==b"}),
        (["d=dict(a=1,b=2), s='a,b',l=[i for i in (1,2)]"],
         {"d": "dict(a=1,b=2)", "s": "'a,b'", "l": "[i for i in (1,2)]"}),
        (["f=lambda x,y: x"], {"f": "lambda x,y: x"}),
    ],
)  # fmt: skip
def test_values_to_bring(texts: list[str], found: dict[str, str]) -> None:
    """Commas within an expression are its own."""
    assert variables.parse_out(texts) == found


@pytest.mark.parametrize(
    "text", ["", "a,", "len(x)", "1", "a=", "a=1 +", "a==b", "t=1,2", "a=(", "a=1;b", "a,a=2"]
)
def test_what_is_no_value(text: str) -> None:
    """A bare expression needs a name; one that isn't Python's is refused here."""
    with pytest.raises(errors.SpecError) as caught:
        variables.parse_out([text])
    assert caught.value.hint
    assert "\n" not in errors.one_line(caught.value)


def test_on_the_line() -> None:
    """They are the magic's own and don't reach the spec."""
    asked = cell_line.parse("-i x,df --in y=x --out 'total=x.sum() + 1' --out a,b --trust -o r")
    assert asked == cell_line.CellLine(
        build={},
        output="r",
        inputs={"x": "x", "df": "df", "y": "x"},
        out={"total": "x.sum() + 1", "a": "a", "b": "b"},
        trust=True,
    )


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("--sh -i x", "-i is for Python cells"),
        ("--sh --out x", "--out is for Python cells"),
        ("--trust", "nothing to trust"),
        ("-o r --out r=1", "both set 'r'"),
        ("-i", "expected one argument"),
    ],
)
def test_what_does_not_go_together(line: str, why: str) -> None:
    """It is told before anything is made."""
    with pytest.raises(errors.SpecError, match=why):
        cell_line.parse(line)


def _failed(ename: str, evalue: Any) -> RunResult:
    error = {"ename": ename, "evalue": evalue, "traceback": []}
    message = {"msg_type": "error", "content": error}
    return RunResult.from_record(
        factories.record(exit_code=1), b"", outputs=[message], provenance=factories.host()
    )


NOTEBOOK = {
    "x": 1,
    "f": lambda: 1,
    "math": math,
    "m": types.ModuleType("numpy.linalg"),
    "C": type("C", (), {}),
}


@pytest.mark.parametrize(
    ("ename", "evalue", "hint"),
    [
        ("NameError", "name 'x' is not defined", "-i x takes it along"),
        ("NameError", "name 'math' is not defined", "import math in the cell"),
        ("NameError", "name 'm' is not defined", "import numpy.linalg as m in the cell"),
        ("NameError", "name 'f' is not defined", "define it in the cell"),
        ("NameError", "name 'C' is not defined", "define it in the cell"),
        ("NameError", "name 'y' is not defined", None),
        ("NameError", 3, None),
        ("KeyError", "name 'x' is not defined", None),
    ],
)
def test_the_hint_for_a_name_that_the_notebook_has(
    ename: str, evalue: Any, hint: str | None
) -> None:
    """A variable can be taken along, a module imported, a function defined; else nothing is said."""
    said = variables.missing(_failed(ename, evalue), NOTEBOOK)
    assert (said is None) == (hint is None)
    assert hint is None or (said is not None and said.endswith((hint, "or import it there")))


def test_only_what_may_be_taken_is_completed() -> None:
    """Neither modules nor functions, nor what IPython keeps."""
    namespace = {**NOTEBOOK, "_": 1, "In": [], "df": 2}
    assert variables.to_take(namespace, ["In"]) == ["x", "df"]
