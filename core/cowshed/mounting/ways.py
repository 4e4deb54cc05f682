"""Ways: what the driver says of a container becomes a mount at a directory."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..driver import Attachment, LayerContents, NativeDirectory, OwnMount
from ..errors import StoreError
from . import kernel
from .lowers import Lower, in_place
from .registry import How, Record

if TYPE_CHECKING:
    from ..shed import Shed

_AS_ROOT = "run as root, or in a user namespace with mounts of its own (unshare -Urm)"


class Way(Protocol):
    """One way to show one container."""

    @property
    def how(self) -> How: ...

    @property
    def native(self) -> str | None:
        """The directory itself, where it needs no mount."""

    @property
    def lower(self) -> Lower | None:
        """What an upper directory of ours is merged with, if there is one."""

    @property
    def over(self) -> str:
        """The layer that is, or nothing."""
        ...

    def mount(self, path: str, *, read_only: bool, discard: bool) -> None:
        """Make it visible at ``path``, an existing directory. ``discard``: what is written there
        needn't reach the disk."""


class Native(NamedTuple):
    """The driver's directory, bound elsewhere if somebody wants it there."""

    native: str
    how: How = "native"
    lower: None = None
    over: str = ""

    def mount(self, path: str, *, read_only: bool, discard: bool) -> None:
        kernel.bind(self.native, path)


class Own(NamedTuple):
    """The driver's own mount."""

    by: OwnMount
    how: How = "overlay"
    native: str | None = None
    lower: None = None
    over: str = ""

    def mount(self, path: str, *, read_only: bool, discard: bool) -> None:
        mount = (discard and self.by.mount_unsynced) or self.by.mount
        mount(path)


def choose(shed: Shed, driver: str, container: str, chain: str, *, read_only: bool) -> Way:
    """Return the way that suits the container best, of those that can be gone here.

    Raises:
        StoreError: none can; says what is missing.
    """
    attachment = shed.driver(driver).attach(container, read_only=read_only)
    match attachment:
        case NativeDirectory(path=path, faithful=True, tells_owners=told) if told or not _fuse():
            return Native(path)
        case OwnMount():
            return Own(attachment)
        case _:
            pass
    from .layered import Layered  # with all that brings changes back and forth

    lower = _lower(shed, driver, chain, attachment)
    return Layered(
        shed=shed,
        driver=driver,
        container=container,
        lower=lower,
        over=chain,
        home=shed.mounting.registry.home(container),
        how="fuse" if lower.served else "overlay",
    )


def _fuse() -> bool:
    return os.access("/dev/fuse", os.R_OK | os.W_OK)


def _lower(shed: Shed, driver: str, chain: str, attachment: Attachment | None) -> Lower:
    """Return what the container's changes are merged with.

    The FUSE server is what files in a driver's store are read by unless the configuration says
    otherwise: it reads what is touched, and what was read once is read from the kernel's cache
    either way. Unpacking an image of 150 MB before anybody runs takes seconds and its space.
    """
    lowers = shed.mounting.lowers
    way = shed.config["mount"]["way"]
    found: Lower | None = None
    if not chain:
        return lowers.nothing()
    if isinstance(attachment, LayerContents) and way != "fuse":
        found = lowers.by_erofs(driver, chain, attachment.directory, in_place)
    elif way == "cache" or not os.path.exists("/dev/fuse"):
        found = lowers.by_cache(driver, chain)
        if found is None and way == "cache":
            raise StoreError(
                "no cache of files can be mounted: it takes root, Linux 6.12 with EROFS, and a "
                'mount.cache_size that the image fits in; choose mount.way = "fuse"'
            )
    if found is None:
        served = lowers.by_fuse(driver, chain)
        found = lowers.by_erofs(driver, chain, served.path, in_place) or served
    return found


def take_down(shed: Shed, record: Record) -> None:
    """Undo what a way's ``mount`` did, whoever still uses it."""
    attachment = None
    if record.how == "overlay" and not record.layered:
        attachment = shed.driver(record.driver).attach(record.container, read_only=record.read_only)
    if isinstance(attachment, OwnMount):
        attachment.unmount(record.path)
    else:
        kernel.unmount(record.path, lazily=True)


def explained(error: OSError, shed: str, path: str, how: How) -> StoreError:
    """Say in one sentence why nothing of the shed at ``shed`` could be mounted at ``path``."""
    if error.errno in kernel.REFUSED:
        return StoreError(f"mounting needs privilege; {_AS_ROOT}")
    said = error.strerror or os.strerror(error.errno or 0)
    if error.errno == errno.EINVAL and "upperdir" in said:
        return StoreError(
            f"{shed} lies on {kernel.kind_at(shed)}, which can't hold what is written in an "
            "overlay; move the shed to another file system (in a container: to a volume), or "
            "choose driver naive-copy"
        )
    if error.errno == errno.ENODEV:
        return StoreError(f"this kernel has no {how} file system")
    return StoreError(f"can't mount at {path}: {said}")
