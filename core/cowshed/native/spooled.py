"""Spooled: texts in their order, such as a directory's names, of which few are in memory."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from types import TracebackType

#: Bytes in memory.
_NEAR = 64 << 10


class Spooled:
    """Names or paths, up to 65,535 bytes each. More may come while they are looked through."""

    def __init__(self, directory: str) -> None:
        """``directory``: where the file is to be, which has no name."""
        from tempfile import SpooledTemporaryFile  # with random: 3 ms

        self._file = SpooledTemporaryFile(_NEAR, dir=directory)  # noqa: SIM115
        self._lengths = array("H")
        self._end = 0

    def __enter__(self) -> Spooled:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def append(self, text: str) -> None:
        """Add one."""
        data = os.fsencode(text)
        self._file.seek(self._end)
        self._file.write(data)
        self._end += len(data)
        self._lengths.append(len(data))

    def __iter__(self) -> Iterator[str]:
        at = index = 0
        while index < len(self._lengths):
            yield self._read(at, index)
            at += self._lengths[index]
            index += 1

    def __reversed__(self) -> Iterator[str]:
        at = self._end
        for index in range(len(self._lengths) - 1, -1, -1):
            at -= self._lengths[index]
            yield self._read(at, index)

    def _read(self, at: int, index: int) -> str:
        self._file.seek(at)
        return os.fsdecode(self._file.read(self._lengths[index]))
