"""Defaults of the options in a real kernel: %config, %container defaults, a configuration file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.notebook import kernel as kernels
from tests.notebook.kernel import Kernel, run

pytestmark = [pytest.mark.notebook, pytest.mark.root]

ASKED = "print(r.limits.asked.cpu_quota_us, r.limits.asked.memory_bytes)"


@pytest.fixture(name="kernel")
def kernel_without_defaults(kernel: Kernel) -> Iterator[Kernel]:
    """The file's kernel, without defaults."""
    yield kernel
    run(kernel, "%container defaults --reset")


def test_config(kernel: Kernel) -> None:
    """``%config`` sets defaults, which the cgroup has; the line beats them; it lists them with help."""
    run(kernel, '%config ContainerMagics.cpu = "50%"')
    run(kernel, '%config ContainerMagics.memory = "256M"')
    run(kernel, "%%container -q -o r\n1")
    assert run(kernel, ASKED) == f"50000 {256 << 20}\n"
    back = "print(r.limits.read_back.cpu_quota_us, r.limits.read_back.memory_bytes)"
    assert run(kernel, back) == f"50000 {256 << 20}\n"
    run(kernel, "%%container -q -o r --cpu-quota 20000 -m 128M\n1")
    assert run(kernel, ASKED) == f"20000 {128 << 20}\n"
    text = run(kernel, "%config ContainerMagics")
    for part in ("ContainerMagics.cpu=", "ContainerMagics.pids_limit=", "CPU quota: 20%,", "live="):
        assert part in text
    run(kernel, "%config ContainerMagics.quiet = True")
    assert kernel.run("%%container\npass").of("display_data") == []


def test_a_wrong_value_is_refused(kernel: Kernel) -> None:
    """At once, in one line; the old value stays."""
    run(kernel, '%config ContainerMagics.cpu = "50%"')
    said = kernel.run('%config ContainerMagics.cpu = "fifty"').text("stderr")
    assert "ContainerMagics.cpu: 'fifty' is not an amount of CPU (write 20%, 0.2," in said
    assert len(said.strip().splitlines()) == 1
    cell = kernel.run("%container defaults --memory 1G --timeout soon")
    assert cell.errors() == ["SpecError: 'soon' is not a duration (write 20ms, 1.5s, 2m or 1h30m)"]
    cell = kernel.run("%container defaults --memory-swap 1G")
    assert cell.errors()[0].startswith("SpecError: memory-swap '1G' needs a memory limit")
    shown = kernel.run("%container defaults").shown()
    assert shown == ["{'cpu': '50%', 'shown_output': '8M', 'live': True}"]


def test_container_defaults(kernel: Kernel) -> None:
    """Set, show, reset; Tab knows the options; sessions are made with them, their cells go on."""
    run(kernel, "%container defaults --cpu 50% --timeout 30s -e 'A=b c' -e D=e --network host")
    (shown,) = kernel.run("%container defaults").shown()
    assert "'env': \"'A=b c' D=e\"" in shown
    code = "import os\nprint(os.environ['A'], os.environ['D'])"
    assert run(kernel, "%%container -q -o r\n" + code) == "b c e\n"
    assert run(kernel, "print(r.limits.asked.timeout_s, 'net' in r.spec.host_namespaces)") == (
        "30.0 True\n"
    )
    assert run(kernel, "%%container --sh -q -e D=x\necho $A$D") == "x\n"
    run(kernel, "%container create lab")
    assert run(kernel, "%%container lab -q -o r\n" + code) == "b c e\n"
    assert run(kernel, ASKED) == "50000 None\n"
    assert run(kernel, "print(r.limits.asked.timeout_s)") == "None\n"
    run(kernel, "%container rm -f lab")
    assert "--memory" in kernel.complete("%container defaults --mem")
    assert "--reset" in kernel.complete("%container defaults --cpu 20% --re")
    assert "defaults" in kernel.complete("%container def")
    (shown,) = kernel.run("%container defaults --cpu-quota 20000").shown()
    assert "'cpu_quota': '20000'" in shown
    assert "'cpu':" not in shown
    assert kernel.run("%container defaults --reset").shown() == [
        "{'shown_output': '8M', 'live': True}"
    ]
    run(kernel, "%%container -q -o r\n1")
    assert run(kernel, ASKED) == "None None\n"


