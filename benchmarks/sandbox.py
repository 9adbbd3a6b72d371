"""Private places for what the benchmarks start: nothing of it shows on the machine or outlives us."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from benchmarks.peers import PeerError, need

CGROUPS = Path("/sys/fs/cgroup")
CGROUP_PARENT = f"nsc-bench-{os.getpid()}"
"""The parent of every cgroup that a peer makes; ours to remove."""


def prefix(*, pids: bool = False) -> list[str]:
    """Give the words before a command that put it into a mount namespace of its own.

    It dies with this process however that ends. With ``pids`` it is also the first process of a pid
    namespace, and everything it ever started dies with it: how a daemon is torn down for sure.
    """
    words = [need("setpriv"), "--pdeathsig", "KILL", need("unshare")]
    words += ["--mount", "--propagation", "private"]
    if pids:
        words += ["--pid", "--fork", "--kill-child", "--mount-proc"]
    return [*words, "--"]


def remove_cgroups(name: str = CGROUP_PARENT) -> None:
    """Remove the cgroups of that name, and those in them, from every hierarchy.

    Where processes of a peer are still about to end, it is tried again for two seconds.
    """
    deadline = time.monotonic() + 2.0
    hierarchies = [CGROUPS, *(path for path in CGROUPS.iterdir() if path.is_dir())]
    tops = [path / name for path in hierarchies if (path / name).is_dir()]
    while tops:
        for top in tops:
            for directory, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    Path(directory).rmdir()
        tops = [top for top in tops if top.exists()]
        if tops and time.monotonic() > deadline:
            message = f"a peer's cgroup can't be removed: {tops[0]}"
            raise PeerError(message)
        time.sleep(0.02 if tops else 0)


class Timer:
    """The process that starts peers and times them (:mod:`benchmarks.timer`)."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("timer.py")
        self._process = subprocess.Popen(
            [*prefix(), sys.executable, "-I", "-S", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        # crun 1.8.1 takes a host with v1 controllers *and* a cgroup2 mount that has one for a pure
        # v2 host, and gives up. It finds none in here.
        unified = CGROUPS / "unified"
        if (unified / "cgroup.controllers").exists():
            self._ask({"op": "unmount", "path": str(unified)})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def mount(self, overlay: dict[str, str]) -> None:
        """Mount an overlay that stays until this ends."""
        self._ask({"op": "mount", "overlay": overlay})

    def time(self, argv: list[str], *, overlay: dict[str, str] | None = None) -> float:
        """Run a command that must succeed.

        Returns
        -------
        float
            Nanoseconds from before its start until it was collected; with ``overlay`` from before
            that was mounted until it was unmounted.

        Raises
        ------
        PeerError
            It failed.
        """
        request: dict[str, Any] = {"op": "run", "argv": argv}
        if overlay is not None:
            request["overlay"] = overlay
        answer = self._ask(request)
        if answer["code"] != 0:
            last = answer["stderr"].strip().rpartition("\n")[2]
            message = f"{' '.join(argv[:3])} … ended with {answer['code']}: {last}"
            raise PeerError(message)
        return float(answer["ns"])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            message = f"the timing process ended with {self._process.wait()}"
            raise PeerError(message)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer
