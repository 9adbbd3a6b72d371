"""Capabilities: names, Docker's arithmetic with them, and what a process then holds."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nscontainer.linux import caps, clone, prctl

HEADER = Path("/usr/include/linux/capability.h")


def in_child(action: Callable[[], Any]) -> Any:
    """Fork, and return what ``action`` gave in the child; an exception's text where it raised."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            result = action()
        except BaseException as error:  # noqa: BLE001 - goes to the parent
            result = f"{type(error).__name__}: {error}"
        os.write(into, json.dumps(result).encode())
        os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as file:
        text = file.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def status() -> dict[str, int]:
    """Read this process's capability sets from /proc: the kernel's own account of them."""
    text = Path("/proc/thread-self/status").read_text()
    return {
        key: int(mask, 16) for key, mask in re.findall(r"^(Cap\w+):\t(\w+)$", text, re.MULTILINE)
    }


def mask(*names: str) -> int:
    """Turn names into the mask that /proc shows."""
    return sum(1 << caps.NUMBERS[name] for name in names)


# --- names --------------------------------------------------------------------------------------


def test_names_and_numbers() -> None:
    """There are 41, and some that everybody knows have the numbers that everybody knows."""
    assert len(caps.NAMES) == len(set(caps.NAMES)) == 41
    known = {"CAP_CHOWN": 0, "CAP_SYS_ADMIN": 21, "CAP_SYS_RESOURCE": 24, "CAP_SETFCAP": 31}
    assert known.items() <= caps.NUMBERS.items()
    assert caps.NAMES[40] == "CAP_CHECKPOINT_RESTORE"


@pytest.mark.skipif(not HEADER.exists(), reason="no kernel headers here")
def test_numbers_are_the_kernel_headers() -> None:
    """linux/capability.h gives each name the same number."""
    found = re.findall(r"^#define (CAP_\w+)\s+(\d+)$", HEADER.read_text(), re.MULTILINE)
    assert {name: int(number) for name, number in found} == caps.NUMBERS


def test_docker_default() -> None:
    """Docker's fourteen."""
    assert len(caps.DOCKER_DEFAULT) == 14
    # The mask that /proc/1/status shows in a Docker container.
    assert mask(*caps.DOCKER_DEFAULT) == 0xA80425FB


DEFAULT = frozenset(caps.DOCKER_DEFAULT)
EVERYTHING = frozenset(caps.NAMES)


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ((), (), DEFAULT),
        (("NET_ADMIN",), (), DEFAULT | {"CAP_NET_ADMIN"}),
        (("cap_net_admin",), (), DEFAULT | {"CAP_NET_ADMIN"}),
        (("Net_Admin", "CAP_NET_ADMIN"), (), DEFAULT | {"CAP_NET_ADMIN"}),
        ((), ("chown", "CAP_KILL"), DEFAULT - {"CAP_CHOWN", "CAP_KILL"}),
        ((), ("SYS_ADMIN",), DEFAULT),
        ((), ("ALL",), frozenset()),
        (("chown",), ("all",), {"CAP_CHOWN"}),
        (("ALL",), (), EVERYTHING),
        (("all",), ("SYS_ADMIN", "bpf"), EVERYTHING - {"CAP_SYS_ADMIN", "CAP_BPF"}),
        (("ALL",), ("ALL",), EVERYTHING),
        (("ALL", "chown"), ("chown",), EVERYTHING - {"CAP_CHOWN"}),
        (("kill",), ("kill",), DEFAULT),
    ],
)
def test_add_and_drop(
    add: tuple[str, ...], drop: tuple[str, ...], expected: frozenset[str]
) -> None:
    """--cap-add and --cap-drop do what they do in Docker."""
    assert caps.parse_caps(add, drop) == expected


