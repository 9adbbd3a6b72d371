"""The same images run by Docker and by us: the same outputs, the same diffs, the same commits."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nscontainer
from nscontainer import images, spec
from nscontainer.engine.container import Container
from tests.integration import peers_images as peers
from tests.integration import rootfs_images as made
from tests.integration.inside import private_engine
from tests.integration.peers_images import Daemon
from tests.integration.test_images_commit import BASE, SCRIPTS

pytestmark = [pytest.mark.root, pytest.mark.images, pytest.mark.slow, pytest.mark.timeout(300)]

LOOK = (
    'id -u; id -g; pwd; echo "$HOME|$PATH|$A|$B|$EMPTY"; stat -c "%u:%g %a" .; '
    "readlink /etc/mtab; stat -c %a /etc /tmp; [ -f /etc/hosts ] && echo hosts"
)
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {"Cmd": ["sh", "-c", LOOK]},
    "env": {"Env": ["PATH=/bin:/x", "A=1", "B=a b=c", "EMPTY="], "Cmd": ["sh", "-c", LOOK]},
    "nopath": {"Env": [], "Cmd": ["/bin/sh", "-c", LOOK]},
    "user": {"User": "bob", "Cmd": ["sh", "-c", LOOK]},
    "group": {"User": "bob:staff", "Cmd": ["sh", "-c", LOOK]},
    "numbers": {"User": "12:34", "Cmd": ["sh", "-c", LOOK]},
    "workdir": {"WorkingDir": "/made/here", "Cmd": ["sh", "-c", LOOK]},
    "both": {"WorkingDir": "/made/here", "User": "bob", "Cmd": ["sh", "-c", LOOK]},
    "home": {"Env": ["PATH=/bin", "HOME=/elsewhere"], "Cmd": ["sh", "-c", LOOK]},
    "entry": {"Entrypoint": ["sh", "-c", 'echo "$0 $*"', "e"], "Cmd": ["c", "d"]},
}
LINES: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    # name: config, command, our options; Docker's are made of these
    **{name: (name, [], {}) for name in CONFIGS},
    "entry and arguments": ("entry", ["x", "y"], {}),
    "another entry": ("entry", ["x"], {"entrypoint": "echo"}),
    "another entry alone": ("entry", [], {"entrypoint": "pwd"}),
    "user over user": ("user", [], {"user": "0"}),
    "workdir over workdir": ("workdir", [], {"workdir": "/tmp"}),
    "env over env": ("env", [], {"env": {"A": "2"}}),
}  # fmt: skip


@pytest.fixture(scope="module")
def docker() -> Iterator[Daemon]:
    """Docker and an engine of ours, both with the same images."""
    top = Path(tempfile.mkdtemp(prefix="nsc-peers-", dir="/var/tmp"))
    try:
        with private_engine(), peers.docker_daemon(top / "docker") as daemon:
            tar = made.busybox().bytes()
            for name, config in CONFIGS.items():
                made.make(f"nsc/{name}", tar, config={**config})
            made.make("nsc/base", tar, BASE.bytes(), config={"Cmd": ["sh"]})
            archive = top / "all.tar"
            images.save([f"nsc/{name}" for name in (*CONFIGS, "base")], archive)
            daemon("load", "-i", archive)
            yield daemon
    finally:
        shutil.rmtree(top)


@pytest.mark.parametrize("name", LINES)
def test_runs_alike(docker: Daemon, name: str) -> None:
    """ENTRYPOINT, CMD, ENV, USER, WORKDIR, and what overrides them, give Docker's own output."""
    config, command, options = LINES[name]
    flags = [f"--{key}={value}" for key, value in options.items() if key != "env"]
    flags += [f"--env={key}={value}" for key, value in options.get("env", {}).items()]
    theirs = docker("run", "--rm", "--network=none", *flags, f"nsc/{config}", *command)
    ours = nscontainer.run(command, image=f"nsc/{config}", **options)
    assert ours.stdout == theirs


@pytest.mark.parametrize("kind", SCRIPTS)
def test_diffs_alike(docker: Daemon, kind: str) -> None:
    """After the same commands, diff says what docker diff says."""
    script = SCRIPTS[kind][0]
    name = f"diff-{kind.replace(' ', '-')}"
    docker("run", "--name", name, "--network=none", "nsc/base", "sh", "-ec", script)
    theirs = docker("diff", name).splitlines()
    docker("rm", name)
    what = spec.build(["sh", "-ec", script], image="nsc/base")
    container = Container.create(what, remove=False, start=True)
    try:
        assert container.wait()["exit_code"] == 0
        ours = [str(change) for change in images.diff(container)]
    finally:
        container.remove(force=True)
    assert sorted(ours) == sorted(theirs)


def test_docker_runs_what_we_commit(docker: Daemon, tmp_path: Path) -> None:
    """An image of ours, committed, saved and loaded there: edits, deletes and changes hold."""
    script = "echo 3 > /data/three; rm /data/one; rm -r /keep; mkdir /keep; echo n > /keep/new"
    what = spec.build(["sh", "-ec", script], image="nsc/base")
    container = Container.create(what, remove=False, start=True)
    try:
        assert container.wait()["exit_code"] == 0
        changes = ['CMD ["sh", "-c", "ls /data /keep; cat /data/three; echo $A"]', "ENV A=1"]
        images.commit(container, "nsc/committed", changes=changes)
    finally:
        container.remove(force=True)
    images.save("nsc/committed", tmp_path / "c.tar")
    docker("load", "-i", tmp_path / "c.tar")
    theirs = docker("run", "--rm", "--network=none", "nsc/committed")
    assert theirs == nscontainer.run([], image="nsc/committed").stdout
    assert theirs.splitlines() == [
        "/data:", "sub", "three", "two", "", "/keep:", "new", "3", "1",
    ]  # fmt: skip
    assert json.loads(docker("image", "inspect", "nsc/committed"))[0]["Config"]["Env"][-1] == "A=1"
