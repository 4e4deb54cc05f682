"""Journal: what a tree does in several steps, so that a kill leaves it done or not begun.

    ROOT/journal/CONTAINER.RANDOM    JSON; written before the first step, gone after the last

Two things take several steps: joining, when the names of a lower file, which the kernel would copy
up one by one, all become names of the copy; and moving a directory that is in a lower layer, which
the kernel refuses.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from cowshed.native.syscalls import sync_directory

JOURNAL = "journal"

Notice = dict[str, Any]


class Journal:
    """One notice about one container."""

    def __init__(self, store: str, container: str, *, durable: bool) -> None:
        self._directory = os.path.join(store, JOURNAL)
        self._path = os.path.join(self._directory, f"{container}.{os.urandom(8).hex()}")
        self._durable = durable

    def note(self, notice: Notice) -> None:
        """Write the notice, or replace it, at once."""
        aside = f"{self._path}.new"
        with open(aside, "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o600)  # whatever the umask
            json.dump(notice, file)
            if self._durable:
                file.flush()
                os.fsync(file.fileno())
        os.rename(aside, self._path)
        if self._durable:
            sync_directory(self._directory)

    def done(self) -> None:
        """Take the notice away."""
        os.unlink(self._path)


def notices(store: str) -> Iterator[tuple[str, str, Notice | None]]:
    """Yield container, path and content (None: it was never finished) of every notice."""
    directory = os.path.join(store, JOURNAL)
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        container, _, rest = name.rpartition(".")
        if rest == "new":
            yield container.rpartition(".")[0], path, None
            continue
        try:
            with open(path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            continue
        try:
            notice = json.loads(content)
        except ValueError:  # the power failed before a store without durability wrote it
            notice = None
        yield container, path, notice
