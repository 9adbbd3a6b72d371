"""``nscontainer setup`` on trees that pose as a host: what it shows is what it does, and undoes."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path

import pytest

from nscontainer import cli
from nscontainer.cli import setup, setup_steps
from nscontainer.errors import SpecError
from nscontainer.linux import userns

ANN = pwd.struct_passwd(("ann", "x", 1000, 1000, "", "/home/ann", "/bin/sh"))
V2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"


class Machine(setup_steps.Host):
    """A Debian in a directory; programs are noted, and usermod does its work."""

    ran: list[list[str]]

    def run(self, command: list[str]) -> None:
        self.ran.append(command)
        if command[0] == "usermod":
            for verb, given in zip(command[1:-1:2], command[2:-1:2], strict=True):
                path = Path(self.etc, verb[-7:-1])
                first, _, last = given.partition("-")
                line = f"ann:{first}:{int(last) - int(first) + 1}\n"
                text = path.read_text()
                path.write_text(text + line if "add" in verb else text.replace(line, ""))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    (tmp_path / "etc").mkdir()
    for name in ("subuid", "subgid"):
        (tmp_path / "etc" / name).write_text("bob:100000:65536\n")
    (tmp_path / "mountinfo").write_text(V2)
    monkeypatch.setattr(userns, "_name", lambda uid=None: "ann" if uid == 1000 else str(uid))
    made = Machine(
        etc=str(tmp_path / "etc"),
        sys=str(tmp_path / "sys"),
        mountinfo=str(tmp_path / "mountinfo"),
        has_systemd=lambda: True,
        which=lambda name: f"/usr/bin/{name}",
    )
    object.__setattr__(made, "ran", [])
    return made


def tree(machine: Machine) -> dict[str, str]:
    """Every file of /etc and its text."""
    top = Path(machine.etc)
    return {str(p.relative_to(top)): p.read_text() for p in top.rglob("*") if p.is_file()}


def do(machine: Machine, *, undo: bool = False) -> list[str]:
    """Do all that is to be done; give what was told."""
    steps, notes = setup_steps.plan(ANN, undo=undo, host=machine)
    for step in steps:
        if not step.done:
            notes += step.do()
    return notes


def test_a_systemd_host_gets_a_drop_in_and_ids(machine: Machine) -> None:
    """Nothing is written before it is done; afterwards all is done, and undone nothing is left."""
    before = tree(machine)
    setup_steps.plan(ANN, host=machine)
    assert tree(machine) == before
    notes = do(machine)
    now = tree(machine)
    assert "Delegate=cpu cpuset io memory pids" in now[setup_steps.DROP_IN]
    assert now["subuid"] == now["subgid"] == "bob:100000:65536\nann:165536:65536\n"
    assert machine.ran[0] == ["systemctl", "daemon-reload"]
    assert any("logged out" in note for note in notes)
    assert all(step.done for step in setup_steps.plan(ANN, host=machine)[0])
    count = len(machine.ran)
    do(machine)
    assert (len(machine.ran), tree(machine)) == (count, now), "a second time there is nothing to do"
    do(machine, undo=True)
    assert tree(machine) == before
    assert setup_steps.plan(ANN, undo=True, host=machine)[0] == []


def test_ids_that_were_there_are_not_taken_away(machine: Machine) -> None:
    for name in ("subuid", "subgid"):
        Path(machine.etc, name).write_text("ann:300000:65536\n")
    before = tree(machine)
    do(machine)
    do(machine, undo=True)
    assert tree(machine) == before


def test_settings_against_user_namespaces_are_changed_and_put_back(machine: Machine) -> None:
    """Debian's old switch and Ubuntu's AppArmor: now, and for the next boot."""
    values = {
        "kernel/unprivileged_userns_clone": "0",
        "kernel/apparmor_restrict_unprivileged_userns": "1",
        "user/max_user_namespaces": "7000",
    }
    paths = {Path(machine.sys, name): value for name, value in values.items()}
    for path, value in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    do(machine)
    assert [path.read_text().strip() for path in paths] == ["1", "0", "7000"]
    kept = tree(machine)[setup_steps.SYSCTLS]
    assert "kernel.unprivileged_userns_clone = 1\n" in kept
    assert "max_user_namespaces" not in kept
    do(machine, undo=True)
    assert [path.read_text().strip() for path in paths] == list(values.values())
    assert setup_steps.SYSCTLS not in tree(machine)


def test_v1_hierarchies_get_a_directory_each(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Owned by the user, as are the files that move a process; the limits' files stay root's."""
    owned: dict[str, tuple[int, int]] = {}
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: owned.update({path: (uid, gid)}))
    lines = [
        f"3{i} 9 0:3{i} / {tmp_path}/{name} rw - cgroup cgroup rw,{name}\n"
        for i, name in enumerate(("memory", "pids", "devices"))
    ]
    Path(machine.mountinfo).write_text("".join(lines))
    for name in ("memory", "pids", "devices"):
        (tmp_path / name).mkdir()
    notes = do(machine)
    places = {f"{tmp_path}/{name}/nscontainer-1000" for name in ("memory", "pids")}
    assert {path for path in owned if "/nscontainer-1000/" not in path} == places
    assert {path.rsplit("/", 1)[1] for path in owned} == {
        "nscontainer-1000",
        "cgroup.procs",
        "tasks",
    }
    assert set(owned.values()) == {(1000, 1000)}
    assert any("reboot" in note for note in notes)
    do(machine, undo=True)
    assert not any(map(os.path.exists, places))


def test_who_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    for words, text in (
        ([], "who is to run"),
        (["root"], "root needs no"),
        (["no-such-user"], "no user 'no-such-user'"),
    ):
        with pytest.raises(SpecError, match=text):
            setup.setup_command(words)


def test_nothing_is_done_unasked(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It shows the file's text and the command; without an answer it leaves all as it is."""
    plan = setup_steps.plan
    monkeypatch.setattr(setup, "_person", lambda _name: ANN)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(
        setup_steps, "plan", lambda person, *, undo: plan(person, undo=undo, host=machine)
    )
    before = tree(machine)
    assert cli.main(["setup", "ann"]) == 1
    said = capsys.readouterr().out
    assert "Delegate=cpu cpuset io memory pids" in said
    assert "usermod --add-subuids 165536-231071 --add-subgids 165536-231071 ann" in said
    assert "nothing was done" in said
    assert cli.main(["setup", "ann", "--dry-run"]) == 0
    assert tree(machine) == before
    assert cli.main(["setup", "ann", "--yes"]) == 0
    record = json.loads(tree(machine)[setup_steps.RECORD])
    assert record["subids"]["ann"]["subuids"] == "165536-231071"
    capsys.readouterr()
    assert cli.main(["setup", "ann", "--yes"]) == 0
    assert capsys.readouterr().out.count("already") == 3
    assert cli.main(["setup", "ann", "--undo", "--yes"]) == 0
    assert tree(machine) == before


def test_only_root_may(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(setup, "_person", lambda _name: ANN)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli.main(["setup", "ann"]) == 1
    assert "sudo nscontainer setup ann" in capsys.readouterr().err
