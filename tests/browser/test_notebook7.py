"""Notebook 7 in a real browser: the same kernel and the same outputs in another application."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import BUSY, SLEEPS, Open

pytestmark = [pytest.mark.browser, pytest.mark.root, pytest.mark.timeout(180)]


def test_a_cell_its_plot_and_the_stop_button(notebook7: Open):
    """Output, card and picture are seen; ■ ends a long cell, and the next one runs."""
    cells = [BUSY, "r.plot();", SLEEPS, "%%container -q\nprint('goes on')"]
    with notebook7("cells", cells) as notebook:
        outputs = notebook.run_cell(1)
        expect(outputs.nth(0)).to_have_text("said inside\n")
        expect(outputs.nth(2).locator("svg")).to_be_visible()
        notebook.run_cell(2)
        assert notebook.picture_width(2) > 100
        notebook.screenshot("plot")
        notebook.start_cell(3)
        expect(notebook.outputs(3)).to_have_text("asleep\n")
        notebook.press_stop()
        notebook.wait_for_cell(3)
        assert notebook.errors(3)[-1] == "KeyboardInterrupt: interrupted"
        expect(notebook.run_cell(4)).to_have_text("goes on\n")
