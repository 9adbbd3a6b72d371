"""What the documentation shows works: its Python runs, doctor's rows are explained."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

from nscontainer import doctor
from nscontainer.doctor.table import ROWS
from tests.host import ROOT

pytestmark = [pytest.mark.root, pytest.mark.once, pytest.mark.usefixtures("engine")]

BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    "name",
    [
        "python.md",
        "limits.md",
        "isolation.md",
        pytest.param("networks.md", marks=pytest.mark.network),
    ],
)
def test_the_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python block of the page, in order, in one namespace; their assertions hold."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    blocks = list(BLOCK.finditer(text))
    assert blocks
    with contextlib.redirect_stdout(io.StringIO()):
        for block in blocks:
            before = "\n" * text.count("\n", 0, block.start(1))  # for the page's own line numbers
            exec(compile(before + block[1], name, "exec"), namespace)


def test_every_row_of_doctor_is_explained() -> None:
    """troubleshooting.md has a row for each of doctor's."""
    # The page's table is made of these (tools/doc_tables.py).
    assert {finding.name for finding in doctor.examine()} - ROWS.keys() == set()
