"""Networks from the command line, from Python and by Tab; the state is one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from IPython.core.completer import CompletionContext
from IPython.core.interactiveshell import InteractiveShell

from nscontainer import Container, networks, spec
from nscontainer.cli import main
from nscontainer.errors import NotFoundError, SpecError, StateError
from nscontainer_magics import commands, completion
from tests.integration.inside import eventually

pytestmark = [
    pytest.mark.once,
    pytest.mark.root,
    pytest.mark.userns,
    pytest.mark.network,
    pytest.mark.usefixtures("engine"),
]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process: exit code, output, errors."""

    def call(*argv: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(argv)
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def lab(run: Run) -> Iterator[str]:
    assert run("network", "create", "lab", "--subnet", "10.99.7.0/24", "--label", "a=b")[0] == 0
    yield "lab"
    assert run("network", "rm", "lab")[0] == 0


@pytest.fixture
def box(lab: str) -> Iterator[Container]:
    """A container on that network with a published port."""
    asked = spec.build(["sleep", "60"], network="lab", ip="10.99.7.9", publish=["80", "0:53/udp"])
    container = Container.create(asked, name="box", start=True)
    yield container
    container.kill()
    container.wait(20)


def test_made_listed_inspected_removed(run: Run, box: Container) -> None:
    """Every sub-command, and what it says of who is on the network."""
    code, out, _ = run("network", "ls")
    header, *lines = out.splitlines()
    assert (code, header.split()[:3]) == (0, ["NETWORK", "ID", "NAME"])
    rows = {line.split()[1]: line.split()[2:] for line in lines}
    assert rows["lab"] == ["10.99.7.0/24", "10.99.7.1", "no", "box"]
    assert "bridge" in rows
    (found,) = json.loads(run("network", "inspect", "lab")[1])
    assert found["labels"] == {"a": "b"}
    assert found["up"]
    assert found["containers"] == [{"name": "box", "id": box.id, "ip": "10.99.7.9"}]
    assert json.loads(run("network", "ls", "--json")[1]) == [
        {"name": n.name, "id": n.id, "subnet": n.subnet, "gateway": n.gateway,
         "internal": n.internal, "containers": ["box"] if n.name == "lab" else []}
        for n in networks.list()
    ]  # fmt: skip
    assert found["id"] in run("network", "ls", "-q")[1].split()


def test_ports_are_shown(run: Run, box: Container) -> None:
    """By port, ps, inspect and the magic alike."""
    first, second = box.inspect()["network"]["ports"]
    assert (first["port"], second["protocol"]) == (80, "udp")
    out = run("port", "box")[1].splitlines()
    assert out == [
        f"80/tcp -> 127.0.0.1:{first['host_port']}",
        f"53/udp -> 127.0.0.1:{second['host_port']}",
    ]
    shown = f"127.0.0.1:{first['host_port']}->80/tcp, 127.0.0.1:{second['host_port']}->53/udp"
    assert shown in run("ps")[1]
    assert shown in set(commands.call(["ps"])["ports"])
    frame = commands.call(["port", "box"])
    assert list(frame["host_port"]) == [first["host_port"], second["host_port"]]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["create", "bridge"], "network name 'bridge' is reserved"),
        (["create", "lab"], "network 'lab' exists already"),
        (["create", "two", "--subnet", "10.99.7.128/25"], "overlaps network 'lab'"),
        (["create", "two", "--subnet", "10.99.8.0/30"], "too small"),
        (["create", "two", "--gateway", "1.2.3.4"], "no host's address in"),
        (["create", "two", "--label", "=x"], "label '=x' has no name"),
        (["create"], "required: NAME"),
        (["rm", "lab"], "network 'lab' is in use by box"),
        (["rm", "bridge"], "network 'bridge' is built in"),
        (["rm", "nobody"], "no network 'nobody'"),
        (["inspect", "nobody"], "no network 'nobody'"),
        (["destroy"], "'destroy' is no sub-command of nscontainer network"),
    ],
)
def test_each_mistake_is_one_line(run: Run, box: Container, argv: list[str], said: str) -> None:
    """With the value, and how to mend it; nothing has changed then."""
    before = networks.list()
    code, _, err = run("network", *argv)
    assert code != 0
    assert said in err
    assert err.count("\n") == 1
    assert err.rstrip().endswith(")")
    assert networks.list() == before
    with pytest.raises((SpecError, StateError, NotFoundError)):
        commands.call(["network", *argv])


def test_a_subnet_of_the_hosts_is_refused(run: Run) -> None:
    """What a route of this host leads to is no network's."""
    name = f"out{os.getpid() % 10000}-c"
    subprocess.run(
        ["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}x"], check=True
    )
    try:
        subprocess.run(["ip", "addr", "add", "198.18.77.1/24", "dev", name], check=True)
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        code, _, err = run("network", "create", "two", "--subnet", "198.18.76.0/22")
    finally:
        subprocess.run(["ip", "link", "del", name], check=True)
    assert code != 0
    assert f"overlaps the host's route 198.18.77.0/24 on {name}" in err


def test_the_magic_is_the_same(lab: str, capfd: pytest.CaptureFixture[str]) -> None:
    commands.call(["network", "create", "two", "--internal", "--subnet", "10.99.9.0/24"])
    assert "network two: 10.99.9.0/24, no way out" in capfd.readouterr().out
    frame = commands.call(["network", "ls"]).set_index("name")
    assert list(frame.loc[["lab", "two"], "internal"]) == [False, True]
    assert commands.call(["network", "inspect", "two"])["internal"]
    assert [one["name"] for one in commands.call(["network", "inspect", "two", "lab"])] == [
        "two",
        "lab",
    ]
    commands.call(["network", "rm", "two"])
    assert "two" not in [network.name for network in networks.list()]
    for words in (["network"], ["network", "create", "--help"], ["network", "--help"]):
        commands.call(words)
        assert "network" in capfd.readouterr().out


def test_tab_knows_networks(lab: str) -> None:
    """Sub-commands, their flags, and names."""
    shell = InteractiveShell.instance()
    completion.install(shell)

    def complete(line: str) -> set[str]:
        context = CompletionContext(
            token="", full_text=line, cursor_position=len(line), cursor_line=0, limit=None
        )
        return {found.text for found in completion.matcher(context)["completions"]}

    try:
        assert complete("%container network ") == {"create", "ls", "rm", "inspect"}
        assert complete("%container network rm ") == {"bridge", "lab"}
        assert complete("%container network create --s") == {"--subnet"}
        assert complete("%%container --network l") == {"lab"}
        assert complete("%container create x --network l") == {"lab"}
    finally:
        completion.remove(shell)
        InteractiveShell.clear_instance()


def test_a_record_outlives_a_killed_writer(engine: Path) -> None:
    """Killed again and again while it makes networks: each record is whole or isn't there."""
    code = (
        "from nscontainer import networks; import itertools; "
        "[networks.create(f'n{i}') for i in itertools.count()]"
    )
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ}) as process:
        assert eventually(lambda: len(networks.list()) > 10)
        process.send_signal(signal.SIGKILL)
    made = [n for n in networks.list() if n.name.startswith("n")]
    assert len(made) > 8
    assert len({n.subnet for n in made}) == len(made)
    assert len(networks.list()) == len(list((engine / "networks").glob("*.json")))
    for network in made:
        networks.remove(network.name)
