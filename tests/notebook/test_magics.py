"""``%%container`` and ``%container`` in a real Jupyter kernel, with real containers."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nscontainer import Container
from tests import leaks
from tests.notebook import kernel as kernels
from tests.notebook.kernel import Kernel

pytestmark = [pytest.mark.notebook, pytest.mark.root]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebook's directory, with a module in it."""
    path = tmp_path_factory.mktemp("notebook")
    (path / "beside.py").write_text("WHERE = 'beside the notebook'\n")
    return path


@pytest.fixture(scope="module")
def kernel(directory: Path) -> Iterator[Kernel]:
    """One kernel for all tests that don't end it."""
    with kernels.start(str(directory)) as started:
        yield started


# --- output ----------------------------------------------------------------------------------


def test_output_streams_in_order_as_it_is_printed(kernel: Kernel):
    """Lines come one by one while the cell runs, both streams and displays in order."""
    code = """%%container -q
import sys, time
for i in range(3):
    print(i)
    time.sleep(0.6)
print('err', file=sys.stderr)
display('shown')
print('last')
"""
    cell = kernel.run(code)
    assert cell.ok, cell.errors()
    times = [t for t, kind, c in cell.messages if kind == "stream" and c["text"].strip() in "012"]
    assert len(times) == 3
    assert times[2] - times[0] > 0.9
    order = [
        c["text"] if kind == "stream" else "<display>"
        for _, kind, c in cell.messages
        if kind in ("stream", "display_data")
    ]
    assert order[-3:] == ["err\n", "<display>", "last\n"]


def test_the_last_expression_is_shown(kernel: Kernel):
    """The value of the last expression is displayed as rich as it can be."""
    cell = kernel.run("%%container -q\nimport pandas as pd\npd.DataFrame({'a': [1]})")
    assert cell.ok, cell.errors()
    (html,) = cell.shown("text/html")
    assert "<table" in html
    assert cell.of("execute_result") == []


def test_display_update_clear_and_figures(kernel: Kernel):
    """Displays, their updates, clear_output and matplotlib's figures reach the notebook."""
    code = """%%container -q
from IPython.display import HTML, clear_output
h = display(HTML('<b>1</b>'), display_id=True)
h.update(HTML('<b>2</b>'))
clear_output(wait=True)
import matplotlib.pyplot as plt
plt.plot([1, 2, 3]);
"""
    cell = kernel.run(code)
    assert cell.ok, cell.errors()
    assert cell.shown("text/html") == ["<b>1</b>"]
    (update,) = cell.of("update_display_data")
    assert update["data"]["text/html"] == "<b>2</b>"
    shown = cell.of("display_data")[0]
    assert shown["transient"]["display_id"] == update["transient"]["display_id"]
    assert cell.of("clear_output") == [{"wait": True}]
    assert cell.shown("image/png")[0].startswith("iVBOR")


def test_what_subprocesses_print(kernel: Kernel):
    """Raw output of subprocesses comes, and exit codes of theirs are right."""
    code = "%%container -q\nimport subprocess\nsubprocess.run('echo raw; echo e >&2; exit 3', shell=True).returncode"
    cell = kernel.run(code)
    assert cell.text() == "raw\n"
    assert cell.text("stderr") == "e\n"
    assert cell.shown() == ["3"]


def test_subprocesses_print_in_their_place(kernel: Kernel):
    """What the cell prints and what its subprocesses print come in the order of the code."""
    code = (
        "%%container -q\nimport os\nfor i in range(20):\n    print(i)\n    os.system(f'echo r{i}')"
    )
    expected = [text for i in range(20) for text in (str(i), f"r{i}")]
    assert kernel.run(code).text().split() == expected


def test_input(kernel: Kernel):
    """input() in the container asks the person at the notebook."""

    def answer(kind: str, content: dict[str, Any]) -> None:
        if kind == "input_request":
            assert content["prompt"] == "who? "
            kernel.client.input("me")

    cell = kernel.run("%%container -q\nprint('hi', input('who? '))", during=answer)
    assert cell.text() == "hi me\n"


# --- how it ends -----------------------------------------------------------------------------


