"""Containers of an ordinary user: as isolated as root's, and nobody else's; refused where they can't be."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from tests.host import ORDINARY
from tests.integration.inside import eventually
from tests.ordinary import Person, person

pytestmark = [pytest.mark.root, pytest.mark.userns, pytest.mark.once]

SEVERAL = """
import json, sys
import nscontainer
told = {}
for name, (command, options) in json.loads(sys.argv[1]).items():
    try:
        if isinstance(command, str):
            r = nscontainer.run_cell(command, **options)
        else:
            r = nscontainer.run(command, **options)
    except nscontainer.NsContainerError as error:
        error = error.__cause__ or error  # as the engine has it, before the doctor
        told[name] = {"error": error.message, "hint": error.hint}
        continue
    told[name] = {"code": r.exit_code, "out": r.stdout, "err": r.stderr, "mode": r.start_mode,
                  "notes": r.isolation.notes, "map": r.isolation.user_map,
                  "namespaces": dict(r.isolation.namespaces), "seccomp": r.isolation.seccomp}
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def ann() -> Iterator[Person]:
    """An ordinary user with subordinate ids; nothing of theirs runs on."""
    with person() as one:
        yield one


@pytest.fixture(scope="module")
def bob() -> Iterator[Person]:
    """Another, without."""
    with person(single=True) as one:
        yield one


def ask(one: Person, /, **runs: Any) -> dict[str, Any]:
    """Run commands (or cells) as a user, all in one process; give what came of each by name."""
    whole = {name: run if isinstance(run, tuple) else (run, {}) for name, run in runs.items()}
    done = one.python(SEVERAL, arguments=[json.dumps(whole)])
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def sh(text: str, **options: Any) -> tuple[list[str], dict[str, Any]]:
    """A shell's command, with the options of its run."""
    return ["sh", "-c", text], options


def test_root_inside_is_the_user_outside(ann: Person) -> None:
    """Commands and cells run as root of the user's own ids, write to their layer, and say so."""
    told = ask(
        ann,
        command=sh("id -u; cat /proc/self/uid_map; touch /usr/x /etc/x /x; ls /usr/x"),
        cell="import os; print(os.getuid(), os.path.exists('/usr/x'))",
        other=sh("id -u; touch /tmp/mine; stat -c %u /tmp/mine", user="1000:1000"),
    )
    command, cell = told["command"], told["cell"]
    assert command["code"] == 0, command
    lines = [line.split() for line in command["out"].splitlines()]
    assert lines == [["0"], ["0", "0", "1"], ["1", "1", "65535"], ["/usr/x"]]
    assert (cell["code"], cell["mode"]) == (0, "zygote")
    assert told["other"]["out"].split() == ["1000", "1000"]
    for one in (command, cell):
        assert one["map"] == [0, ann.uid, 1]
        assert set(one["namespaces"].values()) == {"private"}
        assert "default" in one["seccomp"]
        assert any("subordinate ids" in note for note in one["notes"])


def test_nothing_of_it_is_seen_on_the_host(ann: Person) -> None:
    """What containers write is in the user's own directory, and gone with them."""
    ask(ann, one=sh("touch /usr/nsc-rootless-was-here"))
    assert not os.path.exists("/usr/nsc-rootless-was-here")
    assert ann.state_dir.stat().st_uid == ann.uid
    assert ann.state_dir.stat().st_mode & 0o077 == 0
    assert list((ann.state_dir / "containers").iterdir()) == []


