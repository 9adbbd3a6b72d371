"""A committed notebook, executed as a person would, and what its cells show."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

from tests.integration.inside import private_engine

TIMEOUT_S = 100


def read(path: Path) -> NotebookNode:
    """Read it as it is committed."""
    notebook: NotebookNode = nbformat.read(path, as_version=4)
    return notebook


@contextlib.contextmanager
def execute(path: Path) -> Iterator[NotebookNode]:
    """Run it once, in a state directory of its own, which must be empty again afterwards."""
    notebook = read(path)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    with private_engine(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT_S,
            kernel_name="python3",
            resources={"metadata": {"path": str(path.parent)}},
            # Else ipykernel warns that the machine's other users could listen.
            config=Config({"KernelManager": {"transport_encryption": "auto"}}),
        )
        client.execute()
        yield notebook


def cell(notebook: NotebookNode, *, tag: str = "", begins: str = "") -> NotebookNode:
    """The one cell with a tag or a beginning."""
    found: NotebookNode
    (found,) = (
        c
        for c in notebook.cells
        if c.cell_type == "code"
        and (not tag or tag in c.metadata.get("tags", []))
        and c.source.startswith(begins)
    )
    return found


def text(of: NotebookNode, name: str = "stdout") -> str:
    """What a cell printed on a stream."""
    return "".join(o.text for o in of.outputs if o.output_type == "stream" and o.name == name)


def shown(of: NotebookNode, mime: str = "text/plain") -> list[Any]:
    """A representation of each thing that a cell shows."""
    return [o.data[mime] for o in of.outputs if mime in o.get("data", {})]


def check_committed(path: Path) -> None:
    """What one sees in it was always computed where one sees it; and no front end asks for a kernel."""
    notebook = read(path)
    assert notebook.metadata.kernelspec.name == "python3"
    for one in notebook.cells:
        if one.cell_type == "code":
            assert one.outputs == []
            assert one.execution_count is None
