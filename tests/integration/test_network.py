"""Containers on a bridge: what they reach, what is counted, and that nothing of it stays."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nscontainer import api, spec
from nscontainer.engine import garbage, spawner_client, state
from nscontainer.engine.container import Container
from nscontainer.errors import EngineError, NotFoundError, SpecError, StateError
from nscontainer.network import leases, records
from tests import leaks
from tests.integration.inside import PRELUDE, PYTHON, SLEEP, Owner, ask, eventually, holdings

pytestmark = [pytest.mark.root, pytest.mark.userns, pytest.mark.network]

SERVER = """
import socket
with socket.create_server(("0.0.0.0", 7000)) as server:
    print("serving", flush=True)
    while True:
        with server.accept()[0] as one:
            one.sendall(one.getpeername()[0].encode())
"""
REACH = """
def reach(host, port):
    try:
        with socket.create_connection((host, port), 2) as one:
            return one.recv(100).decode()
    except OSError as error:
        return type(error).__name__
"""


@pytest.fixture
def top(own_engine: Path) -> Iterator[Path]:
    """A state directory; when its engine has ended no bridge and no rules of its are left."""
    yield own_engine
    bridges = [network.bridge for network in records.listed(str(own_engine))]
    spawner_client.shutdown()
    eventually(lambda: not of_ours(bridges))
    assert of_ours(bridges) == []


def of_ours(bridges: list[str]) -> list[str]:
    """Bridges that are still there, with the rules and routes that name them."""
    rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    routes = Path("/proc/net/route").read_text(encoding="ascii")
    seen = [*os.listdir("/sys/class/net"), *rules.stdout.split(), *routes.split()]
    return [name for name in bridges if any(name in one for one in seen)]


@contextlib.contextmanager
def running(command: list[str] | None = None, **options: Any) -> Iterator[Container]:
    container = Container.create(spec.build(command or SLEEP, **options), start=True)
    try:
        yield container
    finally:
        container.kill()
        container.wait()


def place(container: Container) -> dict[str, Any]:
    """Give what its state says of its network."""
    return dict(container.inspect()["network"])


def server(**options: Any) -> contextlib.AbstractContextManager[Container]:
    return running([*PYTHON, SERVER], **options)


def interfaces() -> list[str]:
    """The host's ends of containers' interfaces."""
    return [name for name in os.listdir("/sys/class/net") if name.startswith(("nsv", "nsi"))]


# --- what is inside ----------------------------------------------------------------------------


def test_it_has_one_interface_with_its_address(top: Path) -> None:
    """``eth0`` with address, gateway and MAC as the state says; no IPv6 but the loopback's."""
    with running(network="bridge") as container:
        here = place(container)
        shown = container.exec(
            ["sh", "-c", "cat /proc/net/route /proc/net/if_inet6; ls -x /sys/class/net"]
        )
        mac = container.exec(["cat", "/sys/class/net/eth0/address"]).stdout.decode().strip()
        text = shown.stdout.decode()
        assert f"{int.from_bytes(socket.inet_aton(here['gateway']), 'little'):08X}" in text
        assert text.split()[-2:] == ["eth0", "lo"]
        assert [line.split()[-1] for line in text.splitlines() if line.startswith("0000")] == ["lo"]
        assert mac == here["mac"]
        assert here["interface"] in interfaces()
        outside = Path(f"/proc/sys/net/ipv6/conf/{here['interface']}/disable_ipv6")
        assert outside.read_text(encoding="ascii") == "1\n"
    assert here["interface"] not in interfaces()


@pytest.mark.once
def test_it_can_change_nothing_of_it(top: Path) -> None:
    """Its root has no CAP_NET_ADMIN: the interface can be neither taken down nor another made."""
    found = ask(
        """
import fcntl
control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
down = answer(fcntl.ioctl, control, 0x8914, struct.pack("16sh22x", b"eth0", 0))
route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + struct.pack("=HH", 9, 3) + b"nsx0" + bytes(4)
route.send(struct.pack("=IHHII", 16 + len(body), 16, 0x605, 1, 0) + body)
made = errno.errorcode.get(-struct.unpack_from("=i", route.recv(4096), 16)[0])
tell([down, made, answer(os.stat, "/sys/class/net/eth0"), sorted(os.listdir("/sys/class/net"))])
""",
        network="bridge",
    )
    assert found == ["EPERM", "EPERM", None, ["eth0", "lo"]]


