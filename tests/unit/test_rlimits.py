"""Resource limits: names, what a process then has, and what is said where it can't."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nscontainer import limits
from nscontainer.linux import caps, rlimits


def in_child(action: Callable[[], Any]) -> Any:
    """Fork, and return what ``action`` gave in the child; errno and text where it raised."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        result: Any
        try:
            result = action()
        except OSError as error:
            result = [error.errno, error.filename, str(error)]
        except BaseException as error:  # noqa: BLE001 - goes to the parent
            result = f"{type(error).__name__}: {error}"
        os.write(into, json.dumps(result).encode())
        os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as file:
        text = file.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def drop_privileges() -> None:
    """Hold no capability: from here on a hard limit can only be lowered."""
    caps.capset(caps.CapSets(frozenset(), frozenset(), frozenset()))


def test_names() -> None:
    """The names are those that a --ulimit may have, sixteen, each with a number of its own."""
    assert rlimits.RESOURCES.keys() == limits.ULIMITS
    assert sorted(rlimits.RESOURCES.values()) == list(range(16))


@pytest.mark.parametrize("name", sorted(rlimits.RESOURCES))
def test_current_is_what_proc_says(name: str) -> None:
    """Each limit is the one that /proc/self/limits shows under its title."""
    titles = {
        "as": "Max address space",
        "core": "Max core file size",
        "cpu": "Max cpu time",
        "data": "Max data size",
        "fsize": "Max file size",
        "locks": "Max file locks",
        "memlock": "Max locked memory",
        "msgqueue": "Max msgqueue size",
        "nice": "Max nice priority",
        "nofile": "Max open files",
        "nproc": "Max processes",
        "rss": "Max resident set",
        "rtprio": "Max realtime priority",
        "rttime": "Max realtime timeout",
        "sigpending": "Max pending signals",
        "stack": "Max stack size",
    }
    (line,) = (
        line.removeprefix(titles[name]).split()
        for line in Path("/proc/self/limits").read_text().splitlines()
        if line.startswith(titles[name])
    )
    shown = tuple(-1 if word == "unlimited" else int(word) for word in line[:2])
    assert rlimits.current(name) == shown


@pytest.mark.parametrize("name", sorted(rlimits.RESOURCES))
def test_apply_lowers_any(name: str) -> None:
    """Each limit can be lowered and reads back as set."""
    hard = rlimits.current(name)[1]
    lower = 2**33 if hard == -1 else hard // 2
    soft = lower // 2

    def lower_it() -> list[int]:
        rlimits.apply(name, soft, lower)
        return list(rlimits.current(name))

    assert in_child(lower_it) == [soft, lower]


def test_unlimited_stays_unlimited() -> None:
    """-1 in, -1 out."""

    def set_core() -> list[int]:
        hard = rlimits.current("core")[1]
        rlimits.apply("core", hard, hard)
        return [hard, *rlimits.current("core")]

    hard, *after = in_child(set_core)
    assert after == [hard, hard]
    assert hard == -1 or hard >= 0


def test_the_limit_holds() -> None:
    """With room for few descriptors the next one is EMFILE."""

    def open_many() -> int:
        rlimits.apply("nofile", 20, 20)
        return len([os.dup(0) for _ in range(20)])

    assert in_child(open_many)[0] == errno.EMFILE


def test_apply_to_another_process() -> None:
    """A limit may be set from outside."""
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        rlimits.apply("core", 0, 0, pid=process.pid)
        assert rlimits.current("core", pid=process.pid) == (0, 0)
        process.communicate(b"\n")


def test_raising_the_hard_limit() -> None:
    """Without CAP_SYS_RESOURCE it is EPERM; the error has the limit, both values and the reason."""

    def raise_it() -> None:
        rlimits.apply("core", 0, 1000)
        drop_privileges()
        rlimits.apply("core", 0, -1)

    code, name, text = in_child(raise_it)
    assert (code, name) == (errno.EPERM, "RLIMIT_CORE")
    assert "raising the hard limit from 1000 to unlimited needs CAP_SYS_RESOURCE" in text


def test_more_files_than_the_kernel_allows() -> None:
    """Above fs.nr_open nobody may go: the error says so, not that a capability is missing."""
    nr_open = int(Path("/proc/sys/fs/nr_open").read_text())
    code, name, text = in_child(lambda: rlimits.apply("nofile", 10, nr_open + 1))
    assert (code, name) == (errno.EPERM, "RLIMIT_NOFILE")
    assert f"{nr_open + 1} is above fs.nr_open, {nr_open}" in text


@pytest.mark.parametrize(
    ("soft", "hard", "told"), [(20, 10, "20 is above hard limit 10"), (-1, 5, "unlimited is above")]
)
def test_soft_above_hard(soft: int, hard: int, told: str) -> None:
    """A soft limit above the hard one is EINVAL, with both values."""
    code, name, text = in_child(lambda: rlimits.apply("nofile", soft, hard))
    assert (code, name) == (errno.EINVAL, "RLIMIT_NOFILE")
    assert told in text


def test_no_such_limit() -> None:
    """A name that isn't one is a KeyError (the spec has refused it long before)."""
    with pytest.raises(KeyError):
        rlimits.apply("files", 1, 1)
    with pytest.raises(KeyError):
        rlimits.current("files")


def test_no_such_process() -> None:
    """A process that is gone is ESRCH."""
    with pytest.raises(OSError, match="prlimit") as caught:
        rlimits.apply("core", 0, 0, pid=2**22 - 1)
    assert caught.value.errno == errno.ESRCH


def test_python_3_15_infinity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where RLIM_INFINITY is 2**64 - 1 (Python 3.15), unlimited is still -1 here."""
    calls: list[tuple[int, int]] = []

    def prlimit(_pid: int, _number: int, limits: tuple[int, int] | None = None) -> tuple[int, int]:
        if limits is not None:
            calls.append(limits)
        return (7, 2**64 - 1)

    monkeypatch.setattr(resource, "RLIM_INFINITY", 2**64 - 1)
    monkeypatch.setattr(resource, "prlimit", prlimit)
    rlimits.apply("core", 7, -1)
    assert calls == [(7, 2**64 - 1)]
    assert rlimits.current("core") == (7, -1)
