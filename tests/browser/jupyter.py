"""A real Jupyter server, driven by a real browser: what is in it is looked at as a person would."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import v4
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.host import ROOT
from tests.integration.inside import eventually

CHROMIUM = "/usr/bin/chromium"
TIMEOUT_S = 30.0
SCREENSHOTS = ROOT / "build" / ("ci" if "CI" in os.environ else "test") / "screenshots"
_NO_NEWS = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
_CONNECTED = """() => {
    const kernel = jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel;
    return kernel?.connectionStatus === "connected" && kernel.status === "idle";
}"""
_RAN = re.compile(r"\[\d+\]")


# --- the server ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    """A Jupyter server that serves JupyterLab and Notebook 7 on the notebooks of a directory."""

    url: str
    token: str
    directory: Path

    def write(self, name: str, cells: Sequence[str]) -> None:
        """Write a notebook of code cells, with the name of its kernel: else a dialog would ask."""
        notebook = v4.new_notebook(cells=[v4.new_code_cell(source) for source in cells])
        notebook.metadata.kernelspec = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        nbformat.write(notebook, self.directory / name)

    def end_kernels(self) -> None:
        """End the kernels of all notebooks, and wait until they have."""
        for session in self._ask("GET", "/api/sessions"):
            self._ask("DELETE", f"/api/sessions/{session['id']}")

    def answers(self) -> bool:
        """Say whether it serves requests yet."""
        with contextlib.suppress(OSError):
            self._ask("GET", "/api/status")
            return True
        return False

    def _ask(self, method: str, path: str) -> Any:
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(self.url + path, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return json.loads(answer.read() or b"null")


@contextlib.contextmanager
def serve(top: Path) -> Iterator[Server]:
    """Run a server that keeps all it writes below a directory; end it and its kernels."""
    home, notebooks, runtime = top / "home", top / "notebooks", top / "runtime"
    for folder in (home, notebooks, runtime, top / "config" / "labconfig"):
        folder.mkdir(parents=True)
    (top / "config" / "labconfig" / "page_config.json").write_text(json.dumps(_NO_NEWS))
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    # So that a test can wait until all of it is there, key bindings too.
    exposing = "expose_app_in_browser=True"
    command += [f"--LabApp.{exposing}", f"--JupyterNotebookApp.{exposing}"]
    command += [
        "--port=0",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={notebooks}",
    ]
    with open(top / "jupyter.log", "wb") as log:
        process = subprocess.Popen(
            command,
            cwd=notebooks,
            env=_environment(top),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield _ready(process, token, runtime, notebooks, top / "jupyter.log")
    finally:
        # At SIGTERM it ends its kernels and then itself.
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise


def _environment(top: Path) -> dict[str, str]:
    """Nothing of the person's own settings is read, and nothing is written to their home."""
    return {
        **os.environ,
        "HOME": str(top / "home"),
        "IPYTHONDIR": str(top / "ipython"),
        "JUPYTER_CONFIG_DIR": str(top / "config"),
        "JUPYTER_DATA_DIR": str(top / "data"),
        "JUPYTER_RUNTIME_DIR": str(top / "runtime"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_PLATFORM_DIRS": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def _ready(
    process: subprocess.Popen[bytes], token: str, runtime: Path, notebooks: Path, log: Path
) -> Server:
    def found() -> Server | None:
        for file in runtime.glob("jpserver-*.json"):
            with contextlib.suppress(ValueError):  # half written
                port = json.loads(file.read_text())["port"]
                server = Server(f"http://127.0.0.1:{port}", token, notebooks)
                return server if server.answers() else None
        if process.poll() is not None:
            raise RuntimeError(f"JupyterLab ended: {log.read_text()[-2000:]}")
        return None

    server: Server | None = eventually(found, TIMEOUT_S)
    if server is None:
        raise RuntimeError(f"JupyterLab does not answer: {log.read_text()[-2000:]}")
    return server


# --- the browser -----------------------------------------------------------------------------


@contextlib.contextmanager
def browse(home: Path) -> Iterator[Browser]:
    """Run Debian's Chromium without a window; its own home keeps what it leaves."""
    # It won't have its sandbox as root; what it is shown is ours.
    arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=arguments, env={**os.environ, "HOME": str(home)}
        )
        try:
            yield browser
        finally:
            browser.close()


