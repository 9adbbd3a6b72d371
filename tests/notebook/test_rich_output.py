"""All that a cell can show, in a real kernel: what comes from a container is what comes from a cell."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.notebook.kernel import Cell, Kernel

pytestmark = [pytest.mark.notebook, pytest.mark.root]


def said(cell: Cell) -> list[Any]:
    """Give what a cell showed, in order; text of one stream in a row as one, ids by their order."""
    shown: list[Any] = []
    ids: dict[str, int] = {}
    for _, kind, content in cell.messages:
        if kind == "stream":
            text = content["text"].replace("\r\n", "\n")  # of the notebook's !command
            if shown and shown[-1][:2] == [kind, content["name"]]:
                shown[-1][2] += text
            else:
                shown.append([kind, content["name"], text])
        elif kind in ("display_data", "execute_result", "update_display_data"):
            name = (content.get("transient") or {}).get("display_id")
            number = None if name is None else ids.setdefault(name, len(ids))
            what = "update" if kind == "update_display_data" else "display"
            shown.append([what, content["data"], content["metadata"], number])
        elif kind == "clear_output":
            shown.append([kind, content["wait"]])
        elif kind == "error" and content["ename"] != "ContainerFailed":
            text = re.sub(r"\([^()]*, line", "(cell, line", content["evalue"])  # a SyntaxError's
            colours = "\x1b[" in "".join(content["traceback"])
            shown.append(
                [kind, content["ename"], text, colours, content["traceback"][-1].split("\n")[1:]]
            )
    return shown


OBJECTS = {
    "frame": "import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})",
    "html": "from IPython.display import HTML\ndisplay(HTML('<b>1</b>'), metadata={'a': 1})",
    "markdown": "from IPython.display import Markdown\nMarkdown('**bold**')",
    "latex": "from IPython.display import Latex, Math\ndisplay(Latex('$x$'), Math('y'))",
    "json": "from IPython.display import JSON\nJSON({'a': [1, None]}, expanded=True)",
    "svg": "from IPython.display import SVG\nSVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')",
    "javascript": "from IPython.display import Javascript\nJavascript('1 + 1')",
    "image": (
        "import base64\nfrom IPython.display import Image\n"
        "Image(base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBg"
        "AAAABQABh6FO1AAAAABJRU5ErkJggg=='), width=9)"
    ),
    "pillow": "import PIL.Image\nPIL.Image.new('RGB', (2, 2), 'red')",
    "bundle": (
        "class Both:\n    def _repr_mimebundle_(self, **_):\n"
        "        return {'text/x-a': 'a', 'text/plain': 'p'}, {'text/x-a': {'m': 1}}\nBoth()"
    ),
    "raw": "display({'text/plain': 'p', 'application/x+json': {'k': [1.5]}}, raw=True)",
    "several": "display(1, 'two', [3])\nprint('between')\n4",
    "itself": "class Own:\n    def _ipython_display_(self): print('mine')\nOwn()",
    "handle": "h = display('a', display_id=True)\nprint('x')\nh.update('b')\nh.display('c')",
    "update": (
        "from IPython.display import display, update_display\ndisplay('a', display_id='one')\n"
        "display('b', display_id='two')\nupdate_display('c', display_id='one')"
    ),
    "clear": (
        "from IPython.display import clear_output\nfor i in range(2):\n    clear_output(wait=True)\n"
        "    print(i)\nclear_output()"
    ),
    "figure": "import matplotlib.pyplot as plt\nf, a = plt.subplots()\na.plot([1, 2]);",
    "shown": "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nprint('after')",
    "inline": "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1]);",
    "a figure": (
        "%matplotlib inline\nfrom matplotlib.figure import Figure\nf = Figure()\n"
        "f.subplots().plot([1, 2])\nf"
    ),
    "await": "import asyncio\nawait asyncio.sleep(0.01, 'slept')",
    "async for": (
        "import asyncio\nasync def count():\n    for i in range(3):\n        await asyncio.sleep(0)\n"
        "        yield i\nasync for i in count():\n    print(i)\n[i async for i in count()]"
    ),
    "shell": "!echo one; echo two\nx = !echo three\nx",
    "capture": "%%capture c\nprint('hidden')",
    "streams": "import sys\nprint('a')\nprint('b', file=sys.stderr)\nprint('c', end='')",
    "carriage returns": "for i in range(3):\n    print(f'\\r{i}', end='')\nprint()",
    "nested": (
        "def inner(x):\n    return 1 / x\n\ndef outer():\n    y = 0\n    return inner(y)\nouter()"
    ),
    "chained": "try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('v') from e",
    "syntax": "x = 1\ny = = 2",
}


@pytest.mark.parametrize("name", list(OBJECTS))
def test_the_same_as_in_the_notebook(kernel: Kernel, name: str) -> None:
    """A container's cell shows to the letter what the notebook's own does: data, metadata, order."""
    code = OBJECTS[name]
    line = "" if code.startswith("%%") else "# in place of the container's line\n"
    here, inside = kernel.run(line + code), kernel.run("%%container -q\n" + code)
    assert said(here) == said(inside)
    assert said(inside) or name == "capture"
    assert len(inside.of("error")) == (0 if inside.ok else 2)  # the second is the outer cell's line


def test_a_traceback_is_coloured(kernel: Kernel) -> None:
    """And comes once, before the outer cell's own line."""
    inner, outer = kernel.run("%%container -q\n" + OBJECTS["nested"]).of("error")
    assert "\x1b[" in "".join(inner["traceback"])
    assert outer["ename"] == "ContainerFailed"


