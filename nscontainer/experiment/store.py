"""Sweeps on disk: an SQLite database that several notebooks may use at once, a row a run.

The rollback journal and not WAL: that also works where a home directory is on a network. A sweep that
goes on is claimed by a lock on one byte of a file beside the database: Linux lets go of it when its
process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import secrets
import sqlite3
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from nscontainer.errors import HostError, NotFoundError, StateError
from nscontainer.experiment.plan import Plan, Turn
from nscontainer.experiment.sweep import Run, Sweep
from nscontainer.measure import result_file
from nscontainer.measure.conditions import Conditions
from nscontainer.measure.result import RunResult

VERSION: Final = 1
_BUSY_S: Final = 60.0
_FILE: Final = "runs.sqlite"
_TABLES: Final = """
CREATE TABLE sweep (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, key TEXT NOT NULL,
    created_unix REAL NOT NULL, status TEXT NOT NULL, host TEXT, plan TEXT NOT NULL, facts TEXT NOT NULL
);
CREATE INDEX sweep_by_key ON sweep (key);
CREATE TABLE run (
    sweep INTEGER NOT NULL REFERENCES sweep (number) ON DELETE CASCADE, number INTEGER NOT NULL,
    point INTEGER NOT NULL, repeat INTEGER NOT NULL, saved_unix REAL NOT NULL, host TEXT NOT NULL,
    cpus TEXT, conditions TEXT NOT NULL, exit_code INTEGER NOT NULL, wall_s REAL NOT NULL,
    result BLOB NOT NULL, PRIMARY KEY (sweep, number)
);
"""


def directory() -> str:
    """Give where sweeps are kept: ``NSCONTAINER_RUNS``, or below the user's data home."""
    own = os.environ.get("NSCONTAINER_RUNS")
    if own:
        return os.path.abspath(own)
    home = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(home, "nscontainer")


