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

from nscontainer.doctor.finding import Finding, Status, at_length, chosen, report, to_json, verdict
from nscontainer.doctor.mend import CONFINED, mend, places
from nscontainer.doctor.seen import Seen
from nscontainer.errors import HostError, NsContainerError, SetupError

__all__ = [
    "Finding",
    "Status",
    "at_length",
    "chosen",
    "examine",
    "explain",
    "explain_missing",
    "report",
    "require",
    "to_json",
    "verdict",
]

TIMEOUT_S: Final = 90.0
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
        yield Finding(
            name=seen.name,
            status=seen.status,
            detail=seen.detail,
            why=seen.why,
            mend=_mend(seen, place) if seen.status != "works" else "",
            needed=seen.needed,
            cause=seen.cause if seen.status != "works" else "",
        )
    if python:
        yield from _packages(place)


def _mend(seen: Seen, place: tuple[str, ...]) -> str:
    if seen.mend and not (seen.cause and CONFINED & {*place}):
        return seen.mend
    return mend(seen.cause, place) if seen.cause else ""


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
        cause="platform",
    )


_CHILD: Final = (
    "import sys; sys.path.append(sys.argv[1]); from nscontainer.doctor import probe; "
    "sys.exit(probe.main())"
)


def _probe() -> Iterator[Seen]:
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
            yield Seen(**json.loads(line))
        except (ValueError, TypeError):
            ended = f"printed {line!r}"
    if ended != "ended with 0":
        last = (err.decode(errors="replace").strip().splitlines() or [""])[-1]
        detail = f"the doctor's own process {ended}" + (f": {last}" if last else "")
        yield Seen("doctor", "limited", detail)


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


def explain_missing(findings: Sequence[Finding] | None = None) -> HostError:
    """Make the one error that says why no container can run here, and how to get there.

    Parameters
    ----------
    findings
        As :func:`examine` gave them; by default it is called.

    Returns
    -------
    HostError
        It names the first thing missing; where nothing that is needed is, it says so.
    """
    found = examine(python=False) if findings is None else findings
    lacking = _lacking(found)
    if not lacking:
        message = "the doctor finds nothing missing that a container needs"
        return HostError(message, hint="nscontainer doctor shows what was tried")
    first = lacking[0]
    message = f"no container can run here: {first.name}: {first.detail}"
    if first.why:
        message += f"; {first.why}"
    hint = first.mend or "nscontainer doctor"
    if len(lacking) > 1:
        hint += f"; nscontainer doctor shows {len(lacking) - 1} more"
    return HostError(message, hint=hint)


def _lacking(findings: Sequence[Finding]) -> list[Finding]:
    return [f for f in findings if f.needed and f.status == "missing"]


def explain(error: NsContainerError) -> NsContainerError:
    """Give the doctor's error in place of the engine's, where the host is at fault.

    An engine that was refused something knows the system call; why it was refused, and how to mend
    that on this kind of host, is the doctor's to say.
    """
    if not isinstance(error, (HostError, SetupError)):
        return error
    if isinstance(error, HostError) and (error.row or "").startswith(("cgroup", "controller")):
        return error  # a limit that can't be had: it says itself why, and containers run without
    findings = examine(python=False)
    if not _lacking(findings):
        return error
    explained = explain_missing(findings)
    explained.__cause__ = error
    return explained


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
    findings = examine(python=False)
    if _lacking(findings):
        raise explain_missing(findings)
