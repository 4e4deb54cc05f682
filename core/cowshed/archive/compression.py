"""Compression: blobs in and out of gzip and zstd, bounded, deterministic, never hanging.

Reading is strict: a stream that ends early, has a wrong checksum or is followed by garbage is an
``ArchiveError`` (CVE-2021-20291 was a hang). Concatenated gzip members (RFC 1952, 2.2) and zstd
frames (RFC 8878, 3) are one stream. Output is made in bounded pieces, however far the input
expands.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from typing import BinaryIO, Literal, Protocol, cast

from ..errors import ArchiveError, UnsupportedError
from .inflate import GzipDecoder, gzip_decoder, gzip_errors
from .limits import DEFAULT_LIMITS, Limits

Compression = Literal["none", "gzip", "zstd"]

_READ = 256 << 10
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
#: Other compressions that people hand us, to be named in the refusal.
_FOREIGN = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x04\x22\x4d\x18": "lz4"}
#: What decoders must support by default is 8 MiB (RFC 8878, 3.1.1.1.2); ``zstd --long`` takes 128.
_ZSTD_WINDOW = 128 << 20
#: A whole frame, of one run-length block: decoded it is 4,096 bytes, of a kind that its own 14
#: bytes don't hold.
_SENTINEL_DATA = b"\xc5" * 4096
_SENTINEL = _ZSTD_MAGIC + b"\x60\x00\x0f" + (4096 << 3 | 0b011).to_bytes(3, "little") + b"\xc5"


class HashingReader(io.BufferedIOBase):
    """Read through, counting and hashing: the digest of a blob while it is being used."""

    def __init__(self, raw: BinaryIO, algorithm: str = "sha256") -> None:
        self._raw = raw
        self._hasher = hashlib.new(algorithm)
        self.size = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        data = self._raw.read(-1 if size is None else size)
        self._hasher.update(data)
        self.size += len(data)
        return data

    def read1(self, size: int = -1, /) -> bytes:
        return self.read(_READ if size < 0 else size)

    def drain(self) -> None:
        """Read what is left: a digest covers what a decompressor had no use for, too."""
        while self.read(_READ):
            pass

    @property
    def digest(self) -> str:
        """``sha256:…`` of what was read so far."""
        return f"{self._hasher.name}:{self._hasher.hexdigest()}"


class _Counted:
    """The compressed side: counts, gives the sniffed bytes back, ends with an optional tail."""

    def __init__(self, raw: BinaryIO, head: bytes, tail: bytes = b"") -> None:
        self._raw = raw
        self._head = head
        self._tail = tail
        self.size = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._head or self._raw.read(_READ if size < 0 else size)
        self._head = b""
        self.size += len(data)
        if not data:
            data, self._tail = self._tail, b""
        return data


class _Decompressing(io.BufferedIOBase):
    """Common part: ``read`` on top of ``_some``, and the bound on the ratio."""

    def __init__(self, source: _Counted, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._made = 0
        self._left = b""

    def readable(self) -> bool:
        return True

    def _some(self, size: int) -> bytes:
        raise NotImplementedError

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(_READ), b""))
        parts: list[bytes] = []
        while size:
            data = self._some(size)
            if not data:
                break
            parts.append(data)
            size -= len(data)
            self._made += len(data)
        self._check_ratio()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read1(self, size: int = -1, /) -> bytes:
        return self.read(_READ if size < 0 else size)

    def _check_ratio(self) -> None:
        limits = self._limits
        if self._made > max(limits.ratio_floor, limits.ratio * self._source.size):
            raise limits.exceeded("ratio", "ratio of unpacked to compressed bytes")


class _Plain(_Decompressing):
    def _some(self, size: int) -> bytes:
        if not self._left:
            self._left = self._source.read(max(size, 6))
        data, self._left = self._left[:size], self._left[size:]
        return data

    def _check_ratio(self) -> None:
        pass


class _Gzip(_Decompressing):
    def __init__(self, source: _Counted, limits: Limits) -> None:
        super().__init__(source, limits)
        self._decoder: GzipDecoder | None = gzip_decoder()
        self._input = b""
        self._pending = False

    def _some(self, size: int) -> bytes:
        try:
            return self._decode(size)
        except gzip_errors as error:
            raise ArchiveError(f"gzip stream is damaged ({error})") from None

    def _decode(self, size: int) -> bytes:
        while self._decoder is not None:
            if not self._pending and not self._input:
                self._input = self._source.read(_READ)
                if not self._input:
                    raise ArchiveError("gzip stream ends early; the source is truncated")
            taken, self._input = self._input, b""
            data = self._decoder.decompress(taken, size)
            # A full piece means that there may be more without more input.
            self._pending = len(data) == size
            if self._decoder.eof:
                self._pending = False
                self._next_member(self._decoder.unused_data)
            if data:
                return data
        return b""

    def _next_member(self, rest: bytes) -> None:
        # Padding with zeros is customary on tapes; Go, and so Docker, refuses any other garbage.
        while not (rest := rest.lstrip(b"\0")):
            rest = self._source.read(_READ)
            if not rest:
                self._decoder = None
                return
        if len(rest) == 1:
            rest += self._source.read(_READ)
        if not rest.startswith(_GZIP_MAGIC):
            raise ArchiveError("gzip stream is followed by garbage")
        self._input = rest
        self._decoder = gzip_decoder()


class _Zstd(_Decompressing):
    """zstd, whose Python reader takes a truncated stream for a finished one.

    So a frame of our own is put behind the input. If its content comes out at the end, all frames
    before it were whole; it is held back.
    """

    def __init__(self, source: _Counted, limits: Limits) -> None:
        import zstandard

        super().__init__(source, limits)
        self._error = zstandard.ZstdError
        self._reader = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).stream_reader(
            cast(BinaryIO, source), read_size=_READ, read_across_frames=True, closefd=False
        )
        self._done = False

    def _some(self, size: int) -> bytes:
        while not self._done and len(self._left) <= len(_SENTINEL_DATA):
            try:
                data = self._reader.read(max(size, 128 << 10))
            except self._error as error:
                raise ArchiveError(f"zstd stream is damaged or truncated ({error})") from None
            self._left += data
            if not data:
                self._done = True
                if not self._source.size or not self._left.endswith(_SENTINEL_DATA):
                    raise ArchiveError("zstd stream ends early; the source is truncated")
        data = self._left[: min(size, max(0, len(self._left) - len(_SENTINEL_DATA)))]
        self._left = self._left[len(data) :]
        return data


class ZstdFrames:
    """Unpacks short frames, each at once: for a few KB a stream takes longer than their content."""

    def __init__(self) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._promised = zstandard.frame_content_size
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)

    def unpack(self, packed: bytes, size: int) -> bytes | None:
        """Return the ``size`` bytes in a frame; None: it isn't one whole frame with so many."""
        try:
            # Memory is taken for what the frame promises, whatever the limit.
            if self._promised(packed) not in (size, -1):
                return None
            data = self._decompressor.decompress(
                packed, max_output_size=size, allow_extra_data=False
            )
        except self._error:
            return None
        return data if len(data) == size else None


