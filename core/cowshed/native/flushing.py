"""Flusher: the disk writes while the processor reads, inflates and hashes.

Left to itself the kernel waits for memory to fill or 30 s to pass, and the one syncfs(2) at the end
waits for everything. An import of 627 MB in 25,000 entries took 0.67 to 0.83 of the time with this
(three pairs, one after the other; 10.9 s against 16.1 s in the quietest).
"""

from __future__ import annotations

import os
import threading

from .syscalls import syncfs

#: Bytes after which a flush is worth a commit of the file system's journal.
_ENOUGH = 32 << 20


class Flusher:
    """Flushes the file system behind ``descriptor`` in a thread, from time to time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting = 0
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def wrote(self, size: int) -> None:
        """Note ``size`` bytes more. A flush still under way is not joined by another."""
        self._waiting += size
        if self._waiting >= _ENOUGH and (self._thread is None or not self._thread.is_alive()):
            self._waiting = 0
            self._thread = threading.Thread(
                target=self._flush, args=(os.dup(self._descriptor),), daemon=True
            )
            self._thread.start()

    def _flush(self, descriptor: int) -> None:
        try:
            syncfs(descriptor)
        except OSError as error:
            # Linux tells of a write error once: it must not get lost here.
            self._error = error
        finally:
            os.close(descriptor)

    def finish(self) -> None:
        """Wait for a flush under way. OSError: one has failed."""
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