# --- who reaches whom ----------------------------------------------------------------------------


@pytest.mark.once
def test_two_containers_reach_each_other(top: Path) -> None:
    """On one network, each under its own address."""
    with server(network="bridge") as one:
        assert eventually(lambda: b"serving" in _output(one))
        ip = place(one)["ip"]
        seen = ask(REACH + f"tell(reach({ip!r}, 7000))", network="bridge")
    assert seen.startswith(ip.rpartition(".")[0])
    assert seen != ip


@pytest.mark.once
def test_networks_are_apart(top: Path) -> None:
    """From another network a container is not reached, at its address or by way of the host."""
    records.create(str(top), "left")
    records.create(str(top), "right")
    with server(network="left") as one:
        assert eventually(lambda: b"serving" in _output(one))
        ip = place(one)["ip"]
        assert ask(REACH + f"tell(reach({ip!r}, 7000))", network="left") != "TimeoutError"
        other = ask(REACH + f"tell(reach({ip!r}, 7000))", network="right")
        assert other == "TimeoutError"
        assert ask(REACH + f"tell(reach({ip!r}, 7000))") == "OSError"  # none: unreachable


@pytest.mark.once
def test_the_hosts_loopback_is_not_reached(top: Path) -> None:
    """What listens on the host's 127.0.0.1 stays the host's; on all addresses it is reached."""
    gateway = records.get(str(top), "bridge").gateway
    with socket.create_server(("127.0.0.1", 0)) as private, socket.create_server(("", 0)) as public:
        threading.Thread(target=_serve_once, args=(public,), daemon=True).start()
        ports = private.getsockname()[1], public.getsockname()[1]
        source = (
            REACH
            + f"""
tell([reach({gateway!r}, {ports[0]}), reach("127.0.0.1", {ports[0]}), reach({gateway!r}, {ports[1]})])
"""
        )
        found = ask(source, network="bridge")
    assert found == ["ConnectionRefusedError", "ConnectionRefusedError", "hello"]


def _serve_once(listener: socket.socket) -> None:
    with listener.accept()[0] as one:
        one.sendall(b"hello")


def _output(container: Container) -> bytes:
    made = container._made
    assert made is not None
    assert made.stdout is not None
    os.set_blocking(made.stdout, False)
    with contextlib.suppress(BlockingIOError):
        return os.read(made.stdout, 65536)
    return b""


# --- accounts ------------------------------------------------------------------------------------

SEND = """
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as one:
    one.sendall(bytes(3_000_000))
    one.shutdown(socket.SHUT_WR)
    got = 0
    while data := one.recv(65536):
        got += len(data)
print("closed", got, flush=True)
time.sleep(0.6)
"""


def test_counters_are_the_interfaces_own(top: Path) -> None:
    """net.* equals what the host's end counted, the other way round; 3 MB out and 1 MB in are in it."""
    gateway = records.get(str(top), "bridge").gateway
    outside: dict[str, int] = {}

    def look(data: bytes) -> None:
        if b"closed" in data:
            time.sleep(0.2)  # the last acknowledgement
            (one,) = os.listdir(top / "containers")
            facts = state.read(f"{top}/containers/{one}")
            assert facts is not None
            where = Path(f"/sys/class/net/{facts['network']['interface']}/statistics")
            for name in ("rx_bytes", "tx_bytes"):
                outside[name] = int((where / name).read_text(encoding="ascii"))

    with socket.create_server(("", 0)) as listener:
        threading.Thread(target=_take_and_give, args=(listener,), daemon=True).start()
        port = str(listener.getsockname()[1])
        result = api.run([*PYTHON, PRELUDE + SEND, gateway, port], network="bridge", on_stdout=look)
    usage = result.usage
    sent, received = (int(usage[f"net.{way}_bytes"].iloc[-1]) for way in ("tx", "rx"))
    assert (sent, received) == (outside["rx_bytes"], outside["tx_bytes"])
    assert 3_000_000 < sent < 3_300_000
    assert 1_000_000 < received < 1_300_000
    assert result.record["network"]["network"] == result.isolation.network == "bridge"


