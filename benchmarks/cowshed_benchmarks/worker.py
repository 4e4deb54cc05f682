"""Worker: the fresh process that does one job.

    python -m cowshed_benchmarks.worker < JOB

prints its report as one line of JSON. Whatever else is printed goes to standard error. Everything
that isn't measured is done before and after the window in this same process, so that the window
has nothing in it but the work: no start of an interpreter, no import, no opening of a store.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Generator
from pathlib import Path

from .actors.actor import Actor, Unable
from .actors.material import Material
from .job import Job, Report, failed
from .measuring import Window
from .space import clear
from .subjects import actor_for
from .workloads import WORKLOADS


def main() -> int:
    """Do the job that standard input describes."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    job = Job.from_json(sys.stdin.read())
    try:
        report = do(job)
    except Unable as error:
        report = Report(outcome="skipped", reason=str(error))
    except Exception as error:  # whatever a driver or a peer does
        if os.environ.get("COWSHED_DEBUG"):
            raise
        report = failed(in_one_line(error))
    answer.write(report.to_json())
    answer.flush()
    return 0


def do(job: Job) -> Report:
    """Do a job; what goes wrong is raised."""
    if job.phase == "discard":
        actor = actor_for(job, Path(job.place, "stock"), Material(Path(job.material)))
        actor.discard()
        clear(Path(job.place))
        return Report(outcome="ok")
    if job.phase == "stock":
        return _stock(job)
    return _measure(job)


def _stock(job: Job) -> Report:
    actor = actor_for(job, Path(job.place, "stock"), Material(Path(job.material)))
    with _started(actor):
        for tag in job.tags:
            actor.stock(tag)
    return Report(outcome="ok")


def _measure(job: Job) -> Report:
    kind = WORKLOADS[job.workload]
    place = Path(job.place, "fresh" if kind.fresh else "stock")
    if kind.fresh:
        clear(place)
    actor = actor_for(job, place, Material(Path(job.material)))
    try:
        with _started(actor):
            began = time.perf_counter()
            work = kind(actor, job.parameter)
            try:
                work.prepare()
                flush = kind.flush == "all" or (kind.flush == "others" and not actor.syncs)
                window = Window(
                    flush=actor.store if flush else None,
                    marked=job.marked,
                    daemons=actor.daemons,
                )
                before = actor.space()
                window.begin()
                work.run()
                measures = window.end()
                work.leave()
                after = actor.space()
            except BaseException:
                # Others use the store after us; how it failed matters more than what follows.
                with contextlib.suppress(Exception):
                    work.leave()
                    work.settle()
                raise
            work.settle()
            around = time.perf_counter() - began - measures.wall
    finally:
        if kind.fresh:
            actor.discard()
            clear(place)
    return Report(
        outcome="ok",
        wall=measures.wall,
        cpu=measures.cpu,
        peak_memory=measures.peak_memory,
        written=measures.written,
        disk=after.bytes - before.bytes,
        inodes=after.inodes - before.inodes,
        operations=work.operations,
        extra=work.extra,
        around=around,
    )


@contextlib.contextmanager
def _started(actor: Actor) -> Generator[None]:
    actor.store.parent.mkdir(parents=True, exist_ok=True)
    actor.start()
    try:
        yield
    finally:
        actor.stop()


def in_one_line(error: BaseException) -> str:
    """Return what an exception says."""
    text = " ".join(str(error).split())
    known = type(error).__module__.startswith("cowshed") or isinstance(error, OSError)
    name = type(error).__name__
    return (text if known and text else f"{name}: {text}" if text else name)[:500]


if __name__ == "__main__":
    sys.exit(main())
