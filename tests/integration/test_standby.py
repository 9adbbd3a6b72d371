"""A container that stands by: made ahead, given out once, and never in anybody's way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nscontainer import api, spec
from nscontainer.engine import spawner_client
from nscontainer.engine.container import Container
from nscontainer.errors import SpecError, StateError
from nscontainer.measure.result import RunResult
from tests import leaks
from tests.integration.inside import PYTHON, Owner, eventually, holdings

pytestmark = [pytest.mark.root, pytest.mark.userns]


def true(**options: Any) -> RunResult:
    result: RunResult = api.run(["true"], **options)
    return result


def cell(**options: Any) -> RunResult:
    return api.run_cell("1 + 1", **options)


WAYS = {"command": true, "cell": cell}


@pytest.fixture
def top(own_engine: Path) -> Path:
    return own_engine


def standing_by(top: Path) -> list[str]:
    """The ids of what stands by, all set up."""
    found = os.listdir(top / "standby") if (top / "standby").is_dir() else []
    return [one for one in found if (top / "standby" / one / "monitor.sock").exists()]


def await_one(top: Path) -> str:
    assert eventually(lambda: len(standing_by(top)) == 1)
    time.sleep(0.05)  # its first process is still at it
    return standing_by(top)[0]


@pytest.mark.parametrize("way", WAYS)
def test_the_second_container_was_made_ahead(top: Path, way: str) -> None:
    """Each is given out once: the next one's id is the one that stood by, then another does."""
    run = WAYS[way]
    assert run().record["pooled"] is False
    first = await_one(top)
    second = run()
    assert (second.id, second.record["pooled"], second.ok) == (first, True, True)
    assert await_one(top) != first
    assert os.listdir(top / "containers") == []


def test_nothing_stands_by_while_a_container_runs(top: Path) -> None:
    """It would take CPU from what is being measured."""
    running = Container.create(spec.build(["sleep", "1000"]), start=True)
    time.sleep(0.3)
    assert os.listdir(top / "standby") == []
    running.kill()
    running.wait()
    await_one(top)


def test_it_is_nobodys_until_it_is_asked_for(top: Path) -> None:
    """``ps`` and ``get`` don't know it, gc leaves it alone."""
    from nscontainer.engine import garbage

    true()
    one = await_one(top)
    assert Container.list(all=True) == []
    with pytest.raises(Exception, match="no container"):
        Container.get(one)
    assert garbage.collect(str(top)) == []
    assert standing_by(top) == [one]


@pytest.mark.once
def test_a_request_while_one_is_being_made(top: Path) -> None:
    """At whatever moment of the making it comes: it is served, and by that one where it can be."""
    pooled = 0
    for n in range(90):
        result = true()
        assert result.ok
        pooled += bool(result.record["pooled"])
        time.sleep(0.002 + n % 30 * 0.0005)
    assert pooled > 0


TELL = """
import json, os, sys
print(json.dumps({
    "argv": sys.argv[1:], "env": os.environ.get("SECRET"), "host": os.uname().nodename,
    "etc": open("/etc/hostname").read().strip(), "cwd": os.getcwd(), "ids": os.getresgid(),
    "nofile": __import__("resource").getrlimit(7)[0], "stdin": sys.stdin.read(),
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
    "status": [l for l in open("/proc/self/status") if l.startswith(("Seccomp:", "NoNew", "Cap"))],
}))
"""


def test_it_is_no_different_inside(top: Path) -> None:
    """What a request says holds, and nothing else can be told from one made on request."""
    options: dict[str, Any] = {
        "env": {"SECRET": "s"}, "workdir": "/tmp", "user": "0:12",
        "ulimits": ["nofile=64"], "input": b"typed", "cpu": "50%", "memory": "64M",
    }  # fmt: skip
    command = [*PYTHON, TELL, "a", "b"]
    made = api.run(command, **options)
    await_one(top)
    pooled = api.run(command, **options)
    assert (made.record["pooled"], pooled.record["pooled"]) == (False, True)
    told, expected = pooled.stdout, made.stdout
    assert told.replace(pooled.id, "ID") == expected.replace(made.id, "ID")
    assert '"SECRET"' not in told
    assert pooled.id in told
    assert pooled.record["isolation"]["namespaces"] == made.record["isolation"]["namespaces"]
    assert pooled.limits.read_back == made.limits.read_back


def namespaces(pid: int | str) -> set[str]:
    return {os.readlink(f"/proc/{pid}/ns/{name}") for name in os.listdir(f"/proc/{pid}/ns")}


def test_namespaces_are_its_own(top: Path) -> None:
    """It shares none with the host, nor with another container that lives."""
    true()
    await_one(top)
    pooled = Container.create(spec.build(["sleep", "1000"]), start=True)
    assert pooled.inspect()["pooled"] is True
    other = Container.create(spec.build(["sleep", "1000"]), start=True)
    seen = [namespaces(c.inspect()["init_pid"]) for c in (pooled, other)] + [namespaces("self")]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    for container in (pooled, other):
        container.kill()
        container.wait()


