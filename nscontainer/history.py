"""What has been kept: sweeps as a table, their runs as another, and each of them again."""

from __future__ import annotations

import argparse
import os
import re
import zipfile
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from nscontainer.errors import NotFoundError, SpecError
from nscontainer.experiment import words
from nscontainer.experiment.store import Store
from nscontainer.measure import result

if TYPE_CHECKING:
    from pandas import DataFrame

    from nscontainer.experiment.plan import Work

_ID = re.compile(r"[0-9a-f]{2,12}")
_COLUMNS: Final = ("created", "status", "what", "factors", "points", "runs", "host")
_WIDTH: Final = 60
STATUSES: Final = ("complete", "interrupted", "running")


def table(status: str | None = None, what: str | None = None) -> DataFrame:
    """Give the sweeps that are kept, the newest first: one row each, by its id.

    Parameters
    ----------
    status
        Only ``complete``, ``interrupted`` or ``running`` ones.
    what
        Only those in whose work (the code, the command, what it is called) this text is, whatever its
        case.

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
    rows, ids = [], []
    for row in Store().list():
        if status not in (None, row["status"]):
            continue
        plan = row["plan"]
        if what is not None and what.lower() not in _all_of(plan.work).lower():
            continue
        ids.append(row["id"])
        rows.append(
            {
                "created": datetime.fromtimestamp(row["created_unix"], UTC),
                "status": row["status"],
                "what": words.what(plan.work, _WIDTH),
                "factors": words.factors(plan),
                "points": len(plan.points()),
                "runs": row["runs"],
                "host": row["host"],
            }
        )
    pandas = import_module("pandas")
    index = pandas.Index(ids, name="id", dtype="str")
    frame: DataFrame = pandas.DataFrame(rows, columns=list(_COLUMNS), index=index)
    return frame


def runs(
    sweep: str | None = None, *, status: str | None = None, what: str | None = None
) -> DataFrame:
    """Give what has been kept as a frame: the sweeps, or the runs of one.

    Parameters
    ----------
    sweep
        A sweep's id or the beginning of it: one row a run, :attr:`Sweep.summary`. None: one row a
        sweep, the newest first: ``created, status, what, factors, points, runs, host``.
    status
        Of sweeps: only ``complete``, ``interrupted`` or ``running`` ones.
    what
        Of sweeps: only those in whose work (code, command, name) this text is.

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
        return table(status, what)
    for name, value in (("status", status), ("what", what)):
        if value is not None:
            raise SpecError(f"{name} is of sweeps, not of their runs", hint="leave one of them out")
    return Store().load(sweep).summary


def add_filters_to(parser: argparse.ArgumentParser) -> None:
    """Add :func:`table`'s arguments to a front end's parser."""
    parser.add_argument("--status", choices=STATUSES, help="only those that are so")
    parser.add_argument(
        "--what", metavar="TEXT", help="only those that have this in their code, command or name"
    )


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


def _all_of(work: Work) -> str:
    return "\n".join([work.name or "", " ".join(work.command or ()), work.code or ""])


def _is_sweep(name: str) -> bool:
    try:
        with zipfile.ZipFile(name) as archive:
            return "sweep.json" in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False  # a result's reader says what is wrong with it
