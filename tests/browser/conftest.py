"""One Jupyter server and one browser for all tests of the browser, and a notebook for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import pytest

from tests.browser import jupyter
from tests.integration.inside import private_engine

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Open = Callable[[str, Sequence[str]], AbstractContextManager[jupyter.Notebook]]


def busy(options: str, seconds: float) -> str:
    """Give a cell that takes all the CPU it is given, for so long."""
    return f"""%%container {options}
import time
begin = time.monotonic()
while time.monotonic() - begin < {seconds}:
    pass
print('said inside')
display('shown inside')"""


BUSY = busy("--cpu 50% -o r", 1.5)
SLEEPS = "%%container -q\nimport time\nprint('asleep')\ntime.sleep(600)"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[jupyter.Server]:
    """A server whose kernels share a state directory, which must end up empty."""
    with private_engine(), jupyter.serve(tmp_path_factory.mktemp("jupyter")) as running:
        yield running


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with jupyter.browse(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def lab(server: jupyter.Server, browser: Browser) -> Open:
    """Open a notebook of these cells in JupyterLab; cell 0 has loaded the magics."""
    return lambda name, cells: jupyter.opened(browser, server, "lab", name, cells)


@pytest.fixture
def notebook7(server: jupyter.Server, browser: Browser) -> Open:
    """Open a notebook of these cells in Notebook 7; cell 0 has loaded the magics."""
    return lambda name, cells: jupyter.opened(browser, server, "notebook", name, cells)
