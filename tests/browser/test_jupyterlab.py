"""A real JupyterLab in a real browser: what a person sees of cells in containers."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import BUSY, SLEEPS, Open, busy

pytestmark = [pytest.mark.browser, pytest.mark.root, pytest.mark.timeout(180)]


def test_a_cell_its_card_and_its_plot(lab: Open):
    """Output, display and card of a cell are seen, and then the picture that r.plot() draws."""
    with lab("plot", [BUSY, "r.plot()"]) as notebook:
        outputs = notebook.run_cell(1)
        expect(outputs).to_have_count(3)
        expect(outputs.nth(0)).to_have_text("said inside\n")
        expect(outputs.nth(1)).to_have_text("'shown inside'")
        card = outputs.nth(2)
        expect(card.locator("table").first).to_contain_text("50 %")
        expect(card.locator("svg")).to_be_visible()
        notebook.screenshot("card")
        notebook.run_cell(2)
        assert notebook.picture_width(2) > 100


def test_a_dark_theme(lab: Open):
    """The card takes its colours from where it stands: light lines and letters on a dark ground."""
    with lab("dark", [busy("--cpu 50% -m 64M", 2.5)]) as notebook:
        change = "theme => jupyterapp.commands.execute('apputils:change-theme', {theme})"
        notebook.page.evaluate(change, "JupyterLab Dark")
        expect(notebook.page.locator("body")).to_have_attribute("data-jp-theme-light", "false")
        card = notebook.run_cell(1).filter(has=notebook.page.locator("table"))
        for part, colour in (("table", "color"), ("polyline", "stroke")):
            shown = card.locator(part).first.evaluate(f"one => getComputedStyle(one).{colour}")
            assert min(int(number) for number in re.findall(r"\d+", shown)[:3]) > 150, shown
        notebook.screenshot("card")
        notebook.page.evaluate(change, "JupyterLab Light")  # it is the server's setting


def test_the_stop_button(lab: Open):
    """■ ends a long cell with one line, and the next cell runs."""
    with lab("stop", [SLEEPS, "%%container -q\nprint('goes on')"]) as notebook:
        notebook.start_cell(1)
        expect(notebook.outputs(1)).to_have_text("asleep\n")
        expect(notebook.prompt(1)).to_have_text("[*]:")
        notebook.press_stop()
        notebook.wait_for_cell(1)
        traceback, line = notebook.errors(1)
        assert "time.sleep(600)" in traceback
        assert line == "KeyboardInterrupt: interrupted"
        expect(notebook.run_cell(2)).to_have_text("goes on\n")


def test_run_all_stops_at_a_failed_cell(lab: Open):
    """The traceback is shown once, then one line, and no cell after it runs."""
    cells = ["print('before')", "%%container -q\nx = 1\nx / 0", "print('never')"]
    with lab("run-all", cells) as notebook:
        notebook.run_all()
        notebook.wait_for_cell(2)
        expect(notebook.prompt(3)).to_have_text("[ ]:")
        expect(notebook.outputs(1)).to_have_text("before\n")
        expect(notebook.outputs(3)).to_have_count(0)
        traceback, line = notebook.errors(2)
        assert re.search(r"Cell In\[\d+\], line 3", traceback), traceback
        assert traceback.count("ZeroDivisionError: division by zero") == 1
        assert line == "ContainerFailed: exit code 1"


def test_a_slider_is_seen_and_moved(lab: Open):
    """A widget of the notebook is drawn, and moving it reaches the kernel."""
    code = """import ipywidgets
slider = ipywidgets.IntSlider(value=20, min=0, max=100, description='quota')
slider"""
    with lab("slider", [code, "print(slider.value)"]) as notebook:
        handle = notebook.run_cell(1).get_by_role("slider")
        expect(handle).to_be_visible()
        handle.press("ArrowRight")
        expect(notebook.outputs(1).locator(".widget-readout")).to_have_text("21")
        expect(notebook.run_cell(2)).to_have_text("21\n")


def test_tab_offers_options(lab: Open):
    """Tab after the beginning of an option offers it, and Enter takes it."""
    with lab("tab", [""]) as notebook:
        notebook.write(1, "%%container --mem")
        notebook.page.keyboard.press("Tab")
        offered = notebook.page.locator(".jp-Completer-match")
        expect(offered).to_have_text(["--memory", "--memory-swap"])
        notebook.screenshot("offer")
        notebook.page.keyboard.press("Enter")
        expect(notebook.page.locator(".jp-Completer")).to_be_hidden()
        expect(notebook.cell(1).locator(".cm-line").first).to_have_text("%%container --memory")


@pytest.mark.parametrize(
    ("name", "shows"), [("%container?", "update NAME"), ("%%container?", "--memory-swap")]
)
def test_help(lab: Open, name: str, shows: str):
    """The question mark opens the help."""
    with lab("help" + "-cell" * name.count("%%"), [name]) as notebook:
        notebook.run_cell(1)
        expect(notebook.page.get_by_text(shows).first).to_be_visible()


def test_a_sweep(lab: Open):
    """Its progress is seen with a row a level; ■ keeps what is done; the cell goes on from there to its card."""
    sweep = (
        "%%container --cpu 50%,100% --repeat 4 -o s\nimport time\nbegin = time.process_time()\n"
        "while time.process_time() - begin < 0.3:\n    pass\nprint('said inside')"
    )
    with lab("sweep", [sweep]) as notebook:
        notebook.start_cell(1)
        progress = notebook.outputs(1).filter(has_text=re.compile(r"[3-6] of 8 runs · .* s left"))
        expect(progress.get_by_role("progressbar")).to_be_visible()
        expect(progress.locator("table")).to_contain_text("cpu 50 %")
        notebook.screenshot("progress")
        notebook.press_stop()
        notebook.wait_for_cell(1)
        (line,) = notebook.errors(1)
        assert re.fullmatch(
            r"KeyboardInterrupt: stopped after \d of 8 runs; run the cell again to go on from there",
            line,
        )
        notebook.screenshot("stopped")
        outputs = notebook.run_cell(1)
        expect(outputs.first).to_have_text(re.compile(r"going on after \d of 8 runs\n"))
        expect(outputs.locator("table").first).to_contain_text("100 %")
        expect(outputs.get_by_role("progressbar")).to_have_count(0)
        assert notebook.picture_width(1) > 100
        notebook.screenshot("card")
