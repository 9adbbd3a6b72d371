"""A network in user mode: the way out without a bridge, what is counted, and that its program ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nscontainer
from nscontainer import spec
from nscontainer.engine import garbage, spawner_client
from nscontainer.engine.container import Container
from nscontainer.errors import HostError, SpecError
from nscontainer.network import usermode
from tests.integration.inside import PYTHON, SLEEP, eventually

pytestmark = [pytest.mark.once, pytest.mark.root, pytest.mark.userns, pytest.mark.network]

OUTSIDE = "198.51.100.7"
"""An address of the host's that is no loopback (from RFC 5737's range for documentation)."""
SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as one:
    one.sendall(bytes(1_000_000))
    one.shutdown(socket.SHUT_WR)
    print(one.recv(100).decode())
"""


@pytest.fixture
def outside() -> Iterator[str]:
    """An interface of the host with an address of its own."""
    name = f"um{os.getpid()}"[:15]
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "addr", "add", f"{OUTSIDE}/32", "dev", name], check=True)
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        yield OUTSIDE
    finally:
        subprocess.run(["ip", "link", "del", name], check=True)


@contextlib.contextmanager
def listening(address: str) -> Iterator[int]:
    """A server that takes all it is sent and says how much that was."""
    with socket.create_server((address, 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with server.accept()[0] as one:
                        size = 0
                        while data := one.recv(1 << 16):
                            size += len(data)
                        one.sendall(str(size).encode())

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def run(*command: str, **options: Any) -> nscontainer.RunResult:
    result = nscontainer.run([*command], network="slirp4netns", **options)
    assert isinstance(result, nscontainer.RunResult)
    return result


def programs() -> list[int]:
    """Processes of slirp4netns, zombies of somebody else's left out."""
    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            is_it = entry.isdigit() and Path(f"/proc/{entry}/comm").read_text() == "slirp4netns\n"
            if is_it and " Z " not in Path(f"/proc/{entry}/stat").read_text():
                found.append(int(entry))
    return found


@pytest.mark.parametrize("share", [(), ("user",)], ids=["mapped", "host-user"])
def test_the_way_out_is_there_and_counted(outside: str, share: tuple[str, ...]) -> None:
    """A connection goes out, and what it moved is in the accounts, headers and all."""
    before = programs()
    with listening(outside) as port:
        result = run(*PYTHON, SEND, outside, str(port), share=share)
    assert result.stdout == "1000000\n"
    sent, received = result.totals["net.tx_bytes"], result.totals["net.rx_bytes"]
    assert sent is not None
    assert received is not None
    assert 1_000_000 < sent < 1_100_000
    assert 0 < received < 100_000
    assert result.isolation.network == "slirp4netns"
    assert programs() == before


def test_the_hosts_loopback_is_out_of_reach() -> None:
    """The address that stands for the host leads to none of its local servers."""
    with listening("127.0.0.1") as port:
        result = run(*PYTHON, SEND, usermode.PLACE.gateway, str(port), check=False)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "sock.connect" in result.stderr


def test_its_names_are_the_hosts(outside: str) -> None:
    """Its own resolver answers, by name servers that are asked from the host."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((outside, 53))
        server.settimeout(10)

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    query, sender = server.recvfrom(512)
                    end = query.index(b"\0", 12) + 5
                    flags = b"\x81\x80\0\1" + (
                        b"\0\1" if query[end - 4 : end - 2] == b"\0\1" else b"\0\0"
                    )
                    record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton("192.0.2.9")
                    body = record if flags.endswith(b"\1") else b""
                    server.sendto(query[:2] + flags + bytes(4) + query[12:end] + body, sender)

        threading.Thread(target=answer, daemon=True).start()
        ask = "import socket; print(socket.gethostbyname('there.example'))"
        result = run(*PYTHON, ask, dns=[outside])
    assert result.stdout == "192.0.2.9\n"


def test_its_program_ends_with_a_monitor_that_is_killed(own_engine: Path) -> None:
    """However the monitor ends, nothing of it stays."""
    before = set(programs())
    container = Container.create(spec.build(SLEEP, network="slirp4netns"), start=True)
    assert set(programs()) - before
    os.kill(container.inspect()["monitor_pid"], signal.SIGKILL)
    eventually(lambda: set(programs()) <= before)
    spawner_client.shutdown()
    garbage.collect(str(own_engine))
    assert set(programs()) <= before


def test_a_container_lives_on_without_it() -> None:
    """Its program killed, the container has no way out any more, and ends as ever."""
    before = set(programs())
    container = Container.create(spec.build(SLEEP, network="slirp4netns"), start=True)
    (program,) = set(programs()) - before
    os.kill(program, signal.SIGKILL)
    eventually(lambda: program not in programs())
    container.kill()
    assert container.wait()["exit_code"] == 137


def test_another_may_share_it(outside: str) -> None:
    """container:NAME goes out by it as well."""
    container = Container.create(spec.build(SLEEP, network="slirp4netns"), start=True)
    try:
        with listening(outside) as port:
            command = [*PYTHON, SEND, outside, str(port)]
            result = nscontainer.run(command, network=f"container:{container.id}")
        assert result.stdout == "1000000\n"
    finally:
        container.kill()


@pytest.mark.parametrize(
    "option", [{"publish": ["80"]}, {"ip": "10.0.2.7"}, {"net_rate": "1mbit"}], ids=str
)
def test_what_it_has_not_is_said(option: dict[str, Any]) -> None:
    """Ports, addresses and limits need a bridge: one line, before anything is made."""
    with pytest.raises(SpecError, match="network is slirp4netns") as caught:
        run("true", **option)
    assert caught.value.hint == "--network bridge"


def test_no_program_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it isn't installed, the error says how to get it."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(HostError, match="isn't here") as caught:
        usermode.check_host()
    assert caught.value.hint is not None
    assert "apt-get install slirp4netns" in caught.value.hint
