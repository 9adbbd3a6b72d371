"""A state directory of their own for tests of real containers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.inside import private_engine


@pytest.fixture(scope="module")
def engine() -> Iterator[Path]:
    """A module's own state directory and spawners; nothing may be left in it."""
    with private_engine() as top:
        yield top


@pytest.fixture
def own_engine() -> Iterator[Path]:
    """A test's own state directory and spawners."""
    with private_engine() as top:
        yield top
