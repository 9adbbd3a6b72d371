"""Our side of a comparison: a worker process with the warm library in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent


class OursError(Exception):
    """Our own engine failed; the text says how."""


class Ours:
    """A process that uses nscontainer (:mod:`benchmarks.worker`), optionally one with much memory.

    Parameters
    ----------
    state
        Its state directory; None for the machine's own.
    standby
        Whether containers may be made ahead.
    become
        Gives a command by which another user executes the worker's.
    """

    def __init__(
        self,
        *,
        holding_bytes: int = 0,
        state: Path | None = None,
        standby: bool = True,
        become: Callable[[list[str]], list[str]] = list,
    ) -> None:
        place = {} if state is None else {"NSCONTAINER_STATE_DIR": str(state)}
        place |= {} if standby else {"NSCONTAINER_STANDBY": "0"}
        path = os.pathsep.join([str(ROOT), str(ROOT / "magics"), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            become([sys.executable, "-m", "benchmarks.worker"]),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep), **place},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.rss_bytes = 0
        if holding_bytes:
            self.rss_bytes = int(self.ask(op="hold", bytes=holding_bytes)["rss_bytes"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def run(self, argv: list[str], **options: Any) -> float:
        """``nscontainer.run``: nanoseconds."""
        return float(self.ask(op="run", argv=argv, options=options)["ns"])

    def cell(self, code: str, line: str = "") -> float:
        """``%%container`` with that cell: nanoseconds."""
        return float(self.ask(op="cell", line=line, code=code)["ns"])

    def values(self, what: str, size: int) -> float:
        """Copy or sum an array of ``size`` bytes, take it into a cell or out of one: nanoseconds."""
        return float(self.ask(op="values", what=what, bytes=size)["ns"])

    def ask(self, **request: Any) -> dict[str, Any]:
        """Ask the worker for something.

        Raises
        ------
        OursError
            It failed there.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            message = f"the worker ended with {self._process.wait()}"
            raise OursError(message)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise OursError(answer["error"])
        return answer