class Store:
    """Sweeps and their runs, kept as they end.

    Parameters
    ----------
    path
        A directory; None is :func:`directory`. It is made when the first sweep is kept.

    Raises
    ------
    HostError
        From each call: the database can't be opened, read or written; what it held is as it was.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = os.path.abspath(directory() if path is None else os.fspath(path))
        self._file = os.path.join(self.path, _FILE)
        self._claims: dict[str, int] = {}
        self._guard = threading.Lock()

    # --- to keep -----------------------------------------------------------------------------

    def begin(self, plan: Plan, facts: Mapping[str, Any]) -> str:
        """Begin a sweep, which is this process's until :meth:`end`; give its id."""
        name = secrets.token_hex(6)
        values = (
            name, plan.key, time.time(), "running", facts.get("host"),
            json.dumps(plan.to_dict()), json.dumps(facts),
        )  # fmt: skip
        with self._open(make=True) as db:
            number = db.execute(
                "INSERT INTO sweep (id, key, created_unix, status, host, plan, facts) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                values,
            ).lastrowid
            assert number is not None
            self._claim(name, number)
        return name

    def unfinished(self, key: str) -> tuple[str, Plan] | None:
        """Claim the newest sweep of this key that is not complete; None where another process has it."""
        if not os.path.exists(self._file):
            return None
        with self._open() as db:
            rows = db.execute(
                "SELECT number, id, plan FROM sweep WHERE key = ? AND status != 'complete' "
                "ORDER BY number DESC",
                (key,),
            ).fetchall()
            for number, name, plan in rows:
                if self._claim(name, number):
                    db.execute("UPDATE sweep SET status = 'running' WHERE number = ?", (number,))
                    return name, Plan.from_dict(json.loads(plan))
        return None

    def save(
        self,
        id: str,  # noqa: A002 - what it is
        turn: Turn,
        result: RunResult,
        conditions: Conditions,
        host: str,
        cpus: str | None,
    ) -> None:
        """Keep a run, in one transaction; one that is kept already stays as it is."""
        data = result_file.to_bytes(result)
        with self._open() as db:
            db.execute(
                "INSERT OR IGNORE INTO run VALUES "
                "((SELECT number FROM sweep WHERE id = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    id, turn.number, turn.point, turn.repeat, time.time(), host, cpus,
                    json.dumps(conditions.to_dict()), result.exit_code, result.wall_s, data,
                ),
            )  # fmt: skip

    def end(self, id: str, status: Literal["complete", "interrupted"]) -> None:  # noqa: A002
        """Say how it ended, and let go of it."""
        try:
            with self._open() as db:
                db.execute("UPDATE sweep SET status = ? WHERE id = ?", (status, id))
        finally:
            self._let_go(id)

    def delete(self, id: str) -> None:  # noqa: A002
        """Remove a sweep and its runs.

        Raises
        ------
        NotFoundError, StateError
            There is none, or it is under way.
        """
        with self._open() as db:
            number, name = self._find(db, id)
            if name in self._claims or not self._claim(name, number):
                message = f"sweep {name} is under way"
                raise StateError(message, hint="interrupt it first")
            try:
                db.execute("DELETE FROM sweep WHERE number = ?", (number,))
            finally:
                self._let_go(name)

    # --- to look -----------------------------------------------------------------------------

    def load(self, id: str) -> Sweep:  # noqa: A002
        """Give a sweep; its results are read when they are asked for.

        Parameters
        ----------
        id
            Its id, or the beginning of it.

        Raises
        ------
        NotFoundError
            There is none, or several begin so.
        """
        if not os.path.exists(self._file):
            raise _none(id)
        with self._open() as db:
            number, name = self._find(db, id)
            created, status, plan, facts = db.execute(
                "SELECT created_unix, status, plan, facts FROM sweep WHERE number = ?", (number,)
            ).fetchone()
            rows = db.execute(
                "SELECT number, point, repeat, host, cpus, conditions FROM run "
                "WHERE sweep = ? ORDER BY number",
                (number,),
            ).fetchall()
            status = self._status(name, number, status)
        runs = tuple(self._run(name, row) for row in rows)
        return Sweep(
            id=name,
            plan=Plan.from_dict(json.loads(plan)),
            runs=tuple(run for run in runs if not run.turn.warmup),
            warmups=tuple(run for run in runs if run.turn.warmup),
            status=status,
            created_unix=created,
            facts=json.loads(facts),
        )

    def list(self) -> list[dict[str, Any]]:
        """Give a row a sweep, the newest first: ``id, created_unix, status, host, plan, runs``."""
        if not os.path.exists(self._file):
            return []
        with self._open() as db:
            rows = db.execute(
                "SELECT number, id, created_unix, status, host, plan, (SELECT count(*) FROM run "
                "WHERE run.sweep = sweep.number AND run.number >= 0) FROM sweep ORDER BY number DESC"
            ).fetchall()
            return [
                {
                    "id": name,
                    "created_unix": created,
                    "status": self._status(name, number, status),
                    "host": host,
                    "plan": Plan.from_dict(json.loads(plan)),
                    "runs": runs,
                }
                for number, name, created, status, host, plan, runs in rows
            ]

    def _run(self, name: str, row: tuple[Any, ...]) -> Run:
        number, point, repeat, host, cpus, conditions = row
        return Run(
            turn=Turn(number=number, point=point, repeat=repeat),
            conditions=Conditions.from_dict(json.loads(conditions)),
            host=host,
            cpus=cpus,
            read=functools.partial(self._result, name, number),
        )

    def _result(self, name: str, number: int) -> RunResult:
        with self._open() as db:
            row = db.execute(
                "SELECT result FROM run JOIN sweep ON run.sweep = sweep.number "
                "WHERE sweep.id = ? AND run.number = ?",
                (name, number),
            ).fetchone()
        if row is None:
            message = f"run {number} of sweep {name} is no longer kept"
            raise NotFoundError(message, hint="the sweep was removed meanwhile")
        return result_file.from_bytes(row[0], f"run {number} of sweep {name}")

    def _find(self, db: sqlite3.Connection, text: str) -> tuple[int, str]:
        # No pattern: `_` and `%` in it would stand for anything.
        found = db.execute(
            "SELECT number, id FROM sweep WHERE substr(id, 1, length(?)) = ? LIMIT 2", (text, text)
        ).fetchall()
        if not text or not found:
            raise _none(text)
        if len(found) > 1:
            message = f"more than one sweep's id begins with {text!r}"
            raise NotFoundError(message, hint="give more of it")
        number, name = found[0]
        return int(number), str(name)

    # --- whose it is -------------------------------------------------------------------------

    def _status(self, name: str, number: int, status: str) -> Any:
        """Tell one that goes on from one whose process was killed."""
        if status == "complete" or name in self._claims:
            return status
        return "running" if _locked(self.path, number) else "interrupted"

    def _claim(self, name: str, number: int) -> bool:
        with self._guard:
            if name in self._claims:
                return False
            fd = os.open(f"{self._file}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock(number))
            except OSError:
                os.close(fd)
                return False
            self._claims[name] = fd
            return True

    def _let_go(self, name: str) -> None:
        with self._guard:
            fd = self._claims.pop(name, None)
            if fd is not None:
                os.close(fd)

    # --- the database ------------------------------------------------------------------------

    @contextlib.contextmanager
    def _open(self, *, make: bool = False) -> Iterator[sqlite3.Connection]:
        """Give the database in one transaction: all of it is written at the end, or nothing."""
        try:
            if make:
                os.makedirs(self.path, mode=0o700, exist_ok=True)
                # SQLite would make it as the umask lets it; its journal is made with the same mode.
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                os.close(os.open(self._file, flags, 0o600))
            mode = "rwc" if make else "rw"
            uri = f"file:{_quoted(self._file)}?mode={mode}"
            db = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)
            with contextlib.closing(db):
                db.execute("PRAGMA foreign_keys = ON")
                db.execute("BEGIN IMMEDIATE")
                try:
                    self._check_version(db)
                    yield db
                except BaseException:
                    db.execute("ROLLBACK")
                    raise
                db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            message = f"the runs kept in {self._file!r} can't be used: {error}"
            hint = "is the disk full, or the folder another's? NSCONTAINER_RUNS names another"
            raise HostError(message, hint=hint) from error

    def _check_version(self, db: sqlite3.Connection) -> None:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in _TABLES.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {VERSION}")
        elif version > VERSION:
            message = f"{self._file!r} has format {version}; this nscontainer reads up to {VERSION}"
            raise HostError(message, hint="pip install --upgrade nscontainer")


def _none(text: str) -> NotFoundError:
    return NotFoundError(f"no sweep {text!r} is kept", hint="nscontainer history lists them")


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _flock(number: int) -> bytes:
    """Make a ``struct flock`` for one byte (fcntl(2))."""
    return struct.pack("hhqqixxxx", fcntl.F_WRLCK, os.SEEK_SET, number, 1, 0)


def _locked(path: str, number: int) -> bool:
    """Whether some process has this sweep."""
    try:
        fd = os.open(os.path.join(path, f"{_FILE}.lock"), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _flock(number))
    finally:
        os.close(fd)
    return bool(struct.unpack("hhqqixxxx", answer)[0] != fcntl.F_UNLCK)