def test_options_hold_as_for_root(ann: Person) -> None:
    """Read-only root, volumes, tmpfs, working directory, resource limits, host name, capabilities."""
    volume = ann.home / "volume"
    volume.mkdir(mode=0o755)
    os.chown(volume, ann.uid, ann.uid)
    told = ask(
        ann,
        read_only=sh("touch /usr/x", read_only=True),
        volume=sh("touch /data/root; su -s /bin/sh daemon -c 'id -u'", volumes=[f"{volume}:/data"]),
        volume_ro=sh("touch /data/no", volumes=[f"{volume}:/data:ro"]),
        tmpfs=sh("df --output=size /t | tail -1", tmpfs=["/t:size=1m"]),
        workdir=sh("pwd; echo x >inside; cat /proc/self/cgroup >/dev/null", workdir=str(volume)),
        ulimit=sh("ulimit -n", ulimits=["nofile=77:77"]),
        hostname=sh("hostname", hostname="lab"),
        sysctl=sh("echo 1 >/proc/sys/kernel/domainname"),
        caps=sh("grep -E '^(Cap(Eff|Bnd)|Seccomp|NoNewPrivs):' /proc/self/status"),
        masked=sh("wc -c </proc/keys; ls /sys/firmware | wc -l"),
    )
    assert "Read-only" in told["read_only"]["err"]
    assert sorted(os.listdir(volume)) == ["root"]
    assert (volume / "root").stat().st_uid == ann.uid
    assert "Read-only" in told["volume_ro"]["err"]
    assert told["tmpfs"]["out"].split() == ["1024"]
    assert told["workdir"]["out"].strip() == str(volume)
    assert told["ulimit"]["out"].split() == ["77"]
    assert told["hostname"]["out"].split() == ["lab"]
    assert told["sysctl"]["code"] != 0
    facts = dict(line.split() for line in told["caps"]["out"].splitlines())
    assert facts["NoNewPrivs:"] == "1"
    assert facts["Seccomp:"] == "2"
    assert int(facts["CapEff:"], 16).bit_count() == 14
    assert facts["CapEff:"] == facts["CapBnd:"]
    assert told["masked"]["out"].split() == ["0", "0"]


def test_secrets_and_homes_are_hidden(ann: Person) -> None:
    """Of the user's home only what is needed is there; of /etc nothing that not everybody may read."""
    secret = ann.home / ".token"
    secret.write_text("s3cret")
    os.chown(secret, ann.uid, ann.uid)
    work = ann.home / "project"
    work.mkdir()
    os.chown(work, ann.uid, ann.uid)
    told = ask(
        ann,
        homes=sh(f"ls -A {ann.home}; ls -A /home /var/log", workdir=str(work)),
        itself=sh("ls -A", workdir=str(ann.home)),
        etc=sh("ls /etc/shadow /etc/machine-id /etc/sudoers"),
    )
    assert ".token" not in told["homes"]["out"]
    assert "project" in told["homes"]["out"]
    assert "project" in told["itself"]["out"].split()
    assert ".token" not in told["itself"]["out"].split()
    assert told["etc"]["out"] == ""


def test_what_only_root_may_is_refused_with_the_way_out(ann: Person) -> None:
    """A bridge and a bounded layer are one error each, before anything is made, that names what goes."""
    told = ask(ann, bridge=sh("true", network="bridge"), storage=sh("true", storage="10M"))
    assert "root" in told["bridge"]["error"], told
    assert "slirp4netns" in told["bridge"]["hint"]
    assert "root" in told["storage"]["error"], told
    assert "--tmpfs" in told["storage"]["hint"]


@pytest.mark.network
def test_a_network_in_user_mode(ann: Person) -> None:
    """slirp4netns gives an ordinary user's container its interface, counted."""
    told = ask(ann, one=sh("cat /proc/net/dev /etc/resolv.conf", network="slirp4netns"))
    assert told["one"]["code"] == 0, told
    assert "eth0" in told["one"]["out"]


def test_without_subordinate_ids_there_is_one_id(bob: Person) -> None:
    """A user without a line in /etc/subuid has root alone, is told why, and the mend."""
    told = ask(bob, one=sh("cat /proc/self/uid_map; touch /etc/x"), other=sh("id", user="1000"))
    assert told["one"]["out"].split() == ["0", "0", "1"], told
    (note,) = [note for note in told["one"]["notes"] if "rootless" in note]
    assert "one id" in note
    assert "usermod --add-subuids" in note
    assert "setresuid" in told["other"]["error"]


