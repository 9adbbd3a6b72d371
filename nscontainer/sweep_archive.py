"""A sweep as one file: a zip of JSON and Parquet that any tool reads, and :func:`load` exactly.

Never pickle: a file may come from anyone. What is read is bounded and checked before it becomes a
sweep. docs/experiments.md describes the layout.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final

import numpy as np
import pandas as pd

from nscontainer import schema
from nscontainer.errors import HostError, NsContainerError
from nscontainer.experiment import archived, rows
from nscontainer.experiment.archived import check
from nscontainer.experiment.plan import Plan
from nscontainer.experiment.sweep import Run, Sweep
from nscontainer.measure import result_file
from nscontainer.measure.conditions import Conditions
from nscontainer.measure.result_file import ResultFileError, replacing

FORMAT: Final = "nscontainer sweep"
VERSION: Final = 1
_META, _SAMPLES, _SUMMARY = "sweep.json", "samples.parquet", "summary.parquet"
_NUMBER, _ELAPSED, _TOOK = "run.number", "sample.elapsed_ns", "sample.took_ns"
"""With a dot, which no parameter's name has."""
_MOST_META: Final = 1 << 30
_MOST_BYTES: Final = 8 << 30
"""Of all that is read of a file, unpacked: a small one must not unpack into all of memory."""
_DAMAGE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,  # pyarrow's, of a file that is in memory already
    MemoryError,
    NotImplementedError,
    RuntimeError,
    RecursionError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
)


def _arrow(module: str = "pyarrow") -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError:
        message = "an exported sweep needs pyarrow, which is not installed"
        raise HostError(message, hint="pip install 'nscontainer[parquet]'") from None


# --- writing ---------------------------------------------------------------------------------


def export(sweep: Sweep, path: str | os.PathLike[str]) -> None:
    """Write a sweep to ``path``, whole or not at all.

    Raises
    ------
    HostError
        pyarrow is not installed.
    OSError
        It can't be written there; a file that was there before is as it was.
    """
    _arrow()
    runs = [*sweep.warmups, *sweep.runs]
    shared: list[Any] = []
    meta = {
        "format": FORMAT,
        "version": VERSION,
        "id": sweep.id,
        "status": "interrupted" if sweep.status == "running" else sweep.status,
        "created_unix": sweep.created_unix,
        "recorded": sweep.recorded,
        "plan": sweep.plan.to_dict(),
        "facts": dict(sweep.facts),
        "columns": list(schema.NAMES),
        "runs": [_entry(run, shared) for run in runs],
        "shared": shared,
    }
    try:
        with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(_META, json.dumps(meta, indent=1), compresslevel=6)
            # Parquet is packed already.
            archive.writestr(_SUMMARY, _parquet(_plain(sweep.summary)), zipfile.ZIP_STORED)
            archive.writestr(_SAMPLES, _parquet(_samples(sweep, runs)), zipfile.ZIP_STORED)
            for run in runs:
                for name, data in _texts(run).items():
                    if data:
                        archive.writestr(name, data, compresslevel=6)
    except OSError as error:
        if error.filename is None:  # a full disk
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


def _entry(run: Run, shared: list[Any]) -> dict[str, Any]:
    """Give all of a run but its samples and texts; what many runs have alike stands in ``shared`` once."""
    result = run.result
    provenance = result.provenance.to_dict()
    return {
        **dataclasses.asdict(run.turn),
        "host": run.host,
        "cpus": run.cpus,
        "conditions": run.conditions.to_dict(),
        "record": result.record,
        "code": _share(shared, result.code),
        "provenance_code": _share(shared, provenance.pop("code")),
        "packages": _share(shared, dict(provenance.pop("packages"))),
        "provenance": provenance,
        "reported": dict(result.reported),
        "report_refused": list(result.report_refused),
    }


def _share(shared: list[Any], value: Any) -> int:
    if value not in shared:
        shared.append(value)
    return shared.index(value)


def _texts(run: Run) -> dict[str, bytes]:
    number, result = run.turn.number, run.result
    outputs = json.dumps(list(result.outputs)).encode() if result.outputs else b""
    return {
        f"outputs/{number}.json": outputs,
        f"stdout/{number}": result.stdout_bytes,
        f"stderr/{number}": result.stderr_bytes,
    }


def _parquet(table: Any) -> bytes:
    file = io.BytesIO()
    _arrow("pyarrow.parquet").write_table(table, file, compression="zstd")
    return file.getvalue()


def _plain(frame: pd.DataFrame) -> Any:
    """Make a table of the summary; a column of mixed types, as a cell may report them, becomes text."""
    arrow = _arrow()
    frame = frame.copy()
    for name in frame.columns:
        try:
            arrow.Array.from_pandas(frame[name])
        except (arrow.ArrowInvalid, arrow.ArrowTypeError):
            frame[name] = [None if pd.isna(value) else str(value) for value in frame[name]]
    return arrow.Table.from_pandas(frame)


def _samples(sweep: Sweep, runs: Sequence[Run]) -> Any:
    """Make the long table: the rows as they were read, and what a reader groups them by."""
    arrow = _arrow()
    matrices = [
        np.frombuffer(run.result.samples, dtype=np.int64).reshape(-1, schema.ROW_FIELDS)
        for run in runs
    ]
    lengths = [len(matrix) for matrix in matrices]
    whole = np.concatenate([np.empty((0, schema.ROW_FIELDS), np.int64), *matrices])

    def of_run(values: Sequence[Any]) -> Any:
        at = arrow.array(np.repeat(np.arange(len(values)), lengths), arrow.int32())
        return arrow.array(values).take(at)

    columns = {"run_id": of_run([f"{sweep.id}/{run.turn.number}" for run in runs])}
    for factor in sweep.plan.factors:
        levels = [rows.parameters(sweep.plan, run.turn.point)[factor.name] for run in runs]
        if len({type(level) for level in levels} - {type(None)}) > 1:
            numbers = all(type(level) in (int, float, type(None)) for level in levels)
            kind: Any = float if numbers else str
            levels = [None if level is None else kind(level) for level in levels]
        columns[factor.name] = of_run(levels)
    columns[_NUMBER] = arrow.array(
        np.repeat(np.array([run.turn.number for run in runs], np.int64), lengths)
    )
    for at, name in enumerate((_ELAPSED, _TOOK, *schema.NAMES)):
        values = np.ascontiguousarray(whole[:, at])
        columns[name] = arrow.array(values, mask=values == schema.NA)
    return arrow.table(columns)


# --- reading ---------------------------------------------------------------------------------


def load(path: str | os.PathLike[str]) -> Sweep:
    """Read a sweep that :func:`export` wrote, on whatever machine; its ``recorded`` says whence it is.

    Raises
    ------
    ResultFileError
        The file is no exported sweep, is damaged, or comes from a newer version.
    HostError
        pyarrow is not installed.
    OSError
        It can't be read.
    """
    where = os.fspath(path)
    _arrow("pyarrow.parquet")
    with open(path, "rb") as file:
        data = file.read()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = _Parts(archive)
            meta = json.loads(parts.read(_META, _MOST_META))
            _check_version(meta, where)
            return _sweep(meta, parts)
    except (ResultFileError, HostError):
        raise
    except (NsContainerError, *_DAMAGE) as error:
        message = f"{where!r} is no exported sweep, or a damaged one: {result_file.reason(error)}"
        raise ResultFileError(message, hint="Sweep.export writes them") from None


class _Parts:
    """The parts of a zip, up to a bound of all together."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._left = _MOST_BYTES

    def read(self, name: str, most: int = _MOST_BYTES) -> bytes:
        info = self._archive.getinfo(name)
        check(info.file_size <= min(most, self._left), name, f"{info.file_size} bytes")
        self._left -= info.file_size
        return self._archive.read(info)  # never more than file_size, and checked against its CRC-32

    def get(self, name: str) -> bytes:
        """Give a part that is only there where it isn't empty."""
        return self.read(name) if name in self._archive.NameToInfo else b""

    def claim(self, size: int, name: str) -> None:
        """Count what a part unpacks into."""
        check(size <= self._left, name, f"{size} bytes")
        self._left -= size


