"""Containers find each other by name: the resolver at 127.0.0.11, and the name files."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nscontainer import api, networks, spec
from nscontainer.engine.container import Container
from nscontainer.errors import SpecError
from nscontainer.network import dns, dnswire
from nscontainer.network.records import Network
from tests.integration.inside import PYTHON, ending

pytestmark = [
    pytest.mark.once,
    pytest.mark.root,
    pytest.mark.userns,
    pytest.mark.network,
    pytest.mark.usefixtures("engine"),
]

RESOLVE = """
import json, socket, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = socket.gethostbyname(name)
    except OSError as error:
        found[name] = None
print(json.dumps(found))
"""


@pytest.fixture
def start() -> Iterator[Callable[..., Container]]:
    """Make and start a container; what still lives is killed at the end."""
    with ending() as made:

        def begin(*command: str, **options: Any) -> Container:
            name = options.pop("name", None)
            asked = spec.build(
                command or ("sleep", "60"), network=options.pop("network", "bridge"), **options
            )
            made.append(Container.create(asked, name=name, start=True))
            return made[-1]

        yield begin


@pytest.fixture
def lab() -> Iterator[Network]:
    """A network of the test's own."""
    yield networks.create("lab")
    networks.remove("lab")


def address(container: Container) -> str:
    return str(container.inspect()["network"]["ip"])


def resolve(*asked: str, **options: Any) -> dict[str, str | None]:
    """Look names up in a fresh container."""
    options.setdefault("network", "bridge")
    result = api.run([*PYTHON, RESOLVE, *asked], **options)
    assert result.exit_code == 0, result.stderr
    found: dict[str, str | None] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("network", ["bridge", "lab"])
def test_a_container_is_found_by_name_and_id(lab, start, network):
    """On the built-in network as on one's own; case is nothing, as in all of DNS."""
    server = start(name="Web-1", network=network)
    there = address(server)
    asked = ("Web-1", "web-1", server.id, f"web-1.{network}", "nobody")
    found = resolve(*asked, network=network, dns=["127.0.0.1"])
    assert found == dict.fromkeys(asked[:4], there) | {"nobody": None}


def test_a_container_on_another_network_isnt(lab, start):
    start(name="far")
    assert resolve("far", network="lab", dns=["127.0.0.1"]) == {"far": None}


def test_a_name_follows_its_container(start):
    """Renamed, ended: the next question has the answer."""
    server = start(name="old")
    there = address(server)
    asker = start(name="asker", dns=["127.0.0.1"])

    def ask(*asked: str) -> dict[str, str | None]:
        found: dict[str, str | None] = json.loads(asker.exec([*PYTHON, RESOLVE, *asked]).stdout)
        return found

    assert ask("old", "asker") == {"old": there, "asker": address(asker)}
    server.rename("new")
    assert ask("old", "new") == {"old": None, "new": there}
    server.kill()
    server.wait(20)
    assert ask("new") == {"new": None}


def test_an_address_has_a_name(start):
    server = start(name="web")
    code = f"import socket; print(socket.gethostbyaddr({address(server)!r})[0])"
    assert api.run([*PYTHON, code], network="bridge").stdout == "web\n"


def test_tcp_and_no_ipv6(start):
    """A question over a connection, and getaddrinfo of both families at once."""
    server = start(name="web")
    code = f"""
import socket, struct
query = bytes.fromhex("0007010000010000000000000377656200 00010001".replace(" ", ""))
with socket.create_connection(("127.0.0.11", 53), 5) as s:
    s.sendall(struct.pack("!H", len(query)) + query)
    reply = s.recv(1000)
assert reply.endswith(socket.inet_aton({address(server)!r})), reply
found = {{entry[4][0] for entry in socket.getaddrinfo("web", 80)}}
assert found == {{{address(server)!r}}}, found
"""
    result = api.run([*PYTHON, code], network="bridge")
    assert result.exit_code == 0, result.stderr