def _take_and_give(listener: socket.socket) -> None:
    with listener.accept()[0] as one:
        while one.recv(1 << 20):
            pass
        one.sendall(bytes(1_000_000))


@pytest.mark.once
@pytest.mark.parametrize("network", ["none", "host"])
def test_without_an_interface_nothing_is_counted(top: Path, network: str) -> None:
    """Its figures are NA, not 0."""
    result = api.run(["true"], network=network)
    assert result.usage["net.rx_bytes"].isna().all()
    assert result.record["network"] is None
    assert records.listed(str(top)) == []


@pytest.mark.parametrize(
    "command",
    # Linux before 6.2 renames none that is up.
    ["ip link del eth0", "ip link set eth0 down && ip link set eth0 name lan0"],
)
def test_one_that_may_removes_its_interface(top: Path, command: str) -> None:
    """With NET_ADMIN it can spoil its own interface: its run ends as ever, with the last figures known."""
    script = f"sleep 0.15; {command} && sleep 0.3"
    result = api.run(["sh", "-c", script], network="bridge", cap_add=["NET_ADMIN"])
    assert result.ok, result.stderr
    assert result.usage["net.rx_bytes"].notna().all()
    assert not os.path.exists(f"/sys/class/net/{result.record['network']['interface']}")


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.once
def test_an_address_may_be_asked_for(top: Path) -> None:
    """It is had, refused while another has it, and free again afterwards."""
    wanted = records.get(str(top), "bridge").gateway.rpartition(".")[0] + ".77"
    with running(network="bridge", ip=wanted) as container:
        assert place(container)["ip"] == wanted
        with pytest.raises(StateError, match=f"{wanted} is taken by container {container.id}"):
            api.run(["true"], network="bridge", ip=wanted)
    assert api.run(["true"], network="bridge", ip=wanted).record["network"]["ip"] == wanted


@pytest.mark.once
@pytest.mark.parametrize("last", ["0", "1", "255"])
def test_an_address_that_is_no_containers_is_refused(top: Path, last: str) -> None:
    """The network's own, the gateway's, the broadcast address, and one outside."""
    base = records.get(str(top), "bridge").gateway.rpartition(".")[0]
    with pytest.raises(SpecError, match=r"gateway|no container's"):
        api.run(["true"], network="bridge", ip=f"{base}.{last}")
    with pytest.raises(SpecError, match=r"'8\.8\.8\.8' is no container's on network 'bridge'"):
        api.run(["true"], network="bridge", ip="8.8.8.8")


@pytest.mark.once
def test_a_full_network_says_so_and_takes_back_from_the_dead(top: Path) -> None:
    """A /29 has room for five; what a killed monitor held is given out again."""
    tiny = records.create(str(top), "tiny", subnet="10.201.77.8/29")
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(running(network="tiny")) for _ in range(4)]
        lost = Container.create(spec.build(SLEEP, network="tiny"), start=True)
        assert len({place(one)["ip"] for one in (*held, lost)}) == 5
        with pytest.raises(
            StateError, match=r"'tiny' has no free address left of 10\.201\.77\.8/29"
        ):
            api.run(["true"], network="tiny")
        address = place(lost)["ip"]
        os.kill(int(lost.inspect()["monitor_pid"]), signal.SIGKILL)
        assert eventually(lambda: lost.status == "exited")
        assert api.run(["true"], network="tiny").record["network"]["ip"] == address
    assert leases.held(str(top), tiny) == {}
    garbage.collect(str(top))


@pytest.mark.once
def test_a_network_that_is_not_there(top: Path) -> None:
    """A clear error, and nothing made."""
    with pytest.raises(NotFoundError, match="no network 'nowhere'"):
        api.run(["true"], network="nowhere")
    assert holdings(top) == []


# --- nothing stays -------------------------------------------------------------------------------


