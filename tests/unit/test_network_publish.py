"""Ports of the host: had by one, given back, refused with the port's own name; and the rules' text."""

from __future__ import annotations

import socket

import pytest

from nscontainer.errors import SpecError, StateError
from nscontainer.netspec import Publish
from nscontainer.network import nat, publish
from nscontainer.network.records import Network

NETWORK = Network(
    name="lab",
    id="0123456789ab",
    subnet="10.9.0.0/24",
    gateway="10.9.0.1",
    bridge="nsc0123456789ab",
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_port_is_one_containers_until_it_is_given_back():
    asked = Publish("127.0.0.1", free_port(), 80)
    first = publish.reserve([asked])
    with pytest.raises(
        StateError, match=f"port 127.0.0.1:{asked.host_port}/tcp of the host is taken"
    ):
        publish.reserve([Publish("127.0.0.1", 0, 81), asked])
    with pytest.raises(OSError, match="in use"):  # nor can a server of the host's have it
        socket.create_server(("127.0.0.1", asked.host_port)).close()
    first.close()
    publish.reserve([asked]).close()


def test_a_server_of_the_hosts_keeps_its_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked = Publish("127.0.0.1", server.getsockname()[1], 80)
        with pytest.raises(StateError, match="is taken"):
            publish.reserve([asked])


def test_a_port_with_old_connections_can_be_had_but_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked = Publish("127.0.0.1", server.getsockname()[1], 80)
        with socket.create_connection(server.getsockname()) as client:
            server.accept()[0].close()  # whose side closes first stays in TIME_WAIT
            client.recv(1)
    reserved = publish.reserve([asked])
    with pytest.raises(StateError, match="is taken"):
        publish.reserve([asked])
    reserved.close()
    publish.reserve([asked]).close()


def test_port_0_is_a_free_one_and_udp_is_another_than_tcp():
    reserved = publish.reserve([Publish("127.0.0.1", 0, 80)])
    port = reserved.ports[0]
    assert port.host_port > 0
    other = publish.reserve([Publish("127.0.0.1", port.host_port, 80, "udp")])
    assert publish.text(other.ports[0]) == f"127.0.0.1:{port.host_port}->80/udp"
    reserved.close()
    other.close()


def test_what_cant_be_published_is_refused():
    with pytest.raises(SpecError, match=r"192\.0\.2\.77 is not an address of this host"):
        publish.reserve([Publish("192.0.2.77", 0, 80)])
    internal = Network(
        name="in", id="1", subnet="10.9.0.0/24", gateway="", bridge="", internal=True
    )
    publish.check(internal, [Publish("127.0.0.1", 0, 80)])
    with pytest.raises(SpecError, match="network 'in' is internal"):
        publish.check(internal, [Publish("0.0.0.0", 0, 80)])


def test_only_what_others_may_reach_is_in_prerouting():
    local = publish.rules(NETWORK, "c", "10.9.0.2", [Publish("127.0.0.1", 8080, 80)])
    prerouting, output = local.split("chain output")
    assert "dnat" not in prerouting
    assert "ip daddr 127.0.0.1 tcp dport 8080 dnat to 10.9.0.2:80" in output
    everywhere = publish.rules(NETWORK, "c", "10.9.0.2", [Publish("0.0.0.0", 53, 53, "udp")])
    assert everywhere.count("udp dport 53 dnat to 10.9.0.2:53") == 2


def test_an_internal_network_has_no_way_out():
    internal = Network(
        name="in", id="1", subnet="10.9.0.0/24", gateway="10.9.0.1", bridge="nsc1", internal=True
    )
    assert 'iifname "nsc1" oifname != "nsc1" drop' in nat.rules(internal)
    assert "ip saddr 10.9.0.0/24 oifname !=" not in nat.rules(internal)
    assert "ip saddr 10.9.0.0/24 oifname !=" in nat.rules(NETWORK)
