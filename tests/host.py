"""What a test may require of the machine, each found out by doing it.

A probe returns why the machine won't do, or None where it does.
"""

from __future__ import annotations

import functools
import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONTROLLERS = ("cpu", "memory", "pids")
IMAGE_PEERS = (
    *("skopeo", "umoci", "docker-registry", "/usr/sbin/dockerd", "/usr/bin/docker"),
    *("mmdebstrap", "/usr/sbin/debootstrap", "setfattr", "zstd", "xz"),
)
ORDINARY = "NSC_TEST_ORDINARY"
"""Set in the environment of pytest where tests/integration/test_rootless.py runs it as a user."""
KERNEL = """
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(startup_timeout=60)
client.stop_channels()
manager.shutdown_kernel(now=True)
"""
BROWSER = f"""
import sys, tempfile
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
import jupyterlab
import notebook
from tests.browser import jupyter
with tempfile.TemporaryDirectory() as top, jupyter.browse(Path(top)) as browser:
    page = browser.new_page()
    page.set_content("<p>a page</p>")
    assert page.inner_text("p") == "a page"
"""


def root() -> str | None:
    """Uid 0; not where tests of root's are run as an ordinary user, to see that they hold for one."""
    if ORDINARY in os.environ:
        return None
    uid = os.geteuid()
    return None if uid == 0 else f"this is uid {uid}"


def cgroup1() -> str | None:
    """The v1 hierarchies that limits and accounting need, and directories can be made in them."""
    mounts = list(cgroup_mounts("cgroup"))
    for controller in CONTROLLERS:
        found = [path for path, options in mounts if controller in options]
        if not found:
            return f"no cgroup v1 {controller} hierarchy is mounted"
        if reason := no_directory_in(found[0]):
            return reason
    return None


def cgroup2() -> str | None:
    """The v2 tree with its controllers, and a directory can be made where the engine would."""
    for mount, _ in cgroup_mounts("cgroup2"):
        if os.geteuid() == 0:
            candidates = [mount]
        else:  # what systemd has delegated to this user
            user = f"user.slice/user-{os.geteuid()}.slice/user@{os.geteuid()}.service"
            candidates = [mount / own_cgroup2().lstrip("/"), mount / user]
        for directory in candidates:
            try:
                there = (directory / "cgroup.controllers").read_text(encoding="ascii").split()
            except OSError:
                continue
            if set(CONTROLLERS) <= set(there) and no_directory_in(directory) is None:
                return None
    return f"no cgroup v2 directory that is ours has the controllers {' '.join(CONTROLLERS)}"


def userns() -> str | None:
    """A user namespace; Ubuntu's AppArmor gives one and then refuses its map, so write the map."""
    return failure_of("unshare", "--user", "--map-root-user", "true")


def peers() -> str | None:
    """Other container programs to compare with."""
    reasons = (failure_of(peer, "--version") for peer in ("crun", "runc", "bwrap"))
    return next((reason for reason in reasons if reason), None)


def images() -> str | None:
    """Other programs that make, move, hold and run images, all from Debian."""
    reasons = (failure_of(peer, "--version") for peer in IMAGE_PEERS)
    return next((reason for reason in reasons if reason), None)


ANN = 1000
"""The user of the cgroup v2 machine: tests/vm/README.md."""


def systemd() -> str | None:
    """A systemd, and the ordinary user whose own one root may start."""
    if not os.path.isdir("/run/systemd/system"):
        return "systemd doesn't run this machine"
    try:
        name = pwd.getpwuid(ANN).pw_name
    except KeyError:
        return f"there is no user with the id {ANN}"
    return None if name == "ann" else f"user {ANN} is {name}, and no test's to use"


NETWORK = """
set -e
nft --version; iperf3 --version; slirp4netns --version
ip link add v0 type veth peer name v1
ip link add b0 type bridge
ip link set v0 master b0
tc qdisc add dev v1 root tbf rate 10mbit burst 32k latency 50ms
nft add table inet probe
"""
"""In a network namespace of its own: nothing of the machine's is touched."""


def network() -> str | None:
    """What a container's network is made of, and what it is measured with."""
    return failure_of("unshare", "--net", "sh", "-c", NETWORK)


LOOP = """
set -e
file=$(mktemp)
trap 'rm -f "$file"' EXIT
truncate -s 16M "$file"
mkfs.ext4 -q "$file"
device=$(losetup --find --show "$file")
losetup --detach "$device"
"""


def loop() -> str | None:
    """A file that can be a block device with a filesystem on it."""
    return failure_of("sh", "-c", LOOP)


def notebook() -> str | None:
    """A Jupyter kernel of this very Python that starts."""
    return failure_of(sys.executable, "-c", KERNEL)


def vm() -> str | None:
    """The cgroup v2 machine, which boots."""
    return failure_of(str(ROOT / "tests" / "vm" / "run"), "--", "true")


def browser() -> str | None:
    """A browser that shows a page to Playwright, and a JupyterLab to show."""
    return failure_of(sys.executable, "-c", BROWSER)


PROBES: dict[str, Callable[[], str | None]] = {
    probe.__name__: probe
    for probe in (root, cgroup1, cgroup2, userns, peers, images, network, loop)
}
PROBES |= {probe.__name__: probe for probe in (notebook, vm, browser, systemd)}


@functools.cache
def lacking(requirement: str) -> str | None:
    """Why this machine won't do for the requirement, or None; found out once."""
    return PROBES[requirement]()


def cgroup_mounts(fstype: str) -> Iterator[tuple[Path, list[str]]]:
    """Mount points of that type with their super block's options, which name v1 controllers."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        kind, _source, options = after.split(" ", 2)
        if kind == fstype:
            yield Path(before.split()[4]), options.split(",")


def own_cgroup2() -> str:
    """The path of this process in the v2 tree."""
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        if line.startswith("0::"):
            return line.removeprefix("0::")
    return "/"


def no_directory_in(parent: Path) -> str | None:
    """Why no directory can be made there, or None."""
    probe = parent / f"probe-{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        return f"{parent}: {error.strerror}"
    return None


def failure_of(*command: str) -> str | None:
    """Why the command doesn't succeed, in its own last words, or None."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    if done.returncode == 0:
        return None
    last_words = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
    return f"{command[0]} ended with {done.returncode}: {''.join(last_words)}"
