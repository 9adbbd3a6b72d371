"""The doctor's trials for real: what they find here, and that they leave nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nscontainer import doctor
from nscontainer.doctor import Finding, kernel, network, trial
from nscontainer.linux import clone
from tests import ordinary

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def mounts_stay() -> Iterator[None]:
    """No trial mounts or unmounts anything of the host's, where mounts are shared (systemd) either."""
    before = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    yield
    assert Path("/proc/self/mountinfo").read_text(encoding="utf-8") == before


@pytest.mark.root
@pytest.mark.userns
def test_everything_needed_works_for_root() -> None:
    """On a machine where the other tests run, the doctor finds what they need."""
    findings = {f.name: f for f in doctor.examine(python=False)}
    assert [f.name for f in findings.values() if f.needed and f.status == "missing"] == []
    for name in ("user namespace", "namespace mnt", "overlay", "idmapped layers", "cgroup", "seccomp",
                 "CPU quota", "memory limit", "pids limit", "sampling"):  # fmt: skip
        assert findings[name].status == "works", findings[name]
    assert not any("the trial itself failed" in f.detail for f in findings.values())


@pytest.mark.root
@pytest.mark.network
def test_networks_are_tried_apart_from_the_hosts() -> None:
    """Bridge, rules and queues are found; the host's own interfaces and tables are as before."""
    before = sorted(os.listdir("/sys/class/net"))
    seen = {one.name: one for one in network.networks()}
    assert seen["networks"].status == "works", seen
    assert seen["network speed"].status in ("works", "limited"), seen
    assert not {"nsc0", "nsv0"} & {*os.listdir("/sys/class/net")} - {*before}
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    assert "nscontainer_doctor" not in tables.stdout


def test_it_leaves_nothing_beside_the_state_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state directory isn't even made, and the trials' directory beside it is gone."""
    monkeypatch.setenv("NSCONTAINER_STATE_DIR", str(tmp_path / "deep" / "state"))
    findings = doctor.examine(python=False)
    assert findings
    assert list(tmp_path.iterdir()) == []


@pytest.mark.once
def test_it_is_quick() -> None:
    """Some seconds, or so many starts of Python where the machine is slow: an error can ask it."""
    begin = time.monotonic()
    subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
    python_s = time.monotonic() - begin
    begin = time.monotonic()
    doctor.examine()
    assert time.monotonic() - begin < max(10, 100 * python_s)


def test_a_trial_brings_the_error_home() -> None:
    """The operation and the kernel's answer, from two processes away."""

    def fail() -> None:
        os.open("/nonexistent", os.O_RDONLY)

    with pytest.raises(trial.TrialError, match="No such file or directory") as caught:
        trial.run(fail)
    assert caught.value.errno == 2
    assert trial.run(lambda: {"x": [1]}) == {"x": [1]}


def test_a_trial_that_dies_or_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that a filter kills, or that never ends, is a failed trial and is collected."""
    with pytest.raises(trial.TrialError, match="was killed"):
        trial.run(lambda: os.kill(os.getpid(), 9))
    monkeypatch.setattr(trial, "TIMEOUT_S", 0.2)
    with pytest.raises(trial.TrialError):
        trial.run(lambda: time.sleep(60))
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.userns
def test_a_trial_writes_the_id_map() -> None:
    """Root inside is the caller alone, as any user may map."""
    maps = (f"0 {kernel.ID_BASE} 10\n",) * 2 if os.geteuid() == 0 else trial.own_id_maps()
    read = "/proc/self/uid_map"
    inside = trial.run(
        lambda: Path(read).read_text(encoding="utf-8"), flags=clone.CLONE_NEWUSER,
        maps=(maps[0], maps[1]),
    )  # fmt: skip
    assert inside.split() == maps[0].split()


@pytest.mark.root
@pytest.mark.userns
@pytest.mark.once
@pytest.mark.parametrize("single", [False, True], ids=["subids", "one-id"])
def test_for_an_ordinary_user(single: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Everything is tried as their engine does it; what they haven't is said, with the mend."""
    with ordinary.person(single=single) as person:
        done = person.nscontainer("doctor", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        assert not list(person.state_dir.parent.glob(".nscontainer-doctor*"))
    found = {row["key"]: row for row in json.loads(done.stdout)}
    assert not [row for row in found.values() if "the trial itself failed" in row["detail"]]
    for key in (
        "privileges",
        "user-namespace",
        "overlay",
        "own-proc-and-sys",
        "seccomp",
        "a-container",
    ):
        assert found[key]["status"] == "works", found[key]
    ids = found["subordinate-ids"]
    assert (ids["status"], ids["cause"]) == (("limited", "subids") if single else ("works", ""))
    assert "--add-subuids" in ids["mend"] or not single
    assert (found["cgroup"]["status"], found["cgroup"]["needed"]) == ("missing", False)
    assert found["cgroup"]["mend"]
    assert found["networks"]["status"] == found["disk-size"]["status"] == "missing"
    findings = [Finding(**{key: row[key] for key in row if key != "key"}) for row in found.values()]
    assert doctor.verdict(findings).startswith("containers run here, without limits: ")


@pytest.mark.root
def test_where_namespaces_are_refused(tmp_path: Path) -> None:
    """As in an unprivileged pod: root without CAP_SYS_ADMIN gets findings, not a traceback."""
    script = "from nscontainer import doctor; print(doctor.report(doctor.examine(python=False)))"
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "root without CAP_CHOWN" in done.stdout
    assert "the trial itself failed" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith("no container can run here: user namespace")
