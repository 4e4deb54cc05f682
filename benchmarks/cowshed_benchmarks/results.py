"""Results: everything that one run of ``cowshed bench`` found out, and its form on disk.

A run is one JSON file. It holds every sample, not only medians, so that whoever compares two runs
can judge the spread; and enough about machine, versions and input to tell whether comparing them
means anything. Seconds and bytes throughout. What wasn't or couldn't be measured is None, never 0.
"""

from __future__ import annotations

import functools
import json
import math
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast

import attrs

from cowshed.errors import CowshedError

#: Grows when what a reader of an older file knows is no longer true of a new one. Fields may be
#: added without it; a reader takes no notice of those it doesn't know.
FORMAT = 1

#: How the reason begins of samples that were skipped only because the run had to end: those say
#: nothing about their subject.
OUT_OF_TIME = "the run's time"

Outcome = Literal["ok", "skipped", "failed"]
Group = Literal["import", "containers", "writing", "reading", "changes", "removal", "parallel"]
#: The fields of a sample that can lead: which one answers the workload's question.
Metric = Literal["wall", "cpu", "peak_memory", "disk", "inodes", "written", "syncs"]

Record = TypeVar("Record")


class ResultError(CowshedError):
    """A result file that can't be read; the message names it and says what is wrong."""


@attrs.frozen(kw_only=True)
class Machine:
    """What the run ran on."""

    cpu: str
    cores: int
    memory: int
    kernel: str
    #: File system of the directory that subjects kept their data in, as ``ext4 on /dev/sda1``.
    file_system: str
    python: str
    #: Whether it ran as root: caches could be dropped, file systems mounted.
    privileged: bool
    #: Runnable processes, averaged over the minute before the start (``/proc/loadavg``).
    load: float


@attrs.frozen(kw_only=True)
class ImageFacts:
    """One image that was worked on."""

    reference: str
    layers: int
    #: Bytes of all files of all layers, and how many entries these have.
    unpacked: int
    entries: int
    #: Bytes of its layers as they came, compressed or not.
    compressed: int


@attrs.frozen(kw_only=True)
class Input:
    """What was worked on."""

    title: str
    images: tuple[ImageFacts, ...]
    #: What a synthetic input was drawn from; None: it wasn't drawn.
    seed: int | None = None


@attrs.frozen(kw_only=True)
class Subject:
    """Who was measured: a driver, a peer, or the floor that bare system calls set."""

    name: str
    kind: Literal["driver", "peer", "floor"]
    version: str
    #: ``yes``, ``no``, or in one sentence how far what it did had reached the disk.
    durable: str
    #: The plugin that brings a driver; empty for others.
    plugin: str = ""
    #: Where its data lay if not in the run's own directory, as ``xfs on a loop device``.
    place: str = ""


@attrs.frozen(kw_only=True)
class Workload:
    """What was asked of the subjects."""

    name: str
    title: str
    #: What whoever reads the results learns from it.
    question: str
    group: Group
    metric: Metric = "wall"
    #: What was counted where it was run at several sizes: ``containers``, ``layers``, ``versions``.
    parameter: str = ""
    #: Whether the window ended with a flush of the file system for all alike; None: each did as
    #: its ``Subject.durable`` says.
    durable: bool | None = None
    cache: Literal["cold", "warm", ""] = ""


@attrs.frozen(kw_only=True)
class Sample:
    """One subject did one workload once, in a process of its own."""

    subject: str
    workload: str
    parameter: int | None = None
    #: Which repetition, from 0; and which place in the order of the whole run.
    round: int
    order: int
    outcome: Outcome
    #: Why it was skipped, or how it failed, in one line; empty if it is ok.
    reason: str = ""
    #: Seconds that passed, and that processors worked: of the process and all it waited for.
    wall: float | None = None
    cpu: float | None = None
    #: Largest resident set among the process and all it waited for.
    peak_memory: int | None = None
    #: How much more was allocated on disk after than before; less is negative.
    disk: int | None = None
    inodes: int | None = None
    #: Bytes that the process and all it waited for caused to be written.
    written: int | None = None
    #: Calls of fsync, fdatasync, msync, sync, syncfs and sync_file_range.
    syncs: int | None = None
    #: Over how many equal operations ``wall`` and the others sum.
    operations: int = 1
    extra: Mapping[str, float] = attrs.field(factory=dict[str, float])


