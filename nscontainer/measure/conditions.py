"""What else the machine did during a run: read before and after, so that a reader can trust the figures."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The machine beside one run. None is what this host does not tell.

    Attributes
    ----------
    steal_share
        What the hypervisor took of all CPUs' time.
    other_cpus
        CPUs' worth of time that others had meanwhile: 0.5 is half of one CPU.
    thermal_throttles
        How many times a CPU was slowed down for its heat.
    governor
        CPU frequency governor of the first CPU.
    mhz
        Mean clock of the CPUs at the end.
    swap_in_pages, swap_out_pages
        Of the whole machine.
    load_1m
        Load average before.
    """

    steal_share: float | None = None
    other_cpus: float | None = None
    thermal_throttles: int | None = None
    governor: str | None = None
    mhz: float | None = None
    swap_in_pages: int | None = None
    swap_out_pages: int | None = None
    load_1m: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return them as plain JSON types; :meth:`from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Conditions:
        """Rebuild them from what :meth:`to_dict` gave; unknown names are left out."""
        return cls(**{f.name: plain[f.name] for f in fields(cls) if f.name in plain})


class Watch:
    """Reads the machine's counters when it is made, and again at :meth:`end`.

    Parameters
    ----------
    proc, sys
        Where procfs and sysfs are: trees that pose as them in tests.
    """

    def __init__(self, proc: str = "/proc", sys: str = "/sys") -> None:
        self._proc, self._cpus = proc, f"{sys}/devices/system/cpu"
        load = _text(f"{proc}/loadavg").split()
        self._load = float(load[0]) if load else None
        self._times, self._swaps, self._hot = self._stat(), self._swapped(), self._throttles()
        self._began = time.monotonic()

    def end(self, own_cpu_s: float | None = None, seconds: float | None = None) -> Conditions:
        """Give what happened since.

        Parameters
        ----------
        own_cpu_s
            CPU time that the run itself had, in s: the rest was others'. None is not known.
        seconds
            How long it was, in s; None goes by the clock.
        """
        passed = time.monotonic() - self._began if seconds is None else seconds
        steal = others = None
        if self._times is not None and (now := self._stat()) is not None:
            total, busy, stolen = (b - a for a, b in zip(self._times, now, strict=True))
            steal = max(0.0, stolen / total) if total > 0 else None
            if own_cpu_s is not None and passed > 0:
                # /proc/stat counts in ticks: a little less than nothing is nothing.
                others = max(0.0, (busy / os.sysconf("SC_CLK_TCK") - own_cpu_s) / passed)
        swaps = None
        if self._swaps is not None and (after := self._swapped()) is not None:
            swaps = tuple(b - a for a, b in zip(self._swaps, after, strict=True))
        hot = self._throttles()
        return Conditions(
            steal_share=steal,
            other_cpus=others,
            thermal_throttles=None if hot is None or self._hot is None else hot - self._hot,
            governor=_text(f"{self._cpus}/cpu0/cpufreq/scaling_governor").strip() or None,
            mhz=self._mhz(),
            swap_in_pages=None if swaps is None else swaps[0],
            swap_out_pages=None if swaps is None else swaps[1],
            load_1m=self._load,
        )

    def _stat(self) -> tuple[int, int, int] | None:
        """Give all CPUs' time, that which was used, and that which was stolen, in ticks (proc(5))."""
        words = _text(f"{self._proc}/stat").partition("\n")[0].split()
        if len(words) < 9 or words[0] != "cpu":
            return None
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, words[1:9])
        busy = user + nice + system + irq + softirq
        return busy + idle + iowait + steal, busy, steal

    def _swapped(self) -> tuple[int, int] | None:
        rows = dict(
            line.split(" ", 1) for line in _text(f"{self._proc}/vmstat").splitlines() if " " in line
        )
        if "pswpin" not in rows or "pswpout" not in rows:
            return None
        return int(rows["pswpin"]), int(rows["pswpout"])

    def _throttles(self) -> int | None:
        files = glob.glob(f"{self._cpus}/cpu[0-9]*/thermal_throttle/core_throttle_count")
        counts = [text for text in map(_text, files) if text.strip().isdigit()]
        return sum(map(int, counts)) if counts else None

    def _mhz(self) -> float | None:
        files = glob.glob(f"{self._cpus}/cpu[0-9]*/cpufreq/scaling_cur_freq")
        clocks = [int(t) / 1000 for t in map(_text, files) if t.strip().isdigit()]
        if not clocks:
            lines = _text(f"{self._proc}/cpuinfo").splitlines()
            clocks = [float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz")]
        return sum(clocks) / len(clocks) if clocks else None


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):  # not on this host
        return ""
