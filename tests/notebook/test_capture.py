"""``--capture NAME`` and IPython's own ``%%capture`` in a real kernel."""

from __future__ import annotations

import pytest

from tests.notebook.kernel import Kernel, run

pytestmark = [pytest.mark.notebook, pytest.mark.root]

SAYS = """\
import sys, os
from IPython.display import HTML, display
print("printed")
print("error", file=sys.stderr)
display(HTML("<b>shown</b>"))
os.system("echo sub")
"the value"
"""


def check_captured(kernel: Kernel, name: str) -> None:
    """Check that a variable has all of it, and can show it."""
    assert run(kernel, f"print(type({name}).__name__)") == "CapturedIO\n"
    assert run(kernel, f"print({name}.stdout, end='')") == "printed\nsub\n"
    assert run(kernel, f"print({name}.stderr, end='')") == "error\n"
    shown = run(kernel, f"print([sorted(o.data)[0] for o in {name}.outputs][:2])")
    assert shown == "['text/html', 'text/plain']\n"
    again = kernel.run(f"{name}.show()")
    assert again.text() == "printed\nsub\n"
    assert again.shown("text/html")[0] == "<b>shown</b>"


def check_result(kernel: Kernel) -> None:
    """Check that the result has all of it too."""
    assert run(kernel, "print(r.stdout, r.stderr, sep='', end='')") == "printed\nsub\nerror\n"
    kinds = run(kernel, "print([o['output_type'] for o in r.outputs if 'data' in o])")
    assert kinds == "['display_data', 'execute_result']\n"


@pytest.mark.parametrize("line", ["", "lab "])
def test_capture(kernel: Kernel, line: str) -> None:
    """Nothing is shown but the card; the variable is IPython's, the result whole; in sessions too."""
    if line:
        run(kernel, "%container create lab")
    cell = kernel.run(f"%%container {line}--capture out -o r\n{SAYS}")
    assert cell.ok, cell.errors()
    assert cell.of("stream") == []
    assert len(cell.of("display_data")) == 1
    assert "nscontainer" in cell.shown("text/html")[0]  # the card
    check_captured(kernel, "out")
    check_result(kernel)
    assert kernel.run(f"%%container {line}--capture out -q\n{SAYS}").messages[2:-1] == []
    if line:
        run(kernel, "%container rm -f lab")


def test_ipythons_own(kernel: Kernel) -> None:
    """``%%capture cap`` around a cell takes the card as well, and the result is whole."""
    cell = kernel.run(f"%%capture cap\n%%container -o r\n{SAYS}")
    assert cell.ok, cell.errors()
    assert cell.of("stream") == cell.of("display_data") == []
    check_captured(kernel, "cap")
    check_result(kernel)
    assert run(kernel, "print(len(cap.outputs))") == "3\n"


def test_a_script(kernel: Kernel) -> None:
    """A shell's cell is captured alike."""
    assert run(kernel, "%%container --sh -q --capture out\necho one; echo two >&2") == ""
    assert run(kernel, "print(out.stdout, out.stderr, sep='', end='')") == "one\ntwo\n"


def test_a_traceback_is_shown(kernel: Kernel) -> None:
    """A cell that fails shows its traceback, and what it said before is captured."""
    cell = kernel.run("%%container -q --capture out\nprint('before')\n1 / 0")
    assert not cell.ok
    first, last = cell.errors()
    assert "ZeroDivisionError: division by zero" in first
    assert last == "ContainerFailed: exit code 1"
    assert run(kernel, "print(out.stdout)") == "before\n\n"


def test_input_is_still_asked(kernel: Kernel) -> None:
    """A question reaches the person."""
    asked: list[str] = []

    def answer(kind: str, content: dict[str, object]) -> None:
        if kind == "input_request":
            asked.append(str(content["prompt"]))
            kernel.client.input("Ada")

    cell = kernel.run("%%container -q --capture out\nprint(input('name? '))", during=answer)
    assert cell.ok, cell.errors()
    assert asked == ["name? "]
    assert run(kernel, "print(out.stdout, end='')") == "Ada\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--capture 1x", "SpecError: '1x' "),
        ("--capture for", "SpecError: 'for' "),
        ("--capture r -o r", "SpecError: --capture and -o would both set 'r'"),
        ("--capture r --out r", "SpecError: --capture and --out would both set 'r'"),
    ],
)
def test_bad_names(kernel: Kernel, line: str, said: str) -> None:
    """One line, before anything is made."""
    cell = kernel.run(f"%%container {line}\nr = 1")
    assert not cell.ok
    (error,) = cell.errors()
    assert error.startswith(said)
    assert "\n" not in error
