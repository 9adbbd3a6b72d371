"""What can't be had on a host is an error; with ``--best-effort`` it is marked, and the rest holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import ordinary

pytestmark = [pytest.mark.root, pytest.mark.cgroup1, pytest.mark.once]

RUN = """
import json, sys
import nscontainer
from nscontainer.errors import HostError
asked = json.loads(sys.argv[1])
try:
    nscontainer.run(["true"], **asked)
except HostError as error:
    refused = [error.message, error.hint]
r = nscontainer.run(["sh", "-c", "echo ran"], best_effort=True, **asked)
print(json.dumps({
    "refused": refused, "stdout": r.stdout, "limits": str(r.limits), "unheld": dict(r.limits.unheld),
    "differs": r.limits.differs, "codes": {w.code: w.message for w in r.warnings},
    "network": r.isolation.network, "attrs": r.usage.attrs.get("not_held"), "card": str(r),
    "title": r.plot("cpu").get_title(loc="left"), "isolation": r.usage.attrs["isolation"],
}))
"""
LESS = """
pids=$(findmnt -nro TARGET -t cgroup -O pids | head -n 1)
umount "$pids"
for program in mkfs.ext4 slirp4netns; do
    mount --bind /dev/null "$(command -v $program)"
done
exec "$@"
"""
"""A host that has no cgroup for pids, no mkfs.ext4 and no slirp4netns: in a mount namespace of its own."""


def on_less(**asked: object) -> dict[str, Any]:
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-ec", LESS, "sh",
         sys.executable, "-c", RUN, json.dumps(asked)],
        env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NSCONTAINER_STANDBY": "0"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_one_limit_is_marked_and_the_others_hold() -> None:
    """Without a pids cgroup --pids-limit is an error; then it is marked everywhere, and memory holds."""
    run = on_less(pids_limit=20, memory="64M", cpu="50%")
    assert (
        "pids-limit 20 can't be set: this host has no cgroup v1 controller pids"
        in run["refused"][0]
    )
    assert "mount -t cgroup" in run["refused"][1]
    assert run["stdout"] == "ran\n"
    assert list(run["unheld"]) == list(run["attrs"]) == ["pids"]
    assert not run["differs"]
    rows = [line.split(maxsplit=1)[0:2] for line in run["limits"].splitlines()]
    assert [row[0] for row in rows] == ["limit", "CPU", "memory", "pids"]
    assert "64 MiB  64 MiB" in run["limits"]
    assert "20      not held: pids-limit 20 can't be set" in run["limits"]
    assert "pids 20 was not held" in run["codes"]["best-effort"]
    assert "limit-unread" not in run["codes"]
    assert "pids 20 (NOT HELD)" in run["card"]
    assert "not held: pids 20" in run["title"]
    assert run["isolation"] == "isolated"


def test_storage_and_network() -> None:
    """Without mkfs.ext4 the layer is unbounded, without slirp4netns there is no network; both marked."""
    run = on_less(storage="64M")
    assert "mkfs.ext4" in run["refused"][0]
    assert list(run["unheld"]) == ["storage_bytes"]
    run = on_less(network="slirp4netns")
    assert "slirp4netns" in run["refused"][0]
    assert run["network"] == "none"
    assert list(run["unheld"]) == ["network"]
    assert run["codes"]["best-effort"].startswith("no network: ")


def test_where_all_can_be_had_nothing_is_marked() -> None:
    """The option by itself changes nothing."""
    import nscontainer

    r = nscontainer.run(["true"], best_effort=True, cpu="50%", memory="64M", pids_limit=20)
    assert not r.limits.unheld
    assert not r.limits.differs
    assert "not_held" not in r.usage.attrs
    assert "best-effort" not in {w.code for w in r.warnings}


WITHOUT = """
import json, sys
import nscontainer
from nscontainer import spec
from nscontainer.errors import SetupError
try:
    nscontainer.Container.create(spec.build(["true"]))
except SetupError as error:
    refused = [error.stage, error.op]
r = nscontainer.run(["hostname"], best_effort=True)
print(json.dumps([refused, r.stdout, r.isolation.missing, r.usage.attrs["isolation"], str(r),
                  sorted(r.spec.host_namespaces), [w.code for w in r.warnings], r.spec.network]))
"""


@pytest.mark.userns
@pytest.mark.parametrize(
    ("names", "stage"), [(["uts"], ["clone", "clone3"]), (["cgroup", "net"], ["clone", "clone3"])]
)
def test_a_namespace_that_linux_refuses(names: list[str], stage: list[str], tmp_path: Path) -> None:
    """The fewest are left out that must be, all others are made; which and why is in the result.

    In a user namespace of its own, whose sysctls (namespaces(7)) are its own.
    """
    forbid = "; ".join(f"echo 0 >/proc/sys/user/max_{name}_namespaces" for name in names)
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-ec", f'{forbid}; exec "$@"', "sh",
         sys.executable, "-c", WITHOUT],
        env={**os.environ, "NSCONTAINER_STATE_DIR": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    refused, said, missing, word, card, shared, codes, network = json.loads(done.stdout)
    assert refused == stage
    assert missing == sorted(names)
    assert word == f"isolated, but for: {', '.join(sorted(names))}"
    assert word in card
    assert (said.strip() == os.uname().nodename) == ("uts" in names)
    assert "not-isolated" in codes
    assert shared == []
    assert network == "none"


SPIN = """
import json, time
import nscontainer
from nscontainer.errors import HostError
code = "import time\\nx = bytearray(50 << 20)\\nwhile time.process_time() < 0.5: pass\\nprint(time.process_time())"
def run(**options):
    r = nscontainer.run(["python3", "-S", "-c", code], **options)
    print(json.dumps([r.describe_exit(), r.cpu_s, r.totals["memory.peak"], sorted(r.limits.unheld),
                      [w.code for w in r.warnings], r.isolation.word]))
run()
try:
    run(cpu="20%", memory="64M")
except HostError as error:
    print(json.dumps([error.message, error.hint]))
run(cpu="20%", memory="64M", best_effort=True)
run(cpu_time="0.2s")
"""


@pytest.mark.userns
def test_a_user_without_cgroups() -> None:
    """Their containers are accounted by /proc and say so; limits are refused, or marked; CPU time holds."""
    with ordinary.person() as user:
        done = user.python(SPIN, env={"NSCONTAINER_STATE_DIR": f"{user.home}/s"})
    assert done.returncode == 0, done.stderr
    plain, refused, marked, ended = map(json.loads, done.stdout.splitlines())
    how, cpu_s, peak, unheld, codes, word = plain
    assert (how, unheld, word) == ("ok", ["accounting"], "isolated")
    assert cpu_s == pytest.approx(0.5, rel=0.03)
    assert 50 << 20 < peak < 70 << 20
    assert "no-cgroup" in codes
    assert "best-effort" not in codes
    assert refused[0].startswith("cpu 20%, memory 67108864 can't be set: this user has no cgroup")
    assert "nscontainer setup" in refused[1]
    how, _, _, unheld, codes, word = marked
    assert (how, unheld) == ("ok", ["accounting", "cpu_quota_us", "memory_bytes"])
    assert codes.count("best-effort") == 2
    assert ended[0].startswith("killed: CPU time of 200 ms used up")
    assert 0.2 <= ended[1] < 0.3