def test_a_traceback_with_the_cells_own_lines(kernel: Kernel):
    """The container's traceback is shown once, with the editor's line numbers; then one line."""
    cell = kernel.run("%%container -q\ndef half(x):\n    return x / 0\n\nhalf(1)")
    assert not cell.ok
    inner, outer = cell.errors()
    assert "ZeroDivisionError: division by zero" in inner
    assert "line 5" in inner
    assert "line 3, in half" in inner
    assert "Cell In[" in inner
    assert "nscontainer" not in inner
    assert outer == "ContainerFailed: exit code 1"


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("import sys; sys.exit(3)", "exit code 3"),
        ("import os; os._exit(4)", "exit code 4"),
        ("import os, signal\nos.abort()", "signal"),
        ("x = bytearray(500 << 20)", "killed: out of memory at 64 MiB"),
        ("while True: pass", "killed: timeout of 1 s"),
    ],
)
def test_exit_codes_and_ends(kernel: Kernel, code: str, line: str):
    """However it ends, one line says how."""
    cell = kernel.run("%%container -q --memory 64M --timeout 1s\n" + code)
    assert not cell.ok
    assert line in cell.errors()[-1]
    assert len(cell.errors()) == 1


def test_no_raise_error(kernel: Kernel):
    """With --no-raise-error the line is printed, and the notebook goes on."""
    cell = kernel.run("%%container -q --no-raise-error -o r\nimport sys; sys.exit(3)")
    assert cell.ok
    assert cell.text("stderr") == "ContainerFailed: exit code 3\n"
    assert kernel.run("r.exit_code").shown() == ["3"]


def test_the_result(kernel: Kernel):
    """-o keeps the result also when the cell fails; %container last has it; the card is shown."""
    cell = kernel.run("%%container --cpu 50% -o r\nprint('out')\n1 / 0")
    assert not cell.ok
    assert len(cell.shown("text/html")) == 1
    code = "(r.exit_code, r.stdout, r.limits.asked.cpus, len(r.usage) > 1, r is get_ipython()"
    code += ".run_line_magic('container', 'last'))"
    assert kernel.run(code).shown() == ["(1, 'out\\n', 0.5, True, True)"]


def test_interrupt(kernel: Kernel):
    """One ■ is a KeyboardInterrupt in the cell, at its own line, and the cell fails."""

    def press(kind: str, content: dict[str, Any]) -> None:
        if kind == "stream" and "go" in content["text"]:
            time.sleep(0.3)  # it is shown before print() has returned
            kernel.interrupt()

    cell = kernel.run("%%container -q -o r\nprint('go')\nwhile True:\n    pass", during=press)
    assert not cell.ok
    inner, outer = cell.errors()
    assert "KeyboardInterrupt" in inner
    assert "line 3" in inner or "line 4" in inner
    assert outer == "KeyboardInterrupt: interrupted"
    assert kernel.run("r.exit_code, r.interrupted").shown() == ["(130, 1)"]


def test_interrupt_twice(kernel: Kernel):
    """A cell that ignores the first ■ is killed by the second."""
    pressed: list[str] = []

    def press(kind: str, content: dict[str, Any]) -> None:
        if kind == "stream" and ("go" in content["text"] or "no" in content["text"]):
            pressed.append(content["text"])
            kernel.interrupt()

    code = """%%container -q -o r
import time
told = False
while True:
    try:
        if not told:
            told = True
            print('go')
        time.sleep(60)
    except KeyboardInterrupt:
        print('no')
"""
    begin = time.monotonic()
    cell = kernel.run(code, during=press)
    assert time.monotonic() - begin < 10
    assert not cell.ok
    (shown,) = cell.errors()
    assert shown.startswith("KeyboardInterrupt: killed: interrupted twice")
    assert len(pressed) == 2
    assert kernel.run("1 + 1").shown() == ["2"]


def test_interrupt_while_it_asks(kernel: Kernel):
    """■ ends a question, too."""

    def press(kind: str, _content: dict[str, Any]) -> None:
        if kind == "input_request":
            kernel.interrupt()

    cell = kernel.run("%%container -q\ninput('who? ')", during=press)
    assert not cell.ok
    assert "KeyboardInterrupt" in cell.errors()[0]


