"""The live view, and the dashboard of a cell in the background, in a real JupyterLab."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Open, busy

if TYPE_CHECKING:
    from playwright.sync_api import Locator

    from tests.browser.jupyter import Notebook

pytestmark = [pytest.mark.browser, pytest.mark.root, pytest.mark.timeout(180)]


def live(notebook: Notebook, i: int) -> Locator:
    """The output of a cell that says how it is getting on: ``runs 2.4 s · CPU …``."""
    going = re.compile(r"(runs|paused) \d+\.\d s")
    return notebook.outputs(i).filter(has_text=going)


def test_the_live_view_ends_as_a_picture(lab: Open):
    """A long cell is seen to move while it runs; a picture in the same place stays."""
    with lab("live", [busy("--cpu 50%", 5)]) as notebook:
        notebook.start_cell(1)
        view = live(notebook, 1)
        expect(view.locator("svg")).to_have_count(2)
        notebook.screenshot("runs")
        expect(notebook.prompt(1)).to_have_text("[*]:")
        first = view.inner_text()
        expect(view).not_to_have_text(first)
        notebook.wait_for_cell(1)
        expect(view).to_have_count(0)
        assert notebook.picture_width(1) > 100
        expect(notebook.outputs(1).locator("table").first).to_contain_text("50 %")


def test_the_dashboard(lab: Open):
    """The notebook goes on; the slider, Pause, Resume and Stop do what they say."""
    cells = [busy("--cpu 20% --bg -o r", 600), "print('goes on', r.done)"]
    cells += ["print(r.done, [c.text for c in r.limits.changes])"]
    with lab("dashboard", cells) as notebook:
        board = notebook.run_cell(1)
        expect(notebook.run_cell(2)).to_have_text("goes on False\n")
        view, stop = live(notebook, 1), board.get_by_role("button", name="Stop")
        expect(view).to_contain_text("of 20 %")
        expect(stop).to_be_enabled()
        notebook.screenshot("runs")

        drag(board.get_by_role("slider"), 80)
        said = board.get_by_text(re.compile(r"CPU quota \d+ %"))
        expect(said).to_be_visible()
        (percent,) = re.findall(r"CPU quota (\d+) %", said.inner_text())
        assert int(percent) > 20
        expect(view).to_contain_text(f"of {percent} %")
        notebook.screenshot("moved")

        board.get_by_role("button", name="Pause").click()
        expect(view).to_contain_text("paused")
        notebook.screenshot("paused")
        board.get_by_role("button", name="Resume").click()
        expect(view).to_contain_text("runs")

        stop.click()
        expect(view).to_have_count(0)
        for button in board.get_by_role("button").all():
            expect(button).to_be_disabled()
        assert notebook.picture_width(1) > 100
        # The cell's own traceback, and the line that says what became of the run, as after ■.
        expect(notebook.outputs(1).filter(has_text="KeyboardInterrupt")).to_have_count(2)
        expect(notebook.run_cell(3)).to_have_text(f"True ['CPU {percent} %']\n")


def drag(slider: Locator, right: int) -> None:
    """Move a slider with the mouse, some pixels to the right."""
    box = slider.bounding_box()
    assert box is not None
    x, y, mouse = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, slider.page.mouse
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + right, y, steps=5)
    mouse.up()
