"""The card: that it says what matters, fits, and shows nobody's markup."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from typing import Any

import pytest

from nscontainer import card, spec
from nscontainer.measure import RunResult, headline
from tests.unit import factories
from tests.unit.factories import MIB
from tests.unit.test_measure_result import change

EVIL = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&\x1b[31mred\x1b[0m\u202etxt.exe\r\n"
)


def runs() -> dict[str, RunResult]:
    """Runs of every kind."""
    oom: dict[str, Any] = {"oom_killed": True, "exit_code": 137, "signal": 9}
    evil_isolation = {
        "namespaces": {EVIL: "private", "time": "unavailable"},
        "user_map": [EVIL],
        "rootfs": EVIL,
        "capabilities": [EVIL],
        "seccomp": EVIL,
        "network": EVIL,
        "notes": [EVIL] * 9,
    }
    return {
        "throttled": factories.run(5),
        "unlimited": factories.run(2, quota=None, asked=spec.Limits(), code=None),
        "oom": factories.run(1.2, quota=None, memory=lambda t: 256 * MIB, oom_at=1, **oom),
        "update": factories.run(
            2,
            quota=lambda t: None if t < 1 else 0.2,
            asked=spec.Limits(),
            limit_changes=[change(1, cpu="20%")],
        ),
        "nothing": RunResult.from_record(
            factories.record(wall_ns=0, baseline=None, final=None, limits_read_back=None), b""
        ),
        "everything": factories.run(
            3,
            asked=spec.limits(
                cpu="12.5%",
                cpu_period=20_000,
                cpu_burst=1_000,
                cpu_shares=99,
                cpuset_cpus="0-1",
                memory="10000001",
                memory_swap="-1",
                pids_limit=5,
                timeout="1h",
                cpu_time="59s",
                ulimits=["nofile=1:2", "core=-1"],
            ),
            limits_read_back={},
            missed_samples=3,
        ),
        "evil": factories.run(
            2,
            code=EVIL,
            name=EVIL,
            image=EVIL,
            id=EVIL,
            exit_code=126,
            exec_error=EVIL,
            start_mode=EVIL,
            isolation=evil_isolation,
            limits_read_back={"cpuset_cpus": EVIL},
            provenance=factories.host(
                **dict.fromkeys(
                    ("host", "machine", "system", "linux", "cpu_model", "governor", "python"), EVIL
                )
            ),
        ),
    }


RUNS = runs()


class Checker(HTMLParser):
    """Checks that tags are of a short list, closed in order, and carry harmless attributes."""

    TAGS = frozenset(
        "div code strong span table tr th td svg line polyline small details summary".split()
    )
    ATTRIBUTES = frozenset(
        "style width height viewbox role aria-label x1 x2 y1 y2 stroke stroke-width colspan "
        "stroke-dasharray stroke-opacity fill points".split()
    )

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        assert tag in self.TAGS, tag
        for name, value in attrs:
            assert name in self.ATTRIBUTES, name
            assert "url(" not in value
            assert "//" not in value
        if tag != "line":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag != "line":
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("name", RUNS)
def test_html_is_well_formed_and_harmless(name):
    """Only known tags and attributes, all closed; no script, style sheet or outside resource."""
    html = RUNS[name]._repr_html_()
    ET.fromstring(html)
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert not checker.open
    assert not {c for c in html if ord(c) < 32 or c in "\u202e\x7f"}
    assert "<script" not in html
    assert "background:#" not in html
    assert len(html) < 30_000


@pytest.mark.parametrize("name", RUNS)
def test_text_fits(name):
    """Six lines of a hundred columns at most, whatever happened, and no control character."""
    text = str(RUNS[name])
    lines = text.split("\n")
    assert len(lines) <= 6
    assert max(map(len, lines)) <= 100
    assert not {c for c in text if (ord(c) < 32 and c != "\n") or c in "\u202e\x7f"}


@pytest.mark.parametrize("name", RUNS)
def test_repr_is_one_line(name):
    """So that a list of results can be read."""
    line = repr(RUNS[name])
    assert line.startswith("<RunResult ")
    assert not {c for c in line if ord(c) < 32}


def test_the_headline():
    """What %timeit's line is: what it had, of what, and how it ended."""
    run = factories.run(5.01, seed=3)
    assert repr(run) == (
        "<RunResult quiet-heron: 20.2 % of a CPU for 5.01 s (limit 20 %) · "
        "throttled 50 of 51 periods · peak 12.0 MiB of 256 MiB · exit 0>"
    )
    assert str(run).startswith("20.2 % of a CPU for 5.01 s (limit 20 %) · throttled 50 of 51")


