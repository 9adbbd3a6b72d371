"""Published ports: who reaches them, who doesn't, and that nothing is left of them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nscontainer import api, networks, spec
from nscontainer.engine import garbage
from nscontainer.engine.container import Container
from nscontainer.errors import NsContainerError, SpecError, StateError
from tests.integration.inside import PYTHON, eventually

pytestmark = [
    pytest.mark.once,
    pytest.mark.root,
    pytest.mark.userns,
    pytest.mark.network,
    pytest.mark.usefixtures("engine"),
]

ECHO = """
import socket, threading
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.bind(("0.0.0.0", 90))
def datagrams():
    while True:
        data, client = u.recvfrom(100)
        u.sendto(b"udp " + data, client)
threading.Thread(target=datagrams, daemon=True).start()
s = socket.create_server(("0.0.0.0", 80))
print("ready", flush=True)
while True:
    client, peer = s.accept()
    client.sendall(f"tcp {peer[0]}\\n".encode())
    client.close()
"""
CONNECT = """
import socket, sys
try:
    print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).recv(100).decode(), end="")
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture
def serve() -> Iterator[Callable[..., Container]]:
    """Start a server of TCP port 80 and UDP port 90."""
    made: list[Container] = []

    def begin(*ports: str, network: str = "bridge", **options: Any) -> Container:
        name = options.pop("name", None)
        asked = spec.build([*PYTHON, ECHO], network=network, publish=ports, **options)
        container = Container.create(asked, name=name, start=True, detach=True)
        made.append(container)
        assert eventually(lambda: b"ready" in container.logs())
        return container

    yield begin
    for container in made:
        with contextlib.suppress(NsContainerError):  # it has ended, or a test killed its monitor
            container.kill()
            container.wait(20)
        with contextlib.suppress(NsContainerError):
            container.remove()


def ports_of(container: Container) -> list[int]:
    return [port["host_port"] for port in container.inspect()["network"]["ports"]]


def connect(address: str, port: int) -> str:
    try:
        with socket.create_connection((address, port), 3) as sock:
            return sock.makefile().readline()
    except OSError as error:
        return type(error).__name__


def own_address() -> str:
    """An address of this machine's that others could reach: where a packet out would come from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:  # a machine without a network, but for ours
            return networks.get("bridge").gateway
        return str(sock.getsockname()[0])


def nft_rules() -> str:
    return subprocess.run(
        ["nft", "list", "ruleset"], capture_output=True, text=True, check=True
    ).stdout


def test_a_port_on_localhost_is_this_machines_alone(serve):
    """TCP and UDP from the host's 127.0.0.1; not at another address, not from another container."""
    server = serve("80", "0:90/udp")
    tcp, udp = ports_of(server)
    gateway = networks.get("bridge").gateway
    assert connect("127.0.0.1", tcp) == f"tcp {gateway}\n"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.sendto(b"hello", ("127.0.0.1", udp))
        assert sock.recvfrom(100) == (b"udp hello", ("127.0.0.1", udp))
    assert connect(own_address(), tcp) == "ConnectionRefusedError"
    for there in (gateway, own_address()):
        asked = [*PYTHON, CONNECT, there, str(tcp)]
        assert api.run(asked, network="bridge").stdout != f"tcp {gateway}\n"


def test_a_port_on_every_address_is_reached_by_all(serve):
    """By the host at each of its addresses, by a container on the same network and by one on another."""
    server = serve("0.0.0.0:0:80")
    (port,) = ports_of(server)
    for address in ("127.0.0.1", own_address()):
        assert connect(address, port).startswith("tcp ")
    networks.create("other")
    try:
        for network in ("bridge", "other"):
            asked = [*PYTHON, CONNECT, own_address(), str(port)]
            assert api.run(asked, network=network).stdout.startswith("tcp "), network
        # Directly it is not: that is another network.
        there = server.inspect()["network"]["ip"]
        direct = api.run([*PYTHON, CONNECT, there, "80"], network="other").stdout
        assert not direct.startswith("tcp ")
    finally:
        networks.remove("other")


def test_an_internal_network_publishes_to_the_host_alone(serve):
    networks.create("vault", internal=True)
    try:
        with pytest.raises(SpecError, match="network 'vault' is internal"):
            api.run(["true"], network="vault", publish=["0.0.0.0:0:80"])
        server = serve("80", network="vault")
        assert connect("127.0.0.1", ports_of(server)[0]).startswith("tcp ")
        out = api.run([*PYTHON, CONNECT, own_address(), "22"], network="vault").stdout
        assert out in ("ConnectionRefusedError\n", "tcp\n") or out.startswith("SSH")
        server.kill()
        server.wait(20)
    finally:
        networks.remove("vault")


def test_a_port_that_is_taken_is_an_error_before_anything_is_made(serve, engine: Path):
    """By a server of the host's, or another container; then nothing has come to be."""
    server = serve("80")
    (taken,) = ports_of(server)
    before = os.listdir(engine / "containers")
    for port in (taken, None):
        with socket.create_server(("127.0.0.1", 0)) as other:
            asked = port or other.getsockname()[1]
            with pytest.raises(
                StateError, match=f"port 127.0.0.1:{asked}/tcp of the host is taken"
            ):
                api.run(["true"], network="bridge", publish=[f"{asked}:80"])
    assert os.listdir(engine / "containers") == before
    assert connect("127.0.0.1", taken).startswith("tcp ")


@pytest.mark.parametrize("network", ["none", "host", "container:web"])
def test_publishing_needs_a_network_of_its_own(network):
    with pytest.raises(SpecError, match="publish needs a network of the container's own"):
        api.run(["true"], network=network, publish=["80"])


def test_an_ended_container_has_no_rule_and_its_port_is_free(serve):
    server = serve("80")
    (port,) = ports_of(server)
    table = f"_{server.id}"
    assert table in nft_rules()
    server.kill()
    server.wait(20)
    assert table not in nft_rules()
    again = serve(f"{port}:80")
    assert ports_of(again) == [port]
    assert connect("127.0.0.1", port).startswith("tcp ")


def test_gc_removes_the_rules_of_a_killed_monitor(serve):
    server = serve("80")
    (port,) = ports_of(server)
    os.kill(server.inspect()["monitor_pid"], signal.SIGKILL)
    assert eventually(lambda: server.status not in ("running", "created"))
    garbage.collect()
    assert f"_{server.id}" not in nft_rules()
    with socket.create_server(("127.0.0.1", port)):  # free again
        pass


def test_the_hosts_loopback_is_not_reached_from_a_container():
    """route_localnet is on for the bridge (CVE-2020-8558): a packet for 127.0.0.1 from there is dropped."""
    with socket.create_server(("127.0.0.1", 0)) as host:
        port = host.getsockname()[1]
        host.settimeout(1)
        # As root of its own network namespace a container may send what it likes: by the gateway.
        script = (
            f"ip addr flush dev lo; ip route del local 127.0.0.1 table local; "
            f"ip route add 127.0.0.1/32 via {networks.get('bridge').gateway} dev eth0; "
            f"ip route get 127.0.0.1; exec {' '.join(PYTHON[:3])} -c '{CONNECT}' 127.0.0.1 {port}"
        )
        result = api.run(["sh", "-c", script], network="bridge", cap_add=["NET_ADMIN"])
        assert "dev eth0" in result.stdout, result.stdout + result.stderr  # else it proves nothing
        with pytest.raises(TimeoutError):
            host.accept()