def test_run_all_stops_at_a_failed_cell(directory: Path):
    """nbclient, as Run All, stops at a container's error and does not run the next cell."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.v4.new_notebook()
    sources = ["%load_ext nscontainer", "%%container -q\n1 / 0", "print('must not run')"]
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    client = NotebookClient(
        notebook, kernel_name="python3", resources={"metadata": {"path": str(directory)}}
    )
    with pytest.raises(CellExecutionError, match="ContainerFailed"):
        client.execute()
    assert notebook.cells[2].outputs == []
    assert [o.output_type for o in notebook.cells[1].outputs].count("error") >= 1


# --- where it runs ---------------------------------------------------------------------------


def test_the_notebooks_python_and_directory(kernel: Kernel, directory: Path):
    """The same interpreter and packages, modules beside the notebook, its working directory."""
    code = """%%container -q
import os, sys, numpy, beside
print(os.getcwd(), sys.prefix, numpy.__version__, beside.WHERE, sep='\\n')
"""
    cell = kernel.run(code)
    assert cell.ok, cell.errors()
    here = kernel.run("import sys, numpy; print(sys.prefix, numpy.__version__, sep='\\n')")
    assert cell.text() == f"{directory}\n{here.text()}beside the notebook\n"


def test_writes_stay_inside(kernel: Kernel, directory: Path):
    """A file written in the working directory is not there afterwards, nor in the next container."""
    code = "%%container -q\nfrom pathlib import Path\nPath('made').write_text('x')\nprint(Path('made').exists())"
    assert kernel.run(code).text() == "True\n"
    assert not (directory / "made").exists()
    assert kernel.run("%%container -q\nimport os; os.path.exists('made')").shown() == ["False"]


def test_the_kernels_variables_stay_outside(kernel: Kernel):
    """The cell's variables are its own, in both directions."""
    kernel.run("outside = 1")
    assert "NameError" in kernel.run("%%container -q\noutside").errors()[0]
    kernel.run("%%container -q\ninside = 1")
    assert "NameError" in kernel.run("inside").errors()[0]


# --- other languages -------------------------------------------------------------------------


def test_sh(kernel: Kernel):
    """--sh runs a shell script; its messages have the cell's name and the editor's lines."""
    cell = kernel.run('%%container -q --sh\necho "$0: $((1 + 1))"\nnosuchcommand\nexit 3')
    assert not cell.ok
    assert cell.text().endswith("]: 2\n")
    assert "3: nosuchcommand" in cell.text("stderr")
    assert cell.errors() == ["ContainerFailed: exit code 3"]


def test_shebang(kernel: Kernel):
    """A #! first line names any interpreter; its standard input is free, long cells work."""
    cell = kernel.run(
        '%%container -q\n#!/usr/bin/perl -w\nprint "perl ", scalar(<STDIN>) // "none";'
    )
    assert cell.text() == "perl none", cell.errors()
    cell = kernel.run(
        "%%container -q\n#!/bin/bash\n: " + "x" * 300_000 + "\ncat; echo ${#BASH_VERSION}"
    )
    assert cell.ok, cell.text("stderr")
    assert int(cell.text()) > 3


def test_shebang_that_is_missing(kernel: Kernel):
    """An interpreter that isn't there ends with 127."""
    cell = kernel.run("%%container -q\n#!/usr/bin/nosuch\nx")
    assert "127" in cell.errors()[-1] or "not found" in cell.errors()[-1]


# --- the line --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("--memroy 1G", "--memroy is not an option (did you mean --memory?)"),
        ("--memory lots", "'lots' is not a size"),
        ("lab extra", "'extra' is one argument too many"),
        ("--cpu '20%", "no closing quotation"),
        ("-o 1x", "'1x' can't be a variable's name"),
        ("--cpu", "expected one argument"),
        ("--image nosuch", "nosuch"),
        ("--name a/b", "a/b"),
    ],
)
def test_a_bad_line_is_one_clear_line(kernel: Kernel, line: str, error: str):
    """A wrong option is one line that says how to mend it, and nothing is made."""
    cell = kernel.run(f"%%container {line}\nprint('ran')")
    assert not cell.ok
    (shown,) = cell.errors()
    assert "\n" not in shown
    assert error in shown
    assert cell.text() == cell.text("stderr") == ""


