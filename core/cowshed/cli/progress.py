"""Progress of imports, pulls and pushes: bars on a terminal, a line for each layer elsewhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .output import line, size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ..importing import LayerEvent, Listener
    from ..saving import SavedListener
    from ..target import SavedEvent


@contextmanager
def import_listener(*, silent: bool) -> Generator[Listener | None, None, None]:
    """Give the listener that an import should tell of its layers; None: nobody wants to know."""
    if silent:
        yield None
    elif sys.stdout.isatty():
        with _progress() as progress:
            yield _Bars(progress)
    else:
        yield _tell_line


def _progress() -> Progress:
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
    return Progress(*columns, console=Console(), transient=True)


def label(event: LayerEvent) -> str:
    """Return how a layer is called: its ID as Docker shortens it, or its place."""
    if not event.layer:
        return f"layer {event.index + 1}/{event.count}"
    return _short(event.layer)


def _short(digest: str) -> str:
    algorithm, _, digits = digest.rpartition(":")
    return f"{algorithm or 'sha256'}:{digits[:12]}"


def _tell_line(event: LayerEvent) -> None:
    if event.state == "exists":
        line(f"{label(event)} exists")
    elif event.state == "done":
        line(f"{label(event)} imported {size(event.size)}")
    sys.stdout.flush()


class _Bars:
    """One bar for each layer that is being fetched or read; a line for each that is done."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[int, TaskID] = {}
        self._lock = threading.Lock()

    def __call__(self, event: LayerEvent) -> None:
        with self._lock:
            self._take(event)

    def _take(self, event: LayerEvent) -> None:
        progress = self._progress
        if event.state in ("fetching", "fetched", "reading"):
            task = self._tasks.get(event.index)
            if task is None:
                if event.state == "fetched":
                    return  # it may be done already: its reader was right behind
                task = progress.add_task("", layer=label(event), total=event.total)
                self._tasks[event.index] = task
            said = {"fetching": "Fetching", "fetched": "Fetched", "reading": "Importing"}
            progress.update(task, description=said[event.state], completed=event.read)
            return
        task = self._tasks.pop(event.index, None)
        if task is not None:
            progress.remove_task(task)
        said_last = "Already exists" if event.state == "exists" else f"Imported {size(event.size)}"
        progress.console.print(f"{label(event)}: {said_last}", markup=False, highlight=False)


@contextmanager
def sending_listener(*, silent: bool) -> Generator[SavedListener | None, None, None]:
    """Give the listener that a push or copy should tell of its layers."""
    if silent:
        yield None
    elif sys.stdout.isatty():
        with _progress() as progress:
            yield _SendingBars(progress)
    else:
        yield _sent_line


_SENT = {"exists": "Already there", "mounted": "Taken over", "sent": "Sent"}


def _sent_line(event: SavedEvent) -> None:
    if event.state in _SENT:
        amount = f" {size(event.done)}" if event.state == "sent" else ""
        line(f"{_short(event.layer)} {_SENT[event.state].lower()}{amount}")
        sys.stdout.flush()


class _SendingBars:
    """One bar for each layer on its way; a line for each that is there."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[int, TaskID] = {}
        self._lock = threading.Lock()

    def __call__(self, event: SavedEvent) -> None:
        with self._lock:
            name = _short(event.layer)
            if event.state == "sending":
                if event.index not in self._tasks:
                    self._tasks[event.index] = self._progress.add_task(
                        "Sending", layer=name, total=event.total
                    )
                self._progress.update(self._tasks[event.index], completed=event.done)
                return
            task = self._tasks.pop(event.index, None)
            if task is not None:
                self._progress.remove_task(task)
            said = _SENT[event.state]
            self._progress.console.print(f"{name}: {said}", markup=False, highlight=False)
