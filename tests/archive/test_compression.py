"""Compressed streams: whole, concatenated, cut, damaged, followed by garbage."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable
from typing import BinaryIO, cast

import pytest
import zstandard

from cowshed.archive import HashingReader, Limits, compressor, decompressor
from cowshed.archive import compression as module
from cowshed.archive.compression import Compression
from cowshed.archive.inflate import ZlibDecoder
from cowshed.errors import ArchiveError, LimitExceededError, UnsupportedError

TEXT = b"".join(b"%d," % (n * n) for n in range(100_000))
KINDS: list[Compression] = ["gzip", "zstd"]


@pytest.fixture(params=["igzip", "zlib"], autouse=True)
def inflate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "zlib":
        monkeypatch.setattr(module, "gzip_decoder", ZlibDecoder)


def pack(data: bytes, kind: Compression) -> bytes:
    out = io.BytesIO()
    with compressor(out, kind) as file:
        for at in range(0, len(data), 10_000):
            file.write(data[at : at + 10_000])
    return out.getvalue()


def unpack(data: bytes, kind: Compression | None = None, size: int = -1) -> bytes:
    file = decompressor(io.BytesIO(data), kind)
    return b"".join(iter(lambda: file.read(size), b""))


@pytest.mark.parametrize("size", [-1, 1 << 20, 1000])
@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_what_was_packed_is_unpacked(kind: Compression, size: int) -> None:
    assert unpack(pack(TEXT, kind), size=size) == TEXT
    assert unpack(pack(TEXT, kind), kind, size) == TEXT
    assert pack(TEXT, kind) == pack(TEXT, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_members_in_a_row_are_one_stream(kind: Compression) -> None:
    assert unpack(pack(TEXT, kind) + pack(b"", kind) + pack(b"end", kind)) == TEXT + b"end"


def test_skippable_frames_and_zero_padding_are_skipped() -> None:
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
    assert unpack(skippable + pack(TEXT, "zstd") + skippable) == TEXT
    assert unpack(pack(TEXT, "gzip") + bytes(700_000)) == TEXT


@pytest.mark.parametrize("kind", KINDS)
def test_every_cut_is_noticed(kind: Compression) -> None:
    packed = pack(TEXT, kind)
    for length in [
        *range(6, 40),
        *range(100, len(packed), 9973),
        *range(len(packed) - 12, len(packed)),
    ]:
        with pytest.raises(ArchiveError):
            unpack(packed[:length], kind)
    with pytest.raises(ArchiveError):
        unpack(b"", kind)


@pytest.mark.parametrize("kind", KINDS)
def test_cut_incompressible_data_is_noticed(kind: Compression) -> None:
    packed = pack(hashlib.shake_256(b"").digest(300_000), kind)
    for length in range(1000, len(packed), 20011):
        with pytest.raises(ArchiveError):
            unpack(packed[:length])


@pytest.mark.parametrize("kind", KINDS)
def test_garbage_after_the_end_is_an_error(kind: Compression) -> None:
    for garbage in (b"x", b"garbage", b"garbage" * 100_000):
        with pytest.raises(ArchiveError):
            unpack(pack(TEXT, kind) + garbage)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_noticed(kind: Compression) -> None:
    packed = pack(TEXT, kind)
    for at in range(20, len(packed), 5003):
        damaged = packed[:at] + bytes([packed[at] ^ 0x10]) + packed[at + 1 :]
        with pytest.raises(ArchiveError) as caught:
            unpack(damaged, kind)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("head", [b"BZh91AY", b"\xfd7zXZ\0\0", b"\x04\x22\x4d\x18xx"])
def test_other_compressions_are_named(head: bytes) -> None:
    with pytest.raises(UnsupportedError, match=r"bzip2|xz|lz4"):
        unpack(head)


def test_a_window_that_would_eat_the_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=28)
    packed = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(ArchiveError, match="memory"):
        unpack(packed.compress(TEXT) + packed.flush())


def bomb(kind: Compression) -> bytes:
    return pack(bytes(64 << 20), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bomb_meets_the_ratio_in_bounded_pieces(kind: Compression) -> None:
    limits = Limits(ratio=100, ratio_floor=1 << 20)
    file = decompressor(io.BytesIO(bomb(kind)), limits=limits)
    with pytest.raises(LimitExceededError) as caught:
        while file.read(1 << 20):
            pass
    assert caught.value.option == "limits.ratio"


def test_hashing_covers_what_the_decompressor_leaves() -> None:
    data = pack(TEXT, "gzip") + bytes(900_000)
    raw = HashingReader(io.BytesIO(data))
    decompressor(cast(BinaryIO, raw)).read(10)
    raw.drain()
    assert raw.size == len(data)
    assert raw.digest == "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("make", [gzip.compress, lambda data: zlib.compress(data, wbits=31)])
def test_other_writers_gzip_is_read(make: Callable[[bytes], bytes]) -> None:
    assert unpack(make(TEXT)) == TEXT
