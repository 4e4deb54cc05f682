"""Layered: a container as the kernel's merge of its layer and an upper directory of ours."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..native.overlays import FREELY, attach, mount
from ..native.syscalls import make_directory, syncfs
from .absorbing import UPPER
from .filling import fill
from .format import format_here
from .lowers import Lower
from .registry import How

if TYPE_CHECKING:
    from ..shed import Shed

WORK = "work"
#: What will be the upper directory, until it is full.
FILLING = "upper.new"

#: For directories on which the kernel, not we, follows a path.
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Layered(NamedTuple):
    """A ``Way``: the upper directory is filled with what the container has changed so far, and
    what is written into it is absorbed (``absorbing``).

    It gets its name when it is full and on the disk: absorbed half filled, it would take from the
    container what it lacks.
    """

    shed: Shed
    driver: str
    container: str
    lower: Lower
    #: Layer that the container stands on, or nothing.
    over: str
    home: Path
    how: How = "overlay"
    native: str | None = None

    def mount(self, path: str, *, read_only: bool, discard: bool) -> None:
        durable = self.shed.config.durable and not discard
        format = format_here()
        upper, work, filling = self.home / UPPER, self.home / WORK, self.home / FILLING
        for directory in (filling, work):
            make_directory(str(directory))
        driver = self.shed.driver(self.driver)
        with driver.tree(self.container) as tree:
            layer = driver.tree(self.over) if self.over else None
            try:
                memo = fill(str(filling), format, driver.changes(self.container), tree, layer)
            finally:
                if layer is not None:
                    layer.close()
        memo.write(self.home)
        if durable and not read_only:
            filled = os.open(filling, _OPEN)
            try:
                if len(memo.signs) > 1 or memo.hidden:
                    syncfs(filled)
                else:
                    os.fsync(filled)  # as most are: there is nothing in it
            finally:
                os.close(filled)
        os.rename(filling, upper)
        names = [self.lower.path, self.lower.data or None, str(upper), str(work)]
        opened = [None if name is None else os.open(name, _OPEN) for name in names]
        try:
            lower, data, up, at = opened
            assert lower is not None
            options = (("xino", "on"),) if format.user else FREELY
            mounted = mount(
                [lower],
                data=[] if data is None else [data],
                upper=up,
                work=at,
                user_xattrs=format.user,
                volatile=not durable,
                options=options,
            )
            try:
                attach(mounted, path)
            finally:
                os.close(mounted)
        finally:
            for descriptor in opened:
                if descriptor is not None:
                    os.close(descriptor)
