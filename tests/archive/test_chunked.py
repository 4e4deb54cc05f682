"""zstd:chunked: what is written unpacks to the tar, describes it truly, or describes nothing."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import struct
import tarfile
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import zstandard

from cowshed.archive import Limits, ZstdFrames, decompressor
from cowshed.archive.chunked import Table, table_of, write_chunked
from cowshed.archive.chunked.contents import read_contents
from cowshed.archive.chunked.tar_split import read_tar_split
from cowshed.arrivals import Arrivals, coalesced
from cowshed.errors import ArchiveError, LimitExceededError, SourceError

from .helpers import Member, directory, file, link, member, symlink, tar

ZSTD = "io.github.containers.zstd-chunked."
NOISE = random.Random(7).randbytes(3_000_000)


def written(data: bytes, level: int = 3) -> tuple[bytes, Mapping[str, str]]:
    out = io.BytesIO()
    notes = write_chunked(io.BytesIO(data), out, level)
    return out.getvalue(), notes


def opened(blob: bytes, notes: Mapping[str, str]) -> Table:
    table = table_of(notes, len(blob))
    assert table is not None
    return table


def entries(blob: bytes, notes: Mapping[str, str]) -> list[dict[str, Any]]:
    start, size, plain, kind = (int(text) for text in notes[f"{ZSTD}manifest-position"].split(":"))
    raw = zstandard.ZstdDecompressor().decompressobj().decompress(blob[start : start + size])
    assert (len(raw), kind) == (plain, 1)
    found: list[dict[str, Any]] = json.loads(raw)["entries"]
    return found


def put_together(blob: bytes, notes: Mapping[str, str]) -> bytes:
    """Make the tar of the tar-split data and every piece by itself."""
    table = opened(blob, notes)
    contents = table.read(lambda start, end: blob[start:end], Limits())
    parts = table.between(Limits())
    assert parts is not None
    files = iter(contents.files)
    made = b""
    for part in parts:
        if isinstance(part, bytes):
            made += part
            continue
        one = next(files)
        assert one.size == part
        for piece in one.pieces:
            with decompressor(io.BytesIO(blob[piece.start : piece.end]), "zstd") as plain:
                data = plain.read()
            assert (len(data), hashlib.sha256(data).digest()) == (piece.size, piece.digest)
            made += data
    assert next(files, None) is None
    return made


TARS: dict[str, list[Member]] = {
    "nothing": [],
    "files": [directory("d"), file("d/a", b"text" * 1000), file("d/empty"), file("d/b", b"1")],
    "a large file": [file("big", NOISE), file("after", b"x")],
    "zeros": [file("zeros", bytes(1_000_000) + b"end" + bytes(600_000))],
    "links and devices": [
        file("f", b"f" * 600),
        symlink("f", "s"),
        link("f", "h"),
        member("c", tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("p", tarfile.FIFOTYPE),
        file(".wh.gone"),
    ],
    "long names": [file("n" * 250 + "/" + "m" * 200, b"long"), symlink("t" * 300, "s")],
    "attributes": [
        file(
            "x",
            b"x",
            mode=0o4755,
            uid=3_000_000_000,
            mtime=1_600_000_000.25,
            pax_headers={"SCHILY.xattr.user.a": "b", "atime": "5.5"},
        )
    ],
}


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("name", TARS)
def test_a_layer_unpacks_to_its_tar_as_a_whole_and_in_pieces(name: str, format: int) -> None:
    data = tar(*TARS[name], format=format)
    for whole in (data, data + bytes(5000)):
        blob, notes = written(whole)
        with decompressor(io.BytesIO(blob), "zstd") as plain:
            assert plain.read() == whole
        assert put_together(blob, notes) == whole


def test_entries_say_what_the_headers_say() -> None:
    (one,) = entries(*written(tar(*TARS["attributes"])))
    assert one.pop("offset") < one.pop("endOffset")
    assert one == {
        "type": "reg",
        "name": "x",
        "mode": 0o4755,
        "size": 1,
        "uid": 3_000_000_000,
        "modtime": "2020-09-13T12:26:40.25Z",
        "accesstime": "1970-01-01T00:00:05.5Z",
        "xattrs": {"user.a": "Yg=="},
        "digest": f"sha256:{hashlib.sha256(b'x').hexdigest()}",
    }


def test_a_large_file_is_cut_by_content() -> None:
    """What is put in front moves the chunks behind it, and doesn't change them."""
    digests: list[set[str]] = []
    for data in (NOISE, b"in front" + NOISE):
        found = entries(*written(tar(file("big", data))))
        assert sum(one["chunkSize"] for one in found) == len(data)
        digests.append({one["chunkDigest"] for one in found})
    assert len(digests[0]) > 20
    assert len(digests[0] & digests[1]) >= len(digests[0]) - 2


