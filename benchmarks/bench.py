"""What every benchmark is handed: how long to go on, and the peers, each started when first needed."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from pathlib import Path
from typing import Self

from benchmarks import peers, sandbox
from benchmarks.bundle import Bundle
from benchmarks.docker import Docker
from benchmarks.ours import Ours
from benchmarks.workload import Workload


class Bench:
    """One run of the benchmarks; leaving it takes down all that was started."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self.made: str | None = None
        """The directory of this run, if it needed one."""
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def rounds(self, full: int) -> int:
        """How many rounds to measure, of the number that a full run takes."""
        return max(5, full // 4) if self.quick else full

    @functools.cached_property
    def directory(self) -> Path:
        """A directory of this run; a container's user may look into it."""
        held = tempfile.TemporaryDirectory(prefix="nsc-bench-", ignore_cleanup_errors=True)
        top = Path(self._stack.enter_context(held))
        top.chmod(0o755)
        self.made = str(top)
        return top

    @functools.cached_property
    def timer(self) -> sandbox.Timer:
        """What peers are started by and timed with."""
        _ = self.directory  # made first, so removed last
        peers.install()
        self._stack.callback(sandbox.remove_cgroups)
        return self._stack.enter_context(sandbox.Timer())

    @functools.cached_property
    def docker(self) -> Docker:
        """A Docker daemon of our own."""
        _ = self.timer
        return self._stack.enter_context(Docker(self.directory / "docker"))

    @functools.cached_property
    def bridged_docker(self) -> Docker:
        """Another, in a network namespace of its own, where it has its bridge."""
        _ = self.timer
        return self._stack.enter_context(Docker(self.directory / "bridged", bridge=True))

    @functools.cached_property
    def bundle(self) -> Bundle:
        """What crun runs, equal to our ``run(["/bin/true"])``."""
        return self.new_bundle("bundle")

    def new_bundle(
        self,
        name: str,
        *,
        limits: bool = False,
        user_namespace: bool = True,
        fresh_overlay: bool = False,
    ) -> Bundle:
        """Make a bundle of another kind."""
        timer = self.timer
        return Bundle(
            self.directory / name,
            timer,
            limits=limits,
            user_namespace=user_namespace,
            fresh_overlay=fresh_overlay,
        )

    def ours(self, *, holding_bytes: int = 0, standby: bool = True) -> Ours:
        """Start a process that uses nscontainer; the caller leaves it."""
        return Ours(holding_bytes=holding_bytes, standby=standby)

    @functools.cached_property
    def workload(self) -> Workload:
        """The programs that burn CPU time."""
        return Workload(self.directory / "workload")