def _check_version(meta: Any, where: str) -> None:
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        message = f"{where!r} is not an exported sweep of nscontainer"
        raise ResultFileError(message, hint="Sweep.export writes them")
    version = meta.get("version")
    if type(version) is not int or version < 1:
        raise ResultFileError(f"{where!r} has no version that can be read: {version!r}")
    if version > VERSION:
        message = f"{where!r} has format {version}; this nscontainer reads up to {VERSION}"
        raise ResultFileError(message, hint="pip install --upgrade nscontainer")


def _sweep(meta: Mapping[str, Any], parts: _Parts) -> Sweep:
    head = archived.head(meta)
    plan: Plan = head["plan"]
    columns = meta["columns"]
    check(isinstance(columns, list) and all(isinstance(c, str) for c in columns), "columns", "")
    samples = _sample_rows(parts, columns)
    shared, points = meta["shared"], len(plan.points())
    found: dict[int, Run] = {}
    for entry in meta["runs"]:
        turn = archived.turn(entry, points)
        check(turn.number not in found, "run number", turn.number)
        number = turn.number
        code, other = _shared(shared, entry["code"]), _shared(shared, entry["provenance_code"])
        provenance = {**entry["provenance"], "code": other}
        provenance["packages"] = archived.packages(_shared(shared, entry["packages"]))
        texts = {
            "outputs.json": parts.get(f"outputs/{number}.json") or b"[]",
            "samples.bin": samples.pop(number, b""),
            "stdout": parts.get(f"stdout/{number}"),
            "stderr": parts.get(f"stderr/{number}"),
        }
        told = {**entry, "columns": columns, "code": code, "provenance": provenance}
        result = dataclasses.replace(result_file.rebuild(told, texts), recorded=head["recorded"])
        found[number] = Run(
            turn=turn,
            conditions=Conditions.from_dict(archived.conditions(entry["conditions"])),
            host=archived.text("host", entry["host"]),
            cpus=None if entry["cpus"] is None else archived.text("cpus", entry["cpus"]),
            read=lambda result=result: result,  # type: ignore[misc]
        )
    check(not samples, "samples of a run that is not there", sorted(samples)[:3])
    return Sweep(
        **head,
        runs=tuple(run for number, run in found.items() if number >= 0),
        warmups=tuple(run for number, run in found.items() if number < 0),
    )


def _shared(shared: Any, at: Any) -> Any:
    check(type(at) is int and at >= 0 and isinstance(shared, list), "place in shared", at)
    return shared[at]


def _sample_rows(parts: _Parts, columns: Sequence[str]) -> dict[int, bytes]:
    """Give the raw rows of each run, in the file's own columns, little-endian as a result file has them."""
    arrow = _arrow()
    file = _arrow("pyarrow.parquet").ParquetFile(io.BytesIO(parts.read(_SAMPLES)))
    names = [_ELAPSED, _TOOK, *columns]
    check(len(set(names)) == len(names), "columns", "one of them twice")
    parts.claim(file.metadata.num_rows * (len(names) + 1) * 8, _SAMPLES)
    for name in (_NUMBER, *names):
        kind = file.schema_arrow.field(name).type
        check(kind == arrow.int64(), f"type of {name}", kind)
    table = file.read([_NUMBER, *names])
    check(table[_NUMBER].null_count == 0, _NUMBER, "null")
    whole = np.empty((len(table), len(names)), dtype="<i8")
    for at, name in enumerate(names):
        whole[:, at] = table[name].fill_null(schema.NA).to_numpy()
    numbers = table[_NUMBER].to_numpy()
    ends = [*(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)] if len(numbers) else []
    found: dict[int, bytes] = {}
    begin = 0
    for end in ends:
        number = int(numbers[begin])
        check(number not in found, "samples of a run in two places", number)
        found[number] = whole[begin:end].tobytes()
        begin = end
    return found
