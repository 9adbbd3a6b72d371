"""What has been kept: sweeps as a table, their runs as another, and each of them again."""

from __future__ import annotations

import os
import re
import zipfile
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from nscontainer.errors import NotFoundError, SpecError
from nscontainer.experiment.store import Store
from nscontainer.measure import result

if TYPE_CHECKING:
    from pandas import DataFrame

    from nscontainer.experiment.plan import Plan

_ID = re.compile(r"[0-9a-f]{2,12}")
_COLUMNS: Final = ("created", "status", "what", "factors", "points", "runs", "host")
STATUSES: Final = ("complete", "interrupted", "running")


def table(status: str | None = None) -> DataFrame:
    """Give the sweeps that are kept, the newest first: one row each, by its id.

    Parameters
    ----------
    status
        Only ``complete``, ``interrupted`` or ``running`` ones.

    Raises
    ------
    SpecError
        There is no such status.
    HostError
        The database can't be read.
    """
    if status is not None and status not in STATUSES:
        message = f"no sweep can be {status!r}"
        raise SpecError(message, hint=", ".join(STATUSES))
    from nscontainer import sweep_card  # numpy: not for each load()

    rows, ids = [], []
    for row in Store().list():
        if status not in (None, row["status"]):
            continue
        plan = row["plan"]
        ids.append(row["id"])
        rows.append(
            {
                "created": datetime.fromtimestamp(row["created_unix"], UTC),
                "status": row["status"],
                "what": what(plan),
                "factors": sweep_card.factors(plan),
                "points": len(plan.points()),
                "runs": row["runs"],
                "host": row["host"],
            }
        )
    pandas = import_module("pandas")
    index = pandas.Index(ids, name="id", dtype="str")
    frame: DataFrame = pandas.DataFrame(rows, columns=list(_COLUMNS), index=index)
    return frame


def runs(sweep: str | None = None, *, status: str | None = None) -> DataFrame:
    """Give what has been kept as a frame: the sweeps, or the runs of one.

    Parameters
    ----------
    sweep
        A sweep's id or the beginning of it: one row a run, :attr:`Sweep.summary`. None: one row a
        sweep, the newest first: ``created, status, what, factors, points, runs, host``.
    status
        Of sweeps: only ``complete``, ``interrupted`` or ``running`` ones.

    Raises
    ------
    NotFoundError, SpecError
        There is no such sweep, or no such status.

    Examples
    --------
    >>> nscontainer.runs()  # doctest: +SKIP
    >>> nscontainer.load(nscontainer.runs().index[0]).plot()  # the newest  # doctest: +SKIP
    """
    if sweep is None:
        return table(status)
    if status is not None:
        raise SpecError("status is of sweeps, not of their runs", hint="leave one of them out")
    return Store().load(sweep).summary


def load(path: str | os.PathLike[str]) -> Any:
    """Read a saved result, an exported sweep, or a sweep that is kept, on whatever machine.

    Parameters
    ----------
    path
        A file that :meth:`RunResult.save` or :meth:`Sweep.export` wrote, or a kept sweep's id.

    Returns
    -------
    RunResult or Sweep
        What it is.

    Raises
    ------
    ResultFileError
        The file is neither, is damaged, or comes from a newer version.
    NotFoundError
        There is no such file, and no sweep of that id.
    OSError
        It can't be read.
    """
    name = os.fspath(path)
    if not os.path.lexists(name) and _ID.fullmatch(name):
        try:
            return Store().load(name)
        except NotFoundError:
            message = f"there is no file {name!r}, and no sweep of that id"
            raise NotFoundError(message, hint="nscontainer history lists the sweeps") from None
    if _is_sweep(name):
        return import_module("nscontainer.sweep_archive").load(name)
    return result.load(name)


def _is_sweep(name: str) -> bool:
    try:
        with zipfile.ZipFile(name) as archive:
            return "sweep.json" in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False  # a result's reader says what is wrong with it


def what(plan: Plan) -> str:
    """Say in a few words what a plan runs."""
    work = plan.work
    if work.name is not None:
        return work.name
    if work.command is not None and work.code is None:
        return " ".join(work.command)
    lines = [line.strip() for line in (work.code or "").splitlines()]
    return next((line for line in lines if line and not line.startswith("#")), "")
