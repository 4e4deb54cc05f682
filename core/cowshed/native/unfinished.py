"""Unfinished: what a container's writer does in two steps, so that a kill leaves it done or undone.

    ROOT/unfinished/CONTAINER.RANDOM    there from before the first step until after the last

    make PATH                           it isn't whole yet: ``recover`` removes it
    move SOURCE DESTINATION VERSION     once the file was renamed, the sidecar has to follow, if it
                                        is still at that version
    drop PATH                           once the name is gone, the sidecar has to count one less

The words end with a NUL. A note isn't synced: a power cut may lose it, as it may lose all that was
written since the last ``sync``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress

from .syscalls import make_directory

UNFINISHED = "unfinished"


@contextmanager
def noting(home: str, *words: str, still: Callable[[], bool]) -> Generator[None]:
    """Note something about a container, ``ROOT/containers/CONTAINER``, until the block ends.

    After a failure the note stays if ``still`` says that there is something to clear up.
    """
    place, container = os.path.split(home)
    directory = os.path.join(os.path.dirname(place), UNFINISHED)
    file = os.path.join(directory, f"{container}.{os.urandom(8).hex()}")
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
    try:
        descriptor = os.open(file, flags, 0o600)
    except FileNotFoundError:  # a store from before there were notes
        make_directory(directory)
        descriptor = os.open(file, flags, 0o600)
    try:
        try:
            # One write: the note is whole, or it is empty and nothing was begun.
            os.write(descriptor, b"".join(os.fsencode(word) + b"\0" for word in words))
        except BaseException:
            os.unlink(file)
            raise
    finally:
        os.close(descriptor)
    try:
        yield
    except BaseException:
        if not still():
            os.unlink(file)
        raise
    os.unlink(file)


def unfinished(root: str) -> Iterator[tuple[str, str]]:
    """Yield the container and the file of every note."""
    directory = os.path.join(root, UNFINISHED)
    with suppress(FileNotFoundError):
        for name in os.listdir(directory):
            yield name.partition(".")[0], os.path.join(directory, name)


def noted(file: str) -> list[str]:
    """Return what a note says; nothing if it was never written."""
    with open(file, "rb") as opened:
        return [os.fsdecode(word) for word in opened.read().split(b"\0")[:-1]]