def test_svg_figures(kernel: Kernel) -> None:
    """%config InlineBackend holds for the cell."""
    code = "%config InlineBackend.figure_format = 'svg'\nimport matplotlib.pyplot as plt\nplt.plot([1]);"
    (svg,) = kernel.run("%%container -q\n" + code).shown("image/svg+xml")
    assert "<svg" in svg


def test_magics_that_measure_and_list(kernel: Kernel) -> None:
    """%timeit, %%time below the container's own line, %time, %who."""
    assert "loop" in kernel.run("%%container -q\n%timeit -n 2 -r 2 sum(range(9))").text()
    timed = kernel.run("%%container -q\n%%time\nx = 41\nx + 1")
    assert "Wall time" in timed.text()
    assert timed.shown() == ["42"]
    assert "Wall time" in kernel.run("%%container -q\n%time y = 1").text()
    assert kernel.run("%%container -q\nx = 1\ny = 2\n%who").text().split() == ["x", "y"]


def test_getpass(kernel: Kernel) -> None:
    """getpass() asks without showing what is typed."""
    asked: list[dict[str, Any]] = []

    def answer(kind: str, content: dict[str, Any]) -> None:
        if kind == "input_request":
            asked.append(content)
            kernel.client.input("secret")

    code = "%%container -q\nimport getpass\nprint(getpass.getpass('key? ')[::-1])"
    assert kernel.run(code, during=answer).text() == "terces\n"
    assert asked == [{"prompt": "key? ", "password": True}]


def test_a_text_progress_bar_moves_while_the_cell_runs(kernel: Kernel) -> None:
    """Each of its states is shown while the cell waits, though no line of it ends.

    The cell goes on only when the test, which has seen the bar, says so.
    """
    seen, step, asked = "", 1, False

    def watch(kind: str, content: dict[str, Any]) -> None:
        nonlocal seen, step, asked
        seen += content["text"] if kind == "stream" else ""
        asked = asked or kind == "input_request"
        if asked and f"{step}/3" in seen:
            step, asked = step + 1, False
            kernel.client.input("")

    code = (
        "%%container -q\nfrom tqdm import tqdm\nbar = tqdm(total=3, mininterval=0)\n"
        "for i in range(3):\n    bar.update(1)\n    input()\nbar.close()"
    )
    cell = kernel.run(code, during=watch)
    assert cell.ok, cell.errors()
    assert seen.count("\r") >= 3
    assert "3/3" in cell.text("stderr")
