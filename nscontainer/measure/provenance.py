"""Where a figure comes from: host, Linux, Python, packages, the spec and the code itself.

Collected for every run, so it must cost next to nothing: what can't change in a process is read
once, the packages again only after something was installed.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from nscontainer.measure.text import text_of
from nscontainer.units import format_size


@dataclass(frozen=True, kw_only=True, repr=False)
class Provenance:
    """What a run ran on and what it was. None is what this host does not tell.

    Attributes
    ----------
    time_utc
        When the user's code was let go, ISO 8601.
    cpus, cpus_allowed
        The host's, and those that the process that ran it could use.
    governor
        CPU frequency governor of the first CPU.
    python, packages
        The interpreter, and name → version of each package that a cell could import; None and none in
        an image that is not this machine's system, whose own they are.
    image_digest
        The image's id, the digest of its configuration. None for the ``host`` image: the machine
        itself has none.
    image_layers
        The digests of its layers' contents (diffIDs), base first: those on the host, of an image that
        stands on it.
    spec
        :meth:`nscontainer.spec.ContainerSpec.to_dict`, to run it again.
    """

    time_utc: str | None = None
    host: str | None = None
    machine: str | None = None
    system: str | None = None
    linux: str | None = None
    cgroup_version: str | None = None
    cpu_model: str | None = None
    cpus: int | None = None
    cpus_allowed: int | None = None
    governor: str | None = None
    transparent_hugepage: str | None = None
    memory_bytes: int | None = None
    swap_total_bytes: int | None = None
    swap_used_bytes: int | None = None
    load_1min: float | None = None
    nscontainer: str | None = None
    python: str | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    image: str | None = None
    image_digest: str | None = None
    image_layers: tuple[str, ...] = ()
    spec: Mapping[str, Any] = field(default_factory=dict)
    code: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types; :meth:`from_dict` reads it back."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return plain | {"image_layers": list(self.image_layers)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Provenance:
        """Rebuild it; keys of another version are left out."""
        names = {f.name for f in dataclasses.fields(cls)}
        values = {k: v for k, v in plain.items() if k in names}
        return cls(**values | {"image_layers": tuple(values.get("image_layers") or ())})

    def rows(self) -> list[tuple[str, str]]:
        """Give it as (what, which) pairs for a table, fit to be shown; no packages, spec or code."""
        swap = None
        if self.swap_total_bytes is not None:
            used = format_size(self.swap_used_bytes)
            swap = (
                f"{used} of {format_size(self.swap_total_bytes)}"
                if self.swap_total_bytes
                else "none"
            )
        load = None if self.load_1min is None else f"{self.load_1min:.2f}"
        pairs = [
            ("time", self.time_utc),
            ("host", self.host),
            ("system", self.system),
            ("Linux", self.linux),
            ("machine", self.machine),
            ("CPU", self.cpu_model),
            ("CPUs", _cpus_text(self.cpus, self.cpus_allowed)),
            ("governor", self.governor),
            ("load (1 min)", load),
            ("memory", None if self.memory_bytes is None else format_size(self.memory_bytes)),
            ("swap in use", swap),
            ("transparent huge pages", self.transparent_hugepage),
            ("cgroup", self.cgroup_version),
            ("nscontainer", self.nscontainer),
            ("Python", self.python),
            ("packages", str(len(self.packages)) if self.packages else None),
            ("image", self.image),
            ("image digest", self.image_digest),
            ("image layers", str(len(self.image_layers)) if self.image_layers else None),
        ]
        return [(what, text_of(which)) for what, which in pairs if which is not None]

    def __repr__(self) -> str:
        rows = self.rows()
        wide = max((len(what) for what, _ in rows), default=0)
        return "\n".join(f"{what:<{wide}}  {which}" for what, which in rows) or "no provenance"


def recorded(on: Provenance) -> str:
    """Say where and when something was recorded: ``recorded on HOST (Linux 6.1.0) on 2026-11-29``."""
    release = (on.linux or "").split(" ")[0]
    host = (on.host or "an unnamed host") + (f" (Linux {release})" if release else "")
    return f"recorded on {text_of(host)} on {(on.time_utc or 'an unknown day')[:10]}"


def collect(record: Mapping[str, Any], code: str | None) -> Provenance:
    """Describe this host as it is now, and the run of this exit record on it."""
    started = record["released_unix"] or record["created_unix"] or time.time()
    memory = _meminfo()
    packages = _packages(tuple((record["spec"] or {}).get("python_path") or sys.path))
    free = memory.get("SwapFree")
    total = memory.get("SwapTotal")
    static = _static()
    elsewhere = record.get("on_host") is False  # with a Python of its own, or none
    return Provenance(
        **static | ({"python": None} if elsewhere else {}),
        time_utc=datetime.fromtimestamp(started, UTC).isoformat(timespec="milliseconds"),
        cgroup_version=(record["cgroup"] or {}).get("version"),
        cpus_allowed=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        governor=_word("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        transparent_hugepage=_bracketed(_word("/sys/kernel/mm/transparent_hugepage/enabled")),
        memory_bytes=memory.get("MemTotal"),
        swap_total_bytes=total,
        swap_used_bytes=None if total is None or free is None else total - free,
        load_1min=_load(),
        nscontainer=packages.get("nscontainer") or _own_version(),
        packages={} if elsewhere else packages,
        image=record["image"],
        image_digest=record.get("image_id"),
        image_layers=tuple(record.get("diff_ids") or ()),
        spec=record["spec"] or {},
        code=code,
    )


def _cpus_text(cpus: int | None, allowed: int | None) -> str | None:
    if cpus is None or allowed is None or cpus == allowed:
        return None if cpus is None else str(cpus)
    return f"{allowed} of {cpus} allowed"


@functools.cache
def _static() -> dict[str, Any]:
    names = os.uname()
    return {
        "host": names.nodename,
        "machine": names.machine,
        "linux": f"{names.release} {names.version}" if names.sysname == "Linux" else None,
        "system": _system() or names.sysname,
        "cpu_model": _cpu_model(),
        "cpus": os.cpu_count(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _read(path: str, size: int = 4096) -> str | None:
    # One short read: /proc/cpuinfo of a large machine is slow to make, and its first CPU will do.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, size).decode(errors="replace")
    except OSError:
        return None
    finally:
        os.close(fd)


def _word(path: str) -> str | None:
    return (_read(path) or "").strip() or None


def _bracketed(text: str | None) -> str | None:
    """Give the choice that is on in ``always [madvise] never``."""
    return text.partition("[")[2].partition("]")[0] or None if text else None


def _keyed(text: str | None, separator: str) -> dict[str, str]:
    pairs = (line.partition(separator)[::2] for line in (text or "").splitlines())
    result: dict[str, str] = {}
    for key, value in pairs:
        result.setdefault(key.strip(), value.strip().strip('"'))
    return result


def _system() -> str | None:
    return _keyed(_read("/etc/os-release"), "=").get("PRETTY_NAME")


def _cpu_model() -> str | None:
    cpuinfo = _keyed(_read("/proc/cpuinfo"), ":")
    for key in ("model name", "cpu model", "Model", "Hardware", "cpu"):
        if cpuinfo.get(key):
            return cpuinfo[key]
    board = _word("/sys/firmware/devicetree/base/model")
    return board.rstrip("\0") if board else None


def _meminfo() -> dict[str, int]:
    """Give the host's figures in bytes."""
    result = {}
    for key, value in _keyed(_read("/proc/meminfo"), ":").items():
        number = value.removesuffix(" kB")
        if number.isdigit():
            result[key] = int(number) * 1024
    return result


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _own_version() -> str | None:
    version = getattr(sys.modules.get("nscontainer"), "__version__", None)
    return None if version is None else str(version)


def _packages(path: tuple[str, ...]) -> dict[str, str]:
    """Give name → version of what can be imported from ``path``, as installed.

    From the names of the metadata folders alone (PEP 376, ``name-version.dist-info``): importing
    importlib.metadata and parsing each METADATA took 100 times as long.
    """
    stamps = []
    for entry in path:
        try:
            stamps.append((entry, os.stat(entry or ".").st_mtime_ns))
        except OSError:
            continue
    return dict(_installed(tuple(stamps)))


@functools.lru_cache(maxsize=4)
def _installed(stamps: tuple[tuple[str, int], ...]) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for entry, _ in stamps:
        try:
            names = os.listdir(entry or ".")
        except OSError:
            continue
        for name in names:
            stem, dot, kind = name.rpartition(".")
            project, dash, version = stem.partition("-")
            if dot and dash and kind in ("dist-info", "egg-info"):
                # An egg-info's version may have "-py3.11" after it. The first in the path wins.
                found.setdefault(project, version.partition("-")[0])
    return tuple(sorted(found.items(), key=lambda item: item[0].lower()))
