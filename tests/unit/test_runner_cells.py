"""The cell runner: what a cell's code gives, is shown and ends with, with IPython and without."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit import runner_harness as harness

WITH_IPYTHON = ("zygote", "cold")


@pytest.fixture(autouse=True)
def _ends() -> Iterator[None]:
    """Whatever happens, no cell is left running."""
    yield
    harness.end_all()


@pytest.fixture(params=harness.MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """Each way a runner starts."""
    return str(request.param)


def test_print_and_last_expression(mode: str):
    """What is printed comes as a stream, the last expression's value as a result."""
    cell = harness.run("print('hi')\n1 + 1", mode)
    assert cell.text() == "hi\n"
    (result,) = cell.of("execute_result")
    assert result["data"]["text/plain"] == "2"
    assert result["execution_count"] == 3
    assert cell.reply == {"status": "ok", "exit_code": 0}
    assert cell.exit_code == 0
    assert cell.raw == b""


@pytest.mark.parametrize("code", ["x = 1", "None", "1;", "", "\n\n", "# only a comment"])
def test_nothing_to_show(mode: str, code: str):
    """An assignment, None, a trailing semicolon and an empty cell show nothing."""
    cell = harness.run(code, mode)
    assert [m["msg_type"] for m in cell.messages] == ["execute_reply"]
    assert cell.exit_code == 0


def test_traceback_has_the_cells_own_lines(mode: str):
    """Line numbers count from the offset, the source lines are shown, no frame is the runner's."""
    code = "def half(x):\n    return x / 0\n\nhalf(1)"
    cell = harness.run(code, mode, line_offset=1)
    shown = cell.traceback
    assert "Cell In[3]" in shown
    assert "line 5" in shown
    assert "line 3, in half" in shown
    assert "return x / 0" in shown
    assert "runner" not in shown
    assert "interactiveshell" not in shown
    (error,) = cell.of("error")
    assert (error["ename"], error["evalue"]) == ("ZeroDivisionError", "division by zero")
    assert cell.reply["status"] == "error"
    assert cell.reply["ename"] == "ZeroDivisionError"
    assert cell.exit_code == 1


def test_empty_lines_at_the_beginning_count(mode: str):
    """Empty lines before the code are lines of the cell."""
    assert "line 4" in harness.run("\n\n\n1 / 0", mode).traceback


def test_a_filename_of_the_owners(mode: str):
    """Tracebacks call the code what the owner calls it."""
    assert "job.py" in harness.run("1 / 0", mode, filename="job.py").traceback


def test_syntax_error(mode: str):
    """A syntax error shows its line and place, and nothing of the cell runs."""
    cell = harness.run("print('no')\nx = (1,\ny = = 2", mode, line_offset=1)
    assert cell.text() == ""
    assert "SyntaxError" in cell.traceback
    assert "Cell In[3]" in cell.traceback
    assert "ast.py" not in cell.traceback
    assert cell.exit_code == 1


def test_chained_errors_and_groups(mode: str):
    """A cause, and every member of a group, is shown."""
    cell = harness.run(
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError from e"
    )
    assert "ZeroDivisionError" in cell.traceback
    assert "direct cause" in cell.traceback
    cell = harness.run("raise ExceptionGroup('several', [ValueError(1), KeyError(2)])", mode)
    assert "KeyError" in cell.traceback
    assert "line 1" in cell.traceback
    assert "runner" not in cell.traceback


def test_error_whose_text_fails(mode: str):
    """An exception whose __str__ raises is still reported."""
    code = "class Odd(Exception):\n    def __str__(self): raise KeyError\nraise Odd"
    cell = harness.run(code, mode)
    assert cell.of("error")[0]["ename"] == "Odd"
    assert cell.exit_code == 1


@pytest.mark.parametrize(
    ("code", "exit_code", "stderr"),
    [
        ("import sys; sys.exit()", 0, ""),
        ("raise SystemExit(3)", 3, ""),
        ("import sys; sys.exit(-1)", 255, ""),
        ("import sys; sys.exit('so long')", 1, "so long\n"),
        ("raise KeyboardInterrupt", 130, ""),
    ],
)
def test_exit_codes(mode: str, code: str, exit_code: int, stderr: str):
    """A cell ends with the exit code that a script would."""
    cell = harness.run(code, mode)
    assert cell.exit_code == cell.reply["exit_code"] == exit_code
    assert cell.text("stderr") == stderr
    assert cell.reply["status"] == ("ok" if exit_code == 0 else "error")
    assert len(cell.of("error")) == (exit_code == 130)


def test_code_after_exit_does_not_run(mode: str):
    """sys.exit() ends the cell there."""
    assert harness.run("import sys\nsys.exit(0)\nprint('no')", mode).text() == ""


@pytest.mark.parametrize("code", ["import os; os._exit(7)", "import os; os.kill(os.getpid(), 9)"])
def test_a_sudden_end_just_ends_the_stream(mode: str, code: str):
    """os._exit and SIGKILL end the stream without a reply; what was printed came."""
    cell = harness.run("print('before')\n" + code, mode)
    assert cell.text() == "before\n"
    assert cell.of("execute_reply") == []
    assert cell.exit_code != 0