def test_the_same_tar_makes_the_same_blob() -> None:
    data = tar(*TARS["files"], *TARS["a large file"])
    assert written(data) == written(data)


@pytest.mark.parametrize(
    "odd",
    [
        [file("a", b"1"), file("a", b"2")],
        [file("not-\udcff-text", b"1")],
        [member("a", tarfile.CONTTYPE, b"1")],
        [member("a", tarfile.AREGTYPE, b"1")],
        [member("g", tarfile.XGLTYPE, b"13 comment=x\n"), file("a", b"1")],
        [file("before", b"1"), file("early", b"1", mtime=-5)],
    ],
    ids=["names twice", "no UTF-8", "contiguous", "old", "global header", "before 1970"],
)
def test_what_others_might_read_otherwise_gets_no_table(odd: list[Member]) -> None:
    data = tar(file("first", NOISE[:200_000]), *odd, file("last", b"2"), format=tarfile.GNU_FORMAT)
    blob, notes = written(data)
    assert notes == {}
    with decompressor(io.BytesIO(blob), "zstd") as plain:
        assert plain.read() == data


def test_a_damaged_tar_is_an_error() -> None:
    for data in (b"x" * 5000, tar(file("a", NOISE[:5000]))[:3000]):
        with pytest.raises(ArchiveError):
            written(data)


def test_both_footers_say_where_the_table_is() -> None:
    """containers/storage's, of eight numbers, and behind it the stargz snapshotter's, of five."""
    blob, notes = written(tar(file("a", b"text" * 1000)))
    place = [int(text) for text in notes[f"{ZSTD}manifest-position"].split(":")]
    split = [int(text) for text in notes[f"{ZSTD}tarsplit-position"].split(":")]
    long, short = blob[-120:-48], blob[-48:]
    assert long[:8] == b"\x50\x2a\x4d\x18" + (64).to_bytes(4, "little")
    assert struct.unpack("<7Q8s", long[8:]) == (*place, *split, b"GNUlInUx")
    assert short[:8] == b"\x50\x2a\x4d\x18" + (40).to_bytes(4, "little")
    assert struct.unpack("<4Q8s", short[8:]) == (*place, b"GnUlInUx")


# -- short frames --------------------------------------------------------------------------------


@pytest.mark.parametrize("promise", [True, False])
def test_a_short_frame_is_unpacked_at_once(promise: bool) -> None:
    packed = zstandard.ZstdCompressor(write_content_size=promise).compress(b"text" * 1000)
    assert ZstdFrames().unpack(packed, 4000) == b"text" * 1000


FRAME = zstandard.compress(b"text" * 1000)
#: A frame's header (RFC 8878, 3.1.1.1) that promises 2⁵⁰ bytes.
BOAST = b"\x28\xb5\x2f\xfd\xe0" + (1 << 50).to_bytes(8, "little") + FRAME[6:]


@pytest.mark.parametrize(
    ("packed", "size"),
    [
        (FRAME, 3999),
        (FRAME, 4001),
        (FRAME[:-3], 4000),
        (FRAME + FRAME, 4000),
        (FRAME + b"more", 4000),
        (b"\x50\x2a\x4d\x18\x02\0\0\0ab" + FRAME, 4000),
        (BOAST, 4000),
        (b"", 4000),
        (b"nothing of the kind", 4000),
        (zstandard.ZstdCompressor(write_content_size=False).compress(bytes(5000)), 4000),
    ],
)
def test_what_is_not_one_frame_of_that_size_is_left_to_a_closer_look(
    packed: bytes, size: int
) -> None:
    assert ZstdFrames().unpack(packed, size) is None


# -- tar-split data ------------------------------------------------------------------------------


def slow_crc64(data: bytes) -> bytes:
    """ISO 3309's, bit by bit, as in Go's hash/crc64."""
    state = (1 << 64) - 1
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0xD800000000000000 if state & 1 else 0)
    return (state ^ (1 << 64) - 1).to_bytes(8, "big")


def test_tar_split_data_has_every_files_checksum() -> None:
    """Whoever puts the tar together from it compares them; a large file is read in pieces."""
    assert slow_crc64(b"123456789").hex() == "b90956c775a41001"
    contents = {"a": b"text" * 100, "empty": b"", "big": NOISE[:400_000]}
    blob, notes = written(tar(*(file(name, data) for name, data in contents.items())))
    start, size, _ = (int(text) for text in notes[f"{ZSTD}tarsplit-position"].split(":"))
    raw = zstandard.ZstdDecompressor().decompressobj().decompress(blob[start : start + size])
    lines = [json.loads(line) for line in raw.splitlines()]
    found = {one["name"]: one.get("payload") for one in lines if one["type"] == 1}
    assert found.pop("empty") is None
    assert found == {
        name: base64.b64encode(slow_crc64(data)).decode() for name, data in contents.items() if data
    }


