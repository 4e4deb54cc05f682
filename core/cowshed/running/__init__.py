"""Running: real processes in a container's file system, without a daemon.

    container.run(["make", "test"])                       # the container's first process
    container.exec(["ps"])                                # beside it, or as its first
    container.bundle("/tmp/bundle")                       # for somebody else to run

``options`` is what a person asks, ``process`` what that and the image's config come to, ``spec``
the bundle's config.json, ``choosing`` and ``runtimes`` who starts it, ``supervising`` and
``terminal`` what is between it and us, ``registry`` what ``ps`` knows of it, and ``runs`` puts them
together. What is looked up inside the container (users, programs, mount points) is looked up by
``rootfs``, which no link leads out of; ``stubs`` are the mount points that an image lacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .options import Options, Volume
    from .runs import Runs
    from .supervising import Ended, Streams

__all__ = ["Ended", "Options", "Runs", "Streams", "Volume"]


def __getattr__(name: str) -> object:
    # ``cowshed ps`` reads the registry and needs nothing else.
    from importlib import import_module

    modules = {"Options": "options", "Volume": "options", "Runs": "runs"}
    module = modules.get(name, "supervising")
    if name not in __all__:
        raise AttributeError(name)
    return getattr(import_module(f".{module}", __package__), name)
