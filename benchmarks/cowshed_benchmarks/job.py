"""Job: what a worker is asked to do, and what it reports; both cross a pipe as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import attrs

from .results import Outcome


@attrs.frozen(kw_only=True)
class Job:
    """One thing for one worker process to do."""

    #: Have images in stock; do a workload and measure it; remove everything.
    phase: Literal["stock", "measure", "discard"]
    subject: str
    kind: Literal["driver", "peer", "floor"]
    #: The subject's own directory, and the one that holds the images.
    place: str
    material: str
    #: Images to have in stock.
    tags: tuple[str, ...] = ()
    workload: str = ""
    parameter: int | None = None
    #: Whether a tracer watches: then the window is marked, and nothing else counts.
    marked: bool = False
    #: For drivers: the configuration file, and settings that go over it.
    config: str | None = None
    overrides: Mapping[str, Any] = attrs.field(factory=dict[str, Any])

    def to_json(self) -> str:
        """Return it as one line."""
        return json.dumps(attrs.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Return what ``to_json`` wrote."""
        fields: dict[str, Any] = json.loads(text)
        fields["tags"] = tuple(fields["tags"])
        return cls(**fields)


@attrs.frozen(kw_only=True)
class Report:
    """What became of a job; the measures as in ``results.Sample``."""

    outcome: Outcome
    reason: str = ""
    wall: float | None = None
    cpu: float | None = None
    peak_memory: int | None = None
    disk: int | None = None
    inodes: int | None = None
    written: int | None = None
    operations: int = 1
    extra: Mapping[str, float] = attrs.field(factory=dict[str, float])
    #: Seconds that getting ready and clearing up took.
    around: float = 0.0
    #: Whether it was ended because it took too long.
    killed: bool = False

    def to_json(self) -> str:
        """Return it as one line."""
        return json.dumps(attrs.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Return what ``to_json`` wrote. ValueError, TypeError: it isn't a report."""
        return cls(**json.loads(text))


def failed(reason: str) -> Report:
    """Report a failure."""
    return Report(outcome="failed", reason=reason)