def test_the_text():
    """Line by line."""
    assert str(RUNS["throttled"]).splitlines() == [
        " · ".join(headline.parts(RUNS["throttled"])[:3]),
        "  exit 0 · asked CPU 20 %, memory 256 MiB; read back as asked",
        "  CPU " + "█" * 50 + " up to 20.6 %",
        f"  {card.ICONS['info']} started from the warm Python, whose memory is not counted here; --cold counts it all",
    ]


def test_limits_that_were_not_kept_stand_out():
    """In the text and in the table."""
    run = factories.run(3, limits_read_back=factories.read_back(spec.limits(memory="128M")))
    assert "CPU 20 % (read back: no limit!)" in str(run)
    assert "read back as asked" not in str(run)
    assert "⚠ no limit</strong>" in run._repr_html_()


def test_ipython_prints_the_card():
    """_repr_pretty_ is IPython's way to the text."""

    class Printer:
        said = ""

        def text(self, text):
            self.said += text

    printer = Printer()
    RUNS["oom"]._repr_pretty_(printer, cycle=False)
    assert printer.said == str(RUNS["oom"])
    assert "killed: out of memory at 256 MiB; peak 256.0 MiB after 1.2 s" in printer.said


def test_the_sparkline():
    """A stair of CPU use and the quota as a dashed line, in the page's own colour."""
    html = RUNS["update"]._repr_html_()
    svg = ET.fromstring(html[html.index("<svg") : html.index("</svg>") + 6])
    use = svg.find("polyline")
    assert use is not None
    assert use.get("stroke") == "currentColor"
    points = [tuple(map(float, p.split(","))) for p in use.get("points", "").split()]
    assert points[0][1] < 10 < points[-1][1]  # y grows downwards: from 100 % to 20 %
    (quota,) = (line for line in svg.findall("line") if line.get("stroke-dasharray"))
    assert float(quota.get("x1", "0")) == pytest.approx(card._WIDTH / 2, abs=4)


def test_every_warning_is_there():
    """With its icon, which is not the only thing that says how grave it is."""
    run = RUNS["everything"]
    html = run._repr_html_()
    assert len(run.warnings) > 5
    for warning in run.warnings:
        assert card.escaped(warning.message) in html


def test_what_was_moved_is_said_with_its_limit():
    """Where there was traffic or a limit; nothing of what a program reads of itself."""
    moved = {
        "blkio.write_bytes": lambda t: 5 * MIB * t,
        "blkio.read_bytes": lambda t: 1000 * t,
        "net.rx_bytes": lambda t: 1.25e6 * t,
        "net.tx_bytes": lambda t: 2e4 * t,
    }
    run = factories.flow(10, moved, spec.limits(disk_write="5M", net_rate="10mbit"))
    said = card.text(run)
    assert "disk 50 MiB written at 5 MiB/s of 5 MiB/s" in said
    assert (
        "network 12.5 MB in at 10 Mbit/s of 10 Mbit/s, 200 kB out at 160 kbit/s of 10 Mbit/s"
        in (said.replace("\n  ", " "))
    )
    assert " read" not in said.replace("read back", "")
    assert "exit 0" in said
    html = card.html(run)
    assert "12.5 MB at 10 Mbit/s" in html
    free = factories.flow(10, moved, spec.Limits())
    assert "disk 50 MiB written at 5 MiB/s\n" in card.text(free)
    assert "50 MiB written at 5 MiB/s" in card.html(free)
    assert "network" not in card.html(factories.flow(1, {}, spec.Limits())).split("<details")[0]
    changed = factories.flow(
        10, moved, spec.limits(disk_write="5M"), limit_changes=[change(4, disk_write="9M")]
    )
    assert "50 MiB written at 5 MiB/s" in card.text(changed)
    assert "5 MiB/s of" not in card.text(changed)
