"""What a run of the benchmarks could leave on the machine, looked for when all is taken down."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.sandbox import CGROUP_PARENT, CGROUPS

MARK = "NSC_BENCH_MARK"
"""In the environment of every process that a run starts, and of whatever those start."""
SETTLE_S = 3.0


class Residue:
    """Looks at the machine before, and says what has come since and is the run's own."""

    def __init__(self) -> None:
        self.mark = f"{os.getpid()}-{time.time_ns()}"
        os.environ[MARK] = self.mark
        self._interfaces = set(os.listdir("/sys/class/net"))

    def left(self, directory: str | None) -> list[str]:
        """Name what is left, one line each, after giving the last ones time to go."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            found = [*self._found(directory)]
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.1)

    def _found(self, directory: str | None) -> Iterator[str]:
        for parent, folders, _ in os.walk(CGROUPS):
            if CGROUP_PARENT in folders:
                yield f"cgroup {parent}/{CGROUP_PARENT}"
        if directory is not None:
            if Path(directory).exists():
                yield f"directory {directory}"
            for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
                if directory in line:
                    yield f"mount {line.split()[4]}"
        for name in sorted(set(os.listdir("/sys/class/net")) - self._interfaces):
            yield f"interface {name} (or another program's)"
        yield from self._processes()

    def _processes(self) -> Iterator[str]:
        wanted = f"{MARK}={self.mark}".encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    name = (entry / "comm").read_text(encoding="utf-8", errors="replace").strip()
                    yield f"process {entry.name} {name}"
            except OSError:  # it has gone, or isn't ours to read
                continue