def test_variables_in_the_line(kernel: Kernel):
    """$name and {expression} are filled in, the cell's body is left alone."""
    kernel.run("q = 0.25")
    cell = kernel.run("%%container -q --cpu {q*100}% -o r\nprint('{q}', '$q')")
    assert cell.text() == "{q} $q\n"
    assert kernel.run("r.limits.asked.cpus").shown() == ["0.25"]


def test_help(kernel: Kernel):
    """%%container? shows every option; --help does too."""
    text = _paged(kernel, "%%container?")
    for word in ("--cpu", "20%", "--memory", "--no-raise-error", "--sh", "Examples"):
        assert word in text
    assert "%%%" not in text
    assert "--memory" in kernel.run("%%container --help\npass").text()
    assert "doctor" in _paged(kernel, "%container?")


def _paged(kernel: Kernel, code: str) -> str:
    """Give what a cell opens in the pager."""
    (payload,) = kernel.run(code).reply["payload"]
    return kernels.plain(payload["data"]["text/plain"])


def test_tab_completion(kernel: Kernel):
    """Tab completes flags, choices, sub-commands and containers' names."""
    assert kernel.complete("%%container --cpu 20% --mem") == ["--memory", "--memory-swap"]
    assert kernel.complete("%%container --network h") == ["host"]
    assert "--cpu" in kernel.complete("%%container --")
    assert kernel.complete("%container do") == ["doctor"]
    assert "--cpu-quota" in kernel.complete("%container update x --cpu-")
    assert "--memory" not in kernel.complete("%%timeit --mem")


def test_managing(kernel: Kernel):
    """%container manages a detached container from ps to rm."""
    make = "import nscontainer\nc = nscontainer.run(['sleep', '60'], name='tests-lab', detach=True)"
    assert kernel.run(make).ok
    try:
        assert "tests-lab" in kernel.run("%container ps").shown("text/html")[0]
        assert kernel.complete("%container top tests-l") == ["tests-lab"]
        assert "sleep" in kernel.run("%container top tests-lab").shown()[0]
        assert "tests-lab" in kernel.run("%container stats").shown()[0]
        assert kernel.run("%container exec tests-lab -- echo inside").text() == "inside\n"
        failed = kernel.run("%container exec tests-lab -- sh -c 'exit 3'")
        assert failed.errors() == ["CommandError: sh: exit code 3"]
        changed = kernel.run("%container update tests-lab --cpu 30%")
        assert "30000" in changed.shown()[0]
        assert kernel.run("%container pause tests-lab").ok
        assert "paused" in kernel.run("%container ps").shown()[0]
        assert kernel.run("%container resume tests-lab").ok
        assert "'tests-lab'" in kernel.run("%container inspect tests-lab").shown()[0]
        assert "is running" in kernel.run("%container rm tests-lab").errors()[0]
        assert kernel.run("%container kill tests-lab").ok
    finally:
        kernel.run("%container rm -f tests-lab")
    assert "no container" in kernel.run("%container top tests-lab").errors()[0]
    assert "did you mean" in kernel.run("%container inspct x").errors()[0]


def test_doctor_and_gc(kernel: Kernel):
    """%container doctor and gc print what the commands print."""
    assert "containers run here" in kernel.run("%container doctor").text()
    assert kernel.run("%container gc").ok


def test_reload_and_unload(directory: Path):
    """%reload_ext and %unload_ext work."""
    with kernels.start(str(directory)) as kernel:
        assert kernel.run("%reload_ext nscontainer").ok
        assert kernel.complete("%%container --mem") == ["--memory", "--memory-swap"]
        assert kernel.run("%unload_ext nscontainer").ok
        assert not kernel.run("%%container\n1").ok


