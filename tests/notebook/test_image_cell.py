"""``%%image`` in a real Jupyter kernel: what a person sees of a build, its errors, an interrupt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from nscontainer.image.store import Store
from tests.integration.building import make_base
from tests.integration.inside import eventually
from tests.notebook.kernel import Kernel

pytestmark = [pytest.mark.root, pytest.mark.notebook]


@pytest.fixture(scope="module", autouse=True)
def _base(engine: Path) -> None:
    make_base()


LAB = """%%image lab:1 --from base --network none -e GREETING="hello  you"
# a comment
echo "$GREETING" > /greeting
cat /greeting
for x in 1 2
do
    echo $x
done
ENV SEED=3
COPY data.txt /data/
"""


def test_a_cell_becomes_an_image(kernel: Kernel) -> None:
    """Headings and output as it goes on, each command a layer; then cells of a container have it."""
    assert kernel.run("open('data.txt', 'w').write('copied')").ok
    cell = kernel.run(LAB)
    assert cell.ok, cell.messages
    said = cell.text()
    assert '[2/7] ENV GREETING="hello  you"\n' in said
    assert "[4/7] RUN cat /greeting\nhello  you\n[4/7] done: " in said
    assert "[5/7] RUN for x in 1 2 …\n1\n2\n[5/7] done: " in said
    image = Store().get("lab:1")
    assert len(image.layers) == 1 + 4
    assert image.env[1:] == ("GREETING=hello  you", "SEED=3")
    (summary,) = cell.shown()
    digits = image.id.removeprefix("sha256:")[:12]
    assert summary.startswith(f"lab:1 · {digits} · 5 layers, ")
    (table,) = cell.shown("text/html")
    assert table.count("<tr") == 4
    assert "<td" in table
    run = kernel.run("%%container --sh --image lab:1 -q\ncat /greeting /data/data.txt; echo $SEED")
    assert run.ok, run.messages
    assert run.text() == "hello  you\ncopied3\n"


def test_the_second_time_it_is_cached(kernel: Kernel) -> None:
    """In one line a command; a line that is added costs that one."""
    before = Store().get("lab:1").id
    cell = kernel.run(LAB)
    assert cell.ok, cell.messages
    lines = cell.text().splitlines()
    assert lines[2:] == [
        '[3/7] RUN echo "$GREETING" > /greeting  CACHED',
        "[4/7] RUN cat /greeting  CACHED",
        "[5/7] RUN for x in 1 2 …  CACHED",
        "[6/7] ENV SEED=3  CACHED",
        "[7/7] COPY data.txt /data/  CACHED",
    ]
    assert "cached</td>" in cell.shown("text/html")[0]
    assert Store().get("lab:1").id == before
    assert "[8/8] RUN echo more\nmore\n" in kernel.run(LAB + "echo more\n").text()
    quiet = kernel.run(LAB.replace("--network", "-q --network"))
    assert quiet.ok
    assert quiet.text() == ""
    assert not quiet.shown()


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("%%image x:1 --from base\necho one\nexit 9", "BuildError: cell:3: RUN exit 9: "),
        (
            "%%image x:1 --from base\nCOPY nothing /",
            "SpecError: cell:2: COPY: 'nothing' isn't there",
        ),
        ("%%image x:1\ntrue", "SpecError: --from IMAGE is missing (%%image mylab:1 --from"),
        ("%%image --from base\ntrue", "SpecError: NAME is missing"),
        ("%%image X:1 --from base\ntrue", "SpecError: "),
        ("%%image host --from base\ntrue", "SpecError: "),
        ("%%image x:1 --from base --frm\ntrue", "SpecError: --frm is not an option (did you mean"),
        ("%%image x:1 --from base\n# only a comment", "SpecError: the cell is empty"),
        (
            "%%image x:1 --from base\nHEALTHCHECK x",
            "SpecError: cell:2: HEALTHCHECK isn't supported",
        ),
        ("%%image x:1 --from $NONE\ntrue", "SpecError: "),
    ],
)
def test_errors_are_one_line(kernel: Kernel, cell: str, said: str) -> None:
    """What was wrong, where, and how to mend it; no image comes of it."""
    done = kernel.run(cell)
    assert not done.ok
    (error,) = done.errors()
    assert error.startswith(said), error
    assert "\n" not in error
    assert not any("x:1" in image.names for image in Store().images())


def test_help(kernel: Kernel) -> None:
    """--help and ? show the options, and what a line is."""
    assert "usage: %%image NAME --from IMAGE" in kernel.run("%%image --help\nx").text()


def test_an_interrupt_ends_the_step(kernel: Kernel, engine: Path) -> None:
    """The command's container is gone, the lines before are in the cache, the kernel goes on."""
    text = "%%image stopped:1 --from base\necho {}\necho begun; {}\n"

    def interrupt(kind: str, content: dict[str, Any]) -> None:
        if kind == "stream" and "begun" in content["text"].split("\n"):
            kernel.manager.interrupt_kernel()

    cell = kernel.run(text.format("stopped", "sleep 1000"), during=interrupt)
    assert cell.errors() == [
        "KeyboardInterrupt: the build was interrupted; what was built is in the cache"
    ]
    folder = engine / "containers"
    assert eventually(lambda: not os.listdir(folder))
    again = kernel.run(text.format("stopped", "true"))
    assert again.ok, again.messages
    assert "[2/3] RUN echo stopped  CACHED\n" in again.text()


def test_tab_completes(kernel: Kernel) -> None:
    """Flags, and images after --from."""

    def complete(text: str) -> list[str]:
        reply = kernel.client.complete(text, reply=True, timeout=20)
        matches: list[str] = reply["content"]["matches"]
        return matches

    assert {"--from", "--network", "--no-cache"} <= set(complete("%%image x:1 --"))
    found = complete("%%image x:1 --from ")
    assert {"base:latest", "host", "lab:1"} <= set(found), found
    assert complete("%%image x:1 --from base --network h") == ["host"]


def test_unloading_takes_it_away(kernel: Kernel) -> None:
    """And loading brings it back."""
    assert kernel.run("%unload_ext nscontainer").ok
    gone = kernel.run("%%image x:1 --from base\ntrue")
    assert "UsageError" in gone.text("stderr") + "".join(gone.errors())
    assert kernel.run("%load_ext nscontainer").ok
    assert kernel.run("%%image --help\nx").ok
