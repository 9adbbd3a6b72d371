"""The way out and the way in, seen from a neighbour of the host's: a network namespace on a veth."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nscontainer import api, networks, spec
from nscontainer.engine.container import Container
from nscontainer.network import forwarding
from tests.integration.inside import PYTHON, eventually, private_engine

pytestmark = [pytest.mark.once, pytest.mark.root, pytest.mark.userns, pytest.mark.network]

SERVER = """
import socket
s = socket.create_server(("0.0.0.0", 80))
print("ready", flush=True)
while True:
    client, peer = s.accept()
    client.sendall(f"{peer[0]}\\n".encode())
    client.close()
"""
CONNECT = """
import socket, sys
try:
    print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).recv(100).decode(), end="")
except OSError as error:
    print("no way")
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass
class Neighbour:
    """A machine beside the host: its own address, and the host's as it sees it."""

    name: str
    address: str
    host: str

    def connect(self, address: str, port: int) -> str:
        """Try to connect from there; give what was sent, or `no way`."""
        argv = ["ip", "netns", "exec", self.name, sys.executable, "-c", CONNECT, address, str(port)]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


@contextlib.contextmanager
def neighbour(number: int) -> Iterator[Neighbour]:
    """Make one that serves on port 80, and sends all that it doesn't know to the host."""
    name = f"out{os.getpid() % 10000}-{number}"
    here, there = f"198.18.{number}.1", f"198.18.{number}.2"
    ip("netns", "add", name)
    try:
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("addr", "add", f"{here}/24", "dev", name)
        ip("link", "set", name, "up")
        for words in (f"addr add {there}/24 dev eth0", "link set eth0 up", "link set lo up",
                      f"route add default via {here}"):  # fmt: skip
            ip("-n", name, *words.split())
        argv = ["ip", "netns", "exec", name, sys.executable, "-c", SERVER]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            yield Neighbour(name, there, here)
            server.send_signal(signal.SIGTERM)
    finally:
        ip("netns", "del", name)
        # The other end goes with it, when Linux gets round to it.
        eventually(lambda: not os.path.exists(f"/sys/class/net/{name}"))


@pytest.fixture(scope="module")
def neighbours() -> Iterator[tuple[Neighbour, Neighbour]]:
    with neighbour(1) as one, neighbour(2) as other:
        yield one, other


@pytest.fixture(scope="module")
def engine(neighbours: tuple[Neighbour, Neighbour]) -> Iterator[Path]:
    """Made after the neighbours are there: these are the host's interfaces then."""
    with private_engine() as top:
        yield top


@contextlib.contextmanager
def server(*ports: str, network: str = "bridge") -> Iterator[Container]:
    asked = spec.build([*PYTHON, SERVER], network=network, publish=ports)
    container = Container.create(asked, start=True, detach=True)
    try:
        assert eventually(lambda: b"ready" in container.logs())
        yield container
    finally:
        container.kill()
        container.wait(20)


def outside_of(container: Container) -> int:
    return int(container.inspect()["network"]["ports"][0]["host_port"])


def test_the_way_out_is_under_the_hosts_address(engine, neighbours):
    """The neighbour has no route back: only a masqueraded connection can be answered."""
    one, _ = neighbours
    result = api.run([*PYTHON, CONNECT, one.address, "80"], network="bridge")
    assert result.stdout.strip() == one.host


def test_an_internal_network_has_none(engine, neighbours):
    networks.create("vault", internal=True)
    try:
        result = api.run([*PYTHON, CONNECT, neighbours[0].address, "80"], network="vault")
        assert result.stdout.strip() == "no way"
    finally:
        networks.remove("vault")


def test_nobody_comes_in_but_where_a_port_is_published(engine, neighbours):
    """Not to the container's own address, though the neighbour's route leads there."""
    one, _ = neighbours
    with server("0.0.0.0:0:80") as container:
        there = container.inspect()["network"]["ip"]
        assert one.connect(there, 80) == "no way"
        # Who asks is seen by its own address: nothing stands in between.
        assert one.connect(one.host, outside_of(container)) == one.address
    with server("80") as container:
        assert one.connect(one.host, outside_of(container)) == "no way"


def test_two_networks_are_apart_and_one_is_not(engine):
    """On the same network everybody is reached; from another nobody."""
    networks.create("other")
    try:
        with server() as container:
            asked = [*PYTHON, CONNECT, container.inspect()["network"]["ip"], "80"]
            assert api.run(asked, network="bridge").stdout.strip() != "no way"
            assert api.run(asked, network="other").stdout.strip() == "no way"
    finally:
        networks.remove("other")


def test_the_host_is_no_router_between_its_neighbours(engine, neighbours):
    """Forwarding is on for both their interfaces, and yet one doesn't reach the other."""
    one, other = neighbours
    with server():
        if Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1":
            pytest.skip("somebody else has this host forward")
        for name in (one.name, other.name):
            assert Path(f"/proc/sys/net/ipv4/conf/{name}/forwarding").read_text() == "1\n"
        assert one.connect(other.address, 80) == "no way"


def nft_rules() -> str:
    return subprocess.run(
        ["nft", "list", "ruleset"], capture_output=True, text=True, check=True
    ).stdout


def test_all_is_put_back(neighbours):
    """After the last container: rules, bridge, and what was forwarding."""
    with private_engine():
        with server("80"):
            network = networks.get("bridge")
            assert network.id in nft_rules()
        assert network.id in nft_rules()  # the spawner keeps the bridge for the next one
    assert eventually(lambda: network.id not in nft_rules())
    assert not os.path.exists(f"/sys/class/net/{network.bridge}")
    deadline = time.monotonic() + 2
    while os.path.exists(forwarding.place()) and time.monotonic() < deadline:
        time.sleep(0.05)
    if os.path.exists(forwarding.place()):
        pytest.skip("another engine of this machine has a network up")
    assert "nscontainer_forwarding" not in nft_rules()
    for neighbour in neighbours:
        setting = Path(f"/proc/sys/net/ipv4/conf/{neighbour.name}/forwarding")
        assert setting.read_text() == "0\n"
