"""Made-up exit records and samples, as like the engine's as can be: no container is needed."""

from __future__ import annotations

import array
import dataclasses
import json
import math
import random
from collections.abc import Callable, Mapping
from typing import Any

from nscontainer import schema, spec
from nscontainer.measure import Provenance, RunResult

MIB = 1 << 20

Row = dict[str, int | None]


def reading(figures: Mapping[str, int | None] | None = None, *, fill: int | None = 0) -> list[int]:
    """A reading with ``figures``; the other columns are ``fill`` (None is NA)."""
    values = dict.fromkeys(schema.NAMES, fill) | {"cpu.quota": None} | dict(figures or {})
    assert len(values) == len(schema.NAMES), set(values) - set(schema.NAMES)
    return [schema.NA if values[n] is None else int(values[n] or 0) for n in schema.NAMES]


def sample_bytes(rows: list[tuple[int, int, list[int]]]) -> bytes:
    """(elapsed ns, took ns, reading) rows as the monitor writes them."""
    data = array.array("q")
    for elapsed, took, figures in rows:
        data.extend([elapsed, took, *figures])
    return data.tobytes()


def record(**changes: Any) -> dict[str, Any]:
    """An exit record of a command that did nothing and ended well after 1 s."""
    asked = changes.pop("asked", None) or spec.Limits()
    base: dict[str, Any] = {
        "id": "3f2a9c417b60",
        "name": "quiet-heron",
        "image": "host",
        "spec": spec.ContainerSpec(command=("true",), limits=asked).to_dict(),
        "start_mode": "exec",
        "created_unix": 1_750_000_000.0,
        "released_unix": 1_750_000_000.01,
        "released_ns": 5_000_000_000_000,
        "boot_id": "7d3bb1d8-4d3f-4c1c-9a9e-0f3a2c1b4e5d",
        "exit_code": 0,
        "signal": None,
        "exec_error": None,
        "oom_killed": False,
        "timed_out": None,
        "killed_by": None,
        "interrupted": 0,
        "wall_ns": 1_000_000_000,
        "baseline": reading(),
        "final": reading(),
        "limits_asked": dataclasses.asdict(asked),
        "limits_read_back": read_back(asked),
        "limit_changes": [],
        "isolation": {
            "namespaces": dict.fromkeys(spec.NAMESPACES, "private"),
            "user_map": [0, 100_000, 65_536],
            "rootfs": "overlay",
            "capabilities": ["CAP_CHOWN", "CAP_KILL"],
            "seccomp": "default",
            "no_new_privs": True,
            "network": "none",
            "notes": [],
        },
        "cgroup": {"version": "hybrid", "paths": {"cpu": "/nscontainer/3f2a9c417b60"}},
        "steal_ns": 1_000_000,
        "host_cpus": 2,
        "stages": [["clone", 1_000_000]],
        "setup_ns": 8_000_000,
        "missed_samples": 0,
        "sample_s": 0.02,
    }
    assert not set(changes) - set(base) - {"parents_quota", "network_shaping", "storage"}, changes
    return base | changes


def read_back(asked: spec.Limits) -> dict[str, Any]:
    """What a cgroup says that took exactly these limits."""
    memory = -1 if asked.memory_bytes is None else asked.memory_bytes
    return {
        "cpu_quota_us": -1 if asked.cpu_quota_us is None else asked.cpu_quota_us,
        "cpu_period_us": asked.cpu_period_us or spec.PERIOD_US,
        "cpu_burst_us": asked.cpu_burst_us or 0,
        "cpu_shares": asked.cpu_shares or 1024,
        "cpu_weight": None,
        "cpuset_cpus": asked.cpuset_cpus or "0-1",
        "memory_bytes": memory,
        "memory_swap_bytes": memory if asked.memory_swap_bytes is None else asked.memory_swap_bytes,
        "pids": -1 if asked.pids is None else asked.pids,
    }


class Spinner:
    """A busy loop under CFS bandwidth control, period by period, as Linux accounts it."""

    def __init__(self, quota: Callable[[float], float | None], threads: int = 1) -> None:
        self.quota, self.threads = quota, threads
        self.used = self.throttled = 0.0
        self.periods = self.nr_throttled = 0
        self._now = self._left = 0.0
        self._period_end = 0.0
        self._stood_since: float | None = None
        self._limited = True

    def finish(self) -> None:
        """Let it run on for the last time, as taking the quota off does."""
        if self._stood_since is not None:
            self.throttled += self._now - self._stood_since
            self._stood_since = None

    def advance(self, until: float, period: float = 0.1) -> None:
        """Go on to ``until`` (s), period by period."""
        while self._now < until - 1e-12:
            if self._now >= self._period_end - 1e-12:
                self._refresh(period)
            stop = min(until, self._period_end)
            quota = self.quota(self._now)
            if quota is not None and not self._limited:
                self._refresh(period)  # setting a quota begins a period
                stop = min(until, self._period_end)
            self._limited = quota is not None
            span = stop - self._now
            if quota is None:
                self.used += span * self.threads
            else:
                run = min(span, max(0.0, self._left / self.threads))
                self.used += run * self.threads
                self._left -= run * self.threads
                if run < span - 1e-12 and self._stood_since is None:
                    self._stood_since = self._now + run
                    self.nr_throttled += 1
            self._now = stop

    def _refresh(self, period: float) -> None:
        self.finish()  # Linux counts a stop when it lets it run on
        quota = self.quota(self._now)
        if quota is not None:
            self.periods += 1
            self._left = quota * period
        self._period_end = self._now + period


