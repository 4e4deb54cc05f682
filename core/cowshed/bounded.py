"""Bounded: a file of exactly so many bytes, whatever happens to it while it is read."""

from __future__ import annotations

import io
from typing import BinaryIO, cast

from .errors import BusyError


class _Exactly(io.BufferedIOBase):
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = self._left if size is None or size < 0 else min(size, self._left)
        data = self._file.read(wanted)
        if len(data) < wanted:
            raise BusyError(f"{self._file.name} became shorter while it was read; try again")
        self._left -= len(data)
        return data

    def read1(self, size: int = -1, /) -> bytes:
        return self.read(size)

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def exactly(file: BinaryIO, size: int) -> BinaryIO:
    """Let ``size`` bytes of ``file`` be read; BusyError where it has become shorter."""
    return cast(BinaryIO, _Exactly(file, size))
