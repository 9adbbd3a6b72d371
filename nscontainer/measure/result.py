"""What a run gives back: how it ended, what it used, under which limits, where, and its output."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from nscontainer.measure import exits, records, run_warnings
from nscontainer.measure import totals as totals_
from nscontainer.measure.isolation import Isolation
from nscontainer.measure.limits import RunLimits
from nscontainer.measure.outputs import from_messages, stream_text
from nscontainer.measure.provenance import Provenance, collect
from nscontainer.measure.reported import Reported, Value
from nscontainer.measure.run_warnings import RunWarning
from nscontainer.measure.shown import Shown, above
from nscontainer.measure.totals import Totals
from nscontainer.spec import ContainerSpec

if TYPE_CHECKING:
    from pandas import DataFrame

_FRAMES, _PLOT = "nscontainer.frames", "nscontainer.plot"


@dataclass(frozen=True, repr=False)
class RunResult(Shown):
    """One run in a container, whole; nothing in it changes any more.

    Made by :meth:`from_record` or :func:`load`.

    Attributes
    ----------
    record
        The engine's exit record, as plain JSON types.
    samples
        The raw sample rows (:mod:`nscontainer.schema`); :attr:`usage` is what to read.
    stdout_bytes, stderr_bytes
        What came out of its file descriptors 1 and 2, byte by byte.
    outputs
        A cell's outputs, each a dict as in a notebook file. Of a cell that says very much, the
        beginning and the end of each stream, with a line between that says what was dropped.
    code
        The cell's code, None for a command.
    provenance
        Where, on what and with what it ran.
    values
        What ``run_cell(…, out=…)`` brought out of it, by name. A saved file doesn't keep them.
    reported
        What the cell reported by :func:`nscontainer.report`, by name.
    report_refused
        Why other reports are left out, a line each.
    recorded
        Where and when it was recorded, if it is shown in place of a run that can't be
        (:mod:`nscontainer.recordings`); None otherwise.

    Examples
    --------
    >>> r = nscontainer.run(["sh", "-c", "exit 3"])         # doctest: +SKIP
    >>> r.ok, r.exit_code, r.describe_exit()                # doctest: +SKIP
    (False, 3, 'exit code 3')
    >>> r.usage[["cpuacct.usage", "memory.usage"]].plot(subplots=True)  # doctest: +SKIP
    """

    _CARD: ClassVar = "nscontainer.card"

    record: Mapping[str, Any]
    samples: bytes
    stdout_bytes: bytes
    stderr_bytes: bytes
    outputs: tuple[Mapping[str, Any], ...]
    code: str | None
    provenance: Provenance
    # Arrays don't compare to one bool, and a result is the same with or without what was taken of it.
    values: Mapping[str, Any] = field(default_factory=dict, compare=False)
    reported: Mapping[str, Value] = field(default_factory=dict)
    report_refused: tuple[str, ...] = ()
    recorded: str | None = field(default=None, compare=False)

    @classmethod
    def from_record(
        cls,
        record: Mapping[str, Any],
        samples: bytes,
        *,
        stdout: bytes = b"",
        stderr: bytes = b"",
        outputs: Iterable[Mapping[str, Any]] | None = None,
        code: str | None = None,
        provenance: Provenance | None = None,
        reported: Reported | None = None,
    ) -> RunResult:
        """Make the result of a run that has just ended on this host.

        Parameters
        ----------
        record
            The exit record.
        samples
            Rows of :data:`nscontainer.schema.ROW_BYTES` bytes: native int64.
        outputs
            A cell's messages as they came, or outputs as a notebook file keeps them.
        provenance
            None describes this host as it is now.
        reported
            What it reported of itself.

        Raises
        ------
        ValueError
            The record is no exit record, or the samples are no sample rows.
        """
        values = records.plain(record)
        rows = bytes(samples)
        records.check_samples(rows)
        return cls(
            record=values,
            samples=rows,
            stdout_bytes=bytes(stdout),
            stderr_bytes=bytes(stderr),
            outputs=tuple(from_messages(map(_plain, outputs or ()))),
            code=code,
            provenance=collect(values, code) if provenance is None else provenance,
            reported={} if reported is None else dict(reported.kept),
            report_refused=() if reported is None else tuple(reported.refused),
        )

    def __hash__(self) -> int:
        return hash((self.id, self.record["created_unix"]))

    # --- how it ended ---

    @property
    def id(self) -> str:
        """The container's id."""
        return str(self.record["id"])

    @property
    def name(self) -> str | None:
        """The container's name."""
        return self.record["name"]  # type: ignore[no-any-return]  # checked by records.plain

    @property
    def image(self) -> str | None:
        """The image's name."""
        return self.record["image"]  # type: ignore[no-any-return]

    @property
    def exit_code(self) -> int:
        """As Docker's: the program's own, 128+n by signal n, 126 not executable, 127 not found."""
        return int(self.record["exit_code"])

    @property
    def signal(self) -> int | None:
        """The signal that ended it, None where none did."""
        return self.record["signal"]  # type: ignore[no-any-return]

    @property
    def oom_killed(self) -> bool:
        """Whether it ended because Linux killed it for want of memory.

        Whether Linux killed some other process in it: ``totals["memory.oom_kill"]``.
        """
        return bool(self.record["oom_killed"])

    @property
    def timed_out(self) -> str | None:
        """``wall`` (``--timeout``), ``cpu`` (``--cpu-time``) or None."""
        return self.record["timed_out"]  # type: ignore[no-any-return]

    @property
    def killed_by(self) -> str | None:
        """``timeout``, ``cpu-time``, ``user``, ``interrupt``, ``owner`` or None."""
        return self.record["killed_by"]  # type: ignore[no-any-return]

    @property
    def interrupted(self) -> int:
        """How many times it was interrupted (the second time kills)."""
        return int(self.record["interrupted"] or 0)

    @property
    def start_mode(self) -> str | None:
        """``exec``, ``zygote`` (from the warm Python) or ``cold``."""
        return self.record["start_mode"]  # type: ignore[no-any-return]

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with exit code 0."""
        return self.exit_code == 0 and self.signal is None and self.killed_by is None

    def describe_exit(self) -> str:
        """Say in one line how it ended: ``ok``, ``exit code 3``, ``killed: timeout of 2 s``."""
        return exits.describe(self.record, self.limits, self.totals)

    # --- when ---

    @property
    def started(self) -> datetime | None:
        """When its code was let go, in UTC."""
        unix = self.record["released_unix"]
        return None if unix is None else datetime.fromtimestamp(unix, UTC)

    @property
    def started_ns(self) -> int | None:
        """The same by CLOCK_MONOTONIC, exactly where ``elapsed_s`` is 0: for :class:`~nscontainer.Together`.

        None in a file of an older version.
        """
        return self.record["released_ns"]  # type: ignore[no-any-return]

    # --- what it used ---

    @property
    def wall_s(self) -> float:
        """From letting the code go to its end, in s; 0 where it never began."""
        return (self.record["wall_ns"] or 0) / records.NS_PER_S

    @property
    def cpu_s(self) -> float | None:
        """CPU time used, in s."""
        used = self.totals["cpuacct.usage"]
        return None if used is None else used / records.NS_PER_S

    @property
    def sample_count(self) -> int:
        """How many samples were taken, the two exact readings at the ends left out."""
        low, high = records.span(self.record, self.samples)
        return high - low

    @functools.cached_property
    def totals(self) -> Totals:
        """Exact figures for the whole run, by the schema's names.

        Also ``cpu_share`` (CPU time over wall time), ``throttled_share`` (of quota periods) and
        ``steal_s`` (what the hypervisor took from the whole host meanwhile).
        """
        return totals_.totals(self.record, self.samples)

    @functools.cached_property
    def usage(self) -> DataFrame:
        """The samples as a DataFrame: one row a reading, one column a figure of the schema.

        The index is ``elapsed_s``, seconds since the code was let go. The first row is the baseline
        and the last the exact final reading; counters begin at 0. Units are in ``attrs["units"]``.
        """
        frame: DataFrame = above(_FRAMES).usage(self.record, self.samples)
        return frame

    # --- under which conditions ---

    @functools.cached_property
    def limits(self) -> RunLimits:
        """The limits as asked, and as read back from the cgroup afterwards."""
        return RunLimits.from_record(self.record)

    @functools.cached_property
    def warnings(self) -> tuple[RunWarning, ...]:
        """What to know before believing the figures, the gravest first."""
        return run_warnings.find(self)

    @functools.cached_property
    def isolation(self) -> Isolation:
        """How isolated it really was."""
        return Isolation.from_dict(self.record["isolation"])

    @functools.cached_property
    def spec(self) -> ContainerSpec:
        """What the container was asked to be; the way to run it again."""
        return ContainerSpec.from_dict(self.record["spec"])

    # --- what it said ---

    @functools.cached_property
    def stdout(self) -> str:
        """What it printed, as UTF-8; what is none becomes U+FFFD.

        Of a cell, what Python printed comes first, then what others (a subprocess, C code) did.
        """
        printed = stream_text(self.outputs, "stdout")
        return printed + self.stdout_bytes.decode("utf-8", errors="replace")

    @functools.cached_property
    def stderr(self) -> str:
        """What it printed to standard error; as :attr:`stdout`."""
        printed = stream_text(self.outputs, "stderr")
        return printed + self.stderr_bytes.decode("utf-8", errors="replace")

    # --- to keep and to show ---

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all of it to one file, whole or not at all; :func:`load` reads it back.

        The file is a zip of JSON and raw figures; a file of that name is replaced.
        """
        from nscontainer.measure import result_file

        result_file.save(self, path)

    def plot(self, kind: str = "overview", ax: Any = None) -> Any:
        """Draw CPU use over time against its quota, with throttling and memory below.

        Where a limit of disk or network was asked, the overview has a panel for that too.

        Parameters
        ----------
        kind
            ``overview``, or one of ``cpu``, ``throttling``, ``memory``, ``io`` (with operations below, where
            they were limited), ``iops``, ``net`` and ``psi`` (where it was waited for).
        ax
            Axes to draw on, as many as it has panels; None makes a figure.

        Returns
        -------
        matplotlib.axes.Axes or numpy.ndarray
            The Axes drawn on; an array where there are several.

        Raises
        ------
        HostError
            matplotlib or pandas is not installed.
        """
        return above(_PLOT).plot(self, kind, ax)


def _plain(output: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give an output of our own, which nobody else can change; a long text isn't copied for it."""
    if output.get("output_type") == "stream" and isinstance(output.get("text"), str):
        return dict(output)
    copy: dict[str, Any] = json.loads(json.dumps(output))
    return copy


def load(path: str | os.PathLike[str]) -> RunResult:
    """Read a result that :meth:`RunResult.save` wrote, on whatever machine.

    Raises
    ------
    ResultFileError
        The file is no run result, is damaged, or comes from a newer version.
    OSError
        It can't be read.
    """
    from nscontainer.measure import result_file  # zipfile is slow to import and seldom needed

    return result_file.load(path)
