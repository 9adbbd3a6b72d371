"""The documentation says what is so: generated parts, links, names of tests and files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nscontainer import doctor
from nscontainer.doctor import Finding
from tests.host import ROOT
from tools import doc_tables

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").rglob("*.md")]
)
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
TEST = re.compile(r"`(test_\w+\.py)::(test_\w+)`")
SOURCE = re.compile(r"`((?:nscontainer|magics|tools|tests|benchmarks)/[\w./]+)`")
MOST_ADR_LINES = 40


def page(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_generated_parts_are_what_the_code_gives(path: Path) -> None:
    """``python tools/doc_tables.py`` would change nothing."""
    assert doc_tables.brought_up_to_date(page(path)) == page(path)


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("schema", "accounting.md"),
        ("options", "options.md"),
        ("sweep-options", "experiments.md"),
        ("commands", "cli.md"),
        ("magic-commands", "notebook.md"),
        ("image-commands", "images.md"),
    ],
)
def test_every_generated_part_has_its_place(name: str, document: str) -> None:
    """The tables of columns, options and commands stand in the documents that are about them."""
    assert doc_tables.PARTS[name]() in page(ROOT / "docs" / document)


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """Each relative link and picture is there."""
    targets = [m[1] for m in LINK.finditer(page(path)) if "://" not in m[1]]
    assert [t for t in targets if not (path.parent / t).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_names_of_source_files_are_right(path: Path) -> None:
    """A file of this project that a page names exists."""
    assert [m[1] for m in SOURCE.finditer(page(path)) if not (ROOT / m[1]).exists()] == []


def test_every_test_that_isolation_names_exists() -> None:
    """The table of escapes points at tests that there are."""
    named = TEST.findall(page(ROOT / "docs" / "isolation.md"))
    assert len(named) > 10
    for file, test in named:
        assert f"def {test}(" in page(ROOT / "tests" / "integration" / file), f"{file}::{test}"


def test_every_warning_is_explained() -> None:
    """accounting.md has a row for each code that a result's warnings may have."""
    source = page(ROOT / "nscontainer" / "measure" / "run_warnings.py")
    codes = re.findall(r'RunWarning\(\s*"([a-z-]+)"', source)
    assert len(codes) > 10
    text = page(ROOT / "docs" / "accounting.md")
    assert [code for code in codes if f"| `{code}` |" not in text] == []


def test_every_warning_of_a_sweep_is_explained() -> None:
    """experiments.md has a row for each code."""
    codes = []
    for name in ("stability", "machine"):
        source = page(ROOT / "nscontainer" / "experiment" / f"{name}.py")
        codes += re.findall(r'RunWarning\(\s*"([a-z-]+)"', source)
    assert len(codes) > 15
    text = page(ROOT / "docs" / "experiments.md")
    assert [code for code in codes if f"| `{code}` |" not in text] == []


def test_decisions_are_short_and_complete() -> None:
    """Each has its three parts, fits on a screen and is in the list."""
    listed = page(ROOT / "docs" / "adr" / "README.md")
    for path in sorted((ROOT / "docs" / "adr").glob("0*.md")):
        lines = page(path).splitlines()
        headings = [line for line in lines if line.startswith("## ")]
        assert headings == ["## Context", "## Decision", "## Consequences"], path.name
        assert len(lines) <= MOST_ADR_LINES, path.name
        assert f"]({path.name})" in listed, path.name


def test_the_readme_has_pictures_of_a_sane_size_and_both_commands() -> None:
    """What a visitor sees first."""
    readme = page(ROOT / "README.md")
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", readme)
    shown = ["quickstart", "layers", "two-containers", "cpu-quotas"]
    assert pictures == [f"docs/images/{name}.png" for name in shown]
    assert all((ROOT / picture).stat().st_size <= 200_000 for picture in pictures)
    assert "make demo" in readme
    assert "make test" in readme


def test_hosts_page_has_the_rungs() -> None:
    """docs/hosts.md says what the doctor's verdict says."""
    hosts = page(ROOT / "docs" / "hosts.md")
    limited = Finding(name="a limited container", status="works", detail="")
    without = Finding(name="a limited container", status="missing", detail="…")
    nothing = Finding(name="…", status="missing", detail="", needed=True)
    for verdict in (doctor.verdict([limited]), doctor.verdict([without]).partition("…")[0]):
        assert f"`{verdict}" in hosts
    assert f"`{doctor.verdict([nothing])}`" in hosts
