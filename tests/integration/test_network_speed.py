"""The speed of a container's network: kept each way, from outside, whatever the container does.

Rates are measured by iperf3's receiver and by counters of the host's interfaces. Linux counts with the
Ethernet header: 1514 bytes for TCP's 1448.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nscontainer
from nscontainer.engine import garbage
from nscontainer.engine.container import Container
from nscontainer.errors import HostError, NsContainerError, SpecError
from nscontainer.linux import tc
from nscontainer.linux.rtnetlink import RtNetlink
from nscontainer.measure.result import RunResult
from nscontainer.network import bridge, records
from tests.integration.inside import eventually

pytestmark = [
    pytest.mark.root,
    pytest.mark.network,
    pytest.mark.usefixtures("engine"),
    pytest.mark.timeout(120),
]

MBIT = 1_000_000
PAYLOAD = 1448 / 1514
TOLERANCE = 0.05
EMULATED = "TCG" in Path("/proc/cpuinfo").read_text(encoding="ascii")
"""On the cgroup v2 machine: it can't keep up with a rate, so there only the bound is judged."""
WAIT = "import time; time.sleep(600)"


def assert_rate(had: float, asked: float, rel: float = TOLERANCE) -> None:
    """Fail where a rate isn't as asked."""
    assert had <= asked * (1 + rel)
    assert had >= asked * (0.1 if EMULATED else 1 - rel)


def has_netem() -> bool:
    with RtNetlink() as route:
        return tc.known(route, "netem")


