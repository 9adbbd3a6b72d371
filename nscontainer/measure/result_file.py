"""A run result as a file: a zip with ``result.json``, the raw samples and what was printed.

Never pickle: a result may come from anyone. What is read is checked before it becomes a result.
"""

from __future__ import annotations

import array
import contextlib
import io
import json
import os
import secrets
import sys
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, Final

from nscontainer import schema
from nscontainer.errors import NsContainerError
from nscontainer.measure.provenance import Provenance
from nscontainer.measure.reported import Reported
from nscontainer.measure.result import RunResult

FORMAT: Final = "nscontainer run result"
VERSION: Final = 1
_META, _SAMPLES, _OUTPUTS = "result.json", "samples.bin", "outputs.json"
_STDOUT, _STDERR = "stdout", "stderr"
_LIMITS: Final = {
    _META: 64 << 20,
    _OUTPUTS: 1 << 30,
    _SAMPLES: 4 << 30,
    _STDOUT: 4 << 30,
    _STDERR: 4 << 30,
}
"""Most bytes of each part, unpacked: a small file must not unpack into all of memory."""


class ResultFileError(NsContainerError, ValueError):
    """A file is no run result, is damaged, or comes from a newer nscontainer."""


def save(result: RunResult, path: str | os.PathLike[str]) -> None:
    """Write a result to ``path``, whole or not at all.

    Raises
    ------
    OSError
        It can't be written there; a file that was there before is as it was.
    """
    with replacing(path) as file:
        _write(result, file)


def to_bytes(result: RunResult) -> bytes:
    """Give what :func:`save` writes."""
    file = io.BytesIO()
    _write(result, file)
    return file.getvalue()


def _write(result: RunResult, file: IO[bytes]) -> None:
    meta = {
        "format": FORMAT,
        "version": VERSION,
        "columns": schema.NAMES,
        "record": result.record,
        "code": result.code,
        "provenance": result.provenance.to_dict(),
        "reported": result.reported,
        "report_refused": result.report_refused,
    }
    parts = {
        _META: json.dumps(meta, indent=1).encode(),
        _OUTPUTS: json.dumps(result.outputs).encode(),
        _SAMPLES: _little_endian(result.samples),
        _STDOUT: result.stdout_bytes,
        _STDERR: result.stderr_bytes,
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data, compresslevel=1)


def load(path: str | os.PathLike[str]) -> RunResult:
    """Read a result that :meth:`RunResult.save` wrote.

    Raises
    ------
    ResultFileError
        The file is no run result, is damaged, or comes from a newer version.
    OSError
        It can't be read.
    """
    with open(path, "rb") as file:
        return from_bytes(file.read(), os.fspath(path))


def from_bytes(data: bytes, where: str) -> RunResult:
    """Make a result of what :func:`to_bytes` gave; ``where`` names it in errors.

    Raises
    ------
    ResultFileError
        As :func:`load`.
    """
    try:
        # From memory: a damaged offset is a ValueError then, and no OSError.
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            meta = json.loads(_part(archive, _META))
            _check_version(meta, where)
            parts = {name: _part(archive, name) for name in _LIMITS if name != _META}
        return rebuild(meta, parts)
    except NsContainerError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        RecursionError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
    ) as error:
        message = f"{where!r} is no run result, or a damaged one: {reason(error)}"
        hint = "RunResult.save writes them"
        raise ResultFileError(message, hint=hint) from None


