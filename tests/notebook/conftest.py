"""What most tests of notebooks use: an engine of their own, and one kernel for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.inside import private_engine
from tests.notebook import kernel as kernels
from tests.notebook.kernel import Kernel


@pytest.fixture(scope="module")
def engine() -> Iterator[Path]:
    """A state directory that kernels and this process share, empty at the end."""
    with private_engine() as top:
        yield top


@pytest.fixture(scope="module")
def kernel(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel for all tests of a file; they may restart it."""
    with kernels.start(str(tmp_path_factory.mktemp("notebook"))) as started:
        yield started
