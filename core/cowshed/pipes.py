"""A writer's output read as a file: for code that writes where other code wants to read."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from typing import Any, BinaryIO


class PipedWriter(io.RawIOBase):
    """Run ``write`` in a thread, its output readable here; its error is raised at the end.

    Closing early makes the writer fail with ``BrokenPipeError`` and waits for it. ``write`` must
    open what it reads itself: some stores' handles belong to one thread.
    """

    def __init__(self, write: Callable[[BinaryIO], object]) -> None:
        super().__init__()
        reader, writer = os.pipe()
        self._reader = os.fdopen(reader, "rb", buffering=0)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(write, writer), daemon=True)
        self._thread.start()

    def _run(self, write: Callable[[BinaryIO], object], descriptor: int) -> None:
        try:
            with os.fdopen(descriptor, "wb", buffering=1 << 18) as out:
                write(out)
        except BaseException as error:
            self._error = error

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._reader.readinto(buffer) or 0
        if not count and len(buffer):
            self._thread.join()
            if self._error is not None:
                error, self._error = self._error, None
                raise error
        return count

    def close(self) -> None:
        if not self.closed:
            self._reader.close()
            self._thread.join()
        super().close()


def piped(write: Callable[[BinaryIO], object]) -> BinaryIO:
    """Return what ``write`` writes to the file it is given, as a buffered file to read."""
    return io.BufferedReader(PipedWriter(write), 1 << 18)
