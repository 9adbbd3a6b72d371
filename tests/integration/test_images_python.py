"""Cells and sessions under the Python of Debian images older and newer than ours.

The images' tars are made once by mmdebstrap and kept in /var/tmp/nscontainer-images-cache; remove that
directory to have them made anew.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nscontainer
from nscontainer import images
from nscontainer.image.store import Store
from tests.integration import rootfs_images as made
from tests.integration.inside import private_engine

pytestmark = [pytest.mark.root, pytest.mark.images, pytest.mark.slow, pytest.mark.timeout(400)]

CACHE = Path("/var/tmp/nscontainer-images-cache")
VERSIONS = {"bullseye": (3, 9), "trixie": (3, 13)}


def rootfs(suite: str) -> Path:
    """A Debian with python3, made by mmdebstrap unless it is cached."""
    CACHE.mkdir(mode=0o700, exist_ok=True)
    tar = CACHE / f"{suite}-python3.tar"
    if not tar.exists():
        new = CACHE / f".{os.getpid()}.tar"
        words = ["mmdebstrap", "-q", "--mode=root", "--variant=minbase", "--include=python3"]
        source = "http://deb.debian.org/debian"
        try:
            subprocess.run([*words, suite, str(new), source], check=True)
            new.rename(tar)
        finally:
            new.unlink(missing_ok=True)
    return tar


@pytest.fixture(scope="module", params=VERSIONS)
def debian(request: pytest.FixtureRequest) -> Iterator[str]:
    """An image of that Debian in an engine of its own."""
    with private_engine():
        with rootfs(request.param).open("rb") as tar:
            layer = Store().add_layer(tar, "none")
        made.make(request.param, layer, config={"Env": ["GREETING=hello"], "Cmd": ["bash"]})
        yield request.param


def cell(code: str, image: str, **options: Any) -> tuple[Any, list[dict[str, Any]]]:
    messages: list[dict[str, Any]] = []
    result = nscontainer.run_cell(code, image=image, on_message=messages.append, **options)
    return result, messages


def test_a_cell(debian: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs under the image's own python3, with its modules and variables and none of ours."""
    monkeypatch.setenv("VIRTUAL_ENV", "/nowhere")
    code = """
import os, sys
print(sys.version_info[:2], sys.executable, os.environ["GREETING"], os.environ.get("VIRTUAL_ENV"))
print([path for path in sys.path if "nscontainer" in path], os.getcwd())
"""
    result, _ = cell(code, debian)
    version = VERSIONS[debian]
    assert result.stdout == f"{version} /usr/bin/python3 hello None\n[] /\n"
    assert result.record["start_mode"] == "cold"


def test_report(debian: str) -> None:
    """There is no nscontainer in it, but its report() is to be had; and nothing else of it."""
    code = "import nscontainer\nnscontainer.report(items=3)\nprint(nscontainer.__all__)"
    result, _ = cell(code, debian)
    assert (result.stdout, result.reported) == ("['report']\n", {"items": 3})


def test_rich_output_and_errors(debian: str) -> None:
    """A value's HTML, a traceback of the cell alone, top-level await, a hint for magics."""
    rich = "class H:\n    def _repr_html_(self): return '<b>h</b>'\nH()"
    _, messages = cell(rich, debian)
    shown = next(m for m in messages if m["msg_type"] == "execute_result")
    assert shown["content"]["data"]["text/html"] == "<b>h</b>"
    result, messages = cell("def f():\n    1 / 0\nf()", debian)
    error = next(m for m in messages if m["msg_type"] == "error")["content"]
    assert (result.exit_code, error["ename"]) == (1, "ZeroDivisionError")
    assert "nscontainer/runner" not in "".join(error["traceback"])
    assert cell("import asyncio\nawait asyncio.sleep(0)\nprint('slept')", debian)[0].ok
    _, messages = cell("!ls", debian)
    error = next(m for m in messages if m["msg_type"] == "error")["content"]
    assert "magics and ! need IPython" in error["evalue"]


def test_values(debian: str) -> None:
    """Plain values go in and come out; what needs NumPy there is one clear line."""
    numpy = pytest.importorskip("numpy")
    values = {"n": 2**70, "text": "ä", "nested": {"a": [1, (2.5, None)], "b": b"x"}}
    result, _ = cell("back = [n, text, nested]", debian, inputs=values, out={"back": "back"})
    assert result.values["back"] == [2**70, "ä", {"a": [1, (2.5, None)], "b": b"x"}]
    result, messages = cell("x", debian, inputs={"x": numpy.arange(3)})
    error = next(m for m in messages if m["msg_type"] == "error")["content"]
    assert error["evalue"].endswith("ModuleNotFoundError: No module named 'numpy'")
    assert len(error["traceback"]) == 1


def test_session_committed_and_run_again(debian: str) -> None:
    """Variables last from cell to cell; files are in the image that it is committed to."""
    with nscontainer.session("lab", image=debian) as lab:
        lab.run_cell("x = 41")
        result = lab.run_cell("x += 1\nopen('/root/x', 'w').write(str(x))\nprint(x)")
        assert result.stdout == "42\n"
        assert result.provenance.image_digest == Store().get(debian).id
        assert lab.container.exec(["cat", "/root/x"]).stdout == b"42"
        images.commit(lab, "lab:1", changes=["WORKDIR /root"])
        assert lab.run_cell("print(x)").stdout == "42\n"
    result, _ = cell("print(open('x').read())", "lab:1")
    assert result.stdout == "42\n"
    with made.ended("true", "lab:1") as container:
        assert images.diff(container) == []