def test_shown_output(kernel: Kernel) -> None:
    """How much is shown is a setting; the result has more."""
    run(kernel, "%container defaults --shown-output 10K")
    code = "for n in range(50_000):\n    print(f'{n:09d}')"
    cell = kernel.run("%%container -q -o r\n" + code)
    assert "KiB of output dropped here]\n" in cell.text()
    assert len(cell.text()) < 80_000
    assert cell.text().endswith("000049999\n")
    assert run(kernel, "print(len(r.stdout))") == "500000\n"
    run(kernel, "%container defaults --shown-output 0")
    assert len(run(kernel, "%%container -q\n" + code)) == 500_000


def test_defaults_that_contradict_each_other(kernel: Kernel) -> None:
    """%config sets one after the other: they can be looked at all the same, and the cell says whose fault it is."""
    run(kernel, '%config ContainerMagics.cpu = "50%"\n%config ContainerMagics.cpu_quota = 30000')
    (told,) = kernel.run("%%container\n1").errors()
    assert told.startswith("SpecError: the defaults contradict each other: cpu and cpu-quota")
    assert kernel.run("%container defaults").ok
    assert run(kernel, "%%container -q --cpu 20%\nprint(1)") == "1\n"


def test_a_list_is_no_text(kernel: Kernel) -> None:
    """It would be something else than it says."""
    cell = kernel.run('%config ContainerMagics.env = ["A=1", "B=2"]')
    assert (
        "ContainerMagics.env: ['A=1', 'B=2'] is not a text (write one, as 'A=1 B=2')"
        in cell.text("stderr")
    )


@pytest.mark.parametrize("good", [True, False])
def test_a_configuration_file(engine: Path, tmp_path: Path, good: bool) -> None:  # noqa: FBT001
    """``c.ContainerMagics.cpu`` in ipython_config.py; a wrong one there is one line of %load_ext."""
    profile = tmp_path / "profile_default"
    profile.mkdir()
    value = "50%" if good else "fifty"
    (profile / "ipython_config.py").write_text(
        f"c.ContainerMagics.memory_swap = '1G'\nc.ContainerMagics.cpu = {value!r}\n"
        "c.ContainerMagics.memory = '512M'\n"
    )
    where, state = str(tmp_path), str(engine)
    with kernels.start(where, load=False, IPYTHONDIR=where, NSCONTAINER_STATE_DIR=state) as kernel:
        cell = kernel.run("%load_ext nscontainer")
        if good:
            run(kernel, "%%container -q -o r\n1")
            assert run(kernel, ASKED) == f"50000 {512 << 20}\n"
            run(kernel, "%%container -q -o r -m 2G\n1")  # more than the default's memory-swap
        else:
            (line,) = cell.errors()
            assert line.startswith(
                "SpecError: ContainerMagics.cpu: 'fifty' is not an amount of CPU ("
            )


def test_the_ladder_as_a_default(kernel: Kernel) -> None:
    """With --unconfined by default cells are marked on their card, and sessions are containers still."""
    run(kernel, "%container defaults --unconfined --best-effort")
    assert "'unconfined': True" in kernel.run("%container defaults").shown()[0]
    cell = kernel.run(
        "%%container --cpu 20% -o r --out here\nimport os\nhere = os.getppid()\nprint(1)"
    )
    assert cell.text("stdout") == "1\n"
    (card,) = cell.shown("text/html")
    for part in (
        "NOT ISOLATED (--unconfined)",
        "not held: that takes a cgroup",
        "not isolated: a plain",
    ):
        assert part in card
    said = "print(r.start_mode, r.usage.attrs['isolation'], here > 1, r.limits.unheld.keys())"
    assert run(kernel, said) == "unconfined not isolated True dict_keys(['cpu_quota_us'])\n"
    run(kernel, "%container create ladder")
    assert run(kernel, "%%container ladder -q\nimport os; print(os.getpid())") == "1\n"
    run(kernel, "%container rm -f ladder")
    run(kernel, "%config ContainerMagics.unconfined = False")
    cell = kernel.run("%%container --unconfined -v /tmp:/x\n1")
    assert cell.errors() == [
        "SpecError: --volume needs a container, and --unconfined makes none (leave one of the two out)"
    ]