def test_another_base() -> None:
    """What is changed may be another set than Docker's."""
    assert caps.parse_caps((), ("KILL",), base=("kill", "CAP_BPF")) == {"CAP_BPF"}


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("SYS_ADMINN", "CAP_SYS_ADMIN"),
        ("netadmin", "CAP_NET_ADMIN"),
        ("CAP_ALL", ""),
        ("", ""),
        ("21", ""),
        ("CAP_CAP_CHOWN", "CAP_CHOWN"),
    ],
)
def test_unknown_names(text: str, hint: str) -> None:
    """An unknown name is a ValueError that quotes it and suggests the nearest."""
    with pytest.raises(ValueError, match=re.escape(repr(text))) as caught:
        caps.parse_caps((text,))
    assert hint in str(vars(caught.value)["hint"])
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        caps.parse_caps((), (text,))


def test_back_and_forth() -> None:
    """Names become numbers and names again; a number of the future has a name too."""
    assert caps.names(caps.numbers(EVERYTHING)) == EVERYTHING
    assert caps.names({63}) == {"CAP_63"}


# --- processes ----------------------------------------------------------------------------------


def test_capget_is_what_proc_says() -> None:
    """capget(2) and /proc agree, also about another process."""
    sets = caps.capget()
    proc = status()
    assert mask(*caps.names(sets.effective)) == proc["CapEff"]
    assert mask(*caps.names(sets.permitted)) == proc["CapPrm"]
    assert mask(*caps.names(sets.inheritable)) == proc["CapInh"]
    assert mask(*caps.names(caps.bounding())) == proc["CapBnd"]
    assert caps.capget(os.getpid()) == sets


def test_last_cap_is_what_proc_says() -> None:
    """Asking prctl(2) finds the same end as reading /proc."""
    assert caps.last_cap() == int(Path("/proc/sys/kernel/cap_last_cap").read_text())


KEPT = ("CAP_CHOWN", "CAP_KILL", "CAP_SETPCAP")


