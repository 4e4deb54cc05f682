"""Sparse: the four ways in which GNU tar describes holes, as one list of runs.

GNU tar manual, "Storing Sparse Files": the old GNU type ``S``, and pax versions 0.0, 0.1 and 1.0. A
run is (offset in the file, bytes of data). Maps are untrusted: they are bounded in size before
they are read (CVE-2025-58183), and must be in order, apart, inside the file and add up to the
bytes that are stored.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import UnsupportedError
from .feed import Run
from .header import BLOCK, Header, damaged, read_number
from .pax import SPARSE_MAP, read_decimal

#: Takes one block from the tar and keeps it for the recipe.
TakeBlock = Callable[[], bytes]


def is_sparse(pax: dict[bytes, bytes]) -> bool:
    """Say whether an extended header describes a sparse file."""
    return b"GNU.sparse.major" in pax or b"GNU.sparse.size" in pax or SPARSE_MAP in pax


def read_old(header: Header, take: TakeBlock, limit: int, offset: int) -> tuple[int, list[Run]]:
    """Read type ``S``: four runs in the header, 21 in each extension block; (size, runs)."""
    block = header.block
    runs: list[Run] = []
    try:
        if not header.gnu:
            raise ValueError("not a GNU header")
        size = read_number(block[483:495])
        _old_runs(block[386:482], runs)
        more = block[482]
        while more:
            if len(runs) * 24 > limit:
                raise ValueError("a sparse map that is too long")
            block = take()
            _old_runs(block[:504], runs)
            more = block[504]
    except ValueError as error:
        raise damaged(f"a malformed sparse header ({error})", offset) from None
    return size, runs


def _old_runs(data: bytes, runs: list[Run]) -> None:
    for at in range(0, len(data), 24):
        if not data[at]:
            return
        runs.append((read_number(data[at : at + 12]), read_number(data[at + 12 : at + 24])))


def read_pax(
    pax: dict[bytes, bytes], take: TakeBlock, limit: int, offset: int
) -> tuple[int, list[Run], int]:
    """Read versions 0.0, 0.1 and 1.0. Returns (size, runs, bytes of map taken from the content)."""
    version = pax.get(b"GNU.sparse.major", b"0"), pax.get(b"GNU.sparse.minor", b"1")
    try:
        if version == (b"1", b"0"):
            size = read_decimal(pax[b"GNU.sparse.realsize"])
            runs, taken = _read_map(take, limit)
            return size, runs, taken
        if version in ((b"0", b"0"), (b"0", b"1")):
            size = read_decimal(pax[b"GNU.sparse.size"])
            numbers = [read_decimal(item) for item in pax.get(SPARSE_MAP, b"").split(b",") if item]
            if len(numbers) % 2 or pax.get(SPARSE_MAP, b"").count(b",") >= max(1, len(numbers)):
                raise ValueError("an odd sparse map")
            return size, list(zip(numbers[::2], numbers[1::2], strict=True)), 0
    except (ValueError, KeyError) as error:
        raise damaged(f"a malformed sparse header ({error})", offset) from None
    name = b".".join(version).decode(errors="replace")
    raise UnsupportedError(f"layer tar holds a sparse file of unknown version {name!r}")


def _read_map(take: TakeBlock, limit: int) -> tuple[list[Run], int]:
    """Version 1.0: decimal lines in front of the content, the first says how many runs follow."""
    buffer = b""
    taken = 0
    numbers: list[int] = []
    wanted = 1
    while len(numbers) < wanted:
        if taken > limit:
            raise ValueError("a sparse map that is too long")
        buffer += take()
        taken += BLOCK
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            if len(numbers) < wanted:
                numbers.append(read_decimal(line))
                if len(numbers) == 1:
                    wanted = 1 + 2 * numbers[0]
        if len(buffer) > BLOCK:
            raise ValueError("a number that doesn't end")
        if wanted > limit:
            raise ValueError("a sparse map that is too long")
    return list(zip(numbers[1::2], numbers[2::2], strict=True)), taken


def check_runs(runs: list[Run], size: int, stored: int, offset: int) -> None:
    """Refuse a map whose runs overlap, stray out of the file or don't match what is stored."""
    end = total = 0
    for start, length in runs:
        if start < end or length < 0:
            raise damaged("a sparse map with overlapping runs", offset)
        end = start + length
        total += length
    if size < 0 or end > size:
        raise damaged("a sparse map that reaches beyond its file", offset)
    if total != stored:
        raise damaged("a sparse map that doesn't match its content", offset)
