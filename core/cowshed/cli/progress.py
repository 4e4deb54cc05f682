"""Progress of imports: bars on a terminal, a line for each layer elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .output import line, size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ..importing import LayerEvent, Listener


@contextmanager
def import_listener(*, silent: bool) -> Generator[Listener | None, None, None]:
    """Give the listener that an import should tell of its layers; None: nobody wants to know."""
    if silent:
        yield None
    elif sys.stdout.isatty():
        from rich.console import Console  # 90 ms, and only a person at a terminal waits for it
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TransferSpeedColumn,
        )

        columns = (
            TextColumn("{task.fields[layer]}: {task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
        )
        with Progress(*columns, console=Console(), transient=True) as progress:
            yield _Bars(progress)
    else:
        yield _tell_line


def label(event: LayerEvent) -> str:
    """Return how a layer is called: its ID as Docker shortens it, or its place."""
    if not event.layer:
        return f"layer {event.index + 1}/{event.count}"
    algorithm, _, digits = event.layer.rpartition(":")
    return f"{algorithm or 'sha256'}:{digits[:12]}"


def _tell_line(event: LayerEvent) -> None:
    if event.state == "exists":
        line(f"{label(event)} exists")
    elif event.state == "done":
        line(f"{label(event)} imported {size(event.size)}")
    sys.stdout.flush()


class _Bars:
    """One bar for the layer being read; a line for each that is done."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def __call__(self, event: LayerEvent) -> None:
        progress = self._progress
        if event.state == "reading":
            if self._task is None:
                self._task = progress.add_task("Importing", layer=label(event), total=event.total)
            progress.update(self._task, completed=event.read)
            return
        if self._task is not None:
            progress.remove_task(self._task)
            self._task = None
        said = "Already exists" if event.state == "exists" else f"Imported {size(event.size)}"
        progress.console.print(f"{label(event)}: {said}", markup=False, highlight=False)