@contextlib.contextmanager
def name_server_on_the_hosts_loopback() -> Iterator[list[str]]:
    """At 127.0.0.153 port 53, as systemd-resolved's is at 127.0.0.53; gives the names asked for."""
    udp, tcp = dns.sockets("127.0.0.153", 53)
    udp.setblocking(True)  # noqa: FBT003 - socket's own signature
    asked: list[str] = []

    def loop() -> None:
        while True:
            message, client = udp.recvfrom(4096)
            question = dnswire.parse_question(message)
            if question is None:
                return
            asked.append(question.name)
            answer = [(dnswire.A, b"\x01\x02\x03\x04")] if question.type == dnswire.A else []
            udp.sendto(dnswire.reply(question, dnswire.NO_ERROR, answer), client)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield asked
    finally:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"end", ("127.0.0.153", 53))
        thread.join(10)
        udp.close()
        tcp.close()


def test_other_names_are_asked_of_a_server_on_the_hosts_loopback(start):
    """The container itself couldn't reach it; a container's own name never goes out."""
    start(name="web")
    with name_server_on_the_hosts_loopback() as asked:
        found = resolve("example.org", "web", dns=["127.0.0.153"])
    assert found["example.org"] == "1.2.3.4"
    assert "example.org" in asked
    assert "web" not in asked


def test_from_an_internal_network_no_name_goes_out():
    networks.create("vault", internal=True)
    try:
        with name_server_on_the_hosts_loopback() as asked:
            found = resolve("example.org", network="vault", dns=["127.0.0.153"])
        assert found == {"example.org": None}
        assert asked == []
    finally:
        networks.remove("vault")


FLOOD = """
import os, socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end = time.monotonic() + 1
sent = 0
while time.monotonic() < end:
    try:
        s.sendto(os.urandom(sent % 400), ("127.0.0.11", 53))
    except OSError:
        pass
    sent += 1
print(socket.gethostbyname(sys.argv[1]))
"""


def test_rubbish_doesnt_hurt_the_monitor(start):
    """A second of it, and the container is still answered, sampled and looked after."""
    server = start(name="web")
    result = api.run([*PYTHON, FLOOD, "web"], network="bridge")
    assert result.stdout == f"{address(server)}\n"
    assert len(result.usage) > 20
    assert result.exit_code == 0


def test_the_name_files_on_a_network(start, lab):
    """Its own address and name, --add-host and host-gateway; the resolver, and the host's search list."""
    shown = api.run(
        ["sh", "-c", "cat /etc/hosts /etc/resolv.conf; hostname"],
        network="lab",
        ip=lab.gateway[:-1] + "77",
        hostname="me",
        add_hosts=["db:10.0.0.9", "up:host-gateway"],
    ).stdout.splitlines()
    assert f"{lab.gateway[:-1]}77\tme" in shown
    assert "10.0.0.9\tdb" in shown
    assert f"{lab.gateway}\tup" in shown
    assert "nameserver 127.0.0.11" in shown
    assert shown[-1] == "me"


def test_add_host_without_a_network_of_its_own():
    """It is for every kind; the gateway only where there is one."""
    for network in ("none", "host"):
        hosts = api.run(["cat", "/etc/hosts"], network=network, add_hosts=["db:10.0.0.9"]).stdout
        assert "10.0.0.9\tdb" in hosts.splitlines()
    with pytest.raises(SpecError, match="without a network there is no gateway"):
        api.run(["true"], add_hosts=["up:host-gateway"])


def test_a_shared_network_shares_the_resolver(start):
    """`container:NAME` resolves as NAME does, and has its address in /etc/hosts."""
    server = start(name="web")
    start(name="other")
    there = address(server)
    found = resolve("web", "other", network="container:web")
    assert found["web"] == there
    assert found["other"] is not None
    hosts = api.run(["cat", "/etc/hosts"], network="container:web", add_hosts=["up:host-gateway"])
    assert f"{there}\t" in hosts.stdout
    assert f"{networks.get('bridge').gateway}\tup" in hosts.stdout


def test_one_that_stands_by_is_found_by_the_name_it_gets(start):
    """Its interface is made before it has a name."""
    for _ in range(3):
        api.run(["true"], network="bridge")
    server = start(name="late")
    assert resolve("late") == {"late": address(server)}
    code = "import socket; print(socket.gethostbyname(socket.gethostname()))"
    assert api.run([*PYTHON, code], network="bridge").stdout.startswith(
        networks.get("bridge").gateway[:-1]
    )


def test_nothing_is_left_of_the_resolver(start, engine: Path):
    """No fd of a container's monitor outlives it: the ports inside are the next one's."""
    for _ in range(3):
        assert resolve("nobody", dns=["127.0.0.1"]) == {"nobody": None}
    assert os.listdir(engine / "containers") == []