@contextlib.contextmanager
def server(port: int) -> Iterator[None]:
    """iperf3 on the host, for one client."""
    command = ["iperf3", "-s", "-1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        listening = f":{port:04X} "
        assert eventually(lambda: listening in Path("/proc/net/tcp6").read_text(encoding="ascii"))
        yield
        process.wait(30)
    finally:
        process.kill()
        process.wait()


def client(port: int, *options: str) -> list[str]:
    """The command of a container that talks to the host's server, by way of its gateway."""
    find = "ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p'"
    return ["sh", "-c", f"exec iperf3 -J -p {port} -c $({find}) {' '.join(options)}"]


def received(result: RunResult) -> tuple[float, float]:
    """Bytes, and the seconds that they took, by iperf3's receiver."""
    assert result.ok, result.stdout + result.stderr
    told = json.loads(result.stdout)["end"]["sum_received"]
    return told["bytes"], told["seconds"]


@contextlib.contextmanager
def running(*command: str, **options: Any) -> Iterator[Container]:
    """A container on the bridge for a block."""
    made = nscontainer.run(list(command), network="bridge", detach=True, **options)
    try:
        yield made
    finally:
        with contextlib.suppress(NsContainerError):
            made.kill()
            made.wait()
        made.remove(force=True)


def counter(interface: str, name: str) -> int:
    """A counter of one of the host's interfaces, as anybody may read it."""
    path = Path(f"/sys/class/net/{interface}/statistics/{name}")
    return int(path.read_text(encoding="ascii"))


def rate_of(interface: str, name: str, seconds: float) -> float:
    """Bits a second, over some seconds from now on."""
    before, begin = counter(interface, name), time.monotonic()
    time.sleep(seconds)
    return (counter(interface, name) - before) * 8 / (time.monotonic() - begin)


def shown(*command: str) -> Any:
    """What a program of iproute2 says."""
    out = subprocess.run([command[0], "-j", *command[1:]], capture_output=True, check=True)
    return json.loads(out.stdout or "[]")


# --- known answers ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["rx", "tx"])
def test_a_rate_each_way(direction: str) -> None:
    """12.5 MB take ten seconds at 10 Mbit/s, by iperf3's receiver and by the veth's counters."""
    amount = round(12.5e6 * PAYLOAD)
    options = ["-R"] if direction == "rx" else []
    with server(5311):
        result = nscontainer.run(
            client(5311, "-n", str(amount), *options), network="bridge", net_rate="10mbit"
        )
    moved, seconds = received(result)
    assert moved >= amount * 0.9  # what is under way when the sender ends is not counted
    assert_rate(12.5e6 / (seconds * amount / moved), 12.5e6 / 10)
    total = result.totals[f"net.{direction}_bytes"]
    assert total is not None
    # Linux hands what is its own on in pieces of up to 64 KiB, and counts one header for each.
    assert PAYLOAD * 0.98 < moved / total < 1.0
    if EMULATED:
        return
    assert "network-limited" in {warning.code for warning in result.warnings}


@pytest.mark.once
@pytest.mark.slow
def test_the_veth_says_the_same() -> None:
    """Looked at from outside while it goes on: each direction has a rate of its own."""
    options: dict[str, Any] = {"net_rx": "20mbit", "net_tx": "5mbit"}
    with server(5312), running(*client(5312, "-t", "5"), **options) as container:
        time.sleep(1)
        veth = bridge.veth(container.id)
        assert rate_of(veth, "rx_bytes", 3) < 1000 * MBIT  # what it tries to send
        sent = rate_of(bridge.ifb(container.id), "tx_bytes", 1)
        assert_rate(sent, 5 * MBIT, 0.1)
        container.wait()
    with server(5312), running(*client(5312, "-t", "5", "-R"), **options) as container:
        time.sleep(1)
        rate = rate_of(bridge.veth(container.id), "tx_bytes", 3)
        assert_rate(rate, 20 * MBIT)


@pytest.mark.once
@pytest.mark.slow
def test_between_two_containers() -> None:
    """Of what one may send and the other may receive, the less holds."""
    with running("iperf3", "-s", "-1", net_rx="4mbit") as there:
        ip = there.inspect()["network"]["ip"]
        time.sleep(5 if EMULATED else 1)
        result = nscontainer.run(
            ["iperf3", "-J", "-c", ip, "-t", "5"], network="bridge", net_tx="50mbit"
        )
    moved, seconds = received(result)
    assert_rate(moved * 8 / seconds, 4 * MBIT * PAYLOAD)


@pytest.mark.once
def test_a_short_transfer_is_no_faster() -> None:
    """What may go at once is 10 ms of the rate: 100 kB at 1 Mbit/s are not there before 0.8 s."""
    with server(5313):
        result = nscontainer.run(client(5313, "-n", "100K", "-R"), network="bridge", net_rx="1mbit")
    moved, seconds = received(result)
    assert moved / seconds * 8 < 1 * MBIT * 1.1


@pytest.mark.once
@pytest.mark.slow
def test_a_full_line_keeps_nobody_waiting_for_long() -> None:
    """While one stream fills it, a connection takes no longer than the queue: 100 ms and the burst's 10."""
    network = records.get(os.environ["NSCONTAINER_STATE_DIR"], "bridge")
    with server(5315), listener() as port:
        flow = f"iperf3 -c {network.gateway} -p 5315 -t 5 >/dev/null & sleep 2"
        ask = f"'{sys.executable}' -c '{CONNECT}' {network.gateway} {port}"
        result = nscontainer.run(
            ["sh", "-c", f"{flow}; {ask}; wait"], network="bridge", net_tx="5mbit"
        )
    assert result.ok, result.stderr
    quickest, slowest = map(float, result.stdout.split())
    assert slowest > 0.005  # it did wait its turn: alone it takes a tenth of a millisecond
    assert quickest < (2 if EMULATED else 0.2)


# --- what Linux has --------------------------------------------------------------------------


def test_as_tc_shows_it() -> None:
    """The queue is at the host's two ends; in the container there is none."""
    with running("python3", "-c", WAIT, net_rx="10mbit", net_tx="2mbit") as container:
        veth, ifb = bridge.veth(container.id), bridge.ifb(container.id)
        (rx,) = [q for q in shown("tc", "qdisc", "show", "dev", veth) if q["kind"] == "tbf"]
        (tx,) = shown("tc", "qdisc", "show", "dev", ifb)
        assert rx["options"]["rate"] == 10 * MBIT // 8
        assert rx["options"]["burst"] == 12_500
        assert (tx["kind"], tx["options"]["rate"]) == ("tbf", 2 * MBIT // 8)
        (link,) = shown("ip", "link", "show", ifb)
        assert "UP" in link["flags"]
        inside = container.exec(["tc", "qdisc", "show", "dev", "eth0"])
        assert b"tbf" not in inside.output
    assert not os.path.exists(f"/sys/class/net/{ifb}")


@pytest.mark.once
def test_asked_and_read_back() -> None:
    """The result says both, in words, and the record what the queues lost."""
    result = nscontainer.run(["true"], network="bridge", net_rx="10mbit", net_tx="1.5mbit")
    rows = {row.label: (row.asked, row.read_back) for row in result.limits.rows()}
    assert rows["network in"] == ("10 Mbit/s", "10 Mbit/s")
    assert rows["network out"] == ("1.5 Mbit/s", "1.5 Mbit/s")
    assert not result.limits.differs
    assert set(result.record["network_shaping"]) == {"rx", "tx"}


@pytest.mark.once
def test_somebody_elses_change_is_told() -> None:
    """A limit that root lifts with tc is read back as it is, and differs."""
    with running("python3", "-c", WAIT, net_rx="10mbit") as container:
        subprocess.run(["tc", "qdisc", "del", "dev", bridge.veth(container.id), "root"], check=True)
        container.kill()
        result = RunResult.from_record(container.wait(), container.samples())
    (row,) = [row for row in result.limits.rows() if row.name == "net_rx_bps"]
    assert (row.asked, row.read_back, row.differs) == ("10 Mbit/s", "no limit", True)


# --- live ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_update_while_it_runs() -> None:
    """Raised, lowered, lifted: the traffic follows, and the result has each change."""
    with server(5314), running(*client(5314, "-t", "9"), net_tx="5mbit") as container:
        rates, read = [], []
        for rate in (None, "20mbit", "2mbit", "max"):
            if rate is not None:
                limits = container.update(net_tx=rate)
                assert limits["net_rx_bps"] == -1
                read.append(limits["net_tx_bps"])
            time.sleep(0.5)
            bytes_ = "rx_bytes" if rate == "max" else "tx_bytes"
            name = bridge.veth if rate == "max" else bridge.ifb
            rates.append(rate_of(name(container.id), bytes_, 1.5))
        record = container.wait()
        result = RunResult.from_record(record, container.samples())
    assert_rate(rates[0], 5 * MBIT, 0.15)
    assert_rate(rates[1], 20 * MBIT, 0.15)
    assert rates[2] < 3 * MBIT
    assert rates[3] > (4 if EMULATED else 25) * MBIT
    assert read == [20 * MBIT, 2 * MBIT, -1]
    assert [change.text for change in result.limits.changes] == [
        "network out 20 Mbit/s",
        "network out 2 Mbit/s",
        "network out no limit",
    ]
    assert not result.limits.differs


@pytest.mark.once
def test_a_limit_for_one_that_had_none() -> None:
    """It comes with the update, and goes with the next."""
    with running("python3", "-c", WAIT) as container:
        ifb = bridge.ifb(container.id)
        assert not os.path.exists(f"/sys/class/net/{ifb}")
        read = container.update(net_rate="8mbit")
        assert (read["net_rx_bps"], read["net_tx_bps"]) == (8 * MBIT, 8 * MBIT)
        read = container.update(net_rate=-1)
        assert (read["net_rx_bps"], read["net_tx_bps"]) == (-1, -1)
    assert not os.path.exists(f"/sys/class/net/{ifb}")


# --- the container can't undo it -------------------------------------------------------------

FLOOD = """
import socket, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.setsockopt(263, 20, 1)  # SOL_PACKET, PACKET_QDISC_BYPASS
s.bind(("eth0", 0))
frame = b"\\xff" * 6 + b"\\x02" * 6 + b"\\x88\\xb5" + b"x" * 1400
end = time.monotonic() + 3
while time.monotonic() < end:
    try:
        s.send(frame)
    except OSError:
        pass
"""
TRIES = """
for tc in 'qdisc del dev eth0 root' 'qdisc replace dev eth0 root pfifo' 'qdisc add dev eth0 ingress'; do
    tc $tc && echo did "$tc"
done
ip link set eth0 txqueuelen 5 && echo did txqueuelen
ip link add nsc0 type dummy && echo did add
unshare -Urn ip link set eth0 netns 1 && echo did move
unshare -Ur tc qdisc del dev eth0 root && echo did userns
"""


@pytest.mark.once
@pytest.mark.parametrize("caps", [(), ("NET_ADMIN",), ("ALL",)], ids=["default", "admin", "all"])
def test_a_packet_socket_does_not_go_around_it(caps: tuple[str, ...]) -> None:
    """Raw frames past the container's own queue (CAP_NET_RAW is enough) are held all the same."""
    tries = "" if not caps else "tc qdisc replace dev eth0 root pfifo;"
    command = ["sh", "-c", f"{tries} exec '{sys.executable}' -c '{FLOOD}'"]
    with running(*command, net_tx="5mbit", cap_add=caps) as container:
        time.sleep(1)
        network = records.get(os.environ["NSCONTAINER_STATE_DIR"], "bridge")
        tried = counter(bridge.veth(container.id), "rx_bytes")
        came = rate_of(network.bridge, "rx_bytes", 1.5)
        tried = counter(bridge.veth(container.id), "rx_bytes") - tried
        result = RunResult.from_record(container.wait(), container.samples())
    assert result.exit_code == 0
    assert tried * 8 / 1.5 > 10 * MBIT
    assert_rate(came, 5 * MBIT, 0.1)
    assert result.record["network_shaping"]["tx"]["dropped"] > 100


def test_a_hostile_container_may_not_even_try() -> None:
    """Without CAP_NET_ADMIN every change of its interface is refused, in a new user namespace too."""
    result = nscontainer.run(["sh", "-c", TRIES], network="bridge", net_rate="5mbit")
    assert "did" not in result.stdout
    assert not result.limits.differs


# --- delay and loss --------------------------------------------------------------------------

CONNECT = """
import socket, sys, time
taken = []
for _ in range(3):
    begin = time.monotonic()
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 20).close()
    taken.append(time.monotonic() - begin)
print(min(taken), max(taken))
"""


@contextlib.contextmanager
def listener() -> Iterator[int]:
    """A port of the host's that takes connections, on every address."""
    with socket.create_server(("0.0.0.0", 0), backlog=64) as made:
        yield made.getsockname()[1]


def connect(port: int, **options: Any) -> RunResult:
    network = records.get(os.environ["NSCONTAINER_STATE_DIR"], "bridge")
    command = ["python3", "-c", CONNECT, network.gateway, str(port)]
    result: RunResult = nscontainer.run(command, network="bridge", **options)
    return result


@pytest.mark.parametrize("options", [{"net_delay": "50ms"}, {"net_loss": "1%"}], ids=str)
def test_delay_and_loss_need_netem(options: dict[str, Any]) -> None:
    """Where Linux has it they hold; where not, one line says so before anything is made."""
    (option,) = options
    if has_netem():
        with listener() as port:
            result = connect(port, **options)
        assert result.ok, result.stderr
        (row,) = [row for row in result.limits.rows() if row.name.startswith("net_")]
        assert row.asked == row.read_back == {"net_delay": "50 ms", "net_loss": "1 %"}[option]
        return
    name = option.replace("_", "-")
    with pytest.raises(HostError, match=f"{name} can't be done: this Linux has no netem") as caught:
        nscontainer.run(["true"], network="bridge", **options)
    assert "CONFIG_NET_SCH_NETEM" in str(caught.value.hint)
    with running("python3", "-c", WAIT) as container, pytest.raises(HostError, match="no netem"):
        container.update(**options)


def test_a_delay_is_of_each_direction() -> None:
    """A connection takes there and back: 100 ms with 50 each way, and no less with a rate as well."""
    if not has_netem():
        pytest.skip("this Linux has no netem; the v2 machine's has")
    with listener() as port:
        for rate in (None, "10mbit"):
            result = connect(port, net_delay="50ms", net_rate=rate)
            assert result.ok, result.stderr
            assert float(result.stdout.split()[0]) >= 0.1
            assert not result.limits.differs, result.limits


def test_all_lost_is_nothing_there() -> None:
    """With a loss of 100 % nothing arrives; lifted by an update, everything does."""
    if not has_netem():
        pytest.skip("this Linux has no netem; the v2 machine's has")
    network = records.get(os.environ["NSCONTAINER_STATE_DIR"], "bridge")
    with listener() as port:
        command = ["python3", "-c", CONNECT, network.gateway, str(port)]
        with running(*command, net_loss="100%") as container:
            time.sleep(2)
            assert container.status == "running"
            assert container.update(net_loss=0)["net_loss"] == 0
            assert container.wait()["exit_code"] == 0


# --- what is refused, and what is left -------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("network", ["none", "host"])
def test_no_interface_no_limit(network: str) -> None:
    """A limit never gives a network: that must be said."""
    with pytest.raises(SpecError, match="net-rate needs a network") as caught:
        nscontainer.run(["true"], network=network, net_rate="1mbit")
    assert caught.value.hint == "--network bridge"


@pytest.mark.once
def test_no_update_without_an_interface() -> None:
    """A running container without a network, and one in another's, can't be limited."""
    with running("python3", "-c", WAIT) as other:
        alone = nscontainer.run(["python3", "-c", WAIT], detach=True)
        mode = f"container:{other.id}"
        guest = nscontainer.run(["python3", "-c", WAIT], detach=True, network=mode)
        for container in (guest, alone):
            with pytest.raises(SpecError, match="a limit of its speed needs a network"):
                container.update(net_rate="1mbit")
            container.remove(force=True)


def test_nothing_is_left_of_a_killed_monitor(engine: Path) -> None:
    """``gc`` removes the interface beside the pair too."""
    container = nscontainer.run(
        ["python3", "-c", WAIT], network="bridge", net_rate="5mbit", detach=True, name="speedy"
    )
    ifb = bridge.ifb(container.id)
    assert os.path.exists(f"/sys/class/net/{ifb}")
    monitor = json.loads((engine / "containers" / container.id / "state.json").read_text())
    os.kill(monitor["monitor_pid"], signal.SIGKILL)
    assert eventually(lambda: not Path(f"/proc/{monitor['init_pid']}").exists())
    garbage.collect(str(engine))
    assert not os.path.exists(f"/sys/class/net/{ifb}")
    container.remove(force=True)