@attrs.frozen(kw_only=True)
class Run:
    """One run of the suite."""

    format: int = FORMAT
    #: ISO 8601, UTC.
    started: str
    finished: str
    command: tuple[str, ...]
    machine: Machine
    versions: Mapping[str, str]
    input: Input
    options: Mapping[str, object]
    subjects: tuple[Subject, ...]
    workloads: tuple[Workload, ...]
    samples: tuple[Sample, ...]

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            aside.write_text(json.dumps(attrs.asdict(self), indent=1, allow_nan=False) + "\n")
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> Run:
    """Read a run.

    Raises:
        ResultError: it isn't one, is damaged, or was written by a newer Cowshed.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise ResultError(f"{os.fspath(path)}: {error.strerror}") from None
    try:
        return parse(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ResultError(
            f"{os.fspath(path)} is no result of 'cowshed bench': {error or 'too deep'}"
        ) from None
    except ResultError as error:
        raise ResultError(f"{os.fspath(path)}: {error}") from None


def parse(document: object) -> Run:
    """Make a run of parsed JSON; ResultError as ``load``."""
    if not isinstance(document, dict) or "format" not in document:
        raise ResultError("it is no result of 'cowshed bench': it says no format")
    found: object = cast("dict[str, object]", document)["format"]
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise ResultError(f"its format is {found!r:.100}, not a number from 1")
    if found > FORMAT:
        raise ResultError(
            f"it has format {found}, this Cowshed reads up to {FORMAT}; upgrade Cowshed"
        )
    run = _record(Run, cast("dict[str, object]", document), "")
    subjects = {subject.name for subject in run.subjects}
    workloads = {workload.name for workload in run.workloads}
    for number, sample in enumerate(run.samples):
        if sample.subject not in subjects or sample.workload not in workloads:
            raise ResultError(
                f"samples[{number}] is of {sample.subject!r:.100} doing {sample.workload!r:.100}, "
                "which the run doesn't list"
            )
    return run


# -- from JSON to records: every field is looked at, so that no reader meets a surprise later -----


def _record(kind: type[Record], value: object, where: str) -> Record:
    if not isinstance(value, dict):
        raise _wrong(where, value, "an object")
    found = cast("dict[str, object]", value)
    hints = _hints(cast(Any, kind))
    arguments: dict[str, object] = {}
    for field in attrs.fields(cast(Any, kind)):
        inside = f"{where}.{field.name}" if where else field.name
        if field.name in found:
            arguments[field.name] = _value(hints[field.name], found[field.name], inside)
        elif field.default is attrs.NOTHING:
            raise ResultError(f"{inside} is missing")
    return kind(**arguments)


@functools.cache  # a second for every 3,000 samples otherwise
def _hints(kind: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _value(hint: Any, value: object, where: str) -> object:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is object:
        return value
    if attrs.has(hint):
        return _record(hint, value, where)
    if origin in (Union, types.UnionType):  # always with None
        return None if value is None else _value(inner[0], value, where)
    if origin is Literal:
        if value not in inner:
            raise _wrong(where, value, f"one of {', '.join(map(repr, inner))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(where, value, "a list")
        items = cast("list[object]", value)
        return tuple(_value(inner[0], one, f"{where}[{at}]") for at, one in enumerate(items))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise _wrong(where, value, "an object")
        pairs = cast("dict[str, object]", value)
        return {name: _value(inner[1], one, f"{where}.{name}") for name, one in pairs.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise _wrong(where, value, _WORDS[hint])
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(where, value, "a finite number")
    return value


_WORDS = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}


def _wrong(where: str, value: object, wanted: str) -> ResultError:
    return ResultError(f"{where or 'it'} is {value!r:.100}, not {wanted}")