def test_a_killed_kernel_leaves_nothing(directory: Path):
    """SIGKILL of the kernel in the middle of a cell removes its container, whole."""
    found: list[Container] = []
    pids: list[int] = []

    with kernels.start(str(directory)) as kernel:

        def kill(kind: str, content: dict[str, Any]) -> None:
            if kind == "stream" and "go" in content["text"]:
                found.append(Container.get("tests-killed"))
                pids.extend(found[0].pids())
                os.kill(kernel.pid, signal.SIGKILL)
                raise InterruptedError

        code = "%%container --name tests-killed\nprint('go')\nwhile True: pass"
        with contextlib.suppress(InterruptedError):
            kernel.run(code, during=kill)
        assert pids
        deadline = time.monotonic() + 10
        while (left := _left_of(found[0].id, pids)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert left == []


def _left_of(container_id: str, pids: list[int]) -> list[str]:
    """Name what is left of a container; others may run meanwhile."""
    there = [path for paths in leaks.look().values() for path in paths]
    left = [path for path in there if container_id in path or "tests-killed" in path]
    return left + [f"process {pid}" for pid in pids if os.path.exists(f"/proc/{pid}")]


# --- variables ---------------------------------------------------------------------------------

DEFINE = """
import numpy as np, pandas as pd
x = np.arange(5)
df = pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})
def helper(): pass
"""


def test_variables_in_and_values_out(kernel: Kernel):
    """-i takes variables along, as they are and renamed; --out sets others, -o the result."""
    assert kernel.run(DEFINE).ok
    code = (
        "%%container -q -i x,df -i z=x -o r --out total=x.sum(),big=max(z[0],z[4]) --out 'df2=df'\n"
        "df['c'] = x[:2] * 2\nx[0] = 99"
    )
    cell = kernel.run(code)
    assert cell.ok, cell.errors()
    shown = kernel.run("int(total), int(big), list(df2.columns), list(df.columns), int(x[0]), r.ok")
    # z is x: two names of one thing stay two names of one thing.
    assert shown.shown() == ["(109, 99, ['a', 'b', 'c'], ['a', 'b'], 0, True)"]


def test_a_value_that_cannot_come(kernel: Kernel):
    """One line at the end; the result and the other values are there; nothing is set by a failed cell."""
    cell = kernel.run("%%container -o r2 --out good,bad=object()\ngood = 1")
    assert not cell.ok
    (error,) = cell.errors()
    assert error.startswith("TransferError: --out bad: what is of type object doesn't come out")
    assert "\n" not in error
    assert cell.shown("text/html")  # the card
    assert kernel.run("good, r2.ok, 'bad' in globals()").shown() == ["(1, True, False)"]
    failed = kernel.run("%%container -q --out late=1\n1 / 0")
    assert not failed.ok
    assert kernel.run("'late' in globals()").shown() == ["False"]


def test_what_cannot_go_in_is_one_line(kernel: Kernel):
    """Undefined, the notebook's own, without a pickle: said before anything is made."""
    assert kernel.run(DEFINE).ok
    for line, said in (
        (
            "-i dff",
            "SpecError: there is no variable 'dff' to take into the container (did you mean df?)",
        ),
        ("-i np", "SpecError: variable 'np' can't be taken into the container: numpy is a module"),
        ("-i helper", "function helper is defined in the notebook, and only its name would go in"),
    ):
        (error,) = kernel.run(f"%%container {line}\n1").errors()
        assert said in error
        assert "\n" not in error


def test_a_name_that_only_the_notebook_has(kernel: Kernel):
    """A NameError for it is followed by a line that names -i."""
    assert kernel.run(DEFINE).ok
    inner, outer = kernel.run("%%container -q\ndf.head()").errors()
    assert inner.endswith("NameError: name 'df' is not defined")
    assert outer == (
        "ContainerFailed: exit code 1 (df is a variable of the notebook: -i df takes it along)"
    )


def test_trust(kernel: Kernel):
    """A value without a safe form comes by pickle where the line says --trust."""
    code = "%%container -q --out c{}\nimport collections\nc = collections.Counter('aab')"
    (error,) = kernel.run(code.format("")).errors()
    assert "--trust" in error
    assert kernel.run(code.format(" --trust")).ok
    assert kernel.run("c['a']").shown() == ["2"]


def test_variables_are_completed(kernel: Kernel):
    """Tab after -i gives the notebook's variables, also after a comma and an equals sign."""
    assert kernel.run("tabbed_one = tabbed_two = 1").ok
    assert kernel.complete("%%container -i tabb") == ["tabbed_one", "tabbed_two"]
    assert kernel.complete("%%container -i x,tabbed_o") == ["x,tabbed_one"]
    assert kernel.complete("%%container -q --in y=tabbed_t") == ["y=tabbed_two"]
    assert kernel.complete("%%container --tru") == ["--trust"]
