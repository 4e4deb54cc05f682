"""Directories on file systems that the machine's own disk may not be."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .filesystems import Unavailable, given, mounted

#: ``--thorough``, for the conformance kit.
pytest_plugins = ["cowshed.testing.plugin"]


def pytest_configure() -> None:
    """Let fixtures take down what they mounted when the session is ended, as by timeout(1)."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


#: Returns the root of a file system of the kind given, mounted with the options given.
Mount = Callable[..., Path]


@pytest.fixture(scope="session")
def mount() -> Iterator[Mount]:
    """Mount a file system when it is first asked for, until the session (of this worker) ends.

    Skips the test where that can't be done.
    """
    known: dict[tuple[str, ...], Path | Unavailable] = {}
    with ExitStack() as stack:

        def mount_it(kind: str, *options: str) -> Path:
            key = (kind, *options)
            if key not in known:
                ready = given(kind) if not options else None
                try:
                    known[key] = ready or stack.enter_context(mounted(kind, *options))
                except Unavailable as error:
                    known[key] = error
            found = known[key]
            if isinstance(found, Unavailable):
                pytest.skip(str(found))
            return found

        yield mount_it


@pytest.fixture
def xfs(mount: Mount) -> Iterator[Path]:
    """A fresh directory on XFS. A class of tests may call its own ``tmp_path`` by it."""
    yield from _fresh(mount("xfs"))


@pytest.fixture
def btrfs(mount: Mount) -> Iterator[Path]:
    """A fresh directory on btrfs."""
    yield from _fresh(mount("btrfs"))


@pytest.fixture
def ext4(mount: Mount) -> Iterator[Path]:
    """A fresh directory on ext4."""
    yield from _fresh(mount("ext4"))


def _fresh(root: Path) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir=root))
    yield path
    shutil.rmtree(path, ignore_errors=True)
