"""Synthetic trees, drawn from a seed: the same everywhere, and of any size.

Modelled on a Debian root file system with Python packages: 8,742 entries in 150 MB, the median file
2 KB and the mean 17 KB, which a log-normal distribution with σ = 2.07 gives; one entry in ten a
directory, one in twenty a symbolic link. Text compresses about threefold, binaries hardly; one file
in twenty-five is a copy of another, as licences are. Nothing is filled with zeros.
"""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Iterator
from typing import IO, BinaryIO

import attrs

from .oci_layout import Layer, LayoutWriter

#: ln of the median, 2,000 bytes, and the spread.
MU, SIGMA = 7.6, 2.07
LARGEST = 16 << 20
WHEN = 1_700_000_000
#: How much of an image each layer brings, base first.
SHARES = (0.5, 0.3, 0.15, 0.05)
_LETTERS = bytes(
    b" etaoinshrdlucmfwypvbgkjqxz_.,;(){}[]=0123456789\nETAOINSH"[n % 57] for n in range(256)
)


def make_synthetic(writer: LayoutWriter, size: int, seed: int) -> list[Layer]:
    """Draw an image of ``size`` bytes of files, in four layers."""
    layers: list[Layer] = []
    for number, share in enumerate(SHARES):
        draw = random.Random(f"{seed} {number}")

        def write(out: BinaryIO, draw: random.Random = draw, share: float = share) -> None:
            _Tree(draw, f"layer{number}", int(size * share)).write(out)  # noqa: B023 - used at once

        layers.append(writer.layer(f"synthetic layer {number}", write))
    return layers


@attrs.frozen
class _Tree:
    draw: random.Random
    root: str
    size: int

    def write(self, out: BinaryIO) -> None:
        draw = self.draw
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            _add(tar, self.root, tarfile.DIRTYPE)
            directories = [self.root]
            files: list[tuple[str, bytes]] = []
            left = self.size
            number = 0
            while left > 0:
                number += 1
                parent = draw.choice(directories[-40:])
                kind = draw.random()
                path = f"{parent}/{draw.choice(_STEMS)}{number}"
                if kind < 0.1 and parent.count("/") < 8:
                    _add(tar, path, tarfile.DIRTYPE)
                    directories.append(path)
                elif kind < 0.15 and files:
                    _add(
                        tar, path, tarfile.SYMTYPE, target=draw.choice(files)[0].rpartition("/")[2]
                    )
                elif kind < 0.19 and files:
                    content = draw.choice(files)[1]
                    _add(tar, path, tarfile.REGTYPE, content)
                    left -= len(content)
                else:
                    content = content_of(draw, min(file_size(draw), max(left, 1)))
                    _add(tar, path, tarfile.REGTYPE, content)
                    left -= len(content)
                    if len(content) < 1 << 16:
                        files = [*files[-199:], (path, content)]


def file_size(draw: random.Random) -> int:
    """Draw the size of a file."""
    return max(1, min(int(draw.lognormvariate(MU, SIGMA)), LARGEST))


def content_of(draw: random.Random, size: int) -> bytes:
    """Draw a file's content: text of lines that come again, or for one in four a binary."""
    if draw.random() < 0.25:
        return b"".join(blocks(draw, size))
    lines = draw.randbytes(max(40, size // 3)).translate(_LETTERS)
    starts = range(0, len(lines), 40)
    picked = draw.choices(starts, k=size // 40 + 1)
    return b"".join(lines[start : start + 40] for start in picked)[:size]


def blocks(draw: random.Random, size: int) -> Iterator[bytes]:
    """Draw content of which one half compresses a little and the other not at all."""
    while size > 0:
        step = min(size, 1 << 16)
        half = draw.randbytes(step // 2)
        yield half
        yield draw.randbytes(step - step // 2).translate(_LETTERS)
        size -= step


def big_file(out: BinaryIO, name: str, size: int, seed: int) -> None:
    """Write a tar of one file of ``size`` bytes."""
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        member = _member(name, tarfile.REGTYPE)
        member.size = size
        tar.addfile(member, _Blocks(blocks(random.Random(seed), size)))


class _Blocks(io.RawIOBase, IO[bytes]):
    """Reads what a generator yields."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        found = bytearray(self._rest)
        while len(found) < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            found += piece
        self._rest = bytes(found[size:])
        return bytes(found[:size])


def thin_layer(out: BinaryIO, number: int, seed: int) -> None:
    """Write the tar of a thin layer: a few new files, and one that every layer changes."""
    draw = random.Random(f"{seed} thin {number}")
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, "deep", tarfile.DIRTYPE)
        _add(tar, "deep/top", tarfile.REGTYPE, content_of(draw, 4000))
        _add(tar, f"deep/layer{number}", tarfile.DIRTYPE)
        for other in range(6):
            content = content_of(draw, min(file_size(draw), 1 << 16))
            _add(tar, f"deep/layer{number}/file{other}", tarfile.REGTYPE, content)


def _member(path: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.type, member.mtime = kind, WHEN
    member.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    return member


def _add(
    tar: tarfile.TarFile, path: str, kind: bytes, content: bytes = b"", target: str = ""
) -> None:
    member = _member(path, kind)
    member.size, member.linkname = len(content), target
    tar.addfile(member, io.BytesIO(content))


_STEMS = (
    "lib",
    "main",
    "test_case",
    "README",
    "config",
    "data-",
    "module",
    "index",
    "x",
    "LICENSE",
)
