"""What burns CPU time in a container: a small C program, or Python where there is no compiler."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

_SOURCE = Path(__file__).with_name("workload.c")
MOUNTED = "/opt/bench"
"""Where it is in the container."""

# The same program. Python's threads take turns, so its threads are processes as well.
_PYTHON = """
import os, sys, time
what, count = sys.argv[1], int(sys.argv[2])
def work(steps):
    x = 88172645463325252
    for _ in range(steps):
        x = (x ^ x << 13) & 0xffffffffffffffff
        x ^= x >> 7
        x = (x ^ x << 17) & 0xffffffffffffffff
if what == "steps":
    work(count // 50)
    sys.exit()
children = []
for _ in range(count - 1):
    pid = os.fork()
    if pid == 0:
        children = []
        break
    children.append(pid)
end = time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    work(100)
for pid in children:
    os.waitpid(pid, 0)
"""


class Workload:
    """The program, built once."""

    def __init__(self, top: Path) -> None:
        top.mkdir()
        compiler = shutil.which("cc") or shutil.which("gcc")
        self.program: list[str]
        if compiler is not None:
            built = [compiler, "-O1", "-pthread", "-o", str(top / "workload"), str(_SOURCE)]
            subprocess.run(built, check=True)
            self.program = [f"{MOUNTED}/workload"]
            self.kind = "C"
        else:
            (top / "workload.py").write_text(_PYTHON, encoding="utf-8")
            self.program = [sys.executable, "-I", "-S", f"{MOUNTED}/workload.py"]
            self.kind = "Python (no C compiler here), processes for threads"
        self.options: dict[str, Any] = {"volumes": [f"{top}:{MOUNTED}:ro"]}
        """What our container needs to have it."""

    def threads(self, count: int, seconds: float) -> list[str]:
        """Burn in so many threads for so long."""
        return [*self.program, "threads", str(count), str(seconds)]

    def processes(self, count: int, seconds: float) -> list[str]:
        """Burn in so many processes for so long."""
        return [*self.program, "processes", str(count), str(seconds)]

    def steps(self, count: int) -> list[str]:
        """Do a fixed piece of work: about 1.5 ns a step."""
        return [*self.program, "steps", str(count)]