def test_top_level_await(mode: str):
    """Await works at the top level, several times, and as the last expression."""
    code = "import asyncio\nawait asyncio.sleep(0.01)\nawait asyncio.sleep(0.01, 'done')"
    assert harness.run(code, mode).of("execute_result")[0]["data"]["text/plain"] == "'done'"
    shown = harness.run("import asyncio\nasync def f():\n    1 / 0\nawait f()", mode).traceback
    assert "line 3" in shown
    assert "base_events" not in shown
    assert "runner" not in shown


def test_asyncio_run_and_a_task_left_running(mode: str):
    """asyncio.run() works as in a script; a task left over is cancelled without a word."""
    code = "import asyncio\nprint(asyncio.run(asyncio.sleep(0, 5)))"
    assert harness.run(code, mode).text() == "5\n"
    code = "import asyncio\nt = asyncio.create_task(asyncio.sleep(60))\nawait asyncio.sleep(0)"
    cell = harness.run(code, mode)
    assert cell.text("stderr") == ""
    assert cell.exit_code == 0


def test_future_statements(mode: str):
    """from __future__ holds for the whole cell, its last expression too."""
    cell = harness.run("from __future__ import annotations\nx: nosuch = 1\n__annotations__", mode)
    assert cell.of("execute_result")[0]["data"]["text/plain"] == "{'x': 'nosuch'}"


def test_main_module(mode: str):
    """The cell is __main__, with a clean namespace."""
    code = "import sys\nprint(__name__, sys.modules['__main__'].__dict__ is globals(), sys.argv)\n"
    code += "print([n for n in globals() if 'nscontainer' in n or 'runner' in n])"
    assert harness.run(code, mode).text() == "__main__ True ['']\n[]\n"


def test_sys_path_is_the_owners(mode: str):
    """The runner's own directory is not importable, and sys.path is as asked."""
    code = "import sys\nprint(sys.path[0])\nimport wire"
    paths = harness.run("import sys\nsys.path", mode).of("execute_result")[0]["data"]["text/plain"]
    asked = ["/nowhere", *eval(paths)]
    cell = harness.run(code, mode, sys_path=asked)
    assert cell.text() == "/nowhere\n"
    assert "ModuleNotFoundError" in cell.traceback


def test_rich_display(mode: str):
    """Objects show themselves by their _repr_*_ methods, bytes travel as base64."""
    code = """
class Rich:
    def _repr_html_(self): return '<b>x</b>'
    def _repr_png_(self): return b'\\x89PNG'
    def __repr__(self): return 'Rich()'
display(Rich(), metadata={'a': 1})
print('between')
Rich()
"""
    cell = harness.run(code, mode)
    kinds = [m["msg_type"] for m in cell.messages]
    assert kinds == ["display_data", "stream", "execute_result", "execute_reply"]
    for content in (*cell.of("display_data"), *cell.of("execute_result")):
        assert content["data"]["text/html"] == "<b>x</b>"
        assert content["data"]["image/png"].rstrip("=\n") == "iVBORw"
        assert content["data"]["text/plain"] == "Rich()"


def test_display_handles(mode: str):
    """display(display_id=True) gives a handle that updates what was shown."""
    cell = harness.run("h = display('a', display_id=True)\nh.update('b')", mode)
    (shown,), (changed,) = cell.of("display_data"), cell.of("update_display_data")
    assert shown["transient"]["display_id"] == changed["transient"]["display_id"] != ""
    assert changed["data"]["text/plain"] == "'b'"


def test_input_and_getpass(mode: str):
    """input() and getpass() ask the owner; their prompts go along."""
    cell = harness.start("import getpass\nn = input('name? ')\np = getpass.getpass()\nn + p", mode)
    assert cell.read("input_request") is not None
    cell.send("input_reply", value="a")
    assert cell.read("input_request") is not None
    cell.send("input_reply", value="b")
    cell.finish()
    asked = [(c["prompt"], c["password"]) for c in cell.of("input_request")]
    assert asked == [("name? ", False), ("Password: ", True)]
    assert cell.of("execute_result")[0]["data"]["text/plain"] == "'ab'"


def test_input_with_nobody_there(mode: str):
    """Where the owner can't ask, input() raises EOFError with its reason."""
    cell = harness.start("input()", mode)
    cell.read("input_request")
    cell.send("input_reply", value=None, evalue="no front end")
    assert "EOFError: no front end" in cell.finish().traceback


def test_threads_atexit_and_files_end_as_in_a_script(mode: str, tmp_path):
    """Threads are waited for, atexit handlers run after them, and open files are written."""
    code = f"""
import atexit, threading, time
f = open({str(tmp_path / "out")!r}, 'w')
f.write('kept')
atexit.register(print, 'atexit')
def late():
    time.sleep(0.2)
    print('thread')
threading.Thread(target=late).start()
class Last:
    def __del__(self): print('deleted')
x = Last()
print('cell')
"""
    cell = harness.run(code, mode)
    assert cell.text() == "cell\nthread\natexit\ndeleted\n"
    assert (tmp_path / "out").read_text() == "kept"