def test_users_are_apart(ann: Person, bob: Person) -> None:
    """A user sees, stops and reads nothing of another's containers, whatever is known of them."""
    begun = ann.nscontainer("run", "-d", "--name", "hers", "--", "sleep", "1000")
    assert begun.returncode == 0, begun.stderr
    try:
        (state,) = (ann.state_dir / "containers").iterdir()
        facts = json.loads((state / "state.json").read_text(encoding="utf-8"))
        pid = facts["init_pid"]
        tries = f"""
import json, os, signal, socket
def refused(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return type(error).__name__
    return "allowed"
line = socket.socket(socket.AF_UNIX)
print(json.dumps([
    refused(os.kill, {pid}, signal.SIGKILL),
    refused(os.kill, {facts["monitor_pid"]}, signal.SIGKILL),
    refused(os.listdir, "/proc/{pid}/root"),
    refused(open, "/proc/{pid}/environ"),
    refused(os.listdir, {str(ann.state_dir)!r}),
    refused(line.connect, {str(state / "monitor.sock")!r}),
]))
"""
        assert json.loads(bob.python(tries).stdout) == ["PermissionError"] * 6
        assert "hers" not in bob.nscontainer("ps", "-a").stdout
        assert "hers" in ann.nscontainer("ps").stdout
        assert bob.nscontainer("kill", "hers").returncode != 0
        inside = ann.nscontainer("exec", "hers", "--", "cat", "/proc/1/comm")
        assert inside.stdout.strip() == "sleep", inside.stderr
    finally:
        ended = ann.nscontainer("kill", "hers")
    assert ended.returncode == 0, ended.stderr
    assert eventually(lambda: not os.path.exists(f"/proc/{pid}"))


def test_root_of_a_users_namespace_has_containers_too(ann: Person) -> None:
    """In `unshare --map-root-user` there is nothing to enter, and containers all the same."""
    done = ann.run(
        [
            "unshare",
            "--user",
            "--map-root-user",
            *ann.module("nscontainer"),
            "run",
            "--",
            "id",
            "-u",
        ]
    )
    assert done.stdout.split() == ["0"], done.stderr


def test_directories_with_mounts_in_them_are_shown_entry_by_entry(ann: Person) -> None:
    """As in a container, where /etc has mounts: its files are there, a mount's own are not."""
    inside = (
        "grep -c ^root: /etc/passwd; ls /usr/share | wc -l; touch /etc/x /usr/x; ls /usr/bin/env"
    )
    words = [*ann.module("nscontainer"), "run", "--", "sh", "-c", inside]
    mounts = "mount --bind /etc/hostname /etc/hosts; mount -t tmpfs none /usr/share"
    whole = f"{mounts} && {shlex.join(words)}"
    done = ann.run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", whole])
    assert done.stdout.split() == ["1", "0", "/usr/bin/env"], done.stderr


@pytest.mark.slow
def test_roots_tests_hold_for_a_user(ann: Person) -> None:
    """Of the tests of root's containers, those of escapes and of isolation that fit a user pass."""
    chosen = "zygotes_program or dockers_fourteen"
    done = ann.run(
        [
            *ann.module("pytest"), "-q", "-p", "no:cacheprovider", "-k", chosen,
            f"--basetemp={ann.home}/pytest",
            *(f"tests/integration/test_{name}.py" for name in ("escapes", "isolation")),
        ],
        env={ORDINARY: "1", "NSCONTAINER_REQUIRE": "userns"},
    )  # fmt: skip
    # Not by its exit code: what is left behind is a matter of this session, which sees all of the machine.
    assert re.search(r"\d passed", done.stdout), done.stdout[-4000:]
    assert not re.search("failed|skipped", done.stdout), done.stdout[-4000:]
