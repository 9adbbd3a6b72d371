"""What a container asks of its network: Docker's forms, and one clear line for all else."""

from __future__ import annotations

import pytest

from nscontainer import netspec, spec
from nscontainer.errors import SpecError
from nscontainer.netspec import Publish


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("8080:80", Publish("127.0.0.1", 8080, 80)),
        ("80", Publish("127.0.0.1", 0, 80)),
        ("0.0.0.0:8080:80", Publish("0.0.0.0", 8080, 80)),
        ("127.0.0.1::80", Publish("127.0.0.1", 0, 80)),
        ("53:53/udp", Publish("127.0.0.1", 53, 53, "udp")),
    ],
)
def test_publish_takes_dockers_forms(text: str, published: Publish) -> None:
    """Without an address, a port is published on localhost alone."""
    assert netspec.parse_publish(text) == published


@pytest.mark.parametrize(
    "text",
    ["", "x", "0", "80:", "1:2:3:4", "70000:80", "80:80/icmp", "host:80:80", "-1:80", "٣:80"],
)
def test_publish_refuses_all_else_in_a_line(text: str) -> None:
    """The text is in the error, and how to write it."""
    with pytest.raises(SpecError, match=r"publish") as caught:
        netspec.parse_publish(text)
    assert caught.value.hint


def test_one_port_of_the_host_is_published_once() -> None:
    """Two for one port are an error before anything is made; any free one may be asked for twice."""
    with pytest.raises(SpecError, match="8080 of the host is given twice"):
        netspec.check_publish(["8080:80", "8080:81"])
    assert len(netspec.check_publish(["80", "81"])) == 2


def test_add_host_takes_dockers_forms() -> None:
    """NAME:ADDRESS, IPv6 too, and the word for the host itself."""
    assert netspec.parse_add_host("db:10.0.0.5") == ("db", "10.0.0.5")
    assert netspec.parse_add_host("db=10.0.0.5") == ("db", "10.0.0.5")
    assert netspec.parse_add_host("v6:fe80::1") == ("v6", "fe80::1")
    assert netspec.parse_add_host("host:host-gateway") == ("host", "host-gateway")
    for text in ("db", "db:", ":10.0.0.1", "db:there", "a b:10.0.0.1", "db:10.0.0.1\nevil"):
        with pytest.raises(SpecError, match="add-host"):
            netspec.parse_add_host(text)


@pytest.mark.parametrize(
    "options",
    [{"ip": "10.213.0.9"}, {"publish": ["80"]}, {"dns": ["1.1.1.1"]}, {"net_rate": "1mbit"}],
)
@pytest.mark.parametrize("network", ["none", "host", "container:web"])
def test_what_needs_an_interface_says_so(options: dict[str, object], network: str) -> None:
    """Without a network of its own nothing of it can be asked for."""
    with pytest.raises(SpecError, match=f"needs a network.* is {network}") as caught:
        spec.build(["true"], network=network, **options)  # type: ignore[arg-type]
    assert caught.value.hint == "--network bridge"
    assert spec.build(["true"], network="bridge", **options).network == "bridge"  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "a b", "../x", "container:", "-x", "a/b"])
def test_a_network_has_a_name(name: str) -> None:
    """What can be none is refused before anybody looks for it."""
    with pytest.raises(SpecError, match="network"):
        spec.build(["true"], network=name)


def test_the_hosts_network_is_one_thing_however_it_is_asked_for() -> None:
    """--share net is --network host; with another network it contradicts itself."""
    assert spec.build(["true"], share=["net"]).network == "host"
    assert spec.build(["true"], network="host").host_namespaces == {"net"}
    with pytest.raises(SpecError, match="shared with the host"):
        spec.build(["true"], network="bridge", share=["net"])


def test_a_spec_with_all_of_it_survives_json() -> None:
    """What the spawner is sent is what was asked for."""
    import json

    made = spec.build(
        ["true"],
        network="lab",
        ip="10.213.1.9",
        add_hosts=["a:1.2.3.4", ("b", "host-gateway")],
        dns=["9.9.9.9"],
        publish=["8080:80", "53/udp"],
        net_rate="10mbit",
        net_delay="50ms",
        net_loss="1%",
        disk_write="5M",
        device_read_iops=["/dev/sda:100"],
        storage="1G",
    )
    assert spec.ContainerSpec.from_dict(json.loads(json.dumps(made.to_dict()))) == made
