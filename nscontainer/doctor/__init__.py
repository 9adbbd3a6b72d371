"""The doctor: tries for real what the engine needs, and says how to mend what is missing.

Everything is tried in child processes that leave nothing behind. On anything but Linux there is one
finding, and importing this module needs no more than the standard library anywhere.
"""

from __future__ import annotations

import json
import os
import platform as _platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from nscontainer.doctor.finding import Finding, Status, report, to_json, verdict
from nscontainer.doctor.mend import mend, places
from nscontainer.errors import HostError

__all__ = [
    "Finding",
    "Status",
    "examine",
    "explain_missing",
    "report",
    "require",
    "to_json",
    "verdict",
]

TIMEOUT_S: Final = 15.0
"""All trials together take about a tenth of a second on a healthy host."""

_PACKAGES: Final = {
    "IPython": "%%container, and rich output of cells",
    "pandas": "r.usage as a DataFrame",
    "matplotlib": "r.plot()",
    "pyarrow": "--usage FILE.parquet",
}


def examine(*, python: bool = True) -> list[Finding]:
    """Try everything.

    Parameters
    ----------
    python
        Whether to look at the Python packages too.

    Returns
    -------
    list of Finding
        The kernel's facilities first, in the order in which a container needs them.
    """
    return list(_examine(python=python))


def _examine(*, python: bool) -> Iterator[Finding]:
    if not sys.platform.startswith("linux"):
        yield _no_linux()
        return
    place = places()
    for seen in _probe():
        cause = seen.pop("cause", "")
        works = seen["status"] == "works"
        yield Finding(mend="" if works or not cause else mend(cause, place), **seen)
    if python:
        yield from _packages(place)


def _no_linux() -> Finding:
    system = {"darwin": f"macOS {_platform.mac_ver()[0]}".strip(), "win32": "Windows"}
    name = system.get(sys.platform, sys.platform)
    return Finding(
        name="Linux",
        status="missing",
        detail=f"this is {name}",
        why="containers are made of Linux's namespaces and cgroups",
        mend=mend("platform", places(platform=sys.platform)),
        needed=True,
    )


_CHILD: Final = (
    "import sys; sys.path.append(sys.argv[1]); from nscontainer.doctor import probe; "
    "sys.exit(probe.main())"
)


def _probe() -> Iterator[dict[str, object]]:
    """Run the trials in a process of their own and read what they saw."""
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    command = [sys.executable or "/usr/bin/python3", "-I", "-S", "-c", _CHILD, top]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            out, err = process.communicate(timeout=TIMEOUT_S)
            ended = f"ended with {process.returncode}"
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                out, err = process.communicate(timeout=2)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
            ended = f"took over {TIMEOUT_S:.0f} s"
    for line in out.decode(errors="replace").splitlines():
        try:
            yield dict(json.loads(line))
        except ValueError:
            ended = f"printed {line!r}"
    if ended != "ended with 0":
        last = (err.decode(errors="replace").strip().splitlines() or [""])[-1]
        detail = f"the doctor's own process {ended}" + (f": {last}" if last else "")
        yield {"name": "doctor", "status": "limited", "detail": detail}


def _packages(place: tuple[str, ...]) -> Iterator[Finding]:
    from importlib import metadata

    yield Finding(name="Python", status="works", detail=f"{_platform.python_version()}")
    for name, use in _PACKAGES.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(
                name=name,
                status="missing",
                detail="not installed",
                why=f"needed for {use}",
                mend=mend(f"python:{name.lower()}", place),
            )
        else:
            yield Finding(name=name, status="works", detail=version)


def explain_missing(findings: Sequence[Finding] | None = None) -> HostError | None:
    """Make the one error that says why no container can run here, and how to get there.

    Parameters
    ----------
    findings
        As :func:`examine` gave them; by default it is called.

    Returns
    -------
    HostError or None
        None where nothing that is needed is missing.
    """
    found = examine(python=False) if findings is None else findings
    lacking = [f for f in found if f.needed and f.status == "missing"]
    if not lacking:
        return None
    first = lacking[0]
    message = f"no container can run here: {first.name}: {first.detail}"
    if first.why:
        message += f"; {first.why}"
    more = len(lacking) - 1
    hint = first.mend or "nscontainer doctor"
    if more:
        hint += f"; nscontainer doctor shows {more} more"
    return HostError(message, hint=hint)


def require() -> None:
    """Raise :func:`explain_missing`'s error where containers can't run at all.

    Cheap where they can: only what can be told without trying is looked at; the trials run when
    that says no.

    Raises
    ------
    HostError
        What is missing, and how to get it.
    """
    if sys.platform.startswith("linux") and os.geteuid() == 0:
        return
    error = explain_missing()
    if error is not None:
        raise error
