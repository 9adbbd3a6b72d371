"""The records of networks: what is refused, what is chosen, what survives."""

from __future__ import annotations

import os

import pytest

from nscontainer.errors import NotFoundError, SpecError, StateError
from nscontainer.network import records


def nobody(network: records.Network) -> list[str]:
    return []


@pytest.fixture
def top(tmp_path):
    return str(tmp_path)


@pytest.fixture(autouse=True)
def routes(monkeypatch):
    """The host has two routes, whatever machine this is."""
    found = [("eth0", 0x0A010000, 0xFFFF0000), ("docker0", 0xAC110000, 0xFFFF0000)]
    monkeypatch.setattr(records, "host_routes", lambda: found)
    return found


def test_a_network_is_found_again_by_name_id_and_the_ids_beginning(top):
    made = records.create(top, "lab", subnet="10.9.0.0/24", labels={"a": "b"})
    assert records.get(top, "lab") == records.get(top, made.id) == records.get(top, made.id[:4])
    assert records.get(top, "lab") == made
    assert (made.gateway, made.prefix) == ("10.9.0.1", 24)
    assert len(made.bridge) <= 15
    assert [n.name for n in records.listed(top)] == ["lab"]
    records.remove(top, "lab", nobody)
    assert records.listed(top) == []
    with pytest.raises(NotFoundError, match="no network 'lab'"):
        records.get(top, "lab")


def test_the_default_one_is_there_when_it_is_asked_for_and_stays(top):
    first = records.get(top, "bridge")
    assert records.get(top, "bridge") == first
    with pytest.raises(StateError, match="built in"):
        records.remove(top, "bridge", nobody)
    with pytest.raises(StateError, match="built-in"):
        records.remove(top, first.id, nobody)


def test_the_default_ones_subnet_is_left_to_a_host_that_came_to_use_it(top, routes):
    first = records.get(top, "bridge")
    base, mask = records._numbers(first.subnet)
    routes.append(("tun0", base, mask))
    second = records.get(top, "bridge")
    assert second.subnet != first.subnet


def test_free_subnets_differ_and_keep_off_the_hosts_routes(top, routes):
    routes.append(("tun0", 0x0AD50000, 0xFFFF0000))  # the whole of the first pool
    made = [records.create(top, f"n{i}") for i in range(5)]
    assert len({n.subnet for n in made}) == 5
    assert all(n.subnet.startswith("172.29.") for n in made)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"subnet": "10.1.2.0/24"}, "subnet 10.1.2.0/24 overlaps the host's route 10.1.0.0/16 on"),
        ({"subnet": "10.0.0.0/15"}, "overlaps the host's route"),
        ({"subnet": "10.9.0.128/25"}, "overlaps network 'there' (10.9.0.0/24)"),
        ({"subnet": "10.8.0.0/30"}, "too small: 4 addresses"),
        ({"subnet": "10.8.0.1/24"}, "has host bits set"),
        ({"subnet": "fd00::/64"}, "can't be used"),
        ({"subnet": "127.5.0.0/24"}, "can't be a container network's"),
        ({"subnet": "10.8.0.0/24", "gateway": "10.9.0.1"}, "no host's address in 10.8.0.0/24"),
        ({"subnet": "10.8.0.0/24", "gateway": "10.8.0.255"}, "no host's address"),
        ({"subnet": "10.8.0.0/24", "gateway": "x"}, "gateway 'x' is no IPv4 address"),
    ],
)
def test_what_cant_be_is_refused_with_the_value_and_nothing_is_written(top, options, said):
    records.create(top, "there", subnet="10.9.0.0/24")
    with pytest.raises((SpecError, StateError)) as refused:
        records.create(top, "new", **options)
    assert said in refused.value.message
    assert refused.value.hint
    assert sorted(os.listdir(f"{top}/networks")) == ["lock", "there.json"]


@pytest.mark.parametrize("name", ["bridge", "host", "none", "container", "a/b", "", "-x", "a" * 64])
def test_names_that_a_network_cant_have(top, name):
    with pytest.raises(SpecError, match="network name"):
        records.create(top, name)


def test_a_name_is_had_once_and_a_used_network_stays(top):
    records.create(top, "lab")
    with pytest.raises(StateError, match="network 'lab' exists already"):
        records.create(top, "lab")
    with pytest.raises(StateError, match="in use by web, db"):
        records.remove(top, "lab", lambda _: ["web", "db"])
    assert records.get(top, "lab").name == "lab"


def test_a_damaged_record_is_as_none(top):
    records.create(top, "lab")
    with open(f"{top}/networks/lab.json", "w", encoding="utf-8") as file:
        file.write('{"name": ')
    assert records.listed(top) == []
    assert records.create(top, "lab").name == "lab"
