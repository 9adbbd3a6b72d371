"""A process that stands for the user's notebook or script: it holds the warm library.

``python -m benchmarks.worker``: requests are lines of JSON on standard input, each answered by a
line. What the library or IPython print goes nowhere.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

PAGE = os.sysconf("SC_PAGE_SIZE")


class Worker:
    """What a request may ask for: the methods that begin with ``op_``."""

    def __init__(self) -> None:
        self.ballast = bytearray()
        self.shell: Any = None
        self.array: Any = None

    def op_hold(self, request: dict[str, Any]) -> dict[str, Any]:
        """Hold memory, every page of it touched and no two of them the same."""
        self.ballast = bytearray(int(request["bytes"]))
        for number, offset in enumerate(range(0, len(self.ballast), PAGE)):
            self.ballast[offset : offset + 4] = number.to_bytes(4, "little")
        with open("/proc/self/status", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        return {"rss_bytes": int(fields["VmRSS"].split()[0]) * 1024}

    def op_run(self, request: dict[str, Any]) -> dict[str, Any]:
        """``nscontainer.run``, from the call to its return."""
        import nscontainer

        argv, options = request["argv"], request.get("options", {})
        begin = time.perf_counter_ns()
        result = nscontainer.run(argv, **options)
        spent = time.perf_counter_ns() - begin
        if result.exit_code != 0:
            message = f"exit code {result.exit_code}: {result.stderr!r}"
            raise RuntimeError(message)
        return {"ns": spent}

    def op_cell(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run a cell with the magic, from the magic's call to its return."""
        self._need_shell()
        begin = time.perf_counter_ns()
        self.shell.run_cell_magic("container", request["line"], request["code"])
        return {"ns": time.perf_counter_ns() - begin}

    def op_first(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run a cell that prints, from the call until what it printed is here."""
        del request
        import nscontainer

        came: list[int] = []

        def heard(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream" and "hello" in message["content"]["text"]:
                came.append(time.perf_counter_ns())

        begin = time.perf_counter_ns()
        nscontainer.run_cell("print('hello')", on_message=heard, check=True)
        return {"ns": came[0] - begin}

    def op_flood(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run a cell that prints very much, from the call to its return."""
        import nscontainer

        begin = time.perf_counter_ns()
        result = nscontainer.run_cell(request["code"], check=True)
        spent = time.perf_counter_ns() - begin
        if not 0 < len(result.stdout) <= request["most"]:
            message = f"{len(result.stdout)} characters came"
            raise RuntimeError(message)
        return {"ns": spent}

    def op_piped(self, request: dict[str, Any]) -> dict[str, Any]:
        """Have another interpreter print the same into a pipe, and read it to its end."""
        begin = time.perf_counter_ns()
        size = 0
        command = [sys.executable, "-c", request["code"]]
        with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
            assert process.stdout is not None
            while data := process.stdout.read(1 << 16):
                size += len(data)
        spent = time.perf_counter_ns() - begin
        if size != request["most"]:
            message = f"{size} bytes came"
            raise RuntimeError(message)
        return {"ns": spent}

    def op_magic(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run a line of ``%container``."""
        self._need_shell()
        self.shell.run_line_magic("container", request["line"])
        return {}

    def op_notebook(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run a cell as the notebook does, whatever is in it."""
        self._need_shell()
        begin = time.perf_counter_ns()
        result = self.shell.run_cell(request["code"], store_history=True)
        spent = time.perf_counter_ns() - begin
        result.raise_error()
        return {"ns": spent}

    def _need_shell(self) -> None:
        if self.shell is None:
            from IPython.core.interactiveshell import InteractiveShell

            self.shell = InteractiveShell.instance()
            self.shell.extension_manager.load_extension("nscontainer")

    def op_values(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take an array somewhere (:mod:`benchmarks.values` says which steps there are)."""
        import numpy as np

        import nscontainer

        count = int(request["bytes"]) // 8
        # A virtual machine's first touch of memory takes ten times as long as filling it, and some give
        # free memory back within seconds. So nobody holds the array who doesn't need it, and before each
        # step more memory is touched than any of them takes.
        inside = request["what"] in ("made", "copied", "out")
        if inside:
            self.array = None
        elif self.array is None:
            self.array = np.ones(count)
        x = self.array
        np.ones(3 * count)
        make = f"import numpy; x = numpy.ones({count})"
        steps: dict[str, Callable[[], Any]] = {
            "copy": lambda: x.copy(),  # noqa: PLW0108  # there may be no x
            "sum": lambda: x.sum(),  # noqa: PLW0108
            "cell": lambda: nscontainer.run_cell("import numpy", check=True),
            "in": lambda: nscontainer.run_cell(
                "import numpy; x.sum()", inputs={"x": x}, check=True
            ),
            "made": lambda: nscontainer.run_cell(make, check=True),
            "copied": lambda: nscontainer.run_cell(make + "; y = x.copy()", check=True),
            "out": lambda: np.sum(
                nscontainer.run_cell(make, out={"x": "x"}, check=True).values["x"]
            ),
        }
        step = steps[request["what"]]
        begin = time.perf_counter_ns()
        kept = step()
        spent = time.perf_counter_ns() - begin
        del kept
        return {"ns": spent}

    def op_commit(self, request: dict[str, Any]) -> dict[str, Any]:
        """Commit a container that has written some bytes; say what this process read meanwhile."""
        import nscontainer
        from nscontainer import images

        count = int(request["bytes"])
        words = ["dd", "if=/dev/urandom", "of=/written", "bs=1000000", f"count={count // 1000000}"]
        held = nscontainer.run(["/bin/dd", *words[1:]], image=request["image"], detach=True)
        held.wait()
        before = _read_so_far()
        begin = time.perf_counter_ns()
        images.commit(held.name, request["name"])
        spent = time.perf_counter_ns() - begin
        after = _read_so_far()
        held.remove()
        return {"ns": spent, **{name: after[name] - before[name] for name in after}}

    def op_stages(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take a run apart: the set-up's own stages, and the calls that the user waits in."""
        from nscontainer.engine.container import Container
        from nscontainer.measure.result import RunResult
        from nscontainer.spec import build

        times = [time.perf_counter_ns()]

        def lap() -> None:
            times.append(time.perf_counter_ns())

        spec = build(request["argv"])
        lap()
        container = Container.create(spec, start=True)
        lap()
        record = container.drive()
        lap()
        RunResult.from_record(record, container.samples())
        lap()
        names = ("spec", "create", "drive", "result")
        parts = [later - earlier for earlier, later in itertools.pairwise(times)]
        return {
            "calls": dict(zip(names, parts, strict=True)),
            "stages": record["stages"],
            "wall_ns": record["wall_ns"],
            "ns": times[-1] - times[0],
        }


def _read_so_far() -> dict[str, int]:
    """Give what all threads of this process have read: by system calls, and from disks (proc(5))."""
    with open("/proc/self/io", encoding="ascii") as file:
        fields = dict(line.split(": ") for line in file)
    return {name: int(fields[name]) for name in ("rchar", "read_bytes")}


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        operation: Callable[[dict[str, Any]], dict[str, Any]]
        operation = getattr(worker, f"op_{request['op']}")
        try:
            answer = operation(request)
        except Exception as error:  # noqa: BLE001 - whatever it is, the benchmark tells it
            hint = getattr(error, "hint", None)
            answer = {"error": f"{type(error).__name__}: {error}" + (f" ({hint})" if hint else "")}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
