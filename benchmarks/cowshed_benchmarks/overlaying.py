"""overlayfs's prepare and mount, and its fork, beside the bare system calls for the same.

    python -m cowshed_benchmarks.overlaying [--work DIR] [--rounds N]

Bare is a container's directories, and a mount of them over an image's made by the calls that
the driver uses (fsopen, fsconfig, fsmount, move_mount) with the same options; of a fork, the four
directories that two containers need and the exchange that leaves what was written below both. It
knows no IDs, owners, locks, or who else uses the store. Both do it without waiting for the disk,
and with: then the driver syncs what it has to, bare every directory that it made or put a name in
(fsync(2)). They take turns, a container at a time. Needs root.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from cowshed.config import load_config
from cowshed.driver import Driver, OwnMount, make_options
from cowshed.entry import Entry, Kind
from cowshed.interface import load_driver, probe
from cowshed.native.overlays import attach, detach, mount
from cowshed.native.syscalls import OPEN_DIRECTORY, exchange, sync_directory
from cowshed.plugin_manager import Plugins

_LAYERS = 5

#: Goes on twice: what comes between is measured, what comes before and after isn't.
_Act = Callable[[], Iterator[None]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="cowshed_benchmarks.overlaying", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--work", type=Path, help="directory on the file system to measure on")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="cow-", dir=options.work) as work:
        root = Path(work, "driver")
        root.mkdir(mode=0o700)
        plugins = Plugins()
        plugins.load(load_config())
        spec = plugins.drivers.find("overlayfs")
        reason = probe(spec, root)
        if reason:
            print(reason, file=sys.stderr)
            return 1
        with load_driver(spec)(root, make_options(spec, {})) as driver:
            ours, bare = _Ours(driver, work), _Bare(work)
            print(f"{'':32}{'driver':>8}{'bare':>8}   ms, medians of {options.rounds}")
            for durable in (False, True):
                driver.durable = bare.durable = durable
                synced = "synced" if durable else "not synced"
                for name, acts in (
                    ("prepare and mount", (ours.mount, bare.mount)),
                    ("fork", (ours.fork, bare.fork)),
                ):
                    one, other = _medians(acts, options.rounds)
                    said = f"{one * 1000:8.3f}{other * 1000:8.3f}   {one / other:.2f}×"
                    print(f"{name:20}{synced:12}{said}")
    return 0


def _medians(acts: Sequence[_Act], rounds: int) -> list[float]:
    """Return the median of the seconds that each takes, in turn."""
    times: list[list[float]] = [[] for _ in acts]
    for _ in range(rounds):
        for act, taken in zip(acts, times, strict=True):
            taken.append(_timed(act()))
    return [statistics.median(taken) for taken in times]


def _timed(act: Iterator[None]) -> float:
    next(act)
    start = time.perf_counter()
    next(act)
    taken = time.perf_counter() - start
    next(act, None)
    return taken


class _Ours:
    """Asks the driver."""

    def __init__(self, driver: Driver, place: str) -> None:
        self._driver, self._place = driver, place
        self._top: str | None = None
        for level in range(_LAYERS):
            with driver.stage(self._top) as stage:
                stage.add(Entry(path=f"d{level}", kind=Kind.DIRECTORY, mode=0o755))
                self._top = _new()
                stage.seal(self._top)

    def mount(self) -> Iterator[None]:
        container = _new()
        target = os.path.join(self._place, container)
        os.mkdir(target)
        yield
        self._driver.prepare(container, self._top)
        attachment = self._driver.attach(container)
        assert isinstance(attachment, OwnMount)
        attachment.mount(target)
        yield
        attachment.unmount(target)
        os.rmdir(target)
        self._driver.remove(container)

    def fork(self) -> Iterator[None]:
        container, new = _new(), _new()
        self._driver.prepare(container, self._top)
        with self._driver.tree(container, writable=True) as tree:
            tree.write_bytes("written", b"something")
        yield
        self._driver.fork(container, new)
        yield
        self._driver.remove_many([container, new])


class _Bare:
    """Asks the kernel."""

    durable = True

    def __init__(self, place: str) -> None:
        self._place = os.path.join(place, "bare")
        self._lowers = [os.path.join(self._place, f"layer{n}") for n in range(_LAYERS)]
        for level, layer in enumerate(self._lowers):
            os.makedirs(os.path.join(layer, f"d{level}"))

    def mount(self) -> Iterator[None]:
        home, target = (os.path.join(self._place, _new()) for _ in range(2))
        os.mkdir(target)
        yield
        upper, work = self._make(home), os.path.join(home, "work")
        os.mkdir(work)
        with ExitStack() as opened:
            above, at, *lowers = (
                _opened(opened, directory) for directory in (upper, work, *self._lowers)
            )
            mounted = mount(lowers, upper=above, work=at, volatile=not self.durable)
            opened.callback(os.close, mounted)
            attach(mounted, target)
        self._sync(upper, home)
        yield
        detach(target)
        os.rmdir(target)
        shutil.rmtree(home)

    def fork(self) -> Iterator[None]:
        home, new, frozen = (os.path.join(self._place, _new()) for _ in range(3))
        Path(self._make(home), "written").write_bytes(b"something")
        yield
        made = [self._make(new), new, self._make(frozen), frozen]
        exchange(home, frozen)
        self._sync(*made)
        yield
        for directory in (home, new, frozen):
            shutil.rmtree(directory)

    def _make(self, home: str) -> str:
        """Make a container's directories; return the one for what is written in it."""
        upper = os.path.join(home, "diff")
        os.mkdir(home)
        os.mkdir(upper)
        return upper

    def _sync(self, *made: str) -> None:
        for directory in (*made, self._place) if self.durable else ():
            sync_directory(directory)


def _opened(stack: ExitStack, directory: str) -> int:
    descriptor = os.open(directory, OPEN_DIRECTORY)
    stack.callback(os.close, descriptor)
    return descriptor


def _new() -> str:
    return os.urandom(32).hex()


if __name__ == "__main__":
    sys.exit(main())