@pytest.mark.once
def test_when_run_returns_the_interface_is_gone(top: Path) -> None:
    """Not a moment later: run() is back only after it, and the address is free."""
    network = records.get(str(top), "bridge")
    for way in (api.run, _cell):
        for _ in range(5):
            result = way(["true"], network="bridge")
            name = result.record["network"]["interface"]
            assert not os.path.exists(f"/sys/class/net/{name}")
            assert result.id not in leases.held(str(top), network).values()


def _cell(_: Any, **options: Any) -> Any:
    return api.run_cell("1", **options)


@pytest.mark.once
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_hundred_in_a_row_leave_nothing(top: Path) -> None:
    """No interface, route, rule, mount, cgroup, namespace's file or loop device."""
    before = leaks.look()
    for _ in range(200):
        assert api.run(["true"], network="bridge").ok
    spawner_client.shutdown()
    left = leaks.since(before)
    assert [line for line in left if "/networks" not in line] == []


@pytest.mark.once
@pytest.mark.parametrize("stage", ["network", "clone", "interface", "monitor", "gate"])
def test_a_monitor_killed_at_a_stage_is_mended(top: Path, stage: str) -> None:
    """SIGKILL of owner, spawner and monitor while a bridged container is made: gc removes the rest."""
    owner = Owner(top, "api.run(['sleep', '1000'], network='bridge')", NSCONTAINER_HALT_AT=stage)
    halted = top / "halted"
    assert eventually(lambda: halted.exists() and halted.read_text() == stage), owner.wait(0.1)
    network = records.get(str(top), "bridge")
    held = leases.held(str(top), network)
    assert (held != {}) is (stage != "network")
    victims = [owner.process.pid, *owner.offspring()]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    owner.kill()
    assert eventually(lambda: not owner.offspring())
    halted.unlink(missing_ok=True)
    # Linux lets go of a dying process's memory, by which it is found, before its locks.
    assert eventually(lambda: garbage.collect(str(top)) == [] and holdings(top) == [])
    assert leases.held(str(top), network) == {}
    assert of_ours([network.bridge, *(f"nsv{one}" for one in held.values())]) == []


def test_the_owner_is_killed_while_it_runs(top: Path) -> None:
    """The container, its interface, and the bridge that nobody else uses go."""
    owner = Owner(top, "api.run(['sleep', '1000'], network='bridge')")
    assert eventually(lambda: leases.held(str(top), records.get(str(top), "bridge")))
    network = records.get(str(top), "bridge")
    assert eventually(lambda: os.path.exists(f"/sys/class/net/{network.bridge}"))
    owner.kill()
    assert eventually(lambda: not owner.offspring())
    assert eventually(lambda: of_ours([network.bridge]) == [])
    assert leases.held(str(top), network) == {}


@pytest.mark.once
def test_a_detached_one_takes_the_bridge_along(top: Path) -> None:
    """It outlives its owner and the spawner; at its end nobody else is there to tidy up."""
    api.run(["sleep", "1000"], network="bridge", name="left", detach=True)
    network = records.get(str(top), "bridge")
    spawner_client.shutdown()
    assert of_ours([network.bridge]) == [network.bridge]
    container = Container.get("left")
    container.kill()
    container.wait()
    assert eventually(lambda: of_ours([network.bridge]) == [])
    container.remove()


# --- another's network -----------------------------------------------------------------------------


def test_a_network_is_shared(top: Path) -> None:
    """``container:NAME``: the same interfaces and no others, by netlink and in /sys; the rest is its own."""
    source = """
tell([os.readlink("/proc/self/ns/net"), os.readlink("/proc/self/ns/user"),
      [name for _, name in socket.if_nameindex()], sorted(os.listdir("/sys/class/net"))])
"""
    with running(network="bridge") as one:
        other = one.exec([*PYTHON, PRELUDE + source]).stdout
        import json

        theirs = json.loads(other)
        ours = ask(source, network=f"container:{one.id}")
        assert ours[0] == theirs[0]
        assert ours[1] != theirs[1]
        assert ours[2:] == theirs[2:] == [["lo", "eth0"], ["eth0", "lo"]]
        result = api.run(["true"], network=f"container:{one.id}")
        assert result.isolation.network == f"container:{one.id}"
        assert "net" not in repr(result.isolation).splitlines()[0].split()
        assert result.usage["net.rx_bytes"].isna().all()


