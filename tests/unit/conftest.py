"""What several unit tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from nscontainer.image.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store of images."""
    return Store(str(tmp_path / "images"))


@pytest.fixture(scope="module")
def bare_shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteractiveShell]:
    """A plain IPython shell that keeps no history and touches nobody's profile."""
    config = Config()
    config.HistoryManager.enabled = False
    InteractiveShell.clear_instance()
    directory = str(tmp_path_factory.mktemp("ipython"))
    ip = InteractiveShell.instance(config=config, ipython_dir=directory)
    ip.colors = "nocolor"
    yield ip
    InteractiveShell.clear_instance()