def decompressor(
    raw: BinaryIO, compression: Compression | None = None, *, limits: Limits = DEFAULT_LIMITS
) -> BinaryIO:
    """Return the uncompressed stream behind ``raw``; None: look at its first bytes.

    Reading it raises ``ArchiveError`` where the compressed stream is damaged, and
    ``LimitExceededError`` where it expands beyond ``limits.ratio``.
    """
    head = b""
    if compression is None:
        while len(head) < 6 and (data := raw.read(6 - len(head))):
            head += data
        compression = _sniff(head)
    if compression == "zstd":
        return cast(BinaryIO, _Zstd(_Counted(raw, head, _SENTINEL), limits))
    kind = _Gzip if compression == "gzip" else _Plain
    return cast(BinaryIO, kind(_Counted(raw, head), limits))


def _sniff(head: bytes) -> Compression:
    if head.startswith(_GZIP_MAGIC):
        return "gzip"
    # A zstd stream may begin with a skippable frame (RFC 8878, 3.1.2), as zstd:chunked's do.
    if head.startswith(_ZSTD_MAGIC) or (head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5):
        return "zstd"
    for magic, name in _FOREIGN.items():
        if head.startswith(magic):
            raise UnsupportedError(f"layer is compressed with {name}; gzip and zstd are read")
    return "none"


class _Compressing(io.BufferedIOBase):
    """A file that compresses what is written; closing ends the stream, not the file behind it."""

    def __init__(self, out: BinaryIO, encoder: _Encoder | None) -> None:
        self._out = out
        self._encoder = encoder

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override]
        if self._encoder is None:
            self._out.write(data)
        elif packed := self._encoder.compress(data):
            self._out.write(packed)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            if self._encoder is not None:
                self._out.write(self._encoder.flush())
            super().close()


class _Encoder(Protocol):
    def compress(self, data: bytes | bytearray | memoryview, /) -> bytes: ...
    def flush(self) -> bytes: ...


def compressor(out: BinaryIO, compression: Compression, level: int | None = None) -> BinaryIO:
    """Return a file whose content arrives compressed in ``out``. Close it to end the stream.

    Equal content makes equal bytes with one version of the libraries: gzip's header has neither
    name nor time.
    """
    encoder: _Encoder | None = None
    if compression == "gzip":
        encoder = cast("_Encoder", zlib.compressobj(6 if level is None else level, wbits=31))
    elif compression == "zstd":
        import zstandard

        encoder = cast(
            "_Encoder",
            zstandard.ZstdCompressor(
                level=3 if level is None else level, write_checksum=True
            ).compressobj(),
        )
    return cast(BinaryIO, _Compressing(out, encoder))