def apply_and_look() -> list[int]:
    """Apply a few capabilities, twice, and return what /proc then shows."""
    few = caps.numbers(KEPT)
    caps.apply(few, few)
    caps.apply(few, few)
    after = status()
    return [after[key] for key in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")]


@pytest.mark.root
def test_apply_as_root() -> None:
    """Effective, permitted and bounding become the given set; inheritable and ambient empty."""
    kept = mask(*KEPT)
    assert in_child(apply_and_look) == [kept, kept, kept, 0, 0]


def in_user_namespace(action: Callable[[], Any]) -> Any:
    """Run in a child that is alone in a new user namespace, with every capability there."""

    def enter() -> Any:
        clone.unshare(clone.CLONE_NEWUSER)
        return action()

    return in_child(enter)


@pytest.mark.userns
def test_apply_in_a_user_namespace() -> None:
    """The same in a user namespace, whose capabilities are its own."""
    kept = mask(*KEPT)
    assert in_user_namespace(apply_and_look) == [kept, kept, kept, 0, 0]


@pytest.mark.userns
def test_apply_without_setpcap() -> None:
    """CAP_SETPCAP itself may be dropped, and a second time asks for nothing that it would need."""

    def drop_all() -> list[int]:
        for _ in range(2):
            caps.apply(frozenset(), frozenset())
        after = status()
        return [after[key] for key in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")]

    assert in_user_namespace(drop_all) == [0, 0, 0, 0, 0]


@pytest.mark.userns
def test_what_is_dropped_is_gone_for_good() -> None:
    """A program executed by root afterwards has the bounding set and no more."""

    def execute() -> str:
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        few = caps.numbers(KEPT)
        caps.apply(few, few)
        with os.popen("grep ^CapEff /proc/self/status") as file:
            return file.read().split()[1]

    uid = os.geteuid()
    assert int(in_user_namespace(execute), 16) == mask(*KEPT)


@pytest.mark.userns
def test_the_ambient_set_is_emptied() -> None:
    """An ambient capability, which would survive an execve(2), does not survive apply."""

    def raise_and_apply() -> list[int]:
        one = caps.numbers({"CAP_CHOWN"})
        held = caps.capget()
        caps.capset(caps.CapSets(held.effective, held.permitted, one))
        prctl.prctl(prctl.PR_CAP_AMBIENT, 2, caps.NUMBERS["CAP_CHOWN"])
        before = status()["CapAmb"]
        caps.apply(held.effective, caps.bounding(), one)
        return [before, status()["CapAmb"], status()["CapInh"]]

    assert in_user_namespace(raise_and_apply) == [mask("CAP_CHOWN"), 0, mask("CAP_CHOWN")]


def test_capset_names_what_is_not_held() -> None:
    """Asking for what isn't permitted is EPERM, and the error says which it was."""

    def ask_again() -> None:
        caps.capset(caps.CapSets(frozenset(), frozenset(), frozenset()))
        caps.apply(caps.numbers({"CAP_SYS_TIME", "CAP_BPF"}), caps.bounding())

    text = in_child(ask_again)
    assert f"capset: [Errno {errno.EPERM}]" in text
    assert "CAP_BPF, CAP_SYS_TIME not held" in text


def test_apply_is_quick() -> None:
    """Some fifty calls in all: well under a millisecond each way, so of no weight in a start."""

    def measure() -> float:
        started = time.perf_counter()
        keep = caps.capget().permitted & caps.numbers(caps.DOCKER_DEFAULT)
        held = caps.bounding()
        caps.apply(keep, held & keep if caps.NUMBERS["CAP_SETPCAP"] in keep else held)
        return time.perf_counter() - started

    assert min(in_child(measure) for _ in range(5)) < 0.01


# --- prctl --------------------------------------------------------------------------------------


def test_no_new_privs() -> None:
    """It is set, and stays."""

    def set_it() -> bool:
        prctl.set_no_new_privs()
        return prctl.get_no_new_privs()

    assert in_child(set_it) is True


def test_dumpable() -> None:
    """A process that isn't dumpable says so, and may become so again."""

    def change() -> list[bool]:
        seen = [prctl.get_dumpable()]
        for value in (False, True):
            prctl.set_dumpable(value)
            seen.append(prctl.get_dumpable())
        return seen

    assert in_child(change) == [True, False, True]


def test_name() -> None:
    """The thread's name is what /proc calls it, cut at 15 bytes."""

    def rename() -> str:
        prctl.set_name("nscontainer: monitor")
        return Path("/proc/self/comm").read_text().rstrip()

    assert in_child(rename) == "nscontainer: mo"


def test_pdeathsig() -> None:
    """A grandchild whose parent ends gets the signal it asked for."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            prctl.set_pdeathsig(9)
            os.write(into, b"ready")
            time.sleep(30)
            os.write(into, b"alive")
            os._exit(0)
        os.read(out, 5)
        os._exit(0)
    os.waitpid(child, 0)
    os.close(into)
    started = time.monotonic()
    with os.fdopen(out, "rb") as file:
        assert file.read() == b""
    assert time.monotonic() - started < 10


def test_child_subreaper() -> None:
    """An orphan goes to the nearest subreaper above it."""

    def adopt() -> int:
        prctl.set_child_subreaper(True)
        out, into = os.pipe()
        if (child := os.fork()) == 0:
            if (grandchild := os.fork()) == 0:
                os._exit(5)
            os.write(into, str(grandchild).encode())
            os._exit(0)
        os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(os.waitpid(int(os.read(out, 20)), 0)[1])

    assert in_child(adopt) == 5


@pytest.mark.root
def test_keepcaps() -> None:
    """A change of uid takes the permitted capabilities away, unless asked not to."""

    def change(*, keep: bool) -> int:
        prctl.set_keepcaps(keep)
        os.setresuid(65534, 65534, 65534)
        return len(caps.capget().permitted)

    assert in_child(lambda: change(keep=False)) == 0
    assert in_child(lambda: change(keep=True)) == len(caps.capget().permitted)


def test_prctl_refuses() -> None:
    """An option that isn't one is a KernelError that names the call."""
    with pytest.raises(OSError, match=rf"prctl: \[Errno {errno.EINVAL}\]"):
        prctl.prctl(-1)
