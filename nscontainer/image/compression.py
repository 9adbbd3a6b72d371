"""Compressed streams: told by their first bytes, read and written piece by piece."""

from __future__ import annotations

import io
import zlib
from typing import Any, Final, Protocol

from nscontainer.errors import HostError, LayerError, SpecError

_CHUNK: Final = 256 << 10
_MAGIC: Final = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"BZh", "bzip2"),
)
_ZSTD_WINDOW: Final = 128 << 20
"""What zstd's own command takes without being asked for more."""
_LZMA_MEMORY: Final = 256 << 20
FREE_BYTES: Final = 64 << 20
"""So much may come out of however little."""
MAX_RATIO: Final = 1000
_GZIP_LEVEL: Final = 6
_ZSTD_LEVEL: Final = 3


class Reads(Protocol):
    """All that is asked of a stream to read from."""

    def read(self, size: int = ..., /) -> bytes:
        """Give up to so many bytes; none at its end."""
        ...


class Writes(Protocol):
    """All that is asked of a stream to write to."""

    def write(self, data: bytes, /) -> Any:
        """Take bytes, all of them."""
        ...


def decompress(stream: Reads, *, max_ratio: int | None = MAX_RATIO) -> Decompressed:
    """Read what is compressed in a stream, by its first bytes: gzip, zstd, xz, bzip2, or as it is.

    Parameters
    ----------
    max_ratio
        Beyond the first :data:`FREE_BYTES`, more than so many times the compressed bytes is refused;
        None where the reader has limits of its own.

    Raises
    ------
    LayerError
        From ``read``: the stream is damaged, or a bomb.
    HostError
        It is zstd, and the package zstandard is missing.
    """
    head = b""
    while len(head) < 6 and (more := stream.read(6 - len(head))):
        head += more
    kind = next((name for magic, name in _MAGIC if head.startswith(magic)), "")
    source = _Prepended(head, stream)
    if kind == "zstd":
        return _Zstd(source, max_ratio)
    return _ByObject(source, kind, max_ratio) if kind else _Plain(source, None)


class _Prepended:
    """A stream with its first bytes put back, counting what is taken."""

    def __init__(self, head: bytes, stream: Reads) -> None:
        self._head = head
        self._stream = stream
        self.taken = 0

    def read(self, size: int = _CHUNK) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
        else:
            data = self._stream.read(size)
        self.taken += len(data)
        return data


class Decompressed(io.RawIOBase):
    """A stream of what was compressed. ``kind`` is "" where it was not."""

    kind = ""

    def __init__(self, source: _Prepended, max_ratio: int | None) -> None:
        self._source = source
        self._given = 0
        self._max_ratio = max_ratio

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """Give up to so many bytes (-1: all there are); none at the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(_CHUNK), b""))
        data = self._some(size) if size else b""
        self._given += len(data)
        if self._max_ratio is not None and self._given > FREE_BYTES:
            taken = self._source.taken
            if self._given > self._max_ratio * taken:
                message = f"{self._given} bytes out of {taken} of {self.kind} are taken for a bomb"
                raise LayerError(message)
        return data

    def _some(self, size: int) -> bytes:
        raise NotImplementedError

    def _broken(self, why: object) -> LayerError:
        return LayerError(f"the {self.kind} stream is damaged: {why}".lower())


class _Plain(Decompressed):
    def _some(self, size: int) -> bytes:
        return self._source.read(size)


class _ByObject(Decompressed):
    """gzip, xz and bzip2: one decompressor a member, and members may follow one another."""

    def __init__(self, source: _Prepended, kind: str, max_ratio: int | None) -> None:
        super().__init__(source, max_ratio)
        self.kind = kind
        self._object: Any = _decompressor(kind)
        self._rest = b""
        self._fed = False
        self._ended = False

    def _some(self, size: int) -> bytes:
        while not self._ended:
            if self._object.eof and not self._next_member():
                break
            given = self._rest or self._take()
            try:
                data: bytes = self._object.decompress(given, size)
            except Exception as error:  # noqa: BLE001 - zlib.error, lzma.LZMAError, OSError (bz2)
                raise self._broken(error) from None
            self._fed = True
            # zlib gives back what it has not looked at; the others keep it.
            self._rest = getattr(self._object, "unconsumed_tail", b"")
            if data:
                return data
        return b""

    def _take(self) -> bytes:
        if not getattr(self._object, "needs_input", True):
            return b""
        data = self._source.read(_CHUNK)
        if not data:
            raise self._broken("it ends too early")
        return data

    def _next_member(self) -> bool:
        """Go on with what follows a member; zeros may (tapes' padding), nothing else."""
        rest: bytes = self._object.unused_data
        while not (rest := rest.lstrip(b"\0")):
            rest = self._source.read(_CHUNK)
            if not rest:
                self._ended = True
                return False
        self._object, self._rest = _decompressor(self.kind), rest
        return True


def _decompressor(kind: str) -> Any:
    if kind == "gzip":
        return zlib.decompressobj(wbits=31)
    if kind == "xz":
        import lzma

        return lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)
    import bz2

    return bz2.BZ2Decompressor()


class _Zstd(Decompressed):
    kind = "zstd"

    def __init__(self, source: _Prepended, max_ratio: int | None) -> None:
        super().__init__(source, max_ratio)
        self._zstd = _zstandard()
        context = self._zstd.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._reader = context.stream_reader(source, read_across_frames=True, read_size=_CHUNK)

    def _some(self, size: int) -> bytes:
        try:
            data: bytes = self._reader.read(size)
        except self._zstd.ZstdError as error:
            raise self._broken(error) from None
        return data


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError:
        message = "a layer is compressed with zstd, and the package zstandard is not installed"
        raise HostError(message, hint="pip install zstandard") from None
    return zstandard


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class Compressing:
    """A sink that compresses on the way to another: :meth:`write`, and :meth:`finish` at the end."""

    def __init__(self, sink: Writes, compressor: _Compressor | None) -> None:
        self._sink = sink
        self._compressor = compressor

    def write(self, data: bytes) -> int:
        """Take bytes."""
        out = self._compressor.compress(data) if self._compressor else data
        if out:
            self._sink.write(out)
        return len(data)

    def finish(self) -> None:
        """Write what is still held back; the sink stays open."""
        if self._compressor and (out := self._compressor.flush()):
            self._sink.write(out)


def compress(sink: Writes, kind: str) -> Compressing:
    """Compress what is written: "gzip" (no time in its header: the same in, the same out), "zstd", "".

    Raises
    ------
    SpecError
        It is another kind.
    HostError
        It is zstd, and the package zstandard is missing.
    """
    if kind in ("", "none"):
        return Compressing(sink, None)
    if kind == "gzip":
        return Compressing(sink, zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31))
    if kind == "zstd":
        return Compressing(sink, _zstandard().ZstdCompressor(level=_ZSTD_LEVEL).compressobj())
    message = f"compression {kind!r:.40} is not done"
    raise SpecError(message, hint="gzip, zstd or none")