def _figures(
    spin: Spinner, quota: float | None, memory: int, peak: int, extra: Mapping[str, int]
) -> list[int]:
    cpu = round(spin.used * 1e9)
    return reading(
        {
            "cpuacct.usage": 5_000_000 + cpu,
            "cpuacct.usage_user": 3_000_000 + cpu * 97 // 100,
            "cpuacct.usage_sys": 2_000_000 + cpu * 3 // 100,
            "cpu.nr_periods": spin.periods,
            "cpu.nr_throttled": spin.nr_throttled,
            "cpu.throttled_time": round(spin.throttled * 1e9),
            "cpu.quota": None if quota is None else round(quota * 1e6),
            "memory.usage": memory,
            "memory.peak": peak,
            "memory.anon": memory * 7 // 10,
            "memory.file": memory * 2 // 10,
            "memory.working_set": memory * 9 // 10,
            "pids.current": 1,
            "pids.peak": 3,
            "net.rx_bytes": None,
            "net.tx_bytes": None,
            "net.rx_dropped": None,
            "net.tx_dropped": None,
            **extra,
        }
    )


def run(
    seconds: float = 5.0,
    *,
    quota: float | Callable[[float], float | None] | None = 0.2,
    sample_s: float = 0.02,
    period_s: float = 0.1,
    threads: int = 1,
    memory: Callable[[float], float] | None = None,
    oom_at: float | None = None,
    asked: spec.Limits | None = None,
    code: str
    | None = "import time\nt = time.monotonic()\nwhile time.monotonic() - t < 5:\n    pass\n",
    stdout: bytes = b"",
    outputs: list[dict[str, Any]] | None = None,
    provenance: Provenance | None = None,
    seed: int = 1,
    **changes: Any,
) -> RunResult:
    """A whole run of a busy loop: samples with jitter, baseline, final reading, record."""
    quota_at = quota if callable(quota) else lambda _t: quota
    first = quota_at(0.0)
    if asked is None:
        asked = spec.Limits(
            cpu_quota_us=None if first is None else round(first * period_s * 1e6),
            cpu_period_us=None if period_s == 0.1 else round(period_s * 1e6),
            memory_bytes=256 * MIB,
        )
    memory_at = memory or (lambda t: (9 + 3 * (1 - math.exp(-t * 4))) * MIB)
    jitter = random.Random(seed)
    spin = Spinner(quota_at, threads)
    peak = 0
    rows = []
    baseline = _figures(spin, None, round(memory_at(0)), round(memory_at(0)), {})
    rows.append((0, 45_000, baseline))
    t = sample_s
    while t < seconds - 1e-9:
        now = min(seconds - 1e-6, t + abs(jitter.gauss(0, 0.0003)))
        spin.advance(now, period_s)
        kills = int(oom_at is not None and now >= oom_at)
        used = round(memory_at(now))
        peak = max(peak, used)
        figures = _figures(spin, quota_at(now), used, peak, {"memory.oom_kill": kills})
        rows.append((round(now * 1e9), round(40_000 + 20_000 * jitter.random()), figures))
        t += sample_s
    spin.advance(seconds, period_s)
    spin.finish()
    final = _figures(
        spin,
        quota_at(seconds),
        2 * MIB,
        max(peak, baseline[schema.INDEX["memory.peak"]]),
        {"memory.oom_kill": int(oom_at is not None), "pids.current": 0},
    )
    rows.append((round(seconds * 1e9), 50_000, final))
    values = record(
        asked=asked,
        wall_ns=round(seconds * 1e9),
        baseline=baseline,
        final=final,
        start_mode="zygote" if code is not None else "exec",
        sample_s=sample_s,
    )
    if code is not None:
        values["spec"] = spec.ContainerSpec(limits=asked).to_dict()
    return RunResult.from_record(
        values | changes,
        sample_bytes(rows),
        stdout=stdout,
        outputs=outputs,
        code=code,
        provenance=provenance or host(),
    )


def flow(
    seconds: float,
    figures: Mapping[str, Callable[[float], float] | None],
    asked: spec.Limits,
    **changes: Any,
) -> RunResult:
    """A command's run with counters as they are at a time, whole readings each fifth row as the engine's."""

    def at(t: float) -> list[int]:
        return reading({n: None if f is None else round(f(t)) for n, f in figures.items()})

    rows = []
    for i in range(round(seconds / 0.02)):
        if i % 5 == 0:
            last = at(i * 0.02)
        rows.append((i * 20_000_000, 40_000, last))
    values = record(
        asked=asked, wall_ns=round(seconds * 1e9), baseline=at(0), final=at(seconds), **changes
    )
    return RunResult.from_record(values, sample_bytes(rows), provenance=host())


def host(**changes: Any) -> Provenance:
    """A host that is always the same."""
    values: dict[str, Any] = {
        "time_utc": "2025-06-15T15:06:40.010+00:00",
        "host": "lab-7",
        "machine": "x86_64",
        "system": "Debian GNU/Linux 12 (bookworm)",
        "linux": "6.18.0 #1 SMP",
        "cgroup_version": "hybrid",
        "cpu_model": "Intel(R) Xeon(R) Processor @ 2.90GHz",
        "cpus": 2,
        "cpus_allowed": 2,
        "governor": "performance",
        "transparent_hugepage": "madvise",
        "memory_bytes": 4096 * MIB,
        "swap_total_bytes": 0,
        "swap_used_bytes": 0,
        "load_1min": 0.42,
        "nscontainer": "0.1.0",
        "python": "CPython 3.11.2",
        "packages": {"numpy": "2.4.6", "pandas": "3.1.1"},
        "image": "host",
        "spec": json.loads(json.dumps(spec.ContainerSpec().to_dict())),
    }
    return Provenance(**(values | changes))
