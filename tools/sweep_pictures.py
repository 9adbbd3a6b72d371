"""Make the pictures of docs/experiments.md and the README's of sweeps, from real runs (needs root).

``python tools/sweep_pictures.py [DIRECTORY]``; it takes some three minutes on a quiet machine.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import nscontainer

OUT = Path(__file__).resolve().parent.parent / "docs" / "images"
WORK = """\
total = 0
for i in range(6_000_000):
    total += i * i
"""
GROW = """\
import time
kept = []
for _ in range(12):
    kept.append(b"x" * (8 << 20))
    time.sleep(0.05)
"""
THREADS = """\
import hashlib
from concurrent.futures import ThreadPoolExecutor
data = b"x" * (1 << 20)
def work(_):
    hashlib.sha256(data).digest()
with ThreadPoolExecutor(threads) as pool:
    list(pool.map(work, range(400)))
"""
SIZES = """\
import hashlib
for _ in range(n):
    hashlib.sha256(b"x" * (1 << 20)).digest()
"""


def main() -> int:
    """Run the sweeps and save their pictures."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    out.mkdir(parents=True, exist_ok=True)
    quotas = _sweep(WORK, cpu=["10%", "20%", "50%", "100%"], repeat=5)
    _both(quotas, out / "cpu-quotas.png")
    one = _sweep(WORK, cpu=["20%"], repeat=3, sample="5ms")
    _save(one.plot("throttling"), out / "sweep-throttling.png")
    memory = _sweep(GROW, memory=["64M", "96M", "128M", None], repeat=3)
    _save(memory.plot("memory"), out / "sweep-memory.png")
    two = _sweep(SIZES, cpu=["20%", "50%", "100%"], params={"n": [50, 100, 200]}, repeat=3)
    _save(two.plot("heatmap"), out / "sweep-heatmap.png")
    threads = _sweep(THREADS, cpu="150%", params={"threads": [1, 2, 3, 4]}, repeat=5)
    _save(threads.plot("scaling"), out / "sweep-scaling.png")
    return 0


def _sweep(code: str, **options: Any) -> nscontainer.Sweep:
    # A fixed seed: the same order each time that the pictures are made.
    return nscontainer.sweep(code, seed=1, resume=False, **({"sample": "20ms"} | options))


def _both(made: nscontainer.Sweep, path: Path) -> None:
    """Draw the CPU use beside the speed, under one title."""
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    axes = figure.subplots(1, 2)
    made.plot("quota", axes[0])
    made.plot("speed", axes[1])
    figure.savefig(path, dpi=80)


def _save(axis: Any, path: Path) -> None:
    axis.figure.savefig(path, dpi=72)


if __name__ == "__main__":
    sys.exit(main())