def test_a_shared_network_survives_its_first_container(top: Path) -> None:
    """Who shares it lives on, with the loopback alone; exec goes into the shared one too."""
    names = "import socket; print([name for _, name in socket.if_nameindex()])"
    with running(network="bridge") as one:
        second = Container.create(spec.build(SLEEP, network=f"container:{one.id}"), start=True)
        assert second.exec([*PYTHON, names]).stdout == b"['lo', 'eth0']\n"
    assert second.status == "running"
    assert second.exec([*PYTHON, names]).stdout == b"['lo']\n"
    second.kill()
    second.wait()


@pytest.mark.once
def test_a_network_of_one_that_does_not_run(top: Path) -> None:
    """Ended, missing, or on the host's: each refused for what it is."""
    api.run(["true"], name="ended", detach=True)
    assert eventually(lambda: Container.get("ended").status == "exited")
    with pytest.raises(StateError, match="'ended' is exited"):
        api.run(["true"], network="container:ended")
    Container.get("ended").remove()
    with pytest.raises(NotFoundError, match="no container 'missing'"):
        api.run(["true"], network="container:missing")
    with running(network="host") as one, pytest.raises(SpecError, match="on the host's network"):
        api.run(["true"], network=f"container:{one.id}")


# --- made ahead --------------------------------------------------------------------------------------


def test_a_bridged_container_stands_by(top: Path) -> None:
    """With its interface and its address; not for another network, nor with an address asked for."""
    assert api.run(["true"], network="bridge").record["pooled"] is False
    (waiting,) = _standing_by(top)
    network = records.get(str(top), "bridge")
    assert waiting in leases.held(str(top), network).values()
    second = api.run(["true"], network="bridge")
    assert (second.id, second.record["pooled"]) == (waiting, True)
    assert second.record["network"]["interface"] == f"nsv{waiting}"
    _standing_by(top)
    assert api.run(["true"]).record["pooled"] is False
    _standing_by(top)
    assert api.run(["true"], network="bridge").record["pooled"] is False
    _standing_by(top)
    base = network.gateway.rpartition(".")[0]
    asked = api.run(["true"], network="bridge", ip=f"{base}.99")
    assert (asked.record["pooled"], asked.record["network"]["ip"]) == (False, f"{base}.99")


def _standing_by(top: Path) -> list[str]:
    def there() -> list[str]:
        found = os.listdir(top / "standby") if (top / "standby").is_dir() else []
        return [one for one in found if (top / "standby" / one / "monitor.sock").exists()]

    assert eventually(lambda: len(there()) == 1)
    return there()


@pytest.mark.once
@pytest.mark.parametrize("delay_s", [0.0, 0.004, 0.008, 0.012, 0.02, 0.2])
@pytest.mark.parametrize("victim", ["owner", "nsc-spawner"])
def test_the_owner_or_spawner_is_killed_while_the_next_is_made(
    top: Path, victim: str, delay_s: float
) -> None:
    """SIGKILL at whatever moment of the making ahead: neither interface nor bridge nor lease stays."""
    owner = Owner(top, "api.run(['true'], network='bridge')\nprint('ran', flush=True)\ninput()")
    assert owner.line() == "ran"
    network = records.get(str(top), "bridge")
    time.sleep(delay_s)
    pids = [pid for pid, name in owner.offspring().items() if name == victim]
    os.kill(pids[0] if pids else owner.process.pid, signal.SIGKILL)
    eventually(lambda: not of_ours([network.bridge]))
    assert of_ours([network.bridge]) == []
    assert leases.held(str(top), network) == {}
    owner.kill()
    assert eventually(lambda: not owner.offspring())


@pytest.mark.once
def test_one_that_is_lost_is_told(top: Path) -> None:
    """The monitor of a bridged container is killed: its caller is told, the interface goes by itself."""
    container = Container.create(spec.build(SLEEP, network="bridge"), start=True)
    name = place(container)["interface"]
    os.kill(int(container.inspect()["monitor_pid"]), signal.SIGKILL)
    with pytest.raises(EngineError, match="went away"):
        container.drive()
    assert eventually(lambda: name not in interfaces())
    assert any("address back" in line for line in garbage.collect(str(top)))
