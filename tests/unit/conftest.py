"""What several unit tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from nscontainer.image.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store of images."""
    return Store(str(tmp_path / "images"))
