"""Whatever Linux refuses in a container's set-up: one clear error, and nothing is left behind."""

from __future__ import annotations

import errno
import os
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from nscontainer.doctor.table import ROWS
from nscontainer.engine.stages import STAGES
from tests import leaks
from tests.integration.inside import eventually, holdings
from tests.refusals import Call, Refused

pytestmark = [pytest.mark.root, pytest.mark.userns, pytest.mark.network, pytest.mark.once]

ERRNOS = [
    getattr(errno, name)
    for name in "EPERM EACCES ENOSPC EMFILE ENOSYS EINVAL ENOMEM EBUSY EROFS EIO".split()
]
OPTIONS: dict[str, Any] = {
    "network": "bridge", "memory": "64M", "cpu": "50%", "pids_limit": 50, "read_only": True,
    "volumes": ["/usr/share/doc:/d:ro"], "tmpfs": ["/t:size=1M"], "workdir": "/t",
    "ulimits": ["nofile=100"],
}  # fmt: skip
WITHOUT = {
    "state": "openat ioctl",  # Python's own look at a file
    "cgroup": "write",  # clone_children: each cpuset is filled by hand then
    "rootfs": "mount_setattr",  # no idmapped mount: the layer is given to the container's root
    "network": "ioctl",
    "clone": "openat ioctl",
    "identity": "setgroups",  # who has but one id may not; EPERM and EACCES alone
    "monitor": "ioctl",
    "gate": "openat ioctl write rename",  # the state file is for others to look at
    "confine": "openat ioctl prctl write",  # a capability that this Linux doesn't know
    "release": "ioctl sendto",
}
"""What the engine can do without, by stage; a refusal of anything else is an error."""


def left(top: Path, ids: set[str]) -> list[str]:
    """What is still there of these containers; the spawner's own scratch is not theirs."""
    files = [it for it in holdings(top) if not it.startswith("mnt/")]
    return files + [it for it in leaks.cgroups() if it.rpartition("/")[2] in ids]


def trouble(top: Path, owner: Refused, call: Call, code: int, told: set[str]) -> str | None:
    """Refuse a call; give what is wrong with what came of it, or None."""
    answer = owner.ask(["true"], refuse=call, code=code, **OPTIONS)
    if not eventually(lambda: not left(top, owner.ids)):
        return f"left behind: {left(top, owner.ids)}"
    if not owner.fired:
        return "was not called again"
    if answer.get("exit_code") == 0:
        return None if call.name in WITHOUT.get(call.stage, "").split() else "was not needed"
    if answer["kind"] in ("HostError", "SpecError"):  # what can be told better than by its stage
        told.add(call.stage)
        clear = os.strerror(code).lower() in answer["message"].lower()
        return None if clear and (answer["row"] in ROWS or answer["hint"]) else str(answer)
    if answer["row"] not in ROWS:
        return str(answer)
    if answer["op"] == "if_nametoindex":  # of which Python doesn't say why
        code = answer["errno"]
    told.add(str(answer["stage"]))
    said = answer["kind"], answer["errno"], bool(answer["op"]), answer["stage"]
    # The last that init does is to say that it is there, which is what the gate waits for.
    stages = {call.stage, "gate"} if call.name == "sendto" else {call.stage}
    return None if said[:3] == ("SetupError", code, True) and said[3] in stages else str(answer)


def test_any_call_of_the_set_up_is_refused(own_engine: Path) -> None:
    """The first call of each kind in each stage, each with another errno: the error says stage and errno."""
    with Refused(own_engine) as owner:
        for _ in range(2):  # the second time the network is there
            assert owner.ask(["true"], **OPTIONS) == {"exit_code": 0, "exec_error": None}
        calls = sorted({Call(it.stage, it.name) for it in owner.seen})
        assert {call.stage for call in calls} == set(STAGES)
        found, told = {}, set[str]()
        for call, code in zip(calls, cycle(ERRNOS), strict=False):
            if wrong := trouble(own_engine, owner, call, code, told):
                found[f"{call.stage} {call.name} {errno.errorcode[code]}"] = wrong
        assert found == {}
        assert told == set(STAGES)
        assert owner.ask(["true"], **OPTIONS)["exit_code"] == 0