def test_it_samples_as_it_is_asked_to(top: Path) -> None:
    """The beat is the request's, not that of the one that was made ahead."""
    for expected in (False, True):
        result = api.run(["sleep", "0.45"], sample="100ms")
        assert result.record["pooled"] is expected
        assert 3 <= result.sample_count <= result.wall_s / 0.1 + 3  # five times that at 20 ms
        await_one(top)


@pytest.mark.once
def test_one_with_the_hosts_network_is_made_on_request(top: Path) -> None:
    """Its /etc/resolv.conf is the host's of now."""
    true(network="host")
    time.sleep(0.2)
    assert os.listdir(top / "standby") == []
    assert true(network="host").record["pooled"] is False


@pytest.mark.once
def test_what_the_last_one_wrote_is_not_in_it(top: Path) -> None:
    """Nothing of the last container, nor of its request, is to be found in the next."""
    true(env={"SECRET": "from the last"})
    await_one(top)
    found = api.run_cell("import os; print('SECRET' in os.environ, os.listdir('/tmp'))")
    assert found.ok
    api.run(["sh", "-c", "echo x > /tmp/left"])
    await_one(top)
    assert "left" not in api.run(["ls", "/tmp"]).stdout.split()


@pytest.mark.once
@pytest.mark.parametrize(
    "options",
    [
        {"hostname": "other"}, {"read_only": True}, {"cap_drop": ["ALL"]}, {"network": "host"},
        {"seccomp": "unconfined"}, {"volumes": ["/etc:/mnt/etc:ro"]},
    ],
    ids=lambda options: next(iter(options)),
)  # fmt: skip
def test_another_kind_is_made_on_request(top: Path, options: dict[str, Any]) -> None:
    """What differs in what can't be changed any more is not served by one that stands by."""
    true()
    await_one(top)
    other = true(**options)
    assert (other.ok, other.record["pooled"]) == (True, False)


def test_a_request_that_fails_leaves_nothing(top: Path) -> None:
    """A taken name, a missing user: the error is the same, and what stood by is gone."""
    true()
    await_one(top)
    with pytest.raises(SpecError, match="no-such-group"):
        true(user="12:no-such-group")
    held = Container.create(spec.build(["sleep", "1000"]), name="taken", start=True)
    with pytest.raises(StateError, match="taken"):
        true(name="taken")
    held.kill()
    held.wait()
    assert eventually(lambda: os.listdir(top / "containers") == [])
    assert true(name="free").name == "free"


def killed_spare(top: Path, pick: Callable[[Owner], int]) -> None:
    source = """
print(api.run(["echo", "first"]).stdout, end="", flush=True)
input()
print(api.run(["echo", "second"]).stdout, end="", flush=True)
"""
    owner = Owner(top, source)
    assert owner.line() == "first"
    one = await_one(top)
    os.kill(pick(owner), signal.SIGKILL)
    owner.say("go")
    code, out, err = owner.wait()
    assert (code, out) == (0, "second\n"), err
    eventually(lambda: holdings(top, standby=True) == [])
    assert holdings(top, standby=True) == []
    assert eventually(lambda: not [path for path in leaks.cgroups() if one in path])


def named(owner: Owner, name: str) -> int:
    return next(pid for pid, known in owner.offspring().items() if known == name)


def test_its_monitor_is_killed(top: Path) -> None:
    """The spawner finds out, removes what it left, and the next container is another."""
    killed_spare(top, lambda owner: named(owner, "nsc-monitor"))


def test_its_first_process_is_killed(top: Path) -> None:
    """The next container is made on request."""
    killed_spare(top, lambda owner: named(owner, "nsc-init"))


@pytest.mark.parametrize("victim", ["owner", "spawner"])
@pytest.mark.parametrize("delay_s", [0.0, 0.004, 0.008, 0.012, 0.02, 0.2])
def test_owner_or_spawner_is_killed_while_it_is_made(
    top: Path, victim: str, delay_s: float
) -> None:
    """SIGKILL at whatever moment of the making: nothing stays."""
    owner = Owner(top, "api.run(['true'])\nprint('ran', flush=True)\ninput()")
    assert owner.line() == "ran"
    time.sleep(delay_s)
    ids = os.listdir(top / "standby")
    os.kill(owner.process.pid if victim == "owner" else named(owner, "nsc-spawner"), signal.SIGKILL)
    ids += [one for one in os.listdir(top / "standby") if one not in ids]
    eventually(lambda: holdings(top, standby=True) == [])
    assert holdings(top, standby=True) == []
    assert eventually(lambda: not [p for p in leaks.cgroups() if any(one in p for one in ids)])
    owner.kill()
    assert eventually(lambda: not owner.offspring())


def test_it_can_be_switched_off(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NSCONTAINER_STANDBY=0: every container is made on request."""
    spawner_client.shutdown()
    monkeypatch.setenv("NSCONTAINER_STANDBY", "0")
    true()
    time.sleep(0.2)
    assert os.listdir(top / "standby") == []
    assert true().record["pooled"] is False
    spawner_client.shutdown()