class Notebook:
    """A notebook as it stands in the browser, in JupyterLab or in Notebook 7.

    Parameters
    ----------
    page
        What shows it.
    pictures
        The beginning of its screenshots' names.
    """

    def __init__(self, page: Page, pictures: str) -> None:
        self.page = page
        self._pictures = pictures
        page.set_default_timeout(TIMEOUT_S * 1000)
        expect.set_options(timeout=TIMEOUT_S * 1000)

    def wait_until_ready(self) -> None:
        """Wait until the application has all its plugins, and until the kernel takes cells.

        A cell that is run before the page is connected to the kernel would just not run.
        """
        self.page.wait_for_function("() => window.jupyterapp?.restored.then(() => true)")
        self.page.wait_for_function(_CONNECTED)

    def cell(self, i: int) -> Locator:
        """Give a cell by its place."""
        return self.page.locator(f'.jp-Cell[data-windowed-list-index="{i}"]')

    def outputs(self, i: int) -> Locator:
        """Give the outputs of a cell, one after another."""
        return self.cell(i).locator(".jp-OutputArea-output")

    def prompt(self, i: int) -> Locator:
        """Give what stands left of a cell: ``[ ]:``, ``[*]:`` while it runs, ``[3]:``."""
        return self.cell(i).locator(".jp-InputPrompt")

    def start_cell(self, i: int) -> None:
        """Run a cell as a person does, and don't wait."""
        self._go_to(i)
        self.page.keyboard.press("Control+Enter")

    def wait_for_cell(self, i: int) -> None:
        """Wait until a cell has run."""
        expect(self.prompt(i)).to_have_text(_RAN)

    def run_cell(self, i: int) -> Locator:
        """Run a cell to its end; give its outputs."""
        self.start_cell(i)
        self.wait_for_cell(i)
        return self.outputs(i)

    def run_all(self) -> None:
        """Choose Run → Run All Cells, and don't wait."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

    def press_stop(self) -> None:
        """Press ■ in the toolbar."""
        self.page.get_by_role("button", name="Interrupt the kernel").click()

    def write(self, i: int, text: str) -> None:
        """Type a text at the end of a cell."""
        self._go_to(i)
        self.page.keyboard.press("Control+End")
        self.page.keyboard.type(text)

    def _go_to(self, i: int) -> None:
        text = self.cell(i).locator(".cm-content")
        text.click()
        expect(text).to_be_focused()

    def errors(self, i: int) -> list[str]:
        """Give the texts of a cell's outputs that are errors."""
        mark = self.page.locator('[data-mime-type="application/vnd.jupyter.stderr"]')
        return [text.strip() for text in self.outputs(i).and_(mark).all_inner_texts()]

    def picture_width(self, i: int) -> int:
        """Bring a cell's one picture into view; give its own width, 0 where it can't be shown."""
        picture = self.outputs(i).locator("img")
        picture.scroll_into_view_if_needed()
        width: int = picture.evaluate("one => one.naturalWidth")
        return width

    def screenshot(self, name: str) -> None:
        """Keep a picture of what is seen now, for a person to look at."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{self._pictures}-{name}.png")


@contextlib.contextmanager
def opened(
    browser: Browser, server: Server, application: str, name: str, cells: Sequence[str]
) -> Iterator[Notebook]:
    """Write a notebook, open it, and load the magics by its first cell.

    Parameters
    ----------
    application
        ``lab`` or ``notebook``.
    name
        Of the notebook, and of its screenshots.
    cells
        Their sources; ``%load_ext nscontainer`` is put before them, as cell 0.
    """
    server.write(f"{name}.ipynb", ["%load_ext nscontainer", *cells])
    path = {"lab": f"lab/workspaces/{name}/tree", "notebook": "notebooks"}[application]
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    try:
        notebook = Notebook(context.new_page(), f"{application}-{name}")
        try:
            notebook.page.goto(f"{server.url}/{path}/{name}.ipynb?token={server.token}")
            notebook.wait_until_ready()
            notebook.run_cell(0)
            expect(notebook.outputs(0)).to_have_count(0)
            yield notebook
        finally:
            notebook.screenshot("end")
    finally:
        context.close()
        server.end_kernels()