# -- bounds --------------------------------------------------------------------------------------


def test_a_table_has_no_more_entries_than_a_layer_may() -> None:
    blob, notes = written(tar(*(file(f"f{n}", b"x") for n in range(20))))
    with pytest.raises(LimitExceededError):
        opened(blob, notes).read(lambda start, end: blob[start:end], Limits(entries=19))


@pytest.mark.parametrize("junk", [b"[],", b"{},", b"[[[[]]]],"])
def test_a_table_of_brackets_is_not_parsed(junk: bytes) -> None:
    raw = b'{"version":1,"x":[' + junk * 300_000 + b'0],"entries":[]}'
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError, match="brackets"):
            read_contents(raw, 0, 0, Limits(), tails=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


def test_tar_split_data_has_no_endless_line() -> None:
    line = b'{"type":2,"payload":"' + b"A" * (8 << 20) + b'"}'
    with pytest.raises(LimitExceededError):
        list(read_tar_split(io.BytesIO(line), Limits()))


# -- ranges --------------------------------------------------------------------------------------


def test_ranges_near_each_other_become_one() -> None:
    assert coalesced([(50, 60), (0, 10), (12, 20), (15, 30)], 2) == [(0, 30), (50, 60)]


@pytest.mark.parametrize(
    ("offset", "data"), [(0, b"12345"), (5, b"x"), (100, b"x"), (1, b"x")], ids=str
)
def test_bytes_that_nobody_awaits_are_refused(tmp_path: Any, offset: int, data: bytes) -> None:
    with (tmp_path / "ranges").open("w+b") as place:
        arrivals = Arrivals(place.fileno(), [(0, 4), (10, 12)])
        with pytest.raises(SourceError):
            arrivals.put(offset, data)
        arrivals.put(0, b"12")
        arrivals.put(10, b"56")
        arrivals.put(2, b"34")
        assert arrivals.open(0, 4).read() == b"1234"
        assert arrivals.open(11, 12).read() == b"6"
        assert arrivals.missing() == []


def kept(path: Path, ranges: list[tuple[int, int]], *puts: tuple[int, bytes]) -> list[Any]:
    """Open a file of arrivals, put pieces, and return what is missing then."""
    with path.open("r+b" if path.exists() else "w+b") as place:
        arrivals = Arrivals(place.fileno(), ranges)
        for offset, data in puts:
            arrivals.put(offset, data)
        return arrivals.missing()


def test_a_later_run_finds_what_came_though_it_wants_other_ranges(tmp_path: Path) -> None:
    path = tmp_path / "parts"
    assert kept(path, [(0, 9), (20, 30)], (0, b"01"), (20, b"abc"), (2, b"2")) == [(3, 9), (23, 30)]
    assert kept(path, [(3, 5), (18, 21), (22, 25)], (3, b"34")) == [(18, 20), (23, 25)]
    assert kept(path, [(0, 5), (20, 23)]) == []
    with path.open("r+b") as place:
        arrivals = Arrivals(place.fileno(), [(0, 5), (20, 26)])
        assert arrivals.open(1, 5).read() == b"1234"
        arrivals.put(23, b"def")
        assert arrivals.open(21, 26).read() == b"bcdef"


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (lambda data: data[:-1], [(10, 20)]),
        (lambda data: data[:-12], [(10, 20)]),
        (lambda data: data[:-10] + bytes(10), [(10, 20)]),
        (lambda data: data + bytes(4096), []),
        (lambda data: data + b"\xff" * 40, []),
        (lambda data: bytes(len(data)), [(0, 20)]),
        (lambda data: b"\x01" + data[1:], [(0, 20)]),
    ],
    ids=["cut in a piece", "cut in a header", "zeros", "zeros behind", "noise", "lost", "moved"],
)
def test_what_a_power_cut_left_is_fetched_again(
    tmp_path: Path, damage: Callable[[bytes], bytes], left: list[tuple[int, int]]
) -> None:
    path = tmp_path / "parts"
    assert kept(path, [(0, 20)], (0, bytes(range(10))), (10, bytes(range(10, 20)))) == []
    path.write_bytes(damage(path.read_bytes()))
    assert kept(path, [(0, 20)]) == left
    data = bytes(range(20))
    assert kept(path, [(0, 20)], *((start, data[start:end]) for start, end in left)) == []
    with path.open("r+b") as place:
        assert Arrivals(place.fileno(), [(0, 20)]).open(0, 20).read() == data
