"""Defaults of the options: one trait each, checked by the option's own parser, under the line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from IPython.core.interactiveshell import InteractiveShell

from nscontainer import options
from nscontainer.errors import SpecError
from nscontainer_magics import cell_line, defaults
from nscontainer_magics.magics import ContainerMagics

GOOD = {
    "cpu": "50%", "cpu_period": "50000", "cpu_quota": "20000", "cpu_burst": "5000",
    "cpu_shares": "512", "cpuset_cpus": "0", "cpuset_mems": "0", "memory": "1G",
    "memory_swap": "2G", "pids_limit": "20", "ulimit": "nofile=64 core=0", "timeout": "1m",
    "cpu_time": "10s", "env": "A=1 'B=2 3'", "workdir": "/tmp", "user": "1000",
    "hostname": "lab", "stop_signal": "INT", "image": "host", "volume": "/tmp:/data:ro",
    "tmpfs": "/scratch:size=1M", "mount": "type=tmpfs,target=/x", "network": "host", "share": "uts,ipc", "uts": "host",
    "ipc": "host", "pid": "host", "userns": "host", "cgroupns": "host", "time": "host",
    "cap_add": "NET_RAW", "cap_drop": "ALL", "seccomp": "unconfined",
    "security_opt": "seccomp=unconfined", "sample": "100ms",
    "add_host": "db:10.0.0.5", "dns": "1.1.1.1", "ip": "10.213.0.5", "publish": "8080:80",
    "net_rate": "10mbit", "net_rx": "1mbit", "net_tx": "2mbit", "net_delay": "50ms", "net_loss": "1%",
    "disk_read": "5M", "disk_write": "5M", "disk_read_iops": "100", "disk_write_iops": "100",
    "device_read_bps": "/dev/sda:1M", "device_write_bps": "/dev/sda:1M",
    "device_read_iops": "/dev/sda:10", "device_write_iops": "/dev/sda:10",
    "blkio_weight": "500", "storage": "1G",
}  # fmt: skip
BAD = {
    "cpu": "fifty", "cpu_period": "1", "memory": "12Q", "pids_limit": "few", "ulimit": "nofiles=1",
    "timeout": "soon", "env": "'A=1", "volume": "/no/such/place:/data", "network": "no/net",
    "uts": "sideways", "memory_swap": "x", "cpu_burst": "-1", "sample": "1h",
}  # fmt: skip


@pytest.fixture
def magics() -> Iterator[ContainerMagics]:
    """The magics without defaults, of a shell without a kernel."""
    yield ContainerMagics(InteractiveShell())
    InteractiveShell.clear_instance()


def test_there_is_one_for_each_option(magics: ContainerMagics, tmp_path):
    """Whatever a line may have can be a default, and arrives as if it stood on the line."""
    (tmp_path / "env").write_text("C=4\n")
    good = GOOD | {"env_file": str(tmp_path / "env")}
    taking = {name for name, option in defaults.OPTIONS.items() if option.takes_value}
    assert taking == set(good)
    assert len(defaults.OPTIONS) == sum(o.magic for o in options.OPTIONS) - 2
    for name, value in good.items():
        setattr(magics, name, value)
        option = defaults.OPTIONS[name]
        flag = option.flags[-1] if option.flags[0][1] != "-" else option.flags[0]
        words = defaults._value(option, value, ())
        several = words if isinstance(words, list) else [words]
        line = " ".join(f"{flag}='{word}'" for word in several)
        assert cell_line.parse("", magics.fill).build == cell_line.parse(line).build, name
        setattr(magics, name, "")
    assert cell_line.parse("", magics.fill).build == {}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_value_changes_nothing(magics: ContainerMagics, name: str):
    """It is refused with a hint, and the old value stays."""
    setattr(magics, name, GOOD[name])
    with pytest.raises(SpecError) as caught:
        setattr(magics, name, BAD[name])
    assert "\n" not in str(caught.value)
    assert getattr(magics, name) == GOOD[name]


@pytest.mark.parametrize(
    ("line", "build"),
    [
        ("", {"cpu": "50%", "cpu_burst": "1000", "memory": "1G", "memory_swap": "2G"}),
        ("--cpu 10%", {"cpu": "10%", "memory": "1G", "memory_swap": "2G"}),
        ("--cpu-quota 20000", {"cpu_quota": "20000", "memory": "1G", "memory_swap": "2G"}),
        ("-m 4G", {"cpu": "50%", "cpu_burst": "1000", "memory": "4G"}),
    ],
)
def test_the_line_wins_cleanly(magics: ContainerMagics, line: str, build: dict[str, str]):
    """What a line says takes away the defaults that would contradict it."""
    magics.cpu, magics.cpu_burst = "50%", 1000  # type: ignore[attr-defined]
    magics.memory, magics.memory_swap = "1G", "2G"  # type: ignore[attr-defined]
    assert cell_line.parse(line, magics.fill).build == build


def test_one_namespace_is_private_again(magics: ContainerMagics):
    """``--uts private`` takes one of those away that are shared by default."""
    magics.share = "uts,ipc"  # type: ignore[attr-defined]
    assert cell_line.parse("--uts private", magics.fill).build == {"share": ["ipc"]}


def test_sessions_have_their_own(magics: ContainerMagics):
    """A cell in a session isn't refused for defaults, and a session gets none that would end it."""
    magics.cpu, magics.timeout = "50%", "10s"  # type: ignore[attr-defined]
    assert cell_line.parse("lab", magics.fill).build == {}
    given = cell_line.parser().parse_args([])
    magics.fill(given, session=True)
    assert options.to_build_kwargs(given) == {"cpu": "50%"}


@pytest.mark.parametrize(("text", "size"), [("8M", 8 << 20), ("0", None), ("unlimited", None)])
def test_shown_output(magics: ContainerMagics, text: str, size: int | None):
    """A size, or nothing for all."""
    magics.shown_output = text
    assert magics.shown_bytes == size
    with pytest.raises(SpecError):
        magics.shown_output = "much"
    assert magics.shown_bytes == size