def test_functions_of_the_cell_in_child_processes(mode: str):
    """multiprocessing with fork runs functions defined in the cell; what a child prints comes raw."""
    code = """
import multiprocessing as mp
def square(x):
    print('child', flush=True)
    return x * x
with mp.get_context('fork').Pool(2) as pool:
    print(pool.map(square, range(3)))
"""
    cell = harness.run(code, mode)
    assert cell.text() == "[0, 1, 4]\n"
    assert cell.raw == b"child\n" * 3
    assert cell.exit_code == 0


def test_a_forked_child_that_fails(mode: str):
    """An error in a forked child of the cell goes to the pipe; the parent's reply stays whole."""
    code = "import os\npid = os.fork()\nif pid == 0:\n    1 / 0\nos.waitpid(pid, 0)[1] >> 8"
    cell = harness.run(code, mode)
    assert b"ZeroDivisionError" in cell.raw
    assert cell.of("execute_result")[0]["data"]["text/plain"] == "1"
    assert cell.exit_code == 0


def test_matplotlib_figures(mode: str):
    """A figure left open is shown after the cell, once."""
    import os

    import matplotlib as mpl

    site = os.path.dirname(os.path.dirname(mpl.__file__))
    code = f"import sys\nsys.path.append({site!r})\nimport matplotlib.pyplot as plt\n"
    cell = harness.run(code + "plt.plot([1, 2]);\nprint('drawn')", mode)
    kinds = [m["msg_type"] for m in cell.messages if m["msg_type"] != "stream"]
    assert kinds == ["display_data", "execute_reply"]
    assert cell.of("display_data")[0]["data"]["image/png"].startswith("iVBOR")
    assert "drawn" in cell.text()


@pytest.mark.parametrize("mode", WITH_IPYTHON)
def test_magics(mode: str):
    """%timeit, %%bash, ! and ? work; a magic's usage error is one line."""
    assert "loop" in harness.run("%timeit -n 1 -r 1 pass", mode).text()
    assert "per loop" in harness.run("x = %timeit -o -q -n1 -r1 pass\nprint(x)", mode).text()
    assert harness.run("%%bash\necho one\necho two", mode).text() == "one\ntwo\n"
    assert harness.run("!echo $((1 + 1))\nprint(_exit_code)", mode).text() == "2\n0\n"
    assert harness.run("x = !echo a; echo b\nprint(x)", mode).text() == "['a', 'b']\n"
    assert harness.run("!exit 3\n_exit_code", mode).of("execute_result")[0]["data"] == {
        "text/plain": "3"
    }
    assert "absolute value" in str(harness.run("abs?", mode).of("display_data")[0]["data"])
    cell = harness.run("%nosuchmagic", mode)
    assert cell.text("stderr").startswith("UsageError")
    assert cell.exit_code == 1


@pytest.mark.parametrize("mode", WITH_IPYTHON)
@pytest.mark.parametrize("code", ["exit(4)", "quit(4)"])
def test_exit_and_quit(mode: str, code: str):
    """exit(4) ends the container with 4 rather than asking the shell to end."""
    cell = harness.run(code + "\nprint('no')", mode)
    assert (cell.exit_code, cell.text(), cell.text("stderr")) == (4, "", "")
    assert harness.run("exit", mode).exit_code == 0


@pytest.mark.parametrize("mode", WITH_IPYTHON)
def test_order_of_output_of_commands(mode: str):
    """What ! prints comes in its place among the cell's own output."""
    code = "print(1)\n!echo 2\nprint(3)\n!echo 4 >&2\nprint(5)"
    assert harness.run(code, mode).text().split() == list("12345")


@pytest.mark.parametrize("mode", WITH_IPYTHON)
def test_ipython_leaves_nothing_on_the_host(mode: str, tmp_path, monkeypatch):
    """No profile, no history, no file at all in the home directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ip"))
    code = "x = 1\n%who\n%history\nIn, Out, _dh"
    cell = harness.run(code, mode)
    assert cell.exit_code == 0, cell.messages
    assert list(tmp_path.iterdir()) == []


def test_captured_output_is_not_shown(mode: str):
    """contextlib.redirect_stdout takes what is printed, as ever."""
    code = "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as s:\n"
    code += "    print('kept')\ns.getvalue()"
    cell = harness.run(code, mode)
    assert cell.text() == ""
    assert cell.of("execute_result")[0]["data"]["text/plain"] == repr("kept\n")


@pytest.mark.parametrize("mode", WITH_IPYTHON)
def test_capture_magic_and_colours(mode: str):
    """%%capture works; colours come when they are asked for."""
    cell = harness.run("%%capture c\nprint('x')\ndisplay(1)", mode)
    assert [m["msg_type"] for m in cell.messages] == ["execute_reply"]
    assert "\x1b[" in harness.run("1 / 0", mode, colors=True).traceback
    assert "\x1b[" not in harness.run("1 / 0", mode, colors=False).traceback


def test_magic_without_ipython_says_what_is_missing():
    """Where there is no IPython, a magic's syntax error says why."""
    assert "need IPython" in harness.run("!ls", "plain").traceback
