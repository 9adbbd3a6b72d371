"""Recordings: what a notebook's cells gave, kept in a folder, and shown where no container can run.

``NSCONTAINER_RECORD=DIR`` has each ``%%container`` cell and each sweep leave its result in DIR.
``NSCONTAINER_REPLAY=DIR`` has them shown again on a machine that can't run containers (macOS, a pod of
Binder's), marked as what they are; with ``NSCONTAINER_REPLAY_ALWAYS=1`` on any machine. A recording is
found by what was asked: the code and the options as written, never by where that was.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nscontainer.errors import HostError
from nscontainer.experiment.plan import Plan, Work
from nscontainer.measure import provenance

if TYPE_CHECKING:
    from nscontainer.experiment.sweep import Sweep
    from nscontainer.measure.result import RunResult

RECORD: Final = "NSCONTAINER_RECORD"
REPLAY: Final = "NSCONTAINER_REPLAY"
ALWAYS: Final = "NSCONTAINER_REPLAY_ALWAYS"
_HERE: Final = ("python_path", "workdir")
"""What says where a cell ran: the same one elsewhere is the same cell."""


def cell(
    code: str,
    options: Mapping[str, Any],
    *,
    program: tuple[str, ...] | None = None,
    variables: Iterable[str] = (),
) -> Plan:
    """Describe one cell as what a recording is found by.

    Parameters
    ----------
    code
        As written.
    options
        Keyword arguments of :func:`nscontainer.spec.build`, as written.
    program
        What reads it, where it isn't Python.
    variables
        What it takes from the notebook, by name: their values may differ from machine to machine.
    """
    kind = "cell" if program is None else "script"
    work = Work(kind=kind, code=code, command=program, name=",".join(sorted(variables)) or None)  # type: ignore[arg-type]
    return Plan(work=work, factors=(), options=options)


# --- keeping ---------------------------------------------------------------------------------


def recording() -> Path | None:
    """Give the folder that recordings go to, None where none is asked for."""
    folder = os.environ.get(RECORD)
    return Path(folder) if folder else None


def keep(sweep: Sweep) -> Path | None:
    """Write a sweep into the folder, if one is asked for; give the file.

    Raises
    ------
    HostError
        It can't be written there.
    """
    return _keep(sweep.plan, sweep.export, single=False)


def keep_cell(result: RunResult, plan: Plan) -> Path | None:
    """Write a cell's result, of a plan from :func:`cell`; as :func:`keep`."""
    return _keep(plan, result.save, single=True)


def _keep(plan: Plan, write: Callable[[Path], None], *, single: bool) -> Path | None:
    folder = recording()
    if folder is None:
        return None
    path = folder / _name(plan, single=single)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(path)
    except OSError as error:
        message = f"the recording can't be written to {str(path)!r}: {error.strerror or error}"
        raise HostError(message, hint=f"{RECORD} names a folder that can be written to") from None
    return path


def key(plan: Plan) -> str:
    """Give a digest of what was asked: the same on every machine, and whatever the seed."""
    plain = json.loads(json.dumps(dataclasses.asdict(plan), default=str))
    plain.pop("seed")
    options = {k: v for k, v in plain["options"].items() if k not in _HERE}
    if isinstance(options.get("volumes"), list):  # made absolute where it was written
        options["volumes"] = [str(v).replace(os.getcwd(), ".") for v in options["volumes"]]
    plain["options"] = options
    work = plain["work"]
    if work["name"] is not None:  # the values of a notebook's variables may be other ones here
        work["name"] = work["name"].partition(" (sha256 ")[0]
    if work["code"] is not None:
        work["code"] = "\n".join(line.rstrip() for line in work["code"].strip().splitlines())
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _name(plan: Plan, *, single: bool) -> str:
    return f"{'cell' if single else 'sweep'}-{key(plan)[:16]}.zip"


# --- showing again ---------------------------------------------------------------------------


def replaying() -> Path | None:
    """Give the folder that recordings are taken from, None where containers with limits run or none is named."""
    folder = os.environ.get(REPLAY)
    return Path(folder) if folder and refused() is not None else None


def refused() -> str | None:
    """Say why no container runs here, or none with limits; None where one can. Found out once in a process."""
    if os.environ.get(ALWAYS, "") not in ("", "0"):
        return f"{ALWAYS} is set"
    error = _cannot()
    return None if error is None else error.message


@functools.cache
def _cannot() -> HostError | None:
    from nscontainer import doctor

    findings = doctor.examine(python=False)
    if any(finding.status == "missing" for finding in findings if finding.needed):
        return doctor.explain_missing(findings)
    # What is recorded is about limits: without any it would fail at its first cell.
    for finding in findings:
        if finding.name == "cgroup" and finding.status == "missing":
            message = f"no container with limits can run here: {finding.detail}"
            return HostError(message, hint=finding.mend or "nscontainer doctor cgroup")
    return None


def find(plan: Plan) -> Sweep | None:
    """Give the recording of a sweep, where it is to be shown; None where the sweep runs here.

    Raises
    ------
    HostError
        No container can run here, and there is no recording of this one.
    """
    path = _found(plan, single=False)
    if path is None:
        return None
    from nscontainer import sweep_archive

    sweep: Sweep = sweep_archive.load(path)
    return sweep


def find_cell(plan: Plan) -> RunResult | None:
    """Give the recording of one cell, of a plan from :func:`cell`; as :func:`find`."""
    path = _found(plan, single=True)
    if path is None:
        return None
    from nscontainer.measure.result import load

    result = load(path)
    return dataclasses.replace(result, recorded=provenance.recorded(result.provenance))


def _found(plan: Plan, *, single: bool) -> Path | None:
    folder = replaying()
    if folder is None:
        return None
    path = folder / _name(plan, single=single)
    if not path.is_file():
        raise _refusal(
            f"no recording of it is in {str(folder)!r} (code and options must be as recorded; "
            f"{RECORD}=DIR records)"
        )
    return path


def missing(what: str) -> None:
    """Refuse what is never recorded (a session, a run in the background), where recordings are shown.

    Raises
    ------
    HostError
        As the doctor says it.
    """
    if replaying() is not None:
        raise _refusal(f"{what} is never recorded")


def _refusal(told: str) -> HostError:
    """Give the doctor's error, with what was looked for besides."""
    error = _cannot()
    if error is None:
        return HostError(f"{ALWAYS} is set, so nothing is run", hint=told)
    return HostError(
        error.message, hint=told + (f"; to run it: {error.hint}" if error.hint else "")
    )


def line(recorded: str) -> str:
    """Say in one line what is shown in place of a run, and why."""
    reason = " ".join((refused() or "").split())
    if not reason.startswith(("no container ", ALWAYS)):
        reason = f"no container can run here: {reason}"
    return f"{recorded}; {reason}"
