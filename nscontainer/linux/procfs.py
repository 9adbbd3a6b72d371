"""What /proc says: mounts, processes, the host's CPU time (proc(5))."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_OCTAL = re.compile(r"\\([0-7]{3})")
USER_HZ: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One line of /proc/PID/mountinfo."""

    id: int
    parent: int
    device: str
    root: str
    target: str
    fstype: str
    source: str


def mountinfo(path: str = "/proc/self/mountinfo") -> list[MountPoint]:
    """Read the mounts of a process's namespace, in the kernel's order."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return [_mount_point(line) for line in file]


def _mount_point(line: str) -> MountPoint:
    before, _, after = line.partition(" - ")
    ids = before.split()
    fstype, source = after.split()[:2]
    return MountPoint(
        id=int(ids[0]),
        parent=int(ids[1]),
        device=ids[2],
        root=_unescape(ids[3]),
        target=_unescape(ids[4]),
        fstype=fstype,
        source=_unescape(source),
    )


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text) if "\\" in text else text


@functools.cache
def boot_id() -> str:
    """Give the id of this boot: a time of CLOCK_MONOTONIC means something within one only (random(4))."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def status(pid: int) -> dict[str, str]:
    """Read /proc/PID/status as a mapping; empty where the process is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}
    except (FileNotFoundError, ProcessLookupError):
        return {}


def handles_signal(pid: int, sig: int) -> bool:
    """Tell whether a process handles or ignores a signal (SigCgt, SigIgn), or doesn't exist."""
    facts = status(pid)
    masks = [int(facts[key], 16) for key in ("SigCgt", "SigIgn") if key in facts]
    return not masks or any(mask >> (sig - 1) & 1 for mask in masks)


def start_time(pid: int) -> int | None:
    """Read when a process began, in clock ticks since boot: it tells a reused pid; None if gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[19])


def steal_ns() -> int:
    """Read the CPU time the hypervisor gave to others, all CPUs together, in ns since boot."""
    with open("/proc/stat", "rb") as file:
        fields = file.readline().split()
    return int(fields[8]) * (1_000_000_000 // USER_HZ) if len(fields) > 8 else 0


def processes(pids: list[int]) -> Iterator[dict[str, object]]:
    """Describe processes as ``top`` lists them, those that are gone left out."""
    page = os.sysconf("SC_PAGE_SIZE")
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                head, _, tail = file.read().rpartition(b")")
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                command = file.read().rstrip(b"\0").replace(b"\0", b" ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = tail.split()
        name = head.partition(b"(")[2]
        facts = status(pid)
        yield {
            "pid": pid,
            "pid_inside": int(facts.get("NSpid", str(pid)).split()[-1]),
            "ppid": int(fields[1]),
            "user": int(facts.get("Uid", "0").split()[0]),
            "state": fields[0].decode(),
            "cpu_s": (int(fields[11]) + int(fields[12])) / USER_HZ,
            "rss_bytes": int(fields[21]) * page,
            "command": (command or b"[" + name + b"]").decode(errors="replace"),
        }