def reason(error: Exception) -> str:
    """Give one line of what is wrong with a file."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return (" ".join(text.split()) or type(error).__name__)[:200]


def _check_version(meta: Any, where: str) -> None:
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        message = f"{where!r} is not a run result of nscontainer"
        raise ResultFileError(message, hint="RunResult.save writes them")
    version = meta.get("version")
    if not isinstance(version, int) or version < 1:
        message = f"{where!r} has no version that can be read: {version!r}"
        raise ResultFileError(message)
    if version > VERSION:
        message = f"{where!r} has format {version}; this nscontainer reads up to {VERSION}"
        raise ResultFileError(message, hint="pip install --upgrade nscontainer")


def _part(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > _LIMITS[name]:
        message = f"{name} would unpack into {info.file_size} bytes"
        raise ValueError(message)
    return archive.read(info)  # never more than file_size, and checked against its CRC-32


def rebuild(meta: dict[str, Any], parts: dict[str, bytes]) -> RunResult:
    """Make a result of what a file says, checked; a damaged one is any of several errors."""
    columns = meta["columns"]
    if not isinstance(columns, list) or not all(isinstance(c, str) for c in columns):
        message = "its columns are no names"
        raise ValueError(message)
    record, samples = dict(meta["record"]), _little_endian(parts[_SAMPLES])
    if tuple(columns) != schema.NAMES:
        record, samples = _to_this_schema(columns, record, samples)
    outputs, code = json.loads(parts[_OUTPUTS]), meta["code"]
    if not isinstance(outputs, list) or not all(isinstance(o, dict) for o in outputs):
        message = "its outputs are no list of objects"
        raise ValueError(message)
    if code is not None and not isinstance(code, str):
        message = "its code is no text"
        raise ValueError(message)
    result = RunResult.from_record(
        record,
        samples,
        stdout=parts[_STDOUT],
        stderr=parts[_STDERR],
        outputs=outputs,
        code=code,
        provenance=Provenance.from_dict(meta["provenance"]),
        reported=_reported(meta),
    )
    # All that is derived lazily, once now: a damaged record shows here and not in the middle of work.
    _ = (result.totals, result.limits.rows(), result.warnings, result.isolation.rows())
    _ = (result.provenance.rows(), result.describe_exit())
    return result


def _reported(meta: dict[str, Any]) -> Reported:
    """Take what the run reported by the rules of one that ends here; older files have none."""
    reported = Reported()
    refused = meta.get("report_refused", [])
    if not isinstance(refused, list) or not all(isinstance(line, str) for line in refused):
        message = "its refused reports are no lines"
        raise ValueError(message)
    for line in refused:
        reported.refuse(line)
    reported.add(meta.get("reported", {}))
    return reported


def _to_this_schema(
    columns: list[str], record: dict[str, Any], samples: bytes
) -> tuple[dict[str, Any], bytes]:
    """Bring figures of an older schema under this one's columns; what it lacked is NA."""
    at = {name: i for i, name in enumerate(columns)}
    order = [at.get(name) for name in schema.NAMES]

    def moved(reading: list[int]) -> list[int]:
        return [schema.NA if i is None else reading[i] for i in order]

    old = memoryview(samples).cast("q").tolist()
    width = schema.ROW_PREFIX + len(columns)
    if len(old) % width:
        message = f"{len(samples)} bytes are no whole rows of its {len(columns)} columns"
        raise ValueError(message)
    new = array.array("q")
    for begin in range(0, len(old), width):
        row = old[begin : begin + width]
        new.extend(row[: schema.ROW_PREFIX] + moved(row[schema.ROW_PREFIX :]))
    for name in ("baseline", "final"):
        record[name] = moved(record[name])
    return record, new.tobytes()


def _little_endian(data: bytes) -> bytes:
    """Turn rows between this machine's byte order and the file's, which is little-endian."""
    if sys.byteorder == "little":
        return data
    words = array.array("q", data)
    words.byteswap()
    return words.tobytes()


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a new file that takes the place of ``path`` at the end, unless something goes wrong.

    A reader, or a power cut, finds the old file or the new one, never half of one.
    """
    target = os.path.realpath(path)  # a symbolic link stays one
    folder = os.path.dirname(target)
    draft = os.path.join(folder, f".{os.path.basename(target)[:200]}.{secrets.token_hex(4)}.part")
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(fd, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        raise
    _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    # The new name is in the folder, so that is what must reach the disk too (fsync(2), NOTES).
    with contextlib.suppress(OSError):  # some file systems can't
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
